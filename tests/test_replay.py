"""`--replay`: answers captured elsewhere go through the same judging, parsing and storing as fetched ones."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import as_rows, drawing, dump, load_step, snapshot
from yandex_answers import entity, page, serp_list, xhr

from demo import Gallery, running_gallery
from lib.collect.replay import Places, read_captured
from lib.engines.base import API, PAGE, XHR, PageResponse, SearchRequest, load_engine
from lib.engines.yandex import page_address, xhr_address
from lib.errors import UsageError
from lib.web.browser import require_browser

BOAT = ["--engine", "yandex", "--keywords", "boat"]
COM = "https://yandex.com"
WORDS = "photo drawing"  # found in every picture


@pytest.fixture(autouse=True)
def no_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay needs neither a browser nor keys."""
    monkeypatch.setenv("GLEANER_BROWSER", str(tmp_path / "no-browser"))


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    with running_gallery(pictures=60, page_size=10, results=50, broken=False) as made:
        yield made


def collect(workspace: Path, *arguments: object) -> int:
    code: int = load_step("collect").main(["--workspace", str(workspace), *map(str, arguments)])
    return code


def rows(workspace: Path, sql: str) -> list[tuple[Any, ...]]:
    return as_rows(workspace / "gleaner.db", sql)


def stored(workspace: Path) -> list[tuple[int, str, str, int]]:
    return rows(workspace, "SELECT page, part, outcome, items FROM responses ORDER BY page")


def ended(workspace: Path) -> list[tuple[str, str, str]]:
    return rows(workspace, "SELECT state, outcome, detail FROM queries")


def first_page(*numbers: int) -> bytes:
    return page({"initialState": {"serpList": serp_list([entity(number) for number in numbers])}})


def later_page(*numbers: int) -> bytes:
    return xhr([entity(number) for number in numbers])


def entry(url: str, body: bytes, status: int = 200, *, encoded: bool = False, **headers: str) -> dict[str, Any]:
    content: dict[str, Any] = {"mimeType": "text/html", "text": body.decode()}
    if encoded:
        content |= {"encoding": "base64", "text": base64.b64encode(body).decode()}
    listed = [{"name": name.replace("_", "-").title(), "value": value} for name, value in headers.items()]
    response = {"status": status, "headers": listed, "content": content}
    return {
        "startedDateTime": "2026-03-01T10:00:00.500Z",
        "request": {"method": "GET", "url": url},
        "response": response,
    }


def har(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps({"log": {"version": "1.2", "entries": list(entries)}}))
    return path


def asked(number: int, words: str = "boat") -> str:
    if number == 0:
        return f"{COM}/images/search?text={words}&lr=213"
    return xhr_address(COM, SearchRequest("keyword", words), {}, number)


def test_a_har_is_taken_as_if_it_had_been_fetched(tmp_path):
    saved = har(
        tmp_path / "saved.har",
        entry(f"{COM}/images/", b"<html>front</html>"),
        entry(asked(1), later_page(3, 4), encoded=True),  # not in order
        entry(asked(0), first_page(1, 2), content_type="text/html", set_cookie="secret=1"),
        entry(asked(0, "other"), first_page(8, 9)),  # another search in the same session
        entry("https://mc.yandex.com/watch", b"{}"),
        entry(
            f"{COM}/images/search?format=json&request=%7B%7D&text=boat", b'{"blocks":[]}'
        ),  # the site's other requests
        entry(asked(2), b"", 0),  # broken off
        "no entry",
    )
    arguments = [*BOAT, "--replay", saved]
    assert collect(tmp_path / "ws", *arguments) == 0
    assert stored(tmp_path / "ws") == [(0, "page", "ok", 2), (1, "xhr", "ok", 2)]
    assert ended(tmp_path / "ws") == [("done", "ok", "")]
    found = rows(tmp_path / "ws", "SELECT url, fetched_at, headers FROM responses ORDER BY page")
    assert found[0] == (asked(0), "2026-03-01T10:00:00.500Z", '{"content-type": "text/html"}')
    before, kept = snapshot(tmp_path / "ws" / "xhr"), dump(tmp_path / "ws" / "gleaner.db")
    assert collect(tmp_path / "ws", *arguments) == 0
    assert (snapshot(tmp_path / "ws" / "xhr"), dump(tmp_path / "ws" / "gleaner.db")) == (before, kept)


