"""The `downloads` table as work: which rows are due or asked again, who works on them, and for how long."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lib.db.connection import Database
from lib.db.duplicates import REMOVED, removed_images
from lib.progress import chunked
from lib.times import utc_now

CHECKPOINT_LOG = 32 * 2**20  # bytes
BLOCK = 500  # rows that are looked up at a time
PENDING, REFRESH, UPGRADE = "", "refresh", "upgrade"  # why a row is asked: it never was, or how it is rechecked

_PREVIEWED = (
    " FROM (SELECT images.id AS image_id, coalesce(state, 'pending') AS state, reason,"
    " coalesce(attempts, 0) AS attempts, coalesce(log, '[]') AS log, coalesce(next_try_at, '') AS next_try_at,"
    " kind, sha256 FROM images LEFT JOIN downloads ON image_id = images.id) AS downloads"
)

_AMONG = "IN (SELECT value FROM json_each(?))"

_RETRYABLE = "state IN ('failed', 'blocked')"  # an opt-out is an answer, not a failure
ROBOTS_TXT = "robots_txt"

KINDS = ("original", "preview", "dup", "thumb")  # best first, in the order in which they are asked
_RANK = "CASE {} " + " ".join(f"WHEN '{kind}' THEN {rank}" for rank, kind in enumerate(KINDS)) + " ELSE 9 END"
_KEPT = "EXISTS (SELECT 1 FROM files WHERE files.sha256 = downloads.sha256 AND files.state = 'present')"
_UNTRIED = (
    "v.id NOT IN (SELECT json_extract(value, '$.variant') FROM json_each(downloads.log)"
    " WHERE json_extract(value, '$.variant') IS NOT NULL)"
)


@dataclass(frozen=True)
class Current:
    """The content of a finished row that is asked again; `pixels` is 0 where the size is unknown."""

    sha256: str
    variant_id: int | None
    etag: str
    last_modified: str
    pixels: int


class StoredVariant(NamedTuple):
    """One address as the database knows it. Sizes are claims; `expires_at` is UTC text or empty."""

    id: int
    kind: str
    url: str
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    referer: str = ""
    expires_at: str = ""


@dataclass(frozen=True)
class PendingRow:
    """One picture to fetch, with its addresses."""

    image_id: int
    key: str  # <engine>:<the engine's id>
    page_url: str
    attempts: int
    log: str
    next_try_at: str
    variants: tuple[StoredVariant, ...]
    recheck: str = PENDING
    current: Current | None = None
    removed_before: str = ""  # a content that one of its addresses brought and step 6 took away


class Where(NamedTuple):
    """A condition over `downloads` and the values to bind."""

    text: str
    values: tuple[Any, ...] = ()

    def __and__(self, other: Where) -> Where:
        return Where(f"{self.text} AND {other.text}", self.values + other.values)

    def __or__(self, other: Where) -> Where:
        return Where(f"({self.text} OR {other.text})", self.values + other.values)


_FAILED = Where("state = 'failed'")


@dataclass(frozen=True)
class Scope:
    """The rows of a run: pictures with an address of one of the kinds (none named: all), and of its shard."""

    kinds: tuple[str, ...] = ()
    shard: int = 0
    shards: int = 1

    def where(self) -> Where:
        found = Where("1")
        if self.kinds:
            found &= _with_address(self.kinds)
        if self.shards > 1:
            of_key = "shard_of((SELECT key FROM images WHERE images.id = downloads.image_id), ?) = ?"
            found &= Where(of_key, (self.shards, self.shard))
        return found


EVERYTHING = Scope()


def shard_of(key: str, shards: int) -> int:
    """The part of a divided run that a picture belongs to, the same on every machine: numbers differ between them."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % shards


def prepare(db: Database) -> None:
    """Makes a connection fit for downloading: `shard_of` is known to SQL, and checkpoints are rare.

    A checkpoint waits for the disk, and ext4 then writes out every picture that was just kept as well.
    """
    db.connection.create_function("shard_of", 2, shard_of, deterministic=True)
    pages = CHECKPOINT_LOG // int(db.value("PRAGMA page_size"))
    db.execute(f"PRAGMA wal_autocheckpoint={pages}")  # the last to leave takes the rest in


def claim(
    db: Database,
    lease: str,
    until: str,
    after: tuple[str, int],
    count: int,
    recheck: str = PENDING,
    scope: Scope = EVERYTHING,
) -> list[PendingRow]:
    """Takes up to `count` rows that are due and free, beyond the place `after` = (next_try_at, image_id).

    The claim is one transaction, so that two processes never work on one row.
    """
    now = utc_now()
    free = Where(
        "next_try_at <= ? AND (next_try_at, image_id) > (?, ?) AND (lease = '' OR lease_until < ?)", (now, *after, now)
    )
    where = _asked(recheck) & free & scope.where()
    with db.transaction():
        rows = db.rows(
            f"SELECT image_id, attempts, log, next_try_at FROM downloads WHERE {where.text}"
            " ORDER BY next_try_at, image_id LIMIT ?",
            (*where.values, count),
        )
        db.executemany(
            "UPDATE downloads SET lease = ?, lease_until = ? WHERE image_id = ?",
            [(lease, until, row["image_id"]) for row in rows],
        )
    return list(_with_variants(db, rows, recheck))


