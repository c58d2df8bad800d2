"""Step 6 disturbed at every point: every kind of link, the undo, the purge."""

from __future__ import annotations

import os
import shutil

import pytest
from support import drawing
from torture import Folder, Scenario, check_full_disk, check_interrupts, check_kills

UNDO = ("dedup", "--undo", "last")
ONE = ("--workers", "1", "-q")


def repeats(folder: Folder) -> None:
    """Two equal pictures twice, one of them smaller under another name, a sidecar, a name for the keeper's own file."""
    folder.photos.mkdir()
    for seed in range(3):
        drawing(seed, 96, 64).save(folder.photos / f"{seed}.jpg", quality=90)
    (folder.photos / "b").mkdir()
    for seed in range(2):
        shutil.copy2(folder.photos / f"{seed}.jpg", folder.photos / "b" / f"copy{seed}.jpg")
    drawing(1, 96, 64).resize((72, 48)).save(folder.photos / "small.jpg", quality=90)
    (folder.photos / "b" / "copy0.json").write_text('{"title": "a sidecar"}')
    for number, path in enumerate(sorted(folder.photos.rglob("*"))):
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))


SCENARIOS = [
    Scenario("dedup-folder", repeats, ("dedup", "all", "{photos}", *ONE), undo=UNDO),
    Scenario("dedup-hard", repeats, ("dedup", "exact", "{photos}", "--link", "hard", *ONE), undo=UNDO),
    Scenario("dedup-sym", repeats, ("dedup", "exact", "{photos}", "--link", "sym", *ONE), undo=UNDO),
]
NAMES = [scenario.name for scenario in SCENARIOS]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_kills(folder: Folder, scenario: Scenario, points: str) -> None:
    check_kills(folder, scenario, points).fail()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_full_disks(folder: Folder, scenario: Scenario, points: str) -> None:
    check_full_disk(folder, scenario, points).fail()


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_interrupts(folder: Folder, scenario: Scenario, points: str, twice: bool) -> None:
    check_interrupts(folder, scenario, points, twice=twice).fail()
