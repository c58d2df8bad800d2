"""Requests without a browser, for open and keyed APIs: every one ends in a `PageResponse` or a `FetchError`.

Redirects are followed here and not by aiohttp, because keys travel in headers of the engines' own, and no other host
than the one they are meant for may get them. Nor does a redirect lead into private networks: only the host that is
asked on purpose may stand in one, as the demo's does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractCookieJar
from yarl import URL

from lib.engines.base import PAGE, UPLOAD, FetchError, FilePart, PageResponse
from lib.engines.parsing import LARGEST_BODY
from lib.errors import UsageError
from lib.net.fetch import user_agent
from lib.net.guard import PRIVATE_ADDRESS, RefusedAddress, names_inside, refusals, socket_factory
from lib.text import storable

log = logging.getLogger("gleaner.web")
T = TypeVar("T")

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEPS_METHOD = frozenset({307, 308})
# What may be sent to another host than the one that was asked; everything else could be a key.
HARMLESS = frozenset({"accept", "accept-language", "user-agent", "x-requested-with"})
CHUNK = 64 * 1024
PAGE_HEADERS = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language": "en;q=0.8,*;q=0.5"}

_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((aiohttp.ClientConnectorDNSError, socket.gaierror), "name_not_resolved"),
    ((aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch), "certificate"),
    ((asyncio.TimeoutError,), "timeout"),
    ((aiohttp.ClientHttpProxyError,), "proxy_refused"),
    ((ConnectionRefusedError,), "connection_refused"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError), "connection_reset"),
    ((aiohttp.ClientPayloadError,), "truncated"),
    ((aiohttp.InvalidURL, ValueError), "bad_request"),
)


@dataclass(frozen=True)
class DirectSettings:
    """Settings of an engine's session; `timeout` is for one request with its redirects, in seconds."""

    proxy: Proxy | None = None
    timeout: float = 30.0
    contact: str = ""  # who is to be asked about our requests: GLEANER_CONTACT
    cookies: bool = False

    def __post_init__(self) -> None:
        if self.proxy and not self.proxy.server.startswith("http://"):
            raise UsageError("--proxy must be http://HOST:PORT for engines that need no browser.")


