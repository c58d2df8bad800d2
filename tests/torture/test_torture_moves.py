"""Steps 6 and 7 disturbed: links, moves, copies, their undo, and what is deleted for good."""

from __future__ import annotations

import os
import shutil

import pytest
from support import drawing
from torture import Folder, Scenario, check_full_disk, check_interrupts, check_kills

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.digest import sha256_of
from lib.workspace import Workspace

ONE = ("--workers", "1")
UNDO = {step: (step, "--undo", "last") for step in ("dedup", "sort")}


def repeats(folder: Folder) -> None:
    """A user's folder with copies, one of them under two names already, a sidecar, and a smaller version."""
    folder.photos.mkdir()
    for seed in range(2):
        drawing(seed, 96, 64).save(folder.photos / f"{seed}.jpg", quality=90)
    (folder.photos / "b").mkdir()
    shutil.copy2(folder.photos / "0.jpg", folder.photos / "b" / "copy.jpg")
    os.link(folder.photos / "b" / "copy.jpg", folder.photos / "b" / "linked.jpg")
    drawing(1, 96, 64).resize((72, 48)).save(folder.photos / "small.jpg", quality=90)
    (folder.photos / "small.json").write_text('{"title": "a sidecar"}')
    aged(folder)


def aged(folder: Folder) -> None:
    for number, path in enumerate(sorted(path for path in folder.root.rglob("*") if path.suffix in (".jpg", ".json"))):
        os.utime(path, (1_600_000_000 + 10 * number, 1_600_000_000 + 10 * number))


def downloaded(folder: Folder) -> None:
    """A workspace as step 5 leaves it: one picture in two encodings on shelves of their own, and another one."""
    ws = Workspace(folder.ws)
    for shelf, seed, quality, width in (("ab", 1, 95, 96), ("cd", 1, 80, 96), ("ef", 2, 90, 64)):
        path = ws.images / shelf / f"{shelf}.jpg"
        path.parent.mkdir(parents=True)
        drawing(seed, width, 64 if width == 96 else 96).save(path, quality=quality)
    aged(folder)
    with open_database(ws.database) as db, db.transaction():
        for number, path in enumerate(sorted(ws.images.rglob("*.jpg")), 1):
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, ws.to_text(path), path.stat().st_size, "jpeg", 96, 64))
            db.execute(
                "INSERT INTO images (id, key, engine, page_url, first_seen_at) VALUES (?, ?, 'yandex', '', '2026')",
                (number, path.stem),
            )
            db.execute(
                "INSERT INTO image_variants (id, image_id, kind, url) VALUES (?, ?, 'original', ?)",
                (number, number, f"https://files.example/{path.name}"),
            )
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, variant_id, updated_at) VALUES (?, 'done', ?, ?, '')",
                (number, sha256, number),
            )


def removed(folder: Folder) -> None:
    downloaded(folder)
    folder.run("dedup", *ONE)


def linked(folder: Folder) -> None:
    repeats(folder)
    folder.run("dedup", "exact", "{photos}", "--link", "hard", *ONE)


def sorted_by(mode: str) -> Scenario:
    def prepare(folder: Folder) -> None:
        downloaded(folder)
        folder.run("sort", "orientation", "--mode", mode, *ONE)

    return Scenario(f"undo-sort-{mode}", prepare, UNDO["sort"])


def sorted_repeats(folder: Folder) -> None:
    """Copies in `sorted/` whose originals step 6 took away afterwards: the next run takes them out."""
    downloaded(folder)
    folder.run("sort", "orientation", "--mode", "symlink", *ONE)
    folder.run("dedup", *ONE)


MODES = ("copy", "move", "hardlink", "symlink")
SCENARIOS = [
    Scenario("dedup-workspace", downloaded, ("dedup", *ONE), undo=UNDO["dedup"]),
    Scenario("dedup-hard-shared", repeats, ("dedup", "all", "{photos}", "--link", "hard", *ONE), undo=UNDO["dedup"]),
    *(
        Scenario(f"sort-{mode}", downloaded, ("sort", "orientation", "--mode", mode, *ONE), undo=UNDO["sort"])
        for mode in MODES
    ),
    Scenario("sort-withdraw", sorted_repeats, ("sort", "orientation", "--mode", "symlink", *ONE), undo=UNDO["sort"]),
    Scenario("undo-dedup", removed, UNDO["dedup"]),
    Scenario("undo-dedup-hard", linked, UNDO["dedup"]),
    *(sorted_by(mode) for mode in MODES),
    Scenario("purge", removed, ("dedup", "--purge", "last"), answer="1\n", deletes=True),
    Scenario("purge-links", linked, ("dedup", "--purge", "last"), answer="2\n", deletes=True),
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
