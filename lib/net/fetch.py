"""One GET of one address: every failure is a value with a short reason, every limit is explicit.

Bodies that came compressed although they were not asked for are unpacked in small steps under a limit. Which version of
a file a server sends is told surely enough to put two halves together.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL

from lib import __version__
from lib.net.failures import FetchFailed, SinkError, reached, reason_of, reraise_local_error, retry_after
from lib.net.guard import PORTS, refusals, socket_factory
from lib.net.robots import opt_out
from lib.net.urls import BadAddress, redirected
from lib.net.watchdog import FetchLimits, TransferEnded, Watchdog
from lib.text import storable

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEP_ALIVE = 15.0  # seconds an idle connection is kept
DNS_SECONDS = 300
DETAIL_LENGTH = 200  # characters of an error's text that are kept
NOT_MODIFIED = "not_modified"
REDIRECTED = "redirected"
OPT_OUTS = ("X-Robots-Tag", "tdm-reservation", "Content-Usage")  # headers by which owners refuse
BAD_RANGE = "bad_range"

STEP = 256 * 1024  # bytes unpacked at a time, so that a bomb never stands in memory

LONGEST = 200  # characters of a tag; what is cut would never match again
SURE_AFTER = 60.0  # seconds between the change and the answer, from which on a date is a strong validator (RFC 9110)


def user_agent(contact: str = "") -> str:
    """The `User-Agent` that we introduce ourselves with: name, version, and where to complain."""
    shown = "".join(c for c in contact.strip() if " " <= c <= "~")
    return f"Gleaner/{__version__}" + (f" (+{shown})" if shown else "")


def open_session(
    *, allow_private: bool, contact: str = "", exempt: frozenset[str] = frozenset()
) -> aiohttp.ClientSession:
    """The one session of a run: guarded connector, shared TLS context, no cookies, no proxies from the environment.

    The number of connections is bounded by who asks, not here: a request that waited inside the connector would hold
    up requests to other hosts.
    """
    connector = aiohttp.TCPConnector(
        limit=0,
        ttl_dns_cache=DNS_SECONDS,
        keepalive_timeout=KEEP_ALIVE,
        socket_factory=socket_factory(allow_private=allow_private, ports=PORTS, exempt=exempt),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # a body is decoded here, under a limit
        headers={"User-Agent": user_agent(contact), "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
    )


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


async def fetch(
    session: aiohttp.ClientSession,
    url: URL,
    sink: Sink,
    limits: FetchLimits,
    watch: Watchdog,
    request: Request = PLAIN,
) -> FetchResult:
    """Fetches one address, as `parse_address` made it, into the sink.

    A redirect is not followed: the result is `redirected` and says where to, so that whoever follows waits for that
    host's turn, and looks at it first. Raises OSError only for what is wrong with this machine.
    """
    result, started = FetchResult(bytes=request.offset), time.monotonic()
    refused: list[str] = []
    before = refusals.set(refused)
    try:
        with watch.over(limits) as transfer:
            await _get(session, url, request, sink, limits, transfer.progress, result)
    except FetchFailed as stop:
        result.reason, result.detail = stop.reason, stop.detail
    except SinkError as fault:
        raise fault.error from None
    except TransferEnded as end:
        result.reason, result.detail = end.reason, "ended by the watchman"
        result.reached = True if result.status else None  # a name service that hangs looks the same from here
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, EOFError) as error:
        reraise_local_error(error)
        result.reason, result.detail = reason_of(error, refused), f"{type(error).__name__}: {error}"
        result.reached = reached(error, result.reason)
    finally:
        refusals.reset(before)
    if result.detail:
        result.detail = storable(" ".join(result.detail.split()))[:DETAIL_LENGTH]
    result.elapsed_ms = round((time.monotonic() - started) * 1000)
    return result


@lru_cache(maxsize=8)
def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)


async def _get(
    session: aiohttp.ClientSession,
    url: URL,
    request: Request,
    sink: Sink,
    limits: FetchLimits,
    progress: Callable[[int], None],
    result: FetchResult,
) -> None:
    """One request, after which the body is in the sink."""
    timeout = _timeout(limits.timeout)
    async with session.get(url, headers=request.headers(), timeout=timeout, allow_redirects=False) as response:
        _note(result, response)
        if response.status in REDIRECTS and (target := response.headers.get("Location")):
            _check_opt_out(response, request)
            try:
                result.location = redirected(url, target)
            except BadAddress as error:
                raise FetchFailed("bad_redirect", str(error)) from error
            raise FetchFailed(REDIRECTED)
        _check_status(result, response, request, sink)
        _check_headers(result, response, request, sink, limits)
        await _read(response, sink, limits, progress, result)


def _note(result: FetchResult, response: aiohttp.ClientResponse) -> None:
    headers = response.headers
    result.status = response.status
    result.final_url = str(response.url if not response.url.raw_fragment else response.url.with_fragment(None))
    # Bytes that are no UTF-8 come as half characters, which a database does not take.
    result.content_type = storable(headers.get("Content-Type", ""))[:DETAIL_LENGTH]
    result.etag = storable(headers.get("ETag", ""))[:DETAIL_LENGTH]
    result.last_modified = storable(headers.get("Last-Modified", ""))[:DETAIL_LENGTH]
    if headers.get("Accept-Ranges", "").strip().lower() == "bytes" and "Content-Encoding" not in headers:
        result.validator, result.total = validator_of(headers), response.content_length or 0
    else:
        result.validator, result.total = "", 0


def _check_status(result: FetchResult, response: aiohttp.ClientResponse, request: Request, sink: Sink) -> None:
    status = response.status
    if status == 200:
        if request.offset:  # another version, or a server that knows no ranges: all of it comes
            sink.restart()
            result.bytes = 0
    elif status == 206 and request.offset:
        if not _continues(response.headers, request):
            raise FetchFailed(
                BAD_RANGE, f"asked from {request.offset}, got {response.headers.get('Content-Range', 'no range')}"
            )
        result.validator, result.total = (
            request.validator,
            request.total or result.bytes + (response.content_length or 0),
        )
    elif status == 304 and (request.etag or request.last_modified):
        _check_opt_out(response, request)
        raise FetchFailed(NOT_MODIFIED)
    elif status == 416 and request.offset:
        raise FetchFailed(BAD_RANGE, f"refused from {request.offset}")
    else:
        result.retry_after = retry_after(response.headers.get("Retry-After"))
        raise FetchFailed("bad_redirect" if 300 <= status < 400 else f"http_{status}")


def _continues(headers: Mapping[str, str], request: Request) -> bool:
    """Tells if a partial answer begins where we stopped and is of the same version."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None or int(found[1][:18]) != request.offset or "Content-Encoding" in headers:
        return False
    name = "ETag" if request.validator.startswith('"') else "Last-Modified"
    same_length = not request.total or found[2] in ("*", str(request.total))
    return same_length and headers.get(name, request.validator) == request.validator


