"""Step 1 over several engines: with and without a browser, filters, proxies, a person at a captcha, every trouble."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Error, async_playwright
from support import PATIENCE, ROOT, as_rows, drawing, dump, load_step, snapshot, wait_until

from demo import Gallery, keys, running_gallery
from lib.collect.engine_run import CaptchaPause, captcha_address
from lib.collect.pace import Interrupted, RateLimiter
from lib.collect.show import Shape, jumps
from lib.engines import FILTER_VALUES
from lib.engines.base import PAGE, FetchError, PageResponse, load_engine
from lib.web.browser import BrowserSettings, BrowserWeb, Chromium, require_browser

WORDS = "photo drawing"  # found in every picture
KEYS = {
    "YANDEX_CLOUD_API_KEY": keys.YANDEX_CLOUD_KEY,
    "YANDEX_CLOUD_FOLDER_ID": keys.YANDEX_CLOUD_FOLDER,
    "NAVER_HUB_KEY_ID": keys.NAVER_ID,
    "NAVER_HUB_KEY": keys.NAVER_SECRET,
    "GLEANER_CONTACT": "gallery@example.org",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Gallery]:
    with running_gallery(pictures=320, page_size=40, results=310, broken=False) as gallery:
        yield gallery


@pytest.fixture
def gallery(running: Gallery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    """The gallery with clean counters and no faults, and all of its keys."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    forget(running)
    yield running
    running.clear_faults()


def forget(gallery: Gallery) -> None:
    gallery.clear_faults()
    gallery.site.board.asked.clear()
    gallery.site.board.served.clear()


@pytest.fixture
def one(tmp_path: Path) -> Path:
    drawing(3).save(tmp_path / "one.jpg")
    return tmp_path / "one.jpg"


def collect(gallery: Gallery, workspace: Path, *arguments: object) -> int:
    given = ["--workspace", str(workspace), "--host", gallery.url, *map(str, arguments)]
    code: int = load_step("collect").main(given)
    return code


def served(gallery: Gallery, engine: str) -> dict[str, int]:
    """Honest answers by result page."""
    found = gallery.counters["served"].items()
    return {name: count for name, count in found if name.startswith(f"{engine}/") and "p=" in name}


def rows(workspace: Path, sql: str) -> list[tuple[Any, ...]]:
    return as_rows(workspace / "gleaner.db", sql)


def ended(workspace: Path) -> dict[str, tuple[str, str]]:
    return {
        engine: (state, how) for engine, state, how in rows(workspace, "SELECT engine, state, outcome FROM queries")
    }


def pages(workspace: Path, engine: str) -> list[int]:
    sql = "SELECT page, responses.outcome FROM responses JOIN queries ON queries.id = query_id WHERE engine = '{}'"
    return sorted(page for page, outcome in rows(workspace, sql.format(engine)) if outcome == "ok")


def test_engines_without_a_browser_start_none_and_run_side_by_side(gallery, tmp_path, monkeypatch):
    monkeypatch.setenv("GLEANER_BROWSER", str(tmp_path / "no-browser"))
    engines = ["openverse", "commons", "bing", "baidu", "naver-api", "yandex-cloud"]
    gallery.set_fault("slow=0.5@openverse/")
    arguments = ["--engine", *engines, "--keywords", WORDS, "--max-pages", 2]
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    assert ended(tmp_path / "ws") == dict.fromkeys(engines, ("done", "ok"))
    assert all(pages(tmp_path / "ws", name) == [0, 1] for name in engines)
    assert all(set(served(gallery, name).values()) == {1} for name in engines)
    before, stored = snapshot(tmp_path / "ws" / "xhr"), dump(tmp_path / "ws" / "gleaner.db")
    gallery.site.board.asked.clear()
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    assert (snapshot(tmp_path / "ws" / "xhr"), dump(tmp_path / "ws" / "gleaner.db")) == (before, stored)
    assert not gallery.counters["asked"]
    assert collect(gallery, tmp_path / "ws") == 0  # where nothing is queued, no browser is missed


def test_a_captcha_at_one_engine_stops_that_one_only(gallery, tmp_path, capsys):
    gallery.set_fault("captcha@bing/:1")
    arguments = ["--engine", "bing", "openverse", "yandex", "--keywords", WORDS, "flower", "--max-pages", 2]
    assert collect(gallery, tmp_path / "ws", *arguments) == 4
    said = capsys.readouterr().err
    assert "bing showed a captcha; its queue is kept" in said and "openverse showed" not in said
    assert "--headed" not in said  # there is no browser to be seen
    found = rows(tmp_path / "ws", "SELECT engine, state, not_before <> '' FROM queries ORDER BY engine, id")
    assert found == [("bing", "pending", 1)] * 2 + [("openverse", "done", 0)] * 2 + [("yandex", "done", 0)] * 2
    forget(gallery)
    assert collect(gallery, tmp_path / "ws", "--retry", "captcha") == 0  # finds out by itself where
    assert {state for state, _ in ended(tmp_path / "ws").values()} == {"done"}
    assert set(served(gallery, "bing").values()) == {1} and not served(gallery, "openverse")


