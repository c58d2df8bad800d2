"""One row on its way down the ladder: what was tried, what comes next, and how it ends. Pure, but for the clock."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from lib.db.download_queue import REFRESH, ROBOTS_TXT, UPGRADE, Current, PendingRow
from lib.db.downloads import Outcome, Unchanged, read_log
from lib.db.duplicates import REMOVED
from lib.db.files import FileRow
from lib.domains import BLOCKED as BLOCKED_DOMAIN
from lib.domains import NOT_ALLOWED, DomainLists
from lib.download.addresses import KINDS, Address, StoredVariant, ladder
from lib.download.body import Partial
from lib.download.options import DownloadOptions
from lib.images.formats import Format, mime_mismatch
from lib.net.failures import is_transient
from lib.net.fetch import PLAIN, FetchResult, Request
from lib.net.guard import PORT_REFUSED, PRIVATE_ADDRESS
from lib.net.urls import BAD_URL, BadAddress, parse_address
from lib.times import utc_in

OPTED_OUT = "opted_out"
NO_ADDRESS = "no_address"
HOST_DOWN = "host_down"
OFFLINE = "offline"
UNLISTED = frozenset({BLOCKED_DOMAIN, NOT_ALLOWED})  # what the user's own lists say, which may change between runs
BLOCKED = UNLISTED | {PRIVATE_ADDRESS, PORT_REFUSED}
REFUSED_REFERER = frozenset({"http_401", "http_403"})
UNREACHED = frozenset({"dns_error", "connect_error", "timeout", HOST_DOWN})
DOWN_SECONDS = 900.0  # until a row whose host is down is tried again
MOST_DOWN = 3  # runs in which an address is skipped because its host is down, before it counts as failed
OFFLINE_SECONDS = 60.0
MOST_OFFLINE = 10  # runs that may find no network before a row counts as failed all the same

Ending = Outcome | Unchanged

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass
class PictureFetch:
    """A row, its rungs, and the log of what was tried: one entry an address, with its tries and last reason."""

    image_id: int
    key: str
    rungs: tuple[Address, ...]
    retries: int
    attempts: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    at: int = 0
    referer_at: int = 0
    url: URL = field(default_factory=URL)
    hop: URL | None = None  # where a redirect of `url` has led, after so many `hops`
    hops: int = 0
    elapsed_ms: int = 0  # of the requests that led there
    wish: str = ""
    current: Current | None = None
    partial: Partial | None = None
    notes: set[str] = field(default_factory=set)
    lists: DomainLists = field(default_factory=DomainLists)
    buried: str = ""  # a content that one of its addresses brought and step 6 took away

    @property
    def rung(self) -> Address:
        return self.rungs[self.at]

    @property
    def target(self) -> URL:
        """The address that is asked next: the current rung's, or where it has been redirected to."""
        return self.hop or self.url

    def follow(self, url: URL, elapsed_ms: int) -> None:
        """Goes on where a redirect leads."""
        self.hop, self.hops, self.elapsed_ms = url, self.hops + 1, self.elapsed_ms + elapsed_ms

    def restart(self) -> None:
        """The next request is for an address of the ladder, wherever an earlier one was redirected to."""
        self.hop, self.hops, self.elapsed_ms = None, 0, 0

    @property
    def more_than(self) -> int:
        """Pixels that a picture must exceed to replace what there is."""
        return self.current.pixels if self.wish == UPGRADE and self.current else 0

    def ask(self, partial: Partial | None, last: bool = False) -> Request:
        """What the next request says, with a part of the body at hand or without; `last` ends the connection."""
        referer = self.rung.referers[self.referer_at]
        if partial:
            return Request(referer, offset=partial.size, validator=partial.validator, total=partial.total, last=last)
        if self.wish == REFRESH and self.current:
            return Request(referer, self.current.etag, self.current.last_modified, last=last)
        return Request(referer, last=last) if referer or last else PLAIN

    def entry(self) -> dict[str, Any]:
        """The log's entry of the current rung, made when there is none."""
        for found in self.log:
            if found.get("variant") == self.rung.variant_id:
                return found
        self.log.append({"variant": self.rung.variant_id, "kind": self.rung.kind, "tries": 0})
        return self.log[-1]

    def note(self, reason: str, detail: str = "", status: int | None = None) -> None:
        """Writes down one try of the current rung."""
        entry = self.entry()
        entry.update(reason=reason, tries=int(entry.get("tries", 0)) + 1)
        for name, value in (("status", status), ("detail", detail)):
            entry.pop(name, None)
            if value:
                entry[name] = value

    def note_down(self) -> None:
        """Writes down that the current rung's host is down and was not asked."""
        entry = self.entry()
        entry.update(reason=HOST_DOWN, down=int(entry.get("down", 0)) + 1)
        self.at, self.referer_at = self.at + 1, 0
        self.restart()

    def is_spent(self) -> bool:
        """Whether the current rung has nothing more to give: a final answer, or no try left."""
        for found in self.log:
            if found.get("variant") == self.rung.variant_id:
                reason, tries = str(found.get("reason", "")), int(found.get("tries", 0))
                return bool(reason) and (not is_transient(reason) or tries > self.retries)
        return False

    def other_referer(self) -> bool:
        """Moves on to the rung's second Referer, if it has one."""
        self.referer_at += 1
        return self.referer_at < len(self.rung.referers)

    def next_address(self) -> URL | None:
        """The address to ask now: where a redirect has led, else the current rung's, or the next one that is neither
        spent nor unusable. What a rung says is kept in `url` too.
        """
        if self.hop is not None:
            return self.hop
        while self.at < len(self.rungs) and not self.buried:
            if not self.is_spent():
                try:
                    self.url = parse_address(self.rung.url)
                    host = self.url.raw_host or ""
                    if not (refusal := self.lists.refusal(host)):
                        return self.url
                    self.note(refusal, host)
                except BadAddress as error:
                    self.note(BAD_URL, str(error))
            self.at, self.referer_at = self.at + 1, 0
        return None

    def done(self, kept: StoredFile, answer: FetchResult) -> Outcome:
        """The row as it ends with a picture."""
        details = []
        if kept.format is not None and mime_mismatch(answer.content_type, kept.format):
            details.append(f"sent as {answer.content_type[:80]}, is {kept.format.name}")
            self.notes.add("mime_mismatch")
        if kept.trailing:
            details.append(f"{kept.trailing} bytes after its end")
            self.notes.add("trailing_bytes")
        self.note("", "; ".join(details), answer.status)
        before = self.current.sha256 if self.current else ""
        counted = "" if not self.wish else "unchanged" if kept.sha256 == before else "replaced"
        return Outcome(
            self.image_id, "done", attempts=self.attempts, variant_id=self.rung.variant_id, kind=self.rung.kind,
            http_status=answer.status, final_url=answer.final_url, content_type=answer.content_type,
            etag=answer.etag, last_modified=answer.last_modified, bytes=answer.bytes,
            elapsed_ms=self.elapsed_ms + answer.elapsed_ms,
            log=self._log(), sha256=kept.sha256, file=kept.file, restores=kept.restores,
            supersedes=before if before != kept.sha256 else "", counted=counted, notes=tuple(self.notes),
        )  # fmt: skip

    def opted_out(self, answer: FetchResult) -> Outcome:
        """The row as it ends when its owner does not want it collected: lower rungs show the same picture."""
        return Outcome(
            self.image_id, "opted_out", OPTED_OUT, self.attempts, variant_id=self.rung.variant_id,
            http_status=answer.status, final_url=answer.final_url, elapsed_ms=self.elapsed_ms + answer.elapsed_ms,
            log=self._log(),
            supersedes=self.current.sha256 if self.current else "", notes=tuple(self.notes),
        )  # fmt: skip

    def removed(self) -> Ending:
        """The row as it ends when step 6 took its content away: another copy of the picture stays."""
        if self.wish:
            return Unchanged(self.image_id, self.attempts, self._log(), counted="kept", reason=REMOVED)
        return Outcome(self.image_id, "blocked", REMOVED, self.attempts, log=self._log(), notes=tuple(self.notes))

    def not_modified(self) -> Unchanged:
        """The row as it stays when its address still has the same picture."""
        return Unchanged(self.image_id, self.attempts, self._log(), notes=tuple(self.notes))

    def exhausted(self, *, offline: bool = False) -> Ending:
        """The row as it ends when no rung gave a picture; the reason is that of the best address.

        It waits instead where that is a host's fault which is down, or (`offline`) nobody could be reached at all.
        """
        if self.buried:
            return self.removed()
        tried = self._in_order()
        reasons = [str(entry.get("reason", "")) for entry in tried]
        if reasons and any(entry.get("down", 0) < MOST_DOWN for entry in tried if entry.get("reason") == HOST_DOWN):
            return self.deferred(DOWN_SECONDS, HOST_DOWN)
        if offline and reasons and set(reasons) <= UNREACHED and self._may_wait():
            return self.deferred(OFFLINE_SECONDS, OFFLINE)
        if self.wish:
            better = [reason for reason in reasons if reason]
            return Unchanged(
                self.image_id, self.attempts, self._log(), counted="kept", reason=better[0] if better else NO_ADDRESS
            )
        state = "failed"
        if reasons and all(reason in BLOCKED for reason in reasons):
            state = "blocked"
        elif reasons and all(reason in BLOCKED | {ROBOTS_TXT} for reason in reasons):
            state = OPTED_OUT
        first = tried[0] if tried else {}
        return Outcome(
            self.image_id, state, reasons[0] if reasons else NO_ADDRESS, self.attempts,
            variant_id=first.get("variant"), http_status=first.get("status"), log=self._log(),
            notes=tuple(self.notes),
        )  # fmt: skip

    def deferred(self, seconds: float, reason: str) -> Ending:
        """The row as it waits for a later time."""
        until = utc_in(seconds)
        if self.wish:
            return Unchanged(self.image_id, self.attempts, self._log(), self.wish, until, "pending", reason)
        return Outcome(self.image_id, "pending", reason, self.attempts, until, log=self._log())

    def _may_wait(self) -> bool:
        """Counts a run without a network and takes back the tries that it cost."""
        waits = max((int(entry.get("offline", 0)) for entry in self.log), default=0) + 1
        if waits > MOST_OFFLINE:
            return False
        for entry in self.log:
            entry.update(offline=waits, tries=0)
            entry.pop("detail", None)
        return True

    def _in_order(self) -> list[dict[str, Any]]:
        places = {rung.variant_id: place for place, rung in enumerate(self.rungs)}
        tried = [entry for entry in self.log if entry.get("variant") in places]
        return sorted(tried, key=lambda entry: places[entry["variant"]])

    def _log(self) -> str:
        return _compact(self.log)


