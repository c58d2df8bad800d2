"""The parsers beside Yandex's: real shapes, written by hand, and every value that may be missing or of another type."""

from __future__ import annotations

import base64
import json

import pytest
from support import ROOT

from lib.engines import baidu, baidu_graph, bing, commons, naver, naver_api, openverse, yandex_cloud
from lib.engines.addresses import unwrap
from lib.engines.parsing import load_xml
from lib.records import ImageRecord, ParsedPage, ParseError, address_digest

SAMPLES = ROOT.parent / "shared" / "samples"


def kinds(image: ImageRecord) -> list[tuple[str, str]]:
    return [(variant.kind, variant.url) for variant in image.variants]


def test_baidu_cipher_gives_the_host_that_the_item_names():
    # Follows `baidu/acjson_2018-07.partial.json`.
    found = baidu.decode_address("ippr_z2C$qAzdH3FAzdH3Fooo_z&e3B77p7o_z&e3Bv54AzdH3Ft4w2jetjovuwmjcn0_z&e3Bip4s")
    assert found.startswith("http://www.uutuw.com/") and found.endswith(".html")


@pytest.mark.parametrize("plain", ["https://plain.example/a.jpg?x=1", "", "z2C$q"])
def test_baidu_leaves_plain_addresses_alone(plain):
    assert baidu.decode_address(plain) == plain


def encipher(url: str) -> str:
    """The inverse of the cipher, letter by letter, for round trips."""
    back = {v: k for k, v in zip("wkv1ju2it3hs4g5rq6fp7eo8dn9cm0bla", "abcdefghijklmnopqrstuvw1234567890", strict=True)}
    signs = {":": "_z2C$q", ".": "_z&e3B", "/": "AzdH3F"}
    return "".join(signs.get(c) or back.get(c, c) for c in url)


@pytest.mark.parametrize("url", ["http://a.example/b-c_d/EFG.JPG?q=1&r=2", "https://xyz.example/0987.png"])
def test_baidu_cipher_round_trip(url):
    assert baidu.decode_address(encipher(url)) == url


PROXIED = (
    "https://gimg2.baidu.com/image_search/src=http%3A%2F%2Fimg.example%2Fa%2520b.jpg&refer=http%3A%2F%2Fimg.example"
    "&app=2002&size=f9999,10000&q=a80&n=0&g=0n&fmt=jpeg?sec=1620389150&t=0123456789abcdef"
)


def test_baidu_proxy_is_unwrapped_with_its_referer_and_expiry():
    assert baidu.unwrap_proxy(PROXIED) == (
        "http://img.example/a%20b.jpg",
        "http://img.example",
        "2021-05-07T12:05:50Z",
    )
    assert baidu.unwrap_proxy("https://img.example/image_search/src=x") == ("", "", "")


def baidu_item(**changes):
    item = {
        "adType": "0",
        "di": "111",
        "pageNum": 30,
        "objURL": encipher("http://img.example/a.jpg"),
        "fromURL": encipher("http://www.page.example/x.html"),
        "fromURLHost": "www.page.example",
        "thumbURL": "https://ss0.bdstatic.com/it/u=1,2&fm=15",
        "middleURL": "https://ss0.bdstatic.com/it/u=1,2&fm=15",
        "hoverURL": "",
        "width": 800,
        "height": "1027",
        "type": "jpg",
        "is_gif": 0,
        "bdImgnewsDate": "1970-01-01 08:00",
        "fromPageTitle": "a <strong>title</strong>",
        "replaceUrl": [
            {"ObjURL": "http://img3.imgtn.bdimg.com/it/u=1,2&fm=214", "FromURL": "http://news.example/1"},
            {"ObjURL": "http://copy.example/2.jpg", "FromURL": "http://copy.example/"},
        ],
    }
    return {**item, **changes}


def acjson(*items) -> bytes:
    return json.dumps({"listNum": 891, "data": [*items, {}]}).encode()


