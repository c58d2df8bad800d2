"""Every scenario under every disturbance; see torture.py."""

from __future__ import annotations

import pytest
from scenarios_dedup import DEDUP
from scenarios_download import DOWNLOAD
from scenarios_rows import ROWS
from scenarios_sort import SORT
from torture import Folder, Scenario, check_full_disk, check_interrupts, check_kills, prepared

SCENARIOS = [*ROWS, *DOWNLOAD, *DEDUP, *SORT]
THIRDS = ["test_full_disks", "test_interrupts_once", "test_interrupts_twice"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All scenarios; in the quick slice every third for a full disk, every third for an interrupt, and so on."""
    chosen = [scenario for scenario in SCENARIOS if not scenario.slow]
    name = metafunc.function.__name__
    if metafunc.config.getoption("--torture") == "all":
        chosen = SCENARIOS
    elif name in THIRDS:
        chosen = chosen[THIRDS.index(name) :: len(THIRDS)]
    metafunc.parametrize("scenario", chosen, ids=[scenario.name for scenario in chosen])


def test_a_second_run_changes_nothing(folder: Folder, scenario: Scenario) -> None:
    if lines := prepared(folder, scenario).second_run():
        pytest.fail("\n".join(lines[:20]), pytrace=False)


def test_kills(folder: Folder, scenario: Scenario, points: str) -> None:
    check_kills(folder, scenario, points).fail()


def test_full_disks(folder: Folder, scenario: Scenario, points: str) -> None:
    check_full_disk(folder, scenario, points).fail()


def test_interrupts_once(folder: Folder, scenario: Scenario, points: str) -> None:
    check_interrupts(folder, scenario, points).fail()


def test_interrupts_twice(folder: Folder, scenario: Scenario, points: str) -> None:
    check_interrupts(folder, scenario, points, twice=True).fail()
