"""Step 6: on folders and on the workspace, with every kind of link; its undo, its purge."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable

from fork_server import AS_ASKED
from made import own_pictures, steady
from support import drawing
from torture import Folder, Scenario

UNDO = ("dedup", "--undo", "last")
ONE = ("--workers", "1", "-q")


def repeats(folder: Folder) -> None:
    """Two pictures twice, one also smaller, a sidecar, and a picture that repeats nothing."""
    folder.photos.mkdir()
    for seed in range(3):
        drawing(seed, 96, 64).save(folder.photos / f"{seed}.jpg", quality=90)
    (folder.photos / "b").mkdir()
    for seed in range(2):
        shutil.copy2(folder.photos / f"{seed}.jpg", folder.photos / "b" / f"copy{seed}.jpg")
    drawing(1, 96, 64).resize((72, 48)).save(folder.photos / "small.jpg", quality=90)
    (folder.photos / "b" / "copy0.json").write_text('{"title": "a sidecar"}')
    steady(folder)


def names_of_one_file(folder: Folder) -> None:
    """The same, with names that share one file already, and a symbolic link."""
    repeats(folder)
    os.link(folder.photos / "0.jpg", folder.photos / "b" / "other-name.jpg")
    os.link(folder.photos / "b" / "copy1.jpg", folder.photos / "b" / "copy1-again.jpg")
    os.symlink("0.jpg", folder.photos / "link.jpg")
    steady(folder)


def two_folders(folder: Folder) -> None:
    repeats(folder)
    folder.more.mkdir()
    shutil.copy2(folder.photos / "2.jpg", folder.more / "2.jpg")
    shutil.copy2(folder.photos / "0.jpg", folder.more / "0.jpg")
    steady(folder)


def own_repeats(folder: Folder) -> None:
    own_pictures(folder, repeated=True)


def after(prepare: Callable[[Folder], None], *commands: tuple[str, ...]) -> Callable[[Folder], None]:
    """Prepares, then runs commands undisturbed."""

    def both(folder: Folder) -> None:
        prepare(folder)
        for command in commands:
            folder.run(*command)

    return both


def decided(folder: Folder) -> None:
    """Three pictures in the quarantine, of which one is to take its keeper's place and one is to stay beside it.

    No group is left to be found, so that the report is that of the run before, and its undo leaves it alone.
    """
    after(repeats, ON_PHOTOS)(folder)
    words = {"0.jpg": ("b/copy0.jpg", "keep"), "small.jpg": ("1.jpg", "keeper")}
    chosen = [
        {"keeper": str(folder.photos / keeper), "path": str(folder.photos / name), "decision": word}
        for name, (keeper, word) in words.items()
    ]
    (folder.root / "decisions.json").write_text(json.dumps({"version": 1, "decisions": chosen}), encoding="utf-8")


ON_PHOTOS = ("dedup", "all", "{photos}", *ONE)
HARD = ("dedup", "exact", "{photos}", "--link", "hard", *ONE)
SYM = ("dedup", "exact", "{photos}", "--link", "sym", *ONE)
OWN = ("dedup", "all", *ONE)
OWN_HARD = ("dedup", "exact", "--link", "hard", *ONE)
RESTORE = ("dedup", "--restore", "{photos}/b/copy1.jpg", "--restore", "{photos}/0.jpg", *ONE)
EXCHANGE = ("dedup", "all", "{photos}", "--decisions", "{root}/decisions.json", *ONE)
SECOND = (
    "dedup",
    "--undo",
    "2",
)  # by number: `last` is the run before, where this one was killed before it did anything
PURGE = ("dedup", "--purge", "last")

# Of a person: a run that a kill broke off has remembered it, and the run that goes on remembers no more.
MEMORY = ("kept_files", "not_repeats")

DEDUP = [
    Scenario("dedup-folder", repeats, ON_PHOTOS, undo=UNDO),
    Scenario("dedup-hard", repeats, HARD, undo=UNDO),
    Scenario("dedup-sym", repeats, SYM, undo=UNDO),
    Scenario("dedup-names-hard", names_of_one_file, HARD, undo=UNDO),
    Scenario("dedup-names-sym", names_of_one_file, SYM, undo=UNDO),
    Scenario("dedup-names", names_of_one_file, ON_PHOTOS, undo=UNDO),
    Scenario("dedup-folders", two_folders, ("dedup", "similar", "{photos}", "{more}", *ONE), undo=UNDO),
    Scenario("dedup-own", own_repeats, OWN, undo=UNDO),
    Scenario("dedup-own-hard", own_repeats, OWN_HARD, undo=UNDO),
    Scenario("dedup-own-filename", own_repeats, ("dedup", "filename", "--remove", "filename", *ONE), undo=UNDO),
    Scenario("dedup-undo-folder", after(repeats, ON_PHOTOS), UNDO),
    Scenario("dedup-undo-hard", after(repeats, HARD), UNDO),
    Scenario("dedup-undo-sym", after(repeats, SYM), UNDO),
    Scenario("dedup-undo-names", after(names_of_one_file, HARD), UNDO),
    Scenario("dedup-undo-own", after(own_repeats, OWN), UNDO),
    Scenario("dedup-restore", after(repeats, ON_PHOTOS), RESTORE, undo=SECOND, kept=MEMORY),
    Scenario("dedup-undo-restore", after(repeats, ON_PHOTOS, RESTORE), SECOND),
    # A run that goes on with an exchange finds the keeper that is to go among the groups.
    Scenario("dedup-exchange", decided, EXCHANGE, undo=SECOND, ignore=("duplicates", *MEMORY)),
    Scenario("dedup-undo-exchange", after(decided, EXCHANGE), SECOND),
    Scenario("dedup-two-workers", repeats, ("dedup", "all", "{photos}", "--workers", "2", "-q"), undo=UNDO, slow=True),
    Scenario("dedup-purge", after(repeats, ON_PHOTOS), PURGE, answer=AS_ASKED, deletes=True),
    Scenario("dedup-purge-own", after(own_repeats, OWN), PURGE, answer=AS_ASKED, deletes=True),
]
