"""One row on its way down the ladder: what was tried, what comes next, and how it ends. Pure, but for the clock."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from lib.db.downloads import Outcome, PendingRow, read_log
from lib.downloading.keeper import Kept
from lib.ladder import KINDS, Rung, Variant, ladder
from lib.media import mime_mismatch
from lib.net.client import Answer
from lib.net.guard import PORT_REFUSED, PRIVATE_ADDRESS
from lib.net.retry import is_transient
from lib.net.urls import BAD_URL, BadAddress, parse_address
from lib.times import utc_in, utc_now

OPTED_OUT = "opted_out"
NO_ADDRESS = "no_address"
BLOCKED = frozenset({PRIVATE_ADDRESS, PORT_REFUSED})
REFUSED_REFERER = frozenset({"http_401", "http_403"})


@dataclass
class Job:
    """A row, its rungs, and the log of what was tried: one entry an address, with its tries and last reason."""

    image_id: str
    rungs: tuple[Rung, ...]
    retries: int
    attempts: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    at: int = 0
    referer_at: int = 0
    url: URL = field(default_factory=URL)

    @property
    def rung(self) -> Rung:
        return self.rungs[self.at]

    @property
    def referer(self) -> str:
        return self.rung.referers[self.referer_at]

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
        """The address to ask now: the current rung's, or the next one that is neither spent nor unusable.

        It is kept in `url` too.
        """
        while self.at < len(self.rungs):
            if not self.is_spent():
                try:
                    self.url = parse_address(self.rung.url)
                    return self.url
                except BadAddress as error:
                    self.note(BAD_URL, str(error))
            self.at, self.referer_at = self.at + 1, 0
        return None

    def done(self, kept: Kept, answer: Answer) -> Outcome:
        """The row as it ends with a picture."""
        detail = ""
        if kept.format is not None and mime_mismatch(answer.content_type, kept.format):
            detail = f"sent as {answer.content_type[:80]}, is {kept.format.name}"
        self.note("", detail, answer.status)
        return Outcome(
            self.image_id, "done", attempts=self.attempts, variant_id=self.rung.variant_id, kind=self.rung.kind,
            http_status=answer.status, final_url=answer.final_url, content_type=answer.content_type,
            etag=answer.etag, last_modified=answer.last_modified, bytes=answer.bytes, elapsed_ms=answer.elapsed_ms,
            log=self._log(), sha256=kept.sha256, file=kept.file, restores=kept.restores,
        )  # fmt: skip

    def opted_out(self, answer: Answer) -> Outcome:
        """The row as it ends when its owner does not want it collected: lower rungs show the same picture."""
        return Outcome(
            self.image_id, "opted_out", OPTED_OUT, self.attempts, variant_id=self.rung.variant_id,
            http_status=answer.status, final_url=answer.final_url, elapsed_ms=answer.elapsed_ms, log=self._log(),
        )  # fmt: skip

    def failed(self) -> Outcome:
        """The row as it ends when no rung gave a picture; the reason is that of the best address."""
        reasons = [str(entry.get("reason", "")) for entry in self._in_order()]
        blocked = bool(reasons) and all(reason in BLOCKED for reason in reasons)
        first = self._in_order()[0] if reasons else {}
        return Outcome(
            self.image_id, "blocked" if blocked else "failed", reasons[0] if reasons else NO_ADDRESS, self.attempts,
            variant_id=first.get("variant"), http_status=first.get("status"), log=self._log(),
        )  # fmt: skip

    def deferred(self, seconds: float, reason: str) -> Outcome:
        """The row as it waits for a later time."""
        return Outcome(self.image_id, "pending", reason, self.attempts, utc_in(seconds), log=self._log())

    def _in_order(self) -> list[dict[str, Any]]:
        places = {rung.variant_id: place for place, rung in enumerate(self.rungs)}
        tried = [entry for entry in self.log if entry.get("variant") in places]
        return sorted(tried, key=lambda entry: places[entry["variant"]])

    def _log(self) -> str:
        return json.dumps(self.log, ensure_ascii=False, separators=(",", ":"))


def make_job(row: PendingRow, retries: int) -> Job:
    """A job from a row; what earlier runs tried is taken over."""
    variants = (Variant(*values) for values in row.variants)
    rungs = ladder(variants, page_url=row.page_url, kinds=KINDS, now=utc_now())
    return Job(row.image_id, rungs, retries, row.attempts, read_log(row.log))
