"""One exchange with a server: an address that somebody else wrote down, a request, its limits, its result, its sink."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from yarl import URL

from lib.domains import ascii_host

MOST_REDIRECTS = 5
NOT_MODIFIED, REDIRECTED, BAD_RANGE = "not_modified", "redirected", "bad_range"  # reasons that are no failures
LONGEST = 8000  # characters; servers refuse longer request lines
BAD_URL = "bad_url"
UNDECODED = "surrogateescape"  # how aiohttp gives bytes of a header that are no UTF-8

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_PLAIN = re.compile(r"[!-~]+")
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?", re.DOTALL)


class BadAddress(ValueError):
    """The address cannot be asked; the message says what is wrong with it."""


def parse_address(text: str) -> URL:
    """The address as it will be asked: http or https, no name and password, no fragment. Raises BadAddress.

    It is sent byte for byte, and only what no request may hold is escaped: signed addresses break when their escapes
    are rewritten.
    """
    text = text.strip(" ")
    if len(text) > LONGEST:
        raise BadAddress(f"longer than {LONGEST} characters")
    if _FORBIDDEN.search(text):
        raise BadAddress("a backslash or control character")
    text = text.partition("#")[0]
    try:
        url = URL(text, encoded=True) if _PLAIN.fullmatch(text) else _escaped(text)
        if url.scheme not in ("http", "https"):
            raise BadAddress(f"{url.scheme or 'no'} scheme; only http and https are fetched")
        if not url.host or not url.port:
            raise BadAddress("no host")
        url = _with_known_host(url)
        url = url.with_user(None) if url.raw_user or url.raw_password else url
    except BadAddress:
        raise
    except ValueError as error:  # yarl: bad port, bad IPv6 literal, a host that no IDNA can spell
        raise BadAddress(str(error)[:200]) from error
    if text.endswith("?") and not url.raw_query_string:
        # An empty query is another target than none; yarl keeps the target of a request here.
        url._cache["raw_path_qs"] = f"{url.raw_path}?"
    return url


def _escaped(text: str) -> URL:
    """An address with letters of any script: the host as the name service has it, the rest escaped as UTF-8."""
    scheme, authority, path, query = _PARTS.match(text).groups()  # type: ignore[union-attr]  # it matches anything
    if scheme is None or not authority:
        return URL(text)
    host = authority if _PLAIN.fullmatch(authority) else URL(f"{scheme}://{authority}").raw_authority
    return URL(f"{scheme}://{host}{_percent(path)}{_percent(query or '')}", encoded=True)


def _percent(text: str) -> str:
    """The text with every byte escaped that no request may hold. Bytes that were no UTF-8 are those that came."""
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E else f"%{byte:02X}" for byte in text.encode("utf-8", UNDECODED))


def _with_known_host(url: URL) -> URL:
    """The address with its host in the form that lists, rows and queues have. Raises BadAddress for no host name."""
    raw = url.raw_host or ""
    if not (host := ascii_host(raw)):
        raise BadAddress(f"{raw[:80]} is no host name")
    return url if host == raw or ":" in host else url.with_host(host)


def redirected(url: URL, location: str) -> URL:
    """The address that a redirect from `url` leads to, under the rules of `parse_address`. Raises BadAddress.

    It is resolved as RFC 3986 says, and otherwise taken byte for byte, in whichever encoding its bytes are.
    """
    location = location.strip(" \t")
    if len(location) > LONGEST or _FORBIDDEN.search(location):
        raise BadAddress("a redirect that is no address")
    scheme, authority, path, query = _PARTS.match(location).groups()  # type: ignore[union-attr]  # it matches anything
    if scheme is not None and authority is None and scheme.lower() == url.scheme:
        scheme = None  # `http:/path`: the same host is meant
    if scheme is not None:
        return parse_address(location)
    root = f"{url.scheme}://{url.raw_authority}"
    if authority is not None:
        root = f"{url.scheme}://{authority}"
    elif not path:
        path, query = url.raw_path, query or f"?{url.raw_query_string}"
    elif not path.startswith("/"):
        path = _without_dots(f"{url.raw_path.rpartition('/')[0]}/{path}")
    return parse_address(f"{root}{path}{query or ''}")


def _without_dots(path: str) -> str:
    """A path whose `.` and `..` have been followed (RFC 3986, 5.2.4); empty pieces stay."""
    kept: list[str] = []
    pieces = path.split("/")[1:]
    for place, piece in enumerate(pieces):
        if piece == "..":
            del kept[-1:]
        elif piece != ".":
            kept.append(piece)
        if piece in (".", "..") and place == len(pieces) - 1:
            kept.append("")
    return "/" + "/".join(kept)


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
