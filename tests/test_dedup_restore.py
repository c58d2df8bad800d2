"""Pictures that come back from the quarantine one by one, and decisions on pictures that have been moved already."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support import as_rows, dedup, drawing, result, snapshot

SIZE = (96, 64)
OF_NOW = ("index.html", "dedup.html", "gleaner.db")  # say when they were made
PAGE_DATA = re.compile(r'id="page-data">(.*?)</script>', re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture three times (b.png and sub/c.png go for a.png), a smaller copy of another one, and a lone one."""
    folder = tmp_path / "my photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        drawing(1, *SIZE).save(folder / name)
    drawing(2, 400, 300).save(folder / "large.png")
    drawing(2, 400, 300).save(folder / "small.jpg", quality=80)
    drawing(3, *SIZE).save(folder / "lone.png")
    for name in ("a.json", "b.json"):
        (folder / name).write_text('{"title": "a note"}')
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def save(folder: Path, *decisions: tuple[str, str, str]) -> Path:
    """A decisions file as the page saves it: (keeper, picture, decision) of each."""
    path = folder.parent / "decisions.json"
    chosen = [
        {"group": "1", "keeper": str(folder / keeper), "path": str(folder / name), "decision": word}
        for keeper, name, word in decisions
    ]
    path.write_text(json.dumps({"version": 1, "run": "1", "decisions": chosen}), encoding="utf-8")
    return path


LEFT = {"a.png", "a.json", "large.png", "lone.png"}
ALL = LEFT | {"b.png", "b.json", "sub/c.png", "small.jpg"}


def removed(folder: Path) -> set[str]:
    """The contents that step 6 remembers as taken away."""
    return {row[0] for row in as_rows(folder.parent / "ws" / "gleaner.db", "SELECT sha256 FROM tombstones")}


@pytest.mark.parametrize("name", ["b.png", "sub/c.png", "small.jpg"])
def test_a_moved_picture_that_is_kept_comes_back_for_good(folder: Path, capsys: pytest.CaptureFixture[str], name: str):
    dedup(folder, folder)
    assert names(folder) == LEFT
    moved, before = snapshot(folder.parent / "ws" / "quarantine"), snapshot(folder)
    keeper = "large.png" if name == "small.jpg" else "a.png"
    decisions = save(folder, (keeper, name, "keep"))
    shown = result(folder, capsys, folder, "--decisions", decisions, "--dry-run")["summary"]
    assert shown["to_restore"] == 1 and snapshot(folder) == before
    found = result(folder, capsys, folder, "--decisions", decisions)["summary"]
    back = LEFT | {name} | ({"b.json"} if name == "b.png" else set())
    assert found["restored"] == 1 and found["removed"] == 0 and names(folder) == back
    again = result(folder, capsys, folder)
    assert again["summary"]["removed"] == 0 and again["groups"] == [] and names(folder) == back
    found = result(folder, capsys, folder, "--decisions", decisions)["summary"]
    assert found["already_kept"] == 1 and "restored" not in found
    dedup(folder, "--undo", 3)  # the run that brought it back: 2 is no dry run, which has no number
    dedup(folder, "--undo", "last")
    assert names(folder) in (LEFT, ALL)
    assert moved


