"""The picture hosts: small sites on ports of their own, each with its share of troubles."""

from __future__ import annotations

import asyncio
from functools import partial
from urllib.parse import unquote

from aiohttp import web

from demo.alterations import MIME, extension
from demo.catalog import Address, Picture
from demo.faults import Ask, send_part
from demo.site import Site

HUGE = 10 * 1024**3  # bytes promised by the "huge" trouble
SLOW_SECONDS = 1.0
ROBOTS = "User-agent: *\nDisallow: /closed/\n"


def host_app(site: Site, number: int) -> web.Application:
    """The web application of picture host `number`."""
    table: dict[str, tuple[Picture, Address]] = {}
    for picture in site.pictures:
        for address in picture.addresses:
            if address.host == number:
                table[unquote(address.path.partition("?")[0])] = (picture, address)

    async def serve(request: web.Request) -> web.StreamResponse:
        found = table.get(request.path)
        if found is None:
            return web.Response(status=404, text="no such picture")
        return await _serve(site, request, *found)

    app = web.Application()
    app.router.add_get("/robots.txt", _robots)
    app.router.add_get("/static/removed.png", partial(_placeholder, site))
    app.router.add_get("/", partial(_front, number))
    app.router.add_get("/{path:.*}", serve)
    return app


async def _robots(request: web.Request) -> web.Response:
    return web.Response(text=ROBOTS)


async def _placeholder(site: Site, request: web.Request) -> web.Response:
    return web.Response(body=await site.darkroom.placeholder(), content_type="image/png")


async def _front(number: int, request: web.Request) -> web.Response:
    return web.Response(text=f"<h1>Picture host {number}</h1>", content_type="text/html")


async def _serve(site: Site, request: web.Request, picture: Picture, address: Address) -> web.StreamResponse:
    key = f"{address.host}{address.path}"
    site.tries[key] += 1
    ask = Ask("host", "picture", key)
    verdict = await site.board.meet(request, ask)
    response = verdict.response or await _trouble(site, request, picture, address, site.tries[key])
    etag = f'"{picture.id}-{address.kind}-{address.size[0]}"'
    if response is None and request.headers.get("If-None-Match") == etag:
        response = web.Response(status=304, headers={"ETag": etag})
    if response is None:
        body = await site.darkroom.at(picture, address)
        headers = {"X-Robots-Tag": "noai"} if address.trouble == "noai" else {}
        mime = "application/octet-stream" if address.trouble == "octet" else _mime(picture, address)
        response = web.Response(body=body, content_type=mime, headers={**headers, "ETag": etag})
        site.board.done(ask)
    return response


async def _trouble(
    site: Site, request: web.Request, picture: Picture, address: Address, tries: int
) -> web.StreamResponse | None:
    """The answer of a bad address; None where the picture is to be served after all."""
    trouble = address.trouble
    if trouble in ("missing", "dead"):
        return web.Response(status=404, text="not found")
    if trouble == "referer" and not request.headers.get("Referer"):
        return web.Response(status=403, text="hotlinking is not allowed")
    if trouble == "flaky" and tries == 1:
        return web.Response(status=500, text="try again")
    if trouble == "html":
        page = f"<!doctype html><html><title>{picture.title}</title><body>Sign in to see this picture.</body></html>"
        return web.Response(text=page, content_type="image/jpeg")
    if trouble == "gone":
        raise web.HTTPFound(site.hosts[address.host] + "/static/removed.png")
    if trouble in ("truncated", "huge"):
        body = await site.darkroom.at(picture, address)
        promised, part = (HUGE, body) if trouble == "huge" else (len(body), body[: len(body) // 2])
        return await send_part(request, part, promised, _mime(picture, address))
    if trouble == "slow":
        await asyncio.sleep(SLOW_SECONDS)
    return None


def _mime(picture: Picture, address: Address) -> str:
    if address.kind != "original":
        return "image/jpeg"
    return MIME[extension(picture.alteration.encoding)]
