"""The page of step 6: made before anything moves, and decisions taken from it to the command that carries them out."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import PATIENCE, ROOT, as_rows, dedup, drawing, result, run_step, snapshot
from test_pages import Visit, chromium, draw  # noqa: F401

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.pages.model import GroupView, Heading, MemberView
from lib.pages.render import write_page
from lib.pages.reports import render_dedup_report

PAGE = re.compile(r"^page: (.+)$", re.MULTILINE)
ODD = "a b#c?d%e&f' ü.png" if os.name != "nt" else "a b#c%e&f' ü.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with a smaller copy each, in folders with odd names, and one with its mirror image, for review."""
    folder = tmp_path / "ph otos"
    (folder / "it's").mkdir(parents=True)
    drawing(1, 300, 200).save(folder / ODD)
    drawing(1, 300, 200).save(folder / "it's" / "one.jpg", quality=80)
    drawing(2, 300, 200).save(folder / "two.png")
    drawing(2, 300, 200).save(folder / "it's" / "two.jpg", quality=80)
    drawing(3, 300, 200).save(folder / "three.png")
    drawing(3, 300, 200).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "three mirrored.png")
    return folder


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:  # noqa: F811
    visit = Visit(chromium)
    yield visit
    visit.context.close()
    assert visit.trouble == []


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def page_of(capsys: pytest.CaptureFixture[str]) -> Path:
    (page,) = PAGE.findall(capsys.readouterr().err)
    return Path(page)


def card(tab: Any, name: str) -> Any:
    return tab.locator(".picture").filter(has=tab.get_by_text(name, exact=True))


def save(tab: Any, folder: Path) -> Path:
    """Saves the choices, tells the page where, and gives that place."""
    with tab.expect_download() as download:
        tab.click("#save")
    place = folder.parent / "my decisions.json"
    download.value.save_as(place)
    assert tab.is_visible("#saved")
    tab.fill("#saved-file", str(place))
    return place


def run_shown(command: str, expect: int = 0) -> str:
    """Runs a command as the page shows it."""
    words = shlex.split(command)
    assert words[:2] == ["python", "6_dedup.py"]
    done = subprocess.run(
        [sys.executable, *words[1:]], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False
    )
    assert done.returncode == expect, done.stderr
    return done.stderr


# Before anything moves


@pytest.mark.parametrize("flags", [["--dry-run"], ["--plan", "{tmp}/plan.json"]], ids=["dry-run", "plan"])
def test_the_page_of_a_preview_shows_the_very_plan(folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str]):
    workspace = folder.parent / "ws"
    shown = result(folder, capsys, folder, *(flag.format(tmp=folder.parent) for flag in flags))
    before = snapshot(folder)
    dedup(folder, folder, *(flag.format(tmp=folder.parent) for flag in flags))
    page = page_of(capsys)
    assert Path(tempfile.gettempdir()) in page.parents and workspace not in page.parents
    assert not (workspace / "reports" / "dedup.html").exists() and (flags != ["--dry-run"] or not workspace.exists())
    assert snapshot(folder) == before
    html = page.read_text(encoding="utf-8")
    assert "This is a proposal: nothing has been moved." in html and "<h1>Proposal" in html
    assert html.count('src="data:image/jpeg') == 6
    found = re.findall(r'data-path="([^"]*)" data-kind="(\w+)" data-decision="(\w+)"', html)
    planned = {(m["path"], m["kind"], m["decision"]) for group in shown["groups"] for m in group["members"]}
    assert {(_plain(path), kind, decision) for path, kind, decision in found} == planned
    assert len(planned) == 3


def _plain(text: str) -> str:
    return text.replace("&amp;", "&").replace("&#39;", "'")


def test_a_preview_puts_its_page_where_it_is_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    page = folder.parent / "look.html"
    dedup(folder, folder, "--dry-run", "--page", page)
    assert page_of(capsys) == page and page.exists()
    page.unlink()
    dedup(folder, folder, "--dry-run", "-q")
    assert PAGE.findall(capsys.readouterr().err) == [], "nobody would be told of it"
    dedup(folder, folder, "--page", page)
    assert page.exists() and "Proposal" not in page.read_text(encoding="utf-8")
    assert not (folder.parent / "ws" / "reports" / "dedup.html").exists()
    assert (folder.parent / "ws" / "reports" / "dedup.json").exists()


