"""The command that takes a run back: every step that has done something ends with it, and it works as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE, ROOT, drawing, run_step, snapshot

from lib.db import open_database
from lib.db.journal import count_actions

LINE = re.compile(r"^to take this back: python (\S+\.py) (--undo \d+.*)$", re.MULTILINE)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two equal pictures and another one, in a folder whose name has to be quoted."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        drawing(seed, 96, 64).save(folder / name)
    return folder


def run_as_printed(said: str) -> subprocess.CompletedProcess[str]:
    """Runs the command that takes a run back, as it stands there."""
    found = LINE.findall(said)
    assert len(found) == 1, said
    script, rest = found[0]
    words = [sys.executable, str(ROOT / script), *shlex.split(rest)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False)


STEPS_THAT_ACT = {
    "step 6": ("dedup", ["exact", "{photos}"]),
    "step 6 with links": ("dedup", ["exact", "{photos}", "--link", "sym"]),
    "step 7, links": ("sort", ["orientation", "{photos}"]),
    "step 7, moves": ("sort", ["orientation", "{photos}", "--mode", "move"]),
}


@pytest.mark.parametrize("name", STEPS_THAT_ACT)
def test_the_printed_command_takes_the_run_back(photos: Path, name: str) -> None:
    step, words = STEPS_THAT_ACT[name]
    before = snapshot(photos)
    workspace = photos.parent / "the workspace's"
    given = [word.format(photos=photos) for word in words]
    preview = run_step(step, *given, "--dry-run", "--workspace", workspace)
    assert preview.returncode == 0 and not LINE.search(preview.stderr), preview.stderr
    done = run_step(step, *given, "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    back = run_as_printed(done.stderr)
    assert back.returncode == 0 and not LINE.search(back.stderr), back.stderr
    assert snapshot(photos) == before
    with open_database(workspace / "gleaner.db") as db:
        assert count_actions(db, 1, "done") == 0 < count_actions(db, 1, "undone")


def test_a_run_that_did_nothing_has_nothing_to_take_back(photos: Path) -> None:
    (photos / "b.png").unlink()
    done = run_step("dedup", "exact", photos, "--workspace", photos.parent / "ws")
    assert done.returncode == 0 and not LINE.search(done.stderr), done.stderr


def test_rows_that_step_4_took_out_come_back_as_printed(tmp_path: Path) -> None:
    workspace, listed = tmp_path / "w s", tmp_path / "urls.txt"
    listed.write_text("https://a.example/1.jpg\nhttps://a.example/2.jpg\n", encoding="utf-8")
    assert run_step("ingest", "--import", listed, "--workspace", workspace).returncode == 0
    with open_database(workspace / "gleaner.db") as db, db.transaction():
        db.execute("UPDATE image_variants SET url = 'data:,' WHERE id = 1")
    done = run_step("cleanup", "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    assert run_as_printed(done.stderr).returncode == 0
    with open_database(workspace / "gleaner.db") as db:
        assert db.value("SELECT count(*) FROM image_variants WHERE url = 'data:,'") == 1
