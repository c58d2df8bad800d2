"""The offline gallery keeps to the protocol it claims to speak, over real loopback connections."""

from __future__ import annotations

import asyncio
import html
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from PIL import Image, ImageOps
from support import PATIENCE, wait_until

from demo import FaultError, running_gallery
from demo.alterations import encode
from demo.app import Gallery
from demo.catalog import TROUBLES, build_catalog
from demo.darkroom import original_bytes
from demo.faults import Fault, parse_fault
from demo.queries import disturbed, query_scenes, write_queries
from demo.scenes import PHOTOGRAPHS, full_size
from demo.search import Index, read_upload

ROOT = Path(__file__).parent.parent
UPLOAD = "/images/touch/search"
UPLOAD_PARAMS = {
    "rpt": "imageview",
    "format": "json",
    "request": '{"blocks":[{"block":"cbir-uploader__get-cbir-id"}]}',
}
ADAPTER = {
    "block": {"block": "i-react-ajax-adapter:ajax"},
    "params": {"type": "ImagesApp", "ajaxKey": "serpList/fetch"},
}
EXTRA = {"block": "extra-content", "params": {}, "version": 2}
SPEC = {  # the ENTITY table of the protocol; None where a record may miss the key or say null
    "id": str, "docid": str, "documentid": str, "reqid": str, "rimId": str, "pos": int, "url": str, "origUrl": str,
    "image": str, "alt": str, "width": int, "height": int, "origWidth": int, "origHeight": int, "gifLabel": bool,
}  # fmt: skip


@pytest.fixture(scope="module")
def shared():
    with running_gallery(pictures=60, page_size=20, results=50) as gallery:
        yield gallery


@pytest.fixture
def gallery(shared):
    shared.clear_faults()
    yield shared
    shared.clear_faults()


class Answer:
    """What a request brought: the last status, address, headers and body."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status, self.url, self.headers, self.body = response.status, str(response.url), response.headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(gallery: Gallery, path: str, method: str = "GET", **options: Any) -> Answer:
    async def one() -> Answer:
        timeout = aiohttp.ClientTimeout(total=options.pop("seconds", PATIENCE))
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, urljoin(gallery.url, path), **options) as response,
        ):
            return Answer(response, await response.read())

    return asyncio.run(one())


def upload(gallery: Gallery, body: bytes) -> Answer:
    form = aiohttp.FormData()
    form.add_field("upfile", body, filename="query.jpg", content_type="image/jpeg")
    return ask(gallery, UPLOAD, "POST", params=UPLOAD_PARAMS, data=form)


def query_picture(gallery: Gallery) -> tuple[bytes, int]:
    """A disturbed view of the photo scene with most copies, and that scene's number."""
    _, scene, _ = query_scenes(gallery.site.pictures)[0]
    return encode(disturbed(full_size(scene)), "jpeg", 80), scene.number


def states(page: str) -> list[dict[str, Any]]:
    return [json.loads(html.unescape(packed)) for packed in re.findall(r'data-state="([^"]*)"', page)]


def page_list(page: str) -> dict[str, Any] | None:
    found = [state["initialState"]["serpList"] for state in states(page) if "serpList" in state.get("initialState", {})]
    return found[0] if found else None


def search_params(gallery: Gallery) -> dict[str, str]:
    params = upload(gallery, query_picture(gallery)[0]).json["blocks"][0]["params"]
    return {"cbir_id": params["cbirId"], "rpt": "imageview", "cbir_page": "similar", "url": params["originalImageUrl"]}


def xhr(gallery: Gallery, page: int, params: dict[str, str], blocks: list[Any] | None = None) -> Answer:
    request = json.dumps({"blocks": blocks or [EXTRA, ADAPTER]})
    return ask(gallery, "/images/search", params={**params, "format": "json", "request": request, "p": str(page)})


def adapter_list(answer: Any) -> dict[str, Any]:
    for block in answer["blocks"]:
        if block["name"]["block"] == "i-react-ajax-adapter:ajax":
            return block["params"]["adapterData"]["serpList"]
    raise AssertionError("no adapter block")


