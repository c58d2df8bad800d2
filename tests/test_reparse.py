"""`--reparse` after a parser has learned: what only the older one read leaves, and nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, as_rows, dump, load_step, snapshot
from yandex_answers import entity, key_of, make_workspace, put_answer, xhr

from lib.db import open_database
from lib.db.images import unsure_queries
from lib.db.responses import READABLE_OUTCOMES

step = load_step("ingest")
CONTENT = ("runs", "actions")


def run(root: Path, *arguments: object) -> None:
    assert step.main([*map(str, arguments), "--workspace", str(root), "-q"]) == 0


def number_of(database: Path, key: str) -> int:
    return as_rows(database, "SELECT id FROM images WHERE key = ?", f"yandex:{key}")[0][0]


def misread(database: Path, *statements: tuple) -> None:
    """Leaves rows behind as an older parser would have."""
    with open_database(database) as db, db.transaction():
        for sql, *values in statements:
            db.execute(sql, values)


def address(picture: int, url: str, number: int | None = None) -> tuple:
    return ("INSERT INTO image_variants (id, image_id, kind, url) VALUES (?, ?, 'dup', ?)", number, picture, url)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two searches; the older parser had also read a button's address, and an advert as a picture."""
    answers = {("a", 0, "xhr"): xhr([entity(1), entity(2)]), ("b", 0, "xhr"): xhr([entity(2), entity(3)])}
    database = make_workspace(tmp_path / "ws", answers)
    run(database.parent)
    misread(
        database,
        address(number_of(database, key_of(1)), "https://site.example/button.png", 101),
        ("INSERT INTO images (id, key, engine, title, first_seen_at) VALUES (50, 'yandex:ad', 'yandex', 'Ad', '')",),
        ("INSERT INTO results (query_id, image_id, response_id, rank) VALUES (1, 50, 1, 7)",),
        ("INSERT INTO downloads (image_id, state, updated_at) VALUES (50, 'failed', '')",),
        address(50, "https://ads.example/1.jpg", 102),
        ("INSERT INTO results (query_id, image_id, response_id, rank) VALUES (1, ?, 1, 9)",
         number_of(database, key_of(3))),
    )  # fmt: skip
    return database.parent


def fresh(root: Path, folder: Path) -> dict[str, list[str]]:
    """What a database has that was made from the same answers by today's parser alone."""
    (folder / "xhr").parent.mkdir(parents=True, exist_ok=True)
    answers = {("a", 0, "xhr"): xhr([entity(1), entity(2)]), ("b", 0, "xhr"): xhr([entity(2), entity(3)])}
    database = make_workspace(folder, answers)
    run(folder)
    return dump(database, without=CONTENT)