def test_answers_that_overtake_each_other_keep_the_page_that_was_asked_for(tmp_path):
    """The reference pipeline's counter of answers raced with the order in which they came."""
    answers = [entry(asked(0), first_page(1)), *(entry(asked(n), later_page(n + 1)) for n in (1, 2, 3, 4))]
    for name, order in {"straight": (0, 1, 2, 3, 4), "overtaken": (0, 3, 1, 4, 2)}.items():
        saved = har(tmp_path / f"{name}.har", *(answers[place] for place in order))
        assert collect(tmp_path / name, *BOAT, "--replay", saved) == 0
    assert stored(tmp_path / "overtaken") == stored(tmp_path / "straight")
    assert [number for number, *_ in stored(tmp_path / "overtaken")] == [0, 1, 2, 3, 4]
    assert snapshot(tmp_path / "overtaken" / "xhr") == snapshot(tmp_path / "straight" / "xhr")


def test_a_longer_capture_goes_on_where_the_shorter_one_ended(tmp_path):
    entries = [entry(asked(0), first_page(1, 2)), entry(asked(1), later_page(3)), entry(asked(2), later_page(3))]
    assert collect(tmp_path / "ws", *BOAT, "--replay", har(tmp_path / "a.har", *entries[:1])) == 0
    assert collect(tmp_path / "ws", *BOAT, "--replay", har(tmp_path / "b.har", *entries)) == 0
    assert stored(tmp_path / "ws")[:2] == [(0, "page", "ok", 2), (1, "xhr", "ok", 1)]
    assert ended(tmp_path / "ws") == [("done", "end", "no_new_results")]


@pytest.mark.parametrize(
    ("entries", "end", "pages"),
    [
        # A redirect to the captcha, with and without the page that it leads to.
        (
            [entry(asked(0), b"", 302, location="/showcaptcha?x=1"), entry(f"{COM}/showcaptcha?x=1", b"<html></html>")],
            ("pending", "captcha", ""), [(0, "captcha")],
        ),
        ([entry(asked(0), b"", 302, location="/showcaptcha?x=1")], ("pending", "captcha", ""), [(0, "captcha")]),
        (
            [entry(asked(0), first_page(1)), entry(asked(1), b'{"type":"captcha","captcha":{}}')],
            ("pending", "captcha", ""), [(0, "ok"), (1, "captcha")],
        ),
        # Asking to wait was for those who asked then.
        ([entry(asked(0), b"", 429, retry_after="9000")], ("pending", "blocked", "http_429"), [(0, "blocked")]),
        ([entry(asked(0), b"<html>new</html>")], ("failed", "parse_error", "no_serp_list"), [(0, "parse_error")]),
        (
            [entry(asked(0), b'<div class="EmptySearchResults"></div>')],
            ("done", "empty", ""), [(0, "empty")],
        ),
        (
            [entry(asked(0), first_page(1)), entry(asked(1), b"{}", 404)],
            ("done", "end", "http_404"), [(0, "ok"), (1, "end")],
        ),
        # The better answer to a repeated request counts.
        ([entry(asked(0), first_page(1)), entry(asked(0), b"", 429)], ("done", "ok", ""), [(0, "ok")]),
    ],
)  # fmt: skip
def test_every_outcome_is_recorded(tmp_path, entries, end, pages):
    assert collect(tmp_path / "ws", *BOAT, "--replay", har(tmp_path / "saved.har", *entries)) == 0
    assert ended(tmp_path / "ws") == [end]
    assert rows(tmp_path / "ws", "SELECT page, outcome FROM responses ORDER BY page") == pages
    assert rows(tmp_path / "ws", "SELECT not_before FROM queries") == [("",)]


