"""Baidu's search by picture: upload, the page with `window.cardData`, and the paging answers.

A collector goes: `POST /upload` (answers `data.url`) -> that page, whose card `same` lists the exact matches and whose
card `simipic` names the first address of similar ones -> `/ajax/pcsimi` with `page` 1 and on, until a list is empty.
What is called the object's address leads back to the engine: the thumbnail is the only picture there is.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from demo import markup
from demo.baidu import captcha, captcha_in_place
from demo.baidu_records import signature, thumb_url
from demo.catalog import THUMB_SIDE, Picture, digest, shrunk
from demo.faults import Ask, Fault, Kind, Switchboard, not_json
from demo.gates import blocked, consent, crash
from demo.paging import whole, window
from demo.shapes import Shapes, either
from demo.site import Site
from demo.uploads import MIB, Rejected, keep, read_form

ENGINE = "baidu-graph"
UPLOAD_LIMIT = 10 * MIB
MOST_ROWS, MOST_ROWS_MOBILE = 60, 300
SIGN_SECONDS = 1800  # how long a signature is good for; its last ten digits are when it was made

# What the page of the site does with a chosen file.
UPLOAD_SCRIPT = """<script>
document.querySelector("input[type=file]").addEventListener("change", async (event) => {
  const form = new FormData();
  form.append("image", event.target.files[0]);
  form.append("tn", "pc");
  form.append("from", "pc");
  form.append("image_source", "PC_UPLOAD_SEARCH_FILE");
  form.append("range", '{"page_from":"searchIndex"}');
  const answer = await (await fetch("/upload?uptime=" + Date.now(), {method: "POST", body: form})).json();
  if (answer.status === 0) location.href = answer.data.url;
});
</script>"""


def routes(site: Site) -> list[web.RouteDef]:
    """Everything the engine answers."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [
        web.get("/pcpage/index", _start),
        web.get("/pcpage/similar", _similar),
        web.get("/errpage", _no_match),
        web.post("/upload", here.upload),
        web.get("/s", here.cards),
        web.get("/ajax/pcsimi", here.similar),
        web.get("/ajax/similardetailnew", here.mobile),
    ]


class _Handlers:
    """The route handlers; besides the site they remember which session searches with which upload."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sessions: dict[str, str] = {}

    async def upload(self, request: web.Request) -> web.StreamResponse:
        ask = Ask(ENGINE, "upload")
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        try:
            mark = keep(self.site, await read_form(request, "image", UPLOAD_LIMIT))
        except Rejected as rejected:
            return web.json_response({"status": 1, "msg": rejected.reason, "data": {}})
        session = str(int(digest(mark, 14), 16))
        self.sessions[session] = mark
        self.site.board.done(ask)
        sign = digest(f"sign {mark}", 24) + f"{int(time.time()):010d}"
        known = {"entrance": "GENERAL", "session_id": session, "sign": sign, "tpl_from": "pc"}
        url = f"{self.site.url}/s?" + urlencode({"card_key": "", "f": "all", "extUiData[isLogoShow]": "1", **known})
        return web.json_response({"status": 0, "msg": "Success", "data": {"url": url, "sign": sign}})

    async def cards(self, request: web.Request) -> web.StreamResponse:
        """The page of results, page 0 of the search."""
        ask = Ask(ENGINE, "page", self._query(request), 0)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        found = self._found(request)
        if found is None:
            return _refused()
        same, rest = _parted(found)
        payload = verdict.reshape({"list": [same_item(self.site, picture) for picture in same]}, ask)
        self.site.board.done(ask)
        first = self.site.url + "/ajax/pcsimi?" + urlencode(_paging(request.query))
        return markup.respond(cards_page(payload, first if rest else ""))

    async def similar(self, request: web.Request) -> web.StreamResponse:
        return await self._listing(request, whole(request.query, "limit", 30, 1, MOST_ROWS), pc_item)

    async def mobile(self, request: web.Request) -> web.StreamResponse:
        return await self._listing(request, whole(request.query, "page_size", 30, 1, MOST_ROWS_MOBILE), mobile_item)

    async def _listing(self, request: web.Request, rows: int, item: Any) -> web.StreamResponse:
        """One paging answer; pages count from 1, since page 0 is the page with the cards."""
        page = whole(request.query, "page", 1, 1)
        ask = Ask(ENGINE, "api", self._query(request), page)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        found = self._found(request)
        if found is None:
            return _refused()
        shown = window(_parted(found)[1], (page - 1) * rows, rows)
        data: dict[str, Any] = {"list": [item(self.site, picture, place, page) for place, picture in enumerate(shown)]}
        data |= {"length": len(shown), "ajaxTextUrl": "", "imageUrl": ""}
        self.site.board.done(ask)
        return web.json_response(verdict.reshape({"status": 0, "data": data}, ask))

    def _query(self, request: web.Request) -> str:
        mark = self.sessions.get(request.query.get("session_id", ""))
        return f"cbir:{mark}" if mark else ""

    def _found(self, request: web.Request) -> list[Picture] | None:
        """The whole ranking; None for a session that is unknown or whose signature is wrong or too old."""
        mark = self.sessions.get(request.query.get("session_id", ""))
        sign = re.fullmatch(r"([0-9a-f]{24})(\d{10})", request.query.get("sign", ""), re.ASCII)
        if mark is None or sign is None or sign.group(1) != digest(f"sign {mark}", 24):
            return None
        return None if time.time() - int(sign.group(2)) > SIGN_SECONDS else self.site.by_upload(mark, {})


def _parted(found: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    """The exact matches (copies of the scene that is likest) and the similar pictures after them."""
    same = [picture for picture in found if picture.scene == found[0].scene]
    return same, [picture for picture in found if picture.scene != found[0].scene]


def _paging(asked: Any) -> dict[str, str]:
    """The parameters of the first paging address."""
    fixed = {"carousel": "503", "entrance": "GENERAL", "extUiData[isLogoShow]": "1", "inspire": "general_pc"}
    kept = {name: asked[name] for name in ("session_id", "sign") if name in asked}
    return {**fixed, "limit": "30", "next": "2", "render_type": "card", **kept, "tk": digest("tk", 5), "tpl_from": "pc"}


def same_item(site: Site, picture: Picture) -> dict[str, Any]:
    """One exact match."""
    return {"url": picture.page_url, "image_src": thumb_url(site, picture), "title": picture.title.split(" ")}


def pc_item(site: Site, picture: Picture, place: int, page: int) -> dict[str, Any]:
    """One similar picture; the size is the thumbnail's."""
    width, height = shrunk(picture.size, THUMB_SIDE)
    thumb = thumb_url(site, picture)
    return {
        "contsign": signature(picture),
        "height": height,
        "width": width,
        "thumbUrl": thumb,
        "hoverUrl": thumb,
        "fromUrl": picture.page_url,
        "objUrl": f"{site.url}/pcpage/similar?contsign={signature(picture)}",
        "index": place,
        "page": page,
    }


