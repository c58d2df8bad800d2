"""Requests without a browser: redirects, cookies, limits, reasons, and a proxy, against real local servers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from support import PATIENCE

from lib.engines.base import API, FetchError
from lib.engines.parsing import LARGEST_BODY
from lib.errors import UsageError
from lib.web.direct import DirectSettings, DirectWeb, Proxy

CONTACT = "someone@example.org"


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(list(routes))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Echo:
    """Remembers what was sent to it."""

    seen: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)

    async def reply(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.path_qs, request.headers.copy(), await request.read()))
        response = web.json_response({"ok": True})
        response.set_cookie("BAIDUID", "1")
        return response


def test_redirects_are_followed_and_keys_stay_with_their_host() -> None:
    async def scene() -> None:
        here, there = Echo(), Echo()
        async with serving(web.get("/end", there.reply)) as other:

            async def away(request: web.Request) -> web.Response:
                return web.Response(status=302, headers={"Location": f"{other}/end?x=1#part"})

            async def near(request: web.Request) -> web.Response:
                return web.Response(status=302, headers={"Location": "/end"})

            routes = (web.get("/away", away), web.get("/near", near), web.get("/end", here.reply))
            async with serving(*routes) as url, DirectWeb(DirectSettings(contact=CONTACT)) as direct:
                secret = {"X-Naver-Client-Secret": "s3cret", "Authorization": "Api-Key s3cret", "Accept": "a/b"}
                near_answer = await direct.get(f"{url}/near", part=API, headers=secret)
                assert near_answer.url == f"{url}/end" and here.seen[0][2]["X-Naver-Client-Secret"] == "s3cret"
                far = await direct.get(f"{url}/away", part=API, headers=secret)
                assert (far.url, far.status, far.body) == (f"{other}/end?x=1", 200, b'{"ok": true}')
                sent = there.seen[0][2]
                assert "s3cret" not in str(sent) and sent["Accept"] == "a/b"
                assert sent["User-Agent"].startswith("Gleaner/") and CONTACT in sent["User-Agent"]

    asyncio.run(scene())


INSIDE = ["http://localhost:%d/", "http://127.0.0.2:%d/", "http://[::1]:%d/", "http://10.0.0.1/", "http://0x7f.2:%d/"]
INSIDE += ["http://169.254.169.254/latest/meta-data/", "http://2130706434:%d/", "//localhost:%d/"]


@pytest.mark.parametrize("target", INSIDE)
@pytest.mark.parametrize("hops", [1, 2])
def test_no_redirect_leads_into_a_private_network(target: str, hops: int) -> None:
    """Only the host that is asked on purpose may stand in one, as the demo's does."""

    async def scene() -> None:
        echo = Echo()

        async def away(request: web.Request) -> web.Response:
            port = request.url.port
            where = target % port if "%d" in target else target
            return web.Response(status=302, headers={"Location": where if request.path == "/1" else "/1"})

        app = web.Application()
        app.add_routes([web.route("*", "/{any:[12]}", away), web.route("*", "/{any:.*}", echo.reply)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 0).start()
        try:
            async with DirectWeb(DirectSettings(timeout=PATIENCE)) as direct:
                for ask in (direct.get, direct.post):
                    more = {"part": API} if ask == direct.get else {}
                    with pytest.raises(FetchError) as caught:
                        await ask(f"http://127.0.0.1:{runner.addresses[0][1]}/{hops}", headers={}, **more)
                    assert caught.value.reason == "private_address"
            assert not echo.seen
        finally:
            await runner.cleanup()

    asyncio.run(scene())


def test_a_name_that_stands_for_a_private_address_is_refused_where_it_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No check of the name alone can see it, and a second look-up may tell something else than the first."""
    monkeypatch.setattr("lib.web.direct.names_inside", lambda host: False)

    async def scene() -> None:
        echo = Echo()

        async def away(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": f"http://localhost:{request.url.port}/end"})

        async with (
            serving(web.get("/", away), web.get("/end", echo.reply)) as url,
            DirectWeb(DirectSettings()) as direct,
        ):
            with pytest.raises(FetchError) as caught:
                await direct.get(url + "/", part=API, headers={})
            assert caught.value.reason == "private_address" and not echo.seen

    asyncio.run(scene())


def test_headers_that_are_no_text_are_mended() -> None:
    async def scene() -> None:
        async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/\xff\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(raw, "127.0.0.1", 0)
        async with server, DirectWeb(DirectSettings(timeout=PATIENCE)) as direct:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert (await direct.get(url, part=API, headers={})).headers["content-type"] == "text/\ufffd"

    asyncio.run(scene())


@pytest.mark.parametrize(("cookies", "expected"), [(True, "BAIDUID=1"), (False, None)])
def test_cookies_are_kept_only_where_an_engine_needs_them(cookies: bool, expected: str | None) -> None:
    async def scene() -> None:
        echo = Echo()
        async with serving(web.get("/", echo.reply)) as url, DirectWeb(DirectSettings(cookies=cookies)) as direct:
            await direct.open(url + "/")
            await direct.get(url + "/", part=API, headers={})
            assert echo.seen[1][2].get("Cookie") == expected
            await direct.forget()
            await direct.open(url + "/")
            assert "Cookie" not in echo.seen[2][2]

    asyncio.run(scene())


async def _slow(request: web.Request) -> web.Response:
    await asyncio.sleep(PATIENCE)
    return web.Response()


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    for _ in range(LARGEST_BODY // 2**20 + 1):
        await response.write(bytes(2**20))
    return response


async def _round(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/round"})


async def _file(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "file:///etc/passwd"})


async def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/slow", "timeout"),
        ("/huge", "too_large"),
        ("/round", "too_many_redirects"),
        ("/file", "bad_redirect"),
        ("/cut", "connection_reset"),
        ("http://127.0.0.1:1/", "connection_refused"),
        ("http://no-such-host.invalid/", "name_not_resolved"),
    ],
)
def test_failures_have_short_reasons(path: str, reason: str) -> None:
    async def scene() -> None:
        handlers = {"/slow": _slow, "/huge": _huge, "/round": _round, "/file": _file, "/cut": _cut}
        async with serving(*(web.get(at, handler) for at, handler in handlers.items())) as url:
            seconds = 0.5 if path == "/slow" else PATIENCE
            async with DirectWeb(DirectSettings(timeout=seconds)) as direct:
                with pytest.raises(FetchError) as caught:
                    await direct.get(path if path.startswith("http") else url + path, part=API, headers={})
                assert caught.value.reason == reason

    asyncio.run(scene())


def test_a_proxy_is_used_with_credentials_that_nothing_shows() -> None:
    async def scene() -> None:
        echo = Echo()
        async with serving(web.get("/{any:.*}", echo.reply)) as url:
            settings = DirectSettings(Proxy(url, "user", "s3cret"), PATIENCE, CONTACT)
            assert "s3cret" not in repr(settings)
            async with DirectWeb(settings) as direct:
                found = await direct.get("http://commons.example/w/api.php", part=API, headers={})
            assert found.url == "http://commons.example/w/api.php"
            expected = "Basic " + base64.b64encode(b"user:s3cret").decode()
            assert echo.seen[0][2]["Proxy-Authorization"] == expected

    asyncio.run(scene())


def test_a_proxy_that_only_a_browser_can_use_is_refused() -> None:
    with pytest.raises(UsageError, match="http://HOST:PORT"):
        DirectSettings(proxy=Proxy("socks5://127.0.0.1:9"))
