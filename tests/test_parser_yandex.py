"""Yandex answers in every shape that was seen or feared."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yandex_answers import entity, key_of, page, results_page, serp_list, xhr

from lib.domains import host_of, registrable_domain
from lib.engines import engines, parser_for
from lib.engines.parsing import LARGEST_BODY, MOST_CONTAINERS, address, flag, plain, text, whole
from lib.engines.yandex import parse_page, parse_xhr
from lib.records import ParsedPage, ParseError

ADAPTER = "i-react-ajax-adapter:ajax"
CAPTCHA_PAGE = (
    b'<html><head><title>Are you not a robot?</title></head><form action="/checkcaptcha?key=1"></form></html>'
)
EMPTY_PAGE = b'<html><div class="EmptySearchResults">nothing</div></html>'


def body(**blocks: Any) -> bytes:
    return json.dumps(blocks).encode()


def block(list_: dict[str, Any], name: Any = None) -> dict[str, Any]:
    return {"name": name or {"block": ADAPTER}, "params": {"adapterData": {"serpList": list_}}}


def only(answer: ParsedPage) -> Any:
    assert len(answer.images) == 1
    return answer.images[0]


def addresses(image: Any) -> list[tuple[str, str]]:
    return [(variant.kind, variant.url) for variant in image.variants]


def test_a_whole_entity_is_read() -> None:
    image = only(parse_xhr(xhr([entity(3)])))
    assert (image.engine_id, image.rank, image.title) == (key_of(3), 3, "Page of 3")
    assert image.page_url == "https://site3.example.org/pages/3"
    assert (image.snippet, image.domain) == ("A page about 3", "site3.example.org")
    assert (image.width, image.height, image.bytes) == (1920, 1280, 345_678)
    assert image.extra["alt"] == "Photo 3"
    assert addresses(image) == [
        ("original", "https://site3.example.org/photos/3.jpg"),
        ("dup", "https://mirror.example.com/3-4k.jpg"),
        ("thumb", f"https://thumbs.example.net/i?id={3:032x}&n=13"),
    ]
    assert {variant.referer for variant in image.variants} == {image.page_url}
    assert image.variants[1].width == 3840
    assert image.variants[1].bytes == 2_345_678


def test_page_and_xhr_give_the_same_pictures() -> None:
    entities = [entity(number) for number in range(5)]
    assert parse_page(results_page(entities)).images == parse_xhr(xhr(entities)).images


@pytest.mark.parametrize(
    "blocks",
    [
        [block(serp_list([entity(1)]))],
        [{"name": {"block": "extra-content"}}, block(serp_list([entity(1)]))],
        [block(serp_list([entity(1)])), {"name": {"block": "extra-content"}, "params": None}],
        [block(serp_list([entity(1)]), name="anything-new")],
        [None, 7, "text", block(serp_list([entity(1)]))],
        [{"params": {"adapterData": None}}, block(serp_list([entity(1)]))],
    ],
    ids=["alone", "second", "first", "renamed", "among-nonsense", "behind-null"],
)
def test_the_block_is_found_wherever_it_stands(blocks: list[Any]) -> None:
    assert only(parse_xhr(body(blocks=blocks))).rank == 1


def test_lists_of_several_states_are_merged_in_rank_order() -> None:
    first = {"initialState": {"serpList": serp_list([entity(4), entity(5)], next_url=None)}}
    second = {"initialState": {"serpList": serp_list([entity(1), entity(4)])}}
    answer = parse_page(page({"theme": "light"}, first, {"initialState": {}}, second))
    assert [image.rank for image in answer.images] == [1, 4, 5]
    assert answer.next_url == "/images/search?p=1"


def test_the_state_alone_is_read_too() -> None:
    assert only(parse_page(body(initialState={"serpList": serp_list([entity(2)])}))).rank == 2


def test_no_next_page_at_the_end() -> None:
    assert parse_xhr(xhr([entity(1)], next_url=None)).next_url == ""


@pytest.mark.parametrize(
    "change",
    [
        {"snippet": None},
        {"viewerData": None},
        {"snippet": {"title": None, "url": None, "domain": None, "text": None}},
        {"snippet": [], "viewerData": "text"},
        {"viewerData": {"preview": None, "dups": None, "thumb": None, "img_href": None}},
        {"viewerData": {"preview": [None, 3, {"url": None, "origin": None, "isMixedImage": True}], "dups": {}}},
        {"origUrl": None, "image": None, "alt": None, "pos": None},
        {"origWidth": None, "origHeight": "", "width": "x", "height": []},
        {"freshnessCounter": None, "gifLabel": None, "ecomShield": None, "censored": None},
    ],
)
def test_null_is_tolerated_anywhere(change: dict[str, Any]) -> None:
    assert only(parse_xhr(xhr([entity(1, **change)]))).engine_id == key_of(1)


@pytest.mark.parametrize("gone", sorted(entity(1)))
def test_any_key_may_be_missing(gone: str) -> None:
    found = entity(1)
    list_ = serp_list([found])
    del found[gone]
    assert only(parse_xhr(body(blocks=[block(list_)]))).engine_id == key_of(1)


def test_numbers_and_truth_values_may_be_text() -> None:
    image = only(
        parse_xhr(
            xhr(
                [
                    entity(
                        1,
                        pos="12",
                        origWidth="1024",
                        origHeight="768.0",
                        gifLabel="true",
                        censored="0",
                        ecomShield={"a": 1},
                    )
                ]
            )
        )
    )
    assert (image.rank, image.width, image.height) == (12, 1024, 768)
    assert (image.is_gif, image.is_censored, image.is_shop) == (True, False, True)


def test_freshness_is_a_word() -> None:
    assert only(parse_xhr(xhr([entity(1, freshnessCounter="normal")]))).extra["freshness"] == "normal"


def test_the_older_thumb_gives_its_size() -> None:
    viewer = {"thumb": {"url": "//thumbs.example.net/old", "size": {"width": 320, "height": "200"}}}
    image = only(parse_xhr(xhr([entity(1, viewerData=viewer, image=None)])))
    thumb = image.variants[-1]
    assert (thumb.kind, thumb.url, thumb.width, thumb.height) == ("thumb", "https://thumbs.example.net/old", 320, 200)


def test_a_mixed_image_gives_the_true_address() -> None:
    mixed = {"url": "https://proxy.example/p", "w": 9, "h": 9, "isMixedImage": True}
    viewer = {
        "preview": [{**mixed, "origin": {"w": 800, "h": 600, "url": "http://true.example/a.jpg"}}],
        "dups": [{**mixed, "url": "https://proxy.example/d", "origin": {"url": "http://true.example/b.jpg"}}],
    }
    image = only(parse_xhr(xhr([entity(1, viewerData=viewer, origUrl=None, image=None)])))
    assert addresses(image) == [
        ("original", "http://true.example/a.jpg"),
        ("preview", "https://proxy.example/p"),
        ("dup", "https://proxy.example/d"),
        ("dup", "http://true.example/b.jpg"),
    ]
    plain_image = {**mixed, "isMixedImage": "false", "origin": {"url": "http://other.example/"}}
    image = only(parse_xhr(xhr([entity(1, viewerData={"preview": [plain_image]}, origUrl=None, image=None)])))
    assert addresses(image) == [("preview", "https://proxy.example/p")]


def test_an_address_is_listed_once_with_all_that_was_claimed() -> None:
    link = "https://site.example/a.jpg"
    viewer = {
        "img_href": link,
        "preview": [{"url": link, "w": 10, "h": 20, "fileSizeInBytes": 30}],
        "dups": [{"url": link}],
    }
    image = only(parse_xhr(xhr([entity(1, origUrl=link, viewerData=viewer, image=None, origWidth=None)])))
    assert [(v.kind, v.width, v.height, v.bytes) for v in image.variants] == [("original", 10, 1280, 30)]


def test_keys_without_entities_and_entities_without_keys() -> None:
    list_ = serp_list([entity(2), entity(1)])
    list_["items"]["keys"] = ["gone", f"{1:032x}", 7, None]
    answer = parse_xhr(body(blocks=[block(list_)]))
    assert [image.rank for image in answer.images] == [1, 2]


def test_entities_may_be_a_list_and_positions_may_be_missing() -> None:
    list_ = {"items": {"entities": [entity(7, pos=None), entity(5, pos=None), entity(6, pos=None)]}}
    answer = parse_xhr(body(blocks=[block(list_)]))
    assert [(image.rank, image.engine_id) for image in answer.images] == [
        (0, key_of(7)),
        (1, key_of(5)),
        (2, key_of(6)),
    ]


def test_what_is_no_entity_is_skipped_and_counted() -> None:
    list_ = serp_list([entity(1)])
    list_["items"]["entities"] |= {"a": None, "b": [], "c": "text"}
    assert parse_xhr(body(blocks=[block(list_)])).skipped == 3


@pytest.mark.parametrize("list_", [{}, {"items": None}, {"items": {"keys": None, "entities": None}}, {"items": []}])
def test_an_empty_list_is_no_error(list_: dict[str, Any]) -> None:
    assert parse_xhr(body(blocks=[block(list_)])).images == ()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not_json"),
        (b"\x00\x01\xff", "not_json"),
        (b"{", "not_json"),
        (b"<html>blocked</html>", "not_json"),
        (CAPTCHA_PAGE, "captcha"),
        (b'{"type":"captcha","captcha":{"img-url":"x"}}', "captcha"),
        (b'{"captcha":1}', "captcha"),
        (b"[]", "no_serp_list"),
        (b"null", "no_serp_list"),
        (b"3", "no_serp_list"),
        (b'{"blocks":[]}', "no_serp_list"),
        (b'{"blocks":null}', "no_serp_list"),
        (b'{"blocks":[{"name":{"block":"i-react-ajax-adapter:ajax"},"params":{"adapterData":{}}}]}', "no_serp_list"),
        (b'{"blocks":{"1":{"params":{}}}}', "no_serp_list"),
        (b'{"a":' * 100_000, "not_json"),
        (b"[" * (MOST_CONTAINERS + 1), "too_complex"),
        (b" " * (LARGEST_BODY + 1), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:24].decode("latin-1"),
)
def test_an_xhr_that_cannot_be_read_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=f"^{reason}$"):
        parse_xhr(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (CAPTCHA_PAGE, "captcha"),
        (page({"initialState": {"cbirSites": {"sites": []}}}), "wrong_tab"),
        (page({"theme": 1}), "no_state"),
        (b"<html></html>", "no_state"),
        (b"", "no_state"),
        (b"<div data-state='{broken'></div>", "no_state"),
    ],
)
def test_a_page_that_holds_no_results_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=f"^{reason}$"):
        parse_page(raw)


def test_nothing_found_is_an_answer() -> None:
    assert parse_page(EMPTY_PAGE).images == ()


@pytest.mark.parametrize(
    ("written", "title"),
    [
        (r"tab\x here \d", r"tab\x here \d"),
        (r"half a \ud83d face", "half a \ufffd face"),
        (r"a whole \ud83d\ude00 face \ud800", "a whole \U0001f600 face \ufffd"),
        ("a raw\ttab and a raw\nline", "a raw tab and a raw line"),
        (r"a NUL \u0000 inside", "a NUL inside"),
        ("a raw \x00 NUL", "a raw NUL"),
    ],
)
def test_broken_json_is_mended(written: str, title: str) -> None:
    raw = xhr([entity(1, alt="ALT", snippet=None)]).replace(b'"ALT"', f'"{written}"'.encode())
    answer = parse_xhr(raw)
    assert only(answer).title == title
    assert answer.drift.get("repaired", False) == (written != r"a NUL \u0000 inside")


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    raw = xhr([entity(1, alt="ALT", snippet=None)]).replace(b"ALT", b"caf\xe9")
    assert only(parse_xhr(raw)).title == "caf\ufffd"


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert only(parse_xhr(b"\xef\xbb\xbf" + xhr([entity(1)]))).rank == 1


@pytest.mark.parametrize("quote", ['"', "'"])
def test_attributes_in_either_quotes_keep_their_urls(quote: str) -> None:
    link = "https://a.example/i?a=1&copy=2&amp;lt=3&quot;"
    state = json.dumps({"initialState": {"serpList": serp_list([entity(1, origUrl=link)])}})
    raw = f"<div\n data-state = {quote}{html.escape(state)}{quote}>".encode()
    assert only(parse_page(raw)).variants[0].url == link
    # A server that escapes the quotes only: `&copy=` must not become a copyright sign.
    loose = state.replace("&amp;lt=3&quot;", "").replace('"', "&quot;").replace("'", "&#x27;")
    assert (
        only(parse_page(f"<i data-state={quote}{loose}{quote}>".encode())).variants[0].url
        == "https://a.example/i?a=1&copy=2"
    )


def test_drift_is_reported() -> None:
    first, second = entity(1, newThing=1), entity(2, newThing=2, origUrl=None)
    first["viewerData"]["extraThing"] = 1
    list_ = serp_list([first, second])
    del first["alt"]
    drift = parse_xhr(body(blocks=[block(list_)])).drift
    assert drift == {
        "unknown": {"entity.newThing": 2, "viewerData.extraThing": 1},
        "missing": {"entity.alt": 1},
        "empty_originals": 0.5,
    }


def test_nothing_new_means_no_drift() -> None:
    assert parse_xhr(xhr([entity(1)])).drift == {}


def test_a_million_new_keys_make_a_small_report() -> None:
    hostile = entity(1, **{f"key{number}": 0 for number in range(50_000)})
    assert len(json.dumps(parse_xhr(xhr([hostile])).drift)) < 2_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, 7), ("7", 7), (" 7 ", 7), ("7.0", 7), (7.9, 7), (0, None), (-1, None), (True, None), (None, None),
     ("", None), ("x", None), ("9" * 1_000_000, None), (10**30, None), (float("inf"), None), ("nan", None), ([], None)],
)  # fmt: skip
def test_whole_numbers(value: Any, expected: int | None) -> None:
    assert whole(value) == expected


def test_other_values() -> None:
    assert [flag(v) for v in (1, "1", "yes", {"a": 1}, 0, "0", "False", "", None, [])] == [True] * 4 + [False] * 6
    assert plain("<b>a</b>&nbsp;&amp;  b") == "a & b"
    assert [text(v) for v in (5, 1.5, True, None, [], " a\x00b ")] == ["5", "1.5", "", "", "", "ab"]
    assert [address(v) for v in ("//a/b", " http://a ", "x" * 9000, None)] == ["https://a/b", "http://a", "", ""]


HOSTILE = """
import json, sys
from support import peak_megabytes
from lib.engines.yandex import parse_xhr
from lib.records import ParseError
kind = sys.argv[1]
one = {"preview": [{"url": f"a{n}"} for n in range(180)]}
entities = {
    "results": lambda: {f"k{n}": {"pos": n} for n in range(250_000)},
    "addresses": lambda: {f"k{n}": {"origUrl": f"http://o.example/{n}", "viewerData": one} for n in range(1_500)},
    "keys": lambda: {"k": {f"key{n}": n for n in range(600_000)}},
    "numbers": lambda: {"k": {"pos": "9" * 15_000_000}},
    "texts": lambda: {"k": {"alt": ["ab"] * 3_000_000}},
}[kind]()
body = json.dumps({"adapterData": {"serpList": {"items": {"entities": entities}}}}, separators=(",", ":")).encode()
del entities, one