def test_baidu_prefers_the_decoded_original_to_copies_on_its_own_hosts():
    image = baidu.parse_acjson(acjson(baidu_item())).images[0]
    assert kinds(image) == [
        ("original", "http://img.example/a.jpg"),
        ("dup", "http://copy.example/2.jpg"),
        ("preview", "http://img3.imgtn.bdimg.com/it/u=1,2&fm=214"),
        ("thumb", "https://ss0.bdstatic.com/it/u=1,2&fm=15"),
    ]
    assert (image.rank, image.width, image.height, image.title) == (30, 800, 1027, "a title")
    assert (image.page_url, image.domain, image.published_at) == (
        "http://www.page.example/x.html",
        "www.page.example",
        "",
    )


def test_baidu_keeps_the_proxy_as_a_fallback_with_its_expiry():
    image = baidu.parse_acjson(acjson(baidu_item(objURL=PROXIED, replaceUrl=[]))).images[0]
    original, preview = image.variants[0], image.variants[1]
    assert (original.url, original.referer) == ("http://img.example/a%20b.jpg", "http://img.example")
    assert (preview.kind, preview.url, preview.expires_at) == ("preview", PROXIED, "2021-05-07T12:05:50Z")


def test_baidu_skips_advertisements_and_the_empty_last_element():
    page = baidu.parse_acjson(acjson(baidu_item(), baidu_item(di="112", adType="1")))
    assert len(page.images) == 1 and page.skipped == 1


def test_baidu_reads_invalid_escapes_and_raw_control_characters():
    body = acjson(baidu_item()).replace(b"a <strong>title</strong>", b"it\\'s\x01 a title")
    assert baidu.parse_acjson(body).images[0].title == "it's a title"


def test_baidu_flip_page():
    inner = acjson(baidu_item()).decode()
    html = f"<script>flip.setData('imgData', {inner});</script>".encode()
    assert baidu.parse_page(html).images[0].engine_id == address_digest("http://img.example/a.jpg")


NOT_BAIDU = [
    (b'{"antiFlag":1,"message":"Forbid spider access"}', "blocked"),
    ("<html><title>百度安全验证</title>".encode(), "captcha"),
    ("<html>页面不存在".encode(), "not_json"),
    (b"{}", "no_data"),
    (b'{"data": null}', "no_data"),
    (b"[[[", "not_json"),
]


@pytest.mark.parametrize(("body", "reason"), NOT_BAIDU)
def test_baidu_says_what_an_answer_without_results_is(body, reason):
    with pytest.raises(ParseError, match=reason):
        baidu.parse_acjson(body)


GRAPH_PAGE = b"""<script>window.cardData = [
 {"cardName": "cardHeader", "tplData": null},
 {"cardName": "same", "tplData": {"list": [{"url": "http://p.example/1", "image_src": "https://mms1.baidu.com/it/u=5,6&fm=253", "title": ["a", "b"]}]}},
 {"cardName": "simipic", "tplData": {"firstUrl": "https://graph.baidu.com/ajax/pcsimi?sign=s&page=1"}}
];</script>"""  # noqa: E501


def test_baidu_graph_page_gives_exact_matches_and_the_next_address():
    page = baidu_graph.parse_page(GRAPH_PAGE)
    assert page.next_url == "https://graph.baidu.com/ajax/pcsimi?sign=s&page=1"
    assert [(i.title, i.page_url) for i in page.images] == [("a b", "http://p.example/1")]


def test_baidu_graph_results_are_marked_as_thumbnails_only():
    items = [
        {
            "contsign": "1,2",
            "height": 330,
            "width": 440,
            "thumbUrl": "http://mms1.baidu.com/it/u=1,2",
            "fromUrl": "http://v.example/1",
            "objUrl": "https://graph.baidu.com/pcpage/similar?x",
        },
        {"fromURL": "http://m.example/s", "subTitle": "site", "thumbUrl": "https://mms1.baidu.com/it/u=3,4&fm=253"},
        {"thumbUrl": None},
    ]
    page = baidu_graph.parse_api(json.dumps({"status": 0, "data": {"list": items}}).encode())
    assert len({image.engine_id for image in page.images}) == 2 and page.images[0].extra["contsign"] == "1,2"
    assert page.drift["left_out"] == {"no_address": 1}
    assert all(image.extra["thumbnail_only"] for image in page.images)
    assert {kind for image in page.images for kind, _ in kinds(image)} == {"thumb"}
    assert page.images[1].snippet == "site" and page.images[1].page_url == "http://m.example/s"