def test_upload_answers_an_id_and_the_address_of_the_upload(gallery):
    body, _ = query_picture(gallery)
    params = upload(gallery, body).json["blocks"][0]["params"]
    assert re.fullmatch(r"\d+/\w+", params["cbirId"])
    assert ask(gallery, params["originalImageUrl"]).body == body
    assert upload(gallery, body).json["blocks"][0]["params"] == params, "the same bytes have the same id"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"<html>not a picture</html>", 400, "not a picture"),
        (b"", 400, "not a picture"),
        (b"\xff\xd8\xff" + bytes(6 * 1024 * 1024), 413, "larger than 5 MiB"),
    ],
)
def test_bad_uploads_are_rejected(gallery, body, status, reason):
    answer = upload(gallery, body)
    assert (answer.status, reason in answer.json["error"]) == (status, True)


def test_other_forms_of_upload(gallery):
    body, _ = query_picture(gallery)
    cbir_id = upload(gallery, body).json["blocks"][0]["params"]["cbirId"]
    form = aiohttp.FormData()
    form.add_field("upfile", body, filename="query.jpg")
    landed = ask(gallery, "/images/search?rpt=imageview&cbir_page=similar", "POST", data=form)
    assert page_list(landed.text), "the form post leads to the results"
    raw = "/images-apphost/image-download?cbird=111&images_avatars_size=preview&images_avatars_namespace=images-cbir"
    assert ask(gallery, raw, "POST", data=body).json["cbir_id"] == cbir_id
    assert ask(gallery, "/images-apphost/image-download", "POST", data=body).text == "Incorrect avatar size"


def test_page_zero_stands_in_one_of_several_data_states(gallery):
    page = ask(gallery, "/images/search", params=search_params(gallery)).text
    assert len(states(page)) >= 3
    listing = page_list(page)
    assert listing is not None
    assert list(listing["items"]["entities"]) == listing["items"]["keys"]
    assert len(listing["items"]["keys"]) == 20
    assert listing["navi"]["next"].startswith("/images/search?")
    assert "FetchListButton-Button" in page


@pytest.mark.parametrize(("tab", "has"), [(None, "cbirTags"), ("sites", "cbirSites")])
def test_other_tabs_have_no_list(gallery, tab, has):
    params = {**search_params(gallery), "cbir_page": tab}
    page = ask(gallery, "/images/search", params={key: value for key, value in params.items() if value}).text
    assert page_list(page) is None
    assert any(has in state.get("initialState", {}) for state in states(page))


def test_entities_have_the_fields_and_oddities_of_the_protocol(gallery):
    params, found = {"text": "photo drawing"}, []
    for page in range(3):
        found += adapter_list(xhr(gallery, page, params).json)["items"]["entities"].values()
    for record in found:
        for key, kind in SPEC.items():
            assert isinstance(record[key], kind), (key, record[key])
        assert record["image"].startswith("//")
        assert record["origUrl"].startswith("http://")
    assert [record["pos"] for record in found] == list(range(50)), "the rank runs on over pages"


def test_every_oddity_occurs_in_a_full_gallery():
    pictures = build_catalog(7, 240, 4)
    quirks = Counter(quirk for picture in pictures for quirk in picture.quirks)
    assert set(quirks) >= {"no-snippet", "no-viewer", "bare", "lie", "origin", "old-thumb", "no-dups", "dead-giant"}
    assert set(TROUBLES) <= {picture.trouble for picture in pictures}
    assert {"cmyk", "animated", "palette", "exif6", "copy", "webp", "gif"} <= {p.alteration.name for p in pictures}
    families = ("vk.com", "ok.ru", "pinterest.com", "livejournal.com", "flickr.com")
    assert all(any(family in picture.page_url for picture in pictures) for family in families)
    assert len({picture.original.path for picture in pictures}) == 240


@pytest.mark.parametrize("blocks", [[EXTRA, ADAPTER], [ADAPTER], [ADAPTER, EXTRA]], ids=["second", "alone", "first"])
def test_blocks_come_in_the_order_asked_for(gallery, blocks):
    answer = xhr(gallery, 1, {"text": "photo drawing"}, blocks).json
    asked = [entry["block"] if isinstance(entry["block"], str) else entry["block"]["block"] for entry in blocks]
    assert [block["name"]["block"] for block in answer["blocks"]] == asked
    assert len(adapter_list(answer)["items"]["keys"]) == 20


