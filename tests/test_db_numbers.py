"""Schema 5 numbers pictures: what a database of schema 4 holds comes through, and so do its journals."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, as_rows, load_step

from lib.db import Context, open_database
from lib.db.schema import migrations, statements
from lib.journal.rows import undo
from lib.workspace import Workspace

KEYS = [f"commons:{number:032x}" for number in (7, 3, 9, 1)]
CHILDREN = ("results", "image_variants", "downloads", "superseded")


def make_version_4(path: Path, pictures: int = 0) -> None:
    """A database as the version before left it, with one row of everything, and orphans."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    for number, script in migrations():
        if number <= 4:
            for statement in statements(script.read_text(encoding="utf-8")):
                db.execute(statement)
    db.execute("PRAGMA user_version=4")
    db.execute("BEGIN")
    db.execute("INSERT INTO runs (id, step, started_at, version) VALUES (1, 'cleanup', '2026', '0')")
    db.execute(
        "INSERT INTO queries (id, engine, kind, text, created_at, updated_at)"
        " VALUES (1, 'commons', 'keyword', 'a', '', '')"
    )
    db.execute("INSERT INTO responses (id, query_id, page, part, fetched_at) VALUES (1, 1, 0, 'xhr', '')")
    db.execute("INSERT INTO files (sha256, path, bytes, format, added_at) VALUES ('aa', 'images/a', 1, 'png', '')")
    for rank, key in enumerate([*KEYS, *(f"commons:more-{number}" for number in range(pictures))]):
        db.execute(
            "INSERT INTO images (id, engine, title, first_seen_at) VALUES (?, 'commons', ?, '')", (key, f"of {key}")
        )
        db.execute("INSERT INTO results VALUES (1, ?, 1, ?)", (key, rank))
        db.execute("INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'dup', ?)", (key, f"https://{key}/"))
        db.execute("INSERT INTO downloads (image_id, updated_at) VALUES (?, ?)", (key, key))
        db.execute("INSERT INTO superseded VALUES (?, 'aa', '', 1)", (key,))
    db.execute("UPDATE downloads SET state = 'done', sha256 = 'aa', variant_id = 2 WHERE image_id = ?", (KEYS[1],))
    for gone in ("commons:gone", "commons:lost"):
        db.execute("INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'dup', 'https://gone/')", (gone,))
        db.execute("INSERT INTO downloads (image_id, updated_at) VALUES (?, '')", (gone,))
    db.execute("COMMIT")
    db.close()


def test_every_row_follows_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "gleaner.db"
    make_version_4(path)
    open_database(path).close()
    assert as_rows(path, "SELECT key, title FROM images ORDER BY id") == [(key, f"of {key}") for key in KEYS]
    for table in CHILDREN:
        found = as_rows(path, f"SELECT key FROM {table} JOIN images ON images.id = image_id ORDER BY images.id")
        assert [key for (key,) in found] == KEYS, table
    urls = as_rows(path, "SELECT url FROM image_variants JOIN images ON images.id = image_id ORDER BY images.id")
    assert urls == [(f"https://{key}/",) for key in KEYS]
    done = "SELECT key, sha256, url FROM downloads JOIN images ON images.id = downloads.image_id"
    done += " JOIN image_variants ON image_variants.id = variant_id"
    assert as_rows(path, done) == [(KEYS[1], "aa", f"https://{KEYS[1]}/")]
    with open_database(path) as db:
        assert db.value("PRAGMA foreign_keys") == 1 and db.value("PRAGMA integrity_check") == "ok"


def test_a_row_without_a_picture_is_never_given_to_a_later_one(tmp_path: Path) -> None:
    path = tmp_path / "gleaner.db"
    make_version_4(path)
    open_database(path).close()
    orphans = as_rows(path, "SELECT image_id FROM image_variants WHERE url = 'https://gone/' ORDER BY 1")
    assert orphans == as_rows(path, "SELECT image_id FROM downloads WHERE image_id < 0 ORDER BY 1")
    assert len(set(orphans)) == 2


