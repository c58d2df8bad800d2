"""One GET of one address: every failure is a value with a short reason, every limit is explicit.

What goes into a request and what comes of it: the values that the client and its callers exchange.

Unpacks bodies that came compressed although they were not asked for, in small steps under a limit.

Which version of a file a server is sending, told surely enough to put two halves together.

What one address may cost; apart from the client, so that a command line can be read without loading it.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Protocol

import aiohttp
from yarl import URL

from lib import __version__
from lib.net.failures import FetchFailed, SinkError, reached, reason_of, reraise_local_error, retry_after
from lib.net.guard import PORTS, refusals, socket_factory
from lib.net.robots import opt_out
from lib.net.urls import BadAddress, redirected
from lib.net.watchdog import TransferEnded, Watchdog
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
    """How we introduce ourselves: name, version, and where to complain."""
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


PLAIN = Request()


async def fetch(
    session: aiohttp.ClientSession,
    url: URL,
    sink: Sink,
    limits: FetchLimits,
    watch: Watchdog,
    ask: Request = PLAIN,
) -> FetchResult:
    """Fetches one address, as `parse_address` made it, into the sink.

    A redirect is not followed: the answer is `redirected` and says where to, so that whoever follows waits for that
    host's turn, and looks at it first. Raises OSError only for what is wrong with this machine.
    """
    answer, started = FetchResult(bytes=ask.offset), time.monotonic()
    refused: list[str] = []
    before = refusals.set(refused)
    try:
        with watch.over(limits) as transfer:
            await _get(session, url, ask, sink, limits, transfer.progress, answer)
    except FetchFailed as stop:
        answer.reason, answer.detail = stop.reason, stop.detail
    except SinkError as fault:
        raise fault.error from None
    except TransferEnded as end:
        answer.reason, answer.detail = end.reason, "ended by the watchman"
        answer.reached = True if answer.status else None  # a name service that hangs looks the same from here
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, EOFError) as error:
        reraise_local_error(error)
        answer.reason, answer.detail = reason_of(error, refused), f"{type(error).__name__}: {error}"
        answer.reached = reached(error, answer.reason)
    finally:
        refusals.reset(before)
    if answer.detail:
        answer.detail = storable(" ".join(answer.detail.split()))[:DETAIL_LENGTH]
    answer.elapsed_ms = round((time.monotonic() - started) * 1000)
    return answer


@lru_cache(maxsize=8)
def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)


async def _get(
    session: aiohttp.ClientSession,
    url: URL,
    ask: Request,
    sink: Sink,
    limits: FetchLimits,
    progress: Callable[[int], None],
    answer: FetchResult,
) -> None:
    """One request, after which the body is in the sink."""
    timeout = _timeout(limits.timeout)
    async with session.get(url, headers=ask.headers(), timeout=timeout, allow_redirects=False) as response:
        _note(answer, response)
        if response.status in REDIRECTS and (target := response.headers.get("Location")):
            _judge_opt_out(response, ask)
            try:
                answer.location = redirected(url, target)
            except BadAddress as error:
                raise FetchFailed("bad_redirect", str(error)) from error
            raise FetchFailed(REDIRECTED)
        _judge_status(answer, response, ask, sink)
        _judge_headers(answer, response, ask, sink, limits)
        await _read(response, sink, limits, progress, answer)


def _note(answer: FetchResult, response: aiohttp.ClientResponse) -> None:
    headers = response.headers
    answer.status = response.status
    answer.final_url = str(response.url if not response.url.raw_fragment else response.url.with_fragment(None))
    # Bytes that are no UTF-8 come as half characters, which a database does not take.
    answer.content_type = storable(headers.get("Content-Type", ""))[:DETAIL_LENGTH]
    answer.etag = storable(headers.get("ETag", ""))[:DETAIL_LENGTH]
    answer.last_modified = storable(headers.get("Last-Modified", ""))[:DETAIL_LENGTH]
    if headers.get("Accept-Ranges", "").strip().lower() == "bytes" and "Content-Encoding" not in headers:
        answer.validator, answer.total = validator_of(headers), response.content_length or 0
    else:
        answer.validator, answer.total = "", 0


def _judge_status(answer: FetchResult, response: aiohttp.ClientResponse, ask: Request, sink: Sink) -> None:
    status = response.status
    if status == 200:
        if ask.offset:  # another version, or a server that knows no ranges: all of it comes
            sink.restart()
            answer.bytes = 0
    elif status == 206 and ask.offset:
        if not _continues(response.headers, ask):
            raise FetchFailed(
                BAD_RANGE, f"asked from {ask.offset}, got {response.headers.get('Content-Range', 'no range')}"
            )
        answer.validator, answer.total = ask.validator, ask.total or answer.bytes + (response.content_length or 0)
    elif status == 304 and (ask.etag or ask.last_modified):
        _judge_opt_out(response, ask)
        raise FetchFailed(NOT_MODIFIED)
    elif status == 416 and ask.offset:
        raise FetchFailed(BAD_RANGE, f"refused from {ask.offset}")
    else:
        answer.retry_after = retry_after(response.headers.get("Retry-After"))
        raise FetchFailed("bad_redirect" if 300 <= status < 400 else f"http_{status}")


def _continues(headers: Mapping[str, str], ask: Request) -> bool:
    """Whether a partial answer begins where we stopped and is of the same version."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None or int(found[1][:18]) != ask.offset or "Content-Encoding" in headers:
        return False
    name = "ETag" if ask.validator.startswith('"') else "Last-Modified"
    same_length = not ask.total or found[2] in ("*", str(ask.total))
    return same_length and headers.get(name, ask.validator) == ask.validator


