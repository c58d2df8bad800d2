"""Step 6 where the world does not play along: files that may not be moved, two disks, plans that are out of date."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PATIENCE, ROOT, as_rows, dedup, drawing, result, snapshot

from lib.db import open_database
from lib.images.structure import is_damaged_copy
from lib.pages.render import read_head

MEMORY = Path("/dev/shm")
two_disks = pytest.mark.skipif(
    not MEMORY.is_dir() or MEMORY.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev,
    reason="needs a second file system at /dev/shm",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    return made


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


def decided(found: dict) -> dict[str, str]:
    """File name -> decision."""
    return {Path(m["path"]).name: m["decision"] for group in found["groups"] for m in group["members"]}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents(*folders: Path) -> Counter[bytes]:
    return Counter(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def states(folder: Path) -> Counter[str]:
    return Counter(state for (state,) in as_rows(folder.parent / "ws" / "gleaner.db", "SELECT state FROM actions"))


def copies(*places: Path) -> None:
    """The same picture under every path."""
    drawing(1, 400, 300).save(places[0])
    for place in places[1:]:
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(places[0], place)


# The kernel says no to another user and not to root, who may run the tests: so the call that takes the old name away
# answers here as it does in a folder that may not be changed.
LOCKED = """
import errno, os, runpy, signal, sys
real = os.unlink
def unlink(path, *rest, **more):
    if str(path).endswith({path!r}):
        if {kill}:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError({errno}, os.strerror({errno}), str(path))
    return real(path, *rest, **more)
os.unlink = unlink
sys.argv = [{step!r}, *{arguments!r}]
runpy.run_path({step!r}, run_name="__main__")
"""


def with_locked(folder: Path, path: str, number: int, *arguments: object, kill: bool = False) -> tuple[int, str]:
    """Runs the step where a file's name cannot be taken away; gives the exit code and what it said."""
    step = str(ROOT / "6_dedup.py")
    words = [*map(str, arguments), "--workspace", str(folder.parent / "ws"), "--workers", "1"]
    script = LOCKED.format(path=path, errno=number, kill=kill, step=step, arguments=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [13, 1, 30], ids=["EACCES", "EPERM", "EROFS"])
def test_a_file_that_may_not_be_moved_stays_alone(folder, number):
    copies(folder / "a.png", folder / "b.png", folder / "locked" / "c.png", folder / "z.png")
    everything = contents(folder)
    code, said = with_locked(folder, "photos/locked/c.png", number, folder)
    assert code == 0 and "c.png stays" in said and "1 not moved" in said
    assert names(folder) == {"a.png", "locked/c.png"}, "the others go all the same"
    assert contents(folder, folder.parent / "ws" / "quarantine") == everything, "and it has one name as before"
    assert states(folder) == {"done": 2, "failed": 1}
    dedup(folder, "--undo", "last")
    assert names(folder) == {"a.png", "b.png", "locked/c.png", "z.png"}


def test_a_killed_move_of_a_file_that_may_not_be_moved_does_not_block_the_next_run(folder):
    copies(folder / "a.png", folder / "locked" / "c.png")
    everything = contents(folder)
    assert with_locked(folder, "photos/locked/c.png", 13, folder, kill=True)[0] == -signal.SIGKILL
    code, said = with_locked(folder, "photos/locked/c.png", 13, folder)
    assert code == 0, said
    assert contents(folder, folder.parent / "ws" / "quarantine") == everything
    assert states(folder) == {"failed": 2}


@two_disks
def test_no_hard_link_is_tried_from_one_disk_to_another(folder, elsewhere, capsys):
    copies(folder / "a.png", folder / "b.png", elsewhere / "c.png")
    words = ("exact", folder, elsewhere, "--link", "hard", "--keep", "first")
    assert decided(result(folder, capsys, *words, "--dry-run")) == {"b.png": "remove", "c.png": "keep"}
    dedup(folder, *words)
    assert os.path.samefile(folder / "a.png", folder / "b.png") and names(elsewhere) == {"c.png"}
    assert states(folder) == {"done": 2}


@two_disks
def test_a_link_that_cannot_be_made_does_not_block_the_next_run(folder, elsewhere):
    copies(folder / "a.png", elsewhere / "b.png")
    before = snapshot(elsewhere)
    dedup(folder, "exact", folder, elsewhere, "--keep", "first")
    with open_database(folder.parent / "ws" / "gleaner.db") as db, db.transaction():
        # As a run leaves it that was killed between the move and the link.
        db.execute(
            "INSERT INTO actions (run_id, kind, state, source, target, sha256, created_at)"
            " SELECT run_id, 'hardlink', 'planned', ?, source, sha256, created_at FROM actions",
            (str(folder / "a.png"),),
        )
    dedup(folder, "--undo", "last")
    assert snapshot(elsewhere) == before and states(folder) == {"undone": 1, "dropped": 1}


