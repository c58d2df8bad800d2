"""The `downloads` table as a record of what became of each picture, with `superseded` contents and `robots`.txt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from lib.db.connection import Database
from lib.db.files import FileRow, add_file
from lib.times import utc_in, utc_now

_RECORDED = (
    "state reason attempts next_try_at variant_id kind sha256 http_status final_url content_type etag last_modified"
    " bytes elapsed_ms log"
).split()
# Step 4 may have taken an address away since the row was claimed.
_VALUE = {"variant_id": "(SELECT id FROM image_variants WHERE id = ?)"}
_ASSIGNMENTS = ", ".join(f"{name} = {_VALUE.get(name, '?')}" for name in _RECORDED)
_RECORD = (
    f"UPDATE downloads SET {_ASSIGNMENTS}, wish = '', checked_at = ?, lease = '', lease_until = '', run_id = ?,"
    " updated_at = ? WHERE image_id = ?"
)
_LEAVE = (
    "UPDATE downloads SET attempts = ?, log = ?, wish = ?, next_try_at = ?, checked_at = ?, lease = '',"
    " lease_until = '' WHERE image_id = ?"
)
_SUPERSEDE = (
    "INSERT INTO superseded (image_id, sha256, by_sha256, run_id) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (image_id, sha256) DO UPDATE SET by_sha256 = excluded.by_sha256, run_id = excluded.run_id"
)
_values = attrgetter(*_RECORDED)

# Contents that no picture uses any more, of which an owner has opted out since they were downloaded.
OPTED_OUT = (
    "SELECT superseded.sha256 FROM superseded WHERE by_sha256 = ''"
    " AND NOT EXISTS (SELECT 1 FROM downloads WHERE downloads.sha256 = superseded.sha256)"
)

FRESH_SECONDS = 24 * 3600.0  # RFC 9309: a cached copy should not be used for more than a day


@dataclass(frozen=True)
class DownloadResult:
    """The result of one row, as it is written.

    A row that is `unchanged` was finished, is asked again and stays as it is; `recheck` is left where it has to wait.
    `file` is a content that was just written to disk; with `restores` it stands in for one that had gone.
    `supersedes` is the content that the row had before. `counted` is what a summary calls it, if not by its state, and
    `notes` are further things to be counted.
    """

    image_id: int
    state: str
    reason: str = ""
    attempts: int = 0
    next_try_at: str = ""
    variant_id: int | None = None
    kind: str = ""
    http_status: int | None = None
    final_url: str = ""
    content_type: str = ""
    etag: str = ""
    last_modified: str = ""
    bytes: int | None = None
    elapsed_ms: int | None = None
    log: str = "[]"
    sha256: str | None = None
    file: FileRow | None = None
    restores: bool = False
    supersedes: str = ""
    counted: str = ""
    notes: tuple[str, ...] = ()
    unchanged: bool = False
    recheck: str = ""


def enqueue(db: Database) -> int:
    """Gives every picture that has none a pending row; gives their number. Nothing is written when there is none."""
    missing = "FROM images WHERE NOT EXISTS (SELECT 1 FROM downloads WHERE image_id = images.id)"
    if db.value(f"SELECT 1 {missing} LIMIT 1") is None:
        return 0
    with db.transaction():
        return db.execute(
            f"INSERT INTO downloads (image_id, updated_at) SELECT images.id, ? {missing} ORDER BY images.id",
            (utc_now(),),
        ).rowcount


def record(db: Database, run_id: int, results: Iterable[DownloadResult]) -> tuple[int, list[str]]:
    """Writes a batch in one transaction.

    Gives the number of contents that are new or back, and the paths of files that another row had already brought.
    """
    added, surplus = 0, []
    now = utc_now()
    with db.transaction():
        for result in results:
            if result.unchanged:
                values = (result.attempts, result.log, result.recheck, result.next_try_at, now, result.image_id)
                db.execute(_LEAVE, values)
                continue
            if result.file is not None:
                other = _add_or_restore(db, result.file, result.restores)
                added += other is None
                surplus += [result.file.path] if other not in (None, result.file.path) else []
            checked = now if result.supersedes or result.counted else ""
            db.execute(_RECORD, (*_values(result), checked, run_id, now, result.image_id))
            if result.supersedes and result.supersedes != result.sha256:
                db.execute(_SUPERSEDE, (result.image_id, result.supersedes, result.sha256 or "", run_id or None))
    return added, surplus


def _add_or_restore(db: Database, row: FileRow, restores: bool) -> str | None:
    """Adds a content, or brings a missing one back; gives the path of one that is there already."""
    if add_file(db, row):
        return None
    path, state = known_file(db, row.sha256) or (row.path, "present")
    if not restores or state == "quarantined":
        return path
    db.execute("DELETE FROM superseded WHERE sha256 = ?", (row.sha256,))  # it is in use again
    db.execute("UPDATE files SET path = ?, state = 'present' WHERE sha256 = ?", (row.path, row.sha256))
    return None


def known_file(db: Database, sha256: str) -> tuple[str, str] | None:
    """(path, state) of a content.

    One that is in quarantine only because another replaced it counts as missing: it may come back.
    """
    row = db.row(
        "SELECT path, iif(state = 'quarantined' AND sha256 IN (SELECT sha256 FROM superseded), 'missing', state)"
        " FROM files WHERE sha256 = ?",
        (sha256,),
    )
    return None if row is None else (row[0], row[1])


def describe_picture(db: Database, key: str) -> dict[str, Any]:
    """Gives what the database knows of a picture, under the names that `metadata.jsonl` uses, for a sidecar."""
    row = db.row(
        "SELECT engine, page_url, title, license_id(license, license_url) AS license, license_url, creator, attribution"
        " FROM images WHERE key = ?",
        (key,),
    )
    return dict(row) if row else {}


def has_path(db: Database, path: str) -> bool:
    return db.value("SELECT 1 FROM files WHERE path = ? LIMIT 1", (path,)) is not None


def is_path_of_another(db: Database, path: str, sha256: str) -> bool:
    """Tells if a path belongs to another content, also where its file has gone."""
    return db.value("SELECT 1 FROM files WHERE path = ? AND sha256 <> ? LIMIT 1", (path, sha256)) is not None


def last_run_was_clean(db: Database, run_id: int) -> bool:
    """Tells if the latest download before this run came to its end in good order; taking a run back is none."""
    code = db.value(
        "SELECT coalesce(exit_code, 1) FROM runs WHERE step = 'download' AND id < ? AND arguments ->> 'undo' IS NULL"
        " ORDER BY id DESC LIMIT 1",
        (run_id,),
    )
    return not code


def read_log(text: str) -> list[dict[str, Any]]:
    """The addresses tried so far; an unreadable log counts as none."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def forget_undone(db: Database, run_id: int) -> None:
    """Keeps what `--undo` has brought back: the next run does not take it away again."""
    with db.transaction():
        db.execute(
            "DELETE FROM superseded WHERE sha256 IN (SELECT sha256 FROM actions WHERE run_id = ? AND state = 'undone')",
            (run_id,),
        )


