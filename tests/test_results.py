"""The results of single searches (`3_domain_report.py --results`): grouping, likeness, dates, files, and the page."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import drawing, load_step, snapshot
from test_pages import HOSTILE, Visit, chromium, draw  # noqa: F401 - a fixture

from lib.db import Database, open_database
from lib.pages.model import CopiesView, Heading, HitView, SearchView
from lib.pages.render import write_page
from lib.pages.results import render_results
from lib.report.results import as_date, late

step, dedup = load_step("report"), load_step("dedup")
NOW = "2026-11-20T09:30:00.123Z"


class Made:
    """A workspace with searches, to which hits are added one by one."""

    def __init__(self, root: Path) -> None:
        self.root, self.number = root, 0
        (root / "images").mkdir(parents=True)
        self.query = drawing(1, 640, 480)
        self.query.save(root / "cat.jpg", quality=95)
        with self.db() as db:
            self.search(db, 1, "yandex", "image", image_path="cat.jpg", image_sha256=digest(root / "cat.jpg"))
            self.search(db, 2, "openverse", "keyword", text="old bridge")

    def db(self) -> Database:
        return open_database(self.root / "gleaner.db")

    def search(self, db: Database, number: int, engine: str, kind: str, **more: str) -> None:
        values = {"id": number, "engine": engine, "kind": kind, "state": "done", "created_at": NOW, "updated_at": NOW}
        insert(db, "queries", values | more)

    def hit(self, query: int = 1, picture: Image.Image | None = None, url: str = "", **more: Any) -> int:
        """Adds a hit, with a file where a picture is given; its number, from 1."""
        self.number += 1
        n = self.number
        given = {"page_url": f"https://site{n}.example/page", "domain": f"site{n}.example",
                 "registrable_domain": f"site{n}.example", "title": f"Page {n}", "first_seen_at": NOW}  # fmt: skip
        with self.db() as db, db.transaction():
            insert(db, "images", {"id": n, "key": f"e:{n}", "engine": "yandex"} | given | more)
            insert(db, "results", {"query_id": query, "image_id": n, "rank": n - 1})
            address = {"image_id": n, "kind": "original", "url": url or f"https://img.example/{n}.jpg"}
            insert(db, "image_variants", address)
            download = {"image_id": n, "state": "pending", "updated_at": NOW}
            if picture is not None:
                path = self.root / "images" / f"{n}.png"
                picture.save(path)
                size = {"width": picture.width, "height": picture.height, "format": "png", "added_at": NOW}
                sha256 = digest(path)
                if not db.value("SELECT 1 FROM files WHERE sha256 = ?", (sha256,)):
                    insert(db, "files", {"sha256": sha256, "path": f"images/{n}.png", "bytes": 9} | size)
                download |= {"state": "done", "sha256": sha256}
            insert(db, "downloads", download)
        return n

    def run(self, *arguments: str, expect: int = 0) -> None:
        assert step.main([*arguments, "--workspace", str(self.root), "-q"]) == expect

    def rows(self, number: int = 1) -> list[dict[str, str]]:
        text = (self.root / "reports" / f"results_{number}.csv").read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text)))

    def html(self, number: int = 1) -> str:
        return (self.root / "reports" / f"results_{number}.html").read_text(encoding="utf-8")


def insert(db: Database, table: str, values: dict[str, Any]) -> None:
    marks = ", ".join(f":{name}" for name in values)
    db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", values)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "ws")


def groups(rows: list[dict[str, str]]) -> set[frozenset[int]]:
    found: dict[str, set[int]] = {}
    for row in rows:
        found.setdefault(row["group"], set()).add(int(row["rank"]))
    return set(map(frozenset, found.values()))


def test_hits_are_set_against_the_query_picture(made: Made) -> None:
    from PIL import ImageOps

    made.hit(picture=drawing(7))
    made.hit(picture=made.query.resize((320, 240)))
    made.hit(picture=ImageOps.mirror(made.query))
    made.hit()
    made.run("--results", "1")
    found = {int(row["rank"]): row for row in made.rows()}
    assert int(found[1]["likeness_bits"]) > 64 and found[1]["likeness_as"] == ""
    assert int(found[2]["likeness_bits"]) <= 8 and found[2]["likeness_as"] == ""
    assert int(found[3]["likeness_bits"]) <= 16 and found[3]["likeness_as"] == "mirrored"
    assert found[4]["likeness_bits"] == "" and found[4]["state"] == "not fetched yet"
    bits = [int(row["likeness_bits"]) for row in made.rows() if row["likeness_bits"]]
    assert bits == sorted(bits), "the most alike comes first"
    assert "bits of 256" in made.html()


def test_a_query_picture_that_is_gone_leaves_dashes(made: Made) -> None:
    made.hit(picture=made.query)
    (made.root / "cat.jpg").unlink()
    made.run("--results", "cat.jpg")
    assert made.rows()[0]["likeness_bits"] == "" and "is not where it was" in made.html()


@pytest.mark.parametrize(
    "url", ["data:image/gif;base64,R0lGODlhAQABAAAAACw=", "http:///lost host/picture.jpg", "https://", "about:blank"]
)
def test_an_address_of_nothing_makes_no_copies_of_what_shares_it(made: Made, url: str) -> None:
    made.hit(url=url)
    made.hit(url=url)
    made.run("--results", "1")
    assert groups(made.rows()) == {frozenset({1}), frozenset({2})} and {row["copies"] for row in made.rows()} == {"1"}


def test_keywords_have_no_likeness(made: Made) -> None:
    made.hit(2, made.query, license="CC BY 4.0", license_url="https://creativecommons.org/licenses/by/4.0/")
    made.run("--results", "old bridge")
    html = made.html(2)
    assert "Likeness" not in html and "Most alike" not in html and "Oldest copy" in html
    assert '<a href="https://creativecommons.org/licenses/by/4.0/"' in html


def test_copies_stand_together_by_bytes_addresses_and_near_hashes(made: Made) -> None:
    one, other = made.query, drawing(5)
    made.hit(picture=one)  # 1
    made.hit(picture=one.resize((320, 240)))  # 2: near
    made.hit(picture=other)  # 3
    made.hit(picture=other)  # 4: the same bytes
    made.hit(url="https://img.example/3.jpg")  # 5: the address of 3
    made.hit()  # 6
    made.run("--results", "1")
    assert groups(made.rows()) == {frozenset({1, 2}), frozenset({3, 4, 5}), frozenset({6})}
    basis = {int(row["rank"]): row["basis"] for row in made.rows()}
    assert basis == {1: "hashes are near", 2: "hashes are near", 3: "same bytes, same address",
                     4: "same bytes, same address", 5: "same bytes, same address", 6: ""}  # fmt: skip


def test_what_step_6_found_counts_and_what_it_did_not_find_too(made: Made) -> None:
    made.hit(picture=made.query)
    made.hit(picture=made.query.resize((320, 240)))
    made.hit(picture=drawing(5))
    words = ["--workspace", str(made.root), "-q", "--workers", "1", "--max-share", "100%"]
    assert dedup.main(["all", *words]) == 0
    made.run("--results", "1")
    assert groups(made.rows()) == {frozenset({1, 2}), frozenset({3})}
    assert {row["basis"] for row in made.rows()} == {"found by step 6", ""}
    assert {row["state"] for row in made.rows()} == {"", "in quarantine"}
    assert made.html().count("<img") >= 4, "what lies in the quarantine is shown too"
    with made.db() as db:  # a person has set them apart, and step 6 has hashed both
        pair = sorted(row["sha256"] for row in made.rows() if row["basis"])
        insert(db, "not_repeats", {"one": pair[0], "other": pair[1], "created_at": NOW})
    made.run("--results", "1")
    assert groups(made.rows()) == {frozenset({1}), frozenset({2}), frozenset({3})}


def test_nothing_is_fetched_and_nothing_shown_of_who_opted_out(made: Made) -> None:
    made.hit(picture=made.query)
    with made.db() as db:
        db.execute("UPDATE downloads SET state = 'opted_out'")
    made.run("--results", "1")
    row = made.rows()[0]
    assert (row["state"], row["file"], row["sha256"]) == ("its owner has opted out", "", "")
    assert "No picture is fetched yet" in made.html()


@pytest.mark.parametrize(
    ("text", "date"),
    [("2019-05-01T10:00:00Z", "2019-05-01"), ("2019:05:01 10:00:00", "2019-05-01"), ("2021.07.", "2021-07"),
     ("2015", "2015"), ("12 March 2018", "2018-03-12"), ("Mar 3rd, 2018", "2018-03-03"), ("June 2018", "2018-06"),
     ("Tue, 15 Nov 1994 12:45:26 GMT", "1994-11-15"), ("2018年3月4日", "2018-03-04"), ("2019-13-45", "2019"),
     ("3일 전", ""), ("yesterday", ""), ("0000-00-00", ""), ("12345678", ""), ("Spring 2018", ""), ("", "")],
)  # fmt: skip
def test_dates_are_read_as_sites_write_them(text: str, date: str) -> None:
    assert as_date(text) == date


def test_a_day_is_known_to_be_older_than_its_year() -> None:
    assert [late(date) for date in ("2019", "2019-05", "2019-05-01")] == ["2019-12-31", "2019-05-31", "2019-05-01"]


NAMES = [("1", 1), ("cat.jpg", 1), ("old bridge", 2), ("openverse: old bridge", 2)]


@pytest.mark.parametrize(("name", "number"), NAMES)
def test_a_search_is_named_by_number_words_or_file(made: Made, name: str, number: int) -> None:
    made.hit(1), made.hit(2)
    made.run("--results", name)
    assert [path.name for path in (made.root / "reports").glob("results_*.html")] == [f"results_{number}.html"]


@pytest.mark.parametrize(
    ("name", "sentence"), [("dog", "no search is 'dog'"), ("old bridge", "2 (openverse, old bridge), 3")]
)
def test_a_name_that_is_none_or_not_only_one_is_refused(
    made: Made, name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made.hit()
    with made.db() as db:
        made.search(db, 3, "bing", "keyword", text="old bridge")
    made.run("--results", name, expect=2)
    assert sentence in capsys.readouterr().err and not list((made.root / "reports").glob("results_*"))


def test_without_a_name_every_search_with_hits_has_a_page(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.hit(1, published_at="2019-05-01"), made.hit(2), made.hit(2)
    made.run("--results")
    assert sorted(path.name for path in (made.root / "reports").glob("results_*.html")) == [
        "results_1.html",
        "results_2.html",
    ]
    assert "2. openverse: old bridge, 2 hits, 2 pictures" in capsys.readouterr().out
    index = (made.root / "reports" / "index.html").read_text(encoding="utf-8")
    assert "Results for cat.jpg" in index and "Results for old bridge" in index
    before = snapshot(made.root / "reports")
    made.run("--results")
    assert snapshot(made.root / "reports") == before


def test_a_dry_run_writes_nothing_and_json_says_it_all(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.hit(picture=made.query)
    before = snapshot(made.root)
    made.run("--results", "1", "--dry-run", "--json")
    assert snapshot(made.root) == before
    printed = json.loads(capsys.readouterr().out)
    (search,) = printed.get("result", printed)["searches"]
    assert (search["query"], search["name"], search["pictures"]) == (1, "cat.jpg", 1)
    assert search["hits"][0]["likeness_bits"] <= 8


def test_a_formula_is_no_formula_in_the_csv(made: Made) -> None:
    made.hit(title="=cmd()", creator="+1")
    made.run("--results", "1")
    assert made.rows()[0]["title"] == "'=cmd()" and made.rows()[0]["creator"] == "'+1"


@pytest.mark.parametrize("other", ["--compare 1 2", "--extract VK --to x.db", "--blocklist b.txt --of VK"])
def test_results_go_with_nothing_else(made: Made, other: str) -> None:
    made.hit()
    made.run("--results", "1", *other.split(), expect=2)


# The page in Chromium


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:  # noqa: F811
    visit = Visit(chromium)
    yield visit
    visit.context.close()
    assert visit.trouble == []


def page_of(folder: Path, count: int, text: str = "plain", *, picture: bool = True) -> Path:
    """A page of so many hits, three of them copies of one picture, every seventh without a file."""
    file = draw(folder / "images" / "a.png")
    page = folder / "reports" / "results_1.html"
    dates = ("2019-05-01", "2015", "", "2018-03")
    hits = [
        HitView(
            n + 1, f"{text} {n}", f"https://site{n}.example/", "https://img.example/a.jpg", f"site{n}.example", "VK",
            dates[n % 4], dates[n % 4], NOW, 100 + n, 50, n % 3 == 0, 900, "PNG", n * 2 if n % 5 else None, "",
            text, "https://creativecommons.org/licenses/by/4.0/", text, file if n % 7 else None, "" if n % 7 else text,
        )
        for n in range(count)
    ]  # fmt: skip
    views = [CopiesView(hits[:3], text)] if hits else []
    views += [CopiesView([hit]) for hit in hits[3:]]
    search = SearchView(text, "yandex", picture, file if picture else None, text, text)
    html = render_results(page, Heading(text, text, NOW, notes=[text]), search, views)
    return write_page(page, html)


@pytest.mark.parametrize("count", [0, 1, 200, 3000])
def test_a_page_of_any_size_opens_sorts_and_jumps(tmp_path: Path, visit: Visit, count: int) -> None:
    tab = visit.open(page_of(tmp_path, count))
    if not count:
        assert "No hits" in tab.inner_text("main")
        return
    first = "document.querySelector('.hit').dataset.rank"
    seen = "[...document.querySelectorAll('.copies')].filter(b => b.checkVisibility()).length"
    assert tab.inner_text("#hits-title") == ("1 hit" if count == 1 else f"{count:,} hits")
    assert tab.evaluate(seen) == min(100, max(1, count - 2))
    tab.click("[data-jump=size]")
    assert tab.evaluate(first) == str(count)
    tab.click("[data-jump=date]")
    assert tab.evaluate(first) == ("2" if count > 1 else "1")
    assert tab.inner_text("#jumped").startswith("2015: site1" if count > 1 else "2019-05-01: site0")
    tab.click("[data-jump=likeness]")
    if count > 1:
        assert tab.evaluate(first) == "2" and "2 bits" in tab.inner_text("#jumped")
    if count > 200:
        tab.click("#later")
        assert tab.inner_text("#part") == "Page 2 of 30"
    tab.fill("#text", "no such hit")
    assert tab.is_visible("#none") and tab.inner_text("#shown").startswith("0 of ")


def test_a_hit_is_shown_large_beside_the_query_picture(tmp_path: Path, visit: Visit) -> None:
    tab = visit.open(page_of(tmp_path, 20))
    tab.click("button.thumb >> nth=0")
    loaded = "['large-query', 'large-hit'].every(id => document.getElementById(id).naturalWidth === 96)"
    tab.wait_for_function(loaded)
    title = tab.inner_text("#large-title")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#large-title") != title
    tab.keyboard.press("Escape")
    tab.wait_for_function("document.activeElement.className === 'thumb'")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
@pytest.mark.parametrize("picture", [True, False], ids=["picture", "keyword"])
def test_pages_of_results_are_accessible_and_fit(
    tmp_path: Path,
    chromium: Any,  # noqa: F811
    scheme: str,
    width: int,
    picture: bool,
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visit = Visit(chromium, color_scheme=scheme, viewport={"width": width, "height": 844})
    try:
        tab = visit.open(page_of(tmp_path, 12, HOSTILE, picture=picture))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert [found["id"] for found in Axe().run(tab).response["violations"]] == []
        assert visit.trouble == []
    finally:
        visit.context.close()


def test_hostile_text_stays_text_and_bad_links_are_none(tmp_path: Path) -> None:
    html = page_of(tmp_path, 8, HOSTILE).read_text(encoding="utf-8")
    assert "<script>alert" not in html and "<img src=x" not in html
    view = CopiesView(
        [HitView(1, "t", "javascript:alert(1)", "javascript:alert(2)", licence="x", licence_url="data:x")]
    )
    html = render_results(tmp_path / "p.html", Heading("x"), SearchView("x", "y"), [view])
    assert not re.search(r'href="(javascript|data):[^,]', html)


def test_a_page_of_more_hits_than_it_shows_says_so(tmp_path: Path) -> None:
    views = [CopiesView([HitView(n, str(n))]) for n in range(30)]
    html = render_results(tmp_path / "p.html", Heading("x"), SearchView("x", "y"), views, hit_limit=20)
    assert "The first 20 of 30 hits" in html and html.count('class="hit"') == 20