@pytest.mark.parametrize("place", ["picture.png", "nowhere/page.html"])
def test_a_page_goes_to_an_html_file_in_a_folder(folder: Path, capsys: pytest.CaptureFixture[str], place: str):
    done = run_step("dedup", folder, "-n", "--page", folder.parent / place, "--workspace", folder.parent / "ws")
    assert done.returncode == 2 and "--page" in done.stderr


def test_a_refused_run_says_that_nothing_was_moved(folder: Path):
    dedup(folder, folder, "--max-share", "1%", expect=1)
    html = (folder.parent / "ws" / "reports" / "dedup.html").read_text(encoding="utf-8")
    assert "nothing has been moved" in html


def test_the_summary_tells_bytes_and_megabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.bmp", "b.bmp"):
        drawing(1, 600, 400).save(folder / name)
    size = (folder / "b.bmp").stat().st_size
    assert result(folder, capsys, folder, "--dry-run")["summary"]["to_remove_bytes"] == size
    dedup(folder, folder, "--dry-run")
    assert f"1 to remove ({size / 1e6:.1f} MB)" in capsys.readouterr().err
    dedup(folder, folder)
    said = capsys.readouterr().err
    assert f"1 removed ({size / 1e6:.1f} MB)" in said and "to take this back: python 6_dedup.py --undo 1" in said


def test_a_card_tells_folder_date_and_source(tmp_path: Path, capsys: pytest.CaptureFixture[str], visit: Visit):
    workspace = tmp_path / "ws"
    (workspace / "images" / "ab").mkdir(parents=True)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2019:05:01 10:00:00"
    with open_database(workspace / "gleaner.db") as db, db.transaction():
        for number, (name, quality) in enumerate([("deadbeef01.jpg", 95), ("deadbeef02.jpg", 60)]):
            path = workspace / "images" / "ab" / name
            drawing(1, 300, 200).save(path, quality=quality, exif=exif if number else b"")
            os.utime(path, (1_600_000_000, 1_600_000_000))
            content = snapshot(path.parent)[name]
            add_file(db, FileRow(content, f"images/ab/{name}", path.stat().st_size, "jpeg", 300, 200))
            if number:
                image = db.execute(
                    "INSERT INTO images (key, engine, page_url, title, published_at, first_seen_at)"
                    " VALUES ('t:1', 't', 'https://www.harbour.example/p?a=1', 'The old <harbour>',"
                    " '2021-03-04T05:06', '')"
                ).lastrowid
                db.execute(
                    "INSERT INTO downloads (image_id, state, sha256, updated_at) VALUES (?, 'done', ?, '')",
                    (image, content),
                )
    dedup(tmp_path / "photos", "--dry-run")
    tab = visit.open(page_of(capsys))
    keeper, member = (tab.inner_text(f".picture.{kind} figcaption") for kind in ("keeper", "member"))
    assert "deadbeef01.jpg" in keeper and "in images/ab" in keeper and "file of 2020-09-13" in keeper
    assert member.index("The old <harbour>") < member.index("deadbeef02.jpg")
    assert "published 2021-03-04, taken 2019-05-01" in member and "found on harbour.example" in member
    assert tab.get_attribute(".member a", "href") == "https://www.harbour.example/p?a=1"


# Decisions


def test_decisions_on_a_proposal_are_carried_out_by_the_command_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], visit: Visit
):
    dedup(folder, "similar", folder, "--dry-run", "--protect", folder / "it's", "--max-share", "100%")
    tab = visit.open(page_of(capsys))
    tab.click(".picture .thumb >> nth=0")
    tab.wait_for_function("document.getElementById('left').naturalWidth === 300")  # linked from the temporary place
    tab.keyboard.press("Escape")
    # What is protected is the keeper here: the larger file is made the keeper, and the other is kept too.
    card(tab, ODD).get_by_role("button", name="Keep both").click()
    card(tab, "three.png").or_(card(tab, "three mirrored.png")).get_by_role("button", name="Remove").click()
    save(tab, folder)
    command = tab.inner_text("#command")
    assert shlex.split(command)[2:4] == ["similar", str(folder)] and "--protect" in command
    assert tab.is_hidden("#restoring")
    run_shown(command)
    left = names(folder)
    assert {ODD, "it's/one.jpg", "it's/two.jpg"} <= left and "two.png" not in left
    assert len(left & {"three.png", "three mirrored.png"}) == 1


