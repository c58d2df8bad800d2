"""One row on its way through its addresses: its log, its next request, and its end. Pure, but for the clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

from yarl import URL

from lib.db.download_queue import KINDS, REFRESH, ROBOTS_TXT, UPGRADE, PendingRow, StoredVariant
from lib.db.downloads import DownloadResult, read_log
from lib.db.duplicates import REMOVED
from lib.db.files import FileRow
from lib.domains import BLOCKED as BLOCKED_DOMAIN
from lib.domains import NOT_ALLOWED
from lib.download.options import DownloadOptions
from lib.download.recovery import Partial
from lib.images.formats import Format, mime_mismatch
from lib.net.failures import TRANSIENT
from lib.net.guard import PORT_REFUSED, PRIVATE_ADDRESS
from lib.net.request import BAD_URL, PLAIN, BadAddress, FetchResult, Request, parse_address
from lib.times import utc_in

OPTED_OUT = "opted_out"
NO_ADDRESS = "no_address"
HOST_DOWN = "host_down"
OFFLINE = "offline"
UNLISTED = frozenset({BLOCKED_DOMAIN, NOT_ALLOWED})  # what the user's own lists say, which may change between runs
BLOCKED = UNLISTED | {PRIVATE_ADDRESS, PORT_REFUSED}
UNREACHED = frozenset({"dns_error", "connect_error", "timeout", HOST_DOWN})
DOWN_SECONDS = 900.0  # until a row whose host is down is tried again
MOST_DOWN = 3  # runs in which an address is skipped because its host is down, before it counts as failed
OFFLINE_SECONDS = 60.0
MOST_OFFLINE = 10  # runs that may find no network before a row counts as failed all the same

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Address:
    """One address to try. The first Referer is sent; the second, if any, after the server has answered 403."""

    variant_id: int
    kind: str
    url: str
    referers: tuple[str, ...] = ("",)


def address_order(
    variants: Iterable[StoredVariant], *, page_url: str = "", kinds: Sequence[str] = KINDS, now: str = ""
) -> tuple[Address, ...]:
    """The addresses in the order in which they are tried, each URL once.

    Kind comes first (original, preview, dup, thumb), then the claimed area downward, since the engines' sizes are
    claims but mostly right; an address that has expired by `now` goes to the end of its kind.
    """

    def order(variant: StoredVariant) -> tuple[int, bool, int, int, int]:
        expired = bool(variant.expires_at and now and variant.expires_at <= now)
        area = (variant.width or 0) * (variant.height or 0)
        return kinds.index(variant.kind), expired, -area, -(variant.bytes or 0), variant.id

    found: dict[str, Address] = {}
    for variant in sorted((variant for variant in variants if variant.kind in kinds), key=order):
        if variant.url not in found:
            found[variant.url] = Address(variant.id, variant.kind, variant.url, referers(variant.referer, page_url))
    return tuple(found.values())


def referers(stored: str, page_url: str) -> tuple[str, ...]:
    """The Referers to send: the stored Referer as it is, else the page's origin; then the other way round.

    A full page address is sent only where the origin was refused: it tells the picture's host more than it needs.
    """
    if stored:
        return (stored, "")
    origin = _origin(page_url)
    return (origin, page_url) if origin and origin != page_url else ("",)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/" if parts.scheme in ("http", "https") else ""


def make_fetch(row: PendingRow, options: DownloadOptions, now: str = "") -> PictureFetch:
    """The fetch of a row; what earlier runs tried is taken over. Addresses that have expired by `now` come last."""
    log = read_log(row.log) if row.log != "[]" else []
    for entry in log:
        if entry.get("reason") == HOST_DOWN and entry.get("down", 0) < MOST_DOWN:
            entry["reason"] = ""
        elif entry.get("reason") in UNLISTED:
            entry.update(reason="", tries=0)
    kinds = options.kinds
    found = (one for one in address_order(row.variants, page_url=row.page_url, now=now) if one.kind in kinds)
    addresses = sorted(found, key=lambda one: kinds.index(one.kind))
    won = row.current.variant_id if row.current else None
    if row.recheck == REFRESH:
        addresses = [address for address in addresses if address.variant_id == won]
    elif row.recheck == UPGRADE:
        addresses = list(takewhile(lambda address: address.variant_id != won, addresses))
    if row.recheck == REFRESH or (row.recheck and options.again.upgrade):
        _clear_answers(log, addresses)
    return PictureFetch(row, addresses, options, row.attempts, log)


def _clear_answers(log: list[dict[str, Any]], addresses: list[Address]) -> None:
    """Forgets what these addresses answered earlier."""
    asked = {address.variant_id for address in addresses}
    for entry in log:
        if entry.get("variant") in asked and entry.get("reason"):
            entry.update(reason="", tries=0)
            entry.pop("detail", None)
            entry.pop("status", None)


@dataclass
class PictureFetch:
    """A row, its addresses, and the log of what was tried: one entry an address, with its tries and last reason."""

    row: PendingRow
    addresses: list[Address]
    options: DownloadOptions
    attempts: int
    log: list[dict[str, Any]]
    index: int = 0
    referer_index: int = 0
    url: URL = field(default_factory=URL)
    hop: URL | None = None  # where a redirect of `url` has led, after so many `hops`
    hops: int = 0
    elapsed_ms: int = 0  # of the requests that led there
    partial: Partial | None = None
    notes: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        return self.row.key

    @property
    def address(self) -> Address:
        return self.addresses[self.index]

    @property
    def target(self) -> URL:
        """The URL that is asked next: the current address's, or where it has been redirected to."""
        return self.hop or self.url

    @property
    def more_than(self) -> int:
        """Pixels that a picture must exceed to replace what there is."""
        return self.row.current.pixels if self.row.recheck == UPGRADE and self.row.current else 0

    def next_url(self) -> URL | None:
        """The URL to ask now: where a redirect has led, else that of the first address from the current one on that is
        neither used up nor unusable. None where there is no more.
        """
        if self.hop is not None:
            return self.hop
        while self.index < len(self.addresses) and not self.row.removed_before:
            if not self.is_used_up():
                try:
                    self.url = parse_address(self.address.url)
                    host = self.url.raw_host or ""
                    if not (refusal := self.options.lists.refusal(host)):
                        return self.url
                    self.note(refusal, host)
                except BadAddress as error:
                    self.note(BAD_URL, str(error))
            self.index, self.referer_index = self.index + 1, 0
        return None

    def is_used_up(self) -> bool:
        """Tells if the current address has nothing more to give: a final answer, or no try left."""
        entry = self._find_entry() or {}
        reason, tries = str(entry.get("reason", "")), int(entry.get("tries", 0))
        return bool(reason) and (reason not in TRANSIENT or tries > self.options.retries)

    def request(self, partial: Partial | None, last: bool = False) -> Request:
        """The next request, with a part of the body at hand or without; `last` ends the connection."""
        referer = self.address.referers[self.referer_index]
        if partial:
            return Request(referer, offset=partial.size, validator=partial.validator, total=partial.total, last=last)
        if self.row.recheck == REFRESH and (current := self.row.current):
            return Request(referer, current.etag, current.last_modified, last=last)
        return Request(referer, last=last) if referer or last else PLAIN

    def follow(self, url: URL, elapsed_ms: int) -> None:
        """Goes on where a redirect leads."""
        self.hop, self.hops, self.elapsed_ms = url, self.hops + 1, self.elapsed_ms + elapsed_ms

    def restart(self) -> None:
        """Goes back to the current address from wherever it was redirected to."""
        self.hop, self.hops, self.elapsed_ms = None, 0, 0

    def other_referer(self) -> bool:
        """Moves on to the address's second Referer, if it has one."""
        self.referer_index += 1
        return self.referer_index < len(self.address.referers)

    def skip_host_down(self) -> None:
        """Writes down that the current address's host is down and was not asked, and moves on."""
        entry = self.entry()
        entry.update(reason=HOST_DOWN, down=int(entry.get("down", 0)) + 1)
        self.index, self.referer_index = self.index + 1, 0
        self.restart()

    def note(self, reason: str, detail: str = "", status: int | None = None) -> None:
        """Writes down one try of the current address."""
        entry = self.entry()
        entry.update(reason=reason, tries=int(entry.get("tries", 0)) + 1)
        for name, value in (("status", status), ("detail", detail)):
            entry.pop(name, None)
            if value:
                entry[name] = value

    def entry(self) -> dict[str, Any]:
        """The log's entry of the current address, made when there is none."""
        found = self._find_entry()
        if found is None:
            found = {"variant": self.address.variant_id, "kind": self.address.kind, "tries": 0}
            self.log.append(found)
        return found

    def _find_entry(self) -> dict[str, Any] | None:
        return next((entry for entry in self.log if entry.get("variant") == self.address.variant_id), None)

    def done(self, stored: StoredFile, answer: FetchResult) -> DownloadResult:
        """The row as it ends with a picture."""
        details = []
        if stored.format is not None and mime_mismatch(answer.content_type, stored.format):
            details.append(f"sent as {answer.content_type[:80]}, is {stored.format.name}")
            self.notes.add("mime_mismatch")
        if stored.trailing:
            details.append(f"{stored.trailing} bytes after its end")
            self.notes.add("trailing_bytes")
        self.note("", "; ".join(details), answer.status)
        before = self.row.current.sha256 if self.row.current else ""
        counted = "" if not self.row.recheck else "unchanged" if stored.sha256 == before else "replaced"
        return self._result(
            "done", variant_id=self.address.variant_id, kind=self.address.kind,
            http_status=answer.status, final_url=answer.final_url, content_type=answer.content_type,
            etag=answer.etag, last_modified=answer.last_modified, bytes=answer.bytes,
            elapsed_ms=self.elapsed_ms + answer.elapsed_ms,
            sha256=stored.sha256, file=stored.file, restores=stored.restores,
            supersedes=before if before != stored.sha256 else "", counted=counted, notes=tuple(self.notes),
        )  # fmt: skip

    def opted_out(self, answer: FetchResult) -> DownloadResult:
        """The row as it ends when its owner does not want it collected: later addresses show the same picture."""
        return self._result(
            "opted_out", OPTED_OUT, variant_id=self.address.variant_id,
            http_status=answer.status, final_url=answer.final_url, elapsed_ms=self.elapsed_ms + answer.elapsed_ms,
            supersedes=self.row.current.sha256 if self.row.current else "", notes=tuple(self.notes),
        )  # fmt: skip

    def removed(self) -> DownloadResult:
        """The row as it ends when step 6 took its content away: another copy of the picture stays."""
        if self.row.recheck:
            return self._unchanged("kept", REMOVED)
        return self._result("blocked", REMOVED, notes=tuple(self.notes))

    def not_modified(self) -> DownloadResult:
        """The row as it stays when its address still has the same picture."""
        return self._unchanged(notes=tuple(self.notes))

    def exhausted(self, *, offline: bool = False) -> DownloadResult:
        """The row as it ends when no address gave a picture; the reason is that of the best address.

        It waits instead where that is a host's fault which is down, or (`offline`) nobody could be reached at all.
        """
        if self.row.removed_before:
            return self.removed()
        places = {address.variant_id: place for place, address in enumerate(self.addresses)}
        tried = [entry for entry in self.log if entry.get("variant") in places]
        tried.sort(key=lambda entry: places[entry["variant"]])
        reasons = [str(entry.get("reason", "")) for entry in tried]
        if reasons and any(entry.get("down", 0) < MOST_DOWN for entry in tried if entry.get("reason") == HOST_DOWN):
            return self.deferred(DOWN_SECONDS, HOST_DOWN)
        if offline and reasons and set(reasons) <= UNREACHED and self._may_wait():
            return self.deferred(OFFLINE_SECONDS, OFFLINE)
        if self.row.recheck:
            return self._unchanged("kept", next(filter(None, reasons), NO_ADDRESS))
        if not reasons:
            return self._result("failed", NO_ADDRESS, notes=tuple(self.notes))
        state = "failed"
        if set(reasons) <= BLOCKED:
            state = "blocked"
        elif set(reasons) <= BLOCKED | {ROBOTS_TXT}:
            state = OPTED_OUT
        variant_id, status = tried[0].get("variant"), tried[0].get("status")
        return self._result(state, reasons[0], variant_id=variant_id, http_status=status, notes=tuple(self.notes))

    def deferred(self, seconds: float, reason: str) -> DownloadResult:
        """The row as it waits for a later time."""
        until = utc_in(seconds)
        if self.row.recheck:
            return self._unchanged("pending", reason, recheck=self.row.recheck, next_try_at=until)
        return self._result("pending", reason, next_try_at=until)

    def _result(self, state: str, reason: str = "", **more: Any) -> DownloadResult:
        return DownloadResult(self.row.image_id, state, reason, attempts=self.attempts, log=_compact(self.log), **more)

    def _unchanged(self, counted: str = "unchanged", reason: str = "", **more: Any) -> DownloadResult:
        return self._result("done", reason, unchanged=True, counted=counted, **more)

    def _may_wait(self) -> bool:
        """Counts a run without a network and takes back the tries that it cost."""
        waits = max((int(entry.get("offline", 0)) for entry in self.log), default=0) + 1
        if waits > MOST_OFFLINE:
            return False
        for entry in self.log:
            entry.update(offline=waits, tries=0)
            entry.pop("detail", None)
        return True


@dataclass(frozen=True)
class StoredFile:
    """A body as it was stored. `reason` is empty when its content is (now) known; `file` is set when it was written.

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
