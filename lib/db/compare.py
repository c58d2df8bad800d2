"""Two searches, or two runs of step 1, side by side: which pictures both found, and which only one of them."""

from __future__ import annotations

from dataclasses import dataclass

from lib.db.connection import Database
from lib.db.report import KEYS
from lib.errors import UsageError


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what it is called and which results belong to it."""

    name: str
    condition: str
    value: int


@dataclass(frozen=True)
class Shared:
    """Pictures of one key: of the first side alone, of both, of the second alone."""

    key: str
    only_a: int
    both: int
    only_b: int


def side(db: Database, text: str) -> Side:
    """`run:12` for what a run of step 1 found; else a search, by its number or its words. Raises UsageError."""
    kind, _, number = text.partition(":")
    if kind == "run" and number.isdigit():
        if db.value("SELECT 1 FROM responses WHERE run_id = ? LIMIT 1", (int(number),)):
            condition = "r.response_id IN (SELECT id FROM responses WHERE run_id = ?)"
            return Side(text, condition, int(number))
        raise UsageError(f"--compare: run {number} stored no answers; see the table runs for those that did.")
    name = number if kind == "query" and number else text
    rows = db.rows(
        "SELECT id, engine, CASE kind WHEN 'image' THEN image_path ELSE text END AS words FROM queries"
        " WHERE id = ? OR text = ? OR (kind = 'image' AND image_path = ?) ORDER BY id",
        (int(name) if name.isdigit() else -1, name, name),
    )
    if len(rows) != 1:
        found = ", ".join(f"{row['id']} ({row['engine']})" for row in rows[:8])
        hint = f"several searches are called {text!r}: give one number of {found}" if rows else f"no search is {text!r}"
        raise UsageError(f"--compare: {hint}.")
    return Side(f"{rows[0]['engine']}: {rows[0]['words']}", "r.query_id = ?", rows[0]["id"])


def compare(db: Database, a: Side, b: Side, by: str) -> list[Shared]:
    """The pictures of both sides by a key of `KEYS`, most first. By query, one that both found stands under both."""
    values = [a.value, b.value]
    source = "images i ON i.id = met.id"
    if by == "query":
        source += f" JOIN results r ON r.image_id = met.id AND ({a.condition} OR {b.condition})"
        source += " JOIN queries q ON q.id = r.query_id"
        values *= 2
    rows = db.execute(
        "WITH a AS (SELECT DISTINCT r.image_id AS id FROM results r WHERE "
        f"{a.condition}), b AS (SELECT DISTINCT r.image_id AS id FROM results r WHERE {b.condition}),"
        " met AS (SELECT id, max(side) AS most, min(side) AS least FROM"
        " (SELECT id, 1 AS side FROM a UNION ALL SELECT id, 2 FROM b) GROUP BY id)"
        f" SELECT {KEYS[by]}, total(most = 1), total(most <> least), total(least = 2)"
        f" FROM met JOIN {source} GROUP BY 1 ORDER BY count(*) DESC, 1",
        values,
    )
    return [Shared(row[0] or "", int(row[1]), int(row[2]), int(row[3])) for row in rows]