def test_the_new_schema_is_the_one_that_an_empty_database_gets(tmp_path: Path) -> None:
    make_version_4(tmp_path / "old.db")
    shapes = []
    for name in ("old.db", "new.db"):
        open_database(tmp_path / name).close()
        shapes.append(as_rows(tmp_path / name, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"))
    assert shapes[0] == shapes[1]
    assert not [row for row in shapes[0] if "new_" in f"{row[1]} {row[3]}"]


def test_a_kill_in_the_middle_leaves_one_version_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "gleaner.db"
    make_version_4(path, pictures=30_000)
    code = "import sys; from pathlib import Path; from lib.db import open_database; print('on', flush=True);"
    code += " open_database(Path(sys.argv[1]))"
    for wait in (0.0, 0.05, 0.15, 0.3):
        process = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        process.communicate()
        assert as_rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert as_rows(path, "SELECT count(*) FROM results JOIN images ON images.id = image_id") == [(30_004,)]
    open_database(path).close()
    assert as_rows(path, "SELECT count(*) FROM results JOIN images ON images.id = image_id") == [(30_004,)]


@pytest.mark.parametrize("known", [True, False])
def test_a_journal_of_the_version_before_can_be_undone(tmp_path: Path, known: bool) -> None:
    """Payloads name pictures by what was their id then."""
    path = tmp_path / "gleaner.db"
    make_version_4(path)
    key = KEYS[0] if known else "commons:before"
    image = {"id": key, "engine": "commons", "title": "before", "first_seen_at": ""}
    variant = {"id": 2, "image_id": key, "kind": "dup", "url": "https://before/"}
    result = {"query_id": 1, "image_id": key, "response_id": 1, "rank": 5}
    db = sqlite3.connect(path)
    for table, row in (("results", result), ("image_variants", variant), ("images", image)):
        db.execute(
            "INSERT INTO actions (run_id, kind, state, table_name, payload, reason, created_at)"
            " VALUES (1, 'remove_row', 'done', ?, ?, 'no_result', '')",
            (table, json.dumps(row)),
        )
    db.commit()
    db.close()
    with open_database(path) as made:
        outcomes = undo(Context(made, Workspace(path.parent)), 1)
    assert sum(outcomes.values()) == 3 and not outcomes["missing_parent"]
    urls = "SELECT url FROM image_variants JOIN images ON images.id = image_id WHERE key = ? ORDER BY 1"
    assert ("https://before/",) in as_rows(path, urls, key)
    shown = as_rows(path, "SELECT title FROM images JOIN results ON image_id = images.id WHERE key = ?", key)
    assert shown == [(f"of {key}",) if known else ("before",)]


def test_an_archived_row_never_joins_another_picture_of_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "gleaner.db"
    make_version_4(path)
    with open_database(path) as db:
        db.execute("DELETE FROM results")
        last = db.value("SELECT max(id) FROM images")
    step = load_step("cleanup")
    arguments = ["--workspace", str(tmp_path), "-q"]
    assert step.main([*arguments, "--rule", "no_result"]) == 0
    with open_database(path) as db:
        assert db.value("SELECT count(*) FROM images") == 1  # the downloaded one
        db.execute("INSERT INTO images (id, key, engine, first_seen_at) VALUES (?, 'bing:new', 'bing', '')", (last,))
    assert step.main([*arguments, "--undo", "last"]) == 0
    assert {key for (key,) in as_rows(path, "SELECT key FROM images")} == {*KEYS, "bing:new"}
    assert as_rows(path, "SELECT count(*) FROM image_variants WHERE image_id = ?", last) == [(0,)]
    pairs = as_rows(path, "SELECT key, url FROM image_variants JOIN images ON images.id = image_id")
    assert sorted(pairs) == sorted((key, f"https://{key}/") for key in KEYS)