def test_baidu_graph_errors():
    with pytest.raises(ParseError, match="blocked"):
        baidu_graph.parse_api(b'{"status": 403, "msg": "flow control"}')
    with pytest.raises(ParseError, match="no_state"):
        baidu_graph.parse_page(b"<html></html>")


NAVER_PAGE = b"""<html><script>
var imageSearchTabData = {
 content : {items:[
  {type:"image",title:"<mark>a</mark> \\"b\\", {c}",link:"https://blog.naver.com/e/1",source:'it\\'s',thumb:"https://search.pstatic.net/common/?src=http%3A%2F%2Fblogfiles.naver.net%2Fa%25C6%25C4.jpg&type=a340",
   viewerThumb:"https://search.pstatic.net/common/?src=http%3A%2F%2Fblogfiles.naver.net%2Fa%25C6%25C4.jpg&type=sc960_832",originalUrl:"http://blogfiles.naver.net/a%C6%C4.jpg",orgWidth:"1200",orgHeight:800,imgId:"image_sas:blog_00000000000000000000000000000000",dateInfo:"2025.12.31.",writerTitle:"w",tld:"blog.naver.com",},
  {type:"shopAd",items:[],}, // an advertisement
  {type:"image", imgId:"image_sas:nshopping_1", originalUrl:undefined, true:1, viewerThumb:"https://search.pstatic.net/common/?src=https%3A%2F%2Fcdn.example%2Fb.jpg&type=sc960_832_gif"},
 ],},
}
var other = {};</script></html>"""


def test_naver_reads_the_javascript_literal():
    page = naver.parse_page(NAVER_PAGE)
    first, second = page.images
    assert page.skipped == 1 and page.page_size == 50
    assert first.title == 'a "b", {c}' and first.extra["source"] == "it's"
    assert (first.rank, second.rank) == (0, 2)
    assert (first.width, first.height, first.domain) == (1200, 800, "blog.naver.com")
    assert kinds(first)[0] == ("original", "http://blogfiles.naver.net/a%C6%C4.jpg")
    assert first.variants[0].referer == "https://blog.naver.com"
    assert kinds(second)[0] == ("original", "https://cdn.example/b.jpg") and second.is_gif and second.is_shop


def test_naver_decodes_a_wrapped_address_once():
    url = "https://search.pstatic.net/common/?src=http%3A%2F%2Fblogfiles.naver.net%2F%25C6%25C4.jpg&type=a340"
    assert unwrap(url) == "http://blogfiles.naver.net/%C6%C4.jpg"
    assert unwrap("https://elsewhere.example/?src=x") == ""


def test_naver_reads_what_the_browser_read():
    data = {"content": {"items": [{"type": "image", "imgId": "i", "originalUrl": "//x.example/1.jpg"}]}}
    assert kinds(naver.parse_page(json.dumps(data).encode()).images[0]) == [("original", "https://x.example/1.jpg")]


def test_naver_tells_empty_from_unknown():
    assert naver.parse_page(b'<div class="not_found02">') == ParsedPage((), page_size=50)
    with pytest.raises(ParseError, match="no_state"):
        naver.parse_page(b"<html>robot check</html>")
    with pytest.raises(ParseError, match="no_state"):
        naver.parse_page(b'{"content": null}')


NAVER_XML = b"""<?xml version="1.0" encoding="UTF-8"?><rss version="2.0"><channel><title>t</title><total>250</total>
<start>101</start><display>100</display><item><title>a &lt;b&gt;c&lt;/b&gt;</title><link>http://img.example/1.jpg</link>
<thumbnail>http://t.example/1.jpg</thumbnail><sizeheight>533</sizeheight><sizewidth>799</sizewidth></item></channel></rss>"""


