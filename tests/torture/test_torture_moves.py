"""Steps 6 and 7 where one has been at work on what the other put somewhere, and links whose files go for good."""

from __future__ import annotations

import pytest
from fork_server import AS_ASKED
from made import own_pictures
from scenarios_dedup import HARD, OWN, PURGE, SYM, after, names_of_one_file, own_repeats, repeats
from scenarios_dedup import UNDO as UNDO_DEDUP
from scenarios_sort import EDGES, by
from torture import Folder, Scenario, check_full_disk, check_interrupts, check_kills

# By number: `last` is the run before, where this one was killed before it did anything.
UNDO_THIRD = ("sort", "--undo", "3")
MOVED = by("megapixels", "move", *EDGES)
SCENARIOS = [
    Scenario("purge-hard", after(repeats, HARD), PURGE, answer=AS_ASKED, deletes=True),
    Scenario("purge-sym", after(repeats, SYM), PURGE, answer=AS_ASKED, deletes=True),
    Scenario("undo-names-sym", after(names_of_one_file, SYM), UNDO_DEDUP),
    Scenario("dedup-of-moved", after(own_repeats, MOVED), OWN, undo=UNDO_DEDUP),
    *(
        Scenario(f"withdraw-{mode}", after(own_repeats, by("megapixels", mode, *EDGES), OWN),
                 by("megapixels", mode, *EDGES), undo=UNDO_THIRD)
        for mode in ("copy", "hardlink", "symlink")
    ),
    Scenario("undo-withdraw-symlink", after(own_repeats, by("megapixels", "symlink", *EDGES), OWN,
             by("megapixels", "symlink", *EDGES)), UNDO_THIRD),
    Scenario("left-out-of-moved", after(own_pictures, by("quality", "move")),
             (*by("quality", "move"), "--min-score", "100")),
]  # fmt: skip
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