def test_another_keeper_is_chosen_on_a_proposal(folder: Path, capsys: pytest.CaptureFixture[str], visit: Visit):
    dedup(folder, folder, "--dry-run")
    tab = visit.open(page_of(capsys))
    two = card(tab, "two.jpg")
    two.get_by_role("button", name="Make keeper").click()
    assert tab.locator(".group", has=two).locator(".goes").is_visible()
    save(tab, folder)
    run_shown(tab.inner_text("#command"))
    assert {"it's/two.jpg", ODD} <= names(folder) and not {"two.png", "it's/one.jpg"} & names(folder)


def test_moved_pictures_are_restored_and_exchanged_from_the_page(
    folder: Path, capsys: pytest.CaptureFixture[str], visit: Visit
):
    dedup(folder, folder)
    tab = visit.open(page_of(capsys))
    one, two = card(tab, "one.jpg"), card(tab, "two.jpg")
    assert one.locator("[data-choice]").all_inner_texts() == ["Restore", "Make keeper"]
    one.locator(".thumb").focus()
    tab.keyboard.press("r")  # it has gone already
    tab.keyboard.press("x")
    two.locator(".thumb").focus()
    tab.keyboard.press("m")
    save(tab, folder)
    assert tab.is_visible("#restoring")
    only = tab.inner_text("#restore-command")
    assert shlex.split(only)[-2:] == ["--restore", str(folder / "it's" / "one.jpg")]
    run_shown(tab.inner_text("#command"))
    assert {ODD, "it's/one.jpg", "it's/two.jpg"} <= names(folder) and "two.png" not in names(folder)
    assert "already" in run_shown(only)
    run_shown(f"python 6_dedup.py --undo 2 --workspace {shlex.quote(str(folder.parent / 'ws'))}")
    assert "two.png" in names(folder) and "it's/one.jpg" not in names(folder)
    run_shown(only)
    assert "it's/one.jpg" in names(folder)
    assert as_rows(folder.parent / "ws" / "gleaner.db", "SELECT count(*) FROM actions WHERE state = 'planned'") == [
        (0,)
    ]


def many(tmp_path: Path, number: int, again: tuple[str, ...] = ("python", "6_dedup.py", "all")) -> Path:
    picture = draw(tmp_path / "one.png")
    groups = [
        GroupView(
            str(n),
            MemberView(f"/k/{n}.png", picture),
            [MemberView(f"/m/{n}.png", picture, "edited" if n % 2 else "same", "review" if n % 2 else "remove", 3)],
        )
        for n in range(number)
    ]
    page = tmp_path / "page.html"
    return write_page(page, render_dedup_report(page, Heading("Repeats", generated="now"), groups, again=again))


SHOWN = "[...document.querySelectorAll('.group:not([hidden])')].map(g => Number(g.dataset.index))"


def test_pages_hold_a_hundred_groups(tmp_path: Path, visit: Visit):
    tab = visit.open(many(tmp_path, 250))
    tab.select_option("#order", "index")
    assert tab.evaluate(SHOWN) == list(range(1, 101)) and tab.inner_text("#shown") == "250 groups"
    assert tab.is_disabled(".pager [data-turn='-1'] >> nth=0")
    tab.click("#group-100 .member [data-choice=remove]")
    tab.keyboard.press("j")  # over the end of the page
    assert tab.evaluate(SHOWN) == list(range(101, 201))
    assert tab.get_attribute(".group.current", "data-index") == "101"
    tab.keyboard.press("n")
    assert tab.evaluate(SHOWN) == list(range(201, 251)) and tab.is_disabled(".pager [data-turn='1'] >> nth=1")
    tab.keyboard.press("x")
    tab.keyboard.press("p")
    tab.select_option("#page", "0")
    assert tab.evaluate(SHOWN)[0] == 1
    visit.reload_until("document.getElementById('save').textContent === 'Save 2 choices'")
    with tab.expect_download() as download:
        tab.click("#save")
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["decisions"]
    assert [(one["path"], one["decision"]) for one in saved] == [("/m/99.png", "remove"), ("/m/200.png", "keep")]


