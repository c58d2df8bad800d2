"""The gallery speaks the protocols of the other engines, and what it says is what the parsers read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit
from xml.etree import ElementTree

import aiohttp
import pytest
from PIL import Image
from support import PATIENCE

from demo import running_gallery
from demo.alterations import encode
from demo.app import Gallery
from demo.baidu_graph import SIGN_SECONDS
from demo.baidu_records import enciphered
from demo.catalog import Picture
from demo.keys import (
    NAVER_ID,
    NAVER_SECRET,
    OPENVERSE_ID,
    OPENVERSE_SECRET,
    YANDEX_CLOUD_FOLDER,
    YANDEX_CLOUD_KEY,
)
from demo.queries import disturbed, query_scenes
from demo.scenes import full_size
from lib.engines import baidu, baidu_graph, bing, commons, naver, naver_api, openverse, yandex_cloud
from lib.records import ParsedPage, ParseError
from lib.web.find_browser import find_browser, launch_arguments

WORDS = "photo drawing"  # found in every picture
NOTHING = "zebra-xylophone"
RESULTS = 130
AGENT = {"User-Agent": "gallery-test/1 (https://gallery.example; tests@gallery.example)"}
OLD = {"X-Naver-Client-Id": NAVER_ID, "X-Naver-Client-Secret": NAVER_SECRET}
HUB = {"X-NCP-APIGW-API-KEY-ID": NAVER_ID, "X-NCP-APIGW-API-KEY": NAVER_SECRET}
CLOUD = {"Authorization": f"Api-Key {YANDEX_CLOUD_KEY}"}


@pytest.fixture(scope="module")
def shared():
    with running_gallery(pictures=140, page_size=40, results=RESULTS) as gallery:
        yield gallery


@pytest.fixture
def gallery(shared):
    shared.clear_faults()
    shared.site.board.asked.clear()
    shared.site.board.served.clear()
    yield shared
    shared.clear_faults()


@dataclass
class Answer:
    """What a request brought: the last status, address, headers and body."""

    status: int
    url: str
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Call:
    """One request."""

    path: str
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    payload: dict[str, Any] | None = None
    form: bytes = b""


def ask(gallery: Gallery, *calls: Call, seconds: float = PATIENCE) -> Answer:
    """The answer to the last of the calls, all made with one jar of cookies."""

    async def talk() -> Answer:
        jar, timeout = aiohttp.CookieJar(unsafe=True), aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session:
            return [await _send(session, gallery, call) for call in calls][-1]

    return asyncio.run(talk())


async def _send(session: aiohttp.ClientSession, gallery: Gallery, call: Call) -> Answer:
    method, more = "GET", {}
    if call.payload is not None:
        method, more = "POST", {"json": call.payload}
    if call.form:
        form = aiohttp.FormData()
        form.add_field("tn", "pc")
        form.add_field("image", call.form, filename="query.jpg", content_type="image/jpeg")
        method, more = "POST", {"data": form}
    address = urljoin(gallery.url, call.path)
    headers = AGENT | call.headers
    async with session.request(method, address, params=call.params, headers=headers, **more) as response:
        return Answer(response.status, str(response.url), response.headers, await response.read())


def query_picture(gallery: Gallery) -> bytes:
    _, scene, _ = query_scenes(gallery.site.pictures)[0]
    return encode(disturbed(full_size(scene)), "jpeg", 80)


def baidu_call(page: int, words: str = WORDS, **more: str) -> Call:
    return Call(
        "/search/acjson",
        {"tn": "resultjson_com", "word": words, "queryWord": words, "pn": str(30 * page), "rn": "30", **more},
        {"Referer": "https://image.baidu.com/search/index?tn=baiduimage"},
    )


def naver_call(page: int, words: str = WORDS) -> Call:
    return Call("/search.naver", {"where": "image", "query": words, "start": str(50 * page + 1)})


def old_api_call(page: int, words: str = WORDS, **more: str) -> Call:
    asked = {"query": words, "display": "50", "start": str(50 * page + 1), **more}
    return Call("/v1/search/image", asked, OLD)


def hub_api_call(page: int, words: str = WORDS, **more: str) -> Call:
    return Call("/search/v1/image", old_api_call(page, words, **more).params, HUB)


def bing_call(page: int, words: str = WORDS, **more: str) -> Call:
    asked = {"q": words, "async": "1", "first": str(1 + 35 * page), "count": "35", **more}
    return Call("/images/async", asked)


def openverse_call(page: int, words: str = WORDS, **more: str) -> Call:
    return Call("/v1/images/", {"q": words, "page": str(page + 1), "page_size": "20", **more})


def commons_call(page: int, words: str = WORDS, version: str = "2", **more: str) -> Call:
    asked = {
        "action": "query", "format": "json", "formatversion": version, "generator": "search", "gsrnamespace": "6",
        "gsrsearch": f"filetype:bitmap {words}", "gsrlimit": "50", "gsroffset": str(50 * page),
        "prop": "info|imageinfo", "inprop": "url", "iiurlwidth": "640",
        "iiprop": "url|size|mime|sha1|extmetadata|timestamp|user|mediatype", **more,
    }  # fmt: skip
    return Call("/w/api.php", asked)


def old_commons_call(page: int, words: str = WORDS) -> Call:
    return commons_call(page, words, "1")


def cloud_call(page: int, words: str = WORDS, **more: Any) -> Call:
    query = {"searchType": "SEARCH_TYPE_COM", "queryText": words, "page": str(page)}
    payload = {"query": query, "docsOnPage": "50", "folderId": YANDEX_CLOUD_FOLDER, **more}
    return Call("/v2/image/search", {}, CLOUD, payload)


def by_image_call(page: int, **given: str) -> Call:
    payload = {"folderId": YANDEX_CLOUD_FOLDER, "page": page, **given}
    return Call("/v2/image/search_by_image", {}, CLOUD, payload)


Make = Callable[..., Call]
Parse = Callable[[bytes], ParsedPage]
WARM = Call("/")
# Name in the counters, the request for a page of words, the parser, pages with results.
KEYWORD: dict[str, tuple[str, Make, Parse, int]] = {
    "baidu": ("baidu/xhr", baidu_call, baidu.parse_acjson, 5),
    "naver": ("naver/page", naver_call, naver.parse_page, 3),
    "naver-api, old": ("naver-api/api", old_api_call, naver_api.parse_api, 3),
    "naver-api, hub": ("naver-api/api", hub_api_call, naver_api.parse_api, 3),
    "bing": ("bing/page", bing_call, bing.parse_page, 4),
    "openverse": ("openverse/api", openverse_call, openverse.parse_api, 7),
    "commons": ("commons/api", commons_call, commons.parse_api, 3),
    "commons, version 1": ("commons/api", old_commons_call, commons.parse_api, 3),
    "yandex-cloud": ("yandex-cloud/api", cloud_call, yandex_cloud.parse_api, 3),
}


def originals(parsed: ParsedPage) -> list[str]:
    return [variant.url for image in parsed.images for variant in image.variants if variant.kind == "original"]


def expected(gallery: Gallery, words: str = WORDS) -> list[Picture]:
    return gallery.site.by_words(words, {})


@pytest.mark.parametrize("name", KEYWORD)
def test_the_pages_of_a_keyword_join_without_overlap_or_loss(gallery, name):
    route, make, parse, count = KEYWORD[name]
    links = []
    for page in range(count):
        parsed = parse(ask(gallery, WARM, make(page)).body)
        links += originals(parsed)
        assert len(originals(parsed)) == len(parsed.images), "every picture has its original's address"
    assert links == [gallery.site.link(picture.original) for picture in expected(gallery)]
    pages = {key: n for key, n in gallery.counters["served"].items() if key.startswith(route)}
    assert pages == {f"{route} text:photo+drawing p={page}": 1 for page in range(count)}


ENDS: list[tuple[str, int, Callable[[Answer, ParsedPage, ParsedPage], bool]]] = [
    ("baidu", 5, lambda answer, parsed, last: parsed.images and {i.engine_id for i in parsed.images} == _ids(last)),
    ("baidu", 6, lambda answer, parsed, last: b'"data":[{}]' in answer.body and not parsed.images),
    ("naver", 3, lambda answer, parsed, last: not parsed.images and b"imageSearchTabData" in answer.body),
    ("naver-api, old", 3, lambda answer, parsed, last: answer.json["items"] == [] and not last.next_url),
    ("bing", 4, lambda answer, parsed, last: _ids(parsed) == _ids(last)),
    ("bing", 9, lambda answer, parsed, last: _ids(parsed) == _ids(last)),
    ("openverse", 7, lambda answer, parsed, last: answer.json["results"] == [] and not last.next_url),
    ("commons", 3, lambda answer, parsed, last: "query" not in answer.json and not last.next_url),
    ("yandex-cloud", 3, lambda answer, parsed, last: not parsed.images and 'code="15"' in _xml(answer)),
]


def _ids(parsed: ParsedPage) -> set[str]:
    return {image.engine_id for image in parsed.images}


def _xml(answer: Answer) -> str:
    return base64.b64decode(answer.json["rawData"]).decode()


@pytest.mark.parametrize(("name", "page", "ended"), ENDS, ids=[f"{name} {page}" for name, page, _ in ENDS])
def test_the_end_of_each_engine(gallery, name, page, ended):
    _, make, parse, count = KEYWORD[name]
    last = parse(ask(gallery, WARM, make(count - 1)).body)
    answer = ask(gallery, WARM, make(page))
    assert answer.status == 200
    assert ended(answer, parse(answer.body), last)


@pytest.mark.parametrize("name", KEYWORD)
def test_nothing_found_is_an_honest_answer(gallery, name):
    _, make, parse, _ = KEYWORD[name]
    answer = ask(gallery, WARM, make(0, NOTHING))
    parsed = parse(answer.body)
    assert (answer.status, parsed.images, parsed.next_url) == (200, (), "")


@pytest.mark.parametrize("name", KEYWORD)
def test_an_original_can_be_fetched(gallery, name):
    _, make, parse, _ = KEYWORD[name]
    links = originals(parse(ask(gallery, WARM, make(0)).body))
    sound = [p for p, link in zip(expected(gallery), links, strict=False) if not p.trouble]
    picture = sound[0]
    body = ask(gallery, Call(gallery.site.link(picture.original))).body
    with Image.open(io.BytesIO(body)) as image:
        assert sorted(image.size) == sorted(picture.size)


@pytest.mark.parametrize("name", ["baidu", "naver", "naver-api, old", "bing", "openverse", "commons", "yandex-cloud"])
def test_thumbnails_are_served(gallery, name):
    _, make, parse, _ = KEYWORD[name]
    kinds = ("preview",) if name == "commons" else ("thumb",)
    parsed = parse(ask(gallery, WARM, make(0)).body)
    links = [v.url for image in parsed.images[:4] for v in image.variants if v.kind in kinds]
    assert len(links) >= 4
    for link in links:
        assert ask(gallery, Call(link)).body.startswith(b"\xff\xd8"), link


def test_baidu_forbids_those_without_its_cookie(gallery):
    answer = ask(gallery, baidu_call(0))
    assert answer.status == 200
    assert answer.json["antiFlag"] == 1
    with pytest.raises(ParseError, match="blocked"):
        baidu.parse_acjson(answer.body)
    assert gallery.counters["asked"]["baidu/xhr text:photo+drawing p=0"] == 1
    assert "baidu/xhr text:photo+drawing p=0" not in gallery.counters["served"]
    assert "页面不存在" in ask(gallery, WARM, baidu_call(0, tn="baiduimage")).text


def test_baidu_mixes_three_kinds_of_address(gallery):
    text = "".join(ask(gallery, WARM, baidu_call(page)).text for page in range(5))
    kinds = re.findall(r'"objURL":"(ippr_z2C\$q|https://gimg2\.baidu\.com/image_search/src=|http://127)', text)
    assert set(kinds) == {"ippr_z2C$q", "https://gimg2.baidu.com/image_search/src=", "http://127"}
    assert "\\'" in text, "apostrophes are escaped, which JSON does not allow"
    assert "\t" in text, "a tab within a string"
    assert text.count('"adType":"1"') == 5
    assert '"replaceUrl":[{"ObjURL"' in text


@pytest.mark.parametrize("address", ["http://127.0.0.1:40587/img/A-9_x?v=3", "https://photos.harbour.example/p/11"])
def test_addresses_are_enciphered_as_the_parser_deciphers(address):
    assert enciphered(address).startswith(("ippr_z2C$q", "ipprf_z2C$q"))
    assert baidu.decode_address(enciphered(address)) == address


def test_the_older_page_of_baidu_has_the_same_pictures(gallery):
    page = ask(gallery, Call("/search/flip", {"tn": "baiduimage", "word": WORDS, "pn": "0"}))
    assert baidu.parse_page(page.body).images == baidu.parse_acjson(ask(gallery, WARM, baidu_call(0)).body).images


def test_naver_writes_a_literal_and_places_advertisements(gallery):
    answer = ask(gallery, naver_call(0))
    literal = naver.find_literal(answer.body)
    assert literal is not None
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(literal)
    items = json.loads(naver.to_json(literal.decode()))["content"]["items"]
    assert [place for place, item in enumerate(items, 1) if item["type"] == "shopAd"] == [11, 35]
    assert (len(items), naver.parse_page(answer.body).skipped) == (50, 2)
    wrapped = [item for item in items if not item.get("originalUrl") and item["type"] == "image"]
    assert wrapped, "some have their original's address in the proxy's only"
    assert all(item["viewerThumb"].startswith("https://search.pstatic.net/common/?src=http%3A") for item in wrapped)


def test_bing_says_sizes_beside_its_tiles(gallery):
    parsed = bing.parse_page(ask(gallery, bing_call(0)).body)
    assert len(parsed.images) == 35
    assert [(image.width, image.height) for image in parsed.images] == [p.claimed for p in expected(gallery)[:35]]


def test_open_collections_name_licence_creator_and_attribution(gallery):
    found = [openverse.parse_api(ask(gallery, openverse_call(page)).body) for page in range(2)]
    pictures = [image for parsed in found for image in parsed.images]
    assert {"CC BY 4.0", "CC0 1.0", "CC BY-SA 4.0", "Public Domain Mark 1.0"} <= {image.license for image in pictures}
    assert len({image.creator for image in pictures}) > 3
    assert all(image.license in image.attribution or "Public" in image.license or "CC0" in image.license
               for image in pictures)  # fmt: skip
    files = commons.parse_api(ask(gallery, commons_call(0)).body).images
    assert {"CC BY 4.0", "CC0", "CC BY-SA 4.0", "Public domain"} <= {image.license for image in files}
    assert any(image.creator_url.startswith("https://commons.wikimedia.org/wiki/User:") for image in files)
    assert {uuid.UUID(image.engine_id).hex for image in pictures} == {p.id for p in expected(gallery)[:40]}


def test_commons_tells_true_checksums(gallery):
    files = commons.parse_api(ask(gallery, commons_call(0)).body).images
    picture, image = next((p, i) for p, i in zip(expected(gallery), files, strict=False) if not p.trouble)
    body = ask(gallery, Call(gallery.site.link(picture.original))).body
    assert (image.extra["sha1"], image.bytes) == (hashlib.sha1(body).hexdigest(), len(body))


def test_commons_speaks_both_versions(gallery):
    first, second = (ask(gallery, commons_call(0, version=version)).json for version in ("1", "2"))
    assert isinstance(first["query"]["pages"], dict)
    assert isinstance(second["query"]["pages"], list)
    assert (first["batchcomplete"], second["batchcomplete"]) == ("", True)
    assert first["continue"] == {"gsroffset": 50, "continue": "gsroffset||"}


def test_the_naver_api_also_speaks_xml(gallery):
    as_json = naver_api.parse_api(ask(gallery, old_api_call(0)).body)
    hub = naver_api.parse_api(ask(gallery, hub_api_call(0, format="xml")).body)
    old = Call("/v1/search/image.xml", old_api_call(0).params, OLD)
    assert originals(naver_api.parse_api(ask(gallery, old).body)) == originals(hub) == originals(as_json)


def test_a_registered_client_of_openverse_may_ask_for_more(gallery):
    async def sign_in() -> dict[str, Any]:
        data = {"client_id": OPENVERSE_ID, "client_secret": OPENVERSE_SECRET, "grant_type": "client_credentials"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(gallery.url + "/v1/auth_tokens/token/", data=data) as response,
        ):
            return await response.json()

    token = asyncio.run(sign_in())
    call = openverse_call(0, page_size="100")
    signed = Call(call.path, call.params, {"Authorization": f"{token['token_type']} {token['access_token']}"})
    assert len(ask(gallery, signed).json["results"]) == 100


FILTERS: list[tuple[str, Call, Callable[[Picture], bool]]] = [
    ("baidu", baidu_call(0, z="1"), lambda p: p.size[0] * p.size[1] < 150_000),
    ("bing", bing_call(0, qft="+filterui:aspect-tall+filterui:photo-photo"), lambda p: p.size[1] > p.size[0]),
    ("naver-api, old", old_api_call(0, filter="large"), lambda p: p.size[0] * p.size[1] >= 1_000_000),
    ("openverse", openverse_call(0, aspect_ratio="wide"), lambda p: p.size[0] > p.size[1]),
    ("openverse", openverse_call(0, license="cc0,pdm"), lambda p: p.scene.number % 6 in (1, 3)),
    ("baidu", baidu_call(0, lm="6"), lambda p: p.alteration.encoding.startswith("gif")),
    ("commons", commons_call(0, "filemime:image/png " + WORDS), lambda p: p.alteration.encoding.startswith("png")),
    ("commons", commons_call(0, "fileres:500,1000 " + WORDS), lambda p: 250_000 <= p.size[0] * p.size[1] <= 1_000_000),
    ("commons", commons_call(0, "fileres:<500 " + WORDS), lambda p: p.size[0] * p.size[1] < 250_000),
    ("commons", commons_call(0, "haswbstatement:P6216=Q19652 " + WORDS), lambda p: p.scene.number % 6 in (1, 3)),
    ("openverse", openverse_call(0, extension="gif"), lambda p: p.alteration.encoding.startswith("gif")),
    ("yandex-cloud", cloud_call(0, imageSpec={"orientation": "IMAGE_ORIENTATION_VERTICAL"}),
     lambda p: p.size[1] > p.size[0]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "check"), FILTERS, ids=[f"{f[0]} {i}" for i, f in enumerate(FILTERS)])
def test_filters(gallery, name, call, check):
    by_link = {gallery.site.link(picture.original): picture for picture in gallery.site.pictures}
    found = [by_link[link] for link in originals(KEYWORD[name][2](ask(gallery, WARM, call).body))]
    assert found, "something passes"
    assert all(check(picture) for picture in found)


def test_cloud_pages_by_id_join_and_end(gallery):
    first = ask(gallery, by_image_call(0, data=base64.b64encode(query_picture(gallery)).decode()))
    answers, mark = [first], first.json["id"]
    while answers[-1].json.get("images"):
        answers.append(ask(gallery, by_image_call(len(answers), id=mark)))
    parsed = [yandex_cloud.parse_api(answer.body) for answer in answers]
    ranking = gallery.site.by_upload(mark, {})
    assert [link for page in parsed for link in originals(page)] == [gallery.site.link(p.original) for p in ranking]
    assert [len(page.images) for page in parsed] == [40, 40, 40, 10, 0]
    assert (parsed[-1].next_url, "images" in answers[-1].json) == ("", False)
    image = first.json["images"][0]
    assert isinstance(image["width"], str)
    assert image["format"].startswith("IMAGE_FORMAT_")
    assert {n for k, n in gallery.counters["asked"].items() if k.startswith("yandex-cloud")} == {1}


def graph_upload(gallery: Gallery) -> Answer:
    return ask(gallery, Call("/upload", {"uptime": "1700000000000"}, {"Acs-Token": ""}, form=query_picture(gallery)))


def test_graph_leads_from_upload_to_cards_to_pages(gallery):
    upload = graph_upload(gallery).json
    assert (upload["status"], upload["data"]["sign"][-10:].isdigit()) == (0, True)
    cards = baidu_graph.parse_page(ask(gallery, Call(upload["data"]["url"])).body)
    pages, page = [cards], 1
    while pages[-1].images:
        pages.append(baidu_graph.parse_api(ask(gallery, Call(cards.next_url + f"&page={page}")).body))
        page += 1
    found = [image for parsed in pages for image in parsed.images]
    assert (len(found), len({image.engine_id for image in found})) == (RESULTS, RESULTS)
    assert all(image.extra["thumbnail_only"] for image in found)
    assert ask(gallery, Call(found[0].variants[0].url)).body.startswith(b"\xff\xd8")
    first = {image.engine_id for image in cards.images}
    best = gallery.site.by_upload(next(iter(gallery.site.uploads)), {})[0]
    assert len(first) == sum(picture.scene == best.scene for picture in gallery.site.pictures), (
        "copies are exact matches"
    )
    assert {n for k, n in gallery.counters["served"].items() if k.startswith("baidu-graph")} == {1}


def test_graph_sessions_expire(gallery):
    url = graph_upload(gallery).json["data"]["url"]
    sign = parse_qs(urlsplit(url).query)["sign"][0]
    old = sign[:-10] + f"{int(time.time()) - SIGN_SECONDS - 5:010d}"
    assert ask(gallery, Call(url)).status == 200
    first = baidu_graph.parse_page(ask(gallery, Call(url)).body).next_url
    for wrong in (url.replace(sign, old), first.replace(sign, old), url.replace("session_id=", "session_id=9")):
        assert ask(gallery, Call(wrong)).json["status"] == 1
    gallery.set_fault("expired@baidu-graph/api:2x1")
    gallery.set_fault("expired=403@baidu-graph/api:2x1")
    answers = [ask(gallery, Call(f"{first}&page={page}")) for page in (1, 2, 2, 2)]
    assert [(answer.status, answer.json["status"]) for answer in answers] == [(200, 0), (200, 1), (403, 1), (200, 0)]


def test_the_mobile_pages_of_graph_can_be_read(gallery):
    asked = parse_qs(urlsplit(graph_upload(gallery).json["data"]["url"]).query)
    params = {"session_id": asked["session_id"][0], "sign": asked["sign"][0], "page": "1", "page_size": "50"}
    parsed = baidu_graph.parse_api(ask(gallery, Call("/ajax/similardetailnew", params)).body)
    assert len(parsed.images) == 50
    assert all(image.page_url and image.snippet for image in parsed.images)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("upload_rejected", lambda answer: answer.json["status"] == 1),
        ("upload_rejected=soft", lambda answer: "/errpage?pron=pcupload" in answer.json["data"]["url"]),
        ("429=9@baidu-graph/upload", lambda answer: (answer.status, answer.headers["Retry-After"]) == (429, "9")),
    ],
)
def test_rejected_uploads(gallery, fault, check):
    gallery.set_fault(fault)
    assert check(graph_upload(gallery))
    bad = ask(gallery, Call("/upload", form=b"<html>no picture</html>")) if fault == "upload_rejected" else None
    assert bad is None or bad.json["status"] == 1


def test_cloud_may_reject_a_picture(gallery):
    gallery.set_fault("upload_rejected")
    answer = ask(gallery, by_image_call(0, data=base64.b64encode(query_picture(gallery)).decode()))
    assert (answer.status, answer.json["code"]) == (400, 3)


REFUSALS: list[tuple[str, Call, int, Any]] = [
    ("no key", Call("/v2/image/search", {}, {}, cloud_call(0).payload), 401, {"code": 16}),
    ("wrong key", Call("/v2/image/search", {}, {"Authorization": "Api-Key"}, cloud_call(0).payload), 401, {"code": 16}),
    ("other folder", cloud_call(0, folderId="mine"), 403, {"code": 7}),
    ("no words", cloud_call(0, ""), 400, {"code": 3}),
    ("many words", cloud_call(0, "w" * 401), 400, {"code": 3}),
    ("many documents", cloud_call(0, docsOnPage=101), 400, {"code": 3}),
    ("no picture", by_image_call(0), 400, {"code": 3}),
    ("not base64", by_image_call(0, data="?"), 400, {"code": 3}),
    ("large", by_image_call(0, data=base64.b64encode(bytes(3_145_729)).decode()), 400, {"code": 3}),
    ("unknown id", by_image_call(1, id="1/2"), 400, {"code": 3}),
    ("old, no key", Call("/v1/search/image", old_api_call(0).params), 401, {"errorCode": "024"}),
    ("old, hub's headers", Call("/v1/search/image", old_api_call(0).params, HUB), 401, {"errorCode": "024"}),
    ("hub, old headers", Call("/search/v1/image", old_api_call(0).params, OLD), 401, {"errorCode": "024"}),
    ("no query", old_api_call(0, ""), 400, {"errorCode": "SE01"}),
    ("display", old_api_call(0, display="101"), 400, {"errorCode": "SE02"}),
    ("start", old_api_call(20), 400, {"errorCode": "SE03"}),
    ("sort", hub_api_call(0, sort="best"), 400, {"errorCode": "SE04"}),
    ("page_size", openverse_call(0, page_size="21"), 401, {}),
    ("token", Call("/v1/images/", {"q": "x"}, {"Authorization": "Bearer x"}), 401, {"detail": "Invalid token."}),
    ("depth", openverse_call(20), 400, {"error": "InputError", "fields": ["page"]}),
    ("licence", openverse_call(0, license="mine"), 400, {"error": "InputError", "fields": ["license"]}),
    ("agent", Call("/w/api.php", commons_call(0).params, {"User-Agent": "Python/3"}), 403, None),
    ("gsrsearch", commons_call(0, ""), 200, {}),
    ("action", commons_call(0, action="edit"), 200, {}),
]  # fmt: skip


@pytest.mark.parametrize(("call", "status", "said"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_requests_that_the_real_services_refuse(gallery, call, status, said):
    answer = ask(gallery, call)
    assert answer.status == status
    assert said is None or answer.json.items() >= said.items()
    assert not any(key.split("/")[0] != "baidu" for key in gallery.counters["served"]), "a refusal is not served"
    if status == 200:
        assert answer.json["error"]["code"] == answer.headers["MediaWiki-API-Error"]


def refused(parse: Parse, reason: str) -> Callable[[Answer], bool]:
    """A check that the parser gives up for this reason."""

    def check(answer: Answer) -> bool:
        with pytest.raises(ParseError) as caught:
            parse(answer.body)
        assert str(caught.value).startswith(reason), caught.value
        return True

    return check


def drifted(parse: Parse, unknown: str, missing: str) -> Callable[[Answer], bool]:
    def check(answer: Answer) -> bool:
        drift = parse(answer.body).drift
        return unknown in drift["unknown"] and (not missing or missing in drift["missing"])

    return check


def halved(parse: Parse) -> Callable[[Answer], bool]:
    return lambda answer: parse(answer.body).drift["empty_originals"] >= 0.4


def nothing(parse: Parse) -> Callable[[Answer], bool]:
    return lambda answer: answer.status == 200 and parse(answer.body).images == ()


def status(number: int, wait: str = "") -> Callable[[Answer], bool]:
    return lambda answer: (answer.status, answer.headers.get("Retry-After", "")) == (number, wait)


BAIDU, NAVER, NAPI, BING = baidu.parse_acjson, naver.parse_page, naver_api.parse_api, bing.parse_page
OPEN, WIKI, YC = openverse.parse_api, commons.parse_api, yandex_cloud.parse_api
FAULTS: list[tuple[str, str, Callable[[Answer], bool]]] = [
    ("baidu", "captcha", lambda a: "/static/captcha/" in a.url and refused(BAIDU, "captcha")(a)),
    ("baidu", "captcha_page", lambda a: a.url.count("/search/acjson") == 1 and refused(BAIDU, "captcha")(a)),
    ("baidu", "blocked", refused(BAIDU, "blocked")),
    ("baidu", "blocked=403", status(403)),
    ("baidu", "429=7", status(429, "7")),
    ("baidu", "empty", nothing(BAIDU)),
    ("baidu", "changed_shape", refused(BAIDU, "no_data")),
    ("baidu", "drift", drifted(BAIDU, "item.aiBadge", "")),
    ("baidu", "nulls", halved(BAIDU)),
    ("baidu", "not_json", refused(BAIDU, "not_json")),
    ("naver", "captcha", lambda a: a.status == 200 and b"captcha" in a.body and refused(NAVER, "no_state")(a)),
    ("naver", "blocked", status(403)),
    ("naver", "429=7", status(429, "7")),
    ("naver", "consent", lambda a: "Allow all" in a.text),
    ("naver", "empty", lambda a: b"not_found02" in a.body and nothing(NAVER)(a)),
    ("naver", "changed_shape", refused(NAVER, "no_state")),
    ("naver", "drift", drifted(NAVER, "item.aiBadge", "item.link")),
    ("naver", "nulls", halved(NAVER)),
    ("naver", "not_json", refused(NAVER, "no_state")),
    ("naver", "scripted", refused(NAVER, "no_state")),
    ("naver", "crash", lambda a: '"x".repeat(' in a.text),
    ("bing", "captcha", refused(BING, "captcha")),
    ("bing", "blocked", status(403)),
    ("bing", "503", status(503, "2")),
    ("bing", "consent", lambda a: "Allow all" in a.text),
    ("bing", "empty", nothing(BING)),
    ("bing", "changed_shape", refused(BING, "no_state")),
    ("bing", "drift", drifted(BING, "m.aiBadge", "m.turl")),
    ("bing", "nulls", halved(BING)),
    ("bing", "not_json", refused(BING, "no_state")),
    ("bing", "crash", lambda a: '"x".repeat(' in a.text),
    ("naver-api, old", "429=7", lambda a: status(429, "7")(a) and refused(NAPI, "refused: 012")(a)),
    ("naver-api, hub", "blocked", lambda a: a.status == 403 and "errorCode" in a.json),
    ("naver-api, old", "empty", nothing(NAPI)),
    ("naver-api, old", "changed_shape", refused(NAPI, "no_data")),
    ("naver-api, old", "drift", drifted(NAPI, "item.aiBadge", "item.sizeheight")),
    ("naver-api, old", "not_json", refused(NAPI, "")),
    ("openverse", "429=7", lambda a: status(429, "7")(a) and refused(OPEN, "refused: Request was throttled")(a)),
    ("openverse", "blocked", lambda a: a.status == 403 and "permission" in a.json["detail"]),
    ("openverse", "empty", nothing(OPEN)),
    ("openverse", "changed_shape", refused(OPEN, "no_data")),
    ("openverse", "drift", drifted(OPEN, "result.aiBadge", "result.creator")),
    ("openverse", "nulls", halved(OPEN)),
    ("openverse", "not_json", refused(OPEN, "not_json")),
    ("commons", "429=7", lambda a: status(429, "7")(a) and refused(WIKI, "refused: ratelimited")(a)),
    ("commons", "lagged", lambda a: status(200, "5")(a) and refused(WIKI, "refused: maxlag")(a)),
    ("commons", "blocked", status(403)),
    ("commons", "empty", nothing(WIKI)),
    ("commons", "changed_shape", lambda a: "feed" in a.json["query"]),
    ("commons", "drift", drifted(WIKI, "page.aiBadge", "")),
    ("commons", "not_json", refused(WIKI, "not_json")),
    ("yandex-cloud", "429=7", lambda a: status(429, "7")(a) and a.json["code"] == 8),
    ("yandex-cloud", "blocked", lambda a: a.status == 403 and refused(YC, "refused: Permission denied")(a)),
    ("yandex-cloud", "empty", lambda a: 'code="15"' in _xml(a) and nothing(YC)(a)),
    ("yandex-cloud", "changed_shape", lambda a: ElementTree.fromstring(_xml(a).encode()).find(".//feed") is not None),
    ("yandex-cloud", "drift", lambda a: "<aiBadge>none</aiBadge>" in _xml(a) and "<modtime>" not in _xml(a)),
    ("yandex-cloud", "not_json", refused(YC, "not_json")),
]


@pytest.mark.parametrize(("name", "fault", "shows"), FAULTS, ids=[f"{name} {fault}" for name, fault, _ in FAULTS])
def test_faults_show_in_each_engines_own_form_and_pass(gallery, name, fault, shows):
    route, make, parse, _ = KEYWORD[name]
    engine = route.partition("/")[0]
    gallery.set_fault(f"{fault}@{engine}/:1x1")
    assert len(parse(ask(gallery, WARM, make(0)).body).images) >= 20, "another page is not struck"
    assert shows(ask(gallery, WARM, make(1)))
    assert len(parse(ask(gallery, WARM, make(1)).body).images) >= 20, "it was for once"


GRAPH_FAULTS: list[tuple[str, str, Callable[[Answer], bool]]] = [
    ("captcha", "page", lambda a: "/static/captcha/" in a.url and refused(baidu_graph.parse_page, "captcha")(a)),
    ("captcha_page", "api", refused(baidu_graph.parse_page, "captcha")),
    ("blocked", "api", status(403)),
    ("429=7", "api", status(429, "7")),
    ("consent", "page", lambda a: "Allow all" in a.text),
    ("crash", "page", lambda a: '"x".repeat(' in a.text),
    ("empty", "page", lambda a: "noresult" in a.text and not baidu_graph.parse_page(a.body).next_url),
    ("empty", "api", nothing(baidu_graph.parse_api)),
    ("changed_shape", "page", nothing(baidu_graph.parse_page)),
    ("changed_shape", "api", refused(baidu_graph.parse_api, "no_data")),
    ("drift", "page", drifted(baidu_graph.parse_page, "item.aiBadge", "")),
    ("drift", "api", drifted(baidu_graph.parse_api, "item.aiBadge", "item.thumbUrl")),
    ("not_json", "page", refused(baidu_graph.parse_page, "no_state")),
    ("not_json", "api", refused(baidu_graph.parse_api, "not_json")),
]


@pytest.mark.parametrize(
    ("fault", "route", "shows"), GRAPH_FAULTS, ids=[f"{fault} {route}" for fault, route, _ in GRAPH_FAULTS]
)
def test_faults_of_graph(gallery, fault, route, shows):
    url = graph_upload(gallery).json["data"]["url"]
    first = baidu_graph.parse_page(ask(gallery, Call(url)).body).next_url + "&page=1"
    parse, call = {"page": (baidu_graph.parse_page, Call(url)), "api": (baidu_graph.parse_api, Call(first))}[route]
    gallery.set_fault(f"{fault}@baidu-graph/{route}x1")
    assert shows(ask(gallery, call))
    assert parse(ask(gallery, call).body).images


@pytest.mark.parametrize("name", ["baidu", "naver", "naver-api, old", "bing", "openverse", "commons", "yandex-cloud"])
@pytest.mark.parametrize(
    ("fault", "seconds", "error"),
    [
        ("hang", 0.7, asyncio.TimeoutError),
        ("disconnect", PATIENCE, aiohttp.ServerDisconnectedError),
        ("truncated", PATIENCE, aiohttp.ClientPayloadError),
    ],
)
def test_faults_of_the_connection(gallery, name, fault, seconds, error):
    route, make, _, _ = KEYWORD[name]
    gallery.set_fault(f"{fault}@{route}:1")
    with pytest.raises(error):
        ask(gallery, WARM, make(1), seconds=seconds)


def test_a_slow_answer_is_honest(gallery):
    gallery.set_fault("slow=0.1@bing/")
    assert bing.parse_page(ask(gallery, bing_call(0)).body).images


def test_the_last_start_of_the_naver_api_is_a_page_of_its_own(gallery):
    for start in ("901", "1000"):
        ask(gallery, Call("/v1/search/image", {"query": WORDS, "display": "100", "start": start}, OLD))
    assert {key.rpartition(" ")[2] for key in gallery.counters["asked"]} == {"p=9", "p=10"}


@pytest.mark.parametrize(("name", "button"), [("baidu", "passMod"), ("naver", "captcha"), ("bing", "captcha")])
def test_a_person_can_pass(gallery, name, button):
    _, make, parse, _ = KEYWORD[name]
    gallery.set_fault("captcha")
    page = ask(gallery, WARM, make(0)).text
    assert button in page
    action = re.search(r'method="POST" action="([^"]+)"', page)
    assert action is not None
    passed = ask(gallery, WARM, Call(action[1].replace("&amp;", "&"), payload={}), make(0))
    assert parse(passed.body).images


def test_a_fault_for_one_engine_spares_the_others(gallery):
    gallery.set_fault("429@bing/")
    assert ask(gallery, bing_call(0)).status == 429
    assert [ask(gallery, make(0)).status for make in (naver_call, openverse_call, commons_call)] == [200, 200, 200]


@pytest.fixture
def chromium():
    """A browser of one test's own: while it lives, its loop runs in this thread and `ask` cannot."""
    from playwright.sync_api import sync_playwright

    choice = find_browser()
    assert choice, "0_setup.py finds or installs a browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=choice.executable_path, args=launch_arguments())
        context = browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        yield context
        browser.close()


