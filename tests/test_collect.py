"""Step 1 in real Chromium against the gallery: what is kept, what is asked for, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from support import PATIENCE, ROOT, as_rows, drawing, dump, left_by_a_dead_process, load_step, snapshot, wait_until
from yandex_answers import entity, page, serp_list, xhr

from demo import Gallery, running_gallery
from lib.collect.engine_run import stop_sentence
from lib.collect.options import host as clean_host
from lib.collect.pace import HostFallback, Interrupted, PacedSession, RateLimiter, is_loopback
from lib.collect.queue import SearchLimits, hosts_for, keywords, params_for, prepare_upload
from lib.collect.run import seconds_until
from lib.collect.search import Ending, QuerySearch
from lib.collect.store import Store
from lib.db import Context, open_database
from lib.db.queries import NewQuery, add_query, get_query
from lib.engines.base import PAGE, UPLOAD, XHR, FetchError, FilePart, PageResponse, load_engine
from lib.engines.yandex import Yandex
from lib.errors import UsageError
from lib.files import answers as files_answers
from lib.images.decode import decode
from lib.web.direct import Proxy, read_proxy
from lib.workspace import Workspace

PAGE_SIZE = 8


@pytest.fixture(scope="module")
def running() -> Iterator[Gallery]:
    with running_gallery(pictures=60, page_size=PAGE_SIZE, results=4 * PAGE_SIZE, broken=False) as gallery:
        yield gallery


@pytest.fixture
def gallery(running: Gallery) -> Gallery:
    """The gallery with clean counters and no faults."""
    running.clear_faults()
    running.site.board.asked.clear()
    running.site.board.served.clear()
    return running


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two query pictures whose names differ in the suffix only."""
    folder = tmp_path / "photos"
    folder.mkdir()
    drawing(1).save(folder / "a.jpg")
    drawing(2).save(folder / "a.jpeg")
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    drawing(3).save(tmp_path / "one.jpg")
    return tmp_path / "one.jpg"


def collect(gallery: Gallery, workspace: Path, *arguments: object) -> int:
    given = ["--workspace", str(workspace), "--host", gallery.url, *map(str, arguments)]
    code: int = load_step("collect").main(given)
    return code


def asked(gallery: Gallery, route: str = "") -> dict[str, int]:
    return {name: count for name, count in gallery.counters["asked"].items() if name.startswith(f"yandex/{route}")}


def queries(workspace: Path) -> list[tuple[str, str, str]]:
    return as_rows(workspace / "gleaner.db", "SELECT state, outcome, detail FROM queries ORDER BY id")


def urls(workspace: Path) -> list[tuple[str]]:
    return as_rows(workspace / "gleaner.db", "SELECT url FROM responses ORDER BY page")


def stored(workspace: Path) -> list[tuple[int, str, str, int]]:
    sql = "SELECT page, part, outcome, items FROM responses ORDER BY query_id, page"
    return as_rows(workspace / "gleaner.db", sql)


THREE = [(0, "page", "ok", PAGE_SIZE), (1, "xhr", "ok", PAGE_SIZE), (2, "xhr", "ok", PAGE_SIZE)]


def test_two_pictures_of_three_pages_and_a_second_run_that_does_nothing(gallery, tmp_path, photos):
    """Bugs of the reference pipeline: page 0 was missing, and `a.jpg` and `a.jpeg` shared their files."""
    workspace = tmp_path / "ws"
    assert collect(gallery, workspace, "--images", photos, "--max-pages", 3) == 0
    assert queries(workspace) == [("done", "ok", "")] * 2
    assert stored(workspace) == THREE * 2  # the first page, which no XHR carries, is there
    sql = "SELECT page, url, path, sha256, bytes, headers FROM responses"
    for number, url, path, sha256, size, headers in as_rows(workspace / "gleaner.db", sql):
        body = (workspace / path).read_bytes()
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (sha256, size)
        assert Path(path).stem == str(number) == parse_qs(urlsplit(url).query).get("p", ["0"])[0]
        assert "content-type" in json.loads(headers)
        with urllib.request.urlopen(url) as again:
            assert again.read() == body  # as received
    folders = {path.name[:16] for path in (workspace / "xhr" / "yandex").iterdir()}
    assert folders == {hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in photos.iterdir()}

    gallery.site.board.asked.clear()
    before, rows = snapshot(workspace / "xhr"), dump(workspace / "gleaner.db")
    assert collect(gallery, workspace, "--images", photos, "--max-pages", 3) == 0
    assert collect(gallery, workspace) == 0
    assert (snapshot(workspace / "xhr"), dump(workspace / "gleaner.db")) == (before, rows)
    assert asked(gallery) == {}