def count_preview(db: Database, where: Where) -> int:
    """The number of rows that match `where`, pictures that have no row yet among them."""
    return int(db.value(f"SELECT count(*){_PREVIEWED} WHERE {where.text}", where.values))


def preview(db: Database, where: Where, count: int, recheck: str = PENDING) -> Iterator[PendingRow]:
    """The rows that a run would begin with: those that match `where`, and of pictures that have no row yet."""
    select = f"SELECT image_id, attempts, log, next_try_at{_PREVIEWED} WHERE {where.text} ORDER BY image_id LIMIT ?"
    yield from _with_variants(db, db.rows(select, (*where.values, count)), recheck)


def _with_variants(db: Database, rows: Sequence[Any], recheck: str) -> Iterator[PendingRow]:
    """Adds the page and the addresses to rows of `downloads`, a block at a time."""
    for block in chunked(rows, BLOCK):
        ids = [row["image_id"] for row in block]
        among = (json.dumps(ids),)
        pages = f"SELECT id, key, page_url FROM images WHERE id {_AMONG}"
        named = {row[0]: row[1:] for row in db.execute(pages, among)}
        variants: dict[int, list[StoredVariant]] = {}
        for image_id, *rest in db.execute(
            "SELECT image_id, id, kind, url, width, height, bytes, referer, expires_at FROM image_variants"
            f" WHERE image_id {_AMONG}",
            among,
        ):
            variants.setdefault(image_id, []).append(StoredVariant(*rest))
        held = _current(db, ids) if recheck else {}
        removed_before = removed_images(db, ids)
        for image_id, attempts, log, next_try_at in block:
            key, page_url = named.get(image_id, (str(image_id), ""))
            found = tuple(variants.get(image_id, ()))
            yield PendingRow(
                image_id, key, page_url, attempts, log, next_try_at, found, recheck, held.get(image_id),
                removed_before.get(image_id, ""),
            )  # fmt: skip


def _current(db: Database, ids: Sequence[int]) -> dict[int, Current]:
    rows = db.rows(
        "SELECT image_id, downloads.sha256, variant_id, etag, last_modified, coalesce(width * height, 0)"
        " FROM downloads JOIN files ON files.sha256 = downloads.sha256"
        f" WHERE image_id {_AMONG}",
        (json.dumps(ids),),
    )
    return {image_id: Current(*rest) for image_id, *rest in rows}


def renew(db: Database, lease: str, until: str) -> None:
    with db.transaction():
        db.execute("UPDATE downloads SET lease_until = ? WHERE lease = ?", (until, lease))


def leases(db: Database) -> list[str]:
    """Everybody who holds rows."""
    return db.column("SELECT DISTINCT lease FROM downloads WHERE lease <> ''")


def unfinished_keys(db: Database) -> Iterator[str]:
    """The keys of pictures that are to be fetched, now or later, and of those that somebody is at work on."""
    rows = db.execute(
        "SELECT key FROM downloads JOIN images ON images.id = image_id"
        " WHERE state = 'pending' OR wish <> '' OR lease <> ''"
    )
    yield from (row[0] for row in rows)


def release(db: Database, lease: str) -> None:
    """Gives the rows of a lease back; writes nothing where there are none."""
    if _has(db, Where("lease = ?", (lease,))):
        with db.transaction():
            db.execute("UPDATE downloads SET lease = '', lease_until = '' WHERE lease = ?", (lease,))


def count_pending(db: Database, scope: Scope = EVERYTHING, recheck: str = PENDING) -> tuple[int, int]:
    """(due now, waiting for a later time) of the rows that are pending, or that are to be rechecked."""
    where = _asked(recheck) & scope.where()
    count, values = f"SELECT count(*) FROM downloads WHERE {where.text} AND next_try_at", (*where.values, utc_now())
    return int(db.value(f"{count} <= ?", values)), int(db.value(f"{count} > ?", values))


def _asked(recheck: str) -> Where:
    """The rows that are asked for one reason, now or later."""
    return Where("state = 'pending'") if recheck == PENDING else Where("wish <> '' AND wish = ?", (recheck,))


def next_due(db: Database) -> str:
    """The time at which the next waiting row is due, as UTC text; empty when none waits."""
    return str(db.value("SELECT min(next_try_at) FROM downloads WHERE state = 'pending' AND next_try_at <> ''") or "")


