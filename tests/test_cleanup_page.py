"""The page of step 4: what each rule would take, what it took, and how it looks and turns in a real Chromium."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from support import snapshot
from test_cleanup import GONE, STEP, clean, dirty, key, picture  # noqa: F401 (fixtures)
from test_pages import HOSTILE, Visit, chromium, draw, visit  # noqa: F401 (fixtures)
from test_sheets import told_page

from lib.pages.cleanup import CleanupRow, CleanupRule, render_cleanup_page
from lib.pages.model import Heading
from lib.pages.render import write_page


def step(workspace: Path, *arguments: object) -> int:
    return STEP.main([*map(str, arguments), "--workspace", str(workspace)])


def listed(page: Path) -> dict[str, list[str]]:
    """The text of every row, by rule."""
    found = {}
    for section in re.split(r'<section class="panel rule"', page.read_text("utf-8"))[1:]:
        rows = re.findall(r'<li class="row".*?</li>', section, re.DOTALL)
        title = re.search(r"<h2[^>]*>(.*?)</h2>", section)
        assert title
        found[title[1]] = [" ".join(unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in rows]
    return found


def with_file(database: Path, number: int) -> Path:
    """Makes a picture of the database a downloaded one."""
    file = draw(database.parent / "images/aa/one.png")
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(
            "INSERT INTO files (sha256, path, bytes, format, added_at) VALUES ('aa', 'images/aa/one.png', 1, 'png', '')"
        )
        connection.execute("UPDATE downloads SET state = 'done', sha256 = 'aa' WHERE image_id = ?", (picture(number),))
    connection.close()
    return file


def test_a_quiet_dry_run_makes_no_page_that_nobody_is_told_of(
    dirty: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place := tmp_path / "places"))
    place.mkdir()
    assert step(dirty.parent, "-n", "-q") == 0 and not list(place.glob("gleaner-*"))
    assert step(dirty.parent, "-n") == 0 and list(place.glob("gleaner-*"))


def test_a_dry_run_shows_what_each_rule_would_take(dirty: Path, capsys: Any) -> None:  # noqa: F811
    with_file(dirty, 0)
    before = snapshot(dirty.parent)
    assert step(dirty.parent, "--dry-run", "--json") == 0
    said = capsys.readouterr()
    page, told = told_page(said.err), json.loads(said.out)
    assert snapshot(dirty.parent) == before and dirty.parent not in page.parents
    assert told["result"]["page"] == str(page)
    rows, html = listed(page), page.read_text("utf-8")
    assert list(rows) == list(dict.fromkeys(entry["rule"] for entry in told["result"]["plan"]))
    for rule, entries in rows.items():
        total = sum(entry["rows"] for entry in told["result"]["plan"] if entry["rule"] == rule)
        belonging = sum(sum(map(int, re.findall(r"(\d+) (?:address|result|download|earlier)", e))) for e in entries)
        assert len(entries) + belonging == total, (rule, entries)
    assert any("http:///x" in row and "no host" in row for row in rows["broken_url"])
    assert any("becomes https://new.example/1.jpg" in row for row in rows["schemeless_url"])
    assert any(key(4) in row and "picture" in row for row in rows["no_address"])
    assert html.count('src="data:image/jpeg') >= 3, "addresses of a downloaded picture stand beside it"
    assert "</strong> to take out" in html and "</strong> to take out or complete" in html
    assert "nothing has been taken out" in html
    found = re.search(r"<code>(.*?)</code>", html)
    assert found and "--dry-run" not in found[1] and "4_db_cleanup.py" in found[1]
    assert STEP.main(shlex.split(unescape(found[1]))[2:]) == 0
    assert (dirty.parent / "reports/cleanup.html").exists()


def test_the_page_after_says_what_the_page_before_said(dirty: Path, tmp_path: Path, capsys: Any) -> None:  # noqa: F811
    with_file(dirty, 0)
    before, after = tmp_path / "before.html", tmp_path / "ws.html"
    assert step(dirty.parent, "-n", "--page", before) == 0
    assert step(dirty.parent, "--page", after) == 0
    assert listed(before) == listed(after) and listed(after)
    assert not (dirty.parent / "reports/cleanup.html").exists()
    told = re.search(r"to take this back: (.+)", capsys.readouterr().err)
    html = after.read_text("utf-8")
    assert told and f"<code>{told[1]}</code>" in html and "</strong> taken out" in html and "</strong> to " not in html


def test_the_page_in_reports_is_of_what_is_in_force(dirty: Path) -> None:  # noqa: F811
    page = dirty.parent / "reports/cleanup.html"
    assert step(dirty.parent, "--rule", "orphan", "no_address") == 0
    assert list(listed(page)) == ["orphan", "no_address"]
    first = page.read_text("utf-8")
    assert step(dirty.parent, "--rule", "orphan") == 0
    assert page.read_text("utf-8") == first, "a run that takes nothing out leaves the page of the one that did"
    assert step(dirty.parent, "--rule", "broken_url") == 0
    assert list(listed(page)) == ["broken_url"]
    assert step(dirty.parent, "--undo", "3") == 0 and page.exists(), "another run's undo is not this page's"
    assert step(dirty.parent, "--undo", "last", "--dry-run") == 0 and page.exists()
    assert step(dirty.parent, "--undo", "last") == 0 and not page.exists()


def test_a_forgotten_search_and_a_clean_database(clean: Path, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    assert step(clean.parent, "-n", "--page", page) == 0
    assert "Nothing to take out" in page.read_text("utf-8") and "<code>" not in page.read_text("utf-8")
    assert step(clean.parent, "--forget-query", "1", "-n", "--page", page) == 0
    rows = listed(page)["forgotten_query"]
    assert any("search yandex" in row for row in rows) and sum("picture" in row for row in rows) == 12
    assert "with 1 address" in " ".join(rows) or "addresses" in " ".join(rows)


def many(number: int, files: list[Path]) -> list[CleanupRule]:
    rows = [
        CleanupRow("address", f"http:///x{n}", "no host", title=f"A lake {n}", page_url="https://pages.example/1",
                   file=files[n % len(files)] if n % 2 else None)
        for n in range(number)
    ]  # fmt: skip
    one = CleanupRow("picture", "yandex:1", "", leaves="1 address and 1 result")
    return [
        CleanupRule("broken_url", "Addresses that are empty", number, f"{number:,} addresses", number, rows),
        CleanupRule("no_address", "Pictures without any address", 3, "1 picture, 1 address, 1 result", 1, [one]),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("number", [0, 1, 200])
def test_the_page_is_accessible_and_fits_a_phone(
    number: int,
    scheme: str,
    tmp_path: Path,
    chromium: Any,  # noqa: F811
) -> None:
    page, files = tmp_path / "page.html", [draw(tmp_path / "a.png")]
    rules = many(number, files) if number else []
    looked = Visit(chromium, color_scheme=scheme, viewport={"width": 390, "height": 844})
    try:
        tab = looked.open(write_page(page, render_cleanup_page(page, Heading("Cleaned up"), rules)))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert Axe().run(tab).response["violations"] == []
        assert looked.trouble == []
    finally:
        looked.context.close()


def test_long_lists_are_turned_and_searched(tmp_path: Path, visit: Visit) -> None:  # noqa: F811
    page, files = tmp_path / "page.html", [draw(tmp_path / "a.png")]
    tab = visit.open(write_page(page, render_cleanup_page(page, Heading("Cleaned up"), many(3_000, files))))
    seen = "[...document.querySelectorAll('#rule-1 .row')].filter(r => r.offsetParent).length"
    turned = "document.querySelector('#rule-1 .turn output').textContent"
    assert tab.inner_text("#shown") == "3,001 rows" and tab.evaluate(seen) == 100
    assert tab.evaluate(turned) == "1 to 100 of 3,000" and not tab.is_visible("#rule-2 .turn")
    tab.click("#rule-1 .on")
    assert tab.evaluate(turned) == "101 to 200 of 3,000" and tab.is_visible("text=http:///x150")
    tab.fill("#text", "LAKE 299")
    assert tab.inner_text("#shown") == "11 of 3,001 rows" and tab.evaluate(seen) == 11
    assert not tab.is_visible("#rule-2") and not tab.is_visible("#rule-1 .turn")
    tab.fill("#text", "nothing like it")
    assert tab.is_visible("#none")


def test_hostile_text_stays_text(tmp_path: Path, visit: Visit) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    row = CleanupRow(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, "javascript:alert(1)", None, HOSTILE)
    html = render_cleanup_page(page, Heading("Cleaned up"), [CleanupRule(HOSTILE, HOSTILE, 1, HOSTILE, 1, [row])])
    tab = visit.open(write_page(page, html))
    assert tab.locator("main a[target]").count() == 0 and "<script>alert" not in html
