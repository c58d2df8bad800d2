"""The short, stable name of everything that can go wrong with one address, and when to try again."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import socket
import sys

import aiohttp

from lib import times
from lib.net.guard import RefusedAddress
from lib.net.urls import BAD_URL

OUR_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

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

LONGEST_RETRY_AFTER = 3600.0  # seconds; what a server may ask for at most in one answer
LONGEST_BACKOFF = 60.0  # seconds

# Trying again later may help. Everything else is the answer to that address.
TRANSIENT = frozenset(
    "timeout connect_error dns_error disconnected truncated too_slow bad_response http_408 http_425 http_429 http_500"
    " http_502 http_503 http_504 http_520 http_521 http_522 http_523 http_524 http_529 http_530 bad_range".split()
)
# The host says that it is too much, so the whole host is left alone for a while.
SLOW_DOWN = frozenset({"http_429", "http_503"})
# The host struggles: fewer requests at once.
STRAIN = SLOW_DOWN | {"timeout", "too_slow", "connect_error"}
# Many of these in a row, and the host is down. (After a 429 or 503 it is paused instead.)
FAULTS = TRANSIENT - SLOW_DOWN - {"too_slow", "truncated", "bad_range"}

FINAL = frozenset(
    "bad_redirect too_many_redirects tls_error bad_url not_an_image svg_refused undecodable empty encoded_body"
    " placeholder too_large too_many_pixels too_many_frames too_many_parts decode_timeout decode_memory decode_crashed"
    " private_address port_refused robots_txt blocked_domain not_allowed_domain removed_repeat no_address".split()
)
_STATUS = re.compile(r"http_[1-5]\d\d")


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


def reraise_local_error(error: BaseException) -> None:
    """Too many open files is no fault of the address: the run has to stop and say so."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in OUR_OWN_LIMITS:
        raise OSError(number, os.strerror(number))


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


def backoff(tries: int, base: float) -> float:
    """Seconds to wait after `tries` failures: a random share of base * 2^(tries-1) ("full jitter"), at most a minute.

    The random share keeps rows that failed together from coming back together.
    """
    return random.uniform(0, min(LONGEST_BACKOFF, base * 2 ** max(0, tries - 1)))


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, from a Retry-After header in seconds or as an HTTP date; None when it says nothing usable.

    Negative, past and broken values are ignored; longer ones are cut to an hour. `now` is a Unix time.
    """
    seconds = times.retry_after(value, most=LONGEST_RETRY_AFTER, now=now)
    return seconds if seconds is not None and seconds >= 0 else None


def is_reason(text: str) -> bool:
    """Tells if a picture may fail for this reason, so that a command line can tell one from a typing error."""
    return text in TRANSIENT or text in FINAL or _STATUS.fullmatch(text) is not None