def test_everything_that_a_filter_shows_is_accepted_on_every_page(tmp_path: Path, visit: Visit):
    tab = visit.open(many(tmp_path, 250))
    tab.click("#group-1 .member [data-choice=keep]")  # by itself: it stays as it is
    tab.select_option("#decision", "remove")
    assert "All 125 pictures" in tab.inner_text("#bulk-title")
    tab.click("[data-bulk=accept]")
    tab.select_option("#decision", "review")
    tab.click("[data-bulk=keep]")
    with tab.expect_download() as download:
        tab.click("#save")
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["decisions"]
    words = {int(Path(one["path"]).stem): one["decision"] for one in saved}
    assert words == {n: "keep" if n % 2 or n == 0 else "remove" for n in range(250)}
    tab.click("[data-bulk=clear]")
    assert tab.inner_text("#save") == "Save 125 choices"


@pytest.mark.parametrize("number", [0, 1, 250])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_is_accessible(tmp_path: Path, chromium: Any, number: int, scheme: str, width: int):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    visit = Visit(chromium, color_scheme=scheme, viewport={"width": width, "height": 900})
    try:
        tab = visit.open(many(tmp_path, number))
        if number:
            tab.click(".member [data-choice=keeper]")
            with tab.expect_download():
                tab.click("#save")
            assert tab.inner_text("#shown") == ("1 group" if number == 1 else "250 groups")
            assert tab.is_hidden(".pager >> nth=0") is (number == 1)
        else:
            assert "No repeats" in tab.inner_text("main")
        found = Axe().run(tab)
        assert found.violations_count == 0, found.generate_report()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    finally:
        visit.context.close()
    assert visit.trouble == []


@pytest.mark.skipif(os.name == "nt", reason="asks a POSIX shell")
def test_commands_are_quoted_for_the_shell(tmp_path: Path, visit: Visit):
    tab = visit.open(many(tmp_path, 1, ("python", "6_dedup.py", "it's $HOME; `x`", "-x")))
    tab.click(".member [data-choice=keep]")
    with tab.expect_download():
        tab.click("#save")
    for word in ("plain", "two words", "it's", "$HOME", "a;b", "~/Downloads/a b.json", "é"):
        tab.fill("#saved-file", word)
        shown = tab.evaluate("document.getElementById('command').textContent").removeprefix("python 6_dedup.py ")
        read = subprocess.run(
            ["sh", "-c", f'for w in {shown}; do printf "%s\\0" "$w"; done'],
            capture_output=True, text=True, check=True, env={**os.environ, "HOME": "/home/me"},
        ).stdout.split("\0")  # fmt: skip
        assert read[:4] == ["it's $HOME; `x`", "-x", "--decisions", word.replace("~/", "/home/me/")]


def test_the_text_speaks_of_a_page_where_there_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        for name in ("a", "b"):
            drawing(number, 96, 64).save(folder / f"{number}{name}.png")
    dedup(folder, "exact", folder, "--dry-run")
    shown = capsys.readouterr()
    assert "… and 1 group more (-v prints all; the page shows them)" in shown.out
    assert "6 to remove" in shown.err and "6 byte for byte" in shown.err
    dedup(folder, "exact", folder, "--dry-run", "-q")
    assert "more (-v prints all)" in capsys.readouterr().out


def test_what_lies_in_the_quarantine_is_neither_accepted_nor_removed(folder: Path, visit: Visit):
    dedup(folder, folder)
    tab = visit.open(folder.parent / "ws" / "reports" / "dedup.html")
    assert "“in quarantine” come back with --undo" in tab.inner_text("header")
    assert tab.inner_text("[data-bulk=keep]") == "Keep both or restore"
    tab.select_option("#kind", "same")
    assert tab.inner_text("[data-bulk=keep]") == "Restore"
    assert tab.is_disabled("[data-bulk=accept]") and tab.is_disabled("[data-bulk=remove]")
    assert "in the quarantine" in tab.inner_text(".group:not([hidden]) .group-head")
    tab.select_option("#kind", "edited")
    assert tab.inner_text("[data-bulk=keep]") == "Keep both" and tab.is_enabled("[data-bulk=accept]")


def test_a_folder_is_told_to_its_end_on_a_narrow_screen(folder: Path, visit: Visit):
    dedup(folder, folder, "--dry-run", "--page", folder.parent / "page.html")
    visit.tab.set_viewport_size({"width": 390, "height": 844})
    tab = visit.open(folder.parent / "page.html")
    cut = "list => list.filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1).length"
    assert tab.locator(".place").evaluate_all(cut) == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
