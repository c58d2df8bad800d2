"""Yandex Cloud's Search API v2: by picture (JSON) and by words (XML inside JSON), for those who have a key.

Whole numbers are written as text, as 64-bit ones are in the JSON form of protocol buffers. A search by picture answers
an `id` for its later pages; past the end it has no `images`. A search by words ends with error 15 in the XML.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from aiohttp import web

from demo.alterations import MIME, extension
from demo.catalog import THUMB_SIDE, Picture, shrunk
from demo.faults import Ask, Fault, Kind, Switchboard
from demo.keys import YANDEX_CLOUD_FOLDER, YANDEX_CLOUD_KEY
from demo.paging import number_in, window
from demo.shapes import Shapes, either
from demo.site import Site
from demo.uploads import Rejected, keep
from demo.yandex_records import thumb_url

ENGINE = "yandex-cloud"
MOST_DATA = 3_145_728  # bytes of a query picture
MOST_WORDS, MOST_ROWS = 400, 100
BAD_REQUEST, FORBIDDEN, EXHAUSTED, UNKNOWN_CALLER = 3, 7, 8, 16  # gRPC's codes
STATUS = {BAD_REQUEST: 400, FORBIDDEN: 403, EXHAUSTED: 429, UNKNOWN_CALLER: 401}
FORMATS = {"jpg": "IMAGE_FORMAT_JPEG", "gif": "IMAGE_FORMAT_GIF", "png": "IMAGE_FORMAT_PNG"}
SPEC = {  # a field of imageSpec, its values' prefix, the gallery's filter
    "size": ("IMAGE_SIZE_", "isize"),
    "orientation": ("IMAGE_ORIENTATION_", "iorient"),
    "format": ("IMAGE_FORMAT_", "itype"),
}


def routes(site: Site) -> list[web.RouteDef]:
    """The two methods."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [web.post("/v2/image/search_by_image", here.by_image), web.post("/v2/image/search", here.by_words)]


class Refused(ValueError):
    """A request that is not served: a code of gRPC and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def by_image(self, request: web.Request) -> web.StreamResponse:
        asked, refusal = await _read(request)
        page, mark = _page(asked), ""
        try:
            if refusal is None:
                mark = self._mark(asked)
        except Refused as error:
            refusal = error
        ask = Ask(ENGINE, "api", f"cbir:{mark}" if mark else "", page)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        if refusal:
            return refuse(refusal.code, refusal.message)
        found = self.site.by_upload(mark, {}) or []
        images = [image(self.site, picture) for picture in self.site.page(found, page)]
        answer = verdict.reshape({"images": images, "page": str(page), "maxPage": "0", "id": mark}, ask)
        self.site.board.done(ask)
        return web.json_response({key: value for key, value in answer.items() if value != []})

    async def by_words(self, request: web.Request) -> web.StreamResponse:
        asked, refusal = await _read(request)
        query = asked["query"] if isinstance(asked.get("query"), dict) else {}
        words, page = str(query.get("queryText", "")), _page(query)
        ask = Ask(ENGINE, "api", f"text:{words}" if words else "", page)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        rows = number_in({"docsOnPage": str(asked.get("docsOnPage", ""))}, "docsOnPage", 10)
        if refusal is None and not 0 < len(words) <= MOST_WORDS:
            refusal = Refused(BAD_REQUEST, f"query.queryText: 1 to {MOST_WORDS} characters")
        if refusal is None and (rows is None or not 1 <= rows <= MOST_ROWS):
            refusal = Refused(BAD_REQUEST, f"docsOnPage: 1 to {MOST_ROWS}")
        if refusal:
            return refuse(refusal.code, refusal.message)
        found = self.site.by_words(words, _wanted(asked.get("imageSpec")))
        shown = window(found, page * int(rows or 0), int(rows or 0))
        payload = verdict.reshape({"docs": [document(self.site, picture) for picture in shown]}, ask)
        self.site.board.done(ask)
        return web.json_response({"rawData": base64.b64encode(xml_answer(payload, len(found), page)).decode()})

    def _mark(self, asked: dict[str, Any]) -> str:
        """The upload that a request is about: a new one, or one known by its id; raises Refused."""
        given = [name for name in ("url", "data", "id") if asked.get(name)]
        if len(given) != 1:
            raise Refused(BAD_REQUEST, "one of url, data and id is to be given")
        if given == ["id"]:
            if str(asked["id"]) not in self.site.uploads:
                raise Refused(BAD_REQUEST, "id: no such image")
            return str(asked["id"])
        if given == ["url"]:
            raise Refused(BAD_REQUEST, "url: cannot be reached from here")
        try:
            body = base64.b64decode(asked["data"], validate=True)
            if len(body) > MOST_DATA:
                raise Refused(BAD_REQUEST, f"data: larger than {MOST_DATA} bytes")
            return keep(self.site, body)
        except (binascii.Error, TypeError, Rejected) as error:
            raise Refused(BAD_REQUEST, f"data: {error}") from error


async def _read(request: web.Request) -> tuple[dict[str, Any], Refused | None]:
    """The body, and why it is not served, if so."""
    try:
        asked = await request.json()
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        return {}, Refused(BAD_REQUEST, "the body is no JSON object")
    if request.headers.get("Authorization") != f"Api-Key {YANDEX_CLOUD_KEY}":
        return asked, Refused(UNKNOWN_CALLER, "Unknown api key")
    if asked.get("folderId") != YANDEX_CLOUD_FOLDER:
        return asked, Refused(FORBIDDEN, "Permission denied")
    return asked, None


def refuse(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"code": code, "message": message, "details": []}
    return web.json_response(body, status=STATUS[code], headers=headers)


def _page(asked: dict[str, Any]) -> int:
    return max(0, number_in({"page": str(asked.get("page", "0"))}, "page", 0) or 0)


def _wanted(spec: Any) -> dict[str, str]:
    """The gallery's filters for an imageSpec; values nobody knows let all pass."""
    wanted = {}
    for field, (prefix, name) in SPEC.items():
        value = str(spec.get(field, "")) if isinstance(spec, dict) else ""
        word = value.removeprefix(prefix).lower()
        if word and word != "unspecified":
            wanted[name] = word
    return wanted


