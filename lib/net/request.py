"""One exchange with a server: an address that somebody else wrote down, a request, its limits, its result, its sink."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from yarl import URL

MOST_REDIRECTS = 5
NOT_MODIFIED, REDIRECTED, BAD_RANGE = "not_modified", "redirected", "bad_range"  # reasons that are no failures
LONGEST = 8000  # characters; servers refuse longer request lines
BAD_URL = "bad_url"

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_PLAIN = re.compile(r"[!-~]+")


class BadAddress(ValueError):
    """The address cannot be asked; the message says what is wrong with it."""


def parse_address(text: str) -> URL:
    """The address as it will be asked: http or https, no name and password, no fragment. Raises BadAddress.

    An address that is plain ASCII is sent byte for byte: signed addresses break when their escapes are rewritten.
    """
    text = text.strip(" ")
    if len(text) > LONGEST:
        raise BadAddress(f"longer than {LONGEST} characters")
    if _FORBIDDEN.search(text):
        raise BadAddress("a backslash or control character")
    try:
        url = URL(text, encoded=_PLAIN.fullmatch(text) is not None)
        if url.scheme not in ("http", "https"):
            raise BadAddress(f"{url.scheme or 'no'} scheme; only http and https are fetched")
        if not url.host or not url.port:
            raise BadAddress("no host")
        return url.with_user(None) if url.raw_user or url.raw_password else url
    except BadAddress:
        raise
    except ValueError as error:  # yarl: bad port, bad IPv6 literal, a host that no IDNA can spell
        raise BadAddress(str(error)[:200]) from error


def redirected(url: URL, location: str) -> URL:
    """The address that a redirect from `url` leads to, under the rules of `parse_address`. Raises BadAddress."""
    location = location.strip(" ")
    if len(location) > LONGEST or _FORBIDDEN.search(location):
        raise BadAddress("a redirect that is no address")
    try:
        target = URL(location, encoded=_PLAIN.fullmatch(location) is not None)
        target = target if target.scheme else url.join(target)
    except ValueError as error:
        raise BadAddress(str(error)[:200]) from error
    return parse_address(str(target))


def host_of(url: URL) -> str:
    """`host:port` in lower case: the key under which requests are counted and paced."""
    return f"{(url.raw_host or '').lower().rstrip('.')}:{url.port}"


@dataclass(frozen=True)
class FetchLimits:
    """The most that one address may cost: seconds, bytes, and bytes a second over a window of seconds."""

    timeout: float = 20.0  # to connect, to the first byte, and between two bytes
    deadline: float = 300.0  # the whole file
    max_bytes: int = 50 * 1024 * 1024
    min_speed: int = 1024
    speed_window: float = 10.0


@dataclass(frozen=True)
class Request:
    """A request besides its address.

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


PLAIN = Request()


@dataclass
class FetchResult:
    """The result of one address: the body lies in the sink when `reason` is empty.

    `retry_after` is in seconds, `elapsed_ms` from the request to the last byte; `reached` tells whether any machine
    answered (None: nothing was sent). `missing` are the bytes that a transfer which broke off still owed (0: none, or
    unknown), and `at_end` tells that a server has no more than what is here already. With a `validator` the rest of the
    `total` bytes (0: unknown) may be asked for alone. A redirect ends with where it leads as `location`.
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
    missing: int = 0
    at_end: bool = False
    location: URL | None = None


class Sink:
    """The receiver of a body.

    `on_headers` sees the result before the body, `on_first_bytes` its beginning; both may give a (reason, detail) to
    stop at once. `write` may give something to wait for. `restart` is told when the server sends everything although
    the rest was asked for.
    """

    def on_headers(self, result: FetchResult) -> tuple[str, str]:
        return "", ""

    def on_first_bytes(self, head: bytes) -> tuple[str, str]:
        return "", ""

    def write(self, block: bytes) -> Any:
        raise NotImplementedError

    def restart(self) -> None:
        raise NotImplementedError
