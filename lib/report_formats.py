"""A report as text for a terminal, CSV, JSON and Markdown; and the pieces that a comparison writes alike."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from lib.sentences import counted

if TYPE_CHECKING:
    from lib.report import Report, Row

UNKNOWN, NO_FAMILY = "(unknown)", "(no family)"  # the row of pictures without the thing they are counted by
BARS = 24  # width of the longest bar in the text table, characters
WIDEST = 40  # characters of a name in the text table
ENDS = 26  # of those at its end, which tells paths and hosts apart
COLUMNS = (
    "key",
    "family",
    "pictures",
    "share",
    "cumulative",
    "unique",
    "files",
    "done",
    "failed",
    "success",
    "median_size",
)
# The numbers of a row as they are read, by their heading; all but the first only once something has been downloaded.
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


def as_text(report: Report) -> str:
    """The table for a terminal, with bars."""
    most = max((row.pictures for row in report.rows), default=1) or 1
    numbers = _numbers(report)
    table = [[report.by, *numbers]]
    table += [[shortened(readable(row.key)), *(show(row) for show in numbers.values())] for row in report.rows]
    bars = ["", *("█" * max(1 if row.pictures else 0, round(BARS * row.pictures / most)) for row in report.rows)]
    totals = report.totals
    lines = [f"{counted(totals.pictures, 'picture')}, {counted(totals.addresses, 'address')}, by {report.by}", ""]
    lines += [f"{line}  {bar}".rstrip() for line, bar in zip(_aligned(table), bars, strict=True)]
    if families := report.families_shown:
        table = [["family", "pictures", "share"], *([f.family, f"{f.count:,}", percent(f.share)] for f in families)]
        lines += ["", *_aligned(table, width=max(len(row.key) for row in report.rows))]
    return "\n".join(lines)


def as_csv(report: Report) -> str:
    """The rows as CSV with a header line."""
    return csv_text([COLUMNS, *([getattr(row, column) for column in COLUMNS] for row in report.rows)])


def as_json(report: Report) -> str:
    return json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_markdown(report: Report) -> str:
    """The rows as a Markdown table."""
    numbers: dict[str, Callable[[Row], str]] = {}
    if any(row.family for row in report.rows):
        numbers["family"] = lambda row: cell(row.family)
    numbers |= _numbers(report)
    head = [report.by, *numbers]
    rows = [[cell(readable(row.key)), *(show(row) for show in numbers.values())] for row in report.rows]
    return markdown_table(head, rows, left={report.by, "family"})


def _numbers(report: Report) -> dict[str, Callable[[Row], str]]:
    outcomes = _OUTCOMES if any(row.done or row.failed for row in report.rows) else {}
    sizes = _SIZES if any(row.median_size for row in report.rows) else {}
    return _NUMBERS | outcomes | sizes


def _aligned(table: list[list[str]], width: int = 0) -> list[str]:
    """Lines of a table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = max(widths[0], min(width, WIDEST))
    return [
        "  ".join(f"{value:<{width}}" if place == 0 else f"{value:>{width}}"
                  for place, (value, width) in enumerate(zip(line, widths, strict=True)))
        for line in table
    ]  # fmt: skip


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def readable(host: str) -> str:
    """An internationalised host name as people write it (`xn--…` decoded); any other text as it is."""
    if "xn--" not in host:
        return host
    try:
        return host.encode("ascii").decode("idna")
    except UnicodeError:
        return host


def shortened(name: str) -> str:
    """A long name with its middle left out: names of one folder or one site differ at their ends."""
    return name if len(name) <= WIDEST else f"{name[: WIDEST - ENDS - 1]}…{name[-ENDS:]}"


def csv_text(rows: list) -> str:
    """CSV of rows; a text that a spreadsheet would run as a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" and v else v for v in row])
    return out.getvalue()


def markdown_table(head: list[str], rows: list[list[str]], left: set[str]) -> str:
    """A Markdown table; the columns whose heading is in `left` are aligned there, all others to the right."""
    rule = ["---" if name in left else "---:" for name in head]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def cell(text: str) -> str:
    """Any text as the content of a Markdown cell: on one line, no bar that ends it, no HTML."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json, "markdown": as_markdown}
