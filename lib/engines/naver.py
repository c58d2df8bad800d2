"""Naver's picture search: every page of results has its records in the page object `imageSearchTabData`.

The document is kept as received, since the object stands in it as a literal. Where it does not, or not as one that can
be read without running it, the browser that ran the page is asked for the object, and that is kept as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lib.engines.base import PAGE, Answer, Ask, Engine, Verdict, Web
from lib.engines.judging import CONSENT_LABELS, asked, count_on, is_consent, judge_status, nothing, query_url
from lib.parsers.naver import OBJECT, find_literal, parse_page
from lib.records import ParsedPage, ParseError

PATH = "/search.naver"
_CAPTCHA = re.compile(
    rb'\b(?:id|class)\s*=\s*"[^"]{0,200}captcha|<form[^>]{0,300}captcha|<title>[^<]{0,60}' + "자동입력 방지".encode(),
    re.IGNORECASE,
)
_EMPTY = re.compile(rb'\bclass\s*=\s*"[^"]{0,200}\bnot_found02\b')
_HAS_RECORDS = re.compile(rb"items[\"\']?\s*:\s*\[\s*\{")


class Source(Engine):
    """The engine `naver`."""

    name: ClassVar[str] = "naver"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://search.naver.com",)
    interval: ClassVar[float] = 5.0  # blocks are counted per address; nobody has told the limit
    page_size: ClassVar[int] = 50
    most_pages: ClassVar[int] = 20
    needs_browser: ClassVar[bool] = True
    consent_labels: ClassVar[tuple[str, ...]] = CONSENT_LABELS
    terms: ClassVar[str] = (
        "Naver's terms do not allow automated collection of its result pages without consent, and its terms of "
        "2026-07-31 restrict keeping results of its API as well; prefer naver-api or an open source."
    )

    def part(self, page: int) -> str:
        return PAGE

    async def enter(self, web: Web, host: str) -> None:
        """Nothing: every page is opened as the first one is."""

    async def fetch(self, web: Web, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> Answer:
        answer = await web.open(self.address(host, ask, cursor, page))
        if answer.status != 200 or _is_readable(answer.body):
            return answer
        value = await web.value(OBJECT)
        return replace(answer, body=value) if _is_readable(value) else answer

    def address(self, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
        start = str(page * self.page_size + 1)
        params = {"where": "image", "ssc": "tab.image.all", "query": ask.text, "start": start}
        return query_url(host, PATH, params | self.filter_params(ask.filters))

    def classify(self, answer: Answer) -> Verdict:
        is_json = answer.body.lstrip()[:1] == b"{"  # the object as the browser knows it
        literal = answer.body if is_json else find_literal(answer.body)
        if "captcha" in urlsplit(answer.url).path.lower() or (literal is None and _CAPTCHA.search(answer.body)):
            return Verdict("captcha")
        if (verdict := judge_status(answer)) is not None:
            return verdict
        if answer.status != 200:
            return Verdict("parse_error", f"http_{answer.status}")
        first = asked(answer, "start", 1) == 1
        if literal is None and is_consent(answer):
            return Verdict("consent")
        promised = count_on(answer.body if literal is None else literal) if first else 0
        if literal is None:
            empty = _EMPTY.search(answer.body)
            return nothing(first, promised) if empty else Verdict("parse_error", "no_page_object")
        if _HAS_RECORDS.search(literal):
            return Verdict("ok")
        if re.search(rb"items[\"\']?\s*:\s*\[\s*\]", literal) is None:
            return Verdict("parse_error", "no_items")
        # An empty list on the first page is believed where the page also says in words that nothing was found.
        over = not first or _EMPTY.search(answer.body)
        return nothing(first, promised) if over else Verdict("parse_error", "no_items")

    def says_end(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """No page says that it is the last; one with nothing new is the end."""
        return False


def _is_readable(body: bytes) -> bool:
    try:
        parse_page(body)
    except ParseError:
        return False
    return True
