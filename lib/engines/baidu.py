"""Baidu's keyword search: the `acjson` answers of its own page, asked for with the cookies that the site gives.

The `flip` page, which holds the same records, is read for imports. The original's address comes enciphered (`ippr_…`),
wrapped in Baidu's re-encoding proxy (`gimg2.baidu.com`), or plain. `replaceUrl` is often a copy on Baidu's own hosts,
so it stands below the decoded `objURL`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at, unwrap, with_originals
from lib.engines.base import (
    PAGE,
    XHR,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    Web,
    asked,
    count_in,
    is_consent,
    is_html,
    json_object,
    judge_status,
    not_an_object,
    nothing,
    query_url,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    check_size,
    distinct,
    fact,
    filled,
    flag,
    load_object,
    objects,
    plain,
    position,
    text,
    whole,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, identity

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

# The cipher of `ippr_` addresses: three digraphs, then letter by letter. Letters that are not named stay.
_DIGRAPHS = (("_z2C$q", ":"), ("_z&e3B", "."), ("AzdH3F", "/"))
_LETTERS = str.maketrans("wkv1ju2it3hs4g5rq6fp7eo8dn9cm0bla", "abcdefghijklmnopqrstuvw1234567890")
_PROXY = re.compile(r"^https?://gimg\d*\.baidu\.com/image_search/(.+)$", re.IGNORECASE)
_FLIP = re.compile(rb"flip\.setData\(\s*'imgData'\s*,\s*(\{.*?\})\s*\)\s*;", re.DOTALL)
_BAIDU_HOSTS = ("baidu.com", "bdimg.com", "bdstatic.com", "bcebos.com")
REFERER = "https://image.baidu.com/"
_NO_DATE = "1970-01-01"

KNOWN = frozenset(
    "adType hasAspData thumbURL middleURL largeTnImageUrl hasLarge hoverURL pageNum objURL fromURL fromURLHost"
    " currentIndex width height type is_gif filesize bdSrcType di pi is imgCollectionWord replaceUrl hasThumbData"
    " bdSetImgNum partnerId spn bdImgnewsDate fromPageTitle fromPageTitleEnc bdSourceName bdFromPageTitlePrefix"
    " isAspDianjing token imgType cs os simid personalized simid_info face_info xiangshi_info adPicId source_type"
    " strategyAssessment isCopyright isAigcEdit resourceInfo fromURLHostEnc fromJumpUrl".split()
)
EXPECTED = frozenset({"objURL", "fromURL", "di", "width", "height", "thumbURL"})


class Baidu(Engine):
    """The engine `baidu`."""

    name: ClassVar[str] = "baidu"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://image.baidu.com",)
    domains: ClassVar[tuple[str, ...]] = ("image.baidu.com",)
    tells_last_page: ClassVar[bool] = False  # its counts (`listNum`, `displayNum`) are claims
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

    def part(self, page: int) -> str:
        return XHR

    async def warm_up(self, web: Web, host: str) -> None:
        await web.open(host + "/")

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        """The first page is asked for after a visit to the front page, which gives the cookies."""
        if page == 0:
            welcome = await web.open(host + "/")
            if self.classify(welcome).outcome != "ok":
                return replace(welcome, part=XHR)
        return await super().fetch(web, host, request, cursor, page)

    def headers(self, host: str, request: SearchRequest) -> Mapping[str, str]:
        return XHR_HEADERS | {"Referer": query_url(host, INDEX_PATH, {"tn": "baiduimage", "word": request.text})}

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        offset = page * self.page_size
        place = {"pn": str(offset), "rn": str(self.page_size), "gsm": f"{offset:x}"}
        words = {"word": request.text, "queryWord": request.text}
        return query_url(host, PATH, PARAMS | words | place | self.filter_params(request.filters))

    def classify(self, response: PageResponse) -> PageOutcome:
        if is_captcha(response):
            return PageOutcome("captcha")
        if (outcome := judge_status(response)) is not None:
            return outcome
        if is_html(response) and _TIMEOUT_PAGE.search(response.body):
            return PageOutcome("network", "timeout_page")
        if response.status != 200:
            return PageOutcome("parse_error", f"http_{response.status}")
        if is_html(response) and is_consent(response):
            return PageOutcome("consent")
        return PageOutcome("ok") if response.part == PAGE else _judge_xhr(response)


def is_captcha(response: PageResponse) -> bool:
    """Tells if Baidu asks for a proof of humanity; its captcha page also bears the marks of its time-out page."""
    parts = urlsplit(response.url)
    if parts.hostname == CAPTCHA_HOST or parts.path.startswith("/static/captcha"):
        return True
    return is_html(response) and _CAPTCHA.search(response.body) is not None


def _judge_xhr(response: PageResponse) -> PageOutcome:
    if (found := json_object(response)) is None:
        return PageOutcome("parse_error", "no_such_page") if _NO_SUCH_PAGE in response.body else not_an_object(response)
    if flag(found.get("antiFlag")):
        return PageOutcome("blocked", "anti_flag")
    if not isinstance(found.get("data"), list):
        return PageOutcome("parse_error", "no_data")
    # The list ends with an empty object, which is all that is left of it beyond the last result.
    if any(objects(found["data"])):
        return PageOutcome("ok")
    first = asked(response, "pn", 0) == 0
    # It lists a thousand of the millions that it counts: only a response that should begin the list is held to them.
    return nothing(first, count_in(found, "listNum", "displayNum", "bdFmtDispNum") if first else 0)


def parse_acjson(body: bytes) -> ParsedPage:
    """The results of one `acjson` response. Raises ParseError: `blocked`, `captcha`, `not_json`, `no_data`, …"""
    if body.lstrip()[:1] == b"<":
        raise ParseError("captcha" if looks_like_captcha(body) else "not_json")
    response, drift = load_object(body)
    if flag(response.get("antiFlag")):
        raise ParseError("blocked")
    if not isinstance(response.get("data"), list):
        raise ParseError("no_data")
    return _parse_items(response, drift)


def parse_page(html: bytes) -> ParsedPage:
    """The results inside a `flip` page. Raises ParseError: `captcha`, `no_state`, `not_json`."""
    check_size(html)
    found = _FLIP.search(html)
    if found is None:
        raise ParseError("captcha" if looks_like_captcha(html) else "no_state")
    return _parse_items(*load_object(found[1].decode("utf-8", "replace")))


def looks_like_captcha(body: bytes) -> bool:
    """Tells if a page bears the marks of Baidu's captcha, which also holds the marks of its time-out page."""
    return any(mark in body for mark in (b"passMod_dialog", "百度安全验证".encode(), b"wappass.baidu.com"))