def test_strict_and_drift_hold_for_a_replay(tmp_path, capsys):
    broken = har(tmp_path / "broken.har", entry(asked(0), b"<html>new</html>"))
    assert collect(tmp_path / "ws", *BOAT, "--replay", broken, "--strict") == 3
    fine = har(tmp_path / "fine.har", entry(asked(0, "cat"), first_page(*range(1, 9))))
    assert collect(tmp_path / "ws", "--keywords", "cat", "--replay", fine) == 0
    other = [{**entity(number), "aiBadge": 1} for number in range(11, 19)]
    body = page({"initialState": {"serpList": serp_list(other)}})
    strange = har(tmp_path / "strange.har", entry(asked(0, "dog"), body))
    capsys.readouterr()
    assert collect(tmp_path / "ws", "--keywords", "dog", "--replay", strange) == 0
    assert "another shape than before: unknown on most results: entity.aiBadge" in capsys.readouterr().err


ODD: list[Any] = [None, 7, "x", [], {}, {"name": 1}, "http://[", -1, "\ud83d"]


@pytest.mark.parametrize("place", ["url", "status", "headers", "content", "text", "location", "request", "response"])
def test_a_damaged_entry_spoils_nothing(tmp_path, place):
    entries: list[Any] = []
    for value in ODD:
        made = entry(asked(1), b"", 302, location="/images/")
        holder = {
            "url": made["request"], "text": made["response"]["content"], "location": made["response"]["headers"][0],
            "request": made, "response": made,
        }.get(place, made["response"])  # fmt: skip
        holder["value" if place == "location" else place] = value
        entries.append(made)
    saved = har(tmp_path / "a.har", entry(asked(0), first_page(1, 2)), *entries)
    assert collect(tmp_path / "ws", *BOAT, "--replay", saved) == 0
    assert stored(tmp_path / "ws")[0] == (0, "page", "ok", 2)


def test_a_gap_is_told_and_not_jumped_over(tmp_path, capsys):
    saved = har(tmp_path / "a.har", entry(asked(0), first_page(1)), entry(asked(2), later_page(5)))
    assert collect(tmp_path / "ws", *BOAT, "--replay", saved) == 0
    assert "page 1 is not in" in capsys.readouterr().err
    assert [number for number, *_ in stored(tmp_path / "ws")] == [0]


def test_a_dry_run_says_what_each_page_would_be_taken_for(tmp_path, capsys):
    saved = har(tmp_path / "a.har", entry(asked(0), first_page(1)), entry(asked(1), b'{"captcha":{}}'))
    assert collect(tmp_path / "ws", *BOAT, "--replay", saved, "--dry-run") == 0
    assert not (tmp_path / "ws").exists()
    assert capsys.readouterr().out.splitlines() == [
        "Would take page 0 of yandex: ok",
        "Would take page 1 of yandex: captcha",
    ]


