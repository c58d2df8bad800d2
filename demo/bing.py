"""Bing's keyword search: `images/async` fragments whose tiles carry JSON in an attribute.

`first` counts from 1. Bing never says that it is at the end: past it, the last page comes again, for ever.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any
from urllib.parse import quote

from aiohttp import web

from demo import markup
from demo.catalog import Picture, digest
from demo.faults import Ask, Kind, not_json
from demo.gates import blocked, consent, crash, plain_captcha
from demo.paging import whole, window
from demo.shapes import Shapes
from demo.site import Site

ENGINE = "bing"
MOST_ROWS = 150
FORMATS = {"jpg": "jpeg", "png": "png", "webp": "webp", "gif": "gif"}
FILTER_WORDS = {
    "imagesize-large": ("isize", "large"),
    "imagesize-medium": ("isize", "medium"),
    "imagesize-small": ("isize", "small"),
    "imagesize-wallpaper": ("isize", "wallpaper"),
    "aspect-wide": ("iorient", "horizontal"),
    "aspect-tall": ("iorient", "vertical"),
    "aspect-square": ("iorient", "square"),
    "photo-photo": ("type", "photo"),
    "photo-clipart": ("type", "clipart"),
    "photo-linedrawing": ("type", "clipart"),
    "photo-animatedgif": ("itype", "gifan"),
}


def routes(site: Site) -> list[web.RouteDef]:
    """The fragments and the thumbnails."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [web.get("/images/async", here.search), web.get("/th", here.thumb)]


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def search(self, request: web.Request) -> web.StreamResponse:
        words, count = request.query.get("q", ""), whole(request.query, "count", 35, 1, MOST_ROWS)
        offset = whole(request.query, "first", 1, 1) - 1
        ask = Ask(ENGINE, "page", f"text:{words}" if words else "", offset // count)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        found = self.site.by_words(words, _wanted(request.query.get("qft", "")))
        if found and offset >= len(found):
            offset = (len(found) - 1) // count * count
        rows = [record(self.site, picture) for picture in window(found, offset, count)]
        payload = verdict.reshape({"items": rows}, ask)
        self.site.board.done(ask)
        return markup.respond(fragment(payload))

    async def thumb(self, request: web.Request) -> web.StreamResponse:
        verdict = await self.site.board.meet(request, Ask(ENGINE, "thumb"))
        if verdict.response:
            return verdict.response
        return await self.site.thumb(self.site.by_id.get(request.query.get("id", "").removeprefix("OIP.")))


def _wanted(qft: str) -> dict[str, str]:
    """Filters such as `+filterui:imagesize-large`; those nobody knows let all pass."""
    return dict(FILTER_WORDS[word] for word in re.findall(r"filterui:([\w-]+)", qft) if word in FILTER_WORDS)


def record(site: Site, picture: Picture) -> dict[str, Any]:
    """The attribute `m` of one tile, and its size as a text (`size`, which stands beside it)."""
    ending = site.link(picture.original).partition("?")[0].rpartition(".")[2].lower()
    return {
        "sid": "",
        "cturl": "",
        "cid": picture.id[:8],
        "purl": picture.page_url,
        "murl": site.link(picture.original),
        "turl": f"{site.url}/th?id=OIP.{picture.id}&pid=15.1",
        "md5": digest(f"md5 {picture.id}"),
        "shkey": digest(f"key {picture.id}", 20),
        "t": picture.title,
        "mid": digest(f"mid {picture.id}", 40).upper(),
        "desc": ", ".join(picture.tags) if picture.number % 3 == 0 else "",
        "size": f"{picture.claimed[0]}×{picture.claimed[1]} · {FORMATS.get(ending, ending)}",
    }


def fragment(payload: dict[str, Any]) -> str:
    """The tiles; a notice where there is nothing, and tiles of another make where the shape has changed."""
    if "items" not in payload:
        cards = "".join(f'<div class="card" data-card="{_attribute(card)}"></div>' for card in payload["feed"]["cards"])
        return f'<div class="feed">{cards}</div>'
    if not payload["items"]:
        return '<div class="no_results"><h2>There are no results for this search.</h2></div>'
    tiles = "".join(_tile(row) for row in payload["items"])
    return f'<div class="dgControl hover" data-nexturl="/images/async"><ul class="dgControl_list">{tiles}</ul></div>'


def _tile(row: dict[str, Any]) -> str:
    m = {key: value for key, value in row.items() if key != "size"}
    link = f"/images/search?view=detailV2&mediaurl={quote(row['murl'] or '', safe='')}"
    return (
        '<li><div class="iuscp isv"><div class="imgpt">'
        f'<a class="iusc" m="{_attribute(m)}" href="{escape(link, quote=True)}"><div class="img_cont">'
        f'<img class="mimg" src="{escape(row.get("turl") or "", quote=True)}" alt=""></div></a>'
        f'<div class="img_info hon"><span class="nowrap">{escape(str(row["size"]))}</span></div></div></div></li>'
    )


def _attribute(value: dict[str, Any]) -> str:
    return escape(json.dumps(value, ensure_ascii=False, separators=(",", ":")), quote=True)


SHAPES = Shapes(("items",), "turl", "", "murl", {})
KINDS: dict[str, Kind] = {
    **SHAPES.kinds("page"),
    "captcha": Kind(("page",), reply=plain_captcha),
    "blocked": Kind(("page",), reply=blocked),
    "consent": Kind(("page",), reply=consent),
    "not_json": Kind(("page",), reply=not_json),
    "crash": Kind(("page",), reply=crash),
}
