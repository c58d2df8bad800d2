"""One GET of one address: every failure is a value with a short reason, every limit is explicit."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from yarl import URL

from lib import __version__
from lib.net.decoding import decoder
from lib.net.failures import SinkError, Stop, raise_our_own, reached, reason_of
from lib.net.guard import PORTS, refusals, socket_factory
from lib.net.limits import Limits
from lib.net.optout import opt_out
from lib.net.retry import retry_after
from lib.net.watch import TransferEnded, Watch

MOST_REDIRECTS = 5
KEEP_ALIVE = 15.0  # seconds an idle connection is kept
DNS_SECONDS = 300
DETAIL_LENGTH = 200  # characters of an error's text that are kept
NOT_MODIFIED = "not_modified"
BAD_RANGE = "bad_range"


@dataclass(frozen=True)
class Ask:
    """What a request says besides its address.

    `etag` and `last_modified` make it conditional. `offset` bytes are here already, of the version that `validator`
    (a strong entity tag) names. With `last` the connection is not kept.
    """

    referer: str = ""
    etag: str = ""
    last_modified: str = ""
    offset: int = 0
    validator: str = ""
    last: bool = False

    def headers(self) -> dict[str, str] | None:
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
    answered (None: nothing was sent); `resumable` whether the rest may be asked for alone.
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
    resumable: bool = False


class Sink(Protocol):
    """Where a body goes.

    `meet` sees the answer before the body and `judge` the first bytes; both may give a (reason, detail) to stop at
    once. `restart` is told when the server sends everything although the rest was asked for.
    """

    def meet(self, answer: Answer) -> tuple[str, str]: ...

    def judge(self, head: bytes) -> tuple[str, str]: ...

    def write(self, block: bytes) -> Any: ...

    def restart(self) -> None: ...


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
    session: aiohttp.ClientSession, url: URL, sink: Sink, limits: Limits, watch: Watch, ask: Ask = PLAIN
) -> Answer:
    """Fetches one address, as `parse_address` made it, into the sink.

    Raises OSError only for what is wrong with this machine.
    """
    answer, started = Answer(bytes=ask.offset), time.monotonic()
    refused: list[str] = []
    refusals.set(refused)
    try:
        with watch.over(limits) as transfer:
            await _get(session, url, ask, sink, limits, transfer.progress, answer)
    except Stop as stop:
        answer.reason, answer.detail = stop.reason, stop.detail
    except SinkError as fault:
        raise fault.error from None
    except TransferEnded as end:
        answer.reason, answer.detail = end.reason, "ended by the watchman"
        answer.reached = True if answer.status else None  # a name service that hangs looks the same from here
    except (aiohttp.ClientError, OSError, ValueError, EOFError, asyncio.TimeoutError) as error:
        raise_our_own(error)
        answer.reason, answer.detail = reason_of(error, refused), f"{type(error).__name__}: {error}"
        answer.reached = reached(error, answer.reason)
    if answer.detail:
        answer.detail = " ".join(answer.detail.split())[:DETAIL_LENGTH]
    answer.elapsed_ms = round((time.monotonic() - started) * 1000)
    return answer


async def _get(
    session: aiohttp.ClientSession,
    url: URL,
    ask: Ask,
    sink: Sink,
    limits: Limits,
    progress: Callable[[int], None],
    answer: Answer,
) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.timeout, sock_read=limits.timeout)
    headers = ask.headers()
    # aiohttp counts the first request as well.
    async with session.get(url, headers=headers, timeout=timeout, max_redirects=MOST_REDIRECTS + 1) as response:
        _note(answer, response)
        _judge_status(answer, response, ask, sink)
        _judge_headers(answer, response, sink, limits)
        await _read(response, sink, limits, progress, answer)


def _note(answer: Answer, response: aiohttp.ClientResponse) -> None:
    headers = response.headers
    answer.status = response.status
    answer.final_url = str(response.url if not response.url.raw_fragment else response.url.with_fragment(None))
    answer.content_type = headers.get("Content-Type", "")[:DETAIL_LENGTH]
    answer.etag = headers.get("ETag", "")[:DETAIL_LENGTH]
    answer.last_modified = headers.get("Last-Modified", "")[:DETAIL_LENGTH]
    answer.resumable = (
        headers.get("Accept-Ranges", "").strip().lower() == "bytes"
        and answer.etag.startswith('"')  # a weak tag does not promise the same bytes
        and "Content-Encoding" not in headers
    )


def _judge_status(answer: Answer, response: aiohttp.ClientResponse, ask: Ask, sink: Sink) -> None:
    status = response.status
    if status == 200:
        if ask.offset:  # another version, or a server that knows no ranges: all of it comes
            sink.restart()
            answer.bytes = 0
    elif status == 206 and ask.offset:
        if not _continues(response.headers, ask):
            raise Stop(BAD_RANGE, f"asked from {ask.offset}, got {response.headers.get('Content-Range', 'no range')}")
        answer.resumable = True
    elif status == 304 and (ask.etag or ask.last_modified):
        raise Stop(NOT_MODIFIED)
    elif status == 416 and ask.offset:
        raise Stop(BAD_RANGE, f"refused from {ask.offset}")
    else:
        answer.retry_after = retry_after(response.headers.get("Retry-After"))
        raise Stop("bad_redirect" if 300 <= status < 400 else f"http_{status}")


def _continues(headers: Mapping[str, str], ask: Ask) -> bool:
    """Whether a partial answer begins where we stopped and is of the same version."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    same = headers.get("ETag", ask.validator) == ask.validator
    return found is not None and int(found[1][:18]) == ask.offset and same and "Content-Encoding" not in headers


def _judge_headers(answer: Answer, response: aiohttp.ClientResponse, sink: Sink, limits: Limits) -> None:
    for each in (*response.history, response):
        if signal := opt_out(each.headers.getall("X-Robots-Tag", ()), each.headers.get("tdm-reservation", "")):
            raise Stop("opted_out", signal)
    size = answer.bytes + (response.content_length or 0)
    if size > limits.max_bytes:
        raise Stop("too_large", f"{size} bytes announced")
    reason, detail = sink.meet(answer)
    if reason:
        raise Stop(reason, detail)


async def _read(
    response: aiohttp.ClientResponse,
    sink: Sink,
    limits: Limits,
    progress: Callable[[int], None],
    answer: Answer,
) -> None:
    decode = decoder(response.headers.get("Content-Encoding", ""))
    head, judged = b"", answer.bytes > 0
    async for chunk in response.content.iter_any():
        progress(len(chunk))
        for block in decode(chunk) if decode else (chunk,):
            answer.bytes += len(block)
            if answer.bytes > limits.max_bytes:
                raise Stop("too_large", f"more than {limits.max_bytes} bytes")
            if not judged:
                head += block[:512]
                if judged := len(head) >= 512:
                    _judge_head(sink, head)
            if (waiting := sink.write(block)) is not None:
                await _wait(waiting)
    if not answer.bytes:
        raise Stop("empty")
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
        raise Stop(reason, detail)
