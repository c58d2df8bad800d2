"""Step 4 beyond the rules: searches forgotten, backups put back, the file made smaller, parts started anew."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from support import as_rows, dump, load_step, snapshot
from yandex_answers import entity, key_of, make_workspace, xhr

from lib.cleanup.rules import is_foreign
from lib.db import cleanup as cleanup_store
from lib.db import open_database
from lib.db.maintenance import list_backups
from lib.db.responses import ensure_query

STEP = load_step("cleanup")
INGEST = load_step("ingest")
CONTENT = ("runs", "actions")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Two searches that share a picture."""
    answers = {("a", 0, "xhr"): xhr([entity(1), entity(2), entity(3)]), ("b", 0, "xhr"): xhr([entity(3), entity(4)])}
    made = make_workspace(tmp_path / "ws", answers)
    assert INGEST.main(["--workspace", str(made.parent), "-q"]) == 0
    return made


def run(database: Path, *arguments: object) -> int:
    return STEP.main(["--workspace", str(database.parent), "-q", *map(str, arguments)])


def change(database: Path, sql: str) -> None:
    with open_database(database) as db:
        db.execute(sql)


def test_a_forgotten_search_takes_what_it_alone_has_shown(database: Path) -> None:
    met = f"(SELECT id FROM images WHERE key = 'yandex:{key_of(2)}')"
    change(database, f"UPDATE downloads SET state = 'done' WHERE image_id = {met}")
    before, files = dump(database, without=CONTENT), snapshot(database.parent / "xhr")
    assert run(database, "--forget-query", 1, "--dry-run") == 0 and dump(database, without=CONTENT) == before
    assert run(database, "--forget-query", 1) == 0
    left = {name for (name,) in as_rows(database, "SELECT key FROM images")}
    assert left == {f"yandex:{key_of(number)}" for number in (2, 3, 4)}  # the downloaded one and the shared one stay
    assert as_rows(database, "SELECT text FROM queries") == [("b",)]
    assert as_rows(database, "SELECT count(*) FROM responses") == [(1,)]
    assert as_rows(database, "PRAGMA foreign_key_check") == []
    assert snapshot(database.parent / "xhr") == files
    assert run(database, "--undo", "last") == 0
    assert dump(database, without=CONTENT) == before


def test_undo_never_gives_results_to_another_search_of_the_same_number(database: Path) -> None:
    assert run(database, "--forget-query", 2) == 0
    with open_database(database) as db, db.transaction():
        assert ensure_query(db, "yandex", "keyword", "new", run_id=1) == 2
    assert run(database, "--undo", "last") == 0
    assert as_rows(database, "SELECT count(*) FROM results WHERE query_id = 2") == [(0,)]
    assert as_rows(database, "SELECT text FROM queries WHERE id = 2") == [("new",)]
    change(database, "DELETE FROM queries WHERE id = 2")
    assert run(database, "--undo", "last") == 0
    assert as_rows(database, "SELECT count(*) FROM results WHERE query_id = 2") == [(2,)]


def make_backup(database: Path) -> Path:
    """A backup as a run of the rules makes it, with nothing changed in the end."""
    change(
        database, "INSERT INTO image_variants (image_id, kind, url) SELECT id, 'dup', 'ftp://x/' FROM images LIMIT 1"
    )
    assert run(database) == 0
    return next((database.parent / "backups").iterdir())


def test_a_backup_comes_back_whole_and_what_was_there_is_kept(database: Path) -> None:
    copy = make_backup(database)
    wanted = dump(copy)
    change(database, "DELETE FROM image_variants")
    before = snapshot(database.parent)
    assert run(database, "--restore", "last", "--dry-run") == 0 and snapshot(database.parent) == before
    assert run(database, "--restore", copy.name) == 0
    assert dump(database) == wanted
    assert as_rows(database, "PRAGMA journal_mode") == [("wal",)]
    newest = list_backups(database.parent / "backups")[0]
    assert as_rows(newest, "SELECT count(*) FROM image_variants") == [(0,)]
    assert run(database) == 0  # and the steps go on