def test_every_page_is_asked_for_once_and_in_several_contexts_too(gallery, tmp_path, photos):
    drawing(4).save(photos / "c.png")
    assert collect(gallery, tmp_path / "ws", "--images", photos, "--max-pages", 4, "--contexts", 3) == 0
    assert set(asked(gallery, "page").values()) == set(asked(gallery, "xhr").values()) == {1}
    assert asked(gallery, "upload") == {"yandex/upload": 3}
    assert queries(tmp_path / "ws") == [("done", "end", "")] * 3


def test_a_larger_limit_goes_on_where_the_smaller_one_ended(gallery, tmp_path, one):
    for pages in (1, 3):
        assert collect(gallery, tmp_path / "ws", "--images", one, "--max-pages", pages) == 0
    assert stored(tmp_path / "ws") == THREE
    assert sum(asked(gallery, "page").values()) == 1


def test_max_results_ends_a_query_after_the_page_that_reaches_it(gallery, tmp_path, one):
    for _ in range(2):
        assert collect(gallery, tmp_path / "ws", "--images", one, "--max-results", PAGE_SIZE + 1) == 0
    assert stored(tmp_path / "ws") == THREE[:2]


def test_keywords_from_the_command_line_and_a_file(gallery, tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffcity\n\n  flower \ncity\n", encoding="utf-8")
    arguments = ["--keywords", "flower", "город", "--keywords-file", tmp_path / "words.txt", "--max-pages", 2]
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    rows = as_rows(tmp_path / "ws" / "gleaner.db", "SELECT kind, text, image_sha256 FROM queries ORDER BY id")
    assert rows == [("keyword", "flower", ""), ("keyword", "город", ""), ("keyword", "city", "")]
    assert {state for state, *_ in queries(tmp_path / "ws")} == {"done"}
    assert asked(gallery, "upload") == {}


def started(
    gallery: Gallery, workspace: Path, *arguments: object, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "1_collect.py"), "--workspace", str(workspace), "--host", gallery.url]
    return subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, stderr=stderr)


def wait_until_asked(gallery: Gallery, text: str) -> None:
    wait_until(lambda: any(text in name for name in gallery.counters["asked"]), f"{text} is asked for")


def descendants(pid: int) -> set[int]:
    """All processes below one, by Linux's /proc; empty elsewhere."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = set(), [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: set[int]) -> None:
    wait_until(lambda: not any(map(is_running, pids)), f"{pids} are gone")


def test_after_sigkill_the_same_command_fetches_what_is_missing_and_nothing_twice(gallery, tmp_path, photos):
    arguments = ["--images", photos, "--max-pages", 3]
    gallery.set_fault("hang@xhr:2")
    process = started(gallery, tmp_path / "killed", *arguments)
    wait_until_asked(gallery, "p=2")
    below = descendants(process.pid)
    process.kill()
    process.wait()
    wait_until_gone(below)  # driver and browser die with the step
    assert below or sys.platform != "linux"
    gallery.clear_faults()

    assert collect(gallery, tmp_path / "killed", *arguments) == 0
    served = {name: count for name, count in gallery.counters["served"].items() if "p=" in name}
    assert len(served) == 6 and set(served.values()) == {1}
    assert stored(tmp_path / "killed") == THREE * 2

    assert collect(gallery, tmp_path / "undisturbed", *arguments) == 0
    assert snapshot(tmp_path / "killed" / "xhr") == snapshot(tmp_path / "undisturbed" / "xhr")
    left, right = (contents(tmp_path / name / "gleaner.db") for name in ("killed", "undisturbed"))
    assert left == right


def contents(database: Path) -> dict[str, list[str]]:
    """The rows, without the moment at which the engine took the picture."""
    rows = dump(database)
    for name, column in (("queries", "cursor"), ("responses", "headers")):
        rows[name] = sorted(json.dumps({**json.loads(row), column: ""}, sort_keys=True) for row in rows[name])
    return rows


def test_ctrl_c_finishes_the_page_in_flight_and_closes_the_browser(gallery, tmp_path, one):
    gallery.set_fault(f"slow={PATIENCE}@xhr:1")
    arguments = ["--images", one, "--max-pages", 3, "--timeout", PATIENCE]
    process = started(gallery, tmp_path / "ws", *arguments, stderr=subprocess.PIPE)
    wait_until_asked(gallery, "p=1")
    below = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any(b"finishing what is in flight" in line for line in process.stderr)  # the signal has arrived
    gallery.clear_faults()  # and now the page may
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    wait_until_gone(below)
    assert stored(tmp_path / "ws") == THREE[:2]
    assert queries(tmp_path / "ws")[0][0] == "pending"
    assert collect(gallery, tmp_path / "ws") == 0  # without arguments: the queue, as far as it was meant to go
    assert stored(tmp_path / "ws") == THREE
    assert set(asked(gallery, "xhr").values()) == {1}


def undo_last_page(workspace: Path) -> Path:
    """The state that a kill leaves between a page's file and its row."""
    sql = "SELECT path FROM responses WHERE page = 2"
    path = workspace / as_rows(workspace / "gleaner.db", sql)[0][0]
    with open_database(workspace / "gleaner.db") as db:
        db.execute("DELETE FROM responses WHERE page = 2")
        db.execute("UPDATE queries SET state = 'running', next_page = 2, outcome = ''")
    return path