def _check_headers(
    result: FetchResult, response: aiohttp.ClientResponse, request: Request, sink: Sink, limits: FetchLimits
) -> None:
    _check_opt_out(response, request)
    size = result.bytes + (response.content_length or 0)
    if size > limits.max_bytes and request.picture:
        raise FetchFailed("too_large", f"{size} bytes announced")
    reason, detail = sink.on_headers(result)
    if reason:
        raise FetchFailed(reason, detail)


def _check_opt_out(response: aiohttp.ClientResponse, request: Request) -> None:
    headers = response.headers
    if not request.picture:
        return
    tags, reservations, usages = (headers.getall(name, ()) for name in OPT_OUTS)
    if signal := opt_out(tags, reservations, usages):
        raise FetchFailed("opted_out", signal)


async def _read(
    response: aiohttp.ClientResponse,
    sink: Sink,
    limits: FetchLimits,
    progress: Callable[[int], None],
    result: FetchResult,
) -> None:
    decode = decoder(response.headers.get("Content-Encoding", ""))
    head, judged, received = b"", result.bytes > 0, 0
    async for chunk in response.content.iter_any():
        progress(len(chunk))
        received += len(chunk)
        if decode and received > limits.max_bytes:  # a packed body may unpack to next to nothing
            raise FetchFailed("too_large", f"more than {limits.max_bytes} bytes, packed")
        for block in decode(chunk) if decode else (chunk,):
            result.bytes += len(block)
            if result.bytes > limits.max_bytes:
                raise FetchFailed("too_large", f"more than {limits.max_bytes} bytes")
            if not judged:
                head += block[:512]
                if judged := len(head) >= 512:
                    _check_head(sink, head)
            if (waiting := sink.write(block)) is not None:
                await _wait(waiting)
    if not result.bytes:
        raise FetchFailed("empty")
    if not judged:
        _check_head(sink, head)


async def _wait(writing: Any) -> None:
    try:
        await writing
    except OSError as error:
        raise SinkError(error) from error


def _check_head(sink: Sink, head: bytes) -> None:
    reason, detail = sink.on_first_bytes(head)
    if reason:
        raise FetchFailed(reason, detail)


@dataclass
class FetchResult:
    """The result of one address: the body lies in the sink when `reason` is empty.

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


class Sink:
    """Where a body goes.

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


def decoder(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """A function that unpacks the chunks of a body; None where nothing is to be done.

    Raises FetchFailed for an encoding that is not unpacked, and while unpacking for data that is none.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise FetchFailed("encoded_body", f"Content-Encoding {name[:40]}")
    machine = zlib.decompressobj(47 if name != "deflate" else 15)

    def decode(chunk: bytes) -> Iterator[bytes]:
        while chunk and not machine.eof:  # what follows the end would only pile up
            try:
                block = machine.decompress(chunk, STEP)
            except zlib.error as error:
                raise FetchFailed("encoded_body", str(error)) from error
            chunk = machine.unconsumed_tail
            if block:
                yield block

    return decode


def validator_of(headers: Mapping[str, str]) -> str:
    """The validator for `If-Range`: a strong entity tag, else a date that is old enough, else nothing.

    A weak tag does not promise the same bytes, and within a minute a file may change twice under one date.
    """
    tag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "").strip()
    if tag.startswith('"'):
        return tag if len(tag) <= LONGEST else ""
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(changed)
        return changed if age.total_seconds() >= SURE_AFTER else ""
    except (TypeError, ValueError, IndexError, OverflowError):
        return ""