def test_naver_api_reads_json_and_xml_alike():
    item = {"title": "a <b>c</b>", "link": "http://img.example/1.jpg", "thumbnail": "http://t.example/1.jpg"}
    item |= {"sizeheight": "533", "sizewidth": "799"}
    body = json.dumps({"total": 250, "start": 101, "display": 100, "items": [item]}).encode()
    for page in (naver_api.parse_api(body), naver_api.parse_api(NAVER_XML)):
        image = page.images[0]
        assert page.next_url == "start=201"
        assert (image.rank, image.title, image.width, image.height) == (100, "a c", 799, 533)
        assert kinds(image) == [("original", "http://img.example/1.jpg"), ("thumb", "http://t.example/1.jpg")]


def test_naver_api_stops_at_its_last_start_and_names_an_error():
    body = json.dumps(
        {"total": 9999, "start": 1000, "display": 100, "items": [{"link": "http://a.example/1"}]}
    ).encode()
    assert naver_api.parse_api(body).next_url == ""
    with pytest.raises(ParseError, match="refused: 024 not allowed"):
        naver_api.parse_api(b'{"errorMessage":"not allowed","errorCode":"024"}')


def tile(m: dict, size: str = "1920×1080 · jpeg") -> str:
    attribute = json.dumps(m).replace("&", "&amp;").replace('"', "&quot;")
    below = f'<div class="imgpt"><div><span>{size}</span></div></div>'
    return f'<li><a class="iusc" href="/x" m="{attribute}"></a>{below}</li>'


# Follows `bing/iusc_m_attr.json`.
BING_M = {"cid": "c", "purl": "http://p.example/1?a=1&b=2", "murl": "http://i.example/1.jpg", "t": "a title"}
BING_M |= {"turl": "https://tse2.mm.bing.net/th?id=OIP.x&pid=15.1", "md5": "m5", "mid": "F6E", "desc": ""}


def test_bing_tiles():
    other = tile({**BING_M, "murl": "http://i.example/2.jpg"}, "none")
    html = f'<ul class="dgControl_list">{tile(BING_M)}{other}{tile(BING_M)}</ul>'
    page = bing.parse_page(html.encode())
    first, second = page.images
    assert (first.extra["mid"], first.width, first.height, first.format) == ("F6E", 1920, 1080, "jpeg")
    assert page.drift["left_out"] == {"repeated": 1}
    assert (second.width, second.rank) == (None, 1)
    assert kinds(first) == [
        ("original", "http://i.example/1.jpg"),
        ("thumb", "https://tse2.mm.bing.net/th?id=OIP.x&pid=15.1"),
    ]
    assert first.variants[0].referer == "http://p.example/1?a=1&b=2"


def test_bing_tells_an_empty_page_from_another_one():
    assert bing.parse_page(b'<div class="dgControl"></div>').images == ()
    with pytest.raises(ParseError, match="captcha"):
        bing.parse_page(b'<form id="captcha">')
    with pytest.raises(ParseError, match="no_state"):
        bing.parse_page(b"<html></html>")


# Follows `openverse/image_search_200.subset.json`.
OPENVERSE = {
    "id": "4bc43a04",
    "title": "Tree bark",
    "foreign_landing_url": "https://stock.example/photo/1",
    "url": "https://cdn.example/1.jpg",
    "creator": "Somebody",
    "creator_url": "https://stock.example/somebody",
    "license": "by-sa",
    "license_version": "4.0",
    "license_url": "https://creativecommons.org/licenses/by-sa/4.0/",
    "attribution": '"Tree bark" by Somebody',
    "filesize": None,
    "filetype": "jpg",
    "height": 4016,
    "width": "6016",
    "mature": False,
    "thumbnail": "https://api.example/thumb/1",
    "tags": [{"name": "bark"}],
}


