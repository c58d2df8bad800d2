"""The table `responses`: raw answers that wait to be read, what became of them, and rows for files without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json import dumps

from lib.db.connection import Database
from lib.times import utc_now

BLOCK = 2_000
FINAL_OUTCOMES = ("end", "empty")  # answers that rightly hold nothing
READABLE_OUTCOMES = ("ok", "parse_error", "wrong_tab", *FINAL_OUTCOMES)
_READABLE = f"(ingest_state <> 'done' OR responses.outcome IN {READABLE_OUTCOMES!r})"
_QUERY_BY_KEY = "SELECT id FROM queries WHERE engine = ? AND kind = ? AND text = ? AND image_sha256 = ? AND params = ?"


@dataclass(frozen=True)
class ResponseRow:
    """One raw answer to read. `path` is as the database writes it; `id` is 0 for a file that has no row yet."""

    id: int
    query_id: int
    engine: str
    page: int
    part: str
    path: str
    sha256: str
    outcome: str = "ok"


@dataclass(frozen=True)
class ParseResult:
    """The outcome of parsing one answer: `state` is done or failed, with the reason of the latter."""

    id: int
    state: str
    reason: str
    items: int
    drift: str
    parser: str


@dataclass(frozen=True)
class NewResponse:
    """A raw answer that lies on disk and has no row."""

    page: int
    part: str
    path: str
    sha256: str
    bytes: int
    fetched_at: str


def count_pending(db: Database) -> int:
    return int(db.value("SELECT count(*) FROM responses WHERE ingest_state = 'pending'"))


def iter_pending(db: Database) -> Iterator[ResponseRow]:
    """Every pending answer in the order of arrival, in blocks, so that rows may change while reading."""
    return _iter_answers(db, "ingest_state = 'pending' AND ")


def iter_all(db: Database) -> Iterator[ResponseRow]:
    """Every answer in the order of arrival, read or not.

    A refusal or a captcha holds no pictures, whatever the parser; step 1 has settled those.
    """
    return _iter_answers(db, f"{_READABLE} AND ")


def count_all(db: Database) -> int:
    return int(db.value(f"SELECT count(*) FROM responses WHERE {_READABLE}"))


def outdated_queries(db: Database, parsers: Sequence[str]) -> list[int]:
    """The searches with an answer that a parser has read that is none of these, the ones of today."""
    sql = (
        "SELECT DISTINCT query_id FROM responses WHERE ingest_state = 'done' AND parser <> ''"
        " AND parser NOT IN (SELECT value FROM json_each(?))"
    )
    return db.column(sql, (dumps(list(parsers)),))


def iter_of_queries(db: Database, queries: Sequence[int]) -> Iterator[ResponseRow]:
    """Every readable answer of some searches in the order of arrival."""
    return _iter_answers(
        db, f"{_READABLE} AND query_id IN (SELECT value FROM json_each('{dumps(list(queries))}')) AND "
    )


def count_of_queries(db: Database, queries: Sequence[int]) -> int:
    among = "query_id IN (SELECT value FROM json_each(?))"
    return int(db.value(f"SELECT count(*) FROM responses WHERE {_READABLE} AND {among}", (dumps(list(queries)),)))


def _iter_answers(db: Database, condition: str) -> Iterator[ResponseRow]:
    last = 0
    while True:
        rows = db.rows(
            "SELECT responses.id, query_id, engine, page, part, path, sha256, responses.outcome FROM responses"
            f" JOIN queries ON queries.id = query_id WHERE {condition}responses.id > ? ORDER BY responses.id LIMIT ?",
            (last, BLOCK),
        )
        yield from (ResponseRow(*row) for row in rows)
        if len(rows) < BLOCK:
            return
        last = int(rows[-1]["id"])


def answers_there(db: Database, ids: Sequence[int]) -> set[int]:
    """Those of the answers that still have a row."""
    rows = db.execute("SELECT id FROM responses WHERE id IN (SELECT value FROM json_each(?))", (dumps(list(ids)),))
    return {row[0] for row in rows}


def save_results(db: Database, results: Iterable[ParseResult]) -> None:
    """Marks answers as read, inside the transaction that writes their pictures."""
    db.executemany(
        "UPDATE responses SET ingest_state = ?, ingest_reason = ?, items = ?, drift = ?, parser = ? WHERE id = ?",
        [(r.state, r.reason, r.items, r.drift, r.parser, r.id) for r in results],
    )


def retry_failed(db: Database) -> int:
    """Makes the answers that could not be read pending again; gives their number."""
    with db.transaction():
        return db.execute(
            "UPDATE responses SET ingest_state = 'pending', ingest_reason = '' WHERE ingest_state = 'failed'"
        ).rowcount


def count_failed(db: Database) -> int:
    return int(db.value("SELECT count(*) FROM responses WHERE ingest_state = 'failed'"))


def iter_failed(db: Database) -> Iterator[ResponseRow]:
    """Every answer that could not be read, for the preview of a retry."""
    return _iter_answers(db, "ingest_state = 'failed' AND ")


def known_paths(db: Database, folder: str) -> set[str]:
    """The paths below a folder that have a row."""
    rows = db.execute("SELECT path FROM responses WHERE path >= ? AND path < ?", (f"{folder}/", f"{folder}0"))
    return {row[0] for row in rows}


def query_of_folder(db: Database, folder: str) -> int | None:
    """The query whose answers lie in a folder."""
    found = db.value(
        "SELECT query_id FROM responses WHERE path >= ? AND path < ? ORDER BY id LIMIT 1",
        (f"{folder}/", f"{folder}0"),
    )
    return None if found is None else int(found)


def ensure_query(
    db: Database, engine: str, kind: str, text: str, *, image_sha256: str = "", params: str = "{}", run_id: int
) -> int:
    """The number of a query, which is made as a finished one where it is missing."""
    now, key = utc_now(), (engine, kind, text, image_sha256, params)
    db.execute(
        "INSERT INTO queries (engine, kind, text, image_sha256, params, state, outcome, run_id, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, 'done', 'ok', ?, ?, ?) ON CONFLICT DO NOTHING",
        (*key, run_id, now, now),
    )
    return int(db.value(_QUERY_BY_KEY, key))


def find_query_id(
    db: Database, engine: str, kind: str, text: str, *, image_sha256: str = "", params: str = "{}"
) -> int | None:
    """The number of a query; None where there is none."""
    found = db.value(_QUERY_BY_KEY, (engine, kind, text, image_sha256, params))
    return None if found is None else int(found)


def answers_of(db: Database, query_id: int) -> tuple[set[tuple[int, str]], set[str]]:
    """((page, part) pairs, contents) that a query's answers take."""
    rows = db.rows("SELECT page, part, sha256 FROM responses WHERE query_id = ?", (query_id,))
    return {(row["page"], row["part"]) for row in rows}, {row["sha256"] for row in rows}


def add_answers(db: Database, query_id: int, answers: Iterable[NewResponse], run_id: int) -> int:
    """Gives rows to answers; one whose place is taken stays out. Gives the number of new rows."""
    cursor = db.executemany(
        "INSERT INTO responses (query_id, page, part, path, sha256, bytes, fetched_at, run_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(query_id, a.page, a.part, a.path, a.sha256, a.bytes, a.fetched_at, run_id) for a in answers],
    )
    return max(0, cursor.rowcount)