def test_the_last_backup_is_never_what_a_restore_has_replaced(database: Path) -> None:
    """The same command again ends the same, also after a kill between the copy of what is there and its replacement."""
    copy = make_backup(database)
    change(database, "DELETE FROM image_variants")
    for _ in range(2):
        assert run(database, "--restore", "last") == 0
        assert dump(database) == dump(copy)
    replaced = [path for path in list_backups(database.parent / "backups") if path != copy]
    assert len(replaced) == 2 and run(database, "--restore", replaced[-1].name) == 0
    assert as_rows(database, "SELECT count(*) FROM image_variants") == [(0,)]
    assert run(database) == 0 and run(database, "--restore", "last") == 0  # a cleanup's copy is the last again
    assert as_rows(database, "SELECT count(*) FROM images, image_variants") == [(0,)]


def test_a_backup_comes_back_where_the_database_has_gone(database: Path) -> None:
    copy = make_backup(database)
    database.unlink()
    assert run(database, "--restore", "last") == 0
    assert dump(database) == dump(copy)


def test_a_backup_comes_back_over_a_damaged_database(database: Path) -> None:
    copy = make_backup(database)
    body = bytearray(database.read_bytes())
    body[200:9000] = b"\xff" * 8800
    database.write_bytes(bytes(body))
    assert run(database) == 1
    assert run(database, "--restore", "last") == 0
    assert dump(database) == dump(copy)
    aside = [path for path in database.parent.iterdir() if ".damaged-" in path.name]
    assert sorted(path.name[-4:] for path in aside)[:1] and min(aside).read_bytes() == bytes(body)


@pytest.mark.parametrize("kind", ["text", "cut", "foreign"])
def test_what_is_no_backup_is_refused(database: Path, tmp_path: Path, kind: str, capsys) -> None:
    bad = tmp_path / "bad.db"
    if kind == "text":
        bad.write_text("no database at all, but long enough to be looked at" * 50)
    elif kind == "cut":
        bad.write_bytes(make_backup(database).read_bytes()[:20_000])
    else:
        connection = sqlite3.connect(bad)
        connection.execute("CREATE TABLE images (id)")
        connection.close()
    before = dump(database)
    assert run(database, "--restore", bad) == 2
    said = capsys.readouterr().err
    assert "choose another" in said and "Traceback" not in said and dump(database) == before


def test_a_reader_is_not_disturbed_by_a_restore(database: Path) -> None:
    make_backup(database)
    reader = sqlite3.connect(database)
    reader.execute("BEGIN")
    before = reader.execute("SELECT count(*) FROM image_variants").fetchone()
    released = threading.Timer(1.0, lambda: None)
    released.start()
    assert run(database, "--restore", "last") == 0
    assert reader.execute("SELECT count(*) FROM image_variants").fetchone() == before
    reader.close()


