"""What the journal takes for proof: kills, undo after kills, and that no undo takes the last of a content."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, ROOT, STEPS, as_rows, drawing, dump, load_step, snapshot

from lib.db import Context, open_database
from lib.db.files import FileRow, add_file
from lib.db.journal import Action, finish_run, start_run
from lib.files.pictures import sha256_of
from lib.journal import files
from lib.workspace import Workspace, file_lock, step_lock

# Ends the process at the n-th call of a function of `os` whose paths hold a text: right before it, or right after it.
KILLER = """
import os, runpy, signal, sys
call, where, after, nth = {call!r}, {where!r}, {after!r}, {nth}
real, seen = getattr(os, call), [0]
def counted(source, *rest, **more):
    if ".part" in str(source) or ".json" in str(source) or where not in str([source, *rest]):
        return real(source, *rest, **more)
    seen[0] += 1
    if seen[0] == nth and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(source, *rest, **more)
    if seen[0] == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(os, call, counted)
sys.argv = [{step!r}, *{arguments!r}]
runpy.run_path({step!r}, run_name="__main__")
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A user's folder: one picture under three names, and another one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    drawing(1, 120, 90).save(folder / "a.jpg", quality=90)
    for name in ("b.jpg", "c.jpg"):
        shutil.copy2(folder / "a.jpg", folder / name)
    drawing(2, 120, 90).save(folder / "other.jpg", quality=90)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """As step 5 leaves it: one picture in three encodings, and another one, each known with its address."""
    made = Workspace(tmp_path / "ws")
    shelf = made.images / "ab"
    shelf.mkdir(parents=True)
    for quality in (95, 90, 85):
        drawing(1, 320, 240).save(shelf / f"{quality}.jpg", quality=quality)
    drawing(2, 320, 240).save(shelf / "other.jpg", quality=90)
    with open_database(made.database) as db, db.transaction():
        for number, path in enumerate(sorted(shelf.iterdir()), 1):
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, made.to_text(path), path.stat().st_size, "jpeg", 320, 240))
            db.execute(
                "INSERT INTO images (id, key, engine, page_url, first_seen_at) VALUES (?, ?, 'yandex', '', '2026')",
                (number, path.stem),
            )
            address = f"https://files.example/{path.name}"
            db.execute(
                "INSERT INTO image_variants (id, image_id, kind, url) VALUES (?, ?, 'original', ?)",
                (number, number, address),
            )
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, variant_id, updated_at) VALUES (?, 'done', ?, ?, '')",
                (number, sha256, number),
            )
    return made


def words(root: Path, *arguments: object) -> list[str]:
    return [*map(str, arguments), "--workspace", str(root), "--workers", "1"]


def run(step: str, root: Path, *arguments: object, expect: int = 0) -> None:
    assert load_step(step).main(words(root, *arguments)) == expect


