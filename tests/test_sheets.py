"""Contact sheets: as step 7 makes them, before and after anything moves, and in a real Chromium at several sizes."""

from __future__ import annotations

import errno
import json
import re
import shlex
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from support import drawing, snapshot
from test_pages import Visit, chromium, draw, visit  # noqa: F401 (fixtures)
from test_sort import add_picture, sort, workspace  # noqa: F401 (a fixture)

from lib.db import open_database
from lib.pages.model import Bucket, Card, Heading, SheetItem
from lib.pages.render import write_page
from lib.pages.reports import render_contact_sheet
from lib.pages.thumbnails import are_all_there, folder_of

TILE = re.compile(r'<figure class="tile"(.*?)>\n', re.DOTALL)


def tiles(page: Path) -> list[dict[str, str]]:
    """What each tile of a page says of its picture, with its bucket."""
    found = []
    for section in page.read_text("utf-8").split('<section class="bucket"')[1:]:
        bucket = re.search(r"<bdi>(.*?)</bdi>", section)
        assert bucket
        for tile in TILE.findall(section):
            about = {name: unescape(value) for name, value in re.findall(r'data-([a-z-]+)="([^"]*)"', tile)}
            found.append(about | {"bucket": bucket[1]})
    return found


def told_page(said: str) -> Path:
    match = re.search(r"page: (.+\.html)", said)
    assert match, said
    return Path(match[1])


def add_engine(root: Path, name: str, engine: str, query: int = 0, **columns: str) -> None:
    """Another engine that found the content of a downloaded picture."""
    with open_database(root / "gleaner.db") as db:
        sha256 = db.value(
            "SELECT sha256 FROM downloads JOIN images ON images.id = image_id WHERE key = ?", (f"yandex:{name}",)
        )
        names = ", ".join(columns)
        db.execute(
            f"INSERT INTO images (key, engine, {names}) VALUES (?, ?{', ?' * len(columns)})",
            (f"{engine}:{name}", engine, *columns.values()),
        )
        number = db.value("SELECT last_insert_rowid()")
        db.execute(
            "INSERT INTO downloads (image_id, state, sha256, updated_at) VALUES (?, 'done', ?, '')", (number, sha256)
        )
        if query:
            db.execute("INSERT INTO results (query_id, image_id, rank) VALUES (?, ?, 0)", (query, number))


# Before anything moves


def test_a_dry_run_makes_the_page_in_a_place_of_its_own(workspace: Path, capsys: Any) -> None:  # noqa: F811
    before = snapshot(workspace)
    assert sort(workspace, "orientation", "--dry-run") == 0
    said = capsys.readouterr()
    page = told_page(said.err)
    assert snapshot(workspace) == before and workspace not in page.parents and page.name == "sort_orientation.html"
    html = page.read_text("utf-8")
    assert {(tile["bucket"], tile["label"]) for tile in tiles(page)} == {
        ("landscape", "A wide one"), ("portrait", "A tall one"), ("square", "A even one"),
    }  # fmt: skip
    assert html.count('src="data:image/jpeg') == 3 and "dry run: nothing has been moved" in html
    assert "metadata.jsonl" not in html
    found = re.search(r"<code>(.*?)</code>", html)
    assert found
    command = shlex.split(unescape(found[1]))
    assert Path(command[1]).name == "7_sort_quality.py" and command[2] == "orientation"
    assert str(workspace) in command and "--dry-run" not in command
    assert sort(workspace, *command[2:]) == 0  # it is the run in earnest
    assert (workspace / "reports/sort_orientation.html").exists()


def test_a_quiet_dry_run_makes_no_page_that_nobody_is_told_of(
    workspace: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place := tmp_path / "places"))
    place.mkdir()
    assert sort(workspace, "orientation", "-n", "-q") == 0 and not list(place.glob("gleaner-*"))
    capsys.readouterr()
    assert sort(workspace, "orientation", "-n", "-q", "--json") == 0
    assert Path(json.loads(capsys.readouterr().out)["result"]["page"]).is_file(), "the result tells of it"


