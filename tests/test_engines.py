"""The engines beside Yandex without a network: what their answers mean, what they ask for, filters and keys."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support import ROOT

from lib.engines import FILTER_VALUES, NAMES, parser_for
from lib.engines.baidu_graph import list_address, multipart, on_host
from lib.engines.base import API, PAGE, UPLOAD, XHR, PageResponse, SearchRequest, load_engine
from lib.errors import UsageError
from lib.records import OUTCOMES

SAMPLES = ROOT.parent / "shared" / "samples"
NEW = tuple(name for name in NAMES if name != "yandex")
CLOUD = {"YANDEX_CLOUD_API_KEY": "a-key", "YANDEX_CLOUD_FOLDER_ID": "a-folder"}
HUB = {"NAVER_HUB_KEY_ID": "an-id", "NAVER_HUB_KEY": "a-secret"}
OLD = {"NAVER_CLIENT_ID": "an-id", "NAVER_CLIENT_SECRET": "a-secret"}
EVERY_KEY = {**CLOUD, **HUB}


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def answer(part: str, body: bytes | dict[str, Any], url: str = "https://x.example/", status: int = 200, **headers: str):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return PageResponse(part, url, status, given, as_json(body) if isinstance(body, dict) else body)


HTML = b"<html><body>Service is being updated</body></html>"
CONSENT = b"<html><form><button type=submit> <span>Allow all</span></button></form></html>"
# In the shape of `baidu/captcha_page_2026-04.html`, which holds the time-out page's marks as well.
BAIDU_CAPTCHA = (
    '<html><head><title>百度安全验证</title></head><body><button class="timeout-button">返回首页</button>'
    '<div class="passMod_dialog-wrapper passMod_show"></div></body></html>'
).encode()
BAIDU_TIMEOUT = b'<html><title>x</title><button type="button" class="timeout-button">back</button></html>'
# Follows `baidu/antiflag_2021-04.json`.
ANTI_FLAG = {"antiFlag": 1, "message": "Forbid spider access", "bfe_log_id": "1"}
ACJSON = "https://image.baidu.com/search/acjson?word=a&pn=%d&rn=30"
WARM = b'<html><a href="https://wappass.baidu.com/login">log in</a></html>'


def cards(*found: dict[str, Any]) -> bytes:
    return b"<html><script>window.cardData = " + as_json(list(found)) + b";</script></html>"  # type: ignore[arg-type]


SAME = {"cardName": "same", "tplData": {"list": [{"url": "https://p.example/", "image_src": "https://t.example/1"}]}}
SIMILAR = {"cardName": "simipic", "tplData": {"firstUrl": "https://graph.baidu.com/ajax/pcsimi?sign=1"}}
FOREIGN = {"cardName": "simipic", "tplData": {"firstUrl": "https://elsewhere.example/ajax/pcsimi?sign=1"}}
GRAPH = "https://graph.baidu.com/s?sign=1"
NO_RESULT = {"cardName": "noresult", "tplData": {}}

# Follows `inferred/naver_imageSearchTabData.SYNTHETIC.html`.
NAVER_PAGE = (
    b'<html><script>var imageSearchTabData={content:{items:[{type:"image",title:"captcha",imgId:"image_sas:web_1"},]}}'
    b"</script></html>"
)
NAVER_BLANK = b"<html><script>var imageSearchTabData = {content:{items:[ ],},}</script></html>"
NAVER_OTHER = b'<html><script>var imageSearchTabData={content:{feed:{cards:[{id:"1"}]}}}</script></html>'
NAVER_NOTHING = '<html><div class="not_found02">검색결과가 없습니다.</div></html>'.encode()
NAVER = "https://search.naver.com/search.naver?where=image&query=a&start=%d"
PLAIN_CAPTCHA = b'<html><form id="captcha" action="/check"><h1>One more step</h1></form></html>'

TILE = b'<ul class="dgControl_list"><li><a class="iusc" m="{&quot;mid&quot;:&quot;1&quot;}" href="/x"></a></li></ul>'
BING = "https://www.bing.com/images/async?q=a&first=%d"


def words(xml: str) -> dict[str, str]:
    return {"rawData": base64.b64encode(xml.encode()).decode()}


DOC = "<a><response><results><grouping><group><doc><url>u</url></doc></group></grouping></results></response></a>"
NO_DOC = '<yandexsearch><response><error code="%s">x</error></response></yandexsearch>'
FOUND = "<a><found>%s</found><results><grouping><page>0</page>%s</grouping></results></a>"
CLOUD_URL = "https://searchapi.api.cloud.yandex.net/v2/image/search#page=%d"
YANDEX = "https://yandex.com/images/search?text=a"
COMMONS = "https://commons.wikimedia.org/w/api.php?gsroffset=%s"

VERDICTS: list[tuple[str, PageResponse, str, str]] = [
    ("openverse", answer(API, {"results": [{"id": "1"}], "page": 1}), "ok", ""),
    ("openverse", answer(API, {"results": [], "page": 1}), "empty", ""),
    ("openverse", answer(API, {"results": [], "page": 3}), "end", "no_more_results"),
    ("openverse", answer(API, {"detail": "Invalid page."}, status=404), "end", "http_404"),
    ("openverse", answer(API, {"error": "InputError"}, status=400), "parse_error", "http_400"),
    ("openverse", answer(API, {"detail": "Invalid token."}, status=401), "blocked", "key_refused"),
    ("openverse", answer(API, {"detail": "x"}, status=429, retry_after="5"), "blocked", "http_429"),
    ("openverse", answer(API, {"feed": {}}), "parse_error", "no_results_key"),
    ("openverse", answer(API, HTML), "blocked", "html_instead_of_json"),
    ("openverse", answer(API, b"", status=502), "network", "http_502"),
    ("openverse", answer(API, b"", status=503, retry_after="9"), "blocked", "http_503"),
    # A count without results is no "nothing": the results have another shape.
    ("openverse", answer(API, {"results": [], "page": 1, "result_count": 10**9}), "parse_error", "results_promised"),
    ("openverse", answer(API, {"results": [], "page": 1, "result_count": 0, "page_count": 0}), "empty", ""),
    (
        "openverse",
        answer(API, {"results": [], "page": 2, "page_size": 20, "result_count": 10**9, "page_count": 12}),
        "parse_error",
        "results_promised",
    ),
    (
        "openverse",
        answer(API, {"results": [], "page": 13, "page_size": 20, "result_count": 10**9, "page_count": 12}),
        "end",
        "no_more_results",
    ),
    (
        "commons",
        answer(API, {"query": {"pages": [], "searchinfo": {"totalhits": 10**9}}}, COMMONS % 0),
        "parse_error",
        "results_promised",
    ),
    (
        "commons",
        answer(API, {"query": {"pages": []}, "continue": {"gsroffset": 50}}, COMMONS % 0),
        "parse_error",
        "results_promised",
    ),
    ("commons", answer(API, {"batchcomplete": "", "continue": {}}, COMMONS % ("9" * 5000)), "end", "no_more_results"),
    ("naver-api", answer(API, {"items": [], "start": 1, "total": 10**9}), "parse_error", "results_promised"),
    ("naver-api", answer(API, {"items": [], "start": 101, "total": "1,000"}), "parse_error", "results_promised"),
    ("naver-api", answer(API, {"items": [], "start": 101, "total": 100}), "end", "no_more_results"),
    ("naver-api", answer(API, {"items": [], "start": 1, "total": "0"}), "empty", ""),
    (
        "yandex-cloud",
        answer(API, {"page": "0", "id": "1", "maxPage": "1000000000"}, CLOUD_URL % 0),
        "parse_error",
        "results_promised",
    ),
    ("yandex-cloud", answer(API, {"page": "3", "id": "1", "maxPage": "3"}, CLOUD_URL % 3), "end", "no_more_results"),
    ("baidu", answer(XHR, {"data": [{}], "displayNum": 10**9}, ACJSON % 0), "parse_error", "results_promised"),
    ("baidu", answer(XHR, {"data": [{}], "listNum": "1,919"}, ACJSON % 0), "parse_error", "results_promised"),
    ("baidu", answer(XHR, {"data": [{}], "listNum": 0, "displayNum": 0}, ACJSON % 0), "empty", ""),
    # It lists a thousand of all that it counts.
    ("baidu", answer(XHR, {"data": [{}], "displayNum": 10**9}, ACJSON % 990), "end", "no_more_results"),
    (
        "baidu-graph",
        answer(API, {"status": 0, "data": {"list": [], "totalNum": 10**9}}, GRAPH),
        "parse_error",
        "results_promised",
    ),
    (
        "bing",
        answer(PAGE, b'<span class="sb_count">1,000,000,000 results</span><p class="no_results"></p>', BING % 1),
        "parse_error",
        "results_promised",
    ),
    ("bing", answer(PAGE, b'<span class="sb_count">0 results</span><p class="no_results">', BING % 1), "empty", ""),
    (
        "naver",
        answer(
            PAGE,
            b'<script>var imageSearchTabData={content:{total:1000000000,items:[]}}</script><p class="not_found02">',
            NAVER % 1,
        ),
        "parse_error",
        "results_promised",
    ),
    (
        "yandex",
        answer(PAGE, b'<i data-state="{&quot;totalCount&quot;:1000000000}"><p class="EmptySearchResults">', YANDEX),
        "parse_error",
        "results_promised",
    ),
    (
        "yandex",
        answer(PAGE, b'<i data-state="{&quot;total&quot;:0}"><p class="EmptySearchResults">', YANDEX),
        "empty",
        "",
    ),
    ("commons", answer(API, {"query": {"pages": [{"pageid": 1}]}}, COMMONS % 0), "ok", ""),
    ("commons", answer(API, {"query": {"pages": {"1": {}}}}, COMMONS % 0), "ok", ""),
    ("commons", answer(API, {"batchcomplete": True}, COMMONS % 0), "empty", ""),
    ("commons", answer(API, {"batchcomplete": ""}, COMMONS % 50), "end", "no_more_results"),
    ("commons", answer(API, {"batchcomplete": True, "query": {"feed": {}}}, COMMONS % 0), "parse_error", "no_pages"),
    ("commons", answer(API, {"error": {"code": "maxlag", "info": "x"}}), "blocked", "maxlag"),
    ("commons", answer(API, {"error": {"code": "ratelimited"}}), "blocked", "ratelimited"),
    ("commons", answer(API, {"error": {"code": "badvalue"}}), "parse_error", "badvalue"),
    ("commons", answer(API, {"feed": {}}, COMMONS % 0), "parse_error", "no_pages"),
    ("commons", answer(API, b"Please set a user agent", status=403), "blocked", "http_403"),
    ("naver-api", answer(API, {"items": [{"link": "x"}], "start": 1}), "ok", ""),
    ("naver-api", answer(API, {"items": [], "start": 1}), "empty", ""),
    ("naver-api", answer(API, {"items": [], "start": 101}), "end", "no_more_results"),
    ("naver-api", answer(API, {"errorCode": "024"}, status=401), "blocked", "key_refused"),
    ("naver-api", answer(API, {"errorCode": "024"}), "blocked", "key_refused"),
    ("naver-api", answer(API, {"errorCode": "012"}, status=429), "blocked", "http_429"),
    ("naver-api", answer(API, {"error": {"errorCode": "210"}}), "blocked", "key_refused"),
    ("naver-api", answer(API, {"errorCode": "SE03"}, status=400), "parse_error", "SE03"),
    ("naver-api", answer(API, {"total": 4}), "parse_error", "no_items"),
    ("yandex-cloud", answer(API, {"images": [{"url": "u"}], "page": "0", "id": "1"}, CLOUD_URL % 0), "ok", ""),
    ("yandex-cloud", answer(API, {"page": "0", "id": "1"}, CLOUD_URL % 0), "empty", ""),
    ("yandex-cloud", answer(API, {"page": "2", "id": "1"}, CLOUD_URL % 2), "end", "no_more_results"),
    ("yandex-cloud", answer(UPLOAD, {"page": "0", "id": "1"}, CLOUD_URL % 0), "ok", ""),
    ("yandex-cloud", answer(UPLOAD, {"code": 3, "message": "data"}, status=400), "upload_rejected", "http_400"),
    ("yandex-cloud", answer(UPLOAD, {"feed": {}}), "upload_rejected", "no_images_key"),
    ("yandex-cloud", answer(API, {"feed": {}}), "parse_error", "no_images_key"),
    ("yandex-cloud", answer(API, {"code": 16, "message": "key"}, status=401), "blocked", "key_refused"),
    ("yandex-cloud", answer(API, {"code": 8}, status=429), "blocked", "http_429"),
    ("yandex-cloud", answer(API, words(DOC), CLOUD_URL % 0), "ok", ""),
    ("yandex-cloud", answer(API, words(NO_DOC % "15"), CLOUD_URL % 0), "empty", ""),
    ("yandex-cloud", answer(API, words(NO_DOC % "15"), CLOUD_URL % 1), "end", "no_more_results"),
    ("yandex-cloud", answer(API, words(NO_DOC % "32"), CLOUD_URL % 0), "parse_error", "error_32"),
    ("yandex-cloud", answer(API, words("<a><results/></a>"), CLOUD_URL % 0), "parse_error", "no_grouping"),
    (
        "yandex-cloud",
        answer(API, words("<a><results><grouping/></results></a>"), CLOUD_URL % 1),
        "end",
        "no_more_results",
    ),
    ("yandex-cloud", answer(API, words("<a><b></a>"), CLOUD_URL % 0), "parse_error", "not_xml"),
    ("yandex-cloud", answer(API, words(FOUND % ("130", "")), CLOUD_URL % 0), "parse_error", "no_documents"),
    ("yandex-cloud", answer(API, words(FOUND % ("130", "")), CLOUD_URL % 3), "end", "no_more_results"),
    ("yandex-cloud", answer(API, words(FOUND % ("0", "")), CLOUD_URL % 0), "empty", ""),
    ("yandex-cloud", answer(API, words(FOUND % ("130", "<group/>")), CLOUD_URL % 3), "parse_error", "no_documents"),
    ("yandex-cloud", answer(API, words(FOUND % ("130", "<card/>")), CLOUD_URL % 3), "parse_error", "no_documents"),
    ("yandex-cloud", answer(API, {"images": [], "id": "1", "feed": {}}, CLOUD_URL % 0), "parse_error", "unknown_keys"),
    ("yandex-cloud", answer(API, {"images": {"1": {}}, "id": "1"}, CLOUD_URL % 2), "parse_error", "no_images_key"),
    ("yandex-cloud", answer(API, {"images": [], "id": "1"}, CLOUD_URL % 0), "empty", ""),
    ("yandex-cloud", answer(API, {"page": "0", "id": "1", "feed": {}}, CLOUD_URL % 0), "parse_error", "no_images_key"),
    ("yandex-cloud", answer(API, {"rawData": "***"}, CLOUD_URL % 0), "parse_error", "not_base64"),
    ("baidu", answer(XHR, {"data": [{"di": "1"}, {}]}, ACJSON % 0), "ok", ""),
    ("baidu", answer(XHR, {"data": [{}]}, ACJSON % 0), "empty", ""),
    ("baidu", answer(XHR, {"data": [{}]}, ACJSON % 60), "end", "no_more_results"),
    ("baidu", answer(XHR, rb'{"data":[{"di":"1","fromPageTitle":"it\'s"},{}]}', ACJSON % 0), "ok", ""),
    ("baidu", answer(XHR, ANTI_FLAG, ACJSON % 0), "blocked", "anti_flag"),
    ("baidu", answer(XHR, BAIDU_CAPTCHA, ACJSON % 0), "captcha", ""),
    ("baidu", answer(XHR, HTML, "https://wappass.baidu.com/static/captcha/tuxing.html"), "captcha", ""),
    ("baidu", answer(PAGE, BAIDU_CAPTCHA), "captcha", ""),
    ("baidu", answer(PAGE, WARM), "ok", ""),
    ("baidu", answer(PAGE, CONSENT), "consent", ""),
    ("baidu", answer(XHR, BAIDU_TIMEOUT, ACJSON % 0), "network", "timeout_page"),
    (
        "baidu",
        answer(XHR, "<html><title>页面不存在</title></html>".encode(), ACJSON % 0),
        "parse_error",
        "no_such_page",
    ),
    ("baidu", answer(XHR, HTML, ACJSON % 0), "blocked", "html_instead_of_json"),
    ("baidu", answer(XHR, b"no", ACJSON % 0), "parse_error", "not_json"),
    ("baidu", answer(XHR, {"feed": {}}, ACJSON % 0), "parse_error", "no_data"),
    ("baidu-graph", answer(UPLOAD, cards(SAME, SIMILAR), GRAPH), "ok", ""),
    ("baidu-graph", answer(UPLOAD, cards(SIMILAR), GRAPH), "ok", ""),
    ("baidu-graph", answer(UPLOAD, cards(SAME, FOREIGN), GRAPH), "upload_rejected", "address_on_another_host"),
    (
        "baidu-graph",
        answer(UPLOAD, {"status": 0, "data": {"url": "https://e.example/"}}),
        "upload_rejected",
        "address_on_another_host",
    ),
    ("baidu-graph", answer(PAGE, cards(SAME)), "ok", ""),
    ("baidu-graph", answer(UPLOAD, cards(NO_RESULT)), "empty", ""),
    ("baidu-graph", answer(UPLOAD, HTML, "https://graph.baidu.com/errpage?pron=pcupload"), "empty", ""),
    ("baidu-graph", answer(UPLOAD, cards({"cardName": "product"})), "upload_rejected", "no_cards"),
    ("baidu-graph", answer(PAGE, cards({"cardName": "product"})), "parse_error", "no_cards"),
    ("baidu-graph", answer(UPLOAD, {"status": 1, "msg": "upload fail"}), "upload_rejected", "upload fail"),
    ("baidu-graph", answer(UPLOAD, {"status": 2}), "upload_rejected", "status_2"),
    ("baidu-graph", answer(UPLOAD, {"status": 403}, status=403), "blocked", "http_403"),
    ("baidu-graph", answer(PAGE, BAIDU_CAPTCHA), "captcha", ""),
    ("baidu-graph", answer(PAGE, CONSENT), "consent", ""),
    ("baidu-graph", answer(API, {"status": 0, "data": {"list": [{"thumbUrl": "u"}]}}), "ok", ""),
    ("baidu-graph", answer(API, {"status": 0, "data": {"list": []}}), "end", "no_more_results"),
    ("baidu-graph", answer(API, {"status": 5, "data": {}}), "parse_error", "status_5"),
    ("baidu-graph", answer(API, {"status": 0, "data": {}}), "parse_error", "no_data"),
    ("baidu-graph", answer(API, HTML), "blocked", "html_instead_of_json"),
    ("naver", answer(PAGE, NAVER_PAGE, NAVER % 1), "ok", ""),
    ("naver", answer(PAGE, NAVER_NOTHING, NAVER % 1), "empty", ""),
    ("naver", answer(PAGE, NAVER_NOTHING, NAVER % 51), "end", "no_more_results"),
    ("naver", answer(PAGE, NAVER_BLANK, NAVER % 51), "end", "no_more_results"),
    ("naver", answer(PAGE, NAVER_BLANK, NAVER % 1), "parse_error", "no_items"),
    ("naver", answer(PAGE, NAVER_OTHER, NAVER % 1), "parse_error", "no_items"),
    ("naver", answer(PAGE, HTML, NAVER % 1), "parse_error", "no_page_object"),
    # The page object as the browser knows it.
    ("naver", answer(PAGE, {"content": {"items": [{"type": "image"}]}}, NAVER % 1), "ok", ""),
    ("naver", answer(PAGE, {"content": {"items": []}}, NAVER % 51), "end", "no_more_results"),
    ("naver", answer(PAGE, {"content": {"items": []}}, NAVER % 1), "parse_error", "no_items"),
    ("naver", answer(PAGE, {"content": {"feed": {}}}, NAVER % 1), "parse_error", "no_items"),
    ("naver", answer(PAGE, PLAIN_CAPTCHA, NAVER % 1), "captcha", ""),
    ("naver", answer(PAGE, CONSENT, NAVER % 1), "consent", ""),
    ("naver", answer(PAGE, b"", NAVER % 1, status=403), "blocked", "http_403"),
    ("bing", answer(PAGE, TILE, BING % 1), "ok", ""),
    ("bing", answer(PAGE, b'<div class="no_results">There are no results</div>', BING % 1), "empty", ""),
    ("bing", answer(PAGE, b'<div class="no_results"></div>', BING % 36), "end", "no_more_results"),
    ("bing", answer(PAGE, b"", BING % 36), "end", "no_more_results"),
    ("bing", answer(PAGE, b"", BING % 1), "parse_error", "no_tiles"),
    (
        "bing",
        answer(PAGE, b' <div class="dgControl"><ul class="dgControl_list"> </ul></div>', BING % 36),
        "end",
        "no_more_results",
    ),
    ("bing", answer(PAGE, HTML, BING % 36), "parse_error", "no_tiles"),
    ("bing", answer(PAGE, b'<div class="feed"><div class="card"></div></div>', BING % 36), "parse_error", "no_tiles"),
    ("bing", answer(PAGE, b"<html><head><title>Searching</title></head></html>", BING % 36), "parse_error", "no_tiles"),
    ("bing", answer(PAGE, b'<ul class="dgControl_list"><li><div/></li></ul>', BING % 36), "parse_error", "no_tiles"),
    ("bing", answer(PAGE, b'<div class="feed"><div class="card"></div></div>', BING % 1), "parse_error", "no_tiles"),
    ("bing", answer(PAGE, PLAIN_CAPTCHA, BING % 1), "captcha", ""),
    ("bing", answer(PAGE, TILE + b'<p id="captcha-news">', BING % 1), "ok", ""),
    ("bing", answer(PAGE, b'<div id="bnp_container">', BING % 1), "consent", ""),
    ("bing", answer(PAGE, b"", BING % 1, status=429), "blocked", "http_429"),
]


@pytest.mark.parametrize(("name", "given", "outcome", "detail"), VERDICTS)
def test_classify(name: str, given: PageResponse, outcome: str, detail: str) -> None:
    verdict = load_engine(name, {}).classify(given)
    assert (verdict.outcome, verdict.detail) == (outcome, detail)
    assert outcome in OUTCOMES


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"[]", b"null", b"{", b"<", b'{"data":null,"query":7,"items":{}}'])
def test_nothing_unknown_is_taken_for_empty(name: str, body: bytes) -> None:
    engine = load_engine(name, {})
    assert engine.classify(answer(engine.part(0), body)).outcome in ("parse_error", "blocked")
    if "image" in engine.kinds:
        assert engine.classify(answer(UPLOAD, body)).outcome in ("upload_rejected", "parse_error", "blocked")


if SAMPLES.is_dir():
    RECORDED = [
        ("baidu", XHR, "baidu/acjson_2018-07.partial.json", "ok"),
        ("baidu", XHR, "baidu/antiflag_2021-04.json", "blocked"),
        ("baidu", XHR, "baidu/captcha_page_2026-04.html", "captcha"),
        ("baidu", PAGE, "baidu/captcha_page_2026-04.html", "captcha"),
        ("baidu", PAGE, "baidu/web_no_results_2026-04.html", "ok"),  # a page without a captcha is as good as the front
        ("baidu-graph", PAGE, "baidu/captcha_page_2026-04.html", "captcha"),
        ("baidu-graph", API, "baidu/graph_similardetailnew_item_2025-07.json", "ok"),
        ("naver", PAGE, "inferred/naver_imageSearchTabData.SYNTHETIC.html", "ok"),
    ]

    @pytest.mark.parametrize(("name", "part", "file", "outcome"), RECORDED)
    def test_classify_recorded_answers(name: str, part: str, file: str, outcome: str) -> None:
        body = (SAMPLES / file).read_bytes()
        assert load_engine(name, {}).classify(answer(part, body)).outcome == outcome


GRAPH_CURSOR = {"cards_url": GRAPH, "matches": True, "list_url": "https://g.example/l?a=1"}


@pytest.mark.parametrize(
    ("name", "page", "path", "expected"),
    [
        ("openverse", 0, "/v1/images/", {"q": "a b&c", "page": "1", "page_size": "20"}),
        ("openverse", 19, "/v1/images/", {"page": "20"}),
        ("commons", 0, "/w/api.php", {"gsrsearch": "filetype:bitmap a b&c", "gsroffset": "0", "gsrlimit": "50"}),
        ("commons", 3, "/w/api.php", {"gsroffset": "150", "gsrnamespace": "6", "formatversion": "2"}),
        ("naver-api", 0, "/search/v1/image", {"query": "a b&c", "start": "1", "display": "100", "format": "json"}),
        ("naver-api", 9, "/search/v1/image", {"start": "901"}),
        ("naver-api", 10, "/search/v1/image", {"start": "1000"}),
        ("baidu", 0, "/search/acjson", {"word": "a b&c", "pn": "0", "rn": "30", "gsm": "0", "tn": "resultjson_com"}),
        ("baidu", 2, "/search/acjson", {"pn": "60", "gsm": "3c"}),
        ("naver", 1, "/search.naver", {"query": "a b&c", "where": "image", "ssc": "tab.image.all", "start": "51"}),
        ("bing", 2, "/images/async", {"q": "a b&c", "first": "71", "count": "35", "async": "1"}),
    ],
)
def test_addresses(name: str, page: int, path: str, expected: dict[str, str]) -> None:
    url = load_engine(name, EVERY_KEY).address("https://h.example", SearchRequest("keyword", "a b&c"), {}, page)
    found = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    assert urlsplit(url).path == path
    assert {key: found.get(key) for key in expected} == expected


def test_naver_is_asked_at_the_address_that_its_keys_are_for() -> None:
    ask = SearchRequest("keyword", "a")
    hub, old = load_engine("naver-api", HUB), load_engine("naver-api", OLD)
    assert hub.address(hub.hosts[0], ask, {}, 0).startswith("https://naverapihub.apigw.ntruss.com/search/v1/image?")
    assert old.address(old.hosts[0], ask, {}, 0).startswith("https://openapi.naver.com/v1/search/image?")
    assert old.address("http://127.0.0.1:1", ask, {}, 0).startswith("http://127.0.0.1:1/v1/search/image?")


@pytest.mark.parametrize(
    ("url", "place", "expected"),
    [
        ("https://g.example/l?a=1&extUiData%5Bx%5D=1", 0, "https://g.example/l?a=1&extUiData%5Bx%5D=1"),
        ("https://g.example/l?a=1&extUiData%5Bx%5D=1", 1, "https://g.example/l?a=1&extUiData%5Bx%5D=1&page=2"),
        ("https://g.example/l?page=1&empty=", 2, "https://g.example/l?page=3&empty="),
    ],
)
def test_pages_of_baidus_list(url: str, place: int, expected: str) -> None:
    assert list_address(url, place) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://graph.baidu.com/s?a=1", "https://graph.baidu.com/s?a=1"),
        ("http://graph.baidu.com/s", "https://graph.baidu.com/s"),
        ("/s?a=1", "https://graph.baidu.com/s?a=1"),
        ("https://elsewhere.example/s", ""),
        ("file:///etc/passwd", ""),
        ("https://graph.baidu.com:8443/s", ""),
        ("", ""),
    ],
)
def test_addresses_that_an_answer_names_stay_on_its_host(url: str, expected: str) -> None:
    assert on_host("https://graph.baidu.com", url) == expected


def test_a_form_with_text_and_a_file() -> None:
    kind, body = multipart({"a": "1"}, "image", "query.png", "image/png", b"\x89PNG\r\n")
    mark = kind.partition("boundary=")[2]
    assert body == (
        f'--{mark}\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--{mark}\r\nContent-Disposition: form-data;'
        f' name="image"; filename="query.png"\r\nContent-Type: image/png\r\n\r\n'
    ).encode() + b"\x89PNG\r\n\r\n" + f"--{mark}--\r\n".encode()  # fmt: skip


def test_graph_reads_what_later_requests_need() -> None:
    engine = load_engine("baidu-graph", {})
    found = engine.read_upload(answer(UPLOAD, cards(SAME, SIMILAR), GRAPH))
    assert (found["matches"], found["list_url"]) == (True, "https://graph.baidu.com/ajax/pcsimi?sign=1")
    assert engine.read_upload(answer(UPLOAD, cards(SIMILAR), "https://graph.baidu.com/s"))["matches"] is False
    assert engine.read_upload(answer(UPLOAD, HTML)) == {}
    # Without exact matches the list is the first page; with them it begins on the second.
    ask = SearchRequest("image")
    assert engine.address("", ask, GRAPH_CURSOR, 0) == GRAPH_CURSOR["cards_url"]
    assert engine.address("", ask, GRAPH_CURSOR, 1) == GRAPH_CURSOR["list_url"]
    assert engine.address("", ask, GRAPH_CURSOR | {"matches": False}, 0) == GRAPH_CURSOR["list_url"]


@pytest.mark.parametrize(
    ("start", "total", "ends"),
    [(1, 100, True), (1, 101, False), (901, 950, True), (901, 5000, False), (1000, 5000, True)],
)
def test_naver_goes_as_far_as_its_largest_start(start: int, total: int, ends: bool) -> None:
    engine = load_engine("naver-api", HUB)
    body = as_json({"items": [{"link": "https://a.example/1.jpg"}], "start": start, "total": total, "display": 1})
    assert engine.is_last_page(API, body, engine.parse(API, body)) is ends


@pytest.mark.parametrize(
    ("name", "filters", "expected"),
    [
        ("openverse", {"size": "large", "orientation": "portrait"}, {"size": "large", "aspect_ratio": "tall"}),
        ("openverse", {"licence": "public-domain"}, {"license": "cc0,pdm"}),
        ("commons", {"size": "large", "type": "photo"}, {"gsrsearch": "fileres:>1000 filemime:image/jpeg"}),
        ("commons", {"licence": "commercial"}, {}),
        ("commons", {"licence": "public-domain"}, {"gsrsearch": "haswbstatement:P6216=Q19652"}),
        ("naver-api", {"size": "small"}, {"filter": "small"}),
        (
            "yandex-cloud",
            {"size": "huge", "type": "gif"},
            {"size": "IMAGE_SIZE_ENORMOUS", "format": "IMAGE_FORMAT_GIF"},
        ),
        ("baidu", {"size": "huge", "type": "gif"}, {"z": "9", "lm": "6"}),
        ("bing", {"size": "large", "type": "photo"}, {"qft": "+filterui:imagesize-large+filterui:photo-photo"}),
        ("yandex", {"size": "huge", "type": "gif"}, {"isize": "wallpaper", "itype": "gifan"}),
        ("naver", {}, {}),
    ],
)
def test_filters(name: str, filters: dict[str, str], expected: dict[str, str]) -> None:
    engine = load_engine(name, {})
    assert engine.filter_params(filters) == expected
    if engine.name != "yandex-cloud":  # its filters stand in the body
        url = engine.address("https://h.example", SearchRequest("keyword", "a", filters=filters), {}, 0)
        sent = parse_qs(urlsplit(url).query)
        assert all(value in " ".join(sent[key]) for key, value in expected.items())


@pytest.mark.parametrize(
    ("name", "filters", "sentence"),
    [
        ("naver", {"size": "large"}, "naver cannot filter by size 'large'; it has no filters."),
        ("baidu-graph", {"type": "photo"}, "baidu-graph cannot filter by type 'photo'; it has no filters."),
        ("baidu", {"licence": "cc"}, "baidu cannot filter by licence 'cc'; it filters by size and type."),
        ("naver-api", {"size": "huge"}, "naver-api cannot filter by size 'huge'; it knows small, medium, large."),
    ],
)
def test_a_filter_that_an_engine_lacks_is_refused_by_name(name: str, filters: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_engine(name, {}).filter_params(filters)
    assert str(caught.value) == sentence


def test_a_search_by_picture_takes_no_filters_silently() -> None:
    with pytest.raises(UsageError, match="yandex-cloud cannot filter a search by image; leave out --size"):
        load_engine("yandex-cloud", {}).filter_params({"size": "large"}, "image")


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_keeps_to_the_contract(name: str) -> None:
    engine = load_engine(name, {})
    assert engine.name == name and engine.kinds <= {"image", "keyword"} and engine.kinds
    assert all(host.startswith("https://") for host in engine.hosts)
    assert engine.interval > 0 and engine.terms.endswith(".")
    assert 1 <= engine.default_pages <= engine.most_pages
    assert engine.upload_limit > 0 or "image" not in engine.kinds
    for filter_name, values in engine.FILTERS.items():
        assert set(values) <= set(FILTER_VALUES[filter_name])
    for page in (0, 1):
        assert parser_for(name, engine.part(page)).name.startswith(f"{name}-")


@pytest.mark.parametrize(
    ("name", "environ", "missing"),
    [
        ("openverse", {}, ()),
        ("commons", {"GLEANER_CONTACT": "me@example.org"}, ()),
        ("yandex-cloud", {}, ("YANDEX_CLOUD_API_KEY", "YANDEX_CLOUD_FOLDER_ID")),
        ("yandex-cloud", {"YANDEX_CLOUD_API_KEY": "k"}, ("YANDEX_CLOUD_FOLDER_ID",)),
        ("yandex-cloud", CLOUD, ()),
        ("yandex-cloud", CLOUD | {"YANDEX_CLOUD_API_KEY": " \n"}, ("YANDEX_CLOUD_API_KEY",)),
        ("naver-api", {}, ("NAVER_HUB_KEY_ID", "NAVER_HUB_KEY")),
        ("naver-api", HUB, ()),
        ("naver-api", OLD, ()),
        ("naver-api", {"NAVER_CLIENT_ID": "x"}, ("NAVER_HUB_KEY_ID", "NAVER_HUB_KEY")),
    ],
)
def test_missing_keys_are_named(name: str, environ: dict[str, str], missing: tuple[str, ...]) -> None:
    engine = load_engine(name, environ)
    assert engine.missing_keys() == missing
    if missing:
        with pytest.raises(UsageError, match=" and ".join(missing)):
            engine.require_keys()
    else:
        engine.require_keys()


def test_names_are_known_without_any_engine() -> None:
    code = "import sys, lib.engines; print([m for m in sys.modules if m.startswith('lib.') or m == 'aiohttp'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "['lib.errors', 'lib.records', 'lib.engines']"
