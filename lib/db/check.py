"""What `--check` compares the disk with, and how its rows are repaired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json import dumps

from lib.db.connection import Database
from lib.times import utc_now

BLOCK = 2_000


@dataclass(frozen=True)
class FileClaim:
    """What the database says of a file: which content of how many bytes lies where, or has gone missing."""

    sha256: str
    path: str
    bytes: int
    state: str


@dataclass(frozen=True)
class AnswerClaim:
    """Where a raw answer should lie, and its content (empty where that was not recorded)."""

    id: int
    path: str
    sha256: str


def iter_files(db: Database) -> Iterator[FileClaim]:
    """Every content, in the order of the hashes, in blocks, so that rows may change while reading."""
    last = ""
    while rows := db.rows(
        "SELECT sha256, path, bytes, state FROM files WHERE sha256 > ? ORDER BY sha256 LIMIT ?", (last, BLOCK)
    ):
        yield from (FileClaim(*row) for row in rows)
        last = rows[-1]["sha256"]


def iter_answers(db: Database) -> Iterator[AnswerClaim]:
    """Every raw answer that has a file."""
    last = 0
    while rows := db.rows(
        "SELECT id, path, sha256 FROM responses WHERE id > ? AND path <> '' ORDER BY id LIMIT ?", (last, BLOCK)
    ):
        yield from (AnswerClaim(*row) for row in rows)
        last = rows[-1]["id"]


def known_paths(db: Database, paths: Sequence[str]) -> set[str]:
    """Those of the paths at which a content lies by its row."""
    rows = db.execute(
        "SELECT path FROM files WHERE state <> 'missing' AND path IN (SELECT value FROM json_each(?))",
        (dumps(list(paths)),),
    )
    return {row[0] for row in rows}


def without_file(db: Database) -> list[tuple[int, str]]:
    """(number, key) of pictures that count as downloaded although their content is missing or has no row."""
    rows = db.execute(
        "SELECT image_id, ifnull(key, image_id) FROM downloads LEFT JOIN images ON images.id = image_id"
        " LEFT JOIN files ON files.sha256 = downloads.sha256"
        " WHERE downloads.state = 'done' AND (files.sha256 IS NULL OR files.state = 'missing')"
    )
    return [(row[0], str(row[1])) for row in rows]


def without_download(db: Database) -> list[tuple[int, str]]:
    """(number, key) of pictures that lack the row by which they would be fetched."""
    lacking = "NOT EXISTS (SELECT 1 FROM downloads WHERE image_id = images.id)"
    return [(row[0], row[1]) for row in db.execute(f"SELECT id, key FROM images WHERE {lacking}")]


def broken_references(db: Database) -> list[str]:
    """Rows whose parent is not there, as `table → parent`; step 4 takes them out."""
    return [f"{row[0]} → {row[2]}" for row in db.execute("PRAGMA foreign_key_check")]


def damage(db: Database) -> list[str]:
    """What SQLite finds wrong with the database itself; empty when it is sound."""
    found = [row[0] for row in db.execute("PRAGMA integrity_check(10)")]
    return [] if found == ["ok"] else found


def set_file_state(db: Database, hashes: Iterable[str], state: str) -> None:
    db.executemany("UPDATE files SET state = ? WHERE sha256 = ?", [(state, sha256) for sha256 in hashes])


def ask_again(db: Database, image_ids: Iterable[int]) -> None:
    """Makes pictures pending again whose file is gone, so that step 5 fetches it anew."""
    now = utc_now()
    db.executemany(
        "UPDATE downloads SET state = 'pending', reason = '', attempts = 0, next_try_at = '', sha256 = NULL,"
        " variant_id = NULL, kind = '', etag = '', last_modified = '', log = '[]', updated_at = ? WHERE image_id = ?",
        [(now, image_id) for image_id in image_ids],
    )


def add_downloads(db: Database, image_ids: Iterable[int]) -> None:
    now = utc_now()
    db.executemany(
        "INSERT INTO downloads (image_id, updated_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(image_id, now) for image_id in image_ids],
    )


def fail_answers(db: Database, found: Iterable[tuple[int, str]]) -> None:
    """Notes with answers, by number, why their file cannot be read any more. Their pictures stay."""
    db.executemany(
        "UPDATE responses SET ingest_reason = ? WHERE id = ?", [(reason, number) for number, reason in found]
    )