def mobile_item(site: Site, picture: Picture, place: int, page: int) -> dict[str, Any]:
    """The same picture as the mobile site puts it."""
    return {
        "fromURL": picture.page_url,
        "subTitle": picture.title,
        "thumbUrl": thumb_url(site, picture),
        "objUrl": f"{site.url}/pcpage/similar?contsign={signature(picture)}",
        "typeInfo": {"type": "image"},
        "isVideo": False,
    }


def cards_page(payload: dict[str, Any], first: str) -> str:
    """The page that carries the cards: a header, the exact matches, where similar pictures are listed."""
    cards: list[dict[str, Any]] = [{"cardName": "cardHeader", "tplData": {"logo": True}}]
    if payload.get("list") or "list" not in payload:
        cards.append({"cardName": "same", "tplData": payload})
    if first and payload.get("list") != []:
        cards.append({"cardName": "simipic", "tplData": {"firstUrl": first}})
    if len(cards) == 1:
        cards = [{"cardName": "noresult", "tplData": {"tip": "未找到相关结果"}}]
    packed = json.dumps(cards, ensure_ascii=False).replace("</", "<\\/")
    return markup.layout("百度识图", f'<div id="app"></div><script>window.cardData = {packed};</script>')


def _refused(status: int = 200) -> web.Response:
    """A session that is unknown or over."""
    return web.json_response({"status": 1, "msg": "invalid sign", "data": {}}, status=status)


async def _start(request: web.Request) -> web.Response:
    field = '<input class="general-upload-file" type="file" name="image" accept="image/*" aria-label="Picture">'
    return markup.respond(markup.layout("百度识图", f'<main class="Message">{field}</main>{UPLOAD_SCRIPT}'))


async def _similar(request: web.Request) -> web.Response:
    return markup.respond(markup.message_page("百度识图", "A page about one picture; nothing is to be had here."))


async def _no_match(request: web.Request) -> web.Response:
    return markup.respond(markup.message_page("百度识图", "未找到相关结果"))


async def _expired(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """The session is over, as every one is after half an hour; with the value 403, by that status as well."""
    return _refused(403 if fault.value == "403" else 200)


async def _upload_rejected(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """A status that is not 0, or (VALUE `soft`) success that leads to the page without a match."""
    await request.read()
    if fault.value == "soft":
        url = "/errpage?pron=pcupload"
        return web.json_response({"status": 0, "msg": "Success", "data": {"url": f"{request.url.origin()}{url}"}})
    return web.json_response({"status": 1, "msg": "upload fail", "data": {}})


BOTH = ("page", "api")
CARDS = Shapes(("list",), "url", "", "image_src", {}).kinds("page")
ROWS = Shapes(("data", "list"), "thumbUrl", "width", "thumbUrl", {"status": 0}).kinds("api")
KINDS: dict[str, Kind] = {
    **either(CARDS, ROWS, "list"),
    "captcha": Kind(BOTH, reply=captcha),
    "captcha_page": Kind(BOTH, reply=captcha_in_place),
    "blocked": Kind(BOTH, reply=blocked),
    "consent": Kind(("page",), reply=consent),
    "not_json": Kind(BOTH, reply=not_json),
    "crash": Kind(("page",), reply=crash),
    "expired": Kind(BOTH, reply=_expired),
    "upload_rejected": Kind(("upload",), reply=_upload_rejected),
}
