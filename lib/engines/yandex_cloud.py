"""Yandex Cloud's Search API v2: the official, paid search by picture (JSON) and by words (XML inside JSON).

Everything is a POST, and the page stands in its body; the response's address tells it as a fragment, for the records.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary
from xml.etree.ElementTree import Element

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at, with_originals
from lib.engines.base import (
    API,
    JSON_ONLY,
    UPLOAD,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    Web,
    compact_json,
    count_in,
    json_object,
    judge_status,
    not_an_object,
    nothing,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    addressed,
    fact,
    filled,
    load_object,
    load_xml,
    mapping,
    objects,
    plain,
    position,
    text,
    whole,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, identity

WORDS_PATH = "/v2/image/search"
PICTURE_PATH = "/v2/image/search_by_image"
API_KEY, FOLDER = "YANDEX_CLOUD_API_KEY", "YANDEX_CLOUD_FOLDER_ID"
SEARCH_TYPE = "SEARCH_TYPE_COM"
SILENT_KEYS = frozenset({"page", "maxPage", "id"})  # what a response without results consists of
SILENT_TAGS = frozenset({"page", "found", "found-docs", "found-docs-human"})  # the same of a list without documents
LONGEST_DATA = 3_145_728  # bytes of the picture in base64, which takes four for three

KNOWN = frozenset({"url", "format", "width", "height", "passage", "host", "pageTitle", "pageUrl"})
EXPECTED = frozenset({"url", "pageUrl", "width", "height"})
PAGE_SIZE = 100  # places a page is given in the ranks; the API promises no size
NOTHING_FOUND = "15"
_FORMATS = {"IMAGE_FORMAT_JPEG": "jpeg", "IMAGE_FORMAT_GIF": "gif", "IMAGE_FORMAT_PNG": "png"}


class YandexCloud(Engine):
    """The engine `yandex-cloud`."""

    name: ClassVar[str] = "yandex-cloud"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://searchapi.api.cloud.yandex.net",)
    interval: ClassVar[float] = 1.0
    page_size: ClassVar[int] = 50  # of a search by words, at most 100; a search by picture decides itself
    keys: ClassVar[tuple[str, ...]] = (API_KEY, FOLDER)
    upload_limit: ClassVar[int] = LONGEST_DATA * 3 // 4
    upload_formats: ClassVar[frozenset[str]] = frozenset({"jpeg", "png", "gif"})
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {
            "small": "size=IMAGE_SIZE_SMALL",
            "medium": "size=IMAGE_SIZE_MEDIUM",
            "large": "size=IMAGE_SIZE_LARGE",
            "huge": "size=IMAGE_SIZE_ENORMOUS",
        },
        "orientation": {
            "landscape": "orientation=IMAGE_ORIENTATION_HORIZONTAL",
            "portrait": "orientation=IMAGE_ORIENTATION_VERTICAL",
            "square": "orientation=IMAGE_ORIENTATION_SQUARE",
        },
        "type": {"gif": "format=IMAGE_FORMAT_GIF"},
    }
    terms: ClassVar[str] = (
        "Yandex Cloud's Search API is the way that Yandex itself offers to programs: paid by the request, under the "
        "terms of your account, which also say how long its answers may be kept."
    )

    def __init__(self, environ: Mapping[str, str] | None = None):
        super().__init__(environ)
        self._first: WeakKeyDictionary[SearchRequest, PageResponse] = WeakKeyDictionary()

    async def upload(self, web: Web, host: str, request: SearchRequest, way: int) -> PageResponse:
        """The response to an upload is the first page as well; it is kept, because a second one would cost again."""
        value = {"data": base64.b64encode(request.picture).decode(), "page": 0}
        response = self._first[request] = await self._post(web, self.address(host, request, {}, 0), value)
        return response

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        if page == 0 and request in self._first:
            return replace(self._first.pop(request), part=API)
        value = self._words(request, page) if request.kind == "keyword" else {"id": cursor["cbir_id"], "page": page}
        return replace(await self._post(web, self.address(host, request, cursor, page), value), part=API)

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        return f"{host}{WORDS_PATH if request.kind == 'keyword' else PICTURE_PATH}#page={page}"

    def _words(self, request: SearchRequest, page: int) -> dict[str, Any]:
        query = {"searchType": SEARCH_TYPE, "queryText": request.text, "page": page}
        narrowed = self.filter_params(request.filters)
        return {"query": query, "docsOnPage": self.page_size} | ({"imageSpec": narrowed} if narrowed else {})

    async def _post(self, web: Web, url: str, value: Mapping[str, Any]) -> PageResponse:
        headers = JSON_ONLY | {"Content-Type": "application/json", "Authorization": f"Api-Key {self.key(API_KEY)}"}
        body = compact_json({"folderId": self.key(FOLDER), **value}).encode()
        bare, _, fragment = url.partition("#")
        response = await web.post(bare, headers=headers, body=body)
        return replace(response, url=f"{response.url}#{fragment}")

    def classify(self, response: PageResponse) -> PageOutcome:
        refused = "upload_rejected" if response.part == UPLOAD else "parse_error"
        if (outcome := judge_status(response, refused)) is not None:
            return outcome
        if (found := json_object(response)) is None:
            return not_an_object(response)
        first = response.url.rpartition("#page=")[2] in ("", "0")
        if isinstance(found.get("rawData"), str):
            return _judge_words(found["rawData"], first)
        images = found.get("images", [])
        # An empty list is left out, as all defaults are; then nothing but the page and the id may be there.
        if not found or not isinstance(images, list) or ("images" not in found and found.keys() - SILENT_KEYS):
            return PageOutcome(refused, "no_images_key")
        if not images and found.keys() - SILENT_KEYS - {"images"}:
            return PageOutcome(refused, "unknown_keys")
        # An upload that brought nothing was accepted all the same: its first page says so.
        if images or response.part == UPLOAD:
            return PageOutcome("ok")
        page = count_in(found, "page")
        return nothing(first, count_in(found, "maxPage"), max(page, 1))  # the least that it says is one page

    def read_upload(self, response: PageResponse) -> dict[str, Any]:
        found = json_object(response) or {}
        return {"cbir_id": text(found.get("id")), "uploaded_at": int(time.time())}

    def is_last_page(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """True also without an id: there is no way to ask for the next page of a search by picture then."""
        found = json_object(PageResponse(part, "", 200, {}, body)) or {}
        return not parsed.next_url or ("images" in found and not text(found.get("id")))


def _judge_words(encoded: str, first: bool) -> PageOutcome:
    """The response to a search by words is XML inside JSON, with errors of its own."""
    try:
        root = _load_words(encoded)
    except ParseError as error:
        return PageOutcome("parse_error", str(error))
    counts = [count_in({"found": text(entry.text)}, "found") for entry in root.iterfind(".//found")]
    promised = max(counts, default=0) if first else 0  # an estimate, and more than it ever gives
    if (refusal := root.find(".//error")) is not None:
        code = (refusal.get("code") or "")[:20]
        return nothing(first, promised) if code == NOTHING_FOUND else PageOutcome("parse_error", f"error_{code}")
    if root.find(".//results/grouping/group/doc") is not None:
        return PageOutcome("ok")
    grouping = root.find(".//results/grouping")
    if grouping is None:
        return PageOutcome("parse_error", "no_grouping")
    # Documents that were counted or stand there in another shape are not "nothing".
    if promised or {child.tag for child in grouping} - SILENT_TAGS:
        return PageOutcome("parse_error", "no_documents")
    return nothing(first)


def parse_api(body: bytes) -> ParsedPage:
    """One response of either kind; numbers may come as text. Raises ParseError: `refused: …`, `not_json`, `no_data`."""
    response, drift = load_object(body)
    if isinstance(response.get("rawData"), str):
        return _parse_words(response["rawData"], drift)
    if "images" in response or "id" in response or "page" in response:
        return _parse_pictures(response, drift)
    detail = text(response.get("message")) or text(mapping(response.get("error")).get("message"))
    raise ParseError(f"refused: {detail[:120]}" if detail else "no_data")


def _parse_pictures(response: Mapping[str, Any], drift: Drift) -> ParsedPage:
    items, found = objects(response.get("images")), PagePictures(drift)
    for place, item in enumerate(items):
        url, page_url = address(item.get("url")), address(item.get("pageUrl"))
        if not url or is_page(url, page_url):
            found.skip("no_address")
            continue
        drift.note("image", item, KNOWN, EXPECTED)
        width, height = whole(item.get("width")), whole(item.get("height"))
        variants = with_originals([VariantRecord("original", url, *sides_at(url, width, height), None, page_url)])
        record = ImageRecord(
            engine_id=identity(variants),
            rank=place,
            page_url=page_url,
            title=plain(item.get("pageTitle")),
            snippet=plain(item.get("passage")),
            domain=host_of(page_url) or text(item.get("host")).lower(),
            width=width,
            height=height,
            format=_FORMATS.get(text(item.get("format")), ""),
            variants=variants,
        )
        found.add(record)
    following = f"page={(position(response.get('page')) or 0) + 1}" if items else ""
    return ParsedPage(found.in_order(), following, found.skipped, drift.report(), PAGE_SIZE)


def _load_words(encoded: str) -> Element:
    try:
        return load_xml(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise ParseError("not_base64") from None


def _parse_words(encoded: str, drift: Drift) -> ParsedPage:
    root = _load_words(encoded)
    if (error := root.find(".//error")) is not None:
        if error.get("code") == NOTHING_FOUND:
            return ParsedPage((), page_size=PAGE_SIZE)
        raise ParseError(f"refused: {error.get('code') or ''} {text(error.text)}"[:140])
    found = PagePictures(drift)
    for place, document in enumerate(root.iterfind(".//results/grouping/group/doc")):
        if (record := _read_document(place, document)) is None:
            found.skip("no_address")
        else:
            found.add(record)
    return ParsedPage(found.in_order(), "page=next" if found.found else "", found.skipped, drift.report(), PAGE_SIZE)


def _read_document(rank: int, document: Element) -> ImageRecord | None:
    found = {child.tag: child.text for child in document.iterfind("image-properties/*")}
    page_url = address(found.get("html-link"))
    original = address(found.get("image-link")) or address(document.findtext("url"))
    original = "" if is_page(original, page_url) else original
    thumb = address(found.get("thumbnail-link"))
    if not original and not thumb:
        return None
    width, height = whole(found.get("original-width")), whole(found.get("original-height"))
    size = whole(found.get("file-size"))
    small = (whole(found.get("thumbnail-width")), whole(found.get("thumbnail-height")))
    whole_one = VariantRecord("original", original, *sides_at(original, width, height), size, page_url)
    variants = addressed(*with_originals([whole_one, VariantRecord("thumb", thumb, *small)]))
    return ImageRecord(
        engine_id=identity(variants),
        rank=rank,
        page_url=page_url,
        title=plain(document.findtext("title")),
        domain=host_of(page_url) or text(document.findtext("domain")).lower(),
        width=width,
        height=height,
        bytes=size,
        format=fact(found.get("mime-type")).rpartition("/")[2].lower(),
        # When the document last changed is not when it was published.
        extra=filled(id=text(found.get("id")), modified_at=fact(document.findtext("modtime"))),
        variants=variants,
    )