def test_openverse_keeps_licence_creator_and_attribution():
    body = json.dumps({"page": 2, "page_count": 3, "page_size": 20, "results": [OPENVERSE]}).encode()
    page = openverse.parse_api(body)
    image = page.images[0]
    assert (image.rank, page.next_url) == (20, "page=3")
    assert (image.license, image.license_url) == ("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
    assert (image.creator, image.attribution) == ("Somebody", '"Tree bark" by Somebody')
    assert (image.width, image.height, image.bytes, image.extra["tags"]) == (6016, 4016, None, ["bark"])


LICENCES = [
    ("cc0", "1.0", "CC0 1.0"),
    ("by", "2.0", "CC BY 2.0"),
    ("pdm", "1.0", "Public Domain Mark 1.0"),
    ("", "", ""),
]


@pytest.mark.parametrize(("code", "version", "name"), LICENCES)
def test_openverse_licence_names(code, version, name):
    assert openverse.license_name(code, version) == name


def test_openverse_says_why_it_refused():
    with pytest.raises(ParseError, match="refused: page_size too large"):
        openverse.parse_api(b'{"error": "InputError", "detail": "page_size too large"}')


def commons_page(number: int) -> dict:
    meta = {
        "Artist": {"value": '<a href="//commons.wikimedia.org/wiki/User:P">P</a>'},
        "LicenseShortName": {"value": "CC BY-SA 4.0"},
        "LicenseUrl": {"value": "https://creativecommons.org/licenses/by-sa/4.0"},
        "CommonsMetadataExtension": {"value": 1.2},
        "Categories": {"value": "Trees|Coasts"},
        "AttributionRequired": {"value": "true"},
    }
    info = {"url": f"https://upload.example/{number}.jpg", "descriptionurl": f"https://commons.example/{number}"}
    info |= {"width": 5514, "height": 3102, "size": 11863148, "mime": "image/jpeg", "sha1": "ab", "user": "P"}
    info |= {
        "thumburl": f"https://upload.example/t{number}.jpg",
        "thumbwidth": 640,
        "thumbheight": 360,
        "extmetadata": meta,
    }
    return {"pageid": number, "ns": 6, "index": number, "title": f"File:Lone tree {number}.jpg", "imageinfo": [info]}


@pytest.mark.parametrize("as_list", [True, False])
def test_commons_reads_both_forms_and_orders_by_rank(as_list):
    pages = [commons_page(2), commons_page(1), {"pageid": 9, "title": "File:Gone.jpg"}]
    found = pages if as_list else {str(page["pageid"]): page for page in pages}
    page = commons.parse_api(json.dumps({"continue": {"gsroffset": 50}, "query": {"pages": found}}).encode())
    image = page.images[0]
    assert [image.rank for image in page.images] == [0, 1] and page.next_url == "gsroffset=50" and page.skipped == 1
    assert (image.title, image.creator, image.license) == ("Lone tree 1", "P", "CC BY-SA 4.0")
    assert image.creator_url == "https://commons.wikimedia.org/wiki/User:P"
    assert image.extra["categories"] == ["Trees", "Coasts"] and image.extra["attribution_required"] is True
    assert [kind for kind, _ in kinds(image)] == ["original", "preview"]


def test_commons_without_results_and_with_an_error():
    assert commons.parse_api(b'{"batchcomplete": true}').images == ()
    with pytest.raises(ParseError, match="refused: maxlag"):
        commons.parse_api(b'{"error": {"code": "maxlag", "info": "wait"}}')


def test_yandex_cloud_by_picture_takes_numbers_as_text():
    image = {"url": "https://i.example/1.jpg", "format": "IMAGE_FORMAT_JPEG", "width": "1200", "height": "800"}
    image |= {"passage": "p", "host": "i.example", "pageTitle": "t", "pageUrl": "https://p.example/1"}
    page = yandex_cloud.parse_api(json.dumps({"images": [image, image], "page": "2", "id": "cbir"}).encode())
    assert len(page.images) == 1 and page.next_url == "page=3" and page.images[0].width == 1200
    assert yandex_cloud.parse_api(b'{"images": [], "page": "3"}').next_url == ""


CLOUD_XML = """<?xml version="1.0" encoding="utf-8"?><yandexsearch><response><results><grouping><group><doc>
<url>https://i.example/1.jpg</url><domain>i.example</domain><modtime>20240414T000000</modtime><image-properties><id>abc</id>
<thumbnail-link>https://t.example/1</thumbnail-link><thumbnail-width>150</thumbnail-width><thumbnail-height>100</thumbnail-height>
<original-width>1200</original-width><original-height>800</original-height><html-link>https://p.example/1</html-link>
<image-link>https://i.example/1.jpg</image-link><file-size>3456</file-size><mime-type>jpg</mime-type></image-properties>
</doc></group></grouping></results></response></yandexsearch>"""


def test_yandex_cloud_by_words_reads_the_xml_inside():
    body = json.dumps({"rawData": base64.b64encode(CLOUD_XML.encode()).decode()}).encode()
    image = yandex_cloud.parse_api(body).images[0]
    assert (image.extra["id"], image.width, image.bytes, image.page_url) == ("abc", 1200, 3456, "https://p.example/1")
    nothing = "<yandexsearch><response><error code='15'>none</error></response></yandexsearch>"
    body = json.dumps({"rawData": base64.b64encode(nothing.encode()).decode()}).encode()
    assert yandex_cloud.parse_api(body).images == ()
    refused = nothing.replace("'15'", "'32'")
    with pytest.raises(ParseError, match="refused: 32"):
        yandex_cloud.parse_api(json.dumps({"rawData": base64.b64encode(refused.encode()).decode()}).encode())


BOMBS = [
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
    b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
    '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode("utf-16"),
    b"<x>",
    b"",
]


@pytest.mark.parametrize("body", BOMBS)
def test_xml_with_entities_or_without_end_is_refused(body):
    with pytest.raises(ParseError, match="not_xml"):
        load_xml(body)


PARSERS = [baidu.parse_acjson, baidu_graph.parse_api, bing.parse_page, commons.parse_api, naver.parse_page]
PARSERS += [naver_api.parse_api, openverse.parse_api, yandex_cloud.parse_api, baidu_graph.parse_page, baidu.parse_page]
STRANGE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe\x00",
    b'{"data": [null, 1, {"di": {}}, {"di": "1", "replaceUrl": [null]}]}',
    b'{"results": [null, {"id": null}, {"id": "1", "tags": 7}]}',
    b'{"items": [null, {"link": []}]}',
    b'{"images": 5}',
    b'{"query": {"pages": [{"pageid": 1, "imageinfo": [{"extmetadata": []}]}]}}',
    b'{"rawData": "%%%"}',
    b'{"content": {"items": [{"imgId": "1", "title": {"a": 1}, "orgWidth": "9999999999999999999999"}]}}',
    b'{"status": "x", "data": {"list": [{"thumbUrl": "x", "title": [1, null]}]}}',
    b'<a class="iusc" m="{">',
    b'<a class="iusc" m>',
    b"imageSearchTabData={" + b"{" * 50,
    b"window.cardData = [1]</script>",
]


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: f"{parse.__module__}.{parse.__name__}")
@pytest.mark.parametrize("body", STRANGE, ids=range(len(STRANGE)))
def test_strange_answers_are_records_or_a_reason_and_never_a_crash(parse, body):
    try:
        page = parse(body)
    except ParseError as error:
        assert 0 < len(str(error)) < 160
    else:
        assert isinstance(page, ParsedPage)


