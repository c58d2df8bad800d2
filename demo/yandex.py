"""The routes of the Yandex Images protocol: upload, result pages, the `serpList/fetch` XHR, thumbnails.

A collector goes: upload (answers a `cbirId`) -> the HTML page, whose `data-state` holds page 0 -> the XHR for page 1
and on, until `navi.next` is absent or the answer is 404.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from demo import markup
from demo.catalog import Picture
from demo.faults import Ask, Verdict
from demo.search import FILTERS, read_upload
from demo.site import Site
from demo.uploads import MIB, Rejected, keep, read_body, read_form
from demo.yandex_faults import KINDS, captcha_routes
from demo.yandex_records import page_record, serp_list

ENGINE = "yandex"
UPLOAD_LIMIT = 5 * MIB  # bytes
ADAPTER = "i-react-ajax-adapter:ajax"
UPLOADERS = ("cbir-uploader__get-cbir-id", "b-page_type_search-by-image__link")


def routes(site: Site) -> list[web.RouteDef]:
    """Everything the engine answers."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [
        web.get("/images/", here.start),
        web.get("/images/search", here.search),
        web.get("/images/touch/search", here.search),
        web.post("/images/search", here.upload),
        web.post("/images/touch/search", here.upload),
        web.post("/images-apphost/image-download", here.raw_upload),
        web.get("/i", here.thumb),
        web.get(r"/get-images-cbir/{shard:\d+}/{name:\w+}/orig", here.uploaded),
        *captcha_routes(),
    ]


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def start(self, request: web.Request) -> web.Response:
        return markup.respond(markup.start_page())

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Forms A and B of the upload: a multipart `upfile`, answered by JSON or by a redirect to the results."""
        ask = Ask(ENGINE, "upload")
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        try:
            cbir_id = keep(self.site, await read_form(request, "upfile", UPLOAD_LIMIT))
        except Rejected as rejected:
            return web.json_response({"error": rejected.reason, "blocks": []}, status=rejected.status)
        self.site.board.done(ask)
        if request.query.get("format") == "json":
            return web.json_response(self._upload_answer(request, cbir_id))
        page = request.query.get("cbir_page", "sites")
        raise web.HTTPFound("/images/search?" + urlencode(self._result_query(cbir_id) | {"cbir_page": page}))

    async def raw_upload(self, request: web.Request) -> web.StreamResponse:
        """Form C: the bytes themselves as the body."""
        ask = Ask(ENGINE, "upload")
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        if request.query.get("images_avatars_namespace") != "images-cbir":
            return web.Response(status=400, text="Incorrect avatar size")
        try:
            cbir_id = keep(self.site, await read_body(request, UPLOAD_LIMIT))
        except Rejected as rejected:
            return web.Response(status=rejected.status, text=rejected.reason)
        self.site.board.done(ask)
        shard, name = cbir_id.split("/")
        width, height = read_upload(self.site.uploads[cbir_id]).size
        path = f"/get-images-cbir/{cbir_id}/orig"
        answer = {
            "image_id": name,
            "image_shard": int(shard),
            "cbir_id": cbir_id,
            "namespace": "images-cbir",
            "url": self.site.url + path,
        }
        return web.json_response(answer | {"width": width, "height": height, "sizes": {"orig": {"path": path}}})

    async def search(self, request: web.Request) -> web.StreamResponse:
        """Result pages and their XHR, for a keyword or an uploaded picture."""
        page, xhr = _page_number(request), request.query.get("format") == "json"
        query = self._query(request)
        ask = Ask(ENGINE, "xhr" if xhr else "page", query, page)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        if not query:
            return web.json_response({"error": "no query"}, status=400) if xhr else markup.respond(markup.start_page())
        answer = self._xhr if xhr else self._page
        response = answer(request, query, page, verdict, ask)
        if response.status == 200:
            self.site.board.done(ask)
        return response

    async def thumb(self, request: web.Request) -> web.StreamResponse:
        picture = self.site.by_id.get(request.query.get("id", "")[:32])
        ask = Ask(ENGINE, "thumb")
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        return await self.site.thumb(picture)

    async def uploaded(self, request: web.Request) -> web.StreamResponse:
        body = self.site.uploads.get(f"{request.match_info['shard']}/{request.match_info['name']}")
        if body is None:
            return web.Response(status=404, text="no such upload")
        return web.Response(body=body, content_type="image/jpeg")

    def _upload_answer(self, request: web.Request, cbir_id: str) -> dict[str, Any]:
        blocks = []
        for name in _requested_blocks(request) or [UPLOADERS[0]]:
            params: dict[str, Any] = {}
            if name == UPLOADERS[0]:
                params = {
                    "cbirId": cbir_id,
                    "originalImageUrl": f"{self.site.url}/get-images-cbir/{cbir_id}/orig",
                }
            elif name == UPLOADERS[1]:  # the answer of before August 2025
                params = {"url": urlencode(self._result_query(cbir_id))}
            blocks.append({"name": {"block": name}, "params": params})
        return {"cnt": "/images/touch/search", "blocks": blocks}

    def _result_query(self, cbir_id: str) -> dict[str, str]:
        return {
            "cbir_id": cbir_id,
            "rpt": "imageview",
            "url": f"{self.site.url}/get-images-cbir/{cbir_id}/orig",
        }

    def _query(self, request: web.Request) -> str:
        """The query's own name: `cbir:SHARD/ID` or `text:WORDS`, '' if the request asks for nothing."""
        asked = request.query
        if asked.get("cbir_id"):
            return "cbir:" + asked["cbir_id"]
        address = asked.get("url", "") or asked.get("text", "") if asked.get("rpt", "").startswith("image") else ""
        if known := re.search(r"get-images-cbir/(\d+/\w+)/orig", address):
            return "cbir:" + known.group(1)
        if asked.get("rpt") == "imageview" and asked.get("url"):
            return "url:" + asked["url"]
        return "text:" + asked["text"] if asked.get("text") else ""

    def _found(self, request: web.Request, query: str) -> list[Picture] | None:
        """All pictures for a query, best first; None for an upload that nobody knows (any more)."""
        kind, _, rest = query.partition(":")
        wanted = {name: request.query[name] for name in FILTERS if request.query.get(name)}
        return self.site.by_words(rest, wanted) if kind == "text" else self.site.by_upload(rest, wanted)

    def _page(self, request: web.Request, query: str, page: int, verdict: Verdict, ask: Ask) -> web.Response:
        found = self._found(request, query)
        tab = request.query.get("cbir_page", "about") if not query.startswith("text:") else "similar"
        state: dict[str, Any] = {
            "user": {"region": {"real": {"name": "Loopback"}}},
            "pornoDisclaimer": {"visible": False},
        }
        state["location"] = request.path_qs
        if found is not None and tab == "sites":
            state["cbirSites"] = {"sites": [page_record(self.site, picture) for picture in found[:20]]}
        elif found is not None and tab == "about":
            state["cbirTags"] = {"tags": [{"text": tag} for tag in (found[0].tags if found else ())]}
            state["cbirOtherSizes"] = {"sizes": []}
        elif found is not None:
            if page and not self.site.has_page(found, page):
                return markup.respond(markup.message_page("404", "There is no such page of results."), 404)
            state["serpList"] = serp_list(self.site, found, page, _next_path(request, page))
        state = verdict.reshape(state, ask)
        return markup.respond(markup.results_page(state, query, tab, request.query))

    def _xhr(self, request: web.Request, query: str, page: int, verdict: Verdict, ask: Ask) -> web.Response:
        names, found = _requested_blocks(request), self._found(request, query)
        if not names:
            return web.json_response({"error": "no blocks asked for"}, status=400)
        if found is None or not self.site.has_page(found, page):
            return web.json_response({"error": "not found"}, status=404)
        blocks: list[dict[str, Any]] = []
        for name in names:
            params: dict[str, Any] = {}
            if name == ADAPTER:
                adapter = {"serpList": serp_list(self.site, found, page, _next_path(request, page))}
                params = {"adapterData": verdict.reshape(adapter, ask)}
            blocks.append({"name": {"block": name}, "params": params})
        return web.json_response({"cnt": "/images/search", "blocks": blocks})


def _page_number(request: web.Request) -> int:
    text = request.query.get("p", "0")
    return int(text) if re.fullmatch(r"\d{1,6}", text, re.ASCII) else 0


def _next_path(request: web.Request, page: int) -> str:
    """The path of the next page, which keeps the query and drops what belongs to the XHR alone."""
    kept = {
        name: value for name, value in request.query.items() if name not in ("format", "request", "p", "serpListType")
    }
    if kept.get("rpt") == "imagelike":
        kept |= {"rpt": "imageview", "cbir_page": "similar"}
    return f"/images/search?{urlencode(kept)}&p={page + 1}"


def _requested_blocks(request: web.Request) -> list[str]:
    """The names of the blocks that the `request` parameter asks for, in its order; [] if it makes no sense."""
    try:
        asked = json.loads(request.query.get("request", ""))["blocks"]
        names = [entry["block"]["block"] if isinstance(entry["block"], dict) else entry["block"] for entry in asked]
        keys = [entry.get("params", {}).get("ajaxKey", "serpList/fetch") for entry in asked]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return names if all(str(key).startswith("serpList/fetch") for key in keys) else []
