"""Bing's picture search by words: the fragments that its own page loads while one scrolls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lib.engines.base import PAGE, Answer, Ask, Engine, Verdict, Web
from lib.engines.judging import asked, count_in, count_on, is_consent, judge_status, nothing, query_url
from lib.records import ParsedPage

PATH = "/images/async"
MARKET = "en-US"  # without it the answer depends on where one seems to be
HEADERS = {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "en-US,en;q=0.8"}
DOMAINS = ("www.bing.com", "cn.bing.com")  # the second is where visitors from China are sent
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


class Source(Engine):
    """The engine `bing`."""

    name: ClassVar[str] = "bing"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://www.bing.com",)
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

    def knows_host(self, host: str) -> bool:
        return (urlsplit(host).hostname or "") in DOMAINS

    def part(self, page: int) -> str:
        return PAGE

    async def enter(self, web: Web, host: str) -> None:
        """Nothing: a page is asked for by its place alone."""

    async def fetch(self, web: Web, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> Answer:
        return await web.get(self.address(host, ask, cursor, page), part=PAGE, headers=HEADERS)

    def address(self, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
        """Results are counted from 1 here."""
        first = str(1 + page * self.page_size)
        params = {"q": ask.text, "async": "1", "first": first, "count": str(self.page_size), "mkt": MARKET}
        return query_url(host, PATH, params | self.filter_params(ask.filters))

    def classify(self, answer: Answer) -> Verdict:
        has_tiles = _TILE.search(answer.body) is not None
        if "captcha" in urlsplit(answer.url).path.lower() or (not has_tiles and _CAPTCHA.search(answer.body)):
            return Verdict("captcha")
        if (verdict := judge_status(answer)) is not None:
            return verdict
        if answer.status != 200:
            return Verdict("parse_error", f"http_{answer.status}")
        if has_tiles:
            return Verdict("ok")
        if is_consent(answer) or _CONSENT.search(answer.body):
            return Verdict("consent")
        first = asked(answer, "first", 1) == 1
        # Only in words is "nothing" believed on the first page; later an empty list is what the end looks like.
        over = _EMPTY.search(answer.body) or (not first and _NO_ENTRIES.match(answer.body))
        if not over:
            return Verdict("parse_error", "no_tiles")
        return nothing(first, _count_of(answer.body) if first else 0)  # what it counts, it never shows to the end

    def says_end(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """Bing never says it: it repeats what it has shown. A page without a new id is the end."""
        return False


def _count_of(page: bytes) -> int:
    """The number of results in the page's own words; 0 where it has none."""
    found = _COUNT.search(page)
    return count_in({"count": found[1].decode()}, "count") if found else count_on(page)