RECORDED = [
    ("baidu/acjson_2018-07.partial.json", baidu.parse_acjson, 3),
    ("openverse/image_search_200.subset.json", openverse.parse_api, 1),
    ("inferred/naver_imageSearchTabData.SYNTHETIC.html", naver.parse_page, 1),
]


needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no recorded answers lie beside the checkout")


@needs_samples
@pytest.mark.parametrize(("name", "parse", "count"), RECORDED)
def test_recorded_answers(name, parse, count):
    page = parse((SAMPLES / name).read_bytes())
    assert len(page.images) == count
    assert all(image.variants[0].url.startswith("http") and image.page_url for image in page.images)


@needs_samples
def test_every_recorded_baidu_address_decodes_to_the_host_that_the_item_names():
    items = json.loads((SAMPLES / "baidu/acjson_2018-07.partial.json").read_text(encoding="utf-8"))["data"]
    for item in filter(None, items):
        assert baidu.decode_address(item["fromURL"]).split("/")[2] == item["fromURLHost"]


@needs_samples
def test_a_recorded_captcha_page_and_block_are_never_empty():
    with pytest.raises(ParseError, match="captcha"):
        baidu.parse_acjson((SAMPLES / "baidu/captcha_page_2026-04.html").read_bytes())
    with pytest.raises(ParseError, match="blocked"):
        baidu.parse_acjson((SAMPLES / "baidu/antiflag_2021-04.json").read_bytes())
