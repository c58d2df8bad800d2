"""The `queries` table (one row a search) and the `responses` table (one row a raw answer on disk)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lib.db.connection import Database
from lib.times import utc_now


@dataclass(frozen=True)
class NewQuery:
    """A search to be made; together with `params` these are its natural key, but for path and hash."""

    engine: str
    kind: str  # image or keyword
    text: str = ""
    image_sha256: str = ""
    image_path: str = ""
    image_phash: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return self.engine, self.kind, self.text, self.image_sha256, params_text(self.params)


@dataclass(frozen=True)
class QueryRow:
    """A search, and how far it got."""

    id: int
    engine: str
    kind: str
    text: str
    image_sha256: str
    image_path: str
    params: dict[str, Any]
    state: str
    outcome: str
    detail: str
    cursor: dict[str, Any]
    next_page: int
    not_before: str


@dataclass(frozen=True)
class CollectedResponse:
    """A raw answer: which page of which query, how it was asked for, and where its bytes lie."""

    query_id: int
    page: int
    part: str
    url: str
    http_status: int | None
    outcome: str
    path: str
    sha256: str
    bytes: int
    headers: Mapping[str, str]
    items: int
    drift: Mapping[str, Any]
    fetched_at: str


def params_text(params: Mapping[str, Any]) -> str:
    """Parameters as the natural key has them: JSON with sorted keys."""
    return json.dumps(dict(params), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def find_query(db: Database, query: NewQuery) -> QueryRow | None:
    """The row with the same natural key."""
    where = "engine = ? AND kind = ? AND text = ? AND image_sha256 = ? AND params = ?"
    return next(iter(_queries(db, where, *query.key)), None)


def get_query(db: Database, query_id: int) -> QueryRow:
    """The row of that number, which must exist."""
    (found,) = _queries(db, "id = ?", query_id)
    return found


def pending_queries(db: Database, engine: str) -> list[QueryRow]:
    """All that is still to be done, in the order in which it was queued."""
    return _queries(db, "engine = ? AND state = 'pending'", engine)


def queries_with_outcome(db: Database, engine: str, outcome: str) -> list[QueryRow]:
    """The searches that ended with an outcome, or wait because of it."""
    return _queries(db, "engine = ? AND outcome = ?", engine, outcome)


def _queries(db: Database, where: str, *values: Any) -> list[QueryRow]:
    columns = ", ".join(column.name for column in fields(QueryRow))
    rows = map(dict, db.rows(f"SELECT {columns} FROM queries WHERE {where} ORDER BY id", values))
    return [
        QueryRow(**row | {"params": json.loads(row["params"]), "cursor": json.loads(row["cursor"])}) for row in rows
    ]


def list_queries(db: Database, engines: Sequence[str]) -> list[dict[str, Any]]:
    """Every search of the engines with what it brought so far, as plain values."""
    rows = db.rows(
        "SELECT queries.id, engine, kind, text, image_path, params, state, queries.outcome, detail, not_before,"
        " count(responses.id) FILTER (WHERE responses.outcome = 'ok') AS pages,"
        " coalesce(sum(responses.items) FILTER (WHERE responses.outcome = 'ok'), 0) AS items"
        " FROM queries LEFT JOIN responses ON responses.query_id = queries.id"
        " WHERE engine IN (SELECT value FROM json_each(?)) GROUP BY queries.id ORDER BY queries.id",
        (json.dumps(engines),),
    )
    return [dict(row) for row in rows]


def held_until(db: Database, engine: str, host: str) -> str:
    """The moment until which an engine wants to be left alone, at a foreign `host` or its own (empty); or empty."""
    rows = db.rows(
        "SELECT params, max(not_before) AS until FROM queries WHERE engine = ? AND state = 'pending' GROUP BY params",
        (engine,),
    )
    return max((row["until"] for row in rows if json.loads(row["params"]).get("host", "") == host), default="")


def engines_known(db: Database) -> list[str]:
    """The engines that were ever searched in this workspace."""
    return _texts(db, "SELECT DISTINCT engine FROM queries WHERE kind <> 'import' ORDER BY engine")


def engines_pending(db: Database) -> list[str]:
    """The engines that something is queued for, or was being done at when a run was killed."""
    where = "state IN ('pending', 'running') AND kind <> 'import'"
    return _texts(db, f"SELECT DISTINCT engine FROM queries WHERE {where} ORDER BY engine")


def engines_with_outcome(db: Database, outcome: str) -> list[str]:
    """The engines that have searches which ended so, or wait because of it."""
    return _texts(db, "SELECT DISTINCT engine FROM queries WHERE outcome = ? ORDER BY engine", outcome)


def keywords_asked(db: Database, engines: Sequence[str]) -> list[str]:
    """The keywords that these engines were or will be asked for."""
    where = "kind = 'keyword' AND engine IN (SELECT value FROM json_each(?))"
    return _texts(db, f"SELECT DISTINCT text FROM queries WHERE {where} ORDER BY text", json.dumps(engines))


def titles_found(db: Database, engines: Sequence[str], words: Sequence[str]) -> list[str]:
    """The distinct titles of what searches at these engines have found; of the keywords `words` only, if any."""
    only = " AND queries.kind = 'keyword' AND queries.text IN (SELECT value FROM json_each(?))" if words else ""
    sql = (
        "SELECT DISTINCT title FROM queries JOIN results ON results.query_id = queries.id"
        " JOIN images ON images.id = image_id"
        f" WHERE queries.engine IN (SELECT value FROM json_each(?)) AND title <> ''{only} ORDER BY title"
    )
    return _texts(db, sql, json.dumps(engines), *([json.dumps(words)] if words else []))


def _texts(db: Database, sql: str, *values: str) -> list[str]:
    return db.column(sql, values)


def add_query(db: Database, query: NewQuery, run_id: int) -> int:
    """Queues a search that is not there yet and gives its number."""
    now = utc_now()
    cursor = db.execute(
        "INSERT INTO queries (engine, kind, text, image_sha256, params, image_path, image_phash, run_id,"
        " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*query.key, query.image_path, query.image_phash, run_id or None, now, now),
    )
    return int(cursor.lastrowid or 0)


def release_running(db: Database, engine: str) -> int:
    """Makes pending what a killed run left as running. Only for who holds the engine's lock."""
    return _update(db, "state = 'pending'", "engine = ? AND state = 'running'", engine)