def test_pages_do_not_overlap_and_end(gallery):
    params = search_params(gallery)
    first = page_list(ask(gallery, "/images/search", params=params).text)
    assert first is not None
    keys, page, listing = list(first["items"]["keys"]), 0, first
    while "next" in listing["navi"]:
        page += 1
        listing = adapter_list(xhr(gallery, page, params).json)
        keys += listing["items"]["keys"]
    assert (len(keys), len(set(keys)), page) == (50, 50, 2)
    assert xhr(gallery, page + 1, params).status == 404
    served = {name: count for name, count in gallery.counters["served"].items() if params["cbir_id"] in name}
    assert all(f"yandex/xhr cbir:{params['cbir_id']} p={number}" in served for number in (1, 2))


def test_the_request_of_the_real_page_is_understood(gallery):
    params = search_params(gallery)
    address = params["url"].partition("//")[2]
    imagelike = {"rpt": "imagelike", "text": f'url:"{address}"', "url": params["url"], "serpListType": "horizontal"}
    assert adapter_list(xhr(gallery, 1, imagelike).json) | {"navi": 0} == (
        adapter_list(xhr(gallery, 1, params).json) | {"navi": 0}
    )
    assert ask(gallery, "/images/search?format=json&request=nonsense&text=flower").status == 400


@pytest.mark.parametrize(
    ("params", "check"),
    [
        ({"text": "dahlia"}, lambda picture: picture.scene.kind == "flower"),
        ({"text": "георгина"}, lambda picture: "георгина" in picture.title),
        ({"text": "photo drawing", "iorient": "vertical"}, lambda picture: picture.size[1] > picture.size[0]),
        ({"text": "photo drawing", "type": "photo"}, lambda picture: picture.scene.kind in PHOTOGRAPHS),
        ({"text": "photo drawing", "itype": "png"}, lambda picture: picture.alteration.encoding.startswith("png")),
    ],
)
def test_keyword_search_and_filters(gallery, params, check):
    listing = page_list(ask(gallery, "/images/search", params=params).text)
    assert listing is not None
    assert listing["items"]["keys"], "something is found"
    assert all(check(gallery.site.by_id[key]) for key in listing["items"]["keys"])


def test_nothing_found_says_so(gallery):
    page = ask(gallery, "/images/search?text=zebra-xylophone").text
    assert "EmptySearchResults" in page
    assert page_list(page) == {"items": {"keys": [], "entities": {}}, "navi": {}, "loading": False, "page": 0}


@pytest.mark.parametrize("seed", [7, 11])
def test_copies_of_the_queried_scene_rank_first(seed):
    pictures = build_catalog(seed, 80, 4)
    index, copies = Index(pictures, 40), Counter(picture.scene for picture in pictures)
    wrong = []
    for scene, count in copies.items():
        if scene.kind == "blank" or count < 3:
            continue
        query = read_upload(encode(disturbed(full_size(scene)), "jpeg", 70))
        if any(picture.scene != scene for picture in index.by_image(query)[:count]):
            wrong.append((scene.kind, scene.number))
    assert not wrong


