"""The engine `yandex` without a network: what its answers mean, and the addresses that it asks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from yandex_answers import entity, page, serp_list, xhr

from lib.engines import NAMES
from lib.engines.base import PAGE, UPLOAD, XHR, Engine, PageResponse, SearchRequest, load_engine, retry_after
from lib.engines.yandex import Yandex, page_address, xhr_address
from lib.records import OUTCOMES, ParsedPage

SEARCH = "https://yandex.ru/images/search?cbir_id=1%2Fa&rpt=imageview&cbir_page=similar"
JSON = {"content-type": "application/json"}
SAMPLES = Path(__file__).parents[2] / "shared" / "samples"

RESULTS = page({"initialState": {"serpList": serp_list([entity(1), entity(2)])}})
NO_RESULTS = (
    page({"initialState": {"serpList": {"items": {"keys": [], "entities": {}}}}})
    + b'<div class="EmptySearchResults"><div class="EmptySearchResults-Title">Nothing</div></div>'
)
ABOUT = page({"initialState": {"cbirTags": {"tags": []}, "cbirOtherSizes": {}}})
REBUILT = page({"initialState": {"feed": {"cards": []}}})
# In the shape of the SmartCaptcha page recorded in 2026: status 200 at the very address that was asked for.
CAPTCHA = (
    b'<html lang="en"><head><title>Are you not a robot?</title></head><body><form method="POST"'
    b' action="/checkcaptcha?key=1&amp;retpath=x"><div class="CheckboxCaptcha" data-testid="checkbox-captcha"></div>'
    b'<span id="smartcaptcha-status"></span></form></body></html>'
)
CONSENT = "<html><form action=/agree><button type=submit class=b> <span>Разрешить все</span></button></form>".encode()
COOKIE_BAR = RESULTS + b"<button>Allow all</button>"
REGION = b"<html><body><h1>Yandex Images is under construction</h1></body></html>"
TITLED = page(
    {"initialState": {"serpList": serp_list([entity(1, alt='class="CheckboxCaptcha" Are you not a robot?')])}}
)
ABOUT_CAPTCHAS = xhr([entity(1, alt="captcha", origUrl="https://example.org/showcaptcha/checkcaptcha.jpg")])
ONE_BLOCK = json.dumps({"blocks": [{"params": {"adapterData": {"serpList": serp_list([entity(1)])}}}]}).encode()


def answer(part: str, body: bytes, status: int = 200, url: str = SEARCH, **headers: str) -> PageResponse:
    return PageResponse(part, url, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    ("given", "outcome", "detail"),
    [
        (answer(PAGE, RESULTS), "ok", ""),
        (answer(PAGE, COOKIE_BAR), "ok", ""),
        (answer(PAGE, TITLED), "ok", ""),
        (answer(PAGE, NO_RESULTS), "empty", ""),
        (answer(PAGE, ABOUT), "wrong_tab", ""),
        (answer(PAGE, REBUILT, url=SEARCH + "&tabInt=1"), "wrong_tab", ""),
        (answer(PAGE, REBUILT), "parse_error", "no_serp_list"),
        (answer(PAGE, b""), "parse_error", "no_serp_list"),
        (answer(PAGE, CAPTCHA), "captcha", ""),
        (answer(PAGE, b"<html></html>", url="https://yandex.ru/showcaptcha?retpath=x"), "captcha", ""),
        (answer(PAGE, RESULTS, x_yandex_captcha="captcha"), "captcha", ""),
        (answer(PAGE, CAPTCHA, status=429), "captcha", ""),
        (answer(PAGE, CONSENT), "consent", ""),
        (answer(PAGE, REGION), "region", "under_construction"),
        (answer(PAGE, b"<h1>403</h1>", status=403), "blocked", "http_403"),
        (answer(PAGE, b"", status=429, retry_after="5"), "blocked", "http_429"),
        (answer(PAGE, b"", status=503, retry_after="5"), "blocked", "http_503"),
        (answer(PAGE, b"", status=502), "network", "http_502"),
        (answer(PAGE, b"<h1>400</h1>", status=400), "parse_error", "http_400"),
        (answer(XHR, xhr([entity(1)])), "ok", ""),
        (answer(XHR, ONE_BLOCK), "ok", ""),
        (answer(XHR, ABOUT_CAPTCHAS), "ok", ""),
        (answer(XHR, b'{"error":"not found"}', status=404), "end", "http_404"),
        (answer(XHR, CAPTCHA), "captcha", ""),
        (answer(XHR, b'{"type":"captcha","captcha":{"captcha-page":"/showcaptcha"}}'), "captcha", ""),
        (answer(XHR, b"<html>Service is being updated</html>"), "blocked", "html_instead_of_json"),
        (answer(XHR, b"captain, nothing"), "parse_error", "not_json"),
        (answer(XHR, b'{"blocks":[]}'), "parse_error", "no_serp_list"),
        (answer(XHR, b'{"blocks":[{"params":{"adapterData":null}}]}'), "parse_error", "no_serp_list"),
        (answer(XHR, b'{"error":"bad"}', status=400), "parse_error", "http_400"),
        (answer(UPLOAD, b'{"blocks":[{"params":{"cbirId":"1/a"}}]}'), "ok", ""),
        (answer(UPLOAD, b'{"blocks":[{"params":{}}]}'), "upload_rejected", "no_id_in_the_answer"),
        (answer(UPLOAD, b"[]"), "upload_rejected", "no_id_in_the_answer"),
        (answer(UPLOAD, b"Incorrect avatar size", status=400), "upload_rejected", "http_400"),
        (answer(UPLOAD, b"", status=413), "upload_rejected", "http_413"),
        (answer(UPLOAD, REGION), "region", "under_construction"),
        (answer(UPLOAD, b"<html></html>"), "upload_rejected", "no_json"),
        (answer(UPLOAD, b"", status=403), "blocked", "http_403"),
    ],
)  # fmt: skip
def test_classify(given: PageResponse, outcome: str, detail: str) -> None:
    verdict = Yandex().classify(given)
    assert (verdict.outcome, verdict.detail) == (outcome, detail)
    assert outcome in OUTCOMES


if SAMPLES.is_dir():

    @pytest.mark.parametrize(
        ("name", "part", "outcome"),
        [
            ("yandex/smartcaptcha_page_2026-04.html", PAGE, "captcha"),
            ("yandex/smartcaptcha_page_2026-04.html", XHR, "captcha"),
            ("yandex/web_no_results_2026-04.html", PAGE, "empty"),
            ("inferred/yandex_page_data_state.SYNTHETIC.html", PAGE, "ok"),
            ("inferred/yandex_serplist_fetch.SYNTHETIC.json", XHR, "ok"),
        ],
    )
    def test_classify_recorded_answers(name: str, part: str, outcome: str) -> None:
        assert Yandex().classify(answer(part, (SAMPLES / name).read_bytes())).outcome == outcome


@pytest.mark.parametrize(
    ("body", "cbir_id", "image_url"),
    [
        (
            {"blocks": [{"params": {"cbirId": "12/ab", "originalImageUrl": "https://a.example/get-images-cbir/12/ab/orig"}}]},
            "12/ab", "https://a.example/get-images-cbir/12/ab/orig",
        ),
        # before August 2025: a query string
        (
            {"blocks": [{"params": {"url": "cbir_id=12%2Fab&rpt=imageview&url=https%3A%2F%2Fa.example%2Forig"}}]},
            "12/ab", "https://a.example/orig",
        ),
        # the app host: no blocks, and the address of a preview
        (
            {"cbir_id": "12/ab", "image_id": "ab", "url": "//a.example/get-images-cbir/12/ab/preview"},
            "12/ab", "https://a.example/get-images-cbir/12/ab/orig",
        ),
        ({"cbir_id": "12/ab"}, "12/ab", "https://avatars.mds.yandex.net/get-images-cbir/12/ab/orig"),
        ({"blocks": [None, {"params": None}, {"params": {"cbirId": 5}}]}, None, None),
        ({"blocks": None}, None, None),
        ([1], None, None),
    ],
)  # fmt: skip
def test_read_upload(body: object, cbir_id: str | None, image_url: str | None) -> None:
    found = Yandex().read_upload(answer(UPLOAD, json.dumps(body).encode()))
    assert (found.get("cbir_id"), found.get("image_url")) == (cbir_id, image_url)


def test_a_picture_page_is_always_asked_for_with_its_tab():
    cursor = {"cbir_id": "12/ab", "image_url": "https://a.example/get-images-cbir/12/ab/orig"}
    asked = parse_qs(urlsplit(page_address("https://yandex.com", SearchRequest("image"), cursor)).query)
    assert asked["cbir_page"] == ["similar"] and asked["cbir_id"] == ["12/ab"] and "tabInt" not in asked


def test_later_pages_carry_their_number_and_the_adapter_block():
    cursor = {"cbir_id": "12/ab", "image_url": "https://a.example/get-images-cbir/12/ab/orig"}
    link = xhr_address("https://yandex.ru", SearchRequest("image"), cursor, 3)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    blocks = json.loads(asked.pop("request"))["blocks"]
    assert blocks[1]["block"] == {"block": "i-react-ajax-adapter:ajax"}
    assert blocks[1]["params"]["ajaxKey"] == "serpList/fetch"
    assert asked == {
        "format": "json",
        "p": "3",
        "rpt": "imagelike",
        "serpListType": "horizontal",
        "cbir_id": "12/ab",
        "text": 'url:"a.example/get-images-cbir/12/ab/orig"',
        "url": "https://a.example/get-images-cbir/12/ab/orig",
    }


def test_keywords_are_sent_as_they_are():
    words = 'старый город & "quotes" #1'
    for link in (
        page_address("https://ya.ru", SearchRequest("keyword", words), {}),
        xhr_address("https://ya.ru", SearchRequest("keyword", words), {}, 1),
    ):
        asked = parse_qs(urlsplit(link).query)
        assert asked["text"] == [words]
    assert asked["rpt"] == ["image"] and asked["p"] == ["1"]


@pytest.mark.parametrize(
    ("part", "body", "next_url", "ends"),
    [
        (PAGE, RESULTS, "/images/search?p=1", False),
        (PAGE, RESULTS, "", True),
        (XHR, b'{"serpList":{"items":{},"navi":{}}}', "", True),
        (XHR, b'{"serpList":{"items":{}}}', "", False),  # without `navi` the answer does not say
        (XHR, b'{"serpList":{"navi":{"next":"/x"}}}', "/x", False),
    ],
)
def test_is_last_page(part: str, body: bytes, next_url: str, ends: bool) -> None:
    assert Yandex().is_last_page(part, body, ParsedPage((), next_url)) is ends


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Fri, 20 Nov 2026 10:01:00 GMT", 60),
        ("Fri, 20 Nov 2026 09:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("²", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
    assert retry_after({"retry-after": text}, now.timestamp()) == seconds


@pytest.mark.parametrize("host", ["https://yandex.com", "https://yandex.ru", "https://yandex.com.tr", "https://ya.ru"])
def test_all_its_hosts_are_known(host: str) -> None:
    assert Yandex().knows_host(host)


def test_foreign_hosts_are_not_its_own():
    for host in ("http://127.0.0.1:8080", "https://yandex.ru.example.com", "https://notyandex.ru"):
        assert not Yandex().knows_host(host)


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_keeps_the_contract(name: str) -> None:
    engine = load_engine(name)
    assert isinstance(engine, Engine) and engine.name == name
    assert engine.kinds and engine.kinds <= {"image", "keyword"}
    assert engine.hosts and engine.interval > 0 and engine.page_size > 0 and engine.terms
    assert 0 < engine.default_pages <= engine.most_pages
    assert "image" not in engine.kinds or engine.upload_limit > 0
    assert all(engine.part(number) in ("page", "xhr", "api") for number in range(3))
    assert all(header == header.lower() for header in engine.kept_headers)