def test_the_file_is_made_smaller_only_where_that_pays(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = dump(database)
    run(database, "--vacuum")  # so small a file shows what the migrations left
    assert STEP.main(["--workspace", str(database.parent), "--vacuum"]) == 0
    assert "too little is unused" in capsys.readouterr().err
    change(database, "CREATE TABLE waste AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
                     " SELECT i, hex(randomblob(60)) FROM n")  # fmt: skip
    change(database, "DROP TABLE waste")
    size = database.stat().st_size
    assert run(database, "--vacuum", "--dry-run") == 0 and database.stat().st_size == size
    assert run(database, "--vacuum") == 0
    assert database.stat().st_size < size / 2 and dump(database) == rows


@pytest.fixture
def used(database: Path) -> Path:
    with open_database(database) as db:
        db.execute("INSERT INTO files (sha256, path, bytes, format, added_at) VALUES ('aa', 'images/a', 1, 'png', '')")
        db.execute("UPDATE downloads SET state = 'done', sha256 = 'aa', attempts = 2")
        db.execute("INSERT INTO hashes (sha256, kind, bits, algorithm) VALUES ('aa', 'phash', 64, '1')")
        db.execute("INSERT INTO scores (sha256, metric, version, created_at) VALUES ('aa', 'm', '1', '')")
    return database


RESETS = [
    ("downloads", "SELECT count(*) FROM downloads WHERE state <> 'pending' OR sha256 IS NOT NULL", "hashes"),
    ("hashes", "SELECT count(*) FROM hashes", "scores"),
    ("scores", "SELECT count(*) FROM scores", "hashes"),
]


@pytest.mark.parametrize(("what", "emptied", "kept"), RESETS, ids=[case[0] for case in RESETS])
def test_a_part_is_started_anew_and_can_come_back(used: Path, what: str, emptied: str, kept: str, capsys) -> None:
    before = dump(used)
    assert run(used, "--reset", what, "--dry-run") == 0
    assert what in capsys.readouterr().out and dump(used) == before
    assert run(used, "--reset", what) == 0
    assert as_rows(used, emptied) == [(0,)] and as_rows(used, f"SELECT count(*) FROM {kept}") == [(1,)]
    assert as_rows(used, "SELECT count(*) FROM files") == [(1,)]
    now = dump(used)
    assert run(used, "--reset", what) == 0 and dump(used) == now
    assert len(list((used.parent / "backups").iterdir())) == 1  # nothing to do makes no backup
    assert run(used, "--restore", "last") == 0 and dump(used) == before


@pytest.mark.parametrize("name", ["", "other"])
def test_a_wrong_name_is_told_before_anything_else(used: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ninety lines of a plan that is not going to be carried out would hide the one sentence that matters."""
    assert run(used, "--reset", "everything", *(["--yes", name] if name else [])) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.strip().splitlines()) == 1
    assert as_rows(used, "SELECT count(*) FROM runs WHERE step = 'cleanup'") == [(0,)]


def test_a_reset_shows_each_row_on_a_line(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(used, "INSERT INTO robots (origin, status, body, fetched_at) VALUES ('o', 200, 'a' || char(10) || 'b', '')")
    assert run(used, "--reset", "everything", "--dry-run", "--examples", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("remove  robots  o 200 a b") for line in lines)
    assert all(line.split()[0] == "remove" or line.split()[-1].isdigit() for line in lines)


def test_nothing_to_clean_is_said(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert STEP.main(["--workspace", str(database.parent), "--rule", "dead_host"]) == 0
    assert "no row is found by dead_host" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "other"])
def test_everything_goes_only_by_name(used: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = dump(used)
    assert run(used, "--reset", "everything", *(["--yes", name] if name else [])) == 2
    assert "ws" in capsys.readouterr().err and dump(used) == before
    assert run(used, "--reset", "everything", "--yes", "ws") == 0
    assert {table for table, rows in dump(used).items() if rows} == set()
    assert (used.parent / "xhr").is_dir()
    assert INGEST.main(["--workspace", str(used.parent), "--rescan", "-q"]) == 0
    assert as_rows(used, "SELECT count(*) FROM images") == [(4,)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vacuum", "--restore", "last"], "different jobs"),
        (["--rule", "small_claim"], "--min-side"),
        (["--rule", "blocked_domain"], "--blocklist"),
        (["--languages", "klingon"], "klingon"),
        (["--forget-query", "77"], "there is no search 77; `1_collect.py --list` shows them"),
        (["--restore", "last"], "no backup"),
        (["--restore", "nowhere.db"], "no backup 'nowhere.db'"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(database: Path, arguments: list[str], words: str, capsys) -> None:
    before = snapshot(database.parent)
    assert STEP.main(["--workspace", str(database.parent), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    changed = {name for name, digest in snapshot(database.parent).items() if before.get(name) != digest}
    assert changed <= {"gleaner.db", ".cleanup.lock"}


@pytest.mark.parametrize(
    ("text", "wanted", "foreign"),
    [
        ("Старый каменный мост", {"LATIN"}, True),
        ("Старый мост, old bridge of stone", {"LATIN"}, False),
        ("古い石橋の写真と歴史の話", {"CJK", "HIRAGANA"}, False),
        ("мост", {"LATIN"}, False),  # too short to tell
        ("12345 !!!", {"LATIN"}, False),
    ],
)
def test_the_script_of_a_title(text: str, wanted: set[str], foreign: bool) -> None:
    assert is_foreign(text, frozenset(wanted)) is foreign


def test_downloaded_pictures_of_blocked_domains_are_told_of(database: Path, tmp_path: Path, capsys) -> None:
    """They stay; somebody who blocks a domain must not believe them gone."""
    (tmp_path / "block.txt").write_text("example.org\n")
    change(database, "UPDATE downloads SET state = 'done' WHERE image_id = 1")
    arguments = ["--workspace", str(database.parent), "--blocklist", str(tmp_path / "block.txt")]
    for _ in range(2):
        assert STEP.main(arguments) == 0
        assert "1 downloaded picture of those domains stays" in capsys.readouterr().err
    assert as_rows(database, "SELECT count(*) FROM images") == [(1,)]


def test_a_plan_tells_pictures_as_people_know_them(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number and a hash say nothing to somebody who has to agree to the plan."""
    change(database, "UPDATE images SET width = 90, height = 60, title = 'An old' || char(10) || 'bridge' WHERE id = 1")
    assert run(database, "--min-side", 100, "--dry-run") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "remove  images" in line)
    assert "An old bridge, 90 × 60, https://site1.example.org/pages/1  (small_claim)" in line


def test_an_undo_shows_what_comes_back(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(database, "--forget-query", 1, "--examples", 0) == 0
    plan = capsys.readouterr().out.splitlines()[1:]
    assert run(database, "--undo", "last", "--dry-run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("run ") and sorted(shown[1:]) == sorted(plan)
    assert run(database, "--undo", "last") == 0 and run(database, "--undo", "last") == 0
    assert capsys.readouterr().out.splitlines() == shown  # the second time there is nothing


def test_the_rules_that_need_a_word_find_their_rows(database: Path, tmp_path: Path, capsys) -> None:
    with open_database(database) as db:
        db.execute(f"UPDATE images SET domain = 'ads.shop.example', is_shop = 1 WHERE key = 'yandex:{key_of(1)}'")
        rows = db.rows("SELECT id, image_id FROM image_variants WHERE kind = 'dup' ORDER BY id")
        for row in rows[:3]:
            log = json.dumps([{"variant": row["id"], "reason": "dns_error", "tries": 1}])
            db.execute("UPDATE image_variants SET url = 'https://gone.example/' || id WHERE id = ?", (row["id"],))
            db.execute("UPDATE downloads SET state = 'failed', log = ? WHERE image_id = ?", (log, row["image_id"]))
    (tmp_path / "b.txt").write_text("shop.example\n")
    run(database, "--rule", "dead_host", "advert", "--blocklist", tmp_path / "b.txt", "--dry-run", "--json")
    plan = {(row["rule"], row["table"]): row["rows"] for row in json.loads(capsys.readouterr().out)["result"]["plan"]}
    assert plan["dead_host", "image_variants"] == 3 and plan["blocked_domain", "images"] == 1
    assert ("advert", "images") not in plan  # that one is blocked already
    shutil.copy(tmp_path / "b.txt", tmp_path / "allow.txt")
    run(database, "--rule", "blocked_domain", "--allowlist", tmp_path / "allow.txt", "--dry-run", "--json")
    plan = {(row["rule"], row["table"]): row["rows"] for row in json.loads(capsys.readouterr().out)["result"]["plan"]}
    assert plan["blocked_domain", "images"] == 3


def test_the_indexes_that_a_plan_uses(database: Path) -> None:
    """A plan walks through indexes in their order: nothing is sorted, and no table is read for a picture's id."""
    with open_database(database) as db:
        walks = [cleanup_store._DISTINCT_IDS.format(table) for table in cleanup_store.CHILDREN]
        for sql in (*walks, "SELECT id FROM images ORDER BY id", cleanup_store.REPEATED):
            plan = " ".join(row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))
            assert "USING COVERING INDEX" in plan or plan in ("SCAN images", "SCAN downloads"), (sql, plan)
            assert "TEMP B-TREE FOR ORDER BY" not in plan and "TEMP B-TREE FOR GROUP BY" not in plan, (sql, plan)
        lookups = {
            "image_variants WHERE image_id = 1": "sqlite_autoindex_image_variants_1 (image_id=?)",
            "results WHERE image_id = 1": "results_by_image (image_id=?)",
            "downloads WHERE image_id = 1": "INTEGER PRIMARY KEY (rowid=?)",
            "downloads WHERE variant_id = 1": "downloads_by_variant (variant_id=?)",
            "downloads WHERE sha256 = 'x'": "downloads_by_sha256 (sha256=?)",
        }
        for sql, index in lookups.items():
            plan = " ".join(row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN SELECT 1 FROM {sql}"))
            assert index in plan, (sql, plan)