def test_the_page_goes_where_it_is_sent(workspace: Path, tmp_path: Path, capsys: Any) -> None:  # noqa: F811
    page = tmp_path / "new" / "look.html"
    assert sort(workspace, "orientation", "-n", "--page", page) == 0
    assert told_page(capsys.readouterr().err) == page and "--page" not in page.read_text("utf-8")
    assert sort(workspace, "orientation", "--page", page) == 0
    assert not (workspace / "reports/sort_orientation.html").exists() and "--undo" in page.read_text("utf-8")
    assert sort(workspace, "orientation") == 0  # nothing new to sort: the usual page is made all the same
    usual = workspace / "reports/sort_orientation.html"
    assert [t["label"] for t in tiles(usual)] == [t["label"] for t in tiles(page)]
    before = usual.read_text("utf-8")
    with open_database(workspace / "gleaner.db") as db:
        db.execute("UPDATE images SET title = 'Another title' WHERE key = 'yandex:wide'")
        db.execute("INSERT INTO runs (step, started_at, finished_at, version) VALUES ('ingest', '2', '2', '')")
    assert sort(workspace, "orientation", "--page", page) == 0 and "Another title" in page.read_text("utf-8")
    assert sort(workspace, "orientation") == 0
    assert usual.read_text("utf-8") != before, "what was told elsewhere does not count as told here"
    assert sort(workspace, "export", "--page", page) == 2
    with pytest.raises(SystemExit):
        sort(workspace, "orientation", "--page", tmp_path / "photo.jpg")


@pytest.fixture
def sorted_before(workspace: Path) -> Path:  # noqa: F811
    """Sorted by size with all in one bucket; one picture more has come since."""
    assert sort(workspace, "megapixels", "--edges", "5") == 0
    with open_database(workspace / "gleaner.db") as db:
        add_picture(db, workspace, "late", drawing(9, 500, 400))
    return workspace


@pytest.mark.parametrize(
    "arguments",
    [
        ("megapixels", "--edges", "5"),
        ("megapixels", "--edges", "0.06,0.1"),
        ("megapixels", "--edges", "0.06", "--limit", "1"),
        ("megapixels", "--edges", "0.06", "--where", "title = 'A late one'"),
        ("megapixels", "--strategy", "quantiles", "--parts", "2", "--mode", "move"),
        ("quality", "--min-score", "50"),
        ("orientation", "{folder}"),
    ],
)
def test_the_page_before_shows_what_the_page_after_shows(
    arguments: tuple[str, ...], sorted_before: Path, tmp_path: Path
) -> None:
    """What was sorted, what moves over, what is new, and what is not asked for; pictures where they lie now."""
    folder = draw(tmp_path / "own" / "extra.png", size=(64, 99)).parent
    words = [word.format(folder=folder) for word in arguments]
    page, usual = tmp_path / "before.html", sorted_before / f"reports/sort_{arguments[0]}.html"
    assert sort(sorted_before, *words, "-n", "--page", page) == 0
    assert sort(sorted_before, *words) == 0

    def seen(page: Path) -> list[tuple[str, ...]]:
        names = ("bucket", "name", "label", "score", "reason", "pixels", "page", "found")
        return sorted(tuple(tile[name] for name in names) for tile in tiles(page))

    assert seen(page) == seen(usual) and seen(page)
    assert page.read_text("utf-8").count("no preview") == 0


def test_what_leaves_is_not_on_the_page_before(workspace: Path, tmp_path: Path) -> None:  # noqa: F811
    assert sort(workspace, "quality") == 0
    page = tmp_path / "before.html"
    assert sort(workspace, "quality", "--min-score", "100", "-n", "--page", page) == 0
    assert tiles(page) == [] and "Nothing was sorted" in page.read_text("utf-8")


def test_a_real_page_has_the_way_back(workspace: Path, capsys: Any) -> None:  # noqa: F811
    assert sort(workspace, "orientation") == 0
    page = workspace / "reports/sort_orientation.html"
    told = re.search(r"to take this back: (.+)", capsys.readouterr().err)
    found = re.search(r"To take this back:</span> <code>(.*?)</code>", page.read_text("utf-8"))
    assert told and found and unescape(found[1]) == told[1] and "--undo" in told[1]
    assert sort(workspace, "megapixels") == 0  # another criterion's run is not what this page tells of
    page.unlink()
    assert sort(workspace, "orientation") == 0
    again = re.search(r"To take this back:</span> <code>(.*?)</code>", page.read_text("utf-8"))
    assert again and unescape(again[1]) == told[1]


# What is said of a picture


