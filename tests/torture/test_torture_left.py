"""What is left lying about: steps 3 and 4 under every disturbance, rows that two rules hit, files written elsewhere."""

from __future__ import annotations

import sqlite3

import pytest
from scenarios_dedup import after
from scenarios_rows import INGEST, TAKE_BACK, answers
from test_cleanup import doubly_wrong
from torture import Folder, Scenario, check_full_disk, check_interrupts, check_kills, prepared

EVERY_RULE = ("cleanup", "--blocklist", "{ws}/blocked.txt", "--min-side", "10", "--languages", "en", "-q", "--rule")


def ingested(folder: Folder) -> None:
    after(answers, INGEST)(folder)
    folder.photos.mkdir()


def rows_that_two_rules_hit(folder: Folder) -> None:
    ingested(folder)
    words = doubly_wrong(folder.ws / "gleaner.db")
    assert set(words[words.index("--rule") + 1 :]) == set(RULES)


def a_list_of_a_persons(folder: Folder) -> None:
    ingested(folder)
    (folder.photos / "blocked.txt").write_text("mine.example\n")
    connection = sqlite3.connect(folder.ws / "gleaner.db")
    assert connection.execute("SELECT count(*) FROM images").fetchone()[0] > 4
    connection.close()


RULES = (
    "broken_url", "not_http", "schemeless_url", "repeated_url", "private_host", "expired_url", "dead_host",
    "blocked_domain", "small_claim", "advert", "wrong_language", "orphan", "no_address", "no_result",
)  # fmt: skip
EXTRACT = ("report", "--extract", "example.org", "--to", "{photos}/part.db")
SCENARIOS = [
    Scenario("report", ingested, ("report", "-q")),
    Scenario("report-extract", ingested, EXTRACT),
    Scenario("report-extract-again", after(ingested, EXTRACT), EXTRACT),
    Scenario("report-blocklist", a_list_of_a_persons, ("report", "--of", "x.org", "--blocklist", "{photos}/other.txt")),
    Scenario("cleanup-pairs", rows_that_two_rules_hit, (*EVERY_RULE, *RULES), undo=TAKE_BACK),
    Scenario("cleanup-pairs-undo", after(rows_that_two_rules_hit, (*EVERY_RULE, *RULES)), TAKE_BACK),
]
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
def test_interrupts(folder: Folder, scenario: Scenario, points: str) -> None:
    check_interrupts(folder, scenario, points).fail()
    check_interrupts(folder, scenario, points, twice=True).fail()