def test_a_whole_file_without_a_row_is_adopted(gallery, tmp_path, one):
    arguments = ["--images", one, "--max-pages", 3]
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    before = urls(tmp_path / "ws")
    undo_last_page(tmp_path / "ws")
    gallery.site.board.asked.clear()
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    assert asked(gallery) == {}
    assert stored(tmp_path / "ws") == THREE
    assert urls(tmp_path / "ws") == before


def test_a_file_that_cannot_be_read_is_fetched_again(gallery, tmp_path, one):
    arguments = ["--images", one, "--max-pages", 3]
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    path = undo_last_page(tmp_path / "ws")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    left = left_by_a_dead_process(path)
    left.write_bytes(whole[:100])
    gallery.site.board.asked.clear()
    assert collect(gallery, tmp_path / "ws", *arguments) == 0
    assert [name[-3:] for name in asked(gallery, "xhr")] == ["p=2"] and asked(gallery, "upload") == {}
    assert path.read_bytes() == whole and not left.exists()


def test_a_forgotten_upload_is_no_end_of_results(gallery, tmp_path, one):
    assert collect(gallery, tmp_path / "ws", "--images", one, "--max-pages", 1) == 0
    gallery.site.uploads.clear()
    gallery.site.rankings.clear()
    assert collect(gallery, tmp_path / "ws", "--images", one, "--max-pages", 3) == 0
    assert stored(tmp_path / "ws") == THREE
    assert asked(gallery, "upload") == {"yandex/upload": 2}


@pytest.mark.parametrize(
    ("fault", "code", "state", "outcome", "kept"),
    [
        ("captcha@1", 4, "pending", "captcha", [*THREE[:1], (1, "xhr", "captcha", 0)]),
        ("500@page", 1, "pending", "network", []),
        ("wrong_tab", 0, "failed", "wrong_tab", [(0, "page", "wrong_tab", 0)]),
        ("changed_shape@1", 0, "failed", "parse_error", [*THREE[:1], (1, "xhr", "parse_error", 0)]),
    ],
)
def test_trouble_has_its_outcome_and_retry_completes(gallery, tmp_path, one, fault, code, state, outcome, kept):
    gallery.set_fault(fault)
    arguments = ["--images", one, "--max-pages", 3]
    assert collect(gallery, tmp_path / "ws", *arguments) == code
    assert queries(tmp_path / "ws")[0][:2] == (state, outcome)
    assert stored(tmp_path / "ws") == kept
    gallery.clear_faults()
    assert collect(gallery, tmp_path / "ws", "--retry", outcome) == 0
    assert stored(tmp_path / "ws") == THREE
    names = sorted(path.name for path in (tmp_path / "ws" / "xhr").rglob("*.*"))
    assert names == ["0.html", "1.json", "2.json", "query.json"]  # a refusal's file went when its page came


@pytest.mark.parametrize(
    ("fault", "extra"),
    [
        ("consent", {"page": 1}),  # the page that the button leads to is taken, not asked for again
        ("429=1@xhr:1x1", {"xhr": 1}),
        ("truncated@xhr:1x1", {"xhr": 1}),
    ],
)
def test_passing_trouble_costs_one_request_more(gallery, tmp_path, one, fault, extra):
    gallery.set_fault(fault)
    assert collect(gallery, tmp_path / "ws", "--images", one, "--max-pages", 3) == 0
    assert stored(tmp_path / "ws") == THREE
    counted = {route: sum(asked(gallery, route).values()) for route in ("upload", "page", "xhr")}
    assert counted == {
        "upload": 1 + extra.get("upload", 0),
        "page": 1 + extra.get("page", 0),
        "xhr": 2 + extra.get("xhr", 0),
    }


