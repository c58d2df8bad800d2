"""Step 3 as it is read: what the table, the Markdown and the page say, and that they say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import load_step
from yandex_answers import entity, make_workspace, xhr

from lib.db import open_database
from lib.files import answers
from lib.pages.model import DomainRow, Heading
from lib.pages.reports import render_domain_report
from lib.report.tables import cell, shortened
from lib.text import counted

report, ingest = load_step("report"), load_step("ingest")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 18 domains, of which one is VK's, and two pictures without a page; nothing is downloaded."""
    names = ["vk.com", "xn--80aesfpebagmfblc0a.example", *(f"site{number:02}.example" for number in range(16))]
    entities = []
    for number in range(40):
        host = names[number % 18] if number < 38 else ""
        page = {"title": "A page", "url": f"https://{host}/{number}", "domain": host} if host else None
        entities.append(entity(number, snippet=page))
    folder = make_workspace(tmp_path_factory.mktemp("ws"), {("a long | word", 0, "xhr"): xhr(entities)}).parent
    assert ingest.main(["--workspace", str(folder), "-q"]) == 0
    return folder


def said(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert report.main([*arguments, "--workspace", str(root), "-q"]) == 0
    return capsys.readouterr().out


def test_columns_that_nothing_fills_are_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--format", "markdown"]):
        head = said(root, capsys, *arguments)
        assert "share" in head and "success" not in head and "files" not in head and "unique" not in head
    assert "| family |" in said(root, capsys, "--format", "markdown")
    assert "| family |" not in said(root, capsys, "--format", "markdown", "--by", "engine")


def test_families_stand_below_domains_only(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"^family +pictures", said(root, capsys, "-v"), re.MULTILINE)
    assert said(root, capsys, "--by", "family").count("VK") == 1
    assert "VK" not in said(root, capsys, "--by", "licence")
    assert "(no family)" in said(root, capsys, "--by", "family")


def test_one_other_is_no_others(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(1 other)" in said(root, capsys, "--top", "18") and "(2 others)" in said(root, capsys, "--top", "17")
    assert "other" not in said(root, capsys, "--top", "19")


def test_names_are_shown_as_people_write_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--format", "markdown"], ["--compare", "1", "1"]):
        assert "стопкоронавирус.example" in said(root, capsys, *arguments), arguments


def test_markdown_cells_hold_text_only(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cell("a|b\n<img src=x>") == "a\\|b &lt;img src=x>"
    for arguments in (["--by", "query"], ["--compare", "1", "1"]):
        assert "a long \\| word" in said(root, capsys, "--format", "markdown", *arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short.example", "short.example"),
        ("x" * 40, "x" * 40),
        ("yandex: /home/ann/pictures/bridges/of/the/north/0001.jpg", "yandex: /home…dges/of/the/north/0001.jpg"),
    ],
)
def test_a_long_name_keeps_its_ends(name: str, expected: str) -> None:
    assert shortened(name) == expected and len(shortened(name)) <= 40


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [(1, "new page", "1 new page"), (0, "file", "0 files"), (2, "address", "2 addresses"), (3, "query", "3 queries"),
     (1000, "day", "1,000 days")],
)  # fmt: skip
def test_things_are_counted_as_people_count(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected


def caption(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_page_counts_domains_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """18 domains and a row for what has none: the card, the bars and the table must not tell of 18, 19 and 20."""
    said(root, capsys)
    text = caption((root / "reports/domains.html").read_text(encoding="utf-8"))
    assert "Domains 18" in text and "2 pictures without one" in text
    assert "of 19" not in text and "The largest of 18 domains" in text and "All 18 domains" in text


def test_the_page_of_the_largest_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(root, capsys, "--top", "5")
    text = caption((root / "reports/domains.html").read_text(encoding="utf-8"))
    assert "The largest of 18 domains" in text and "(14 others)" in text and "All 18 domains" not in text
    said(root, capsys)


def test_the_page_names_what_it_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(root, capsys, "--by", "licence")
    text = caption((root / "reports/by_licence.html").read_text(encoding="utf-8"))
    assert "Licences 0" in text and "40 pictures without one" in text and "By service" not in text


def test_the_page_has_no_column_that_is_always_empty(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for by, there in (("domain", True), ("engine", False)):
        page = said(root, capsys, "--by", by, "--format", "html").strip()
        assert (">Service</button>" in Path(page).read_text(encoding="utf-8")) is there


def test_a_tile_of_a_path_shows_its_end(tmp_path: Path) -> None:
    rows = [DomainRow(f"yandex: /home/ann/pictures/of/the/north/{n}.jpg", 50, 0.02, 0.02) for n in range(30)]
    html = render_domain_report(tmp_path / "p.html", Heading("x"), rows, noun="query", plural="queries")
    assert re.search(r">…[^<]*/7\.jpg</text>", html)


def test_tiles_of_the_rest_are_called_what_they_are(tmp_path: Path) -> None:
    rows = [DomainRow(f"query {n}", 1, 0.02, 0.02 * n) for n in range(50)]
    html = render_domain_report(tmp_path / "p.html", Heading("x"), rows, noun="query", plural="queries")
    assert "10 more queries" in html and "more domains" not in html


def test_one_picture_is_one_picture(tmp_path: Path) -> None:
    from support import drawing

    drawing(1).save(tmp_path / "a.png")
    row = DomainRow("a.example", 1, 1.0, 1.0, samples=[tmp_path / "a.png"])
    assert "1 picture " in caption(render_domain_report(tmp_path / "p.html", Heading("x"), [row])) + " "


def test_a_restored_search_is_named_by_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ws/xhr/yandex" / ("ab" * 8)
    answers.write_note(folder, "yandex", "image", "", "ab" * 32, {})
    answers.write_whole(folder / "0.json", xhr([entity(1)]))
    assert ingest.main(["--rescan", "--workspace", str(tmp_path / "ws"), "-q"]) == 0
    assert "yandex: picture abababababababab " in said(tmp_path / "ws", capsys, "--by", "query")


def test_one_format_has_one_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_database(root / "gleaner.db") as db:
        db.execute("UPDATE images SET format = 'JPG' WHERE id % 2")
        db.execute("UPDATE images SET format = 'jpeg' WHERE NOT id % 2")
    table = said(root, capsys, "--by", "format")
    assert re.search(r"^jpeg +40 ", table, re.MULTILINE) and "jpg" not in table