KILLED_UNDO = """
import os, runpy, signal, sys
real = os.unlink
def unlink(path, *rest, **more):
    if {where!r} in str(path) and os.path.lexists(path):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, *rest, **more)
os.unlink = unlink
sys.argv = [{step!r}, *{arguments!r}]
runpy.run_path({step!r}, run_name="__main__")
"""


@two_disks
@pytest.mark.parametrize("where", ["quarantine", ".part"], ids=["copied", "named twice"])
def test_an_undo_from_another_disk_that_was_killed_is_finished_by_the_next(folder, elsewhere, where):
    copies(elsewhere / "a.png", elsewhere / "b.png", elsewhere / "c.png")
    before = snapshot(elsewhere)
    dedup(folder, elsewhere)
    step = str(ROOT / "6_dedup.py")
    words = ["--undo", "last", "--workspace", str(folder.parent / "ws")]
    script = KILLED_UNDO.format(where=where, step=step, arguments=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    dedup(folder, "--undo", "last")
    assert snapshot(elsewhere) == before and states(folder) == {"undone": 2}
    assert not (folder.parent / "ws" / "quarantine").exists()


def test_undo_leaves_a_link_into_the_quarantine_alone(folder, capsys):
    copies(folder / "a.png", folder / "b.png")
    dedup(folder, folder)
    (away,) = (folder.parent / "ws" / "quarantine").rglob("*.png")
    (folder / "b.png").symlink_to(away)
    undone = result(folder, capsys, "--undo", "last")["counts"]
    assert undone["occupied"] == 1 and away.is_file(), "the link is somebody's, and the bytes are nowhere else"
    (folder / "b.png").unlink()
    dedup(folder, "--undo", "last")
    assert names(folder) == {"a.png", "b.png"} and not (folder / "b.png").is_symlink()


def test_repeats_within_the_second_folder_are_no_leak(folder, capsys):
    test = folder.parent / "test"
    copies(test_a := folder / "a.png")
    test.mkdir()
    for name in ("b.png", "c.png"):
        drawing(2, 400, 300).save(test / name)
    drawing(2, 400, 300).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(test / "d.png")
    assert result(folder, capsys, folder, test, "--leak")["groups"] == []
    for name in ("a1.png", "a2.png"):
        shutil.copyfile(test_a, test / name)
    found = result(folder, capsys, folder, test, "--leak", expect=3)
    assert set(decided(found)) == {"a1.png", "a2.png"}, "each is in the first folder"
    assert {group["keeper"] for group in found["groups"]} == {str(test_a)}


@pytest.mark.parametrize("flags", [("--near-query", 40), ("--apply", "plan.json"), ("--decisions", "plan.json")])
def test_a_leak_check_moves_nothing_whatever_it_is_told(folder, capsys, flags):
    copies(folder / "a.png", folder.parent / "test" / "b.png")
    dedup(folder, folder, folder.parent / "test", "--leak", *flags, expect=2)
    assert "--leak moves nothing" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [("--near-query", 40), ("--far-query", 0)])
def test_protected_files_stay_whatever_the_query_pictures_are(folder, flag):
    asked = folder.parent / "asked"
    asked.mkdir()
    drawing(1, 300, 225).save(asked / "query.jpg")
    (folder / "safe").mkdir()
    copies(folder / "safe" / "a.png")
    drawing(1, 500, 375).save(folder / "b.png")
    dedup(folder, "exact", folder, "--reference", asked, *flag, "--protect", folder / "safe")
    assert names(folder) == {"safe/a.png"}


def test_what_was_kept_before_a_query_picture_is_kept_again(folder, monkeypatch, capsys):
    asked = folder.parent / "asked"
    asked.mkdir()
    drawing(1, 300, 225).save(asked / "query.jpg")
    drawing(1, 500, 375).save(folder / "a.png")
    drawing(2, 500, 375).save(folder / "b.png")
    words = ("exact", folder, "--reference", asked, "--near-query", 40)
    found = result(folder, capsys, *words, "--dry-run")
    decisions = folder.parent / "decisions.json"
    chosen = [{**m, "keeper": g["keeper"], "decision": "keep"} for g in found["groups"] for m in g["members"]]
    decisions.write_text(json.dumps({"decisions": chosen}))
    dedup(folder, *words, "--decisions", decisions)
    dedup(folder, *words)
    assert names(folder) == {"a.png", "b.png"}