@dataclass(frozen=True)
class Recheck:
    """The rows that a run asks besides pending ones.

    `retry` are the reasons of failed rows (empty: all; None: no failed row). `upgrade` asks for every better address,
    also those that failed; `untried` only for those that were never asked. `kept` leaves out what is in quarantine,
    and pending rows too.
    """

    retry: tuple[str, ...] | None = None
    refresh: bool = False
    upgrade: bool = False
    untried: bool = False
    kept: bool = False
    lifted: tuple[str, ...] = ()

    @property
    def rechecks(self) -> tuple[str, ...]:
        upgrade = self.upgrade or self.untried
        return tuple(recheck for recheck, wanted in ((REFRESH, self.refresh), (UPGRADE, upgrade)) if wanted)


def due_where(again: Recheck, recheck: str, scope: Scope) -> Where:
    """The rows that a run would ask, after `make_due`."""
    if recheck != PENDING:
        return _recheck_where(again, recheck, scope.kinds) & scope.where()
    where = Where("state = 'pending' AND next_try_at <= ?", (utc_now(),))
    if again.retry is not None:
        where |= _failed_where(again.retry)
    if again.lifted:
        where |= _refused_where(again.lifted)
    if again.untried:
        where |= _FAILED & _with_address(scope.kinds, _UNTRIED)
    return where & scope.where()


def make_due(db: Database, again: Recheck, scope: Scope) -> None:
    """Makes failed rows pending and marks finished ones, as far as a run asks them besides pending ones."""
    reopened = "UPDATE downloads SET state = 'pending', reason = '', next_try_at = ''"
    for where in () if again.kept else _reopened(again):
        where &= scope.where()
        if _has(db, where):
            with db.transaction():
                db.execute(f"{reopened}, log = '[]', updated_at = ? WHERE {where.text}", (utc_now(), *where.values))
    if again.untried and not again.kept:
        where = _FAILED & _with_address(scope.kinds, _UNTRIED) & scope.where()
        with db.transaction():
            db.execute(f"{reopened} WHERE {where.text}", where.values)
    for recheck in again.rechecks:
        # What an interrupted run has left is finished first.
        if again.untried or not _has(db, _asked(recheck) & scope.where()):
            where = _recheck_where(again, recheck, scope.kinds) & scope.where()
            if _has(db, where):
                with db.transaction():
                    db.execute(f"UPDATE downloads SET wish = ? WHERE {where.text}", (recheck, *where.values))


def _reopened(again: Recheck) -> Iterator[Where]:
    """The rows that begin anew, with an empty log."""
    if again.retry is not None:
        yield _failed_where(again.retry)
    if again.lifted:
        yield _refused_where(again.lifted)


def _has(db: Database, where: Where) -> bool:
    return db.value(f"SELECT 1 FROM downloads WHERE {where.text} LIMIT 1", where.values) is not None


def _failed_where(reasons: Sequence[str]) -> Where:
    """Failed and blocked rows, all or with one of the reasons.

    What robots.txt forbade counts only where it is named: the file may have changed, an owner's own word does not.
    """
    if not reasons:
        return Where(_RETRYABLE)
    forbidden = f" OR (state = 'opted_out' AND reason = '{ROBOTS_TXT}')" if ROBOTS_TXT in reasons else ""
    return Where(f"(({_RETRYABLE} AND reason {_AMONG}){forbidden})", (json.dumps(reasons),))


def _refused_where(reasons: Sequence[str]) -> Where:
    """Rows without a picture of which an address met one of these refusals; an owner's own word stays."""
    refused = f"EXISTS (SELECT 1 FROM json_each(downloads.log) WHERE value ->> 'reason' {_AMONG})"
    without = f"({_RETRYABLE} OR (state = 'opted_out' AND reason <> 'opted_out')) AND reason <> '{REMOVED}'"
    return Where(f"({without} AND {refused})", (json.dumps(reasons),))


def _recheck_where(again: Recheck, recheck: str, kinds: Sequence[str]) -> Where:
    """Finished rows that are to be rechecked."""
    where = Where("state = 'done'")
    if again.kept:
        where &= Where(_KEPT)
    if recheck == UPGRADE:
        better = f"{_RANK.format('v.kind')} < {_RANK.format('downloads.kind')}"
        where &= _with_address(kinds, better if again.upgrade else f"{better} AND {_UNTRIED}")
    return where


def _with_address(kinds: Sequence[str], condition: str = "1") -> Where:
    """Rows with an address `v` that fulfils a condition, of one of the kinds (none named: all)."""
    addresses = f"SELECT 1 FROM image_variants v WHERE v.image_id = downloads.image_id AND {condition}"
    if not kinds:
        return Where(f"EXISTS ({addresses})")
    return Where(f"EXISTS ({addresses} AND v.kind {_AMONG})", (json.dumps(kinds),))


def failed_reasons(db: Database) -> list[str]:
    return db.column(f"SELECT DISTINCT reason FROM downloads WHERE {_RETRYABLE} ORDER BY 1")