try:
    found = str(len(parse_xhr(body).images))
except ParseError as error:
    found = str(error)
print(found, peak_megabytes())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured the POSIX way")
@pytest.mark.parametrize(
    ("kind", "found"),
    [("results", "too_complex"), ("addresses", "1500"), ("keys", "1"), ("numbers", "1"), ("texts", "1")],
)
def test_a_hostile_answer_stays_in_bounded_memory(kind: str, found: str) -> None:
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", HOSTILE, kind]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    result, megabytes = done.stdout.split()
    assert result == found, done.stderr
    assert int(megabytes) < 400  # the making of the file included


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, database=None)
@given(changes=st.dictionaries(st.sampled_from(sorted(entity(1))), _VALUES), viewer=st.dictionaries(
    st.sampled_from(["preview", "dups", "thumb", "img_href", "snippet"]), _VALUES | st.lists(
        st.dictionaries(st.sampled_from(["url", "w", "h", "fileSizeInBytes", "origin", "isMixedImage"]), _VALUES)
    )))  # fmt: skip
def test_no_value_of_any_type_breaks_the_parser(changes: dict[str, Any], viewer: dict[str, Any]) -> None:
    changed = {**entity(1, viewerData=viewer), **changes, "id": "one"}
    image = only(parse_xhr(json.dumps({"blocks": [block(serp_list([changed]))]}).encode()))
    assert image.rank >= 0
    assert len(set(image.variants)) == len(image.variants)
    for variant in image.variants:
        assert all(claim is None or 0 < claim < 2**63 for claim in (variant.width, variant.height, variant.bytes))