def make_job(row: PendingRow, options: DownloadOptions, now: str = "") -> PictureFetch:
    """A job from a row; what earlier runs tried is taken over. Addresses that have expired by `now` come last."""
    rungs = ladder((StoredVariant(*values) for values in row.variants), page_url=row.page_url, kinds=KINDS, now=now)
    log = read_log(row.log) if row.log != "[]" else []
    for entry in log:
        if entry.get("reason") == HOST_DOWN and entry.get("down", 0) < MOST_DOWN:
            entry["reason"] = ""
        elif entry.get("reason") in UNLISTED:
            entry.update(reason="", tries=0)
    if options.stage == "thumbs":  # what is small first
        rungs = tuple(sorted((r for r in rungs if r.kind in options.kinds), key=lambda r: options.kinds.index(r.kind)))
    elif options.stage != "all":
        rungs = tuple(rung for rung in rungs if rung.kind in options.kinds)
    if row.wish:
        rungs = _wished(row, rungs)
        if row.wish == REFRESH or options.again.upgrade:
            _reopen(log, rungs)
    return PictureFetch(
        row.image_id, row.key, rungs, options.retries, row.attempts, log, wish=row.wish, current=row.current,
        lists=options.lists, buried=row.buried,
    )  # fmt: skip


def _wished(row: PendingRow, rungs: tuple[Address, ...]) -> tuple[Address, ...]:
    """For a refresh the address that won; for an upgrade those above it."""
    won = row.current.variant_id if row.current else None
    if row.wish == REFRESH:
        return tuple(rung for rung in rungs if rung.variant_id == won)
    at = next((place for place, rung in enumerate(rungs) if rung.variant_id == won), len(rungs))
    return rungs[:at]


def _reopen(log: list[dict[str, Any]], rungs: Iterable[Address]) -> None:
    """What these addresses answered earlier does not count any more."""
    asked = {rung.variant_id for rung in rungs}
    for entry in log:
        if entry.get("variant") in asked and entry.get("reason"):
            entry.update(reason="", tries=0)
            entry.pop("detail", None)
            entry.pop("status", None)


@dataclass(frozen=True)
class StoredFile:
    """What became of a body. `reason` is empty when its content is (now) known; `file` is set when it was written.

    `trailing` counts the bytes after the picture's end.
    """

    reason: str = ""
    detail: str = ""
    sha256: str = ""
    format: Format | None = None
    file: FileRow | None = None
    restores: bool = False
    trailing: int = 0
    bytes: int = 0  # of the content
