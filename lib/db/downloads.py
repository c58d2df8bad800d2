"""The `downloads` table: what is to be fetched, who works on it, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lib.db.connection import Database
from lib.db.files import FileRow, add_file
from lib.times import utc_now

BLOCK = 500  # rows of one statement: below SQLite's oldest limit of 999 parameters
RETRYABLE = ("failed", "blocked")  # an opt-out is an answer, not a failure


@dataclass(frozen=True)
class PendingRow:
    """One picture to fetch, with its addresses as (id, kind, url, width, height, bytes, referer, expires_at)."""

    image_id: str
    page_url: str
    attempts: int
    log: str
    next_try_at: str
    position: int  # the row's place in the table
    variants: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one row, as it is written.

    `file` is a content that was just written to disk; with `restores` it stands in for one that had gone.
    """

    image_id: str
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


def enqueue(db: Database) -> int:
    """Gives every picture that has none a pending row; gives their number. Nothing is written when there is none."""
    missing = "FROM images WHERE NOT EXISTS (SELECT 1 FROM downloads WHERE image_id = images.id)"
    if db.value(f"SELECT 1 {missing} LIMIT 1") is None:
        return 0
    with db.transaction():
        return db.execute(
            f"INSERT INTO downloads (image_id, updated_at) SELECT images.id, ? {missing} ORDER BY images.rowid",
            (utc_now(),),
        ).rowcount


def reset_failed(db: Database, reasons: Sequence[str]) -> int:
    """Makes failed and blocked rows pending again, all or those with one of the reasons."""
    where, values = _failed_where(reasons)
    with db.transaction():
        return db.execute(
            "UPDATE downloads SET state = 'pending', reason = '', next_try_at = '', log = '[]', updated_at = ?"
            f" WHERE {where}",
            (utc_now(), *values),
        ).rowcount


def count_failed(db: Database, reasons: Sequence[str]) -> int:
    """How many rows `reset_failed` would make pending."""
    where, values = _failed_where(reasons)
    return int(db.value(f"SELECT count(*) FROM downloads WHERE {where}", values))


def failed_reasons(db: Database) -> list[str]:
    """The reasons that failed and blocked rows have."""
    rows = db.rows(f"SELECT DISTINCT reason FROM downloads WHERE state IN ({_marks(RETRYABLE)}) ORDER BY 1", RETRYABLE)
    return [row["reason"] for row in rows]