def test_two_engines_are_named_and_their_picture_counts_once(workspace: Path) -> None:  # noqa: F811
    add_engine(workspace, "wide", "bing", 1, published_at="2019-05-04", first_seen_at="2026-01-02T03:04:05Z")
    add_engine(workspace, "wide", "openverse", 1, published_at="2018-01-01", first_seen_at="2026-02-02T03:04:05Z")
    assert sort(workspace, "orientation") == 0
    page = workspace / "reports/sort_orientation.html"
    found = [tile for tile in tiles(page) if tile["bucket"] == "landscape"]
    assert len(tiles(page)) == 3 and len(found) == 1
    assert found[0]["found"] == "bing and openverse and yandex, “lake”"
    assert (found[0]["published"], found[0]["seen"]) == ("2018-01-01", "2026-01-02 03:04 UTC")
    data = json.loads((workspace / "reports/sort_orientation.json").read_text("utf-8"))
    assert next(row for row in data["pictures"] if row["label"] == "landscape")["engines"] == [
        "bing", "openverse", "yandex",
    ]  # fmt: skip


def test_one_file_is_shown_once_and_buckets_of_one_name_are_one(tmp_path: Path) -> None:
    files = [draw(tmp_path / f"{n}.png") for n in range(3)]
    items = [SheetItem(file, file.name, bucket) for bucket in ("cats", "dogs") for file in files]
    page = tmp_path / "page.html"
    html = render_contact_sheet(
        page, Heading("Sheet"), [Bucket("cats", 3), Bucket("cats", 4), Bucket("dogs", 3)], items, total=8
    )
    write_page(page, html)
    assert [tile["bucket"] for tile in tiles(page)] == ["cats"] * 3
    assert html.count('<section class="bucket"') == 2 and "3 of 8 pictures are shown" in html


def test_queries_of_one_text_are_told_apart_by_their_engines() -> None:
    from lib.sort.criteria.topic import _own_names

    asked = {1: ("lake", "yandex"), 2: ("lake", "bing"), 3: ("", "yandex"), 4: ("hut", "bing"), 5: ("lake", "bing")}
    assert _own_names(asked) == {
        1: "lake (yandex)", 2: "lake (bing, query 2)", 3: "query 3", 4: "hut", 5: "lake (bing, query 5)",
    }  # fmt: skip


def test_the_large_view_leads_to_page_and_licence(tmp_path: Path, visit: Visit) -> None:  # noqa: F811
    files = [draw(tmp_path / f"{n:064x}.png") for n in range(3)]
    known = SheetItem(
        files[0], files[0].name, "a", 1.0, title="A lake", page_url="https://pages.example/1?a=1&b=2", creator="Ann",
        license="CC BY 4.0", license_url="https://creativecommons.org/licenses/by/4.0/", published="2019-05-04",
        first_seen="2026-01-02T03:04:05Z", found_by="bing and yandex, “lake”",
    )  # fmt: skip
    unsafe = SheetItem(files[1], "b.png", "a", 2.0, page_url="javascript:alert(1)", license_url="data:text/html,x")
    page = tmp_path / "page.html"
    items = [known, unsafe, SheetItem(files[2], "c.png", "a", 3.0, published="2009")]
    tab = visit.open(write_page(page, render_contact_sheet(page, Heading("Sheet"), [Bucket("a")], items)))
    assert tab.inner_text(".tile >> nth=0").startswith("A lake") and files[0].name not in tab.inner_text("main")
    tab.click(".tile button.thumb >> nth=0")
    assert tab.inner_text("#large-title") == "A lake"
    rows = tab.locator("#large-facts div").all()
    facts = {row.locator("dt").inner_text(): row.locator("dd").inner_text() for row in rows}
    assert facts == {
        "File": files[0].name, "Page": "https://pages.example/1?a=1&b=2", "Creator": "Ann", "Licence": "CC BY 4.0",
        "Published": "2019-05-04", "First seen": "2026-01-02 03:04 UTC", "Found by": "bing and yandex, “lake”",
    }  # fmt: skip
    links = tab.evaluate("[...document.querySelectorAll('#large-facts a')].map(a => [a.href, a.rel])")
    assert links == [
        ["https://pages.example/1?a=1&b=2", "noopener noreferrer"],
        ["https://creativecommons.org/licenses/by/4.0/", "noopener noreferrer"],
    ]
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#large-title") == "b.png" and tab.locator("#large-facts a").count() == 0
    tab.keyboard.press("Escape")
    tab.select_option("#order", "oldest")
    names = "[...document.querySelectorAll('.tile')].map(t => t.dataset.label)"
    assert tab.evaluate(names) == ["c.png", "A lake", "b.png"]
    tab.select_option("#order", "newest")
    assert tab.evaluate(names) == ["A lake", "c.png", "b.png"]
    tab.fill("#text", "bing and")
    assert tab.inner_text("#shown") == "1 of 3 pictures"


