"""Tables as step 1 shows them: the queue (`--list`) and how the answers' shape has changed (`--drift`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.db import Database
from lib.db import queries as table
from lib.engines import filters_in

KEYS_SHOWN = 4  # of a row of --drift
NEWEST = 2000  # pages that are looked at
JUMP = 0.20  # by how much more of the results lack their original before that is worth a word
MOST = 0.5  # a key on more results than this is a matter of the engine, not of a picture
RARE = 0.05  # and one that stood on no more than this before is new
NAMED = 5  # keys that a sentence names


def queue_rows(db: Database, engines: Sequence[str] | None) -> list[dict[str, Any]]:
    """Every search of the engines, or of all."""
    rows = table.list_queries(db, engines or table.engines_known(db))
    return [row | {"params": json.loads(row["params"])} for row in rows]


def queue_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a query, below a line of names."""
    if not rows:
        return ["no queries yet"]
    lines = [f"{'id':>5}  {'state':<8} {'outcome':<15} {'pages':>5} {'results':>7}  query"]
    for row in rows:
        what = row["image_path"] if row["kind"] == "image" else repr(row["text"])
        narrowed = "".join(f" {name}={value}" for name, value in filters_in(row["params"]).items())
        extra = f"  ({row['detail']})" if row["detail"] else ""
        later = f"  not before {row['not_before'][:16]}" if row["not_before"] and row["state"] == "pending" else ""
        lines.append(
            f"{row['id']:>5}  {row['state']:<8} {row['outcome'] or '-':<15} {row['pages']:>5} {row['items']:>7}"
            f"  {row['engine']} {what}{narrowed}{extra}{later}"
        )
    return lines


def drift_rows(db: Database, engines: Sequence[str] | None) -> list[dict[str, Any]]:
    """One row an engine and run: how many results lack their original, and which keys are unknown or missing."""
    return [
        {
            "engine": engine, "run": shape.run, "day": shape.day, "pages": shape.pages, "results": shape.results,
            "empty_originals": round(shape.empty_share, 4), "unknown": dict(shape.unknown),
            "missing": dict(shape.missing), "left_out": dict(shape.left_out),
        }
        for engine in (engines or table.engines_known(db))
        for shape in shapes_by_run(db, engine)
    ]  # fmt: skip


def drift_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a row, below a line of names; keys with the share of the results that they are about."""
    if not rows:
        return ["no answers yet"]
    lines = [
        f"{'engine':<13} {'run':>4} {'day':<10} {'pages':>5} {'results':>7} {'no original':>11} {'left out':>8}"
        "  unknown | missing"
    ]
    for row in rows:
        keys = " | ".join(_shares(Counter(row[name]), row["results"]) for name in ("unknown", "missing"))
        lines.append(
            f"{row['engine']:<13} {row['run']:>4} {row['day']:<10} {row['pages']:>5} {row['results']:>7}"
            f" {row['empty_originals']:>11.0%} {sum(row['left_out'].values()):>8}  {keys}"
        )
    return lines


def _shares(keys: Counter[str], results: int) -> str:
    shown = [f"{key} {count / max(results, 1):.0%}" for key, count in keys.most_common(KEYS_SHOWN)]
    more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
    return (", ".join(shown) + more) or "-"


@dataclass
class Shape:
    """Shape of the pages of one run, or of several. Counts are of results."""

    run: int = 0
    day: str = ""
    pages: int = 0
    results: int = 0
    empty_originals: float = 0.0
    unknown: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  # entries that are no results of their own, by reason

    def add(self, results: int, drift: dict[str, Any]) -> None:
        self.pages += 1
        self.results += results
        self.empty_originals += results * float(drift.get("empty_originals", 0))
        self.unknown.update(drift.get("unknown", {}))
        self.missing.update(drift.get("missing", {}))
        self.left_out.update(drift.get("left_out", {}))

    def merge(self, other: Shape) -> None:
        self.pages += other.pages
        self.results += other.results
        self.empty_originals += other.empty_originals
        self.unknown += other.unknown
        self.missing += other.missing
        self.left_out += other.left_out

    @property
    def empty_share(self) -> float:
        return self.empty_originals / self.results if self.results else 0.0


def shapes_by_run(db: Database, engine: str) -> list[Shape]:
    """One shape a run, oldest first, over the newest pages."""
    shapes: dict[int, Shape] = {}
    for run, fetched_at, results, drift in table.newest_drift(db, engine, NEWEST):
        shapes.setdefault(run, Shape(run, fetched_at[:10])).add(results, drift)
    return list(shapes.values())


def drift_warning(db: Database, engine: str, run_id: int) -> str:
    """A sentence where this run's answers differ from the workspace's earlier ones; empty where they do not."""
    now, before = Shape(), Shape()
    for shape in shapes_by_run(db, engine):
        (now if shape.run == run_id else before).merge(shape)
    changes = jumps(before, now)
    if not changes:
        return ""
    return f"{engine} answers in another shape than before: {'; '.join(changes)} (--drift shows more)."


def jumps(before: Shape, now: Shape) -> list[str]:
    """Changes so large that a person should look; none where there is nothing to compare with. Pure."""
    if not before.results or not now.results:
        return []
    found = []
    if now.empty_share >= before.empty_share + JUMP:
        found.append(f"{now.empty_share:.0%} of the results lack their original, {before.empty_share:.0%} did before")
    for word, new, old in (("unknown", now.unknown, before.unknown), ("missing", now.missing, before.missing)):
        keys = sorted(key for key in new if new[key] / now.results > MOST and old[key] / before.results <= RARE)
        if keys:
            more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
            found.append(f"{word} on most results: {', '.join(keys[:NAMED])}{more}")
    return found