@pytest.mark.parametrize(
    ("arguments", "content", "words"),
    [
        (["--keywords", "boat"], None, "does not exist"),
        ([], "{}", "needs the query"),
        (["--keywords", "a", "b"], "{}", "2 were given"),
        (["--keywords", "a", "--engine", "yandex", "bing"], "{}", "one --engine"),
        (["--keywords", "a"], '{"log":{"entries":[]}}', "holds no answer of yandex"),
        (["--keywords", "a"], '{"log":{"ent', "no HAR file"),
        (["--keywords", "a"], "[" * 100_000, "no HAR file"),
        (["--keywords", "a"], '{"log":{"entries":[{"request":1},{"response":{"status":"x"}}]}}', "holds no answer"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(tmp_path, capsys, arguments, content, words):
    if content is not None:
        (tmp_path / "saved.har").write_text(content)
    assert collect(tmp_path / "ws", *arguments, "--replay", tmp_path / "saved.har") == 2
    said = capsys.readouterr().err.strip()
    assert words in said and len(said.splitlines()) == 1


def test_a_har_of_a_real_browser(gallery, tmp_path, monkeypatch):
    monkeypatch.delenv("GLEANER_BROWSER")
    saved = tmp_path / "session.har"
    asyncio.run(browse(gallery, saved))
    asked_before = dict(gallery.counters["asked"])
    arguments = ["--engine", "yandex", "--keywords", WORDS, "--host", gallery.url]
    assert collect(tmp_path / "replayed", *arguments, "--replay", saved) == 0
    assert gallery.counters["asked"] == asked_before
    assert stored(tmp_path / "replayed") == [(0, "page", "ok", 10), (1, "xhr", "ok", 10), (2, "xhr", "ok", 10)]
    assert collect(tmp_path / "fetched", *arguments, "--max-pages", 3) == 0
    bodies = [rows(tmp_path / name, "SELECT sha256 FROM responses ORDER BY page") for name in ("replayed", "fetched")]
    assert bodies[0] == bodies[1]
    assert collect(tmp_path / "replayed", *arguments, "--max-pages", 4) == 0  # a live run goes on from there
    assert [number for number, *_ in stored(tmp_path / "replayed")] == [0, 1, 2, 3]


async def browse(gallery: Gallery, saved: Path) -> None:
    """A session as a person has it: the front page, a search, two more pages of results."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=require_browser(headed=False).executable_path, args=["--no-sandbox"]
        )
        context = await browser.new_context(record_har_path=saved, service_workers="block")
        visited = await context.new_page()
        await visited.goto(gallery.url)
        await visited.goto(f"{gallery.url}/images/search?text={WORDS}")
        for number in (1, 2):
            url = xhr_address(gallery.url, SearchRequest("keyword", WORDS), {}, number)
            await visited.evaluate("async url => { await (await fetch(url)).text() }", url)
        await context.close()
        await browser.close()


def test_a_har_of_a_search_by_picture(tmp_path, capsys):
    """Searches by words and by another picture in the same session are told from it."""
    drawing(1).save(tmp_path / "one.jpg")
    by_picture = [{"cbir_id": f"1/{name}", "image_url": f"https://a.example/{name}/orig"} for name in ("one", "two")]
    entries = [entry(asked(0), first_page(7, 8))]
    for number, (told, start) in enumerate(zip(by_picture, (1, 11), strict=True)):
        query = SearchRequest("image")
        entries.append(entry(page_address(COM, query, told), first_page(start, start + 1)))
        entries.append(entry(xhr_address(COM, query, told, 1), later_page(start + 2), 304 if number else 200))
    saved = har(tmp_path / "saved.har", *entries)
    assert collect(tmp_path / "ws", "--images", tmp_path / "one.jpg", "--replay", saved) == 0
    assert stored(tmp_path / "ws") == [(0, "page", "ok", 2), (1, "xhr", "ok", 1)]
    urls = [url for (url,) in rows(tmp_path / "ws", "SELECT url FROM responses")]
    assert all("cbir_id=1%2Fone" in url for url in urls)
    assert "several pictures" in capsys.readouterr().err


def test_our_own_raw_answers_give_the_same_rows(tmp_path):
    """The XHR's list is not in `blocks[0]` here, which is where the reference pipeline looked."""
    saved = har(tmp_path / "a.har", entry(asked(0), first_page(1, 2)), entry(asked(1), later_page(3, 4)))
    assert collect(tmp_path / "one", *BOAT, "--replay", saved) == 0
    (folder,) = (tmp_path / "one" / "xhr" / "yandex").iterdir()
    assert collect(tmp_path / "two", *BOAT, "--replay", folder) == 0
    sql = "SELECT page, part, outcome, sha256, items, drift FROM responses ORDER BY page"
    assert rows(tmp_path / "one", sql) == rows(tmp_path / "two", sql)
    assert snapshot(tmp_path / "one" / "xhr") == snapshot(tmp_path / "two" / "xhr")


def test_single_files_and_refusals(tmp_path):
    (tmp_path / "saved page.html").write_bytes(first_page(1, 2))
    assert collect(tmp_path / "a", *BOAT, "--replay", tmp_path / "saved page.html") == 0
    assert stored(tmp_path / "a") == [(0, "page", "ok", 2)]
    (tmp_path / "answer.json").write_bytes(later_page(1, 2))
    assert collect(tmp_path / "b", *BOAT, "--replay", tmp_path / "answer.json") == 0
    assert stored(tmp_path / "b") == [(0, "xhr", "ok", 2)]
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "0.html").write_bytes(first_page(1, 2))
    (folder / "1.captcha.html").write_bytes(b'<form action="/checkcaptcha"></form>')
    assert collect(tmp_path / "c", *BOAT, "--replay", folder) == 0
    assert stored(tmp_path / "c") == [(0, "page", "ok", 2), (1, "xhr", "captcha", 0)]


BODIES = [b"", b"null", b"[]", b"7", b'"text"', b"{}", b'{"blocks":[]}', b'{"blocks":[null]}', b'{"blocks":{"0":1}}',
          b'{"blocks":[{"params":null}]}', b"\x00\xff", b"<html>", b'{"data":null}', b'{"images":[null]}']  # fmt: skip


@pytest.mark.parametrize(
    "engine", ["yandex", "yandex-cloud", "baidu", "naver", "naver-api", "bing", "openverse", "commons"]
)
def test_unexpected_bodies_end_in_an_outcome_and_no_traceback(tmp_path, capsys, engine):
    """The reference pipeline's `IndexError` and `TypeError` on an unexpected body."""
    for place, body in enumerate(BODIES):
        (tmp_path / f"{place}.json").write_bytes(body)
        given = ["--engine", engine, "--keywords", f"w{place}", "--replay", tmp_path / f"{place}.json"]
        assert collect(tmp_path / "ws", *given) == 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    outcomes = {outcome for (outcome,) in rows(tmp_path / "ws", "SELECT outcome FROM queries")}
    assert len(rows(tmp_path / "ws", "SELECT id FROM queries")) == len(BODIES)
    assert outcomes and not outcomes & {"", "ok"}


@pytest.mark.parametrize("name", ["yandex", "baidu", "naver", "naver-api", "bing", "openverse", "commons"])
def test_an_engines_own_addresses_are_recognised(name: str) -> None:
    engine, ask = load_engine(name, {}), SearchRequest("keyword", "wooden boat")
    host = engine.hosts[0]
    places = Places(engine, host, ask)
    nothing = PageResponse(PAGE, host, 200, {}, b"")
    values = [places.of(engine.address(host, ask, {}, number), None, nothing) for number in range(4)]
    assert None not in values and places.pages([v for v in values if v is not None]) == [0, 1, 2, 3]
    other = SearchRequest("keyword", "other words")
    assert places.of(engine.address(host, other, {}, 1), None, nothing) is None
    assert places.of(urlsplit(host)._replace(path="/elsewhere").geturl(), None, nothing) is None


def test_pages_of_another_size_are_numbered_in_their_order() -> None:
    places = Places(load_engine("bing", {}), "https://www.bing.com", SearchRequest("keyword", "a"))
    assert places.pages([1, 36, 71]) == [0, 1, 2]
    assert places.pages([1, 29, 57, 29]) == [0, 1, 2, 1]


def test_an_api_that_is_asked_by_posts_tells_the_page_in_the_body(tmp_path):
    url = "https://searchapi.api.cloud.yandex.net/v2/image/search"
    entries = []
    for number in (0, 1):
        made = entry(url, json.dumps({"rawData": "eA=="}).encode())
        made["request"]["postData"] = {"text": json.dumps({"query": {"queryText": "a", "page": number}})}
        entries.append(made)
    engine = load_engine("yandex-cloud", {})
    found = read_captured(har(tmp_path / "a.har", *entries), engine, engine.hosts[0], SearchRequest("keyword", "a"))
    assert [(n, found[n].answer.part, found[n].answer.url) for n in sorted(found)] == [
        (0, API, f"{url}#page=0"),
        (1, API, f"{url}#page=1"),
    ]


def test_a_folder_without_answers_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    engine = load_engine("yandex", {})
    assert read_captured(tmp_path / "empty", engine, COM, SearchRequest("keyword", "a")) == {}
    (tmp_path / "broken.har").write_text("x")
    with pytest.raises(UsageError):
        read_captured(tmp_path / "broken.har", engine, COM, SearchRequest("keyword", "a"))
    assert engine.part(1) == XHR
