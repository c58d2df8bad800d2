"""Baidu's keyword search: the `acjson` answers of its own page, asked for with the cookies that the site gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lib.engines.base import PAGE, XHR, Answer, Ask, Engine, Verdict, Web
from lib.engines.judging import asked, count_in, is_consent, is_html, json_object, judge_status, nothing, query_url
from lib.parsers.values import flag, objects
from lib.records import ParsedPage

PATH = "/search/acjson"
INDEX_PATH = "/search/index"
PARAMS = {
    "tn": "resultjson_com",  # `baiduimage`, which the page itself has, gets an error page here
    "ipn": "rj",
    "ct": "201326592",
    "fp": "result",
    "cl": "2",
    "ie": "utf-8",
    "oe": "utf-8",
    "nc": "1",
}
# Requests with few headers are taken for a robot's, with the true user agent or without.
LANGUAGE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}
XHR_HEADERS = LANGUAGE | {
    "Accept": "application/json, text/javascript, */*; q=0.01",
    "X-Requested-With": "XMLHttpRequest",
}
CAPTCHA_HOST = "wappass.baidu.com"
_CAPTCHA = re.compile(rb'\bclass\s*=\s*"[^"]{0,200}\bpassMod_dialog|<title>[^<]{0,20}' + "百度安全验证".encode())
_TIMEOUT_PAGE = re.compile(rb'\bclass\s*=\s*"[^"]{0,200}\btimeout-button\b')
_NO_SUCH_PAGE = "页面不存在".encode()


class Source(Engine):
    """The engine `baidu`."""

    name: ClassVar[str] = "baidu"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://image.baidu.com",)
    interval: ClassVar[float] = 5.0  # peers report an address banned after some 200 pictures without a pause
    page_size: ClassVar[int] = 30
    most_pages: ClassVar[int] = 34  # some 1,000 results, then repeats
    keeps_cookies: ClassVar[bool] = True
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {"small": "z=1", "medium": "z=2", "large": "z=3", "huge": "z=9"},
        "type": {"face": "face=1", "clipart": "st=1", "drawing": "st=2", "gif": "lm=6"},
    }
    terms: ClassVar[str] = (
        "Baidu offers no API for its picture search and its terms do not allow automated queries without consent; "
        "prefer an open or keyed source, keep the pace low, and use this where you have the right to."
    )

    def knows_host(self, host: str) -> bool:
        name = urlsplit(host).hostname or ""
        return name == "image.baidu.com"

    def part(self, page: int) -> str:
        return XHR

    async def enter(self, web: Web, host: str) -> None:
        await web.open(host + "/")

    async def fetch(self, web: Web, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> Answer:
        """The first page is asked for after a visit to the front page, which gives the cookies."""
        if page == 0:
            welcome = await web.open(host + "/")
            if self.classify(welcome).outcome != "ok":
                return replace(welcome, part=XHR)
        referer = query_url(host, INDEX_PATH, {"tn": "baiduimage", "word": ask.text})
        return await web.get(
            self.address(host, ask, cursor, page), part=XHR, headers=XHR_HEADERS | {"Referer": referer}
        )

    def address(self, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
        offset = page * self.page_size
        place = {"pn": str(offset), "rn": str(self.page_size), "gsm": f"{offset:x}"}
        words = {"word": ask.text, "queryWord": ask.text}
        return query_url(host, PATH, PARAMS | words | place | self.filter_params(ask.filters))

    def classify(self, answer: Answer) -> Verdict:
        if is_captcha(answer):
            return Verdict("captcha")
        if (verdict := judge_status(answer)) is not None:
            return verdict
        if is_html(answer) and _TIMEOUT_PAGE.search(answer.body):
            return Verdict("network", "timeout_page")
        if answer.status != 200:
            return Verdict("parse_error", f"http_{answer.status}")
        if is_html(answer) and is_consent(answer):
            return Verdict("consent")
        return Verdict("ok") if answer.part == PAGE else _judge_xhr(answer)

    def says_end(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """Its counts (`listNum`, `displayNum`) are claims; a page with nothing new is the end."""
        return False


def is_captcha(answer: Answer) -> bool:
    """Whether Baidu asks for a proof of humanity; its captcha page also bears the marks of its time-out page."""
    parts = urlsplit(answer.url)
    if parts.hostname == CAPTCHA_HOST or parts.path.startswith("/static/captcha"):
        return True
    return is_html(answer) and _CAPTCHA.search(answer.body) is not None


def _judge_xhr(answer: Answer) -> Verdict:
    found = json_object(answer)
    if found is None:
        if _NO_SUCH_PAGE in answer.body:
            return Verdict("parse_error", "no_such_page")
        return Verdict("blocked", "html_instead_of_json") if is_html(answer) else Verdict("parse_error", "not_json")
    if flag(found.get("antiFlag")):
        return Verdict("blocked", "anti_flag")
    if not isinstance(found.get("data"), list):
        return Verdict("parse_error", "no_data")
    # The list ends with an empty object, which is all that is left of it beyond the last result.
    if any(objects(found["data"])):
        return Verdict("ok")
    first = asked(answer, "pn", 0) == 0
    # It lists a thousand of the millions that it counts: only an answer that should begin the list is held to them.
    return nothing(first, count_in(found, "listNum", "displayNum", "bdFmtDispNum") if first else 0)