def requeue(db: Database, engine: str, outcome: str) -> int:
    """Queues the searches again that ended with an outcome, or wait because of it; nothing else waits any more."""
    with db.transaction():
        _update(db, "not_before = ''", "engine = ? AND state = 'pending' AND not_before <> ''", engine)
        return _update(db, "state = 'pending', not_before = ''", "engine = ? AND outcome = ?", engine, outcome)


def begin_query(db: Database, query_id: int, run_id: int, cursor: Mapping[str, Any]) -> None:
    """Marks a search as being worked on."""
    change = "state = 'running', not_before = '', run_id = ?, cursor = ?"
    _update(db, change, "id = ?", run_id or None, json.dumps(cursor), query_id)


def save_cursor(db: Database, query_id: int, cursor: Mapping[str, Any]) -> None:
    """Remembers what the engine needs to go on."""
    _update(db, "cursor = ?", "id = ?", json.dumps(cursor), query_id)


def end_query(db: Database, query_id: int, state: str, outcome: str, detail: str = "", not_before: str = "") -> None:
    """Records how the work on a search ended for now; an empty outcome keeps the one that stands."""
    change = "state = ?, outcome = coalesce(nullif(?, ''), outcome), detail = ?, not_before = ?"
    _update(db, change, "id = ?", state, outcome, detail, not_before, query_id)


def hold_pending(db: Database, engine: str, until: str) -> int:
    """Lets everything that is still to be done at an engine wait until a moment."""
    return _update(db, "not_before = ?", "engine = ? AND state = 'pending' AND not_before < ?", until, engine, until)


def _update(db: Database, change: str, where: str, *values: Any) -> int:
    split = change.count("?")
    with db.transaction():
        sql = f"UPDATE queries SET {change}, updated_at = ? WHERE {where}"
        return db.execute(sql, (*values[:split], utc_now(), *values[split:])).rowcount


def count_restored_pages(db: Database, engine: str) -> int:
    """Lets searches restored from the answers on disk go on behind the pages that they have without a gap.

    Gives how many they are.
    """
    sql = """
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
    return db.execute(sql, (engine,)).rowcount


def save_response(db: Database, row: CollectedResponse, run_id: int, *, next_page: int | None = None) -> None:
    """Records an answer whose file is whole, and which page comes next, in one transaction.

    An answer without results (a captcha, say) has nothing to be ingested and is marked as done.
    """
    values = vars(row) | {
        "headers": json.dumps(dict(row.headers), ensure_ascii=False),
        "drift": json.dumps(dict(row.drift), ensure_ascii=False),
        "run_id": run_id or None,
        "ingest_state": "pending" if row.outcome in ("ok", "parse_error") else "done",
    }
    changed = ", ".join(f"{name} = excluded.{name}" for name in values if name not in ("query_id", "page", "part"))
    with db.transaction():
        db.execute(
            f"INSERT INTO responses ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
            f" ON CONFLICT (query_id, page, part) DO UPDATE SET {changed}, ingest_reason = '', parser = ''",
            values,
        )
        if next_page is not None:
            _update(db, "next_page = ?", "id = ?", next_page, row.query_id)


def stored_answers(db: Database, query_id: int) -> list[tuple[str, str]]:
    """(part, path) of every answer of a search that holds results, in the order of the pages."""
    sql = "SELECT part, path FROM responses WHERE query_id = ? AND outcome = 'ok' ORDER BY page, part"
    return [(row["part"], row["path"]) for row in db.rows(sql, (query_id,))]


def results_stored(db: Database, query_id: int) -> int:
    """Number of results that the stored pages of a search hold."""
    sql = "SELECT coalesce(sum(items), 0) FROM responses WHERE query_id = ? AND outcome = 'ok'"
    return int(db.value(sql, (query_id,)))


def answer_path(db: Database, query_id: int, page: int, part: str) -> str:
    """Path of the answer that is recorded for a page; empty where there is none."""
    found = db.value("SELECT path FROM responses WHERE query_id = ? AND page = ? AND part = ?", (query_id, page, part))
    return found or ""


def newest_drift(db: Database, engine: str, most: int) -> list[tuple[int, str, int, dict[str, Any]]]:
    """(run, time, results, drift) of the newest stored pages of an engine, oldest first."""
    rows = db.rows(
        "SELECT coalesce(responses.run_id, 0) AS run, fetched_at, items, drift FROM responses"
        " JOIN queries ON queries.id = query_id"
        " WHERE engine = ? AND responses.outcome = 'ok' ORDER BY responses.id DESC LIMIT ?",
        (engine, most),
    )
    return [(row["run"], row["fetched_at"], row["items"], json.loads(row["drift"])) for row in reversed(rows)]
