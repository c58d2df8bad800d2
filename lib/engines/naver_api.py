"""Naver's keyed image search: JSON, or the XML that it can answer with instead.

NAVER API HUB is asked where its keys are set, else the older address with the older keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at, with_originals
from lib.engines.base import (
    JSON_ONLY,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    count_in,
    judge_json,
    nothing,
    query_url,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    distinct,
    load_object,
    load_xml,
    mapping,
    objects,
    plain,
    text,
    whole,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, address_digest, identity

HUB_HOST = "https://naverapihub.apigw.ntruss.com"
HUB_PATH = "/search/v1/image"
HUB_HEADERS = {"X-NCP-APIGW-API-KEY-ID": "NAVER_HUB_KEY_ID", "X-NCP-APIGW-API-KEY": "NAVER_HUB_KEY"}
OLD_HOST = "https://openapi.naver.com"
OLD_PATH = "/v1/search/image"
OLD_HEADERS = {"X-Naver-Client-Id": "NAVER_CLIENT_ID", "X-Naver-Client-Secret": "NAVER_CLIENT_SECRET"}
KEY_REFUSED = frozenset({"024", "200", "210"})
OVER_QUOTA = frozenset({"010", "012"})

KNOWN = frozenset({"title", "link", "thumbnail", "sizeheight", "sizewidth"})
LAST_START = 1000  # the API's limit for `start`


class NaverApi(Engine):
    """The engine `naver-api`."""

    name: ClassVar[str] = "naver-api"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = (HUB_HOST,)
    interval: ClassVar[float] = 0.5  # 25,000 calls a day are one every 3.5 seconds; a second's limit is not told
    page_size: ClassVar[int] = 100
    most_pages: ClassVar[int] = 11  # the last one starts at 1000, the largest `start`
    keys: ClassVar[tuple[str, ...]] = tuple(HUB_HEADERS.values())
    other_keys: ClassVar[tuple[str, ...]] = tuple(OLD_HEADERS.values())
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {"small": "filter=small", "medium": "filter=medium", "large": "filter=large"},
    }
    terms: ClassVar[str] = (
        "Naver's API terms of 2026-07-31 forbid storing or caching results beyond what they allow and using several "
        "client ids, with 25,000 calls a day; whether keeping its answers suits your case is yours to decide."
    )

    def knows_host(self, host: str) -> bool:
        return host in (HUB_HOST, OLD_HOST)

    def headers(self, host: str, request: SearchRequest) -> Mapping[str, str]:
        names = HUB_HEADERS if self._has_hub_keys() else OLD_HEADERS
        return JSON_ONLY | {header: self.key(name) for header, name in names.items()}

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        """Naver's address for the keys that are there: the old or the new one, never by the host that was tried."""
        hub = self._has_hub_keys()
        if self.knows_host(host):
            host = HUB_HOST if hub else OLD_HOST
        start = min(1 + page * self.page_size, LAST_START)
        params = {"query": request.text, "display": str(self.page_size), "start": str(start), "sort": "sim"}
        params |= {"format": "json"} if hub else {}
        return query_url(host, HUB_PATH if hub else OLD_PATH, params | self.filter_params(request.filters))

    def _has_hub_keys(self) -> bool:
        return all(map(self.key, self.keys))

    def classify(self, response: PageResponse) -> PageOutcome:
        found = judge_json(response)
        if isinstance(found, PageOutcome):
            return found
        code = _error_code(found)
        if code in KEY_REFUSED | OVER_QUOTA:
            return PageOutcome("blocked", "key_refused" if code in KEY_REFUSED else "over_quota")
        if code or response.status != 200:
            return PageOutcome("parse_error", code[:20] or f"http_{response.status}")
        items = found.get("items")
        if not isinstance(items, list):
            return PageOutcome("parse_error", "no_items")
        if items:
            return PageOutcome("ok")
        start = whole(found.get("start")) or 1
        return nothing(start == 1, min(count_in(found, "total"), LAST_START + self.page_size - 1), start - 1)

    def is_last_page(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """The last page starts at 1000 and overlaps the one before, so that results up to 1,099 can be had."""
        response, _ = load_object(body)
        start, total = whole(response.get("start")) or 1, whole(response.get("total")) or 0
        return start >= LAST_START or start + self.page_size > total


def parse_api(body: bytes) -> ParsedPage:
    """One response; `next_url` holds the next `start`. Raises ParseError: `refused: …`, `not_json`, `not_xml`, …"""
    response, drift = _load(body)
    if code := _error_code(response):
        raise ParseError(f"refused: {code} {text(response.get('errorMessage'))}"[:140])
    if not isinstance(response.get("items"), list):
        raise ParseError("no_data")
    items = objects(response["items"])
    start, display = whole(response.get("start")) or 1, whole(response.get("display")) or len(items)
    found = PagePictures(drift)
    for place, item in enumerate(items):
        if address(item.get("link")):
            found.add(_read(start - 1 + place, item, drift))
        else:
            found.skip("no_address")
    following = start + display
    more = bool(items) and following <= min(LAST_START, whole(response.get("total")) or 0)
    return ParsedPage(found.in_order(), f"start={following}" if more else "", found.skipped, drift.report())


def _error_code(found: Mapping[str, Any]) -> str:
    return text(found.get("errorCode")) or text(mapping(found.get("error")).get("errorCode"))


def _load(body: bytes) -> tuple[Mapping[str, Any], Drift]:
    if body.lstrip()[:1] != b"<":
        return load_object(body)
    root = load_xml(body)
    if root.tag != "rss":
        return {child.tag: child.text for child in root}, Drift()
    channel = root.find("channel")
    children = [] if channel is None else list(channel)
    found: dict[str, Any] = {child.tag: child.text for child in children if child.tag != "item"}
    found["items"] = [{part.tag: part.text for part in child} for child in children if child.tag == "item"]
    return found, Drift()


def _read(rank: int, item: Mapping[str, Any], drift: Drift) -> ImageRecord:
    drift.note("item", item, KNOWN, KNOWN)
    link, thumb = address(item.get("link")), address(item.get("thumbnail"))
    width, height = whole(item.get("sizewidth")), whole(item.get("sizeheight"))
    is_picture = not is_page(link)
    original = VariantRecord("original", link if is_picture else "", *sides_at(link, width, height))
    variants = distinct(with_originals([original, VariantRecord("thumb", thumb)]))
    return ImageRecord(
        engine_id=identity(variants, address_digest(link)),
        rank=rank,
        page_url="" if is_picture else link,
        title=plain(item.get("title")),
        domain=host_of(variants[0].url if is_picture else link),  # a thumbnail's host is Naver's own
        width=width,
        height=height,
        variants=variants,
    )
