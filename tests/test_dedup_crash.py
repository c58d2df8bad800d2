"""Step 6 and pictures under which a codec crashes: the process dies for real, by a codec that the test brings along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image
from support import PATIENCE, ROOT, as_rows, drawing, flat

from lib.dedup.fingerprints import SLOT, CrashGuard

# Python reads this when it starts, in workers as well. Pictures that carry the word crash die when decoded, and
# TIFFs of 13 by 7 pixels.
CRASHING_CODEC = """
import resource, signal
from PIL import Image, ImageFile

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
load = ImageFile.ImageFile.load

def crash(self):
    if self.info.get("comment") == b"crash" or (self.format, self.size) == ("TIFF", (13, 7)):
        signal.raise_signal(signal.SIGSEGV)  # in this thread: it gets no further
    return load(self)

ImageFile.ImageFile.load = crash
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three drawings, a copy of the first."""
    made = tmp_path / "photos"
    made.mkdir()
    for seed in range(3):
        drawing(seed).save(made / f"{seed}.png")
    drawing(0).save(made / "copy.jpg", quality=70)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(CRASHING_CODEC)
    return made


def run(folder: Path, *arguments: str) -> tuple[int, dict]:
    """(exit code, answer) of the step in a process of its own, with the crashing codec."""
    step = [sys.executable, str(ROOT / "6_dedup.py"), "similar", str(folder), "--json", "--remove", "none", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder.parent / "hook"), "TMPDIR": str(folder.parent)}
    done = subprocess.run(
        [*step, "--workspace", str(folder.parent / "ws"), "--workers", "2"],
        env=environment, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGSEGV), done.stderr
    return done.returncode, flat(done.stdout) if done.returncode == 0 else {}


def judged(found: dict) -> set[str]:
    return {Path(member["path"]).name for group in found["groups"] for member in group["members"]}


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_an_odd_format_that_crashes_its_codec_takes_nothing_with_it(folder: Path, dry_run: tuple[str, ...]):
    Image.new("RGB", (13, 7)).save(folder / "odd.tif")
    for _ in range(2):
        code, found = run(folder, *dry_run)
        assert code == 0
        assert found["summary"]["worker_killed"] == found["summary"]["broken"] == 1
        assert judged(found) == {"copy.jpg"}


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_common_format_that_crashes_its_codec_is_decoded_apart_in_the_next_run(
    folder: Path, dry_run: tuple[str, ...]
):
    drawing(7).save(folder / "odd.gif", comment=b"crash")
    assert run(folder, *dry_run)[0] == -signal.SIGSEGV
    for _ in range(2):
        code, found = run(folder, *dry_run)
        assert code == 0
        assert found["summary"]["worker_killed"] == found["summary"]["broken"] == 1
        assert judged(found) == {"copy.jpg"}
    if not dry_run:
        reasons = as_rows(folder.parent / "ws" / "gleaner.db", "SELECT value FROM hashes WHERE kind = 'broken'")
        assert reasons == [(b"worker_killed",)]


def test_no_note_is_left_when_all_went_well(folder: Path):
    assert run(folder)[0] == 0
    assert not list(folder.parent.glob("*.decoding"))


def test_notes_name_what_was_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = CrashGuard(tmp_path / "ws")
    with first.recording("/photos/ä \udcff.jpg"), first.recording("/photos/" + "x" * SLOT):
        assert CrashGuard(tmp_path / "other").paths == set()
        assert CrashGuard(tmp_path / "ws").paths == {"/photos/ä \udcff.jpg"}
    assert CrashGuard(tmp_path / "ws").paths == set()