def test_what_an_older_parser_misread_leaves(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["--reparse", "--workspace", str(root), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert {name: rows for name, rows in counts.items() if name.startswith("misread")} == {
        "misread_downloads": 1, "misread_pictures": 1, "misread_results": 2, "misread_addresses": 2,
    }  # fmt: skip
    assert dump(root / "gleaner.db", without=CONTENT) == fresh(root, tmp_path / "fresh")


def test_it_can_be_taken_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dump(root / "gleaner.db", without=CONTENT)
    assert step.main(["--reparse", "--workspace", str(root)]) == 0
    assert "comes back with: python 2_ingest_db.py --undo" in capsys.readouterr().err
    run(root, "--undo", "last", "--dry-run")
    assert dump(root / "gleaner.db", without=CONTENT) != before
    run(root, "--undo", "last")
    assert dump(root / "gleaner.db", without=CONTENT) == before


def test_a_dry_run_counts_the_same_and_takes_nothing_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, counts = snapshot(root), []
    for arguments in (["--dry-run"], []):
        assert step.main(["--reparse", *arguments, "--workspace", str(root), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["counts"]
        counts.append({name: rows for name, rows in found.items() if name.startswith("misread")})
        assert not arguments or snapshot(root) == before
    assert counts[0] == counts[1] and sum(counts[0].values()) == 6


def test_a_second_time_changes_nothing(root: Path) -> None:
    run(root, "--reparse")
    before = dump(root / "gleaner.db")
    run(root, "--reparse")
    assert dump(root / "gleaner.db") == before


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
import lib.ingest.reparse
from support import load_step
lib.ingest.reparse.BLOCK = 1
applied, apply_plan = [], lib.ingest.reparse.apply_plan
def dying(*arguments):
    if len(applied) == {blocks}:
        os._exit(9)
    applied.append(apply_plan(*arguments))
    if {inside}:
        os._exit(9)
lib.ingest.reparse.apply_plan = dying
load_step("ingest").main(["--reparse", "--workspace", {root!r}, "-q"])
"""


@pytest.mark.parametrize(("blocks", "inside"), [(0, False), (0, True), (1, False), (2, False)])
def test_killed_on_the_way_it_ends_the_same(root: Path, tmp_path: Path, blocks: int, inside: bool) -> None:
    code = KILLED.format(tests=str(ROOT / "tests"), root=str(root), blocks=blocks, inside=inside)
    before = as_rows(root / "gleaner.db", "SELECT count(*) FROM image_variants")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode == 9
    assert as_rows(root / "gleaner.db", "PRAGMA integrity_check") == [("ok",)]
    assert as_rows(root / "gleaner.db", "PRAGMA foreign_key_check") == []
    if blocks == 0:
        assert as_rows(root / "gleaner.db", "SELECT count(*) FROM image_variants") == before
    run(root, "--reparse")
    assert dump(root / "gleaner.db", without=CONTENT) == fresh(root, tmp_path / "fresh")


def test_downloads_and_the_addresses_that_won_stay(root: Path) -> None:
    """A file's history is not taken from it, however it came to be fetched."""
    misread(
        root / "gleaner.db",
        ("INSERT INTO files (sha256, path, bytes, format, added_at) VALUES ('aa', 'images/a', 1, 'png', '')",),
        ("UPDATE downloads SET state = 'done', sha256 = 'aa', variant_id = 102 WHERE image_id = 50",),
        ("UPDATE downloads SET state = 'done', sha256 = 'aa', variant_id = 101 WHERE image_id ="
         " (SELECT image_id FROM image_variants WHERE id = 101)",),
    )  # fmt: skip
    before = dump(root / "gleaner.db", without=CONTENT)
    run(root, "--reparse")
    after = dump(root / "gleaner.db", without=CONTENT)
    for table in ("images", "image_variants", "downloads", "files"):
        assert after[table] == before[table], table
    assert len(before["results"]) - len(after["results"]) == 1  # the third picture, which search 1 has never shown


def test_what_is_being_fetched_stays(root: Path) -> None:
    misread(root / "gleaner.db", ("UPDATE downloads SET state = 'pending', lease = 'x' WHERE image_id = 50",))
    run(root, "--reparse")
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM images WHERE id = 50") == [(1,)]


def test_an_answer_that_cannot_be_read_protects_its_search(root: Path) -> None:
    """What it would have yielded cannot be known."""
    with open_database(root / "gleaner.db") as db:
        gone = put_answer(db, root, "a", 1, xhr([entity(9)]))
    run(root)
    gone.unlink()
    before = dump(root / "gleaner.db", without=(*CONTENT, "responses"))
    run(root, "--reparse")
    assert dump(root / "gleaner.db", without=(*CONTENT, "responses")) == before


def test_what_came_as_a_record_stays(root: Path, tmp_path: Path) -> None:
    """An imported list or another pipeline's database has no answer that could be read again."""
    misread(
        root / "gleaner.db",
        ("INSERT INTO queries (id, engine, kind, text, created_at, updated_at)"
         " VALUES (9, 'yandex', 'import', 'x', '', '')",),
        ("INSERT INTO results (query_id, image_id, rank)"
         " SELECT 9, image_id, 0 FROM image_variants WHERE id IN (101, 102)",),
    )  # fmt: skip
    (tmp_path / "urls.txt").write_text("https://list.example/1.jpg\n")
    run(root, "--import", tmp_path / "urls.txt")
    addresses = "SELECT count(*) FROM image_variants"
    before = as_rows(root / "gleaner.db", addresses)
    run(root, "--reparse")
    assert as_rows(root / "gleaner.db", addresses) == before


@pytest.mark.parametrize("arguments", [["--limit", "1"], ["--limit", "99"]])
def test_a_part_of_the_answers_proves_nothing(root: Path, arguments: list[str]) -> None:
    run(root, "--reparse", *arguments)
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM images WHERE id = 50") == [(1,)]


def test_an_answer_that_another_run_took_in_meanwhile_protects_its_search(root: Path) -> None:
    with open_database(root / "gleaner.db") as db:
        assert unsure_queries(db, {1, 2}, READABLE_OUTCOMES) == set()
        put_answer(db, root, "b", 1, xhr([entity(9)]))
        assert unsure_queries(db, {1, 2}, READABLE_OUTCOMES) == {2}
        db.execute("UPDATE responses SET ingest_state = 'done'")
        assert unsure_queries(db, {1, 2}, READABLE_OUTCOMES) == {2}
        db.execute("UPDATE responses SET outcome = 'captcha' WHERE id = 3")
        assert unsure_queries(db, {1, 2}, READABLE_OUTCOMES) == set()


@pytest.mark.parametrize("outcome", ["captcha", "blocked", "network", "consent"])
def test_what_was_no_answer_stays_settled(root: Path, outcome: str) -> None:
    """Step 1 knows that a refusal holds no pictures; reading everything again does not make a failure of it."""
    with open_database(root / "gleaner.db") as db:
        put_answer(db, root, "a", 1, b"<html>no</html>")
        db.execute("UPDATE responses SET outcome = ?, ingest_state = 'done' WHERE page = 1", (outcome,))
    run(root, "--reparse")
    found = as_rows(root / "gleaner.db", "SELECT ingest_state, ingest_reason FROM responses WHERE page = 1")
    assert found == [("done", "")]
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM images WHERE id = 50") == [(0,)]
