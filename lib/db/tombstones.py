"""Contents that step 6 took away, and the addresses that brought them: step 5 does not fetch them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lib.db.connection import Database
from lib.times import utc_now

REMOVED = "removed_repeat"  # why step 5 did not fetch a picture
BLOCK = 500  # below SQLite's oldest limit of 999 parameters


def bury(db: Database, run_id: int, rows: Iterable[tuple[str, str, str]]) -> int:
    """Remembers (content, kind of repeat, the content that stays); gives the number of new ones."""
    buried = list(rows)
    with db.transaction():
        before = int(db.value("SELECT count(*) FROM tombstones"))
        db.executemany(
            "INSERT INTO tombstones (sha256, kind, keeper_sha256, run_id, created_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256) DO NOTHING",
            ((*row, run_id, utc_now()) for row in buried),
        )
        db.executemany(_BURY_ADDRESSES, ((row[0],) for row in buried))
        return int(db.value("SELECT count(*) FROM tombstones")) - before


def unbury(db: Database, contents: Sequence[str]) -> None:
    """Forgets contents that are back; what step 5 left out for their sake may be fetched."""
    if not contents:
        return
    with db.transaction():
        db.executemany("DELETE FROM tombstones WHERE sha256 = ?", ((content,) for content in contents))
        db.execute(
            "UPDATE downloads SET state = 'pending', reason = '' WHERE state = 'blocked' AND reason = ?", (REMOVED,)
        )


def is_buried(db: Database, sha256: str) -> bool:
    """Whether this content was taken away as a repeat."""
    return db.value("SELECT 1 FROM tombstones WHERE sha256 = ?", (sha256,)) is not None


def buried_images(db: Database, image_ids: Sequence[int]) -> dict[int, str]:
    """Of the given pictures those that need no fetching: one of their addresses brought a content that was taken away.

    Gives image id -> that content. For step 5 before it fetches a row; what is buried has a better copy that stays.
    """
    found: dict[int, str] = {}
    if db.value("SELECT 1 FROM buried_addresses LIMIT 1") is None:
        return found
    for start in range(0, len(image_ids), BLOCK):
        block = image_ids[start : start + BLOCK]
        marks = ", ".join("?" * len(block))
        # A content that is here, whoever brought it back, is not buried.
        found.update(
            (row["image_id"], row["sha256"])
            for row in db.rows(
                "SELECT image_id, min(files.sha256) AS sha256 FROM image_variants"
                " JOIN buried_addresses ON buried_addresses.url = image_variants.url"
                " JOIN files ON files.sha256 = buried_addresses.sha256 AND files.state <> 'present'"
                f" WHERE image_id IN ({marks}) GROUP BY image_id",
                block,
            )
        )
    return found


_BURY_ADDRESSES = (
    "INSERT OR IGNORE INTO buried_addresses SELECT url, downloads.sha256 FROM downloads"
    " JOIN image_variants ON image_variants.id = downloads.variant_id WHERE downloads.sha256 = ?"
)
