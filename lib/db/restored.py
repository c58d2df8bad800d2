"""Searches whose rows were lost and made again from the answers on disk."""

from __future__ import annotations

from lib.db.connection import Database

_COUNT_PAGES = """
UPDATE queries SET next_page = (
    SELECT min(here.page) + 1 FROM responses AS here
    WHERE here.query_id = queries.id AND here.outcome = 'ok' AND NOT EXISTS (
        SELECT 1 FROM responses AS after
        WHERE after.query_id = here.query_id AND after.page = here.page + 1 AND after.outcome = 'ok'
    )
)
WHERE engine = ? AND next_page = 0
  AND EXISTS (SELECT 1 FROM responses WHERE query_id = queries.id AND page = 0 AND outcome = 'ok')
"""


def count_restored_pages(db: Database, engine: str) -> int:
    """Lets restored searches go on behind the pages that they have without a gap; gives how many they are."""
    return db.execute(_COUNT_PAGES, (engine,)).rowcount
