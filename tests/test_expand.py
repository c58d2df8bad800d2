"""`--expand`: keywords that the titles found so far suggest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import as_rows, load_step, snapshot

from lib.collect.expand import propose, terms
from lib.db import open_database
from lib.db.queries import NewQuery, add_query

BOATS = [
    "Wooden boat in the harbour of Kotka",
    "Old fishing harbour with wooden boats | Photo stock",
    "Fishing nets on a boat, old harbour",
    "The fishing harbour at dawn – boat trips",
    "Sailing boat near a lighthouse",
    "Lighthouse and boats at dawn",
    "Buy photos of boats online",
]


def words(titles: Sequence[str], asked: Sequence[str], most: int = 10, others: Sequence[str] = ()) -> list[str]:
    return [found.keyword for found in propose(titles, asked, most, others)]


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("Wooden boat", ["wooden", "boat", "wooden boat"]),
        ("Boat, harbour", ["boat", "harbour"]),  # punctuation parts neighbours
        ("The boat of my photo", ["boat"]),
        ("2019 IMG_1234.jpg", []),
        ("Деревянная ЛОДКА", ["деревянная", "лодка", "деревянная лодка"]),
        ("나무 배 사진", ["나무", "사진"]),
        ("木船", ["木船"]),
        ("渔船boat", ["渔船", "boat"]),
        ("Straße e\u0301cole", ["strasse", "école", "strasse école"]),
        ("", []),
    ],
)
def test_terms(title: str, found: list[str]) -> None:
    assert list(terms(title)) == found


def test_proposals_leave_out_the_query_its_forms_and_empty_words():
    found = words(BOATS, ["wooden boat"])
    assert found[0] in ("harbour", "fishing harbour") and "lighthouse" in found and "dawn" in found
    said = " ".join(found).split()
    assert not [word for word in said if word.startswith(("boat", "wooden"))]
    assert not {"photo", "stock", "the", "online"} & set(said)
    assert len(said) == len(set(said)), "no word twice"


def test_of_equal_terms_a_pair_is_kept():
    assert words(["yellow flower, boat", "boat and yellow flower"], ["boat"]) == ["yellow flower"]


def test_scores_fall_and_titles_are_counted():
    found = propose(BOATS, ["boat"], 3)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True) and found[0].score == 1
    assert len(found) == 3 and all(p.titles >= 2 for p in found)
    assert found == propose(list(reversed(BOATS)), ["boat"], 3)  # the order of the titles plays no part


def test_what_other_searches_say_as_well_weighs_less():
    titles = ["boat harbour summer", "boat harbour summer", "boat summer harbour"]
    others = [f"cat {number} summer garden" for number in range(20)]
    assert words(titles, ["boat"], 1, others) == ["harbour"]


def test_languages_without_spaces_and_others():
    assert words(["木船停靠在港口", "渔村港口的木船", "港口日落"], ["木船"])[0] == "港口"
    assert words(["Старая лодка у причала", "Лодки у причала на закате"], ["лодка"]) == ["причала"]


@pytest.mark.parametrize("titles", [[], ["boat"], ["boat", "boats"], ["1", "2"], ["a", "b"], ["one thing"]])
def test_nothing_stands_out_of_too_little(titles: list[str]) -> None:
    assert propose(titles, ["boat"], 5) == []


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two keywords at two engines with titles, as steps 1 and 2 leave them."""
    with open_database(tmp_path / "gleaner.db") as db:
        for engine in ("openverse", "bing"):
            for text, titles in (("boat", BOATS), ("cat", ["cat on a sofa", "sofa with cat"])):
                number = add_query(db, NewQuery(engine, "keyword", text), 0)
                db.execute("UPDATE queries SET state = 'done', outcome = 'ok'")
                for rank, title in enumerate(titles):
                    name = f"{engine}:{text}{rank}"
                    image = db.execute(
                        "INSERT INTO images (key, engine, title, first_seen_at) VALUES (?, ?, ?, '')",
                        (name, engine, title),
                    ).lastrowid
                    db.execute("INSERT INTO results (query_id, image_id, rank) VALUES (?, ?, ?)", (number, image, rank))
    return tmp_path


def collect(workspace: Path, *arguments: object) -> int:
    code: int = load_step("collect").main(["--workspace", str(workspace), *map(str, arguments)])
    return code


def queued(workspace: Path) -> list[tuple[str, str]]:
    return as_rows(workspace / "gleaner.db", "SELECT engine, text FROM queries WHERE state = 'pending' ORDER BY id")


def test_proposals_are_shown_and_queued_only_when_asked_for(workspace, capsys):
    arguments = ["--engine", "openverse", "--expand", 2, "--keywords", "boat"]
    assert collect(workspace, *arguments) == 0
    said = capsys.readouterr()
    assert "next: python 1_collect.py --expand 2 --yes --engine openverse --keywords boat" in said.err
    lines = said.out.splitlines()
    assert lines[0].split() == ["score", "titles", "keyword"] and len(lines) == 3
    assert queued(workspace) == []
    assert collect(workspace, *arguments, "--json") == 0
    shown = [row["keyword"] for row in json.loads(capsys.readouterr().out)["result"]["proposed"]]
    before = snapshot(workspace)
    assert collect(workspace, *arguments, "--yes", "--dry-run") == 0
    assert snapshot(workspace) == before
    for _ in range(2):
        assert collect(workspace, *arguments, "--yes") == 0
        assert queued(workspace) == [("openverse", keyword) for keyword in shown]


def test_the_next_command_queues_what_was_shown(workspace, capsys):
    """Without its filters and its host it queued other searches than those that were asked about."""
    arguments = ["--engine", "openverse", "--host", "http://127.0.0.1:9", "--size", "large", "--licence", "cc"]
    assert collect(workspace, "--expand", 1, *arguments) == 0
    said = capsys.readouterr().err.partition("next: python 1_collect.py ")[2].strip()
    shown = shlex.split(said)
    assert shown[-2:] == ["--workspace", str(workspace)]
    assert collect(workspace, *shown[:-2]) == 0
    rows = as_rows(workspace / "gleaner.db", "SELECT params FROM queries ORDER BY id DESC LIMIT 1")
    assert json.loads(rows[0][0]) == {"host": "http://127.0.0.1:9", "size": "large", "licence": "cc"}


def test_without_keywords_all_searches_of_all_engines_count(workspace, capsys):
    assert collect(workspace, "--expand", 20, "--yes") == 0
    keywords = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert "sofa" in keywords and "harbour" in " ".join(keywords)
    assert {engine for engine, _ in queued(workspace)} == {"openverse", "bing"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keywords", "dog"], "no titles were found"),
        (["--engine", "commons"], "no titles were found"),
        (["--images", "a.jpg"], "keyword searches"),
    ],
)
def test_without_titles_there_is_one_sentence(workspace, capsys, arguments, said):
    assert collect(workspace, "--expand", 3, *arguments) == 2
    assert said in capsys.readouterr().err
