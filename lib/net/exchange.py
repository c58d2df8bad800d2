"""What goes into a request and what comes of it: the values that the client and its callers exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from yarl import URL


@dataclass(frozen=True)
class Ask:
    """What a request says besides its address.

    `etag` and `last_modified` make it conditional. `offset` bytes are here already, of the version that `validator`
    (a strong entity tag, or a date of change) names, out of `total` where that is known. With `last` the connection is
    not kept. What is no `picture` is not collected: headers that forbid that do not end it, and of what is too long
    the beginning is read.
    """

    referer: str = ""
    etag: str = ""
    last_modified: str = ""
    offset: int = 0
    validator: str = ""
    total: int = 0
    last: bool = False
    picture: bool = True

    def headers(self) -> dict[str, str] | None:
        if self is PLAIN:
            return None
        wanted = {
            "Referer": self.referer,
            "If-None-Match": self.etag,
            "If-Modified-Since": self.last_modified,
            "Range": f"bytes={self.offset}-" if self.offset else "",
            "If-Range": self.validator if self.offset else "",
            "Connection": "close" if self.last else "",
        }
        # What is not plain text came from a stranger and would be an error of ours, or worse.
        return {k: v for k, v in wanted.items() if v and v.isascii() and v.isprintable()} or None


PLAIN = Ask()


@dataclass
class Answer:
    """What became of one address: the body lies in the sink when `reason` is empty.

    `retry_after` is in seconds, `elapsed_ms` from the request to the last byte; `reached` tells whether any machine
    answered (None: nothing was sent). With a `validator` the rest of the `total` bytes (0: unknown) may be asked for
    alone. A redirect ends with where it leads as `location`.
    """

    reason: str = ""
    detail: str = ""
    status: int | None = None
    final_url: str = ""
    content_type: str = ""
    etag: str = ""
    last_modified: str = ""
    bytes: int = 0
    elapsed_ms: int = 0
    retry_after: float | None = None
    reached: bool | None = True
    validator: str = ""
    total: int = 0
    location: URL | None = None


class Sink(Protocol):
    """Where a body goes.

    `meet` sees the answer before the body and `judge` the first bytes; both may give a (reason, detail) to stop at
    once. `restart` is told when the server sends everything although the rest was asked for.
    """

    def meet(self, answer: Answer) -> tuple[str, str]: ...

    def judge(self, head: bytes) -> tuple[str, str]: ...

    def write(self, block: bytes) -> Any: ...

    def restart(self) -> None: ...