@pytest.mark.parametrize("flag", ["--apply", "--decisions"])
def test_a_decision_holds_for_the_two_pictures_that_were_looked_at(folder, capsys, flag):
    """Two crops of one picture, each to go beside it: without it they are all that is left."""
    whole = drawing(1, 800, 600)
    whole.save(folder / "whole.png")
    whole.crop((0, 0, 760, 600)).save(folder / "left.png")
    whole.crop((40, 0, 800, 600)).save(folder / "right.png")
    plan = folder.parent / "plan.json"
    dedup(folder, folder, "--plan", plan)
    data = json.loads(plan.read_text())
    assert {Path(group["keeper"]).name for group in data["groups"]} == {"whole.png"}
    for member in data["groups"][0]["members"]:
        member["decision"] = "remove"
    plan.write_text(json.dumps(data))
    (folder / "whole.png").unlink()
    found = result(folder, capsys, folder, flag, plan)
    assert names(folder) == {"left.png", "right.png"} and found["summary"]["not_followed"] == 2


def test_a_plan_for_other_files_is_told_of(folder, capsys):
    copies(folder / "a.png", folder / "b.png")
    plan = folder.parent / "plan.json"
    dedup(folder, folder, "--plan", plan)
    other = folder.parent / "other"
    other.mkdir()
    drawing(3).save(other / "c.png")
    assert result(folder, capsys, other, "--apply", plan)["summary"]["not_followed"] == 1
    assert "not_followed" not in result(folder, capsys, folder, "--apply", plan)["summary"]
    assert names(folder) == {"a.png"}


def test_a_share_that_was_asked_for_holds_for_questions_as_well(folder, monkeypatch):
    import io

    copies(folder / "a.png", folder / "b.png")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    dedup(folder, folder, "--interactive", "--max-share", "1%", expect=1)
    assert names(folder) == {"a.png", "b.png"}


def test_the_page_counts_what_lies_in_the_quarantine(folder):
    copies(folder / "a.png", folder / "b.png", folder / "locked" / "c.png")
    assert with_locked(folder, "photos/locked/c.png", 13, folder)[0] == 0
    page = (folder.parent / "ws" / "reports" / "dedup.html").read_text(encoding="utf-8")
    assert [card.value for card in read_head(folder.parent / "ws" / "reports" / "dedup.html").cards] == [3, 1, 1, 0]
    assert "1 more were to go and stay" in page


def coded(name: str, **options: Any) -> bytes:
    noise = np.random.default_rng(4).normal(0, 6, (300, 400, 3))
    picture = Image.fromarray((np.asarray(drawing(3, 400, 300)) + noise).clip(0, 255).astype(np.uint8))
    held = io.BytesIO()
    picture.save(held, name, **options)
    return held.getvalue()


def flipped(data: bytes, share: float, bit: int) -> bytes:
    """A copy with one bit that is another, in no byte that is or becomes a marker's."""
    at = int(len(data) * share)
    while 0xFF in (data[at - 1], data[at], data[at] ^ 1 << bit):
        at += 1
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


JPEG, WEBP = coded("JPEG", quality=88), coded("WEBP", quality=80)
HALF = len(JPEG) // 2
NOTES = b"\xff\xfe\0\x0aremarks!"
ROTTEN = {
    "a bit in the middle": (flipped(JPEG, 0.5, 0), JPEG),
    "a bit at 90 %": (flipped(JPEG, 0.9, 3), JPEG),
    "a bit at 97 %": (flipped(JPEG, 0.97, 5), JPEG),
    "a bit at 99 %": (flipped(JPEG, 0.99, 1), JPEG),
    "a bit, under another head": (JPEG[:2] + NOTES + flipped(JPEG, 0.95, 2)[2:], JPEG),
    "missing bytes": (JPEG[:-700] + JPEG[-650:], JPEG),
    "a block of another file": (JPEG[: HALF + 4000] + bytes(range(1, 251)) + JPEG[HALF + 4250 :], JPEG),
    "a bit of a progressive one": (
        flipped(coded("JPEG", quality=88, progressive=True), 0.95, 2), coded("JPEG", quality=88, progressive=True),
    ),
    "a bit of WebP": (flipped(WEBP, 0.98, 4), WEBP),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROTTEN)
@pytest.mark.parametrize("names", ["ab", "ba"])
def test_no_damaged_copy_takes_the_place_of_the_whole_one(folder, kind, names, capsys):
    damaged, whole = ROTTEN[kind]
    (folder / f"{names[0]}.jpg").write_bytes(damaged)
    (folder / f"{names[1]}.jpg").write_bytes(whole)
    dedup(folder, "similar", folder)
    assert (folder / f"{names[1]}.jpg").exists()
    assert is_damaged_copy(damaged, whole) and is_damaged_copy(whole, damaged)


@pytest.mark.parametrize("options", [{}, {"quality": 88}, {"quality": 87}, {"quality": 88, "optimize": True}])
def test_another_encoding_is_no_damage(options):
    with Image.open(io.BytesIO(JPEG)) as image:
        held = io.BytesIO()
        image.save(held, "JPEG", **options)
    assert not is_damaged_copy(JPEG, held.getvalue())
    assert not is_damaged_copy(JPEG, JPEG[:2] + NOTES + JPEG[2:]), "the same pixels under another head"
