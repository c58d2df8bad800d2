"""One GET of one address: every failure is a value with a short reason, every limit is explicit.

The bytes of an answer decide what it is: what its headers say of framing and packing is often untrue.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any

import aiohttp
from yarl import URL

from lib import __version__
from lib.net.failures import retry_after
from lib.net.guard import PORTS, RefusedAddress, refusals, socket_factory
from lib.net.heads import LenientHandler, left_in
from lib.net.packed import PackedError, Unpacker, may_be_packed
from lib.net.request import (
    BAD_RANGE,
    BAD_URL,
    NOT_MODIFIED,
    PLAIN,
    REDIRECTED,
    BadAddress,
    FetchLimits,
    FetchResult,
    Request,
    Sink,
    redirected,
)
from lib.net.robots import opt_out
from lib.text import storable

REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEP_ALIVE = 15.0  # seconds an idle connection is kept
DNS_SECONDS = 300
DETAIL_LENGTH = 200  # characters of an error's text that are kept
OPT_OUTS = ("X-Robots-Tag", "tdm-reservation", "Content-Usage")  # headers by which owners refuse

STALL = 2.0  # seconds between two looks of the watchman, from which on the process had no time of its own

LONGEST = 200  # characters of a tag; what is cut would never match again
HEAD = 512  # bytes by which a body is judged
SURE_AFTER = 60.0  # seconds between the change and the answer, from which on a date is a strong validator (RFC 9110)

OUR_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_WITHOUT_BODY = frozenset({204, 205})
_RANGE = re.compile(r"bytes[ =:]*(\d{1,18})\s*-\s*(\d{1,18})\s*/\s*(\d{1,18}|\*)", re.IGNORECASE)
_LENGTH = re.compile(r"bytes[ =:]*\*\s*/\s*(\d{1,18})", re.IGNORECASE)

_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((aiohttp.ClientConnectorDNSError,), "dns_error"),
    ((aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch), "tls_error"),
    ((asyncio.TimeoutError,), "timeout"),
    ((aiohttp.TooManyRedirects,), "too_many_redirects"),
    ((aiohttp.RedirectClientError, aiohttp.NonHttpUrlRedirectClientError), "bad_redirect"),
    ((aiohttp.InvalidURL,), BAD_URL),
    ((aiohttp.ClientConnectorError,), "connect_error"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError), "disconnected"),
    ((aiohttp.ClientPayloadError,), "truncated"),
    ((aiohttp.ClientOSError,), "disconnected"),
    ((aiohttp.ClientResponseError,), "bad_response"),
)


class FetchFailed(Exception):
    """This address has failed: carries the reason out of the reading loop."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class SinkError(Exception):
    """The sink could not take a block: the disk's fault, never the address's."""

    def __init__(self, error: OSError):
        super().__init__(str(error))
        self.error = error


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
    # There is no other way to have answers read by a handler of one's own.
    connector._factory = partial(LenientHandler, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # a body is decoded here, under a limit
        headers={"User-Agent": user_agent(contact), "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
    )


async def fetch(
    session: aiohttp.ClientSession, url: URL, sink: Sink, limits: FetchLimits, watch: Watchdog, request: Request = PLAIN
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
            await _get(session, url, request, sink, limits, transfer, result)
    except FetchFailed as stop:
        result.reason, result.detail = stop.reason, stop.detail
        result.reached = True if result.status else None  # a name service that hangs looks the same from here
    except SinkError as fault:
        raise fault.error from None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno in OUR_OWN_LIMITS:  # no fault of the address
            raise OSError(error.errno, os.strerror(error.errno)) from error
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
    transfer: Transfer,
    result: FetchResult,
) -> None:
    """One request, after which the body is in the sink."""
    timeout = _timeout(limits.timeout)
    async with session.get(url, headers=request.headers(), timeout=timeout, allow_redirects=False) as response:
        _note(result, response)
        if response.status in REDIRECTS and (targets := _targets(response)):
            _check_opt_out(response, request)
            result.location = _first_address(url, targets)
            raise FetchFailed(REDIRECTED)
        _check_status(result, response, request, sink)
        _check_headers(result, response, request, sink, limits)
        await _read(response, sink, limits, transfer, result)


def _targets(response: aiohttp.ClientResponse) -> list[str]:
    return [target for target in response.headers.getall("Location", ()) if target.strip()]


def _first_address(url: URL, targets: list[str]) -> URL:
    """Returns the first of several targets of a redirect that is an address. Raises FetchFailed."""
    wrong = ""
    for target in targets:
        try:
            return redirected(url, target)
        except BadAddress as error:
            wrong = wrong or str(error)
    raise FetchFailed("bad_redirect", wrong)


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
    """Lets through what may hold the picture, all of it or the rest; raises FetchFailed for any other answer."""
    status = response.status
    if status == 206:
        _check_range(result, response, request, sink)
    elif 200 <= status < 300 and status not in _WITHOUT_BODY:
        _restart(result, request, sink)  # another version, or a server that knows no ranges: all of it comes
    elif status == 304 and (request.etag or request.last_modified):
        _check_opt_out(response, request)
        raise FetchFailed(NOT_MODIFIED)
    elif status == 416 and request.offset:
        found = _LENGTH.fullmatch(response.headers.get("Content-Range", "").strip())
        result.at_end = found is None or int(found[1]) == request.offset
        result.content_type = ""  # of the page that says so
        raise FetchFailed(BAD_RANGE, f"refused from {request.offset}")
    else:
        result.retry_after = retry_after(response.headers.get("Retry-After"))
        raise FetchFailed("bad_redirect" if 300 <= status < 400 else f"http_{status}")


def _restart(result: FetchResult, request: Request, sink: Sink) -> None:
    if request.offset:
        sink.restart()
        result.bytes = 0


def _check_range(result: FetchResult, response: aiohttp.ClientResponse, request: Request, sink: Sink) -> None:
    """Lets a partial answer through that goes on where we stopped, or that is no part but all of it."""
    got = response.headers.get("Content-Range", "")
    found = _RANGE.fullmatch(got.strip())
    start, end, total = found.groups() if found else ("0", "", "*")
    if request.offset and found and _continues(found, response.headers, request):
        result.validator = request.validator
        result.total = request.total or result.bytes + (response.content_length or 0)
    elif int(start) == 0 and (found or not request.offset) and total in ("*", str(int(end or 0) + 1)):
        _restart(result, request, sink)
    elif request.offset:
        raise FetchFailed(BAD_RANGE, f"asked from {request.offset}, got {got or 'no range'}")
    else:
        raise FetchFailed("http_206", f"only {got[:80]}")


def _continues(found: re.Match[str], headers: Mapping[str, str], request: Request) -> bool:
    """Tells if a partial answer begins where we stopped and is of the same version."""
    if int(found[1]) != request.offset or "Content-Encoding" in headers:
        return False
    name = "ETag" if request.validator.startswith('"') else "Last-Modified"
    same_length = not request.total or found[3] in ("*", str(request.total))
    return same_length and headers.get(name, request.validator) == request.validator


def _check_headers(
    result: FetchResult, response: aiohttp.ClientResponse, request: Request, sink: Sink, limits: FetchLimits
) -> None:
    _check_opt_out(response, request)
    size = result.bytes + (response.content_length or 0)
    if size > limits.max_bytes and request.picture:
        raise FetchFailed("too_large", f"{size} bytes announced")
    _raise_refusal(*sink.on_headers(result))


def _check_opt_out(response: aiohttp.ClientResponse, request: Request) -> None:
    headers = response.headers
    if not request.picture:
        return
    tags, reservations, usages = (headers.getall(name, ()) for name in OPT_OUTS)
    if signal := opt_out(tags, reservations, usages):
        raise FetchFailed("opted_out", signal)


async def _read(
    response: aiohttp.ClientResponse, sink: Sink, limits: FetchLimits, transfer: Transfer, result: FetchResult
) -> None:
    """Reads the body into the sink. Where the transfer breaks off, what had arrived is in the sink all the same."""
    reading = _Reading(response.headers.get("Content-Encoding", ""), sink, limits, result)
    announced = 0 if "Transfer-Encoding" in response.headers else response.content_length or 0
    try:
        async for chunk in response.content.iter_any():
            transfer.progress(len(chunk))
            for block in reading.blocks(chunk):
                if (waiting := sink.write(block)) is not None:
                    await _wait(waiting, transfer)
        for block in reading.last_blocks():
            if (waiting := sink.write(block)) is not None:
                await _wait(waiting, transfer)
        reading.check_end()
    except (aiohttp.ClientError, OSError, asyncio.CancelledError):  # a TimeoutError is an OSError
        reading.salvage(left_in(response.content))
        result.missing = max(0, announced - reading.received)
        raise


class _Reading:
    """One body on its way into the sink, unpacked where it has to be, and held to the limits."""

    def __init__(self, claimed: str, sink: Sink, limits: FetchLimits, result: FetchResult):
        self.claimed, self.sink, self.limits, self.result = claimed, sink, limits, result
        self.received = 0
        self.unpacker: Unpacker | None = None
        self.head = b""
        self.judged = self.begun = result.bytes > 0

    def blocks(self, chunk: bytes) -> Iterable[bytes]:
        """The blocks of a chunk for the sink. Raises FetchFailed past a limit or where it is no picture."""
        self.received += len(chunk)
        if not self.begun:
            self.begun = True
            if may_be_packed(chunk, self.claimed):
                self.unpacker = Unpacker(self.claimed, self.limits.max_bytes)
        if self.unpacker is None:
            self._pass(chunk)
            return (chunk,)
        if self.unpacker.is_packed and self.received > self.limits.max_bytes:  # it may unpack to next to nothing
            raise FetchFailed("too_large", f"more than {self.limits.max_bytes} bytes, packed")
        return self._unpacked(self.unpacker.feed(chunk))

    def last_blocks(self) -> Iterable[bytes]:
        """The blocks that the last bytes still held back."""
        return self._unpacked(self.unpacker.end()) if self.unpacker is not None else ()

    def check_end(self) -> None:
        """Raises FetchFailed for a body that has nothing, or nothing of a picture."""
        status = self.result.status
        if not self.result.bytes:
            raise FetchFailed("empty" if status in (200, 206) else f"http_{status}")
        self._judge()

    def salvage(self, rest: bytes) -> None:
        """Takes what had arrived when the transfer broke off, without waiting for a disk."""
        with suppress(FetchFailed):
            for block in (*self.blocks(rest), *self.last_blocks()) if rest else self.last_blocks():
                if (waiting := self.sink.write(block)) is not None:
                    waiting.close()  # the sink has the block, and writes it with the next one

    def _unpacked(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for block in blocks:
                if self.unpacker is not None and self.unpacker.is_packed:
                    self.result.validator, self.result.total = "", 0  # no range of it is a range of what is kept
                self._pass(block)
                yield block
        except PackedError as error:
            raise FetchFailed(error.reason, error.detail) from error

    def _pass(self, block: bytes) -> None:
        self.result.bytes += len(block)
        if self.result.bytes > self.limits.max_bytes:
            raise FetchFailed("too_large", f"more than {self.limits.max_bytes} bytes")
        if not self.judged:
            self.head += block[:HEAD]
            if len(self.head) >= HEAD:
                self._judge()

    def _judge(self) -> None:
        if not self.judged:
            self.judged = True
            _raise_refusal(*self.sink.on_first_bytes(self.head))


async def _wait(writing: Any, transfer: Transfer) -> None:
    """Waits for the sink, which is this machine's time and none of the server's."""
    transfer.pause()
    try:
        await writing
    except OSError as error:
        raise SinkError(error) from error
    finally:
        transfer.resume()


def _raise_refusal(reason: str, detail: str) -> None:
    if reason:
        raise FetchFailed(reason, detail)


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


def reason_of(error: BaseException, refused: list[str]) -> str:
    """The name of a failure; `refused` is what our own guard had to say meanwhile."""
    if isinstance(error, RefusedAddress) or (refused and isinstance(error, aiohttp.ClientConnectorError)):
        return refused[0] if refused else getattr(error, "reason", "private_address")
    for kinds, reason in _REASONS:  # from the particular to the general
        if isinstance(error, kinds):
            return reason
    return "connect_error" if isinstance(error, OSError) else "bad_response"


def reached(error: BaseException, reason: str) -> bool | None:
    """Tells if a machine answered at all; None where that cannot be told, or nothing was sent."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        # "No such name" is an answer of the name service. (macOS says so without a network as well.)
        answered = error.os_error.errno == socket.EAI_NONAME and sys.platform == "linux"
        return None if answered else False
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return False
    if reason in ("private_address", "port_refused", BAD_URL):
        return None
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return error.os_error.errno in (errno.ECONNREFUSED, errno.ECONNRESET)
    return True


class Transfer:
    """One request under watch."""

    __slots__ = ("bytes", "ended_by", "limits", "marked_at", "marked_bytes", "paused_at", "started", "task")

    def __init__(self, task: asyncio.Task[Any], limits: FetchLimits):
        self.task, self.limits = task, limits
        self.started = self.marked_at = time.monotonic()
        self.bytes = self.marked_bytes = 0
        self.paused_at: float | None = None
        self.ended_by = ""

    def pause(self) -> None:
        """Stops the clock: from here on the disk is waited for."""
        self.paused_at = time.monotonic()

    def resume(self) -> None:
        if self.paused_at is not None:
            self.excuse(time.monotonic() - self.paused_at)
        self.paused_at = None

    def excuse(self, seconds: float) -> None:
        """Takes time out of the reckoning that the server is not to blame for."""
        self.started += seconds
        self.marked_at += seconds

    def progress(self, count: int) -> None:
        self.bytes += count

    def limit_exceeded(self, now: float) -> str:
        """`timeout` or `too_slow` when a limit is passed, else nothing."""
        if self.paused_at is not None:
            return ""
        if now - self.started > self.limits.deadline:
            return "timeout"
        if not self.bytes:
            self.marked_at = now  # a late first byte is not slow: its speed is measured from here
            # Connecting and the headers each have `timeout` of their own; headers that trickle in must end as well.
            return "timeout" if now - self.started > 2 * self.limits.timeout else ""
        if now - self.marked_at < self.limits.speed_window:
            return ""
        slow = self.bytes - self.marked_bytes < self.limits.min_speed * (now - self.marked_at)
        self.marked_at, self.marked_bytes = now, self.bytes
        return "too_slow" if slow else ""


class Watchdog:
    """The transfers under way, and the total of bytes that they received."""

    def __init__(self) -> None:
        self.active: set[Transfer] = set()
        self.received = 0
        self.checked_at = time.monotonic()

    @contextmanager
    def over(self, limits: FetchLimits) -> Iterator[Transfer]:
        """Watches the calling task; a transfer that is ended by the watchdog raises FetchFailed here."""
        task = asyncio.current_task()
        assert task is not None
        transfer = Transfer(task, limits)
        self.active.add(transfer)
        try:
            yield transfer
        except asyncio.CancelledError:
            if not transfer.ended_by:
                raise
            if hasattr(task, "uncancel"):  # Python 3.11: this cancellation was ours and is dealt with
                task.uncancel()
            raise FetchFailed(transfer.ended_by, "ended by the watchman") from None
        finally:
            self.active.discard(transfer)
            self.received += transfer.bytes

    def check(self) -> None:
        """Ends what is past its limits; to be called a few times a second.

        A call that comes late tells of a stall of this process (it was stopped, or waited for the database): what lay
        in the sockets meanwhile could not be read, and that time does not count.
        """
        now = time.monotonic()
        stalled, self.checked_at = now - self.checked_at, now
        for transfer in list(self.active):
            if stalled > STALL and transfer.paused_at is None:
                transfer.excuse(min(stalled, now - transfer.started))
            if not transfer.ended_by and (ended_by := transfer.limit_exceeded(now)):
                transfer.ended_by = ended_by
                transfer.task.cancel()

    def bytes_so_far(self) -> int:
        return self.received + sum(transfer.bytes for transfer in self.active)