class DirectWeb:
    """A `lib.engines.base.Web` over one session, which all queries of an engine share; an async context manager."""

    def __init__(self, settings: DirectSettings):
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._outside: aiohttp.ClientSession | None = None  # for hosts that a redirect names

    async def __aenter__(self) -> DirectWeb:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.forget()

    async def forget(self) -> None:
        """Ends the session and its cookies; the next request opens another."""
        sessions, self._session, self._outside = (self._outside, self._session), None, None
        for session in filter(None, sessions):
            await session.close()

    async def recycle(self) -> None:
        """Does nothing: a session hoards nothing that would have to be thrown away."""

    async def open(self, url: str) -> PageResponse:
        return await self._bounded(self._follow("GET", url, PAGE, PAGE_HEADERS, None))

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> PageResponse:
        return await self._bounded(self._follow("GET", url, part, headers, None))

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> PageResponse:
        data: aiohttp.FormData | bytes = body
        if form:
            data = aiohttp.FormData()
            data.add_field(form.form_field, form.content, filename=form.name, content_type=form.mime)
        return await self._bounded(self._follow("POST", url, UPLOAD, headers, data))

    async def submit(self, labels: Sequence[str]) -> PageResponse | None:
        """There is no page and no button: a consent notice ends a query here."""
        return None

    async def value(self, name: str) -> bytes:
        """No script runs here."""
        return b""

    async def _follow(
        self, method: str, url: str, part: str, headers: Mapping[str, str], data: aiohttp.FormData | bytes | None
    ) -> PageResponse:
        given, place = dict(headers), URL(url, encoded=True)
        asked = place.host
        for _ in range(MOST_REDIRECTS + 1):
            session = self._own_session() if place.host == asked else self._session_for_strangers(place.host or "")
            async with session.request(method, place, headers=given, data=data, allow_redirects=False) as response:
                target = response.headers.get("Location", "")
                if response.status not in REDIRECTS or not target:
                    known = {storable(name).lower(): storable(value) for name, value in response.headers.items()}
                    return PageResponse(part, str(place), response.status, known, await _read(response))
            following = _resolve(place, target)
            elsewhere = following.origin() != place.origin()
            if method == "POST" and response.status in KEEPS_METHOD and elsewhere:
                raise FetchError("bad_redirect", "a body is not sent on to another host")
            if method == "POST" and response.status not in KEEPS_METHOD:
                method, data = "GET", None
                given = {name: value for name, value in given.items() if name.lower() != "content-type"}
            if elsewhere:
                given = {name: value for name, value in given.items() if name.lower() in HARMLESS}
            place = following
        raise FetchError("too_many_redirects")

    def _own_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _session_for_strangers(self, host: str) -> aiohttp.ClientSession:
        """A session with the same cookies that refuses private addresses; of a proxy, which connects itself, the same.

        Raises FetchError for a name inside, which a proxy would connect to.
        """
        if names_inside(host):
            raise FetchError(PRIVATE_ADDRESS, host)
        own = self._own_session()
        if self._settings.proxy:
            return own
        if self._outside is None:
            connector = aiohttp.TCPConnector(socket_factory=socket_factory(allow_private=False))
            self._outside = self._new_session(connector, own.cookie_jar)
        return self._outside

    def _new_session(
        self, connector: aiohttp.TCPConnector | None = None, cookies: AbstractCookieJar | None = None
    ) -> aiohttp.ClientSession:
        settings = self._settings
        # `unsafe` lets hosts set cookies that are named by a number, as the gallery's is.
        jar = cookies or (aiohttp.CookieJar(unsafe=True) if settings.cookies else aiohttp.DummyCookieJar())
        proxy = URL(settings.proxy.server) if settings.proxy else None
        if proxy and settings.proxy and settings.proxy.username:
            proxy = proxy.with_user(settings.proxy.username).with_password(settings.proxy.password)
        return aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": user_agent(settings.contact)},
            cookie_jar=jar,
            timeout=aiohttp.ClientTimeout(total=settings.timeout, sock_connect=settings.timeout),
            trust_env=False,
            proxy=proxy,
        )

    async def _bounded(self, work: Awaitable[T]) -> T:
        """Every failure of the network as a FetchError with a short reason."""
        refused: list[str] = []
        before = refusals.set(refused)
        try:
            return await asyncio.wait_for(work, self._settings.timeout)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            reason = refused[0] if refused else _reason(error)
            log.debug("%s: %s", reason, type(error).__name__)
            raise FetchError(reason) from None
        finally:
            refusals.reset(before)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, unpacked and bounded."""
    body = bytearray()
    async for block in response.content.iter_chunked(CHUNK):
        body += block
        if len(body) > LARGEST_BODY:
            raise FetchError("too_large", f"more than {LARGEST_BODY} bytes")
    return bytes(body)


def _resolve(place: URL, target: str) -> URL:
    following = place.join(URL(target))
    if following.scheme not in ("http", "https") or not following.host or following.user or following.password:
        raise FetchError("bad_redirect")
    return following.with_fragment(None)


def _reason(error: BaseException) -> str:
    """A short stable word, the same as `lib.web.browser` has for the same trouble where both can meet it."""
    if isinstance(error, RefusedAddress):
        return error.reason
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    inner = getattr(error, "os_error", None)
    return _reason(inner) if isinstance(inner, OSError) else "connection_failed"


@dataclass(frozen=True)
class Proxy:
    """A proxy's address without credentials, and the credentials, which are never written anywhere."""

    server: str
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.server!r})"


def read_proxy(text: str | None, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy of `--proxy`, with credentials from `GLEANER_PROXY` only. Raises UsageError."""
    stored = environment.get("GLEANER_PROXY", "")
    if not text:
        return None
    try:
        parts, known = urlsplit(text), urlsplit(stored)
        address = (parts.hostname or "", parts.port)
        matches = (known.hostname or "", known.port) == address
    except ValueError:
        raise UsageError("--proxy is no address; write it as http://HOST:PORT or socks5://HOST:PORT.") from None
    if parts.scheme not in ("http", "https", "socks5") or not address[0]:
        raise UsageError("--proxy is no address; write it as http://HOST:PORT or socks5://HOST:PORT.")
    if "@" in parts.netloc and text != stored:
        raise UsageError("--proxy must not carry a password, which others could see; put it into GLEANER_PROXY.")
    secret = known if matches else parts
    server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Proxy(server, unquote(secret.username or ""), unquote(secret.password or ""))