def _judge_headers(
    answer: FetchResult, response: aiohttp.ClientResponse, ask: Request, sink: Sink, limits: FetchLimits
) -> None:
    _judge_opt_out(response, ask)
    size = answer.bytes + (response.content_length or 0)
    if size > limits.max_bytes and ask.picture:
        raise FetchFailed("too_large", f"{size} bytes announced")
    reason, detail = sink.meet(answer)
    if reason:
        raise FetchFailed(reason, detail)


def _judge_opt_out(response: aiohttp.ClientResponse, ask: Request) -> None:
    headers = response.headers
    if not ask.picture:
        return
    tags, reservations, usages = (headers.getall(name, ()) for name in OPT_OUTS)
    if signal := opt_out(tags, reservations, usages):
        raise FetchFailed("opted_out", signal)


async def _read(
    response: aiohttp.ClientResponse,
    sink: Sink,
    limits: FetchLimits,
    progress: Callable[[int], None],
    answer: FetchResult,
) -> None:
    decode = decoder(response.headers.get("Content-Encoding", ""))
    head, judged, received = b"", answer.bytes > 0, 0
    async for chunk in response.content.iter_any():
        progress(len(chunk))
        received += len(chunk)
        if decode and received > limits.max_bytes:  # a packed body may unpack to next to nothing
            raise FetchFailed("too_large", f"more than {limits.max_bytes} bytes, packed")
        for block in decode(chunk) if decode else (chunk,):
            answer.bytes += len(block)
            if answer.bytes > limits.max_bytes:
                raise FetchFailed("too_large", f"more than {limits.max_bytes} bytes")
            if not judged:
                head += block[:512]
                if judged := len(head) >= 512:
                    _judge_head(sink, head)
            if (waiting := sink.write(block)) is not None:
                await _wait(waiting)
    if not answer.bytes:
        raise FetchFailed("empty")
    if not judged:
        _judge_head(sink, head)


async def _wait(writing: Any) -> None:
    try:
        await writing
    except OSError as error:
        raise SinkError(error) from error


def _judge_head(sink: Sink, head: bytes) -> None:
    reason, detail = sink.judge(head)
    if reason:
        raise FetchFailed(reason, detail)


@dataclass
class FetchResult:
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

    def meet(self, answer: FetchResult) -> tuple[str, str]: ...

    def judge(self, head: bytes) -> tuple[str, str]: ...

    def write(self, block: bytes) -> Any: ...

    def restart(self) -> None: ...


def decoder(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """What unpacks the chunks of a body; None where nothing is to be done.

    Raises Stop for an encoding that is not unpacked, and while unpacking for data that is none.
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
    """What `If-Range` may be asked with: a strong entity tag, else a date of change that is old enough, else nothing.

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


@dataclass(frozen=True)
class FetchLimits:
    """What one address may cost: seconds, bytes, and bytes a second over a window of seconds."""

    timeout: float = 20.0  # to connect, to the first byte, and between two bytes
    deadline: float = 300.0  # the whole file
    max_bytes: int = 50 * 1024 * 1024
    min_speed: int = 1024
    speed_window: float = 10.0
