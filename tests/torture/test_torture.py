"""Every scenario under every disturbance; see torture.py."""

from __future__ import annotations

import pytest
from scenarios_dedup import DEDUP
from scenarios_download import DOWNLOAD
from scenarios_rows import ROWS
from scenarios_sort import SORT
from torture import Folder, Scenario, check_full_disk, check_interrupts, check_kills, prepared

SCENARIOS = [*ROWS, *DOWNLOAD, *DEDUP, *SORT]
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])


@each_scenario
def test_a_second_run_changes_nothing(folder: Folder, scenario: Scenario) -> None:
    if lines := prepared(folder, scenario).second_run():
        pytest.fail("\n".join(lines[:20]), pytrace=False)


@each_scenario
def test_kills(folder: Folder, scenario: Scenario, points: str) -> None:
    check_kills(folder, scenario, points).fail()


@each_scenario
def test_full_disks(folder: Folder, scenario: Scenario, points: str) -> None:
    check_full_disk(folder, scenario, points).fail()


@each_scenario
def test_interrupts_once(folder: Folder, scenario: Scenario, points: str) -> None:
    check_interrupts(folder, scenario, points).fail()


@each_scenario
def test_interrupts_twice(folder: Folder, scenario: Scenario, points: str) -> None:
    check_interrupts(folder, scenario, points, twice=True).fail()