def test_a_captcha_stops_the_engine_and_keeps_its_queue(gallery, tmp_path, photos, capsys):
    """A bug of the reference pipeline: a captcha looked like an empty result."""
    gallery.set_fault("captcha@1")
    assert collect(gallery, tmp_path / "ws", "--images", photos) == 4
    assert len(asked(gallery, "page")) == 1  # the second query was not begun
    rows = as_rows(tmp_path / "ws" / "gleaner.db", "SELECT state, not_before <> '' FROM queries")
    assert rows == [("pending", 1)] * 2
    assert "--headed" in capsys.readouterr().err


def test_a_long_retry_after_is_written_down_and_respected(gallery, tmp_path, photos, capsys):
    workspace, arguments = tmp_path / "ws", ["--images", photos, "--max-pages", 2]
    gallery.set_fault("429=4000@xhr:1")
    assert collect(gallery, workspace, *arguments) == 4
    moments = as_rows(workspace / "gleaner.db", "SELECT not_before FROM queries")
    assert len(moments) == 2 and all(3500 < seconds_until(moment) < 4100 for (moment,) in moments)
    gallery.clear_faults()
    gallery.site.board.asked.clear()
    for also in ([], ["--keywords", "flower"]):  # what is new in the queue waits too
        assert collect(gallery, workspace, *arguments, *also) == 4
        assert "asked to be left alone until" in capsys.readouterr().err
    assert asked(gallery) == {}
    assert collect(gallery, workspace, "--retry", "blocked") == 0
    assert [state for state, *_ in queries(workspace)] == ["done"] * 3


def test_drift_is_recorded_with_the_page(gallery, tmp_path, one):
    gallery.set_fault("drift")
    assert collect(gallery, tmp_path / "ws", "--images", one, "--max-pages", 1) == 0
    (drift,) = as_rows(tmp_path / "ws" / "gleaner.db", "SELECT drift FROM responses")[0]
    assert json.loads(drift)["unknown"] == {"entity.aiBadge": PAGE_SIZE}


def test_a_dry_run_writes_nothing(gallery, tmp_path, photos, capsys):
    workspace = tmp_path / "ws"
    assert collect(gallery, workspace, "--images", photos, "--keywords", "boat", "--dry-run") == 0
    assert not workspace.exists() and asked(gallery) == {}
    assert capsys.readouterr().out.splitlines() == [
        "Would search yandex for keyword 'boat', up to 5 pages",
        f"Would search yandex for picture {photos}/a.jpeg, up to 5 pages",
        f"Would search yandex for picture {photos}/a.jpg, up to 5 pages",
    ]
    assert collect(gallery, workspace, "--images", photos / "a.jpg", "--max-pages", 1) == 0
    before = snapshot(workspace)
    assert collect(gallery, workspace, "--images", photos, "--max-pages", 1, "-n") == 0
    assert collect(gallery, workspace, "--retry", "ok", "-n") == 0
    assert snapshot(workspace) == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" picture")[0] for line in lines] == [
        "Would search yandex for",
        "Would skip",
        "Would search yandex for",
    ]


