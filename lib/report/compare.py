"""`--compare A B`: two searches or two runs beside each other, in the formats of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lib.db import Database
from lib.db.report import SharedPictures, compare, prepare_for_reports, side
from lib.report.domains import NO_FAMILY, UNKNOWN, cell, csv_text, markdown_table, readable, shortened

COLUMNS = ("key", "only_a", "both", "only_b")


@dataclass(frozen=True)
class Comparison:
    """Two sides compared. `overlap` is the share of all their pictures that both found, 0 to 1 (Jaccard)."""

    by: str
    a: str
    b: str
    total: SharedPictures
    rows: tuple[SharedPictures, ...]

    @property
    def overlap(self) -> float:
        everything = self.total.only_a + self.total.both + self.total.only_b
        return self.total.both / everything if everything else 0.0

    def as_dict(self) -> dict[str, Any]:
        head = {"by": self.by, "a": self.a, "b": self.b, "overlap": self.overlap}
        return head | {"total": asdict(self.total), "rows": [asdict(row) for row in self.rows]}


def make_comparison(db: Database, names: Sequence[str], by: str, top: int | None) -> Comparison:
    """Compares the two named sides by a key; `top` keeps the largest rows. Raises UsageError for what is no side."""
    prepare_for_reports(db)
    a, b = (side(db, name) for name in names)
    rows = compare(db, a, b, by)
    once = compare(db, a, b, "engine") if by == "query" else rows  # a picture has one engine and many queries
    total = SharedPictures("all", *(sum(getattr(row, name) for row in once) for name in COLUMNS[1:]))
    nothing = NO_FAMILY if by == "family" else UNKNOWN
    shown = [row if row.key else replace(row, key=nothing) for row in rows[: top or len(rows)]]
    return Comparison(by, a.name, b.name, total, tuple(shown))


def as_text(found: Comparison) -> str:
    lines = [f"A  {found.a}", f"B  {found.b}", f"{found.overlap:.1%} of their pictures were found by both", ""]
    named = [(shortened(readable(row.key)), row) for row in (found.total, *found.rows)]
    width = max(len(found.by), *(len(name) for name, _ in named))
    lines.append(f"{found.by:<{width}}  {'only A':>9}  {'both':>9}  {'only B':>9}")
    for name, row in named:
        lines.append(f"{name:<{width}}  {row.only_a:>9,}  {row.both:>9,}  {row.only_b:>9,}")
    return "\n".join(lines)


def as_csv(found: Comparison) -> str:
    return csv_text([COLUMNS, *([row.key, row.only_a, row.both, row.only_b] for row in found.rows)])


def as_json(found: Comparison) -> str:
    return json.dumps(found.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_markdown(found: Comparison) -> str:
    rows = [
        [cell(readable(row.key)), f"{row.only_a:,}", f"{row.both:,}", f"{row.only_b:,}"]
        for row in (*found.rows, found.total)
    ]
    return markdown_table([found.by, f"only {cell(found.a)}", "both", f"only {cell(found.b)}"], rows, left={found.by})


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json, "markdown": as_markdown}
