"""The seven steps against the offline gallery in real Chromium, each in its own process, and then again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import PATIENCE, as_rows, dump, run_step, snapshot

from demo import running_gallery
from demo.queries import write_queries

COMMANDS: list[tuple[str, list[str]]] = [
    ("ingest", []),
    ("report", ["--format", "html"]),
    ("cleanup", []),
    ("download", ["--allow-private"]),
    ("dedup", ["all"]),
    ("sort", ["orientation"]),
    ("sort", ["megapixels"]),
    ("sort", ["quality"]),
    ("report", []),  # once more: now there are downloads to count
]


def run_all(workspace: Path, url: str, queries: list[str]) -> None:
    steps = [("collect", ["--engine", "yandex", "--host", url, "--images", *queries, "--max-pages", "2"]), *COMMANDS]
    for name, arguments in steps:
        done = run_step(name, *arguments, "--workspace", workspace)
        assert done.returncode == 0, (name, arguments, done.stderr[-2000:])
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace that went through all seven steps twice, with what it looked like after the first time."""
    workspace = tmp_path_factory.mktemp("pipeline") / "workspace"
    with running_gallery(pictures=90) as gallery:
        queries = [str(path) for path in write_queries(gallery.site.pictures, workspace.parent / "queries")]
        run_all(workspace, gallery.url, queries)
        first, rows = snapshot(workspace), dump(workspace / "gleaner.db")
        asked = json.dumps(gallery.counters, sort_keys=True)
        run_all(workspace, gallery.url, queries)
        yield workspace, first, rows, asked, json.dumps(gallery.counters, sort_keys=True)


def test_a_second_run_of_everything_changes_nothing(finished):
    workspace, first, rows, asked, asked_again = finished
    again = snapshot(workspace)
    different = {name for name in first.keys() | again.keys() if first.get(name) != again.get(name)}
    assert different <= {"gleaner.db"}
    assert dump(workspace / "gleaner.db") == rows
    assert asked_again == asked  # not one request more


def test_every_picture_has_a_history(finished):
    """query → raw answer → result → address → file → place in the dataset."""
    workspace, *_ = finished
    lines = [
        json.loads(line)
        for path in (workspace / "sorted" / "orientation").rglob("metadata.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert lines
    for line in lines:
        known = as_rows(
            workspace / "gleaner.db",
            "SELECT count(*) FROM files f JOIN downloads d ON d.sha256 = f.sha256 JOIN results r ON"
            " r.image_id = d.image_id JOIN responses a ON a.id = r.response_id JOIN queries q ON q.id = r.query_id"
            " WHERE f.sha256 = ? AND a.path <> '' AND d.final_url <> ''",
            line["sha256"],
        )
        assert known[0][0] >= 1
        assert line["engine"] == "yandex" and line["image_url"].startswith("http://127.0.0.1:")


def test_every_item_ended_in_a_state_with_a_reason(finished):
    workspace, *_ = finished
    downloads = as_rows(workspace / "gleaner.db", "SELECT state, reason FROM downloads")
    assert {state for state, _ in downloads} >= {"done"}
    assert all(reason for state, reason in downloads if state not in ("done", "pending"))
    assert as_rows(workspace / "gleaner.db", "SELECT count(*) FROM responses WHERE ingest_state <> 'done'") == [(0,)]


def test_repeats_were_found_and_nothing_was_lost(finished):
    workspace, *_ = finished
    moved = as_rows(
        workspace / "gleaner.db", "SELECT source, target FROM actions WHERE kind = 'move' AND state = 'done'"
    )
    assert moved and all(
        (workspace / target).is_file() and not (workspace / source).exists() for source, target in moved
    )
    files = as_rows(workspace / "gleaner.db", "SELECT path FROM files")
    assert all((workspace / path).is_file() for (path,) in files)


def test_names_are_made_of_our_own_ids_and_digests(finished):
    workspace, *_ = finished
    pattern = re.compile(r"[0-9a-f]{2}/[a-z0-9-]+_(original|preview|dup|thumb)_\d+x\d+_[0-9a-f]{8}\.[a-z0-9]+")
    names = [p.relative_to(workspace / "images").as_posix() for p in (workspace / "images").rglob("*") if p.is_file()]
    assert names and [name for name in names if not pattern.fullmatch(name)] == []


@pytest.mark.parametrize("page", ["index", "domains", "dedup", "sort_orientation", "sort_megapixels", "sort_quality"])
def test_the_pages_open_without_a_network(finished, page):
    """In real Chromium, from disk: no error on the console, and no request but to files and data."""
    from playwright.sync_api import sync_playwright

    from lib.web.find_browser import find_browser, launch_arguments

    workspace, *_ = finished
    path = workspace / "reports" / f"{page}.html"
    choice = find_browser()
    assert choice, "0_setup.py finds or installs a browser"
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=choice.executable_path, args=launch_arguments())
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE * 1000)
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda r: problems.append(r.url) if r.url.startswith(("http:", "https:")) else None)
        tab.goto(path.as_uri())
        assert tab.title()
        assert tab.locator("h1").count() == 1
        browser.close()
    assert problems == []