def test_what_is_no_picture_becomes_a_row_with_its_reason(gallery, tmp_path, capsys):
    """A bug of the reference pipeline: anything but `.jpg` and `.jpeg` was passed over without a word."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "fake.jpg").write_text("not a picture")
    (tmp_path / "notes.txt").write_text("some notes")
    drawing(1).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    for _ in range(2):
        assert collect(gallery, tmp_path / "ws", "--images", folder, tmp_path / "notes.txt") == 1
        assert "nothing that was asked for can be searched" in capsys.readouterr().err
    assert queries(tmp_path / "ws") == [
        ("failed", "upload_rejected", "truncated"),
        ("failed", "upload_rejected", "not_an_image"),
        ("failed", "upload_rejected", "not_an_image"),
    ]
    assert asked(gallery) == {} and "Traceback" not in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_searched(gallery, tmp_path, one, capsys):
    """A file above the limit stands for all that the system refuses to read."""
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as handle:
        handle.truncate(513 * 2**20)
    assert collect(gallery, tmp_path / "ws", "--images", huge, "--dry-run") == 0
    assert f"Would leave out: {huge} cannot be read" in capsys.readouterr().out
    assert collect(gallery, tmp_path / "ws", "--images", huge) == 1
    said = capsys.readouterr().err
    assert f"{huge} cannot be read" in said and "nothing that was asked for can be searched" in said
    assert "next:" not in said and "ended before" not in said
    assert collect(gallery, tmp_path / "ws", "--images", huge, one, "--max-pages", 1) == 0
    said = capsys.readouterr().err
    assert f"{huge} cannot be read" in said and "1 unreadable" in said and "next: python 2_ingest_db.py" in said
    assert queries(tmp_path / "ws") == [("done", "ok", "")]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ([], "give --keywords or --images"),
        (["--dry-run"], "give --keywords or --images"),
        (["--engine", "openverse"], "give --keywords or --images"),
        (["--list"], "check --workspace, or search first"),
        (["--drift", "--json"], "check --workspace, or search first"),
        (["--expand", "3"], "check --workspace, or search first"),
        (["--expand", "3", "--keywords", "boat"], "check --workspace, or search first"),
        (["--retry", "network"], "check --workspace, or search first"),
    ],
)
def test_where_nothing_was_searched_there_is_nothing_to_go_on_with(tmp_path, capsys, arguments, remedy):
    assert load_step("collect").main(["--workspace", str(tmp_path / "mistyped"), *arguments]) == 2
    said = capsys.readouterr()
    assert remedy in said.err and "mistyped" in said.err and len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
    if "--json" in arguments:
        assert json.loads(said.out)["exit_code"] == 2


def test_a_workspace_without_searches_has_no_queue(tmp_path, capsys):
    with open_database(tmp_path / "gleaner.db"):
        pass
    assert load_step("collect").main(["--workspace", str(tmp_path)]) == 2
    assert "give --keywords or --images" in capsys.readouterr().err


def test_wrong_usage_is_one_sentence_before_anything_starts(gallery, tmp_path, one, capsys, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    cases: list[tuple[Sequence[object], str]] = [
        (["--images", tmp_path / "nowhere"], "does not exist"),
        (["--images", empty], "no picture and no keyword"),
        (["--keywords-file", tmp_path / "latin.txt"], "UTF-8"),
        (["--keywords-file", tmp_path / "none.txt"], "cannot be read"),
        (["--images", one, "--proxy", "http://me:secret@proxy:8080"], "GLEANER_PROXY"),
        (["--images", one, "--proxy", "proxy"], "no address"),
        (["--images", one, "--timeout", "0"], "--timeout"),
        (["--images", one, "--host", "yandex.com", "--pace", "1"], "--i-am-allowed"),
    ]
    if os.geteuid() != 0:
        (empty / "closed").mkdir(mode=0)
        cases.append((["--images", empty / "closed"], "may not be read"))
    for arguments, words in cases:
        assert collect(gallery, tmp_path / "ws", *arguments) == 2, arguments
        said = capsys.readouterr().err
        assert words in said and "secret" not in said and len(said.strip().splitlines()) == 1
    monkeypatch.setenv("GLEANER_BROWSER", str(tmp_path / "no-browser"))
    assert collect(gallery, tmp_path / "ws", "--images", one) == 2
    assert "GLEANER_BROWSER" in capsys.readouterr().err
    assert not (tmp_path / "ws").exists()


def test_list_shows_state_and_outcome(gallery, tmp_path, one, capsys):
    assert collect(gallery, tmp_path / "ws", "--images", one, "--max-pages", 1) == 0
    capsys.readouterr()
    assert collect(gallery, tmp_path / "ws", "--list") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "1",
        "done",
        "ok",
        "1",
        str(PAGE_SIZE),
        "yandex",
        str(one),
    ]
    assert collect(gallery, tmp_path / "ws", "--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"]["queries"][0]["outcome"] == "ok"


def test_two_runs_at_once_do_not_share_an_engine(gallery, tmp_path, one, capsys):
    gallery.set_fault(f"slow={PATIENCE}@page")
    first = started(gallery, tmp_path / "ws", "--images", one, "--max-pages", 1, "--timeout", PATIENCE)
    wait_until_asked(gallery, "yandex/page")
    assert collect(gallery, tmp_path / "ws", "--images", one) == 1
    assert "another run" in capsys.readouterr().err
    gallery.clear_faults()
    assert first.wait(PATIENCE) == 0


Given = bytes | tuple[int, bytes, dict[str, str]] | Exception


class Canned:
    """A web that gives answers by host and page: a body, (status, body, headers), or an exception to raise."""

    def __init__(self, answers: Mapping[tuple[str, int], Given]):
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def _give(self, url: str, part: str) -> PageResponse:
        number = int(parse_qs(urlsplit(url).query).get("p", ["0"])[0])
        key = (urlsplit(url).hostname or "", number)
        self.asked.append(key)
        found = self.answers[key]
        if isinstance(found, Exception):
            raise found
        status, body, headers = found if isinstance(found, tuple) else (200, found, {})
        return PageResponse(part, url, status, headers, body)

    async def open(self, url: str) -> PageResponse:
        return self._give(url, PAGE)

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> PageResponse:
        return self._give(url, part)

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> PageResponse:
        return PageResponse(UPLOAD, url, 200, {}, b'{"cbir_id":"1/a"}')

    async def submit(self, labels: Sequence[str]) -> PageResponse | None:
        return None


def first_page(*numbers: int) -> bytes:
    return page({"initialState": {"serpList": serp_list([entity(number) for number in numbers])}})


def later_page(*numbers: int) -> bytes:
    return xhr([entity(number) for number in numbers])


def search(
    tmp_path: Path, answers: Mapping[tuple[str, int], Given], *, patient: bool = False
) -> tuple[Ending, Canned, HostFallback]:
    with open_database(tmp_path / "gleaner.db") as db:
        query = get_query(db, add_query(db, NewQuery("yandex", "keyword", "boat"), 0))
        store = Store(Context(db, Workspace(tmp_path)), Yandex())
        hosts = HostFallback(list(Yandex.hosts))

        async def run() -> tuple[Ending, Canned]:
            web = Canned(answers)
            paced = PacedSession(web, RateLimiter(0, 0, lambda: False))
            work = QuerySearch(store, hosts, query, SearchLimits(9), web=paced, patient=patient)
            return await work.run(), web

        ending, web = asyncio.run(run())
        return ending, web, hosts


COM, RU = "yandex.com", "yandex.ru"
CLOSED = b"<h1>Yandex Images is under construction</h1>"


@pytest.mark.parametrize(
    ("answers", "ending", "pages"),
    [
        # A page that brings nothing new is the end, or there would be none.
        (
            {(COM, 0): first_page(1, 2), (COM, 1): later_page(3), (COM, 2): later_page(2, 3)},
            Ending("end", "no_new_results"), [0, 1, 2],
        ),
        ({(COM, 0): first_page(1), (COM, 1): later_page()}, Ending("end", "no_new_results"), [0, 1]),
        # A later list whose entries cannot be read has changed its shape; it is no end.
        (
            {(COM, 0): first_page(1), (COM, 1): xhr([{"id": ""}])},
            Ending("parse_error", "no_results_and_no_word_of_it"), [0, 1],
        ),
        # Where one host is closed to this region the other one is asked, and stays.
        (
            {(COM, 0): CLOSED, (RU, 0): first_page(1), (RU, 1): later_page(1)},
            Ending("end", "no_new_results"), [0, 1],
        ),
        (
            {(COM, 0): FetchError("name_not_resolved"), (RU, 0): first_page(1), (RU, 1): later_page(1)},
            Ending("end", "no_new_results"), [0, 1],
        ),
        ({(COM, 0): CLOSED, (RU, 0): CLOSED}, Ending("region", "under_construction"), [0]),
        # A list without a single picture, and no word of "nothing found", is not an empty result.
        ({(COM, 0): first_page()}, Ending("parse_error", "no_results_and_no_word_of_it"), [0]),
        ({(COM, 0): first_page() + b'<div class="EmptySearchResults"></div>'}, Ending("empty"), [0]),
        ({(COM, 0): page({"initialState": {"cbirTags": {}}})}, Ending("wrong_tab"), [0]),
        ({(COM, 0): page({"initialState": {"feed": {}}})}, Ending("parse_error", "no_serp_list"), [0]),
        ({(COM, 0): first_page(1), (COM, 1): (404, b"{}", {})}, Ending("end", "http_404"), [0, 1]),
        # A captcha or a block is told apart from the end, stops the engine, and no other host is tried.
        ({(COM, 0): (200, b"", {"x-yandex-captcha": "captcha"})}, Ending("captcha", "", 0.0), [0]),
        (
            {(COM, 0): first_page(1), (COM, 1): b'{"type":"captcha","captcha":{}}'},
            Ending("captcha", "", 0.0), [0, 1],
        ),
        ({(COM, 0): (403, b"", {})}, Ending("blocked", "http_403", 0.0), [0]),
        (
            {(COM, 0): first_page(1), (COM, 1): b"<html>updated</html>"},
            Ending("blocked", "html_instead_of_json", 0.0), [0, 1],
        ),
        ({(COM, 0): (429, b"", {"retry-after": "600"})}, Ending("blocked", "http_429", 600.0), [0]),
        # A failure of the network is not kept as an answer.
        (
            {(COM, 0): first_page(1), (COM, 1): FetchError("timeout")},
            Ending("network", "timeout"), [0],
        ),
    ],
)  # fmt: skip
def test_search_ends(tmp_path, answers, ending, pages):
    found, web, _ = search(tmp_path, answers)
    assert found == ending
    assert [number for number, *_ in stored(tmp_path)] == pages
    hosts = [host for host, _ in web.asked]
    assert hosts == sorted(hosts)  # never back to the host that failed


@pytest.mark.parametrize(
    ("given", "ending"),
    [
        ((200, b"", {"x-yandex-captcha": "captcha"}), Ending("captcha", "", 3600.0)),
        ((403, b"", {}), Ending("blocked", "http_403", 900.0)),
        ((429, b"", {"retry-after": "7200"}), Ending("blocked", "http_429", 7200.0)),
    ],
)
def test_a_real_host_is_left_alone_after_a_refusal(tmp_path, given, ending):
    found, web, _ = search(tmp_path, {(COM, 0): given}, patient=True)
    assert found == ending and web.asked == [(COM, 0)]


def test_waiting_ends_when_the_run_is_asked_to_end():
    limiter = RateLimiter(0, 0, lambda: True)
    limiter.hold(3600)
    with pytest.raises(Interrupted):
        asyncio.run(limiter.turn())


def test_a_page_has_the_number_that_was_asked_for(tmp_path):
    """A bug of the reference pipeline: its XHR counter raced with the order of the answers."""
    search(tmp_path, {(COM, 0): first_page(1), (COM, 1): later_page(2), (COM, 2): later_page(2)})
    sql = "SELECT page, url FROM responses ORDER BY id"
    rows = as_rows(tmp_path / "gleaner.db", sql)
    assert [(number, parse_qs(urlsplit(url).query).get("p", ["0"])) for number, url in rows] == [
        (0, ["0"]), (1, ["1"]), (2, ["2"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("yandex.ru", "https://yandex.ru"),
        ("https://Yandex.com/", "https://yandex.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("ftp://yandex.ru", None),
        ("https://me:pw@yandex.ru", None),
        ("http://127.0.0.1:99999", None),
        ("yandex.ru/images", None),
        ("", None),
    ],
)
def test_clean_host(text: str, found: str | None) -> None:
    if found is None:
        with pytest.raises(argparse.ArgumentTypeError):
            clean_host(text)
    else:
        assert clean_host(text) == found


@pytest.mark.parametrize(
    ("host", "hosts", "params"),
    [
        (None, ("https://yandex.com", "https://yandex.ru"), {}),
        ("https://yandex.ru", ("https://yandex.ru", "https://yandex.com"), {}),
        ("https://yandex.kz", ("https://yandex.kz", "https://yandex.com", "https://yandex.ru"), {}),
        ("http://127.0.0.1:1", ("http://127.0.0.1:1",), {"host": "http://127.0.0.1:1"}),
    ],
)
def test_hosts_and_what_sets_a_query_apart(host: str | None, hosts: tuple[str, ...], params: dict[str, str]) -> None:
    """A bug of the reference pipeline: the `.com` host was fixed; now it is the first of several."""
    assert hosts_for(Yandex(), host) == hosts
    assert params_for(Yandex(), host) == params


@pytest.mark.parametrize(
    ("host", "local"),
    [("http://127.0.0.1:1", True), ("http://localhost", True), ("http://[::1]", True), ("https://yandex.ru", False),
     ("http://127.0.0.1.example.com", False), ("http://10.0.0.1", False)],
)  # fmt: skip
def test_only_this_machine_is_not_spared(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("text", "stored_proxy", "found"),
    [
        (None, "", None),
        ("http://proxy:8080", "", Proxy("http://proxy:8080")),
        ("http://proxy:8080", "http://me:s%40fe@proxy:8080", Proxy("http://proxy:8080", "me", "s@fe")),
        ("http://other:8080", "http://me:safe@proxy:8080", Proxy("http://other:8080")),
        ("http://me:safe@proxy:8080", "http://me:safe@proxy:8080", Proxy("http://proxy:8080", "me", "safe")),
        ("http://me:safe@proxy:8080", "", UsageError),
        ("ftp://proxy:8080", "", UsageError),
        ("http://proxy:port", "", UsageError),
    ],
)
def test_read_proxy(text: str | None, stored_proxy: str, found: Proxy | type[UsageError] | None) -> None:
    if found is UsageError:
        with pytest.raises(UsageError):
            read_proxy(text, {"GLEANER_PROXY": stored_proxy})
        return
    made = read_proxy(text, {"GLEANER_PROXY": stored_proxy})
    assert made == found and "safe" not in repr(made)


def test_folder_names_come_from_the_content():
    name = files_answers.folder_name
    assert name("image", "", "ab" * 32, "{}") == "abababababababab"
    assert name("image", "", "ab" * 32, '{"host":"http://127.0.0.1:1"}').startswith("abababababababab-")
    assert name("keyword", "Wooden  boat!", "", "{}").startswith("wooden-boat-")
    words = ["кот", "кит", "cat", "CAT", "cat ", "a/b", "a\\b", "..", "x" * 500, "con"]
    names = [name("keyword", word, "", "{}") for word in words]
    assert len(set(names)) == len(names)
    assert all(made.isascii() and len(made) < 60 and not set(made) & set('/\\.:*?"<>| ') for made in names)


def test_two_queries_never_share_a_folder(tmp_path: Path) -> None:
    """Keywords whose hashes begin alike are found by trying, and by chance among a hundred thousand."""
    seen: dict[bytes, str] = {}
    for n in range(1 << 20):
        word = "".join(chr(0x4E00 + int(digit)) for digit in str(n))
        first = seen.setdefault(hashlib.sha256(word.encode()).digest()[:4], word)
        if first != word:
            break
    assert len({files_answers.folder_name("keyword", text, "", "{}") for text in (first, word)}) == 1
    long = "x" * 40
    for one, other in (((first, {}), (word, {})), ((long, {"a": 1}), (long + '{"a":1}', {}))):
        folders = []
        for text, params in (one, other, one, other):
            as_text = json.dumps(params, separators=(",", ":"))
            folders.append(files_answers.folder_of(tmp_path, "keyword", text, "", params, as_text))
            files_answers.write_note(folders[-1], "yandex", "keyword", text, "", params)
        assert folders[:2] == folders[2:] and folders[0] != folders[1]
        assert folders[0].name == files_answers.folder_name("keyword", one[0], "", "{}" if not one[1] else '{"a":1}')


def test_keywords_are_cleaned_and_kept_once():
    assert keywords(["  two   words ", "e\u0301", "\u00e9", "", "two words"], None) == ["two words", "\u00e9"]


@pytest.mark.parametrize(
    ("suffix", "save", "limit", "mime"),
    [
        (".png", {}, 5_000_000, "image/png"),
        (".webp", {}, 5_000_000, "image/webp"),
        (".tiff", {}, 5_000_000, "image/jpeg"),
        (".bmp", {}, 5_000_000, "image/jpeg"),
        (".ppm", {}, 5_000_000, "image/jpeg"),
        (".png", {}, 60_000, "image/jpeg"),
        (".jpg", {"quality": 100}, 60_000, "image/jpeg"),
    ],
)  # fmt: skip
def test_pictures_are_converted_only_where_the_engine_needs_it(tmp_path, suffix, save, limit, mime):
    path = tmp_path / f"picture{suffix}"
    drawing(5, 640, 480).save(path, **save)
    upload = prepare_upload(path, Yandex.upload_formats, limit)
    assert upload.mime == mime and len(upload.picture) <= limit
    untouched = upload.picture == path.read_bytes()
    assert untouched is (path.stat().st_size <= limit and suffix in (".png", ".webp", ".jpg"))


def test_a_converted_picture_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing(6, 640, 480).save(tmp_path / "turned.tiff", exif=exif)
    upload = prepare_upload(tmp_path / "turned.tiff", Yandex.upload_formats, 5_000_000)
    assert decode(upload.picture).rgb.shape == (640, 480, 3)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a" / "0.json"
    assert files_answers.write_whole(path, b"{}") == hashlib.sha256(b"{}").hexdigest()
    assert [found.name for found in path.parent.iterdir()] == ["0.json"]
    assert files_answers.file_name(0, PAGE, "ok", b"<html>") == "0.html"
    assert files_answers.file_name(2, XHR, "captcha", b"<html>") == "2.captcha.html"
    assert files_answers.file_name(1, PAGE, "ok", b'{"content":{}}') == "1.json"


@pytest.mark.parametrize("name", ["naver-api", "openverse"])
def test_a_refused_key_is_to_be_corrected_not_waited_for(name: str) -> None:
    said = stop_sentence(load_engine(name), Ending("blocked", "key_refused"), "")
    assert "refused its key" in said and "--retry blocked" in said and "--pace" not in said and "later" not in said
    assert "--pace" in stop_sentence(load_engine(name), Ending("blocked", "over_quota"), "")
