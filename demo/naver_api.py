"""Naver's keyed search API at both its addresses: the old one and that of the API hub, each with headers of its own."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from aiohttp import web

from demo.catalog import Picture
from demo.faults import Ask, Fault, Kind, Switchboard
from demo.keys import NAVER_ID, NAVER_SECRET
from demo.naver import proxied
from demo.paging import number_in, window
from demo.shapes import Shapes
from demo.site import Site

ENGINE = "naver-api"
OLD_HEADERS = ("X-Naver-Client-Id", "X-Naver-Client-Secret")
HUB_HEADERS = ("X-NCP-APIGW-API-KEY-ID", "X-NCP-APIGW-API-KEY")
MOST_ROWS, LAST_START = 100, 1000
SORTS, SIZES = ("sim", "date"), ("all", "large", "medium", "small")
BUILT = "Sun, 01 Nov 2026 12:00:00 +0900"


def routes(site: Site) -> list[web.RouteDef]:
    """The old address with its two endings, and the new one."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    old = r"/v1/search/image{ending:(\.json|\.xml)?}"
    return [web.get(old, here.old), web.get("/search/v1/image", here.hub)]


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def old(self, request: web.Request) -> web.StreamResponse:
        return await self._search(request, OLD_HEADERS, request.match_info["ending"] == ".xml")

    async def hub(self, request: web.Request) -> web.StreamResponse:
        return await self._search(request, HUB_HEADERS, request.query.get("format") == "xml")

    async def _search(self, request: web.Request, headers: tuple[str, str], xml: bool) -> web.StreamResponse:
        asked = request.query
        words, start, display = asked.get("query", ""), number_in(asked, "start", 1), number_in(asked, "display", 10)
        # Rounded up: the last start there may be is 1000, within the page before.
        page = -((1 - start) // display) if start and display and start > 0 and display > 0 else 0
        ask = Ask(ENGINE, "api", f"text:{words}" if words else "", page)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        if tuple(request.headers.get(name) for name in headers) != (NAVER_ID, NAVER_SECRET):
            return refuse(401, "024", "Authentication failed (인증에 실패하였습니다.)")
        if wrong := _wrong(words, start, display, asked.get("sort", "sim"), asked.get("filter", "all")):
            return refuse(400, *wrong)
        assert start is not None and display is not None
        wanted = {"isize": asked["filter"]} if asked.get("filter", "all") != "all" else {}
        found = self.site.by_words(words, wanted)
        items = [item(self.site, picture) for picture in window(found, start - 1, display)]
        answer = {"lastBuildDate": BUILT, "total": len(found), "start": start, "display": len(items), "items": items}
        answer = verdict.reshape(answer, ask)
        self.site.board.done(ask)
        if xml:
            return web.Response(body=_rss(words, answer), content_type="text/xml", charset="utf-8")
        return web.json_response(answer)


def _wrong(words: str, start: int | None, display: int | None, sort: str, size: str) -> tuple[str, str] | None:
    """The error for parameters out of bounds."""
    if not words:
        return "SE01", "Incorrect query request (잘못된 쿼리요청입니다.)"
    if display is None or not 1 <= display <= MOST_ROWS:
        return "SE02", "Invalid display value (부적절한 display 값입니다.)"
    if start is None or not 1 <= start <= LAST_START:
        return "SE03", "Invalid start value (부적절한 start 값입니다.)"
    if sort not in SORTS or size not in SIZES:
        return "SE04", "Invalid sort value (부적절한 sort 값입니다.)"
    return None


def refuse(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errorMessage": message, "errorCode": code}, status=status, headers=headers)


def item(site: Site, picture: Picture) -> dict[str, Any]:
    """One picture; sizes are text, and there is neither an id nor a page."""
    return {
        "title": picture.title,
        "link": site.link(picture.original),
        "thumbnail": proxied(site, picture, "b150"),
        "sizeheight": str(picture.claimed[1]),
        "sizewidth": str(picture.claimed[0]),
    }


def _rss(words: str, answer: dict[str, Any]) -> bytes:
    root = Element("rss", version="2.0")
    channel = SubElement(root, "channel")
    SubElement(channel, "title").text = f"Naver Open API - image ::'{words}'"
    for name in ("lastBuildDate", "total", "start", "display"):
        SubElement(channel, name).text = str(answer[name])
    for row in answer.get("items", []):
        entry = SubElement(channel, "item")
        for name, value in row.items():
            SubElement(entry, name).text = "" if value is None else str(value)
    return ElementTree.tostring(root, "utf-8", xml_declaration=True)


async def _busy(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    message = "Query limit exceeded (쿼리한도를 초과했습니다.)"
    return refuse(429, "012", message, {"Retry-After": fault.value or "2"})


async def _blocked(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """The key is good, but this API is not switched on for it."""
    return refuse(403, "028", "Scope Status Invalid (API 사용 권한이 없습니다.)")


SHAPES = Shapes(("items",), "sizeheight", "sizewidth", "link", {"total": 0, "display": 0})
KINDS: dict[str, Kind] = {
    **SHAPES.kinds("api"),
    "429": Kind(("api",), reply=_busy),
    "blocked": Kind(("api",), reply=_blocked),
}
