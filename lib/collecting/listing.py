"""What step 1 shows of its tables: the queue (`--list`) and the shape of the answers (`--drift`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lib.collecting.drift_watch import shapes_by_run
from lib.collecting.filters import filters_in
from lib.db import Database
from lib.db import queries as table

KEYS_SHOWN = 4


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
            "missing": dict(shape.missing),
        }
        for engine in (engines or table.engines_known(db))
        for shape in shapes_by_run(db, engine)
    ]  # fmt: skip


def drift_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a row, below a line of names; keys with the share of the results that they are about."""
    if not rows:
        return ["no answers yet"]
    lines = [
        f"{'engine':<13} {'run':>4} {'day':<10} {'pages':>5} {'results':>7} {'no original':>11}  unknown | missing"
    ]
    for row in rows:
        keys = " | ".join(_shares(Counter(row[name]), row["results"]) for name in ("unknown", "missing"))
        lines.append(
            f"{row['engine']:<13} {row['run']:>4} {row['day']:<10} {row['pages']:>5} {row['results']:>7}"
            f" {row['empty_originals']:>11.0%}  {keys}"
        )
    return lines


def _shares(keys: Counter[str], results: int) -> str:
    shown = [f"{key} {count / max(results, 1):.0%}" for key, count in keys.most_common(KEYS_SHOWN)]
    more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
    return (", ".join(shown) + more) or "-"