def opted_out(db: Database, contents: Sequence[str]) -> set[str]:
    """Those of the contents whose owners have opted out since they were downloaded."""
    given = "(SELECT value FROM json_each(?))"
    return set(db.column(f"{OPTED_OUT} AND superseded.sha256 IN {given}", (json.dumps(contents),)))


def unused_contents(db: Database) -> list[tuple[str, str, int, bool]]:
    """(sha256, path, bytes, whether a better one replaced it) of superseded contents that lie where pictures lie.

    Where one picture has a better one and the owner of another has opted out, the opt-out counts.
    """
    rows = db.rows(
        "SELECT files.sha256, path, bytes, min(by_sha256) <> '' FROM superseded JOIN files USING (sha256)"
        # A content that is still some picture's own stays where it is.
        " WHERE state = 'present' AND NOT EXISTS (SELECT 1 FROM downloads WHERE downloads.sha256 = files.sha256)"
        " GROUP BY files.sha256 ORDER BY path"
    )
    return [(row[0], row[1], int(row[2]), bool(row[3])) for row in rows]


def known_robots(db: Database, origin: str) -> str | None:
    """The text of a copy that is fresh enough; None where there is none."""
    row = db.row("SELECT body FROM robots WHERE origin = ? AND fetched_at > ?", (origin, utc_in(-FRESH_SECONDS)))
    return None if row is None else str(row["body"])


def remember_robots(db: Database, origin: str, status: int, body: str) -> None:
    with db.transaction():
        db.execute(
            "INSERT INTO robots (origin, status, body, fetched_at) VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE"
            " SET status = excluded.status, body = excluded.body, fetched_at = excluded.fetched_at",
            (origin, status, body, utc_now()),
        )
