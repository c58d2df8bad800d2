"""Contents that step 6 took away: step 5 does not fetch them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lib.db.connection import Database
from lib.times import utc_now

BLOCK = 500  # below SQLite's oldest limit of 999 parameters


def bury(db: Database, run_id: int, rows: Iterable[tuple[str, str, str]]) -> int:
    """Remembers (content, kind of repeat, the content that stays); gives the number of new ones."""
    with db.transaction():
        before = int(db.value("SELECT count(*) FROM tombstones"))
        db.executemany(
            "INSERT INTO tombstones (sha256, kind, keeper_sha256, run_id, created_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256) DO NOTHING",
            ((*row, run_id, utc_now()) for row in rows),
        )
        return int(db.value("SELECT count(*) FROM tombstones")) - before


def unbury(db: Database, contents: Sequence[str]) -> None:
    """Forgets contents that are back."""
    with db.transaction():
        db.executemany("DELETE FROM tombstones WHERE sha256 = ?", ((content,) for content in contents))


def is_buried(db: Database, sha256: str) -> bool:
    """Whether this content was taken away as a repeat."""
    return db.value("SELECT 1 FROM tombstones WHERE sha256 = ?", (sha256,)) is not None


def buried_images(db: Database, image_ids: Sequence[int]) -> dict[int, str]:
    """Of the given pictures those that need no fetching: one of their addresses brought a content that was taken away.

    Gives image id -> that content. For step 5 before it fetches a row; what is buried has a better copy that stays.
    """
    found: dict[int, str] = {}
    for start in range(0, len(image_ids), BLOCK):
        block = image_ids[start : start + BLOCK]
        marks = ", ".join("?" * len(block))
        for row in db.rows(
            "SELECT wanted.image_id AS image_id, min(tombstones.sha256) AS sha256 FROM image_variants AS wanted"
            " JOIN image_variants AS fetched ON fetched.url = wanted.url"
            " JOIN downloads ON downloads.variant_id = fetched.id AND downloads.state = 'done'"
            " JOIN tombstones ON tombstones.sha256 = downloads.sha256"
            f" WHERE wanted.image_id IN ({marks}) GROUP BY wanted.image_id",
            block,
        ):
            found[row["image_id"]] = row["sha256"]
    return found
