"""Pictures whose content is on disk already: which are known, and how their rows come to say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from json import dumps

from lib.db.connection import Database
from lib.db.files import FileRow
from lib.times import utc_now


def known_contents(db: Database, keys: Sequence[str]) -> set[str]:
    """The contents of those of the pictures that are done and whose file is not missing."""
    rows = db.execute(
        "SELECT downloads.sha256 FROM downloads JOIN files ON files.sha256 = downloads.sha256"
        " WHERE downloads.state = 'done' AND files.state <> 'missing'"
        " AND image_id IN (SELECT id FROM images WHERE key IN (SELECT value FROM json_each(?)))",
        (dumps(list(keys)),),
    )
    return {row[0] for row in rows}


def file_states(db: Database, hashes: Sequence[str]) -> dict[str, str]:
    """The state of each of the contents that has a row."""
    rows = db.execute(
        "SELECT sha256, state FROM files WHERE sha256 IN (SELECT value FROM json_each(?))", (dumps(list(hashes)),)
    )
    return {row[0]: row[1] for row in rows}


def add_or_restore_files(db: Database, files: Iterable[FileRow]) -> None:
    """Gives contents a row, or their row its file back where it had been missing; inside the caller's transaction."""
    now = utc_now()
    db.executemany(
        "INSERT INTO files (sha256, path, bytes, format, width, height, frames, orientation, added_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sha256) DO UPDATE SET state = 'present',"
        " path = excluded.path WHERE files.state = 'missing'",
        [(f.sha256, f.path, f.bytes, f.format, f.width, f.height, f.frames, f.orientation, now) for f in files],
    )


def mark_done(db: Database, done: Iterable[tuple[str, int, str]], now: str) -> None:
    """(content, bytes, picture's key) of pictures that need no fetching; inside the caller's transaction."""
    db.executemany(
        "UPDATE downloads SET state = 'done', reason = '', kind = 'original', sha256 = ?, bytes = ?, updated_at = ?"
        " WHERE image_id = (SELECT id FROM images WHERE key = ?) AND state <> 'done'",
        [(sha256, size, now, key) for sha256, size, key in done],
    )