def image(site: Site, picture: Picture) -> dict[str, Any]:
    """One picture of a search by picture; numbers as text."""
    return {
        "url": site.link(picture.original),
        "format": FORMATS.get(extension(picture.alteration.encoding), "IMAGE_FORMAT_UNSPECIFIED"),
        "width": str(picture.claimed[0]),
        "height": str(picture.claimed[1]),
        "passage": ", ".join(picture.tags),
        "host": urlsplit(picture.page_url).hostname or "",
        "pageTitle": picture.title,
        "pageUrl": picture.page_url,
    }


def document(site: Site, picture: Picture) -> dict[str, Any]:
    """One picture of a search by words, as the elements of a `doc`."""
    width, height = shrunk(picture.size, THUMB_SIDE)
    original = site.link(picture.original)
    return {
        "url": original,
        "domain": urlsplit(picture.page_url).hostname or "",
        "title": picture.title,
        "modtime": f"20{10 + picture.number % 14}0312T093000",
        "mime-type": MIME[extension(picture.alteration.encoding)],
        "image-properties": {
            "id": picture.id,
            "shard": str(picture.number % 16),
            "thumbnail-link": "http:" + thumb_url(site, picture),
            "thumbnail-width": str(width),
            "thumbnail-height": str(height),
            "original-width": str(picture.claimed[0]),
            "original-height": str(picture.claimed[1]),
            "html-link": picture.page_url,
            "image-link": original,
            "file-size": str(picture.claimed[0] * picture.claimed[1] // 6 + 2048),
            "mime-type": MIME[extension(picture.alteration.encoding)],
        },
    }


def xml_answer(payload: dict[str, Any], total: int, page: int) -> bytes:
    """The XML of a search by words, UTF-8."""
    root = Element("yandexsearch", version="1.0")
    response = SubElement(root, "response", date="20261101T120000")
    if payload.get("docs") == []:
        SubElement(response, "error", code="15").text = "Искомая комбинация слов нигде не встречается"
        return ElementTree.tostring(root, "utf-8", xml_declaration=True)
    SubElement(response, "found", priority="all").text = str(total)
    results = SubElement(response, "results")
    if "docs" not in payload:
        _fill(SubElement(results, "feed"), {"card": payload["feed"]["cards"]})
        return ElementTree.tostring(root, "utf-8", xml_declaration=True)
    grouping = SubElement(results, "grouping", attr="", mode="flat")
    SubElement(grouping, "page").text = str(page)
    for row in payload["docs"]:
        group = SubElement(grouping, "group")
        SubElement(group, "doccount").text = "1"
        _fill(SubElement(group, "doc"), row)
    return ElementTree.tostring(root, "utf-8", xml_declaration=True)


def _fill(parent: Element, values: dict[str, Any]) -> None:
    for name, value in values.items():
        for entry in value if isinstance(value, list) else [value]:
            child = SubElement(parent, name)
            if isinstance(entry, dict):
                _fill(child, entry)
            else:
                child.text = "" if entry is None else str(entry)


async def _blocked(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    return refuse(FORBIDDEN, "Permission denied")


async def _busy(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    return refuse(EXHAUSTED, "Quota limit exceeded", {"Retry-After": fault.value or "2"})


async def _upload_rejected(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """The picture is not taken; requests that send none are let through."""
    asked, _ = await _read(request)
    return refuse(BAD_REQUEST, "data: unsupported image") if asked.get("data") else None


IMAGES = Shapes(("images",), "pageTitle", "width", "url", {}).kinds("api")
DOCS = Shapes(("docs",), "modtime", "", "url", {}).kinds("api")
KINDS: dict[str, Kind] = {
    **either(IMAGES, DOCS, "images"),
    "blocked": Kind(("api",), reply=_blocked),
    "429": Kind(("api",), reply=_busy),
    "upload_rejected": Kind(("api",), reply=_upload_rejected),
}