def counts(step: str, root: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    run(step, root, *arguments, "--json")
    return json.loads(capsys.readouterr().out)["counts"]


def killed(
    step: str,
    root: Path,
    *arguments: object,
    call: str,
    where: str = "",
    nth: int = 1,
    after: bool = True,
    answer: str = "",
) -> None:
    """Runs a step and kills it at its n-th call of a function of `os` on such a path."""
    file = str(ROOT / STEPS[step])
    script = KILLER.format(call=call, where=where, nth=nth, after=after, step=file, arguments=words(root, *arguments))
    done = subprocess.run(
        [sys.executable, "-c", script], input=answer, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def shared(folder: Path) -> set[frozenset[str]]:
    """Which names below a folder are one file."""
    names: dict[int, set[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            names.setdefault(path.stat().st_ino, set()).add(path.name)
    return {frozenset(found) for found in names.values()}


def states(root: Path) -> Counter[tuple[str, str]]:
    return Counter(as_rows(root / "gleaner.db", "SELECT kind, state FROM actions"))


LINK_KILLS = [("link", False, 1), ("link", True, 1), ("unlink", True, 1), ("link", True, 2), ("link", True, 3)]


@pytest.mark.parametrize(("call", "after", "nth"), LINK_KILLS)
def test_a_killed_run_with_hard_links_is_taken_back_whole(photos: Path, call: str, after: bool, nth: int) -> None:
    root, before, names = photos.parent / "ws", snapshot(photos), shared(photos)
    killed("dedup", root, "exact", photos, "--link", "hard", call=call, where="photos/", after=after, nth=nth)
    run("dedup", root, "--undo", "last")
    assert snapshot(photos) == before and shared(photos) == names
    assert not (root / "quarantine").exists()


@pytest.mark.parametrize(("call", "after", "nth"), LINK_KILLS)
@pytest.mark.parametrize("link", ["hard", "sym"])
def test_a_killed_run_with_links_is_finished_by_the_next(
    photos: Path, link: str, call: str, after: bool, nth: int
) -> None:
    root, twin = photos.parent / "ws", photos.parent / "twin" / "photos"
    shutil.copytree(photos, twin)
    run("dedup", twin.parent / "ws", "exact", twin, "--link", link)
    call = "symlink" if link == "sym" and (call, nth) == ("link", 2) else call
    killed("dedup", root, "exact", photos, "--link", link, call=call, where="photos/", after=after, nth=min(nth, 2))
    run("dedup", root, "exact", photos, "--link", link)
    assert snapshot(photos) == snapshot(twin) and shared(photos) == shared(twin)
    done = {key: count for key, count in states(root).items() if key[1] == "done"}
    assert done == states(twin.parent / "ws")


def test_names_that_were_one_file_before_the_run_stay_the_users_own(photos: Path) -> None:
    """The second victim is a hard link of the first one, and the plan was written when the run was killed."""
    root = photos.parent / "ws"
    (photos / "c.jpg").unlink()
    os.link(photos / "b.jpg", photos / "c.jpg")
    before, names = snapshot(photos), shared(photos)
    for nth in (1, 2, 3, 4):
        killed("dedup", root, "exact", photos, "--link", "hard", call="link", where="photos/", after=False, nth=nth)
        run("dedup", root, "--undo", "last")
        assert snapshot(photos) == before and shared(photos) == names, nth


def planned_link(photos: Path, root: Path, source: Path, target: Path, state: str = "planned") -> int:
    """A run of step 6 whose journal holds this hard link alone, as an older version's kill may have left it."""
    with open_database(root / "gleaner.db") as db:
        number = start_run(db, "dedup", {})
        entry = Action("hardlink", str(source), str(target), sha256_of(source), source.stat().st_size)
        files.journal.insert_actions(db, number, [entry], state=state)
    return number


def test_an_untouched_original_is_no_link_of_its_keeper(photos: Path) -> None:
    """Neither where it was planned, nor where an older version has marked it as done."""
    root, before = photos.parent / "ws", snapshot(photos)
    planned_link(photos, root, photos / "a.jpg", photos / "b.jpg")
    run("dedup", root, "--undo", "last")
    assert states(root) == {("hardlink", "dropped"): 1} and snapshot(photos) == before
    os.link(photos / "a.jpg", photos / "d.jpg")  # and not even where both names are one file: the user made it so
    planned_link(photos, root, photos / "a.jpg", photos / "d.jpg")
    run("dedup", root, "--undo", "last")
    assert (photos / "d.jpg").is_file() and states(root) == {("hardlink", "dropped"): 2}
    other = photos.parent / "b.jpg"
    shutil.copy2(photos / "b.jpg", other)
    for path in (photos / "a.jpg", photos / "c.jpg"):
        path.unlink()
    number = planned_link(photos, root, other, photos / "b.jpg", state="done")
    other.unlink()  # and the keeper has gone since: the original is all that is left
    run("dedup", root, "--undo", number)
    assert (photos / "b.jpg").is_file()


def test_links_of_a_run_that_was_deleted_for_good_stay(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos.parent / "ws"
    run("dedup", root, "exact", photos, "--link", "hard")
    monkeypatch.setattr(sys, "stdin", io.StringIO("2\n"))
    run("dedup", root, "--purge", "last")
    after = snapshot(photos)
    run("dedup", root, "--undo", "1")
    run("dedup", root, "--undo", "last")
    assert snapshot(photos) == after and set(after) == {"a.jpg", "b.jpg", "c.jpg", "other.jpg"}
    assert states(root) == {("move", "dropped"): 2, ("hardlink", "dropped"): 2}


@pytest.mark.parametrize(("call", "nth"), [("unlink", 1), ("unlink", 2), ("rmdir", 1)])
@pytest.mark.parametrize("again", [True, False], ids=["purged again", "taken back"])
def test_a_deletion_for_good_that_was_killed(
    photos: Path, call: str, nth: int, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command goes on; an undo brings back what had not been deleted, and every name stays."""
    root, before = photos.parent / "ws", snapshot(photos)
    run("dedup", root, "exact", photos, "--link", "hard")
    killed("dedup", root, "--purge", "last", call=call, nth=nth, where="quarantine", answer="2\n")
    if again:
        monkeypatch.setattr(sys, "stdin", io.StringIO("2\n"))
    run("dedup", root, *(("--purge", "last") if again else ("--undo", "last")))
    assert snapshot(photos) == before and not list((root / "quarantine").rglob("*"))
    left = {state for _, state in states(root)}
    assert left == ({"dropped"} if again or (call, nth) != ("unlink", 1) else {"dropped", "undone"})


@pytest.mark.parametrize("link", ["hard", "sym"])
def test_a_link_stays_where_the_file_that_it_replaced_has_gone(photos: Path, link: str) -> None:
    root = photos.parent / "ws"
    run("dedup", root, "exact", photos, "--link", link)
    after = snapshot(photos)
    shutil.rmtree(root / "quarantine")
    run("dedup", root, "--undo", "last")
    assert snapshot(photos) == after


def test_a_file_put_where_a_link_was_keeps_the_file_in_quarantine(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos.parent / "ws"
    run("dedup", root, "exact", photos, "--link", "hard")
    (photos / "b.jpg").unlink()
    shutil.copy2(photos / "a.jpg", photos / "b.jpg")  # the same bytes and the same time, and yet somebody's own
    found = counts("dedup", root, capsys, "--undo", "last")
    assert (found["undone"], found["changed"], found["occupied"]) == (2, 1, 1)
    assert [path.name for path in (root / "quarantine").rglob("*.jpg")] == ["b.jpg"]


@pytest.mark.parametrize("mode", ["copy", "hardlink"])
def test_no_undo_takes_the_last_of_a_picture(photos: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos.parent / "ws"
    run("sort", root, "orientation", photos, "--mode", mode)
    (photos / "other.jpg").unlink()
    foreseen = counts("sort", root, capsys, "--undo", "last", "--dry-run")
    found = counts("sort", root, capsys, "--undo", "last")
    assert foreseen == found == {"undone": 3, "last_copy": 1}
    left = root / "sorted/orientation/landscape"
    assert {path.name for path in left.iterdir()} == {"other.jpg", "metadata.jsonl"}
    shutil.copy2(left / "other.jpg", photos / "other.jpg")
    assert counts("sort", root, capsys, "--undo", "last") == {"undone": 1}
    assert not (root / "sorted").exists()


def test_a_hard_link_whose_source_was_saved_anew_keeps_what_it_was(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, old = photos.parent / "ws", (photos / "other.jpg").read_bytes()
    run("sort", root, "orientation", photos, "--mode", "hardlink")
    drawing(3, 120, 90).save(photos / "new.jpg")
    os.replace(photos / "new.jpg", photos / "other.jpg")  # as an editor saves
    assert counts("sort", root, capsys, "--undo", "last") == {"undone": 3, "last_copy": 1}
    assert (root / "sorted/orientation/landscape/other.jpg").read_bytes() == old


@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_a_copy_may_go_while_its_original_is_in_the_quarantine(
    photos: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, before, names = photos.parent / "ws", snapshot(photos), shared(photos)
    run("sort", root, "orientation", photos, "--mode", mode)
    run("dedup", root, "exact", photos)
    found = counts("sort", root, capsys, "--undo", "last")
    assert set(found) == {"undone"} or mode == "symlink"  # a link that leads nowhere is nobody's last copy
    assert not list((root / "sorted").rglob("*.jpg"))
    run("dedup", root, "--undo", "last")
    assert snapshot(photos) == before and shared(photos) == names


def test_a_file_that_took_the_place_of_a_planned_copy_is_never_taken_away(photos: Path) -> None:
    root = photos.parent / "ws"
    place = root / "sorted/orientation/landscape/a.jpg"
    with open_database(root / "gleaner.db") as db:
        number = start_run(db, "sort", {})
        source = photos / "a.jpg"
        entry = Action("copy", str(source), "sorted/orientation/landscape/a.jpg", sha256_of(source), 1)
        files.plan(db, number, [entry])
        place.parent.mkdir(parents=True)
        shutil.copy2(source, place)  # somebody's, between the plan and its turn
        with pytest.raises(files.GleanerError, match="appeared"):
            files.apply(Context(db, Workspace(root), number))
        finish_run(db, number, 1, {})
    run("sort", root, "--undo", "last")
    assert place.is_file() and states(root) == {("copy", "dropped"): 1}


MOVES = [("dedup", (), "quarantine/"), ("sort", ("orientation", "--mode", "move"), "sorted/")]
CACHES = ("runs", "actions", "hashes", "near_hashes", "near_pairs", "relations", "scores", "contents")


@pytest.mark.parametrize(("call", "nth"), [("link", 1), ("link", 2), ("unlink", 1), ("unlink", 2)])
@pytest.mark.parametrize(("step", "arguments", "away"), MOVES, ids=["dedup", "sort"])
def test_an_undo_that_was_killed_ends_like_any_other(
    workspace: Workspace, step: str, arguments: tuple[str, ...], away: str, call: str, nth: int
) -> None:
    """Between the first half of the return and the second, and between the second and the commit."""
    root, twin = workspace.root, workspace.root.parent / "twin"
    run(step, root, *arguments)
    shutil.copytree(root, twin)
    run(step, twin, "--undo", "last")
    killed(step, root, "--undo", "last", call=call, where=away, nth=nth)
    run(step, root, "--undo", "last")
    for folder in ("images", "sorted", "quarantine"):
        assert snapshot(root / folder) == snapshot(twin / folder)
    assert dump(root / "gleaner.db", without=("runs",)) == dump(twin / "gleaner.db", without=("runs",))
    assert {state for _, state in states(root)} == {"undone"}


@pytest.mark.parametrize(("call", "nth"), [("link", 1), ("unlink", 1), ("unlink", 2), ("rmdir", 2)])
@pytest.mark.parametrize("link", ["hard", "sym"])
def test_an_undo_of_links_that_was_killed_is_finished_by_the_next(
    photos: Path, link: str, call: str, nth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root, before, names = photos.parent / "ws", snapshot(photos), shared(photos)
    run("dedup", root, "exact", photos, "--link", link)
    killed("dedup", root, "--undo", "last", call=call, nth=nth, where="b.jpg" if call == "link" else "")
    assert counts("dedup", root, capsys, "--undo", "last").keys() <= {"run", "undone"}
    assert snapshot(photos) == before and shared(photos) == names
    assert {state for _, state in states(root)} == {"undone"} and not (root / "quarantine").exists()


@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_an_undo_of_copies_that_was_killed_misses_nothing(
    workspace: Workspace, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = workspace.root
    run("sort", root, "orientation", "--mode", mode)
    killed("sort", root, "--undo", "last", call="unlink", where="sorted/", nth=2)
    assert counts("sort", root, capsys, "--undo", "last").keys() == {"undone"}
    assert not (root / "sorted").exists() and {state for _, state in states(root)} == {"undone"}


@pytest.mark.parametrize("after", ["download", "dedup", "sort"])
def test_what_a_killed_undo_returned_is_known_to_the_next_run_of_any_step(workspace: Workspace, after: str) -> None:
    root = workspace.root
    run("dedup", root)
    killed("dedup", root, "--undo", "last", call="unlink", where="quarantine/", nth=1)
    settle(workspace, after)
    rows = as_rows(workspace.database, "SELECT path, state FROM files ORDER BY path")
    assert all((root / path).is_file() for path, _ in rows)
    assert Counter(state for _, state in rows) == {"present": 3, "quarantined": 1}
    assert as_rows(workspace.database, "SELECT count(*) FROM tombstones") == [(1,)]


def settle(workspace: Workspace, step: str) -> None:
    """What a run of a step begins with."""
    from lib.dedup.run import finish_interrupted
    from lib.sort import run as sorting

    with open_database(workspace.database) as db:
        number = start_run(db, step, {})
        if step == "dedup":
            finish_interrupted(Context(db, workspace, number))
        elif step == "sort":
            sorting.finish_interrupted(Context(db, workspace, number))
        else:
            files.finish_others(Context(db, workspace, number), ("dedup", "sort"))
        finish_run(db, number, 0, {})


def test_the_same_undo_again_never_takes_back_an_older_run(workspace: Workspace) -> None:
    root = workspace.root
    run("sort", root, "megapixels", "--mode", "copy")
    run("sort", root, "orientation", "--mode", "copy")
    killed("sort", root, "--undo", "last", call="rmdir", where="sorted/orientation", nth=1, after=False)
    for _ in range(2):
        run("sort", root, "--undo", "last")
        left = {path.parts[-3] for path in (root / "sorted").rglob("*.jpg")}
        if _ == 0:
            assert left == {"megapixels"}, "the command goes on with the run that it was taking back"
    assert left == set()


@pytest.mark.parametrize("after", ["download", "dedup", "sort"])
@pytest.mark.parametrize(("call", "nth"), [("link", 2), ("unlink", 1), ("unlink", 2)])
def test_what_a_killed_run_took_away_is_remembered_by_the_next_run_of_any_step(
    workspace: Workspace, call: str, nth: int, after: str
) -> None:
    killed("dedup", workspace.root, call=call, where="ab/", nth=nth)
    settle(workspace, after)
    away = as_rows(workspace.database, "SELECT sha256 FROM files WHERE state = 'quarantined' ORDER BY 1")
    assert len(away) == nth
    assert as_rows(workspace.database, "SELECT sha256 FROM tombstones ORDER BY 1") == away
    assert as_rows(workspace.database, "SELECT sha256 FROM buried_addresses ORDER BY 1") == away
    found = as_rows(workspace.database, "SELECT sha256 FROM duplicates WHERE decision = 'remove' ORDER BY 1")
    assert found == away, "what was not moved is found again"


def test_what_an_older_version_left_unwritten_is_made_up_for(workspace: Workspace) -> None:
    run("dedup", workspace.root)
    wanted = dump(workspace.database)["tombstones"]
    for code in (None, 130, 1):
        with open_database(workspace.database) as db:
            db.execute("DELETE FROM tombstones")
            db.execute("UPDATE runs SET exit_code = ? WHERE step = 'dedup'", (code,))
        settle(workspace, "download")
        assert dump(workspace.database)["tombstones"] == wanted
        assert as_rows(workspace.database, "SELECT count(*) FROM buried_addresses") == [(2,)]


def test_an_interrupted_run_remembers_what_it_took_away(workspace: Workspace) -> None:
    """As Ctrl-C leaves it: some moves are done, the others planned."""
    asked = [0]

    def after_one() -> bool:
        asked[0] += 1
        return asked[0] > 1

    run("dedup", workspace.root)
    run("dedup", workspace.root, "--undo", "last")
    with open_database(workspace.database) as db:
        number = start_run(db, "dedup", {})
        db.execute(
            "INSERT INTO duplicates SELECT ?, path, sha256, 1, 'images/ab/95.jpg', 'keeper', 'same', 0, 'remove', ''"
            " FROM files WHERE path NOT LIKE '%95.jpg' AND path NOT LIKE '%other.jpg'",
            (number,),
        )
        moves = [
            Action("move", path, f"quarantine/{number}/{path}", sha256)
            for path, sha256 in db.execute("SELECT path, sha256 FROM duplicates WHERE run_id = ?", (number,)).fetchall()
        ]
        files.plan(db, number, moves)
        assert files.apply(Context(db, workspace, number, stopping=after_one)) == {"done": 1}
        assert db.value("SELECT count(*) FROM tombstones") == 1


def test_a_living_run_of_step_6_is_not_disturbed(workspace: Workspace) -> None:
    with open_database(workspace.database) as db:
        number = start_run(db, "dedup", {})
        files.plan(db, number, [Action("move", "images/ab/90.jpg", f"quarantine/{number}/90.jpg")])
    with file_lock(step_lock(workspace.root, "dedup"), "busy"):
        settle(workspace, "download")
        assert states(workspace.root) == {("move", "planned"): 1}
    settle(workspace, "download")
    assert states(workspace.root) == {("move", "dropped"): 1}


def test_folders_that_a_kill_left_empty_are_gone_after_the_next_run(workspace: Workspace) -> None:
    root, shelf = workspace.root, workspace.images / "ab"
    (workspace.images / "cd").mkdir()
    os.replace(shelf / "85.jpg", workspace.images / "cd/85.jpg")
    with open_database(workspace.database) as db:
        db.execute("UPDATE files SET path = 'images/cd/85.jpg' WHERE path LIKE '%85.jpg'")
    killed("dedup", root, call="mkdir", where="quarantine", nth=5)
    run("dedup", root)
    empty = [path for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert empty == [] and not (workspace.images / "cd").exists()


def test_a_relative_link_comes_back_as_it_was(workspace: Workspace) -> None:
    """Step 7 takes its own links out of sorted/ and puts them back."""
    root = workspace.root
    run("sort", root, "quality", "--mode", "symlink")
    before = snapshot(root / "sorted")
    run("sort", root, "quality", "--mode", "symlink", "--min-score", 100)
    assert not (root / "sorted").exists()
    run("sort", root, "--undo", "last")
    links = {name: text for name, text in snapshot(root / "sorted").items() if text.startswith("->")}
    assert len(links) == 4 and links.items() <= before.items()
    run("sort", root, "--undo", "last")
    assert not (root / "sorted").exists()


def test_runs_of_two_steps_are_taken_back_in_either_order(workspace: Workspace) -> None:
    root, before = workspace.root, snapshot(workspace.images)
    for order in (("dedup", "sort"), ("sort", "dedup", "sort")):
        run("sort", root, "orientation", "--mode", "move")
        run("dedup", root)
        for step in order:
            run(step, root, "--undo", "last")
        run("dedup", root, "--undo", "last")
        assert snapshot(workspace.images) == before, order
        assert as_rows(workspace.database, "SELECT DISTINCT state FROM files") == [("present",)]
