"""Baidu's keyword search: `acjson` behind warmed cookies, the older `flip` page, thumbnails.

A collector goes: `GET /` for the cookie -> `acjson` with `pn` in steps of `rn`, until no new `di` comes. The list says
nothing of its end: one page repeats what was there, then the lists are empty but for their closing `{}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from demo import markup
from demo.baidu_records import listing, signature, spoken
from demo.catalog import Picture, digest
from demo.faults import Ask, Fault, Kind, Switchboard, Verdict, not_json
from demo.gates import SOLVED, consent, crash, local, way_back
from demo.paging import whole, window
from demo.shapes import Shapes
from demo.site import Site

ENGINE = "baidu"
COOKIE = "BAIDUID"
MOST_ROWS = 60
FILTERS = {  # a parameter and its value -> the gallery's filter
    ("z", "9"): ("isize", "wallpaper"),
    ("z", "3"): ("isize", "large"),
    ("z", "2"): ("isize", "medium"),
    ("z", "1"): ("isize", "small"),
    ("st", "1"): ("type", "clipart"),
    ("st", "2"): ("type", "clipart"),
    ("lm", "6"): ("itype", "gif"),
}
FORBIDDEN = {"antiFlag": 1, "message": "Forbid spider access", "bfe_log_id": "9576621861689003963"}


def routes(site: Site) -> list[web.RouteDef]:
    """Everything the engine answers; its front page is that of the gallery."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [
        web.get("/search/acjson", here.acjson),
        web.get("/search/flip", here.flip),
        web.get("/search/index", here.index),
        web.get("/static/captcha/tuxing.html", _show_captcha),
        web.get(r"/it/u={pair:\d+,\d+}{rest:.*}", here.thumb),
    ]


def warmed(response: web.Response) -> web.Response:
    """The response with the cookie that `acjson` wants to see."""
    response.set_cookie(COOKIE, digest("visitor").upper() + ":FG=1", path="/")
    return response


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.by_signature = {signature(picture): picture for picture in site.pictures}

    async def acjson(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("tn") != "resultjson_com":
            return markup.respond(markup.message_page("页面不存在", "The page does not exist."))
        ask = _asked(request, "xhr")
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        if COOKIE not in request.cookies or not request.headers.get("User-Agent"):
            return web.json_response(FORBIDDEN)
        self.site.board.done(ask)
        return web.Response(text=spoken(self._payload(request, verdict, ask)), content_type="application/json")

    async def flip(self, request: web.Request) -> web.StreamResponse:
        """The page of before: the same records inside a script."""
        ask = _asked(request, "page")
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        self.site.board.done(ask)
        payload = json.dumps(self._payload(request, verdict, ask), ensure_ascii=False).replace("</", "<\\/")
        return markup.respond(markup.layout("百度图片", f"<script>flip.setData('imgData', {payload});</script>"))

    async def index(self, request: web.Request) -> web.StreamResponse:
        """The page that a person sees; its pictures come by `acjson`."""
        verdict = await self.site.board.meet(request, ask := Ask(ENGINE, "warm"))
        if verdict.response:
            return verdict.response
        self.site.board.done(ask)
        return warmed(markup.respond(markup.layout("百度图片", '<div id="wrapper"><div id="imgid"></div></div>')))

    async def thumb(self, request: web.Request) -> web.StreamResponse:
        verdict = await self.site.board.meet(request, Ask(ENGINE, "thumb"))
        if verdict.response:
            return verdict.response
        picture = self.by_signature.get(request.match_info["pair"])
        return await self.site.thumb(picture)

    def _payload(self, request: web.Request, verdict: Verdict, ask: Ask) -> dict[str, Any]:
        words, offset, rows = request.query.get("word", ""), _offset(request), _rows(request)
        found = self.site.by_words(words, _wanted(request.query))
        exact = tuple(whole(request.query, name, 0) for name in ("width", "height"))
        if all(exact):
            found = [picture for picture in found if picture.claimed == exact]
        return verdict.reshape(listing(self.site, found, rows_at(found, offset, rows), words, offset), ask)


def rows_at(found: list[Picture], offset: int, count: int) -> list[Picture]:
    """The rows from an offset; the first page after the end repeats the last one, those after it are empty."""
    if offset < len(found):
        return window(found, offset, count)
    last = (len(found) - 1) // count * count
    return window(found, last, count) if found and offset - last <= count else []


def _wanted(asked: Mapping[str, str]) -> dict[str, str]:
    """The gallery's filters for the parameters; values nobody knows let all pass."""
    return dict(FILTERS[pair] for pair in asked.items() if pair in FILTERS)


def _offset(request: web.Request) -> int:
    return whole(request.query, "pn", 0)


def _rows(request: web.Request) -> int:
    return whole(request.query, "rn", 30, 1, MOST_ROWS)


def _asked(request: web.Request, route: str) -> Ask:
    words = request.query.get("word", "")
    return Ask(ENGINE, route, f"text:{words}" if words else "", _offset(request) // _rows(request))


def captcha_page(back: str) -> web.Response:
    """A check in the structure of Baidu's own, which also holds the notice of a lost connection."""
    action = f"/checkcaptcha?retpath={back}"
    body = (
        '<div class="timeout hide-callback"><div class="timeout-title">网络不给力，请稍后重试</div>'
        '<button type="button" class="timeout-button">返回首页</button></div>'
        '<div class="passMod_dialog-wrapper passMod_show"><div class="passMod_dialog-container">'
        '<div class="passMod_dialog-header"><p>百度安全验证</p></div>'
        f'<form class="passMod_dialog-body" method="POST" action="{action}">'
        '<p class="passMod_slide-tip">拖动左侧滑块使图片为正</p>'
        '<button type="submit" class="passMod_slide-btn">I am not a robot</button></form></div></div>'
    )
    return markup.respond(markup.layout("百度安全验证", body))


async def _show_captcha(request: web.Request) -> web.Response:
    return captcha_page(markup.quote(local(request.query.get("backurl", "/")), safe=""))


async def captcha(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A redirect to the place of the captcha, which on the web is the host wappass.baidu.com."""
    if SOLVED in request.cookies:
        return None
    location = f"/static/captcha/tuxing.html?ak=c27bbc89&backurl={way_back(request)}"
    return web.Response(status=302, headers={"Location": location})


async def captcha_in_place(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """The captcha as HTTP 200 at the very address that was asked for."""
    return None if SOLVED in request.cookies else captcha_page(way_back(request))


async def _blocked(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """What a spider is told, HTTP 200; with the value 403, that status as well."""
    return web.json_response(FORBIDDEN, status=403 if fault.value == "403" else 200)


BOTH = ("xhr", "page")
SHAPES = Shapes(("data",), "fromURLHost", "width", "objURL", {"listNum": 0, "displayNum": 0, "data": [{}]})
KINDS: dict[str, Kind] = {
    **SHAPES.kinds(*BOTH),
    "captcha": Kind(BOTH, reply=captcha),
    "captcha_page": Kind(BOTH, reply=captcha_in_place),
    "blocked": Kind(BOTH, reply=_blocked),
    "not_json": Kind(BOTH, reply=not_json),
    "consent": Kind(("warm", "page"), reply=consent),
    "crash": Kind(("warm", "page"), reply=crash),
}
