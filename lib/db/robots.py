"""The `robots` table: what the robots.txt of an origin said."""

from __future__ import annotations

from lib.db.connection import Database
from lib.times import utc_in, utc_now

FRESH_SECONDS = 24 * 3600.0  # RFC 9309: a cached copy should not be used for more than a day


def known_robots(db: Database, origin: str) -> str | None:
    """The text of a copy that is fresh enough; None where there is none."""
    row = db.row("SELECT body FROM robots WHERE origin = ? AND fetched_at > ?", (origin, utc_in(-FRESH_SECONDS)))
    return None if row is None else str(row["body"])


def remember_robots(db: Database, origin: str, status: int, body: str) -> None:
    """Keeps a copy."""
    with db.transaction():
        db.execute(
            "INSERT INTO robots (origin, status, body, fetched_at) VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE"
            " SET status = excluded.status, body = excluded.body, fetched_at = excluded.fetched_at",
            (origin, status, body, utc_now()),
        )
