"""Making the file smaller, and emptying parts of the database."""

from __future__ import annotations

from dataclasses import dataclass

from lib.db.connection import Database
from lib.times import utc_now

# What each reset empties, children first. Files on disk stay, and so do raw answers.
RESETS: dict[str, tuple[str, ...]] = {
    "downloads": ("downloads",),
    "hashes": ("duplicates", "hashes"),
    "scores": ("labels", "scores", "embeddings"),
}
KEPT = ("runs",)  # what every reset leaves: the history of the runs themselves


@dataclass(frozen=True)
class Room:
    """How much of the file is unused, in bytes."""

    size: int
    free: int

    @property
    def share(self) -> float:
        return self.free / self.size if self.size else 0.0


def room(db: Database) -> Room:
    page = int(db.value("PRAGMA page_size"))
    return Room(int(db.value("PRAGMA page_count")) * page, int(db.value("PRAGMA freelist_count")) * page)


def vacuum(db: Database) -> None:
    """Writes the database anew without its gaps; a kill leaves it as it was."""
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def tables_of(db: Database, what: str) -> tuple[str, ...]:
    """The tables that a reset empties; for `everything` all of them but the history of runs."""
    if what != "everything":
        return RESETS[what]
    rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid")
    return tuple(row[0] for row in rows if row[0] not in KEPT)


def count_rows(db: Database, what: str) -> dict[str, int]:
    """How many rows of which table a reset would take or change; tables where it finds nothing are left out."""
    found = {}
    for table in tables_of(db, what):
        where = _TOUCHED if what == "downloads" else ""
        found[table] = int(db.value(f"SELECT count(*) FROM {table}{where}"))
    return {table: rows for table, rows in found.items() if rows}


def examples(db: Database, what: str, table: str, most: int) -> list[str]:
    """A few of the rows, by the first columns that say something."""
    where = _TOUCHED if what == "downloads" else ""
    rows = db.rows(f"SELECT * FROM {table}{where} LIMIT ?", (most,))
    return [" ".join([str(value)[:60] for value in tuple(row) if value not in ("", None)][:5]) for row in rows]


def reset(db: Database, what: str) -> None:
    """Empties the tables, or makes all downloads pending again, in one transaction."""
    # Every table that refers to an emptied one is emptied too, so there is nothing to check row by row.
    db.execute(f"PRAGMA foreign_keys = {'OFF' if what == 'everything' else 'ON'}")
    try:
        with db.transaction():
            if what == "downloads":
                db.execute(_RESET_DOWNLOADS, (utc_now(),))
                return
            for table in tables_of(db, what):
                db.execute(f"DELETE FROM {table}")
    finally:
        db.execute("PRAGMA foreign_keys = ON")


_TOUCHED = " WHERE state <> 'pending' OR attempts > 0"
_RESET_DOWNLOADS = (
    "UPDATE downloads SET state = 'pending', reason = '', attempts = 0, next_try_at = '', variant_id = NULL, kind = '',"
    " sha256 = NULL, http_status = NULL, final_url = '', content_type = '', etag = '', last_modified = '',"
    f" bytes = NULL, elapsed_ms = NULL, log = '[]', lease = '', lease_until = '', updated_at = ?{_TOUCHED}"
)
