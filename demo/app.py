"""Puts the gallery together and opens its ports.

async with Gallery(pictures=60) as gallery:     # in a test with an event loop
    gallery.url, gallery.set_fault("captcha@1"), gallery.counters

with running_gallery(pictures=60) as gallery:   # in a test without one: the gallery runs in a thread
    ...
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from demo import (
    baidu,
    baidu_graph,
    bing,
    commons,
    gates,
    markup,
    naver,
    naver_api,
    openverse,
    yandex,
    yandex_cloud,
)
from demo.catalog import build_catalog
from demo.darkroom import Darkroom
from demo.faults import Ask, FaultError, Switchboard
from demo.hosts import host_app
from demo.search import Index
from demo.site import Options, Routes, Site

STATIC = Path(__file__).parent / "static"
# A protocol is a function from the site to its routes.
PROTOCOLS: tuple[Routes, ...] = (
    yandex.routes,
    yandex_cloud.routes,
    baidu.routes,
    baidu_graph.routes,
    naver.routes,
    naver_api.routes,
    bing.routes,
    openverse.routes,
    commons.routes,
)
SHUTDOWN_SECONDS = 0.2  # how long open connections are waited for at the end


class Gallery:
    """An offline picture-search site on loopback ports; an async context manager.

    Keywords are the fields of `demo.site.Options`, and `faults`.
    """

    def __init__(self, *, faults: tuple[str, ...] = (), **options: Any) -> None:
        self.options = Options(**options)
        self._faults = faults
        self._runners: list[web.AppRunner] = []
        self.site: Site

    @property
    def url(self) -> str:
        return self.site.url

    @property
    def hosts(self) -> list[str]:
        return self.site.hosts

    @property
    def counters(self) -> dict[str, Any]:
        """Requests asked and served by route, query and page; see `Switchboard.report`."""
        return self.site.board.report()

    def set_fault(self, spec: str) -> None:
        """Switch a misbehaviour on: `KIND[=VALUE][@WHERE][xCOUNT]`."""
        self.site.board.set(spec)

    def clear_faults(self) -> None:
        self.site.board.faults.clear()

    async def __aenter__(self) -> Gallery:
        options = self.options
        board = Switchboard()
        pictures = build_catalog(options.seed, options.pictures, options.hosts, troubled=options.broken)
        index = await asyncio.get_running_loop().run_in_executor(None, Index, pictures, options.results)
        self.site = Site(options, pictures, index, Darkroom(), board)
        try:
            main = main_app(self.site)
            for fault in self._faults:
                board.set(fault)
            self.site.url = await self._open(main, options.port)
            # The ports after the site's, where they are free: a gallery started again on its old port is whole again.
            first = int(self.site.url.rsplit(":", 1)[1]) + 1
            for number in range(options.hosts):
                self.site.hosts.append(await self._open(host_app(self.site, number), first + number, insist=False))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.site.board.closing.set()
        for runner in reversed(self._runners):
            await runner.cleanup()
        self.site.darkroom.close()

    async def _open(self, app: web.Application, port: int, *, insist: bool = True) -> str:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        self._runners.append(runner)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.options.host, port, reuse_address=True).start()
        except (OSError, OverflowError):  # taken, or beyond the last port there is
            if insist:
                raise
            await web.TCPSite(runner, self.options.host, 0).start()
        name = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"http://{name}:{runner.addresses[0][1]}"


def main_app(site: Site) -> web.Application:
    """The site itself: every protocol, the front page, the control endpoint."""
    app = web.Application(client_max_size=64 * 1024 * 1024)  # the protocols set limits of their own
    app.router.add_get("/", partial(_index, site))
    app.router.add_get("/robots.txt", _robots)
    app.router.add_get("/_control", partial(_read_control, site))
    app.router.add_post("/_control", partial(_write_control, site))
    app.router.add_static("/_static", STATIC)
    app.add_routes(gates.gate_routes())
    for protocol in PROTOCOLS:
        app.add_routes(protocol(site))
    return app


async def _robots(request: web.Request) -> web.Response:
    return web.Response(text="User-agent: *\nDisallow: /_control\n")


async def _index(site: Site, request: web.Request) -> web.StreamResponse:
    """The front page, which is also where a collector of Baidu's fetches its cookies."""
    verdict = await site.board.meet(request, ask := Ask(baidu.ENGINE, "warm"))
    if verdict.response:
        return verdict.response
    rows = []
    for picture in [picture for picture in site.pictures if picture.alteration.name == "original"][:60]:
        rows.append((site.link(picture.original), f"/i?id={picture.id}&n=13", picture.title))
    facts = {"pictures": len(site.pictures), "hosts": len(site.hosts)}
    site.board.done(ask)
    return baidu.warmed(markup.respond(markup.index_page(facts, rows)))


def _local_only(request: web.Request) -> None:
    try:
        local = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        local = False
    if not local:
        raise web.HTTPForbidden(text="the control endpoint answers on this machine only")


async def _read_control(site: Site, request: web.Request) -> web.Response:
    _local_only(request)
    return web.json_response(_state(site))


async def _write_control(site: Site, request: web.Request) -> web.Response:
    """Takes `{"faults": [SPEC…], "clear": bool, "reset": bool}`; all of it, or nothing and a 400."""
    _local_only(request)
    if request.content_type != "application/json":  # A page in a browser cannot send this without asking first.
        return web.json_response({"error": "send application/json"}, status=415)
    board, kept = site.board, list(site.board.faults)
    try:
        wanted = await request.json()
        if wanted.get("clear"):
            board.faults.clear()
        for spec in wanted.get("faults", []):
            board.set(spec)
    except (ValueError, AttributeError, TypeError) as error:
        board.faults[:] = kept
        return web.json_response(
            {"error": str(error) if isinstance(error, FaultError) else "not understood"}, status=400
        )
    if wanted.get("reset"):
        board.asked.clear()
        board.served.clear()
        site.tries.clear()
    return web.json_response(_state(site))


def _state(site: Site) -> dict[str, Any]:
    kinds = sorted({name for _, name in site.board.kinds})
    return {
        **site.board.report(),
        "pictures": len(site.pictures),
        "uploads": sorted(site.uploads),
        "hosts": site.hosts,
        "kinds": kinds,
    }


@contextmanager
def running_gallery(**options: Any) -> Iterator[Gallery]:
    """A gallery in a thread of its own, for code without an event loop.

    Counters may be read and faults set from outside while it runs.
    """
    gallery = Gallery(**options)
    ready, failed = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with gallery:
                ready.set()
                await stop.wait()
        except Exception as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="gallery", daemon=True)
    thread.start()
    ready.wait()
    try:
        if failed:
            raise failed[0]
        yield gallery
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