CLASSIFIED = [
    ("captcha", "page", lambda a: "/showcaptcha?" in a.url and a.headers["x-yandex-captcha"] == "captcha"),
    ("captcha@1", "xhr", lambda a: "/showcaptcha?" in a.url and "CheckboxCaptcha" in a.text),
    ("captcha_page", "page", lambda a: a.status == 200 and 'action="/checkcaptcha' in a.text and "/showc" not in a.url),
    ("captcha_json", "xhr", lambda a: a.json["type"] == "captcha"),
    ("consent", "page", lambda a: "Allow all" in a.text and page_list(a.text) is None),
    ("region", "page", lambda a: "is under construction</h1>" in a.text),
    ("429=7", "xhr", lambda a: a.status == 429 and a.headers["Retry-After"] == "7"),
    ("503@xhr", "xhr", lambda a: a.status == 503),
    ("blocked", "page", lambda a: a.status == 403),
    ("wrong_tab", "page", lambda a: page_list(a.text) is None and "EmptySearchResults" not in a.text),
    ("empty", "page", lambda a: "EmptySearchResults" in a.text),
    ("empty", "xhr", lambda a: adapter_list(a.json)["items"]["keys"] == []),
    ("changed_shape", "page", lambda a: page_list(a.text) is None and '"cards"' in html.unescape(a.text)),
    ("changed_shape", "xhr", lambda a: list(a.json["blocks"][1]["params"]["adapterData"]) == ["feed"]),
    ("drift", "xhr", lambda a: all("aiBadge" in r for r in adapter_list(a.json)["items"]["entities"].values())),
    ("nulls", "xhr", lambda a: next(iter(adapter_list(a.json)["items"]["entities"].values()))["origUrl"] is None),
    ("not_json", "xhr", lambda a: a.text.startswith("<html>")),
    ("no_next", "xhr", lambda a: adapter_list(a.json)["navi"] == {}),
    ("slow=0.1", "xhr", lambda a: a.status == 200),
]


@pytest.mark.parametrize(("fault", "route", "check"), CLASSIFIED, ids=[f"{f}-{r}" for f, r, _ in CLASSIFIED])
def test_faults_show_and_then_pass(gallery, fault, route, check):
    def look() -> Answer:
        params = {"text": "photo drawing"}
        return xhr(gallery, 1, params) if route == "xhr" else ask(gallery, "/images/search", params=params)

    gallery.set_fault(fault + "x1")
    assert check(look()), fault
    honest = look()
    assert honest.status == 200
    assert (adapter_list(honest.json) if route == "xhr" else page_list(honest.text))["items"]["keys"]


@pytest.mark.parametrize(
    ("fault", "seconds", "error"),
    [
        ("hang", 1, asyncio.TimeoutError),
        ("disconnect", PATIENCE, aiohttp.ServerDisconnectedError),
        ("truncated", PATIENCE, aiohttp.ClientPayloadError),
    ],
)
def test_faults_of_the_connection(gallery, fault, seconds, error):
    gallery.set_fault(f"{fault}@xhr:1")  # for ever: the client asks a second time after a lost connection
    with pytest.raises(error):
        ask(gallery, "/images/search?format=json&text=photo&p=1", seconds=seconds)