def test_an_undo_takes_the_return_back_and_the_next_one_the_removal(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = snapshot(folder)
    dedup(folder, folder)
    state, gone = snapshot(folder.parent), removed(folder)
    dedup(folder, "--restore", folder / "small.jpg")
    assert names(folder) == LEFT | {"small.jpg"} and removed(folder) < gone
    dedup(folder, "--undo", "last")
    after = snapshot(folder.parent)
    assert {n: d for n, d in after.items() if not n.endswith(OF_NOW)} == {
        n: d for n, d in state.items() if not n.endswith(OF_NOW)
    }
    assert removed(folder) == gone
    dedup(folder, "--undo", "last")
    assert snapshot(folder) == before and not removed(folder)
    assert as_rows(folder.parent / "ws" / "gleaner.db", "SELECT * FROM kept_files") == []


def test_the_removal_can_be_undone_before_the_return(folder: Path):
    before = snapshot(folder)
    dedup(folder, folder)
    dedup(folder, "--restore", folder / "b.png")
    dedup(folder, "--undo", 1)
    assert snapshot(folder) == before
    dedup(folder, "--undo", 2)  # b.png was moved by run 1, to which its return gives it back
    assert names(folder) == ALL - {"b.png", "b.json"}
    dedup(folder, "--undo", 1)
    assert snapshot(folder) == before


@pytest.mark.parametrize("how", ["path", "relative", "quarantine", "quarantine text", "sha256", "short sha256"])
def test_a_picture_is_named_in_every_way(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str):
    content = snapshot(folder)["small.jpg"]
    dedup(folder, folder)
    (held,) = (folder.parent / "ws" / "quarantine").rglob("small.jpg")
    monkeypatch.chdir(folder)
    word = {
        "path": folder / "small.jpg",
        "relative": "small.jpg",
        "quarantine": held,
        "quarantine text": held.relative_to(folder.parent / "ws").as_posix(),
        "sha256": content,
        "short sha256": content[:8].upper(),
    }[how]
    dedup(folder, "--restore", word)
    assert names(folder) == LEFT | {"small.jpg"}
    dedup(folder, "--restore", word)  # it is there already
    dedup(folder, folder)
    assert names(folder) == LEFT | {"small.jpg"}


def test_several_are_restored_at_once_and_a_dry_run_says_so(folder: Path, capsys: pytest.CaptureFixture[str]):
    dedup(folder, folder)
    words = ["--restore", folder / "b.png", "--restore", folder / "small.jpg"]
    before = snapshot(folder.parent)
    capsys.readouterr()
    dedup(folder, *words, "--dry-run")
    shown = capsys.readouterr()
    assert shown.out.count("would restore") == 2 and "2 to restore" in shown.err
    assert snapshot(folder.parent) == before
    dedup(folder, *words)
    shown = capsys.readouterr()
    assert "2 restored" in shown.err and "to take this back: python 6_dedup.py --undo 2" in shown.err
    assert names(folder) == LEFT | {"b.png", "b.json", "small.jpg"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--restore", "{folder}/never.png"], "no such picture"),
        (["--restore", "abcdef0123"], "no such picture"),
        (["--restore", "{content}"], "means 2 pictures"),
        (["--restore", "{folder}/b.png", "--restore", "{folder}/never.png"], "no such picture"),
        (["--restore", "{folder}/b.png", "--undo", "last"], "leave out --undo"),
    ],
)
def test_what_nobody_knows_is_one_sentence_and_touches_nothing(folder: Path, capsys, words: list[str], said: str):
    content = snapshot(folder)["b.png"][:12]  # of sub/c.png too
    dedup(folder, folder)
    capsys.readouterr()
    dedup(folder, *(word.format(folder=folder, content=content) for word in words), expect=2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and names(folder) == LEFT


def test_a_place_that_is_taken_stays_as_it_is_and_the_others_come(folder: Path, capsys: pytest.CaptureFixture[str]):
    dedup(folder, folder)
    drawing(7, *SIZE).save(folder / "b.png")
    other = snapshot(folder)["b.png"]
    capsys.readouterr()
    dedup(folder, "--restore", folder / "b.png", "--restore", folder / "small.jpg", expect=1)
    said = capsys.readouterr().err
    assert said.count("b.png cannot come back") == 1 and "1 restored, 1 not restored" in said
    assert snapshot(folder)["b.png"] == other and names(folder) == LEFT | {"b.png", "small.jpg"}


def test_decisions_on_pictures_that_are_nowhere_are_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    dedup(folder, folder)
    shutil.rmtree(folder.parent / "ws" / "quarantine")
    decisions = save(folder, ("a.png", "b.png", "keep"), ("a.png", "never.png", "keeper"))
    capsys.readouterr()
    dedup(folder, folder, "--decisions", decisions, expect=1)
    said = capsys.readouterr().err
    assert said.count("neither there nor in the quarantine") == 2 and "2 not restored" in said


def test_decisions_of_another_folder_are_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    other = folder.parent / "other"
    other.mkdir()
    drawing(8, *SIZE).save(other / "x.png")
    decisions = save(folder, ("a.png", "b.png", "keep"))
    capsys.readouterr()
    dedup(folder, other, "--decisions", decisions)
    said = capsys.readouterr().err
    assert "1 picture was with a decision not looked at" in said or "not looked at" in said
    assert "1 not followed" in said


# The keeper is another one


def test_a_moved_picture_takes_the_keepers_place(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = snapshot(folder)
    dedup(folder, folder)
    decisions = save(folder, ("large.png", "small.jpg", "keeper"))
    found = result(folder, capsys, folder, "--decisions", decisions)["summary"]
    assert found["restored"] == found["exchanged"] == 1
    swapped = LEFT - {"large.png"} | {"small.jpg"}
    assert names(folder) == swapped
    assert removed(folder) == {before["large.png"]}
    found = result(folder, capsys, folder, "--decisions", decisions)["summary"]
    assert "exchanged" not in found and "not_followed" not in found and names(folder) == swapped
    dedup(folder, folder)
    assert names(folder) == swapped
    dedup(folder, "--undo", 2)
    assert names(folder) == LEFT
    dedup(folder, "--undo", 1)
    assert snapshot(folder) == before and not removed(folder)


def test_a_picture_is_made_keeper_before_anything_moves(folder: Path, capsys: pytest.CaptureFixture[str]):
    decisions = save(folder, ("large.png", "small.jpg", "keeper"), ("a.png", "sub/c.png", "keeper"))
    shown = result(folder, capsys, folder, "--decisions", decisions, "--dry-run")
    assert {Path(group["keeper"]).name for group in shown["groups"]} == {"small.jpg", "c.png"}
    assert names(folder) == ALL
    dedup(folder, folder, "--decisions", decisions)
    assert names(folder) == {"sub/c.png", "small.jpg", "lone.png"}
    assert result(folder, capsys, folder)["summary"]["removed"] == 0
    dedup(folder, "--undo", 1)
    assert names(folder) == ALL


def test_a_grey_copy_is_made_keeper_if_a_person_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """By itself it never takes the place of the coloured one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    drawing(4, 400, 300).save(folder / "colour.png")
    drawing(4, 400, 300).convert("L").save(folder / "grey.png")
    decisions = save(folder, ("colour.png", "grey.png", "keeper"))
    dedup(folder, folder, "--decisions", decisions)
    assert names(folder) == {"grey.png"}


@pytest.mark.parametrize("moved", [False, True])
def test_a_protected_keeper_stays(folder: Path, capsys: pytest.CaptureFixture[str], moved: bool):
    safe = folder.parent / "safe"
    safe.mkdir()
    shutil.move(folder / "large.png", safe / "large.png")
    words = (folder, safe, "--protect", safe)
    if moved:
        dedup(folder, *words)
    chosen = [{"keeper": str(safe / "large.png"), "path": str(folder / "small.jpg"), "decision": "keeper"}]
    decisions = folder.parent / "decisions.json"
    decisions.write_text(json.dumps({"version": 1, "decisions": chosen}))
    capsys.readouterr()
    dedup(folder, *words, "--decisions", decisions, expect=1 if moved else 0)
    said = capsys.readouterr().err
    assert ("is protected" if moved else "1 not followed") in said
    assert (safe / "large.png").exists() and (folder / "small.jpg").exists() is not moved


def test_a_keeper_that_has_changed_is_not_exchanged(folder: Path, capsys: pytest.CaptureFixture[str]):
    dedup(folder, folder)
    drawing(9, 400, 300).save(folder / "large.png")
    decisions = save(folder, ("large.png", "small.jpg", "keeper"))
    capsys.readouterr()
    dedup(folder, folder, "--decisions", decisions, expect=1)
    assert "no longer the picture that was shown" in capsys.readouterr().err
    assert names(folder) == LEFT


def test_equal_files_that_are_kept_stay_in_every_order(folder: Path, capsys: pytest.CaptureFixture[str]):
    """By the order of another run, the keeper would be the one to go."""
    dedup(folder, "exact", folder)
    dedup(folder, "--restore", folder / "b.png")
    for keep in ("newest", "oldest", "first", "best"):
        assert result(folder, capsys, "exact", folder, "--keep", keep)["summary"]["removed"] == 0
    assert {"a.png", "b.png"} <= names(folder)


def test_two_that_come_back_are_no_repeats_of_each_other(folder: Path, capsys: pytest.CaptureFixture[str]):
    dedup(folder, "exact", folder)
    dedup(folder, "--restore", folder / "b.png", "--restore", folder / "sub" / "c.png")
    assert result(folder, capsys, "exact", folder)["summary"]["removed"] == 0
    (folder / "a.png").unlink()
    shown = result(folder, capsys, "exact", folder)
    assert shown["summary"]["removed"] == 0 and {"b.png", "sub/c.png"} <= names(folder)


# The page tells what is so now


def cards(folder: Path, name: str = "dedup.html") -> dict[str, str]:
    """What the page says of each picture that is no broken file: `keeper`, `in quarantine`, `keep`, `review` …"""
    html = (folder.parent / "ws" / "reports" / name).read_text(encoding="utf-8")
    found = re.findall(r'<figure .*?data-path="([^"]*)".*?<span class="badge [^"]*">([^<]*)</span>', html, re.DOTALL)
    return {Path(path).relative_to(folder).as_posix(): badge for path, badge in found}


AWAY = {"a.png": "keeper", "b.png": "in quarantine", "sub/c.png": "in quarantine"}
BOTH = AWAY | {"large.png": "keeper", "small.jpg": "in quarantine"}


def test_the_page_follows_what_comes_back_and_goes_again(folder: Path):
    page = folder.parent / "ws" / "reports" / "dedup.html"
    dedup(folder, folder)
    assert cards(folder) == BOTH
    made = page.read_bytes()
    dedup(folder, "--restore", folder / "b.png", "--dry-run")
    assert page.read_bytes() == made
    dedup(folder, "--restore", folder / "b.png")
    assert cards(folder) == BOTH | {"b.png": "keep"}
    html = page.read_text(encoding="utf-8")
    assert "Brought up to date after run 2" in html and "In quarantine" in html
    assert json.loads(PAGE_DATA.findall(html)[0])["again"] == json.loads(PAGE_DATA.findall(made.decode())[0])["again"]
    made = page.read_bytes()
    dedup(folder, "--restore", folder / "b.png")  # there already: nothing to tell
    assert page.read_bytes() == made
    dedup(folder, "--undo", "last")
    assert cards(folder) == BOTH
    dedup(folder, "--undo", "last")
    assert not page.exists()


def test_choices_that_are_not_saved_yet_survive_the_new_page(folder: Path):
    page = folder.parent / "ws" / "reports" / "dedup.html"
    dedup(folder, folder)
    key = json.loads(PAGE_DATA.findall(page.read_text(encoding="utf-8"))[0])["key"]
    dedup(folder, "--restore", folder / "b.png")
    assert json.loads(PAGE_DATA.findall(page.read_text(encoding="utf-8"))[0])["key"] == key


@pytest.mark.parametrize("new", [False, True], ids=["nothing new", "a new group too"])
def test_the_page_follows_an_exchange(folder: Path, new: bool):
    dedup(folder, folder)
    if new:
        drawing(3, *SIZE).save(folder / "new.png")
    dedup(folder, folder, "--decisions", save(folder, ("large.png", "small.jpg", "keeper")))
    swapped = AWAY | {"small.jpg": "keeper", "large.png": "in quarantine"}
    more = {"lone.png": "keeper", "new.png": "in quarantine"} if new else {}
    assert cards(folder) == swapped | more
    if not new:
        dedup(folder, "--undo", "last")
        assert cards(folder) == BOTH


def test_a_later_run_still_shows_what_lies_in_the_quarantine(folder: Path):
    dedup(folder, folder)
    drawing(3, *SIZE).save(folder / "new.png")
    dedup(folder, folder)
    assert cards(folder) == BOTH | {"lone.png": "keeper", "new.png": "in quarantine"}


def test_a_page_of_another_place_is_nobodys_to_rewrite(folder: Path):
    page = folder.parent / "mine.html"
    dedup(folder, folder, "--page", page)
    made = page.read_bytes()
    dedup(folder, "--restore", folder / "b.png")
    assert page.read_bytes() == made and not (folder.parent / "ws" / "reports" / "dedup.html").exists()
