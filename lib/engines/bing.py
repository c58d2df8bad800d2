"""Bing's picture search by words: the `images/async` fragments that its own page loads while one scrolls.

Every tile of a fragment carries its record as JSON in the attribute `m`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at, with_originals
from lib.engines.base import (
    PAGE,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    asked,
    count_in,
    count_on,
    is_consent,
    judge_status,
    nothing,
    query_url,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    check_size,
    distinct,
    filled,
    link,
    load_json_text,
    mapping,
    plain,
    text,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, identity

PATH = "/images/async"
MARKET = "en-US"  # without it the response depends on where one seems to be
HEADERS = {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "en-US,en;q=0.8"}
_TILE = re.compile(rb"""<a\b[^>]{0,4000}\bclass\s*=\s*["'][^"']{0,200}\biusc\b""")
_CAPTCHA = re.compile(
    rb'\b(?:id|class)\s*=\s*"[^"]{0,200}captcha|<title>[^<]{0,40}captcha|/turing/captcha', re.IGNORECASE
)
_EMPTY = re.compile(rb'\b(?:id|class)\s*=\s*"[^"]{0,200}\b(?:b_no|no_results|noresult|noresults)\b', re.IGNORECASE)
# A list without a single entry, or not a word: what comes after the last tile.
_NO_ENTRIES = re.compile(
    rb"""\s*\Z|(?:\s*<div\b[^>]{0,2000}>)*\s*<ul\b[^>]{0,2000}\bdgControl_list\b[^>]{0,2000}>\s*</ul>"""
)
_CONSENT = re.compile(rb'\bid\s*=\s*"bnp_(?:ttc|btn_accept|container)')
_COUNT = re.compile(rb'\bclass\s*=\s*"[^"]{0,200}\bsb_count\b[^>]{0,200}>[^<0-9]{0,40}([0-9][0-9,.]{0,24})')

KNOWN = frozenset("sid cturl cid purl murl turl md5 shkey t mid desc ptitle mw mh cw ch ow oh surl ttl".split())
EXPECTED = frozenset({"purl", "murl", "turl", "mid", "t"})
PAGE_SIZE = 35
REFERER = "https://www.bing.com/"
_PAGE_MARKS = (b"dgControl", b"imgpt", b"mmComponent", b"no_results", b"b_no")  # of a page of results without any
_SIZE = re.compile(r"(\d{1,6})\s*[×x]\s*(\d{1,6})(?:\s*·\s*([A-Za-z]+))?")


class Bing(Engine):
    """The engine `bing`."""

    name: ClassVar[str] = "bing"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://www.bing.com",)
    domains: ClassVar[tuple[str, ...]] = ("www.bing.com", "cn.bing.com")  # visitors from China are sent to the second
    tells_last_page: ClassVar[bool] = False  # it repeats what it has shown
    interval: ClassVar[float] = 3.0
    page_size: ClassVar[int] = 35
    most_pages: ClassVar[int] = 30  # beyond some 1,000 results it repeats itself
    keeps_cookies: ClassVar[bool] = True
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {
            "small": "qft=+filterui:imagesize-small",
            "medium": "qft=+filterui:imagesize-medium",
            "large": "qft=+filterui:imagesize-large",
            "huge": "qft=+filterui:imagesize-wallpaper",
        },
        "orientation": {
            "landscape": "qft=+filterui:aspect-wide",
            "portrait": "qft=+filterui:aspect-tall",
            "square": "qft=+filterui:aspect-square",
        },
        "type": {
            "photo": "qft=+filterui:photo-photo",
            "clipart": "qft=+filterui:photo-clipart",
            "drawing": "qft=+filterui:photo-linedrawing",
            "face": "qft=+filterui:face-face",
            "gif": "qft=+filterui:photo-animatedgif",
        },
        "licence": {
            "cc": "qft=+filterui:licenseType-Any",
            "commercial": "qft=+filterui:license-L2_L3_L4",
            "modify": "qft=+filterui:license-L2_L3_L5_L6",
            "public-domain": "qft=+filterui:license-L1",
        },
    }
    filter_joint: ClassVar[str] = ""  # every value brings its plus sign
    terms: ClassVar[str] = (
        "Microsoft ended Bing's search APIs on 2025-08-11 and its terms do not allow automated queries of the site "
        "without consent; prefer an open or keyed source, and use this where you have the right to."
    )

    def part(self, page: int) -> str:
        return PAGE

    def headers(self, host: str, request: SearchRequest) -> Mapping[str, str]:
        return HEADERS

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        """Results are counted from 1 here."""
        first = str(1 + page * self.page_size)
        params = {"q": request.text, "async": "1", "first": first, "count": str(self.page_size), "mkt": MARKET}
        return query_url(host, PATH, params | self.filter_params(request.filters))

    def classify(self, response: PageResponse) -> PageOutcome:
        has_tiles = _TILE.search(response.body) is not None
        if "captcha" in urlsplit(response.url).path.lower() or (not has_tiles and _CAPTCHA.search(response.body)):
            return PageOutcome("captcha")
        if (outcome := judge_status(response, "parse_error")) is not None:
            return outcome
        if has_tiles:
            return PageOutcome("ok")
        if is_consent(response) or _CONSENT.search(response.body):
            return PageOutcome("consent")
        first = asked(response, "first", 1) == 1
        # Only in words is "nothing" believed on the first page; later an empty list is what the end looks like.
        over = _EMPTY.search(response.body) or (not first and _NO_ENTRIES.match(response.body))
        if not over:
            return PageOutcome("parse_error", "no_tiles")
        return nothing(first, _count_of(response.body) if first else 0)  # what it counts, it never shows to the end