def asking_for_a_page(url: str) -> socket.socket:
    """A connection over which page 1 of a search is asked for."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    connection.sendall(b"GET /images/search?format=json&text=photo&p=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def test_a_hanging_answer_is_counted_while_it_hangs(gallery):
    gallery.set_fault("hang@xhr:1x1")
    with asking_for_a_page(gallery.url) as waiting:
        wait_until(lambda: gallery.counters["faults"][0]["left"] == 0, "the fault is counted")
        assert xhr(gallery, 1, {"text": "photo"}).status == 200
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)


def test_a_slow_answer_comes_when_its_fault_is_cleared(gallery):
    gallery.set_fault(f"slow={PATIENCE}@xhr:1")
    with asking_for_a_page(gallery.url) as waiting:
        wait_until(lambda: gallery.counters["faults"][0]["fired"] == 1, "the fault is met")
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
        gallery.clear_faults()
        waiting.settimeout(PATIENCE)
        assert waiting.recv(8) == b"HTTP/1.1"


def test_a_delay_is_counted_once(gallery):
    gallery.set_fault("slow=0.01@xhrx2")
    assert [xhr(gallery, 1, {"text": "photo"}).status for _ in range(3)] == [200] * 3
    assert [(fault["fired"], fault["left"]) for fault in gallery.counters["faults"]] == [(2, 0)]


@pytest.mark.parametrize(
    ("fault", "status"), [("upload_rejected", 400), ("upload_rejected=soft", 200), ("500@upload", 500)]
)
def test_rejected_uploads_carry_no_id(gallery, fault, status):
    gallery.set_fault(fault)
    answer = upload(gallery, query_picture(gallery)[0])
    assert answer.status == status
    assert b"cbirId" not in answer.body


def test_a_person_can_pass_the_captcha_and_the_notice(gallery):
    async def visit() -> list[str]:
        seen = []
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            for _ in range(3):
                async with session.get(gallery.url + "/images/search?text=photo") as response:
                    page = await response.text()
                form = re.search(r'method="POST" action="([^"]+)"', page)
                seen.append(html.unescape(form.group(1)).partition("?")[0] if form else "results")
                if form:
                    await (await session.post(gallery.url + html.unescape(form.group(1)))).read()
        return seen

    gallery.set_fault("captcha")
    gallery.set_fault("consent")
    assert asyncio.run(visit()) == ["/checkcaptcha", "/agree", "results"]


@pytest.mark.parametrize("back", ["//evil.example/", "http://evil.example/", "/\\evil.example"])
def test_the_way_back_stays_on_the_site(gallery, back):
    answer = ask(gallery, "/checkcaptcha", "POST", params={"retpath": back}, allow_redirects=False)
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("captcha", Fault("captcha")),
        ("captcha@2", Fault("captcha", page=2)),
        ("429=5@xhr:1x2", Fault("429", "5", route="xhr", page=1, left=2)),
        ("500@uploadx1", Fault("500", route="upload", left=1)),
        ("hang@yandex/xhr", Fault("hang", engine="yandex", route="xhr")),
    ],
)
def test_faults_are_written_briefly(spec, fault):
    assert parse_fault(spec) == fault


@pytest.mark.parametrize("spec", ["", "=3", "200", "@2", "Captcha", "nonesuch"])
def test_unknown_faults_are_refused(gallery, spec):
    with pytest.raises(FaultError):
        gallery.set_fault(spec)


def test_control_endpoint(gallery):
    state = ask(gallery, "/_control", "POST", json={"faults": ["captcha@3x2"], "clear": True, "reset": True}).json
    assert [(fault["kind"], fault["page"], fault["left"]) for fault in state["faults"]] == [("captcha", 3, 2)]
    ask(gallery, "/images/search?text=flower")
    assert ask(gallery, "/_control").json["asked"] == {"yandex/page text:flower p=0": 1}
    bad = ask(gallery, "/_control", "POST", json={"faults": ["empty", "nonesuch"], "clear": True})
    assert (bad.status, "nonesuch" in bad.json["error"]) == (400, True)
    assert len(ask(gallery, "/_control").json["faults"]) == 1, "a bad request changes nothing"
    assert ask(gallery, "/_control", "POST", data='{"clear": true}').status == 415


TROUBLE_CHECKS = {
    "missing": lambda a: a.status == 404,
    "referer": lambda a: a.status == 403,
    "html": lambda a: a.body.startswith(b"<!doctype html>") and a.headers["Content-Type"].startswith("image/jpeg"),
    "gone": lambda a: a.url.endswith("/static/removed.png") and a.body.startswith(b"\x89PNG"),
    "octet": lambda a: a.headers["Content-Type"] == "application/octet-stream",
    "noai": lambda a: a.headers["X-Robots-Tag"] == "noai",
    "slow": lambda a: a.status == 200,
    "misnamed": lambda a: (
        a.status == 200 and not a.body.startswith(b"\x89PNG" if ".png" in a.url.lower() else b"\xff\xd8")
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE_CHECKS)
def test_bad_originals_behave_badly(gallery, trouble):
    picture = next(picture for picture in gallery.site.pictures if picture.trouble == trouble)
    assert TROUBLE_CHECKS[trouble](ask(gallery, gallery.site.link(picture.original)))


def test_cut_huge_and_flaky_originals(gallery):
    links = {
        picture.trouble: gallery.site.link(picture.original) for picture in gallery.site.pictures if picture.trouble
    }
    for trouble in ("truncated", "huge"):
        with pytest.raises(aiohttp.ClientPayloadError):
            ask(gallery, links[trouble])
    assert [ask(gallery, links["flaky"]).status for _ in range(2)] == [500, 200]
    again = ask(gallery, links["slow"]).headers["ETag"]
    assert ask(gallery, links["slow"], headers={"If-None-Match": again}).status == 304
    assert ask(gallery, links["referer"], headers={"Referer": "https://a.example/"}).status == 200


def test_the_ladder_below_a_broken_original_holds(gallery):
    site, checked = gallery.site, 0
    for picture in site.pictures:
        if picture.trouble in ("", "dead"):
            continue
        copies = [address for address in picture.addresses[1:] if not address.trouble]
        for address in copies[:1]:
            body = ask(gallery, site.link(address)).body
            assert Image.open(io.BytesIO(body)).size == address.size
            checked += 1
        thumb = ask(gallery, f"/i?id={picture.id}-1-images-thumbs&n=13")
        assert Image.open(io.BytesIO(thumb.body)).format == "JPEG", picture.trouble
    assert checked >= 5


def test_files_are_what_the_catalogue_says(gallery):
    for picture in gallery.site.pictures:
        with Image.open(io.BytesIO(original_bytes(picture))) as image:
            assert ImageOps.exif_transpose(image).size == picture.size, picture.alteration.name
            assert getattr(image, "n_frames", 1) > 1 if picture.animated else True
    for copy in (picture for picture in gallery.site.pictures if picture.alteration.name == "copy"):
        twin = next(p for p in gallery.site.pictures if p.scene == copy.scene and p.alteration.name == "original")
        assert original_bytes(copy) == original_bytes(twin)
        assert gallery.site.link(copy.original) != gallery.site.link(twin.original)


def test_the_same_seed_makes_the_same_gallery():
    first, again, other = build_catalog(3, 40, 2), build_catalog(3, 40, 2), build_catalog(4, 40, 2)
    assert first == again
    assert [p.id for p in first] != [p.id for p in other]
    assert [original_bytes(p) for p in first[:6]] == [original_bytes(p) for p in again[:6]]
    assert not any(p.trouble for p in build_catalog(3, 40, 2, troubled=False))


def test_query_pictures_are_no_served_file(gallery, tmp_path):
    served = {original_bytes(picture) for picture in gallery.site.pictures}
    written = write_queries(gallery.site.pictures, tmp_path / "queries")
    assert [path.name for path in written] == ["query-photo.jpg", "query-drawing.jpg", "query-detail.png"]
    assert not served & {path.read_bytes() for path in written}


def test_a_gallery_at_its_old_port_has_its_old_addresses():
    # A port that no other test process asks for, and below those that outgoing connections are given.
    with running_gallery(pictures=6, hosts=2, port=27_000 + os.getpid() % 5_000) as first:
        port, hosts = int(first.url.rpartition(":")[2]), first.hosts
    with running_gallery(pictures=6, hosts=2, port=port) as second:
        assert second.hosts == hosts
        with running_gallery(pictures=6, hosts=2) as third:
            assert not {third.url, *third.hosts} & {second.url, *second.hosts}


def test_people_see_pages(gallery):
    front = ask(gallery, "/").text
    assert "An offline picture search" in front
    assert front.count('class="SerpItem"') >= 15
    assert "Disallow: /_control" in ask(gallery, "/robots.txt").text
    assert "Disallow: /closed/" in ask(gallery, gallery.hosts[0] + "/robots.txt").text
    assert ask(gallery, "/_static/results.js").status == 200


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "demo", "--pictures", "12", "--hosts", "2", *args]


def test_the_command_tells_where_it_is_and_ends_on_a_signal(tmp_path):
    with subprocess.Popen(
        command("--queries", str(tmp_path), "--fault", "hang@xhr"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["pictures"], len(ready["hosts"]), len(ready["queries"])) == (12, 2, 3)
        with asking_for_a_page(ready["url"]):
            while "yandex/xhr" not in urllib.request.urlopen(ready["url"] + "/_control").read().decode():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")


def test_bad_arguments_are_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = [
            ("--port", port, f"cannot serve on 127.0.0.1:{port}"),
            ("--fault", "nonesuch", "no fault is called 'nonesuch'"),
        ]
        for flag, value, sentence in cases:
            done = subprocess.run(
                command(flag, value), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            assert (done.returncode, done.stdout) == (2, "")
            assert sentence in done.stderr
            assert len(done.stderr.splitlines()) == 1
