"""Yandex Cloud's Search API v2: the official, paid search by picture and by words.

Everything is a POST, and the page stands in its body; the answer's address tells it as a fragment, for the records.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from lib.engines.base import API, UPLOAD, Answer, Ask, Engine, Verdict, Web
from lib.engines.judging import JSON_ONLY, as_body, count_in, json_object, judge_status, not_an_object, nothing
from lib.parsers.raw_xml import load_xml
from lib.parsers.values import text
from lib.parsers.yandex_cloud import NOTHING_FOUND
from lib.records import ParsedPage, ParseError

WORDS_PATH = "/v2/image/search"
PICTURE_PATH = "/v2/image/search_by_image"
API_KEY, FOLDER = "YANDEX_CLOUD_API_KEY", "YANDEX_CLOUD_FOLDER_ID"
SEARCH_TYPE = "SEARCH_TYPE_COM"
SILENT_KEYS = frozenset({"page", "maxPage", "id"})  # what an answer without results consists of
SILENT_TAGS = frozenset({"page", "found", "found-docs", "found-docs-human"})  # the same of a list without documents
LONGEST_DATA = 3_145_728  # bytes of the picture in base64, which takes four for three


class Source(Engine):
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
        self._first: WeakKeyDictionary[Ask, Answer] = WeakKeyDictionary()

    async def upload(self, web: Web, host: str, ask: Ask, way: int) -> Answer:
        """The answer to an upload is the first page as well; it is kept, because a second one would cost again."""
        data = base64.b64encode(ask.picture).decode()
        answer = await self._post(web, self.address(host, ask, {}, 0), {"data": data, "page": 0})
        self._first[ask] = answer
        return answer

    async def fetch(self, web: Web, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> Answer:
        if page == 0 and ask in self._first:
            return replace(self._first.pop(ask), part=API)
        value = self._words(ask, page) if ask.kind == "keyword" else {"id": cursor["cbir_id"], "page": page}
        return replace(await self._post(web, self.address(host, ask, cursor, page), value), part=API)

    def address(self, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
        return f"{host}{WORDS_PATH if ask.kind == 'keyword' else PICTURE_PATH}#page={page}"

    def _words(self, ask: Ask, page: int) -> dict[str, Any]:
        query = {"searchType": SEARCH_TYPE, "queryText": ask.text, "page": page}
        narrowed = self.filter_params(ask.filters)
        return {"query": query, "docsOnPage": self.page_size} | ({"imageSpec": narrowed} if narrowed else {})

    async def _post(self, web: Web, url: str, value: Mapping[str, Any]) -> Answer:
        headers = JSON_ONLY | {
            "Content-Type": "application/json",
            "Authorization": f"Api-Key {self.key(API_KEY)}",
        }
        body = as_body({"folderId": self.key(FOLDER), **value})
        bare, _, fragment = url.partition("#")
        answer = await web.post(bare, headers=headers, body=body)
        return replace(answer, url=f"{answer.url}#{fragment}")

    def classify(self, answer: Answer) -> Verdict:
        if (verdict := judge_status(answer)) is not None:
            return verdict
        found = json_object(answer)
        refused = "upload_rejected" if answer.part == UPLOAD else "parse_error"
        if answer.status != 200:
            return Verdict(refused, f"http_{answer.status}")
        if found is None:
            return not_an_object(answer)
        first = answer.url.rpartition("#page=")[2] in ("", "0")
        if isinstance(found.get("rawData"), str):
            return _judge_words(found["rawData"], first)
        images = found.get("images", [])
        # An empty list is left out, as all defaults are; then nothing but the page and the id may be there.
        if not found or not isinstance(images, list) or ("images" not in found and found.keys() - SILENT_KEYS):
            return Verdict(refused, "no_images_key")
        if not images and found.keys() - SILENT_KEYS - {"images"}:
            return Verdict(refused, "unknown_keys")
        # An upload that brought nothing was accepted all the same: its first page says so.
        if images or answer.part == UPLOAD:
            return Verdict("ok")
        page = count_in(found, "page")
        return nothing(first, count_in(found, "maxPage"), max(page, 1))  # the least that it says is one page

    def read_upload(self, answer: Answer) -> dict[str, Any]:
        found = json_object(answer) or {}
        return {"cbir_id": text(found.get("id")), "uploaded_at": int(time.time())}

    def says_end(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """Without an id there is no way to ask for the next page of a search by picture."""
        found = json_object(Answer(part, "", 200, {}, body)) or {}
        return not parsed.next_url or ("images" in found and not text(found.get("id")))


def _judge_words(encoded: str, first: bool) -> Verdict:
    """The answer to a search by words is XML inside JSON, with errors of its own."""
    try:
        root = load_xml(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return Verdict("parse_error", "not_base64")
    except ParseError as error:
        return Verdict("parse_error", str(error))
    counts = [count_in({"found": text(entry.text)}, "found") for entry in root.iterfind(".//found")]
    promised = max(counts, default=0) if first else 0  # an estimate, and more than it ever gives
    error_found = root.find(".//error")
    if error_found is not None:
        code = (error_found.get("code") or "")[:20]
        return nothing(first, promised) if code == NOTHING_FOUND else Verdict("parse_error", f"error_{code}")
    if root.find(".//results/grouping/group/doc") is not None:
        return Verdict("ok")
    grouping = root.find(".//results/grouping")
    if grouping is None:
        return Verdict("parse_error", "no_grouping")
    # Documents that were counted or stand there in another shape are not "nothing".
    if promised or {child.tag for child in grouping} - SILENT_TAGS:
        return Verdict("parse_error", "no_documents")
    return nothing(first)