def _parse_items(response: Mapping[str, Any], drift: Drift) -> ParsedPage:
    found = PagePictures(drift)
    for place, item in enumerate(filter(None, objects(response.get("data")))):  # the list ends with an empty object
        if text(item.get("adType")) not in ("", "0"):
            found.skip("advertisement")
            continue
        record = _read_item(position(item.get("pageNum")), place, item)
        no_original = all(variant.kind != "original" for variant in record.variants)
        drift.note("item", item, KNOWN, EXPECTED, no_original=no_original)
        if record.engine_id:
            found.add(record)
        else:
            found.skip("no_address")
    return ParsedPage(found.by_rank(), "", found.skipped, drift.report())


def _read_item(rank: int | None, place: int, item: Mapping[str, Any]) -> ImageRecord:
    """One picture. Its `di` is no identity: all pictures of a page may have the same."""
    page_url = address(decode_address(text(item.get("fromURL"))))
    published = fact(item.get("bdImgnewsDate"))
    variants = distinct(with_originals(_read_variants(item, page_url)))
    return ImageRecord(
        engine_id=identity(variants, text(item.get("cs")) or text(item.get("di"))),
        rank=place if rank is None else rank,
        page_url=page_url,
        title=plain(item.get("fromPageTitleEnc")) or plain(item.get("fromPageTitle")),
        domain=host_of(page_url) or text(item.get("fromURLHost")).lower(),
        width=whole(item.get("width")),
        height=whole(item.get("height")),
        bytes=whole(item.get("filesize")),
        format=fact(item.get("type")).lower(),
        published_at="" if published.startswith(_NO_DATE) else published,
        is_gif=flag(item.get("is_gif")),
        extra=filled(di=text(item.get("di")), simid=text(item.get("simid"))),
        variants=variants,
    )


def _read_variants(item: Mapping[str, Any], page_url: str) -> Iterator[VariantRecord]:
    """Best first: the original, copies elsewhere, Baidu's re-encodings, the thumbnails."""
    width, height = whole(item.get("width")), whole(item.get("height"))
    given = address(decode_address(text(item.get("objURL"))))
    source, referer, expires = unwrap_proxy(given)
    original = source or given
    if not is_page(original, page_url):
        yield VariantRecord("original", original, *sides_at(original, width, height), None, referer or page_url)
    copies = [
        VariantRecord("dup", address(text(r.get("ObjURL"))), referer=address(text(r.get("FromURL"))))
        for r in objects(item.get("replaceUrl"))
    ]
    yield from (copy for copy in copies if not _is_baidu(copy.url))
    if source:
        yield VariantRecord("preview", given, referer=REFERER, expires_at=expires)
    yield from (copy._replace(kind="preview") for copy in copies if _is_baidu(copy.url))
    for name in ("thumbURL", "middleURL", "hoverURL", "largeTnImageUrl"):
        yield VariantRecord("thumb", address(item.get(name)), referer=REFERER)


def _is_baidu(url: str) -> bool:
    return host_of(url).endswith(_BAIDU_HOSTS)


def decode_address(found: str) -> str:
    """An enciphered address (`ippr_…` for http, `ipprf_…` for https) in clear; any other text as it is."""
    if not found.startswith(("ippr_", "ipprf_")):
        return found
    for pair, character in _DIGRAPHS:
        found = found.replace(pair, character)
    return found.translate(_LETTERS)


def unwrap_proxy(url: str) -> tuple[str, str, str]:
    """(original address, Referer to send, expiry in UTC) of a `gimg2` address; empty texts for any other."""
    # The original by the table of proxies; here is what this one tells beside it.
    match = _PROXY.match(url)
    if match is None:
        return "", "", ""
    # Not a query string: the parameters follow the path, and a question mark stands before the last ones.
    pairs = (part.partition("=") for part in re.split(r"[&?]", match[1]))
    values = {name: unquote(value) for name, _, value in pairs}
    return unwrap(url), address(values.get("refer", "")), _expiry(values.get("sec", ""))


def _expiry(seconds: str) -> str:
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 11):
        return ""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
