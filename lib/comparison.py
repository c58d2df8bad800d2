"""`--compare A B`: two searches or two runs beside each other, in the formats of the report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lib.db import Database
from lib.db.compare import Shared, compare, side
from lib.db.report import prepare_for_reports

COLUMNS = ("key", "only_a", "both", "only_b")
UNKNOWN = "(unknown)"


@dataclass(frozen=True)
class Comparison:
    """What two sides found. `overlap` is the share of all their pictures that both found, 0 to 1 (Jaccard)."""

    by: str
    a: str
    b: str
    total: Shared
    rows: tuple[Shared, ...]

    @property
    def overlap(self) -> float:
        everything = self.total.only_a + self.total.both + self.total.only_b
        return self.total.both / everything if everything else 0.0

    def as_dict(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {
            "by": self.by,
            "a": self.a,
            "b": self.b,
            "overlap": self.overlap,
            "total": asdict(self.total),
            "rows": rows,
        }


def make_comparison(db: Database, names: Sequence[str], by: str, top: int | None) -> Comparison:
    """Compares the two named sides by a key; `top` keeps the largest rows. Raises UsageError for what is no side."""
    prepare_for_reports(db)
    a, b = (side(db, name) for name in names)
    rows = compare(db, a, b, by)
    total = Shared("all", *(sum(getattr(row, name) for row in rows) for name in COLUMNS[1:]))
    shown = [row if row.key else Shared(UNKNOWN, row.only_a, row.both, row.only_b) for row in rows[: top or len(rows)]]
    return Comparison(by, a.name, b.name, total, tuple(shown))


def as_text(found: Comparison) -> str:
    lines = [f"A  {found.a}", f"B  {found.b}", f"{found.overlap:.1%} of their pictures were found by both", ""]
    width = max((len(row.key[:40]) for row in (*found.rows, found.total)), default=6)
    lines.append(f"{found.by:<{width}}  {'only A':>9}  {'both':>9}  {'only B':>9}")
    for row in (found.total, *found.rows):
        lines.append(f"{row.key[:40]:<{width}}  {row.only_a:>9,}  {row.both:>9,}  {row.only_b:>9,}")
    return "\n".join(lines)


def as_csv(found: Comparison) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in found.rows:
        key = f"'{row.key}" if row.key[:1] in ("=", "+", "-", "@") else row.key
        writer.writerow([key, row.only_a, row.both, row.only_b])
    return out.getvalue()


def as_json(found: Comparison) -> str:
    return json.dumps(found.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_markdown(found: Comparison) -> str:
    lines = [f"| {found.by} | only {found.a} | both | only {found.b} |", "| --- | ---: | ---: | ---: |"]
    for row in (*found.rows, found.total):
        key = row.key.replace("|", "\\|")
        lines.append(f"| {key} | {row.only_a:,} | {row.both:,} | {row.only_b:,} |")
    return "\n".join(lines) + "\n"


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json, "markdown": as_markdown}
