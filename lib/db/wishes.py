"""Which rows of `downloads` are asked again: failed ones, finished ones, and those that may have something better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib.db.claims import REFRESH, UPGRADE, Scope
from lib.db.connection import Database
from lib.times import utc_now

RETRYABLE = ("failed", "blocked")  # an opt-out is an answer, not a failure
ROBOTS_TXT = "robots_txt"
PENDING_NOW = "state = 'pending' AND next_try_at <= ?"

_KINDS = ("original", "preview", "dup", "thumb")  # best first, as the ladder has them
_RANK = "CASE {} " + " ".join(f"WHEN '{kind}' THEN {rank}" for rank, kind in enumerate(_KINDS)) + " ELSE 9 END"
_KEPT = "EXISTS (SELECT 1 FROM files WHERE files.sha256 = downloads.sha256 AND files.state = 'present')"
_UNTRIED = (
    " AND v.id NOT IN (SELECT json_extract(value, '$.variant') FROM json_each(downloads.log)"
    " WHERE json_extract(value, '$.variant') IS NOT NULL)"
)


@dataclass(frozen=True)
class Again:
    """What else a run asks, besides pending rows.

    `retry` are the reasons of failed rows (empty: all; None: no failed row). `upgrade` asks for every better address,
    also those that failed; `untried` only for those that were never asked. `kept` leaves out what is in quarantine,
    and pending rows too.
    """

    retry: tuple[str, ...] | None = None
    refresh: bool = False
    upgrade: bool = False
    untried: bool = False
    kept: bool = False

    @property
    def wishes(self) -> tuple[str, ...]:
        upgrade = self.upgrade or self.untried
        return tuple(wish for wish, wanted in ((REFRESH, self.refresh), (UPGRADE, upgrade)) if wanted)


def reset_failed(db: Database, reasons: Sequence[str], scope: Scope) -> int:
    """Makes failed and blocked rows pending again, all or those with one of the reasons."""
    where, values = failed_where(reasons)
    also, more = scope.where()
    with db.transaction():
        return db.execute(
            "UPDATE downloads SET state = 'pending', reason = '', next_try_at = '', log = '[]', updated_at = ?"
            f" WHERE {where}{also}",
            (utc_now(), *values, *more),
        ).rowcount


def reopen_untried(db: Database, scope: Scope) -> int:
    """Makes failed rows pending that have an address of the scope's kinds which was never asked."""
    where, values = untried_failed_where(scope.kinds)
    also, more = scope.where()
    with db.transaction():
        return db.execute(
            f"UPDATE downloads SET state = 'pending', reason = '', next_try_at = '' WHERE {where}{also}",
            (*values, *more),
        ).rowcount


def wish(db: Database, again: Again, what: str, scope: Scope) -> None:
    """Marks the finished rows that are to be asked again; what an interrupted run has left is finished first."""
    also, more = scope.where()
    left = db.value(f"SELECT 1 FROM downloads WHERE wish <> '' AND wish = ?{also} LIMIT 1", (what, *more))
    if left is not None and not again.untried:
        return
    where, values = wish_where(again, what, scope.kinds)
    if db.value(f"SELECT 1 FROM downloads WHERE {where}{also} LIMIT 1", (*values, *more)) is None:
        return
    with db.transaction():
        db.execute(f"UPDATE downloads SET wish = ? WHERE {where}{also}", (what, *values, *more))


def failed_where(reasons: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """The condition of failed and blocked rows, all or with one of the reasons.

    What robots.txt forbade counts only where it is named: the file may have changed, an owner's own word does not.
    """
    where = f"state IN ({_marks(RETRYABLE)})"
    if not reasons:
        return where, RETRYABLE
    forbidden = f" OR (state = 'opted_out' AND reason = '{ROBOTS_TXT}')" if ROBOTS_TXT in reasons else ""
    return f"(({where} AND reason IN ({_marks(reasons)})){forbidden})", (*RETRYABLE, *reasons)


def untried_failed_where(kinds: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """The condition of failed rows that have an address which was never asked."""
    of_kind = f" AND v.kind IN ({_marks(kinds)})" if kinds else ""
    where = (
        f"state = 'failed' AND EXISTS (SELECT 1 FROM image_variants v WHERE v.image_id = downloads.image_id"
        f"{of_kind}{_UNTRIED})"
    )
    return where, tuple(kinds)


def wish_where(again: Again, what: str, kinds: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """The condition of finished rows that something is wished of."""
    where = "state = 'done'"
    values: tuple[Any, ...] = ()
    if again.kept:
        where += f" AND {_KEPT}"
    if what == UPGRADE:
        of_kind = f" AND v.kind IN ({_marks(kinds)})" if kinds else ""
        better = f"{_RANK.format('v.kind')} < {_RANK.format('downloads.kind')}"
        where += (
            " AND EXISTS (SELECT 1 FROM image_variants v WHERE v.image_id = downloads.image_id"
            f" AND {better}{of_kind}{'' if again.upgrade else _UNTRIED})"
        )
        values += tuple(kinds)
    return where, values


def failed_reasons(db: Database) -> list[str]:
    """The reasons that failed and blocked rows have."""
    rows = db.rows(f"SELECT DISTINCT reason FROM downloads WHERE state IN ({_marks(RETRYABLE)}) ORDER BY 1", RETRYABLE)
    return [row["reason"] for row in rows]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
