"""Naver's keyword search: pages that carry their pictures as a JavaScript object, `imageSearchTabData`.

A page has fifty places, of which two are advertisements, and starts at 1, 51, 101 and so on; after the last one the
list is empty. Where nothing is found at all there is no such object but a notice.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web

from demo import markup
from demo.catalog import Address, Picture, shrunk
from demo.faults import Ask, Kind, not_json
from demo.gates import blocked, consent, crash, plain_captcha
from demo.paging import whole, window
from demo.shapes import Shapes
from demo.site import Site

ENGINE = "naver"
PLACES = 50
AD_PLACES = (11, 35)  # counted from 1
ROWS = PLACES - len(AD_PLACES)
KINDS_OF_SITE = (("blog", "네이버 블로그"), ("blog", "네이버 블로그"), ("web", "웹"), ("cafe", "네이버 카페"))
SHOP = ("nshopping", "네이버플러스 스토어")
VIEWER_SIDE = 960
PROXY = "https://search.pstatic.net"


def routes(site: Site) -> list[web.RouteDef]:
    """The result pages, and the proxy for thumbnails, which on the web is a host of its own."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [web.get("/search.naver", here.search), web.get("/common/", here.thumb)]


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.by_link: dict[str, Picture] = {}

    async def search(self, request: web.Request) -> web.StreamResponse:
        words = request.query.get("query", "")
        start = whole(request.query, "start", 1, 1)
        page = (start - 1) // PLACES
        ask = Ask(ENGINE, "page", f"text:{words}" if words else "", page)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        found = self.site.by_words(words, {})
        rows = [item(self.site, picture) for picture in window(found, page * ROWS, ROWS)]
        payload = verdict.reshape({"content": {"items": with_ads(rows)}}, ask)
        self.site.board.done(ask)
        if not found or (rows and payload["content"].get("items") == []):  # truly nothing, or by a fault
            return markup.respond(empty_page(words))
        return markup.respond(results_page(words, payload, scripted=verdict.has("scripted")))

    async def thumb(self, request: web.Request) -> web.StreamResponse:
        """The proxy: a small copy, or with `sc960_832` one of up to 960 pixels."""
        verdict = await self.site.board.meet(request, Ask(ENGINE, "thumb"))
        if verdict.response:
            return verdict.response
        self.by_link = self.by_link or {self.site.link(picture.original): picture for picture in self.site.pictures}
        picture = self.by_link.get(request.query.get("src", ""))
        if picture is None or picture.trouble == "dead" or not request.query.get("type", "").startswith("sc960"):
            return await self.site.thumb(picture)
        copy = Address(0, "", "preview", shrunk(picture.size, VIEWER_SIDE))
        return web.Response(body=await self.site.darkroom.at(picture, copy), content_type="image/jpeg")


def with_ads(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the advertisements in their places, as far as the list reaches."""
    items = list(rows)
    for place in AD_PLACES:
        if len(items) >= place:
            items.insert(place - 1, {"type": "shopAd", "items": [{"title": "광고", "price": "9,900"}]})
    return items


def item(site: Site, picture: Picture) -> dict[str, Any]:
    """One picture. Some lack the original's address, which then has to be taken out of the proxy's."""
    kind, source = SHOP if "shop" in picture.quirks else KINDS_OF_SITE[picture.number % len(KINDS_OF_SITE)]
    first, _, rest = picture.title.partition(" ")
    record: dict[str, Any] = {
        "type": "image",
        "title": f"<mark>{escape(first, quote=False)}</mark> {escape(rest, quote=False)}",
        "link": picture.page_url,
        "source": source,
        "thumb": proxied(site, picture, "a340"),
        "thumbnail": proxied(site, picture, "a340"),
        "lensThumb": proxied(site, picture, "a640"),
        "viewerThumb": proxied(site, picture, "sc960_832"),
        "originalUrl": site.link(picture.original),
        "orgWidth": picture.claimed[0] if picture.number % 2 else str(picture.claimed[0]),
        "orgHeight": picture.claimed[1] if picture.number % 2 else str(picture.claimed[1]),
        "imgId": f"image_sas:{kind}_{picture.id}",
        "color": f"#{picture.id[:6].upper()}",
        "dateInfo": f"20{10 + picture.number % 14}.0{1 + picture.number % 9}.23.",
        "writerTitle": "" if picture.number % 4 else f"예시 {picture.scene.number}",
        "tld": urlsplit(picture.page_url).hostname or "",
        "desc": ", ".join(picture.tags),
        "saslink": picture.page_url,
    }
    if wrapped_only(picture):
        # Only working originals, so that nobody has a reason to try the proxy's real host.
        record |= {"originalUrl": "", "viewerThumb": proxied(site, picture, "sc960_832", PROXY)}
    return record


def wrapped_only(picture: Picture) -> bool:
    return picture.number % 13 == 5 and not picture.trouble


def proxied(site: Site, picture: Picture, kind: str, host: str = "") -> str:
    """The address of a copy at Naver's proxy, around the original's."""
    ending = "_gif" if picture.animated and kind.startswith("sc") else ""
    return f"{host or site.url}/common/?src={quote(site.link(picture.original), safe='')}&type={kind}{ending}"


def literal(value: Any) -> str:
    """A value as a JavaScript literal: keys without quotes where they are names, a comma after every last one."""
    if isinstance(value, dict):
        keys = {key: key if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else json.dumps(key) for key in value}
        return "{" + "".join(f"{keys[key]}: {literal(entry)}," for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + "".join(f"{literal(entry)}, " for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/")


def packed(value: Any) -> str:
    """A value as a JavaScript string of JSON, from which only a script makes the object."""
    return json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False).replace("</", "<\\/")


def results_page(words: str, payload: dict[str, Any], *, scripted: bool = False) -> str:
    rows = [row for row in payload["content"].get("items", []) if row.get("type") == "image"]
    tiles = "".join(
        '<div class="tile_item _fe_image_tab_content_tile"><img class="_fe_image_tab_content_thumbnail_image"'
        f' src="{escape(row["thumb"], quote=True)}" data-image-viewer-img-id="{escape(row["imgId"], quote=True)}"'
        ' alt="" loading="lazy"></div>'
        for row in rows
    )
    space = " " if len(words) % 2 else ""
    value = f"JSON.parse({packed(payload)})" if scripted else literal(payload)
    script = f"<script>var imageSearchTabData{space}={space}{value}</script>"
    return markup.layout(f"{words} : 네이버 이미지검색", f'<div class="image_tile">{tiles}</div>{script}')


def empty_page(words: str) -> str:
    notice = f'<div class="not_found02"><strong>‘{escape(words)}’</strong>에 대한 검색결과가 없습니다.</div>'
    return markup.layout(f"{words} : 네이버 이미지검색", notice)


SHAPES = Shapes(("content", "items"), "link", "orgWidth", "originalUrl", {})
KINDS: dict[str, Kind] = {
    **SHAPES.kinds("page"),
    "captcha": Kind(("page",), reply=plain_captcha),
    "blocked": Kind(("page",), reply=blocked),
    "consent": Kind(("page",), reply=consent),
    "not_json": Kind(("page",), reply=not_json),
    "scripted": Kind(("page",), shape=lambda payload, fault, ask: payload),
    "crash": Kind(("page",), reply=crash),
}
