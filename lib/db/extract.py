"""A part of the database as one of its own: the pictures of some domains with everything that belongs to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from lib.db.connection import Database, open_database
from lib.errors import GleanerError, UsageError
from lib.temporary import becoming, clear_dead

# Tables in the order in which they are filled, each with the rows that the chosen pictures need.
_PARTS = {
    "queries": "id IN (SELECT query_id FROM src.results WHERE image_id IN (SELECT id FROM chosen))",
    "responses": "id IN (SELECT response_id FROM src.results WHERE image_id IN (SELECT id FROM chosen))",
    "images": "id IN (SELECT id FROM chosen)",
    "results": "image_id IN (SELECT id FROM chosen)",
    "image_variants": "image_id IN (SELECT id FROM chosen)",
    "files": "sha256 IN (SELECT sha256 FROM src.downloads WHERE image_id IN (SELECT id FROM chosen))",
    "downloads": "image_id IN (SELECT id FROM chosen)",
    "hashes": "sha256 IN (SELECT sha256 FROM main.files)",
    "scores": "sha256 IN (SELECT sha256 FROM main.files)",
    "labels": "sha256 IN (SELECT sha256 FROM main.files)",
}
_WITHOUT_RUN = ("queries", "responses", "downloads", "labels")  # runs stay behind


def count_pictures(db: Database, names: Iterable[tuple[str, str]]) -> int:
    """How many pictures the names choose."""
    return sum(
        int(db.value(f"SELECT count(*) FROM images WHERE {_CHOOSES}", (domain, host, host, host)))
        for domain, host in names
    )


def extract(db: Database, names: Iterable[tuple[str, str]], target: Path) -> int:
    """Writes the pictures of the named (registrable domain, host or empty) into a new database; gives their number.

    Raises UsageError where another program's file stands in the way.
    """
    if db.path is None:
        raise GleanerError("there is no database to extract from; run 2_ingest_db.py first.")
    _check_target(target)
    clear_dead(target.parent, target=target.name)  # it may lie anywhere: nobody else looks there
    with becoming(target) as part, open_database(part) as made:
        found = _fill(made, db.path, list(names))
        made.execute("PRAGMA journal_mode = DELETE")
    return found


def _check_target(target: Path) -> None:
    """Raises UsageError for a file that no earlier extract has made: one has all our tables, and runs stay behind."""
    if not target.exists():
        return
    refusal = UsageError(f"--to: {target} is there and no earlier extract; give another name.")
    try:
        connection = sqlite3.connect(f"{target.resolve().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        raise refusal from None
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"images", "results", "runs"} <= tables or connection.execute("SELECT 1 FROM runs").fetchone():
            raise refusal
    except sqlite3.DatabaseError:
        raise refusal from None
    finally:
        connection.close()


_CHOOSES = "registrable_domain = ? AND (? = '' OR domain = ? OR domain LIKE '%.' || ?)"


def _fill(made: Database, source: Path, names: list[tuple[str, str]]) -> int:
    made.execute("ATTACH ? AS src", (source.resolve().as_posix(),))
    made.execute("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")
    with made.transaction():
        for domain, host in names:
            made.execute(
                f"INSERT OR IGNORE INTO chosen SELECT id FROM src.images WHERE {_CHOOSES}", (domain, host, host, host)
            )
        for table, condition in _PARTS.items():
            columns = [row["name"] for row in made.rows(f"PRAGMA main.table_info({table})")]
            shown = ["NULL" if c == "run_id" and table in _WITHOUT_RUN else c for c in columns]
            made.execute(
                f"INSERT INTO main.{table} ({', '.join(columns)})"
                f" SELECT {', '.join(shown)} FROM src.{table} WHERE {condition}"
            )
    found = int(made.value("SELECT count(*) FROM chosen"))
    made.execute("DETACH src")
    if made.value("PRAGMA integrity_check(1)") != "ok" or made.row("PRAGMA foreign_key_check"):
        raise GleanerError("the extracted database is not whole; run 4_db_cleanup.py --rule orphan and try again.")
    return found