@settings(max_examples=80, deadline=None, database=None)
@given(raw=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_end_as_an_answer_or_a_reason(raw: bytes) -> None:
    for parse in (parse_page, parse_xhr):
        try:
            parse(raw)
        except ParseError as error:
            assert str(error)


def test_the_registry_names_its_parsers() -> None:
    assert "yandex" in engines()
    assert parser_for("yandex", "page").name.startswith("yandex-page/")
    with pytest.raises(ParseError, match="no_parser"):
        parser_for("nobody", "xhr")


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("img.example.co.uk", "example.co.uk"), ("VK.com", "vk.com"), ("sun9-1.userapi.com.", "userapi.com"),
        ("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("localhost", "localhost"), ("co.uk", "co.uk"), ("", ""),
        ("кто.рф", "xn--j1ail.xn--p1ai"),
        ("a.b.internal", "b.internal"), ("a..b", "a.b"), ("name.github.io", "github.io"),
    ],
)  # fmt: skip
def test_registrable_domains(host: str, domain: str) -> None:
    assert registrable_domain(host) == domain


def test_hosts_of_urls() -> None:
    urls = ["https://u:p@Example.org:80/x", "http://[::1]:8/", "http:///x", "data:xx", "", "https://a.b.?q"]
    assert [host_of(url) for url in urls] == ["example.org", "::1", "", "", "", "a.b"]


TEMPLATES = sorted(Path(__file__).parents[2].joinpath("shared", "samples", "inferred").glob("yandex_*"))

if TEMPLATES:  # samples that some keep beside the checkout

    @pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
    def test_templates_kept_beside_the_checkout(path: Path) -> None:
        image = only((parse_page if path.suffix == ".html" else parse_xhr)(path.read_bytes()))
        assert image.page_url == "https://example.org/a/"
        assert [variant.kind for variant in image.variants] == ["original", "dup", "dup", "thumb"]
