"""The `files` table (one row a distinct content) and the `contents` cache for files outside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from json import dumps
from typing import Any

from lib.db.connection import Database
from lib.times import utc_now

BLOCK = 2_000  # rows read at once
_INSERT = (
    "INSERT INTO files (sha256, path, bytes, format, width, height, frames, orientation, added_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sha256) DO"
)


@dataclass(frozen=True)
class FileRow:
    """A distinct content on disk. Sizes are in pixels before orientation; `path` is as the workspace writes it."""

    sha256: str
    path: str
    bytes: int
    format: str
    width: int | None
    height: int | None
    frames: int = 1
    orientation: int = 1


@dataclass(frozen=True)
class KnownContent:
    """The content of an absolute path when it was last read."""

    path: str
    bytes: int
    mtime_ns: int
    inode: int
    sha256: str


def add_file(db: Database, row: FileRow) -> bool:
    """Adds a content; False when it is already there (its row stays as it is)."""
    return db.execute(f"{_INSERT} NOTHING", _values(row, utc_now())).rowcount > 0


def add_or_restore_files(db: Database, files: Iterable[FileRow]) -> None:
    """Gives contents a row, or their row its file back where it had been missing; inside the caller's transaction."""
    now = utc_now()
    db.executemany(
        f"{_INSERT} UPDATE SET state = 'present', path = excluded.path WHERE files.state = 'missing'",
        [_values(row, now) for row in files],
    )


def _values(row: FileRow, now: str) -> tuple[Any, ...]:
    # `astuple` would copy every value deeply, which costs more than the insertion.
    return row.sha256, row.path, row.bytes, row.format, row.width, row.height, row.frames, row.orientation, now


def iter_present_files(db: Database) -> Iterator[tuple[str, str]]:
    """(sha256, path) of every present file, in the order of the hashes, in blocks."""
    sql = "SELECT sha256, path FROM files WHERE state = 'present' AND sha256 > :last ORDER BY sha256"
    return ((row["sha256"], row["path"]) for row in db.in_blocks(sql, "", BLOCK))


def known_contents(db: Database, paths: Sequence[str]) -> dict[str, KnownContent]:
    rows = db.execute(
        "SELECT path, bytes, mtime_ns, inode, sha256 FROM contents WHERE path IN (SELECT value FROM json_each(?))",
        (dumps(list(paths)),),
    )
    return {row["path"]: KnownContent(**dict(row)) for row in rows}


def remember_contents(db: Database, contents: Iterable[KnownContent]) -> None:
    with db.transaction():
        db.executemany(
            "INSERT INTO contents (path, bytes, mtime_ns, inode, sha256) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes, mtime_ns = excluded.mtime_ns,"
            " inode = excluded.inode, sha256 = excluded.sha256",
            [astuple(content) for content in contents],
        )


def contents_of_pictures(db: Database, keys: Sequence[str]) -> set[str]:
    """The contents of those of the pictures that are done and whose file is not missing."""
    rows = db.column(
        "SELECT downloads.sha256 FROM downloads JOIN files ON files.sha256 = downloads.sha256"
        " WHERE downloads.state = 'done' AND files.state <> 'missing'"
        " AND image_id IN (SELECT id FROM images WHERE key IN (SELECT value FROM json_each(?)))",
        (dumps(list(keys)),),
    )
    return set(rows)


def file_states(db: Database, hashes: Sequence[str]) -> dict[str, str]:
    sql = "SELECT sha256, state FROM files WHERE sha256 IN (SELECT value FROM json_each(?))"
    return db.mapping(sql, (dumps(list(hashes)),))


def mark_done(db: Database, done: Iterable[tuple[str, int, str]], now: str) -> None:
    """(content, bytes, picture's key) of pictures that need no fetching; inside the caller's transaction."""
    db.executemany(
        "UPDATE downloads SET state = 'done', reason = '', kind = 'original', sha256 = ?, bytes = ?, updated_at = ?"
        " WHERE image_id = (SELECT id FROM images WHERE key = ?) AND state <> 'done'",
        [(sha256, size, now, key) for sha256, size, key in done],
    )
