"""The report and the comparison of step 3 as text, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

from lib.db.report import ReportTotals, SharedPictures
from lib.domains import shown_host
from lib.pages.model import FamilyRow
from lib.text import counted

BARS = 24  # width of the longest bar in the text table, characters
FAMILIES = 5  # that a line names
WIDEST = 40  # characters of a name in the text table
ENDS = 26  # of those at its end, which tells paths and hosts apart


@dataclass(frozen=True)
class Row:
    """One line of the report. Shares are of all pictures, 0 to 1; `median_size` is of the files on disk.

    `unique` counts pictures of the same content once, as far as contents are known; `success` is the share of the
    downloads that ended well, None before there are any.
    """

    key: str
    family: str
    pictures: int
    share: float
    cumulative: float
    unique: int
    files: int
    done: int
    failed: int
    success: float | None
    median_size: str
    engines: str = ""  # those that found them, where several were searched


@dataclass(frozen=True)
class DomainReport:
    """The whole report: totals, the rows by `by` (most pictures first) and the service families.

    `named` is how many domains (licences, searches …) there are, and `nameless` how many pictures have none.
    """

    by: str
    totals: ReportTotals
    named: int
    nameless: int
    rows: tuple[Row, ...]
    families: tuple[FamilyRow, ...]

    @property
    def families_shown(self) -> tuple[FamilyRow, ...]:
        """The families, where they say more than the rows and are about the same thing."""
        return self.families if self.by in ("domain", "host") else ()

    @property
    def shared_note(self) -> str:
        """A few words on the pictures that are counted once although several engines found them; empty for none."""
        return f"{self.totals.shared:,} of several engines counted once" if self.totals.shared else ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self, most: int | None = None) -> str:
        """The table for a terminal, with bars: `most` rows and the number of the others, families on a line then."""
        rows = self.rows[:most]
        largest = max((row.pictures for row in rows), default=1) or 1
        numbers = self._numbers()
        table = [[self.by, *numbers]]
        table += [[shortened(shown_host(row.key)), *(show(row) for show in numbers.values())] for row in rows]
        bars = ["", *("█" * max(1 if row.pictures else 0, round(BARS * row.pictures / largest)) for row in rows)]
        if len(self.rows) == 1:  # a full bar would say nothing
            bars = [""] * len(table)
        totals = self.totals
        shared = f" ({self.shared_note})" if totals.shared else ""
        pictures = f"{counted(totals.pictures, 'picture')}{shared}"
        lines = [f"{pictures}, {counted(totals.addresses, 'address')}, by {self.by}", ""]
        lines += [f"{line}  {bar}".rstrip() for line, bar in zip(_aligned(table), bars, strict=True)]
        if len(rows) < len(self.rows):
            lines.append(f"… and {len(self.rows) - len(rows):,} more (-v prints all, --top N the largest)")
        families = self.families_shown
        if families and most is not None and len(rows) + len(families) > most:
            named = [f"{family.family} {family.count:,} ({percent(family.share)})" for family in families[:FAMILIES]]
            more = f" and {len(families) - FAMILIES} more" if len(families) > FAMILIES else ""
            lines += ["", f"families: {', '.join(named)}{more}"]
        elif families:
            table = [["family", "pictures", "share"]]
            table += [[family.family, f"{family.count:,}", percent(family.share)] for family in families]
            lines += ["", *_aligned(table, width=max(len(row.key) for row in rows))]
        return "\n".join(lines)

    def as_csv(self) -> str:
        return csv_text(Row, self.rows)

    def as_markdown(self) -> str:
        family = {"family": lambda row: cell(row.family)} if any(row.family for row in self.rows) else {}
        numbers = family | self._numbers()
        rows = [[cell(shown_host(row.key)), *(show(row) for show in numbers.values())] for row in self.rows]
        return _markdown_table([self.by, *numbers], rows, left={self.by, "family"})

    def _numbers(self) -> dict[str, Callable[[Row], str]]:
        """The numbers of a row by their heading; those of downloads only once something has been downloaded."""
        outcomes = _OUTCOMES if any(row.done or row.failed for row in self.rows) else {}
        sizes = _SIZES if any(row.median_size for row in self.rows) else {}
        engines = _ENGINES if any(row.engines for row in self.rows) else {}
        return _NUMBERS | outcomes | sizes | engines


@dataclass(frozen=True)
class Comparison:
    """Two sides compared. `overlap` is the share of all their pictures that both found, 0 to 1 (Jaccard)."""

    by: str
    a: str
    b: str
    overlap: float
    total: SharedPictures
    rows: tuple[SharedPictures, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self, most: int | None = None) -> str:
        lines = [f"A  {self.a}", f"B  {self.b}", f"{self.overlap:.1%} of their pictures were found by both", ""]
        table = [[self.by, *(f"{name:>9}" for name in ("only A", "both", "only B"))]]
        rows = self.rows[:most]
        table += [[shortened(shown_host(row.key)), *_numbers_of(row)] for row in (self.total, *rows)]
        more = [f"… and {len(self.rows) - len(rows):,} more (-v prints all)"] if len(rows) < len(self.rows) else []
        return "\n".join(lines + _aligned(table) + more)

    def as_csv(self) -> str:
        return csv_text(SharedPictures, self.rows)

    def as_markdown(self) -> str:
        rows = [[cell(shown_host(row.key)), *_numbers_of(row)] for row in (*self.rows, self.total)]
        return _markdown_table([self.by, f"only {cell(self.a)}", "both", f"only {cell(self.b)}"], rows, left={self.by})


def written_as(found: DomainReport | Comparison, form: str, most: int | None = None) -> str:
    """The report or comparison as `text`, with at most so many rows, `csv`, `json` or `markdown`."""
    if form == "text":
        return found.as_text(most)
    if form == "json":
        return json.dumps(found.as_dict(), ensure_ascii=False, indent=2) + "\n"
    return {"csv": found.as_csv, "markdown": found.as_markdown}[form]()


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


_NUMBERS: dict[str, Callable[[Row], str]] = {
    "pictures": lambda row: f"{row.pictures:,}",
    "share": lambda row: percent(row.share),
    "sum": lambda row: percent(row.cumulative),
}
_OUTCOMES: dict[str, Callable[[Row], str]] = {
    "unique": lambda row: f"{row.unique:,}",
    "files": lambda row: f"{row.files:,}",
    "failed": lambda row: f"{row.failed:,}",
    "success": lambda row: percent(row.success),
}
_SIZES: dict[str, Callable[[Row], str]] = {"median size": lambda row: row.median_size}
_ENGINES: dict[str, Callable[[Row], str]] = {"engines": lambda row: row.engines}


def _numbers_of(row: SharedPictures) -> list[str]:
    return [f"{row.only_a:,}", f"{row.both:,}", f"{row.only_b:,}"]


def _aligned(table: list[list[str]], width: int = 0) -> list[str]:
    """Lines of a table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = max(widths[0], min(width, WIDEST))
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in table]


def shortened(name: str) -> str:
    """A long name with its middle left out: names of one folder or one site differ at their ends."""
    return name if len(name) <= WIDEST else f"{name[: WIDEST - ENDS - 1]}…{name[-ENDS:]}"


def csv_text(kind: type, rows: Sequence[Any]) -> str:
    """CSV of rows of one dataclass; a text that a spreadsheet would run as a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    for row in rows:
        writer.writerow(f"'{v}" if isinstance(v, str) and v.startswith(tuple("=+-@")) else v for v in astuple(row))
    return out.getvalue()


def _markdown_table(head: list[str], rows: list[list[str]], left: set[str]) -> str:
    """A Markdown table; the columns whose heading is in `left` are aligned there, all others to the right."""
    rule = ["---" if name in left else "---:" for name in head]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def cell(text: str) -> str:
    """Any text as the content of a Markdown cell: on one line, no bar that ends it, no HTML."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
