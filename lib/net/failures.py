"""The short, stable name of everything that can go wrong with one address."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

import aiohttp

from lib.net.guard import RefusedAddress
from lib.net.urls import BAD_URL

OUR_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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


def raise_our_own(error: BaseException) -> None:
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
    """Whether a machine answered at all; None where that cannot be told, or nothing was sent."""
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