def _count_of(page: bytes) -> int:
    """The number of results in the page's own words; 0 where it has none."""
    found = _COUNT.search(page)
    return count_in({"count": found[1].decode()}, "count") if found else count_on(page)


def parse_page(html: bytes) -> ParsedPage:
    """The tiles of one page. Raises ParseError: `captcha`, `no_state`."""
    check_size(html)
    reader = _Tiles()
    reader.feed(html.decode("utf-8", "replace"))
    if not reader.tiles and not any(mark in html for mark in _PAGE_MARKS):
        raise ParseError("captcha" if b"captcha" in html.lower() else "no_state")
    found = PagePictures(Drift())
    for place, (attribute, sizes) in enumerate(reader.tiles):
        try:
            value, repaired = load_json_text(attribute)
        except ParseError:
            found.skip("not_json")
            continue
        found.drift.repaired |= repaired
        record = _read_tile(mapping(value), sizes, place, found.drift)
        if record.engine_id:
            found.add(record)
        else:
            found.skip("no_address")
    return ParsedPage(found.in_order(), "", found.skipped, found.drift.report(), PAGE_SIZE)


class _Tiles(HTMLParser):
    """Collects (attribute `m`, size text) of every tile in document order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tiles: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "a" and "iusc" in (values.get("class") or "").split() and values.get("m"):
            self.tiles.append((values["m"] or "", []))

    def handle_data(self, data: str) -> None:
        if self.tiles and "×" in data and _SIZE.fullmatch(data.strip()):  # a caption may speak of sizes too
            self.tiles[-1][1].append(data.strip())


def _read_tile(m: Mapping[str, Any], sizes: list[str], rank: int, drift: Drift) -> ImageRecord:
    """One tile. The ids in it are not unique: what differs is the address of the picture."""
    page_url, original, thumb = link(m.get("purl")), address(m.get("murl")), address(m.get("turl"))
    original = "" if is_page(original, page_url) else original
    size = _SIZE.fullmatch(sizes[0]) if sizes else None
    width, height = (int(size[1]) or None, int(size[2]) or None) if size else (None, None)
    whole_one = VariantRecord("original", original, *sides_at(original, width, height), None, page_url)
    variants = distinct(with_originals([whole_one, VariantRecord("thumb", thumb, referer=REFERER)]))
    engine_id = identity(variants, text(m.get("mid")) or text(m.get("md5")) or text(m.get("cid")))
    if engine_id:
        drift.note("m", m, KNOWN, EXPECTED, no_original=not original)
    return ImageRecord(
        engine_id=engine_id,
        rank=rank,
        page_url=page_url,
        title=plain(m.get("t")),
        snippet=plain(m.get("desc")),
        domain=host_of(page_url) or host_of(original),
        width=width,
        height=height,
        format=(size[3] or "").lower() if size else "",
        extra=filled(mid=text(m.get("mid")), md5=text(m.get("md5"))),
        variants=variants,
    )