def test_a_lost_database_comes_back_with_its_queries_and_no_page_is_asked_for_again(gallery, tmp_path):
    workspace = tmp_path / "ws"
    base = ["--engine", "bing", "openverse", "--keywords", WORDS, "--type", "photo", "--max-pages"]
    asked_for = "SELECT engine, kind, text, params FROM queries ORDER BY engine"
    assert collect(gallery, workspace, *base, 2) == 0
    before, kept = rows(workspace, asked_for), {name: pages(workspace, name) for name in ("bing", "openverse")}
    assert kept == {"bing": [0, 1], "openverse": [0, 1]}
    for path in workspace.glob("gleaner.db*"):
        path.unlink()
    assert load_step("ingest").main(["--workspace", str(workspace), "--rescan", "-q"]) == 0
    assert rows(workspace, asked_for) == before
    gallery.site.board.asked.clear()
    assert collect(gallery, workspace, *base, 2) == 0
    assert not gallery.counters["asked"]
    assert collect(gallery, workspace, *base, 3) == 0
    assert {name.rpartition("p=")[2] for name in gallery.counters["asked"]} == {"2"}


def test_commons_without_a_contact_is_refused_before_anything_is_asked(gallery, tmp_path, monkeypatch, capsys):
    arguments = ["--engine", "openverse", "commons", "--keywords", WORDS, "--max-pages", 1]
    for contact in (" ", "me", "somebody at home"):
        monkeypatch.setenv("GLEANER_CONTACT", contact)
        assert collect(gallery, tmp_path / "ws", *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: commons") and said.count("\n") == 1 and "GLEANER_CONTACT" in said
    assert not (tmp_path / "ws").exists() and not gallery.counters["asked"]
    assert collect(gallery, tmp_path / "ws", *arguments, "--dry-run") == 0  # which says so too
    said = capsys.readouterr()
    assert "Would be refused: commons" in said.out and "next:" not in said.err
    monkeypatch.setenv("GLEANER_CONTACT", "https://example.org/me")
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    assert "GLEANER_CONTACT" not in capsys.readouterr().err


def test_openverse_without_a_contact_is_warned_of_once(gallery, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLEANER_CONTACT", " ")
    assert collect(gallery, tmp_path / "ws", "--engine", "openverse", "--keywords", WORDS, "--max-pages", 1) == 0
    assert capsys.readouterr().err.count("GLEANER_CONTACT") == 1


def test_a_number_of_results_decides_about_the_pages(gallery, tmp_path, monkeypatch, capsys):
    """Pages are short here, as they are anywhere: how many make up the results is only known as they come."""
    workspace = tmp_path / "ws"
    asked_for = ["--engine", "openverse", "bing", "--keywords", WORDS, "photo"]
    assert collect(gallery, workspace, *asked_for, "--max-pages", 1) == 0
    said = capsys.readouterr().err
    assert "openverse stopped at --max-pages 1:" in said and "bing stopped at --max-pages 1:" in said
    assert collect(gallery, workspace, *asked_for, "--max-results", 150, "--json") == 0
    printed, said = capsys.readouterr()
    found = json.loads(printed)
    stopped = found["result"]["stopped"]
    assert {(entry["engine"], entry["query"]) for entry in stopped} == {
        (engine, repr(word)) for engine in ("openverse", "bing") for word in (WORDS, "photo")
    }
    for entry in stopped:
        reached = entry["results"] >= 150
        assert entry["stopped_by"] == ("max_results" if reached else "source_end"), entry
        assert entry["max_results"] == 150 and entry["pages"] > 1
    assert any(entry["stopped_by"] == "max_results" for entry in stopped) and "stopped at --max-results 150" in said
    # The same again asks nothing; without any limit the default of five pages lies behind us.
    gallery.site.board.asked.clear()
    assert collect(gallery, workspace, *asked_for, "--max-results", 150) == 0
    assert not gallery.counters["asked"]


def test_the_engines_own_limits_are_named(gallery, tmp_path, capsys):
    collect(gallery, tmp_path / "ws", "--engine", "openverse", "--keywords", WORDS)
    assert (
        "openverse stopped at the default of 5 pages (--max-results or --max-pages goes on)" in capsys.readouterr().err
    )
    collect(gallery, tmp_path / "ws", "--engine", "openverse", "--keywords", WORDS, "--max-results", 5000)
    assert "openverse stopped where the source ends:" in capsys.readouterr().err


def test_the_progress_of_a_search_is_its_pages(gallery, tmp_path, monkeypatch):
    bars = []

    class Shown:
        def __init__(self, total, unit):
            self.total, self.unit, self.n = total, unit, 0

        def update(self, n=1):
            self.n += n

        def set_postfix_str(self, s="", refresh=True):
            pass

        def expect(self, more):
            self.total += more

    @contextmanager
    def bar(total=None, description="", unit="it"):
        bars.append(Shown(total, unit))
        yield bars[-1]

    monkeypatch.setattr(sys.modules["lib.cli.run"], "terminal_bar", bar)
    for more, due in ((["--max-pages", 2], 4), (["--max-results", 100], 6), (["--max-pages", 90], None)):
        assert collect(gallery, tmp_path / "ws", "--engine", "openverse", "--keywords", WORDS, "photo", *more) == 0
        assert bars[-1].unit == "page" and bars[-1].n == bars[-1].total == (due or bars[-1].n)
    assert len(bars) == 3


def test_a_last_page_that_repeats_is_not_counted_twice(gallery, tmp_path, capsys):
    assert collect(gallery, tmp_path / "ws", "--engine", "bing", "--keywords", WORDS, "--max-pages", 20) == 0
    sql = "SELECT outcome, items FROM responses ORDER BY page"
    assert rows(tmp_path / "ws", sql)[-1][0] == "end" and rows(tmp_path / "ws", sql)[-1][1] > 0
    new = sum(items for outcome, items in rows(tmp_path / "ws", sql) if outcome == "ok")
    capsys.readouterr()
    assert collect(gallery, tmp_path / "ws", "--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"]["queries"][0]["items"] == new


def test_an_engine_that_has_to_wait_does_not_hold_up_the_others(gallery, tmp_path, capsys):
    arguments = ["--engine", "openverse", "commons", "--keywords", WORDS, "--max-pages", 1]
    gallery.set_fault("429=4000@openverse/")
    assert collect(gallery, tmp_path / "ws", *arguments) == 4
    forget(gallery)
    assert collect(gallery, tmp_path / "ws", *arguments, "--keywords", WORDS, "flower") == 4
    assert "openverse asked to be left alone until" in capsys.readouterr().err
    assert not served(gallery, "openverse") and len(served(gallery, "commons")) == 1
    # A wait is the engine's, whatever a query is narrowed by.
    assert collect(gallery, tmp_path / "ws", *arguments[:2], "--keywords", "new", "--size", "large") == 4
    assert not served(gallery, "openverse")


@pytest.mark.parametrize(
    ("unset", "arguments", "words"),
    [
        ("YANDEX_CLOUD_API_KEY", ["--engine", "openverse", "yandex-cloud"], "YANDEX_CLOUD_API_KEY"),
        ("NAVER_HUB_KEY", ["--engine", "naver-api"], "NAVER_HUB_KEY"),
        ("", ["--engine", "openverse", "naver"], "GLEANER_BROWSER"),
        ("", ["--engine", "openverse", "--proxy", "socks5://127.0.0.1:9"], "http://HOST:PORT"),
        ("", ["--engine", "commons", "--size", "small", "--orientation", "square"], "commons cannot filter by"),
        ("", ["--engine", "openverse", "--type", "face"], "openverse cannot filter by type 'face'"),
        ("", ["--engine", "openverse", "bing", "--host", "www.bing.com"], "--host belongs to one engine"),
        ("", ["--engine", "openverse", "--pause-on-captcha"], "--headed"),
        ("", ["--engine", "openverse", "--pause-on-captcha", "--headed"], "openverse use none"),
        ("", ["--engine", "openverse", "--profile", "p"], "--pause-on-captcha"),
        ("", ["--engine", "openverse", "--yes"], "--expand"),
        ("", ["--engine", "openverse", "--list", "--drift"], "do not go together"),
        ("", ["--engine", "openverse", "--host", "api.openverse.org", "--pace", "1"], "--i-am-allowed"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_anything_starts(
    gallery, tmp_path, monkeypatch, capsys, unset, arguments, words
):
    monkeypatch.setenv("GLEANER_BROWSER", str(tmp_path / "no-browser"))
    if unset:
        monkeypatch.delenv(unset)
    assert collect(gallery, tmp_path / "ws", "--keywords", WORDS, *arguments) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and len(said.splitlines()) == 1
    assert not gallery.counters["asked"] and not (tmp_path / "ws").exists()


def test_pictures_only_where_pictures_can_be_searched(gallery, tmp_path, one, capsys):
    assert collect(gallery, tmp_path / "ws", "--engine", "openverse", "--images", one) == 2
    assert "openverse cannot search by image" in capsys.readouterr().err


def test_headed_needs_a_screen(gallery, tmp_path, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert collect(gallery, tmp_path / "ws", "--keywords", WORDS, "--headed", "--pause-on-captcha") == 2
    assert "--headed needs a screen" in capsys.readouterr().err


def test_a_filter_reaches_the_engine_and_sets_the_query_apart(gallery, tmp_path, capsys):
    base = ["--engine", "bing", "openverse", "--keywords", WORDS, "--max-pages", 1]
    narrowed = [*base, "--size", "large", "--orientation", "portrait"]
    for arguments in (base, narrowed, narrowed):
        assert collect(gallery, tmp_path / "ws", *arguments) == 0
    found = rows(tmp_path / "ws", "SELECT engine, params FROM queries ORDER BY engine, id")
    assert [(engine, set(json.loads(params)) - {"host"}) for engine, params in found] == [
        ("bing", set()), ("bing", {"size", "orientation"}),
        ("openverse", set()), ("openverse", {"size", "orientation"}),
    ]  # fmt: skip
    urls = [url for (url,) in rows(tmp_path / "ws", "SELECT url FROM responses ORDER BY id")]
    assert any("imagesize-large" in url and "aspect-tall" in url for url in urls)
    assert any("size=large" in url and "aspect_ratio=tall" in url for url in urls)
    assert len(list((tmp_path / "ws" / "xhr").glob("*/*"))) == 4
    capsys.readouterr()
    assert collect(gallery, tmp_path / "ws", "--list") == 0
    assert sum("size=large" in line for line in capsys.readouterr().out.splitlines()) == 2


def test_a_narrowed_query_goes_on_narrowed(gallery, tmp_path):
    arguments = ["--engine", "bing", "--keywords", WORDS, "--max-pages", 2, "--type", "photo"]
    gallery.set_fault("500@bing/:1")
    assert collect(gallery, tmp_path / "ws", *arguments) == 1 or pages(tmp_path / "ws", "bing") == [0]
    forget(gallery)
    assert collect(gallery, tmp_path / "ws") == 0  # the queue, whatever engine it is for
    urls = [url for (url,) in rows(tmp_path / "ws", "SELECT url FROM responses ORDER BY page")]
    assert len(urls) == 2 and all("photo-photo" in url for url in urls)


def test_every_filter_has_a_flag():
    made = load_step("collect").build_parser()
    choices = {action.dest: action.choices for action in made._actions if action.dest in FILTER_VALUES}
    assert choices == dict(FILTER_VALUES)


# Outcome, exit code, and what goes wrong until it is cleared: a fault an engine. The engines are searched at once, so
# that those with a browser share it.
TROUBLE = [
    ("captcha", 4, ["captcha@yandex/:1", "captcha@naver/:1", "captcha@baidu/:1", "captcha@bing/:1"]),
    ("captcha", 4, ["captcha_page@baidu/:1"]),
    (
        "blocked", 4,
        [
            "blocked@yandex/:1", "blocked@naver/:1", "blocked@openverse/", "blocked@yandex-cloud/:1",
            "blocked@naver-api/:1", "blocked@baidu/:1", "blocked@bing/:1", "429=4000@commons/:1",
        ],
    ),
    (
        "blocked", 4,
        [
            "429=4000@yandex/xhr:1", "429=4000@openverse/:2", "lagged=4000@commons/:1", "429=4000@yandex-cloud/:1",
            "429=4000@naver-api/:1", "not_json@baidu/:1",
        ],
    ),
    ("blocked", 4, ["not_json@openverse/:2"]),
    (
        "parse_error", 0,
        [
            "changed_shape@yandex/:1", "not_json@naver/:1", "changed_shape@openverse/:2", "changed_shape@commons/:1",
            "changed_shape@yandex-cloud/:1", "changed_shape@naver-api/:1", "changed_shape@baidu/:1", "not_json@bing/:1",
        ],
    ),
    ("parse_error", 0, ["changed_shape@bing/:1"]),
    ("network", 1, ["hang@openverse/:2", "hang@bing/:2"]),
    ("network", 0, ["truncated@openverse/:2", "500@bing/:2"]),  # the pages before it came in the same run
    ("network", 1, ["hang@yandex/xhr:1"]),
    ("network", 1, ["crash@yandex/:0", "crash@naver/:1", "truncated@baidu/xhr:1"]),
    ("region", 0, ["region@yandex/:0"]),
    ("consent", 0, ["consent@bing/:1"]),
]  # fmt: skip
TROUBLE_WITH_PICTURES = [
    (
        "upload_rejected", 0,
        ["upload_rejected@yandex/upload", "upload_rejected@yandex-cloud/", "upload_rejected@baidu-graph/upload"],
    ),
    ("upload_rejected", 0, ["upload_rejected=soft@yandex/upload"]),
    ("wrong_tab", 0, ["wrong_tab@yandex/"]),
    ("captcha", 4, ["captcha@baidu-graph/api:1"]),
    ("blocked", 4, ["blocked@baidu-graph/api:1"]),
    ("parse_error", 0, ["expired@baidu-graph/api:1"]),
]  # fmt: skip


def engine_of(fault: str) -> str:
    return fault.partition("@")[2].partition("/")[0]


def switch_on(gallery: Gallery, faults: list[str]) -> list[str]:
    """The engines that meet the faults."""
    for fault in faults:
        gallery.set_fault(fault)
    return [engine_of(fault) for fault in faults]


@pytest.mark.parametrize(("outcome", "code", "faults"), TROUBLE, ids=[f[0] for _, _, f in TROUBLE])
def test_trouble_ends_in_its_outcome_and_a_rerun_completes(gallery, tmp_path, capsys, outcome, code, faults):
    workspace, engines = tmp_path / "ws", switch_on(gallery, faults)
    arguments = ["--engine", *engines, "--keywords", WORDS, "--max-pages"]
    if faults[0].startswith("hang@"):  # the pages before it have time, and what hangs is given up soon
        assert collect(gallery, workspace, *arguments, faults[0].rpartition(":")[2]) == 0
        arguments = ["--timeout", 4, *arguments]
    assert collect(gallery, workspace, *arguments, 3) == code, capsys.readouterr().err
    assert {name: how for name, (_, how) in ended(workspace).items()} == dict.fromkeys(engines, outcome)
    gallery.clear_faults()
    assert collect(gallery, workspace, "--retry", outcome) == 0
    assert ended(workspace) == dict.fromkeys(engines, ("done", "ok"))
    for engine, fault in zip(engines, faults, strict=True):
        assert pages(workspace, engine) == [0, 1, 2]
        counted = served(gallery, engine)
        # The gallery counts an answer in another shape as an honest one; it had to be asked for again.
        again = 1 if "changed_shape" in fault else 0
        assert (len(counted), sum(counted.values())) == (3, 3 + again), f"{engine}: nothing twice, nothing missing"


@pytest.mark.parametrize(
    ("outcome", "code", "faults"), TROUBLE_WITH_PICTURES, ids=[f[0] for _, _, f in TROUBLE_WITH_PICTURES]
)
def test_trouble_with_pictures_ends_in_its_outcome_and_a_rerun_completes(gallery, tmp_path, one, outcome, code, faults):
    workspace, engines = tmp_path / "ws", switch_on(gallery, faults)
    assert collect(gallery, workspace, "--engine", *engines, "--images", one, "--max-pages", 3) == code
    assert {name: how for name, (_, how) in ended(workspace).items()} == dict.fromkeys(engines, outcome)
    gallery.clear_faults()
    assert collect(gallery, workspace, "--retry", outcome) == 0
    assert [pages(workspace, engine) for engine in engines] == [[0, 1, 2]] * len(engines)


@pytest.mark.parametrize(
    "faults",
    [
        [
            "consent@yandex/", "consent@naver/", "429=1@openverse/:2x1", "lagged=1@commons/:1x1",
            "disconnect@bing/:1x1", "500@baidu/xhr:1x1",
        ],
        ["crash@yandex/:0x1", "crash@naver/:1x1"],
    ],
    ids=["answers", "crashes"],
)  # fmt: skip
def test_passing_trouble_is_got_over_in_the_same_run(gallery, tmp_path, faults):
    engines = switch_on(gallery, faults)
    assert collect(gallery, tmp_path / "ws", "--engine", *engines, "--keywords", WORDS, "--max-pages", 3) == 0
    assert ended(tmp_path / "ws") == dict.fromkeys(engines, ("done", "ok"))
    assert [pages(tmp_path / "ws", engine) for engine in engines] == [[0, 1, 2]] * len(engines)


def test_the_page_object_is_read_in_the_browser_where_the_page_does_not_show_it(gallery, tmp_path):
    """On its way to a lost database and back the answer stays one of the page, though it is JSON."""
    workspace, arguments = tmp_path / "ws", ["--engine", "naver", "--keywords", WORDS, "--max-pages", 3]
    gallery.set_fault("scripted@naver/:1")
    assert collect(gallery, workspace, *arguments) == 0
    found = rows(workspace, "SELECT page, part, outcome, items, path FROM responses ORDER BY page")
    assert [row[:4] for row in found] == [(number, "page", "ok", 48) for number in range(3)]
    assert [Path(row[4]).name for row in found] == ["0.html", "1.json", "2.html"]
    assert load_step("ingest").main(["--workspace", str(workspace), "-q"]) == 0
    shown = rows(workspace, "SELECT count(*), count(DISTINCT image_id) FROM results")
    for path in workspace.glob("gleaner.db*"):
        path.unlink()
    assert load_step("ingest").main(["--workspace", str(workspace), "--rescan", "-q"]) == 0
    assert rows(workspace, "SELECT count(*), count(DISTINCT image_id) FROM results") == shown == [(144, 144)]
    assert pages(workspace, "naver") == [0, 1, 2]
    gallery.site.board.asked.clear()
    assert collect(gallery, workspace, *arguments) == 0
    assert not gallery.counters["asked"]


def test_strict_tells_by_the_exit_code_that_a_query_failed(gallery, tmp_path, capsys):
    gallery.set_fault("changed_shape@openverse/:1")
    arguments = ["--engine", "openverse", "commons", "--keywords", WORDS, "--max-pages", 2]
    assert collect(gallery, tmp_path / "ws", *arguments, "--strict") == 3
    assert "1 of the queries at openverse failed" in capsys.readouterr().err
    (tmp_path / "fake.jpg").write_text("no picture")
    assert collect(gallery, tmp_path / "ws", "--engine", "yandex", "--images", tmp_path / "fake.jpg", "--strict") == 1
    assert collect(gallery, tmp_path / "ws", *arguments, "--strict") == 0  # nothing new failed


@contextmanager
def running_proxy(user: str, password: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy for plain HTTP that wants a password; gives its address and what was asked through it."""
    passed: list[str] = []
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Proxy-Authorization") != wanted:
                self.send_response(407)
                self.send_header("Proxy-Authenticate", 'Basic realm="gallery"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            passed.append(self.path)
            kept = {k: v for k, v in self.headers.items() if k.lower() in ("accept", "cookie", "x-requested-with")}
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(urllib.request.Request(self.path, headers=kept)) as answer:
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", passed
    finally:
        server.shutdown()


def test_browser_and_apis_go_through_the_proxy_and_its_password_is_nowhere(gallery, tmp_path, monkeypatch, capsys):
    with running_proxy("me", "s3cret-word") as (address, passed):
        monkeypatch.setenv("GLEANER_PROXY", address.replace("http://", "http://me:s3cret-word@"))
        arguments = [
            "--engine",
            "yandex",
            "openverse",
            "--keywords",
            WORDS,
            "--max-pages",
            2,
            "--proxy",
            address,
            "-vv",
        ]
        assert collect(gallery, tmp_path / "ws", *arguments) == 0
    assert any("/images/search" in url for url in passed) and any("/v1/images/" in url for url in passed)
    said = capsys.readouterr()
    assert "s3cret-word" not in said.out + said.err
    kept = [path for path in (tmp_path / "ws").rglob("*") if path.is_file()]
    assert kept and not any(b"s3cret-word" in path.read_bytes() for path in kept)


def test_a_jump_in_the_answers_shape_is_told(gallery, tmp_path, capsys):
    arguments = ["--engine", "openverse", "--max-pages", 1, "--keywords"]
    assert collect(gallery, tmp_path / "ws", *arguments, "photo") == 0
    assert "another shape" not in capsys.readouterr().err
    gallery.set_fault("drift@openverse/")
    gallery.set_fault("nulls@openverse/")
    assert collect(gallery, tmp_path / "ws", *arguments, "drawing") == 0
    said = capsys.readouterr().err
    assert (
        "openverse answers in another shape than before" in said and "aiBadge" in said and "lack their original" in said
    )
    assert collect(gallery, tmp_path / "ws", "--drift") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "aiBadge 100%" in lines[2] and "aiBadge" not in lines[1]
    assert collect(gallery, tmp_path / "ws", "--drift", "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"]["runs"][1]["empty_originals"] > 0.4


def shape(results: int, empty: float = 0, unknown: int = 0, missing: int = 0) -> Shape:
    made = Shape()
    made.add(results, {"empty_originals": empty, "unknown": {"a.new": unknown}, "missing": {"a.gone": missing}})
    return made


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (shape(100), shape(100), []),
        (shape(0), shape(100, 1.0, 100, 100), []),  # nothing to compare with
        (shape(100, 0.1), shape(100, 0.25), []),
        (shape(100, 0.1), shape(100, 0.31), ["31% of the results lack their original, 10% did before"]),
        (shape(100, unknown=2), shape(10, unknown=9), ["unknown on most results: a.new"]),
        (shape(100, unknown=90), shape(10, unknown=9), []),
        (shape(100), shape(10, missing=4), []),
        (shape(100), shape(10, missing=6), ["missing on most results: a.gone"]),
    ],
)
def test_jumps(before: Shape, now: Shape, words: list[str]) -> None:
    assert jumps(before, now) == words


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """A screen of its own where Xvfb is there; else the same code runs without a window."""
    program = shutil.which("Xvfb")
    if program is None:
        yield False
        return
    reading, writing = os.pipe()
    server = subprocess.Popen(
        [program, "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[writing], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as told:
        number = told.readline().strip()
    monkeypatch.setenv("DISPLAY", f":{number}")
    yield True
    server.terminate()
    server.wait(PATIENCE)


class Visitor(threading.Thread):
    """A person in a thread of their own who presses the captcha's button through the browser's debugging port."""

    def __init__(self, port_file: Path):
        super().__init__(daemon=True)
        self.port_file, self.pressed, self.trouble = port_file, 0, ""

    def run(self) -> None:
        try:
            asyncio.run(asyncio.wait_for(self._press(), PATIENCE))
        except Exception as error:
            self.trouble = repr(error)

    async def _press(self) -> None:
        while not (port := self._port()):
            await asyncio.sleep(0.1)
        async with async_playwright() as playwright:
            address = f"http://127.0.0.1:{port}"
            browser = await playwright.chromium.connect_over_cdp(address, timeout=PATIENCE * 1000)
            while not self.pressed:
                for page in browser.contexts[0].pages:
                    self.pressed += await pressed(page.locator("#js-button"))
                await asyncio.sleep(0.2)

    def _port(self) -> str:
        """Empty until Chromium has made the file and, a moment later, filled it."""
        return self.port_file.read_text().partition("\n")[0] if self.port_file.exists() else ""


async def pressed(button: Any) -> bool:
    """Presses a button where there is one; the page may be left before the click has returned."""
    if not await shown(button):
        return False
    try:
        await button.click()
    except Error:
        return not await shown(button)
    return True


async def shown(button: Any) -> bool:
    """A page that is closed, or just being left, shows none."""
    try:
        return bool(await button.count())
    except Error:
        return False


def wrapped_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser with a debugging port, which Chromium writes into its profile."""
    choice = require_browser(headed=False)
    script = tmp_path / "browser.sh"
    script.write_text(f'#!/bin/sh\nexec "{choice.program}" --remote-debugging-port=0 "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("GLEANER_BROWSER", str(script))


class Spectator:
    """A window that shows what it is told to, one answer a look."""

    def __init__(self, looks: list[PageResponse | FetchError | None]):
        self.looks, self.shown = looks, []

    async def show(self, url: str) -> None:
        self.shown.append(url)

    async def screenshot_text(self) -> PageResponse | None:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, FetchError):
            raise look
        return look


@pytest.mark.parametrize("fault", ["captcha@1", "captcha_page@0", "captcha_json@1"])
def test_a_person_answers_the_captcha_and_the_search_goes_on(gallery, tmp_path, monkeypatch, screen, fault):
    from lib.collect.options import options_from
    from lib.collect.run import Collection
    from lib.db import Context, open_database
    from lib.workspace import Workspace

    wrapped_browser(tmp_path, monkeypatch)
    gallery.set_fault(fault)
    workspace = Workspace(tmp_path / "ws")
    given = ["--host", gallery.url, "--keywords", WORDS, "--max-pages", "3", "--pause-on-captcha", "--pause-limit", "4"]
    args = load_step("collect").build_parser().parse_args([*given, "--headed"])
    args.headed = screen  # the only difference where there is no screen
    visitor = Visitor(workspace.root / "browser-profile" / "DevToolsActivePort")
    visitor.start()
    with open_database(workspace.database) as db:
        found = Collection(Context(db, workspace), options_from(args)).run()
    visitor.join(PATIENCE)
    assert (found.exit_code, found.sentences, visitor.pressed, visitor.trouble) == (0, [], 1, "")
    assert pages(workspace.root, "yandex") == [0, 1, 2]
    assert set(served(gallery, "yandex").values()) <= {1, 2}  # a person's click leads to a page of its own
    assert (workspace.root / "browser-profile").is_dir()


def person(halted: bool = False, limit: float = PATIENCE) -> CaptchaPause:
    return CaptchaPause(load_engine("yandex"), RateLimiter(0, 0, lambda: halted), limit, lambda: halted)


CAPTCHA = PageResponse(PAGE, "https://yandex.com/showcaptcha?x=1", 200, {}, b"<html></html>")
RESULTS = PageResponse(PAGE, "https://yandex.com/images/search?text=a", 200, {}, b"<html></html>")


@pytest.mark.parametrize(
    ("looks", "limit", "passed"),
    [
        ([CAPTCHA, RESULTS, RESULTS], PATIENCE, True),
        ([RESULTS, CAPTCHA, None, RESULTS, RESULTS], PATIENCE, True),  # a page on its way is no sign yet
        ([CAPTCHA], 0.3, False),  # nobody came
        ([FetchError("window_closed")], PATIENCE, False),
    ],
)
def test_the_page_is_looked_at_until_it_is_another_one(monkeypatch, looks, limit, passed):
    monkeypatch.setattr("lib.collect.engine_run.LOOK_SECONDS", 0.01)
    window = Spectator(looks)
    assert asyncio.run(person(limit=limit).wait_for_person(window, CAPTCHA, "https://yandex.com/first")) is passed
    assert window.shown == [CAPTCHA.url]


HERE = "https://yandex.com/images/search?p=1"


@pytest.mark.parametrize(
    ("part", "body", "address"),
    [
        ("page", b" <html></html>", HERE),
        ("xhr", b"<html></html>", HERE),
        ("xhr", b'{"captcha":{}}', ""),
        ("xhr", b'{"captcha":{"captcha-page":"/showcaptcha?x=1"}}', "https://yandex.com/showcaptcha?x=1"),
        ("xhr", b'{"captcha":{"captcha-page":"https://elsewhere.example/"}}', ""),
        ("xhr", b'{"captcha":{"captcha-page":"javascript:alert(1)"}}', ""),
        ("xhr", b"[]", ""),
        ("xhr", b'{"captcha":{"captcha-page":"//["}}', ""),
        ("xhr", b'{"captcha":{"captcha-page":7}}', ""),
        ("upload", b"<html></html>", ""),  # a form's address shows nothing when it is opened
    ],
)
def test_where_a_captcha_can_be_seen(part: str, body: bytes, address: str) -> None:
    assert captcha_address(PageResponse(part, HERE, 200, {}, body)) == address


def test_one_captcha_is_enough_for_all_searches_of_a_profile(monkeypatch):
    monkeypatch.setattr("lib.collect.engine_run.LOOK_SECONDS", 0.01)

    async def both() -> tuple[bool, bool, list[str]]:
        who, window = person(), Spectator([RESULTS])
        return *await asyncio.gather(
            who.wait_for_person(window, CAPTCHA, ""), who.wait_for_person(window, CAPTCHA, "")
        ), window.shown

    assert asyncio.run(both()) == (True, True, [CAPTCHA.url])


def test_ctrl_c_ends_the_wait_for_a_person():
    with pytest.raises(Interrupted):
        asyncio.run(person(halted=True).wait_for_person(Spectator([CAPTCHA]), CAPTCHA, ""))


def test_a_context_is_replaced_after_its_pages_and_a_crashed_browser_is_started_again(gallery, monkeypatch):
    monkeypatch.setattr("lib.web.browser.PAGES_PER_CONTEXT", 2)

    async def tour() -> tuple[int, bool, str, int]:
        async with Chromium(BrowserSettings(require_browser(headed=False))) as chromium, BrowserWeb(chromium) as web:
            for _ in range(2):
                await web.open(gallery.url)
            first = web._page
            await web.recycle()
            replaced = first is not None and first.is_closed()
            await web.open(gallery.url)
            contexts = len(chromium._browser.contexts) if chromium._browser else -1
            session = await chromium._browser.new_browser_cdp_session()
            with pytest.raises(Exception, match="closed"):
                await session.send("Browser.crash")
            reason = ""
            for _ in range(2):
                try:
                    status = (await web.open(gallery.url)).status
                    break
                except FetchError as error:
                    reason = error.reason
            return contexts, replaced, reason, status

    contexts, replaced, reason, status = asyncio.run(tour())
    assert (contexts, replaced, status) == (1, True, 200) and reason in ("", "browser_crashed")


def slow_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The browser, which takes its time to start."""
    choice = require_browser(headed=False)
    script = tmp_path / "slow-browser.sh"
    script.write_text(f'#!/bin/sh\nsleep {seconds}\nexec "{choice.program}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("GLEANER_BROWSER", str(script))


@pytest.mark.slow
def test_the_limit_for_a_request_is_none_for_the_start_of_the_browser(gallery, tmp_path, monkeypatch):
    """On a busy machine a start may take longer than any answer should; it was cut off and tried again, in vain."""
    monkeypatch.setattr("lib.web.browser.GRACE", 0.0)
    slow_browser(tmp_path, monkeypatch, 21)

    async def visit() -> int:
        settings = BrowserSettings(require_browser(headed=False), timeout=20)
        async with Chromium(settings) as chromium, BrowserWeb(chromium) as web:
            return (await web.open(gallery.url)).status

    assert asyncio.run(visit()) == 200


def test_a_browser_that_cannot_start_is_told_and_the_other_engines_go_on(gallery, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.sh").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "broken.sh").chmod(0o755)
    monkeypatch.setenv("GLEANER_BROWSER", str(tmp_path / "broken.sh"))
    arguments = ["--engine", "yandex", "openverse", "--keywords", WORDS, "--max-pages", 2]
    assert collect(gallery, tmp_path / "ws", *arguments) == 1
    assert "0_setup.py to check the browser" in capsys.readouterr().err
    assert ended(tmp_path / "ws") == {"yandex": ("pending", "network"), "openverse": ("done", "ok")}


def test_pictures_fonts_and_media_are_not_loaded(gallery, tmp_path):
    async def look(settings: BrowserSettings) -> None:
        async with Chromium(settings) as chromium, BrowserWeb(chromium) as web:
            await web.open(f"{gallery.url}/images/search?text=photo")
            assert web._page is not None
            await web._page.wait_for_load_state("load", timeout=PATIENCE * 1000)  # all that the page needs is there

    def thumbs() -> list[str]:
        return [name for name in gallery.counters["asked"] if "thumb" in name]

    choice = require_browser(headed=False)
    asyncio.run(look(BrowserSettings(choice)))
    assert not thumbs()
    asyncio.run(look(BrowserSettings(choice, profile=tmp_path / "profile")))
    assert thumbs()  # a person sees them


def test_nothing_leads_the_browser_into_a_private_network():
    """Neither redirects, however many, nor what a page loads; the host that is asked may stand in one itself."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        port = request.url.port
        seen.append(f"{request.url.host}{request.path}")
        elsewhere = {
            "/name": f"http://localhost:{port}/secret",
            "/address": f"http://127.0.0.2:{port}/secret",
            "/twice": "/name",
            "/near": "/end",
        }
        if target := elsewhere.get(request.path):
            return web.Response(status=302, headers={"Location": target})
        page = f'<script src="http://localhost:{port}/secret"></script><script src="/address"></script>'
        return web.Response(text=page if request.path == "/page" else "<p>end</p>", content_type="text/html")

    async def outcome(asking: Awaitable[PageResponse]) -> str:
        try:
            return (await asking).url.rpartition("/")[2]
        except FetchError as error:
            return error.reason

    async def tour() -> list[str]:
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            settings = BrowserSettings(require_browser(headed=False), timeout=PATIENCE)
            async with Chromium(settings) as chromium, BrowserWeb(chromium) as browser:
                found = [await outcome(browser.open(url + path)) for path in ("/name", "/address", "/twice", "/near")]
                found.append(await outcome(browser.open(url + "/page")))
                assert browser._page is not None
                await browser._page.wait_for_load_state("load", timeout=PATIENCE * 1000)
                for path in ("/name", "/near"):
                    found.append(await outcome(browser.get(url + path, part="api", headers={})))
                    found.append(await outcome(browser.post(url + path, headers={}, body=b"x")))
                return found
        finally:
            await runner.cleanup()

    refused = "private_address"
    assert asyncio.run(tour()) == [refused, refused, refused, "end", "page", "connection_failed", refused, "end", "end"]
    assert not [name for name in seen if "secret" in name] and "127.0.0.1/address" in seen


def started(gallery: Gallery, workspace: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "1_collect.py"), "--workspace", str(workspace), "--host", gallery.url]
    return subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, stderr=subprocess.DEVNULL)


def wait_until_asked(gallery: Gallery, *texts: str) -> None:
    def all_are() -> bool:
        asked = gallery.counters["asked"]
        return all(any(text in name for name in asked) for text in texts)

    wait_until(all_are, f"{texts} are all asked for")


def test_after_sigkill_all_engines_go_on_where_they_were(gallery, tmp_path):
    arguments = ["--engine", "yandex", "openverse", "baidu", "--keywords", WORDS, "--max-pages", 3]
    for fault in ("hang@yandex/xhr:2", "hang@openverse/:2", "hang@baidu/xhr:2"):
        gallery.set_fault(fault)
    process = started(gallery, tmp_path / "ws", *arguments)
    texts = [f"{name} text:{WORDS.replace(' ', '+')} p=2" for name in ("yandex/xhr", "openverse/api", "baidu/xhr")]
    wait_until_asked(gallery, *texts)
    process.kill()
    process.wait()
    gallery.clear_faults()
    assert collect(gallery, tmp_path / "ws") == 0  # without arguments: every engine that has a queue
    for engine in ("yandex", "openverse", "baidu"):
        assert pages(tmp_path / "ws", engine) == [0, 1, 2]
        assert set(served(gallery, engine).values()) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="finds the browser's process by /proc")
def test_a_killed_browser_is_started_again_and_the_query_goes_on(gallery, tmp_path):
    gallery.set_fault(f"slow={PATIENCE}@yandex/xhr:1")
    process = started(gallery, tmp_path / "ws", "--keywords", WORDS, "--max-pages", 3, "--timeout", PATIENCE)
    wait_until_asked(gallery, "yandex/xhr")
    killed = browsers_below(process.pid)
    assert killed
    for pid in killed:
        with suppress(ProcessLookupError):  # it went with the one before it
            os.kill(pid, signal.SIGKILL)
    gallery.clear_faults()
    assert process.wait(PATIENCE) == 0
    assert pages(tmp_path / "ws", "yandex") == [0, 1, 2]


def browsers_below(pid: int) -> list[int]:
    """Chromium's processes among the descendants of one."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = []
    for child in parents:
        above, name = child, ""
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and child != pid:
            with suppress(OSError):
                name = Path(f"/proc/{child}/comm").read_text()
            if "chrom" in name or "headless" in name:
                found.append(child)
    return found
