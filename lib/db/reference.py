"""Reading the reference pipeline's database (`yandex_images.db`): tables `images` and `image_variants`.

Columns come and go between its versions, so what is there is read and what is not counts as empty. Nothing is written
to it, and no `-wal` or `-shm` file is left beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.errors import GleanerError, UsageError

MAGIC = b"SQLite format 3\x00"
_TABLES = {"images", "image_variants"}
_OURS = {"responses", "queries", "runs"}


@contextmanager
def open_reference(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection. Raises UsageError for another program's database and GleanerError for a damaged one."""
    # `immutable` leaves no files behind, but would not see what still stands in a write-ahead log.
    options = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        _check(connection, path)
        yield connection
    except sqlite3.DatabaseError as error:
        raise GleanerError(f"{path} is damaged ({error}); give a whole copy to --import.") from error
    finally:
        connection.close()


def iter_pictures(connection: sqlite3.Connection) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every picture's row with the rows of its addresses, in the order of the ids.

    Both tables are sorted and walked side by side: the reference has no index on `image_variants.image_id`.
    """
    variants = connection.execute(
        f"SELECT {_key('image_id')}, * FROM image_variants WHERE image_id IS NOT NULL ORDER BY 1, rowid"
    )
    waiting = variants.fetchone()
    for image in connection.execute(f"SELECT {_key('id')}, * FROM images WHERE id IS NOT NULL ORDER BY 1, rowid"):
        own: list[dict[str, Any]] = []
        while waiting is not None and waiting["sort_key"] <= image["sort_key"]:
            if waiting["sort_key"] == image["sort_key"]:
                own.append(dict(waiting))
            waiting = variants.fetchone()
        yield dict(image), own


def _key(column: str) -> str:
    """Bytes compare alike in SQLite and in Python, whatever the text's encoding was."""
    return f"CAST(CAST({column} AS TEXT) AS BLOB) AS sort_key"


def _check(connection: sqlite3.Connection, path: Path) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables >= _OURS:
        raise UsageError(f"{path} is a Gleaner database already; name its folder with --workspace instead.")
    if not tables >= _TABLES:
        raise UsageError(f"{path} has no tables images and image_variants; give the reference pipeline's database.")