def _failed_where(reasons: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    where = f"state IN ({_marks(RETRYABLE)})"
    return (f"{where} AND reason IN ({_marks(reasons)})", (*RETRYABLE, *reasons)) if reasons else (where, RETRYABLE)


def claim(db: Database, lease: str, until: str, after: tuple[str, int], count: int) -> list[PendingRow]:
    """Takes up to `count` rows that are due and free, beyond the place `after` = (next_try_at, position).

    The claim is one transaction, so that two processes never work on one row.
    """
    now = utc_now()
    with db.transaction():
        rows = db.rows(
            "SELECT image_id, downloads.rowid AS position, attempts, log, next_try_at FROM downloads"
            " WHERE state = 'pending' AND next_try_at <= ? AND (next_try_at, downloads.rowid) > (?, ?)"
            " AND (lease = '' OR lease_until < ?) ORDER BY next_try_at, downloads.rowid LIMIT ?",
            (now, *after, now, count),
        )
        db.executemany(
            "UPDATE downloads SET lease = ?, lease_until = ? WHERE rowid = ?",
            [(lease, until, row["position"]) for row in rows],
        )
    return list(_with_variants(db, rows))


def preview(db: Database, reasons: Sequence[str] | None, count: int) -> Iterator[PendingRow]:
    """The rows that a run would begin with: due, failed ones that would be reset (unless None), and new pictures."""
    where, values = ("0", ()) if reasons is None else _failed_where(reasons)
    rows = db.rows(
        "SELECT images.id AS image_id, 0 AS position, coalesce(attempts, 0) AS attempts, '[]' AS log,"
        " coalesce(next_try_at, '') AS next_try_at FROM images LEFT JOIN downloads ON image_id = images.id"
        f" WHERE state IS NULL OR (state = 'pending' AND next_try_at <= ?) OR ({where})"
        " ORDER BY images.rowid LIMIT ?",
        (utc_now(), *values, count),
    )
    for start in range(0, len(rows), BLOCK):
        yield from _with_variants(db, rows[start : start + BLOCK])


def _with_variants(db: Database, rows: Sequence[Any]) -> Iterator[PendingRow]:
    """Adds the page and the addresses to rows of `downloads`, a block at a time."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        ids = [row["image_id"] for row in block]
        pages = dict(map(tuple, db.rows(f"SELECT id, page_url FROM images WHERE id IN ({_marks(ids)})", ids)))
        variants: dict[str, list[tuple[Any, ...]]] = {}
        for image_id, *rest in db.rows(
            "SELECT image_id, id, kind, url, width, height, bytes, referer, expires_at FROM image_variants"
            f" WHERE image_id IN ({_marks(ids)})",
            ids,
        ):
            variants.setdefault(image_id, []).append(tuple(rest))
        for row in block:
            found = tuple(variants.get(row["image_id"], ()))
            yield PendingRow(page_url=pages.get(row["image_id"], ""), variants=found, **dict(row))


def renew(db: Database, lease: str, until: str) -> None:
    """Keeps the rows of a lease for longer."""
    with db.transaction():
        db.execute("UPDATE downloads SET lease_until = ? WHERE lease = ?", (until, lease))


def leases(db: Database) -> list[str]:
    """Everybody who holds rows."""
    return [row["lease"] for row in db.rows("SELECT DISTINCT lease FROM downloads WHERE lease <> ''")]


def release(db: Database, lease: str) -> int:
    """Gives the rows of a lease back; writes nothing where there are none."""
    if db.value("SELECT 1 FROM downloads WHERE lease = ? LIMIT 1", (lease,)) is None:
        return 0
    with db.transaction():
        return db.execute("UPDATE downloads SET lease = '', lease_until = '' WHERE lease = ?", (lease,)).rowcount


def record(db: Database, run_id: int, outcomes: Iterable[Outcome]) -> tuple[int, list[str]]:
    """Writes a batch in one transaction.

    Gives the number of contents that are new or back, and the paths of files that another row had already brought.
    """
    added, surplus = 0, []
    now = utc_now()
    with db.transaction():
        for outcome in outcomes:
            if outcome.file is not None:
                kept = _keep(db, outcome.file, outcome.restores)
                added += kept is Keeping.ADDED
                surplus += [outcome.file.path] if kept is Keeping.SURPLUS else []
            db.execute(_RECORD, (*_values(outcome), run_id, now, outcome.image_id))
    return added, surplus


_RECORDED = (
    "state reason attempts next_try_at variant_id kind sha256 http_status final_url content_type etag last_modified"
    " bytes elapsed_ms log"
).split()
# Step 4 may have taken an address away since the row was claimed.
_VALUE = {"variant_id": "(SELECT id FROM image_variants WHERE id = ?)"}
_ASSIGNMENTS = ", ".join(f"{name} = {_VALUE.get(name, '?')}" for name in _RECORDED)
_RECORD = (
    f"UPDATE downloads SET {_ASSIGNMENTS}, lease = '', lease_until = '', run_id = ?, updated_at = ? WHERE image_id = ?"
)


def _values(outcome: Outcome) -> tuple[Any, ...]:
    return tuple(getattr(outcome, name) for name in _RECORDED)


class Keeping(Enum):
    """What the table of files made of a file that was written."""

    ADDED = "added"
    KNOWN = "known"
    SURPLUS = "surplus"  # its content lies elsewhere already


def _keep(db: Database, row: FileRow, restores: bool) -> Keeping:
    """Adds a content, or brings a missing one back."""
    if add_file(db, row):
        return Keeping.ADDED
    path, state = known_file(db, row.sha256) or (row.path, "present")
    if restores and state != "quarantined":
        db.execute("UPDATE files SET path = ?, state = 'present' WHERE sha256 = ?", (row.path, row.sha256))
        return Keeping.ADDED
    return Keeping.KNOWN if path == row.path else Keeping.SURPLUS


def known_file(db: Database, sha256: str) -> tuple[str, str] | None:
    """(path, state) of a content."""
    row = db.row("SELECT path, state FROM files WHERE sha256 = ?", (sha256,))
    return None if row is None else (row["path"], row["state"])


def has_path(db: Database, path: str) -> bool:
    """Whether the database knows a file by this path."""
    return db.value("SELECT 1 FROM files WHERE path = ? LIMIT 1", (path,)) is not None


def last_run_was_clean(db: Database, run_id: int) -> bool:
    """Whether the latest download before this run came to its end in good order."""
    code = db.row("SELECT exit_code FROM runs WHERE step = 'download' AND id < ? ORDER BY id DESC LIMIT 1", (run_id,))
    return code is None or code["exit_code"] == 0


def count_pending(db: Database) -> tuple[int, int]:
    """(due now, waiting for a later time) of the pending rows."""
    due = "SELECT count(*) FROM downloads WHERE state = 'pending' AND next_try_at"
    now = utc_now()
    return int(db.value(f"{due} <= ?", (now,))), int(db.value(f"{due} > ?", (now,)))


def count_new(db: Database) -> int:
    """Pictures that have no row yet."""
    return int(
        db.value("SELECT count(*) FROM images WHERE NOT EXISTS (SELECT 1 FROM downloads WHERE image_id = images.id)")
    )


def next_due(db: Database) -> str:
    """When the next waiting row is due, as UTC text; empty when none waits."""
    return str(db.value("SELECT min(next_try_at) FROM downloads WHERE state = 'pending' AND next_try_at <> ''") or "")


def totals(db: Database) -> dict[str, int]:
    """Rows by state, over the whole table."""
    rows = db.rows("SELECT state, count(*) AS n FROM downloads GROUP BY state ORDER BY state")
    return {row["state"]: int(row["n"]) for row in rows}


def read_log(text: str) -> list[dict[str, Any]]:
    """The addresses tried so far; an unreadable log counts as none."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
