"""One GET of one address: every failure is a value with a short reason, every limit is explicit."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from yarl import URL

from lib import __version__
from lib.net.guard import PORTS, RefusedAddress, refusals, socket_factory
from lib.net.optout import opt_out
from lib.net.retry import retry_after
from lib.net.urls import BAD_URL
from lib.net.watch import TransferEnded, Watch

MOST_REDIRECTS = 5
KEEP_ALIVE = 15.0  # seconds an idle connection is kept
DNS_SECONDS = 300
DETAIL_LENGTH = 200  # characters of an error's text that are kept
OUR_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True)
class Limits:
    """What one address may cost: seconds, bytes, and bytes a second over a window of seconds."""

    timeout: float = 20.0  # to connect, to the first byte, and between two bytes
    deadline: float = 300.0  # the whole file
    max_bytes: int = 50 * 1024 * 1024
    min_speed: int = 1024
    speed_window: float = 10.0


@dataclass
class Answer:
    """What became of one address: the body lies in the sink when `reason` is empty.

    `retry_after` is in seconds, `elapsed_ms` from the request to the last byte.
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


class Sink(Protocol):
    """Where a body goes. `judge` sees its first bytes and may answer with a (reason, detail) to stop at once."""

    def judge(self, head: bytes) -> tuple[str, str]: ...

    def write(self, block: bytes) -> Any: ...


class Stop(Exception):
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


async def fetch(
    session: aiohttp.ClientSession, url: URL, sink: Sink, limits: Limits, watch: Watch, referer: str = ""
) -> Answer:
    """Fetches one address, as `parse_address` made it, into the sink.

    Raises OSError only for what is wrong with this machine.
    """
    answer, started = Answer(), time.monotonic()
    refused: list[str] = []
    refusals.set(refused)
    try:
        with watch.over(limits) as transfer:
            await _get(session, url, referer, sink, limits, transfer.progress, answer)
    except Stop as stop:
        answer.reason, answer.detail = stop.reason, stop.detail
    except SinkError as fault:
        raise fault.error from None
    except TransferEnded as end:
        answer.reason, answer.detail = end.reason, "ended by the watchman"
    except (aiohttp.ClientError, OSError, ValueError, EOFError, asyncio.TimeoutError) as error:
        _raise_our_own(error)
        answer.reason, answer.detail = _reason(error, refused), f"{type(error).__name__}: {error}"
    answer.detail = " ".join(answer.detail.split())[:DETAIL_LENGTH]
    answer.elapsed_ms = round((time.monotonic() - started) * 1000)
    return answer


async def _get(
    session: aiohttp.ClientSession,
    url: URL,
    referer: str,
    sink: Sink,
    limits: Limits,
    progress: Callable[[int], None],
    answer: Answer,
) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.timeout, sock_read=limits.timeout)
    headers = {"Referer": referer} if referer.isascii() and referer.isprintable() and referer else None
    # aiohttp counts the first request as well.
    async with session.get(url, headers=headers, timeout=timeout, max_redirects=MOST_REDIRECTS + 1) as response:
        _note(answer, response)
        _judge_headers(answer, response, limits)
        await _read(response, sink, limits, progress, answer)


def _note(answer: Answer, response: aiohttp.ClientResponse) -> None:
    headers = response.headers
    answer.status, answer.final_url = response.status, str(response.url.with_fragment(None))
    answer.content_type = headers.get("Content-Type", "")[:DETAIL_LENGTH]
    answer.etag = headers.get("ETag", "")[:DETAIL_LENGTH]
    answer.last_modified = headers.get("Last-Modified", "")[:DETAIL_LENGTH]


def _judge_headers(answer: Answer, response: aiohttp.ClientResponse, limits: Limits) -> None:
    headers = response.headers
    if response.status != 200:
        answer.retry_after = retry_after(headers.get("Retry-After"))
        raise Stop("bad_redirect" if 300 <= response.status < 400 else f"http_{response.status}")
    for each in (*response.history, response):
        if signal := opt_out(each.headers.getall("X-Robots-Tag", ()), each.headers.get("tdm-reservation", "")):
            raise Stop("opted_out", signal)
    if (response.content_length or 0) > limits.max_bytes:
        raise Stop("too_large", f"{response.content_length} bytes announced")


async def _read(
    response: aiohttp.ClientResponse,
    sink: Sink,
    limits: Limits,
    progress: Callable[[int], None],
    answer: Answer,
) -> None:
    decode = _decoder(response.headers.get("Content-Encoding", ""), limits.max_bytes)
    head, judged = b"", False
    async for chunk in response.content.iter_any():
        progress(len(chunk))
        block = decode(chunk) if decode else chunk
        answer.bytes += len(block)
        if answer.bytes > limits.max_bytes:
            raise Stop("too_large", f"more than {limits.max_bytes} bytes")
        if not judged:
            head += block[:512]
            if judged := len(head) >= 512:
                _judge_head(sink, head)
        if (waiting := sink.write(block)) is not None:
            try:
                await waiting
            except OSError as error:
                raise SinkError(error) from error
    if not answer.bytes:
        raise Stop("empty")
    if not judged:
        _judge_head(sink, head)


def _judge_head(sink: Sink, head: bytes) -> None:
    reason, detail = sink.judge(head)
    if reason:
        raise Stop(reason, detail)


def _decoder(encoding: str, limit: int) -> Callable[[bytes], bytes] | None:
    """For servers that compress although they were asked not to; what comes out is bounded chunk by chunk."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Stop("encoded_body", f"Content-Encoding {name[:40]}")
    machine = zlib.decompressobj(47 if name != "deflate" else 15)

    def decode(chunk: bytes) -> bytes:
        try:
            out = machine.decompress(chunk, limit + 1)
        except zlib.error as error:
            raise Stop("encoded_body", str(error)) from error
        if machine.unconsumed_tail:
            raise Stop("too_large", f"unpacks to more than {limit} bytes")
        return out

    return decode


def _raise_our_own(error: BaseException) -> None:
    """Too many open files is no fault of the address: the run has to stop and say so."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in OUR_OWN_LIMITS:
        raise OSError(number, os.strerror(number))


def _reason(error: BaseException, refused: list[str]) -> str:
    """The short, stable name of a failure; the order goes from the particular to the general."""
    if isinstance(error, RefusedAddress) or (refused and isinstance(error, aiohttp.ClientConnectorError)):
        return refused[0] if refused else getattr(error, "reason", "private_address")
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return "connect_error" if isinstance(error, OSError) else "bad_response"


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
