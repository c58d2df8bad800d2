"""The `superseded` table: contents that pictures had before a newer or better one."""

from __future__ import annotations

from lib.db.connection import Database

# A content that is still some picture's own stays where it is.
_UNUSED = "state = 'present' AND NOT EXISTS (SELECT 1 FROM downloads WHERE downloads.sha256 = files.sha256)"


def supersede(db: Database, image_id: int, sha256: str, by_sha256: str, run_id: int) -> None:
    """Remembers what a picture had; inside the caller's transaction."""
    if sha256 != by_sha256:
        db.execute(
            "INSERT INTO superseded (image_id, sha256, by_sha256, run_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (image_id, sha256) DO UPDATE SET by_sha256 = excluded.by_sha256, run_id = excluded.run_id",
            (image_id, sha256, by_sha256, run_id or None),
        )


def was_superseded(db: Database, sha256: str) -> bool:
    """Whether a content went to the quarantine because a better one replaced it, and for no other reason."""
    return db.value("SELECT 1 FROM superseded WHERE sha256 = ? LIMIT 1", (sha256,)) is not None


def forget(db: Database, sha256: str) -> None:
    """The content is in use again; inside the caller's transaction."""
    db.execute("DELETE FROM superseded WHERE sha256 = ?", (sha256,))


def forget_undone(db: Database, run_id: int) -> None:
    """What `--undo` has brought back stays: the next run does not take it away again."""
    with db.transaction():
        db.execute(
            "DELETE FROM superseded WHERE sha256 IN (SELECT sha256 FROM actions WHERE run_id = ? AND state = 'undone')",
            (run_id,),
        )


def unused_contents(db: Database) -> list[tuple[str, str, int, bool]]:
    """(sha256, path, bytes, whether a better one replaced it) of superseded contents that lie where pictures lie."""
    rows = db.rows(
        "SELECT files.sha256, path, bytes, max(by_sha256) <> '' FROM superseded JOIN files USING (sha256)"
        f" WHERE {_UNUSED} GROUP BY files.sha256 ORDER BY path"
    )
    return [(row[0], row[1], int(row[2]), bool(row[3])) for row in rows]