def test_a_browser_reads_the_page_object_of_naver(gallery, chromium):
    page = chromium.new_page()
    page.goto(f"{gallery.url}/search.naver?where=image&query=flower&start=1")
    saved = json.dumps(page.evaluate("window.imageSearchTabData")).encode()
    assert naver.parse_page(saved).images == naver.parse_page(page.content().encode()).images
    page.close()


def test_a_browser_uploads_on_the_page_of_graph(gallery, chromium):
    page = chromium.new_page()
    page.goto(f"{gallery.url}/pcpage/index?tpl_from=pc")
    with page.expect_navigation(url="**/s?*"):
        picture = {"name": "query.jpg", "mimeType": "image/jpeg", "buffer": query_picture(gallery)}
        page.set_input_files("input.general-upload-file", picture)
    names = [card["cardName"] for card in page.evaluate("window.cardData")]
    assert names == ["cardHeader", "same", "simipic"]
    page.close()


@pytest.mark.parametrize("path", ["/images/search?text=flower", "/search.naver?query=flower"])
def test_a_page_can_bring_the_renderer_down_but_not_the_browser(gallery, chromium, path):
    gallery.set_fault("crashx1")
    page, crashed = chromium.new_page(), []
    page.on("crash", lambda it: crashed.append(it))
    with pytest.raises(Exception, match="crashed"):
        page.goto(gallery.url + path)
    assert crashed, "the page crashed"
    page.close()
    other = chromium.new_page()
    assert other.goto(gallery.url + path).status == 200
    assert chromium.browser.is_connected()
    other.close()