def test_one_bucket_has_no_bar_and_one_picture_is_a_picture(tmp_path: Path, visit: Visit) -> None:  # noqa: F811
    file, page = draw(tmp_path / "a.png"), tmp_path / "page.html"
    item = SheetItem(file, file.name, "only")
    for buckets in ([Bucket("only")], [Bucket("only"), Bucket("none")]):
        tab = visit.open(write_page(page, render_contact_sheet(page, Heading("Sheet"), buckets, [item])))
        assert tab.locator(".distribution").count() == 0 and "%" not in tab.inner_text("main")
        assert tab.inner_text("#shown") == "1 picture" and "1 pictures" not in tab.inner_text("body")
    assert tab.locator(".legend button").count() == 2


# In Chromium at several sizes


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    files = [folder / f"{n:04}.png" for n in range(3_000)]
    for n, file in enumerate(files):
        Image.new("RGB", (8, 6), (n % 256, n // 256 * 20, 90)).save(file, compress_level=1)
    return files


def sheet_of(page: Path, files: list[Path]) -> Path:
    items = [
        SheetItem(
            f, f.name, ("high", "low")[n % 2], float(n % 100), "sharp", 8, 6, title=f"A lake seen from hut {n}",
            page_url="https://pages.example/1", license="CC0 1.0", published="2020-01-01",
        )
        for n, f in enumerate(files)
    ]  # fmt: skip
    cards = [Card("Pictures" if len(files) != 1 else "Picture", len(files), "in 2 buckets")]
    heading = Heading("Sorted by quality", "high 65, medium 40", "2026-01-01T00:00:00Z", cards, ["A note."],
                      "python 7_sort_quality.py --undo 4", "To take this back")  # fmt: skip
    return write_page(page, render_contact_sheet(page, heading, [Bucket("high"), Bucket("low")], items))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("number", [0, 1, 200])
def test_sheets_are_accessible_and_fit_a_phone(
    number: int,
    scheme: str,
    many: list[Path],
    tmp_path: Path,
    chromium: Any,  # noqa: F811
) -> None:
    looked = Visit(chromium, color_scheme=scheme, viewport={"width": 390, "height": 844})
    try:
        tab = looked.open(sheet_of(tmp_path / "page.html", many[:number]))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert Axe().run(tab).response["violations"] == []
        if number:
            tab.click(".tile button.thumb >> nth=0")
            assert Axe().run(tab).response["violations"] == []
        assert looked.trouble == []
    finally:
        looked.context.close()


def test_three_thousand_pictures_load_as_they_are_looked_at(
    many: list[Path],
    tmp_path: Path,
    chromium: Any,  # noqa: F811
) -> None:
    page = sheet_of(tmp_path / "page.html", many)
    assert are_all_there(page) and len(list(folder_of(page).glob("*/*.jpg"))) == 3_000
    looked = Visit(chromium, viewport={"width": 390, "height": 844})
    try:
        tab = looked.open(page)
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.inner_text("#shown") == "3000 pictures"
        loaded = "[...document.images].filter(i => i.naturalWidth && i.closest('.tile')).length"
        assert tab.evaluate(loaded) < 1_500, "only what is near the window is loaded"
        tab.fill("#text", "hut 2999")
        assert tab.inner_text("#shown") == "1 of 3000 pictures"
        tab.wait_for_selector(".tile:not([hidden]) img")
        tab.evaluate("document.querySelector('.tile:not([hidden]) img').decode()")
        assert looked.trouble == [] and all(url.startswith("file:") for url in asked)
    finally:
        looked.context.close()


def test_a_full_disk_is_a_sentence_and_the_work_stands(
    workspace: Path,  # noqa: F811
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What has been sorted stays sorted and can be taken back; the same command makes the page later."""
    from lib.pages import reports

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space", "/x/thumbnail.jpg")

    monkeypatch.setattr(reports, "thumbnails", full)
    assert sort(workspace, "orientation") == 1
    assert "no space is left on the device (/x/thumbnail.jpg)" in capsys.readouterr().err
    page = workspace / "reports/sort_orientation.html"
    assert len(list(workspace.glob("sorted/orientation/*/*.jpg"))) == 3 and not page.exists()
    before = snapshot(workspace / "sorted")
    monkeypatch.undo()
    assert sort(workspace, "orientation") == 0
    assert len(tiles(page)) == 3 and snapshot(workspace / "sorted") == before
    assert sort(workspace, "--undo", "last") == 0
    assert not (workspace / "sorted").exists()
