"""Counts where the pictures come from, and writes it as text, CSV, JSON, Markdown and a page.

The pieces that a comparison writes alike stand here too.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db import report as counts
from lib.domains import family_of
from lib.pages import Card, DomainRow, FamilyRow, Heading
from lib.text import counted
from lib.workspace import Workspace

log = logging.getLogger("gleaner.report")

SAMPLES = 4  # thumbnails beside a domain on the page
SAMPLED = 24  # rows that are asked for them: the page shows twelve, and files of some may have gone
PLURALS = {
    "domain": "domains", "family": "families", "host": "hosts", "engine": "engines", "licence": "licences",
    "format": "formats", "size": "claimed sizes", "query": "queries",
}  # fmt: skip

UNKNOWN, NO_FAMILY = "(unknown)", "(no family)"  # the row of pictures without the thing they are counted by
BARS = 24  # width of the longest bar in the text table, characters
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


COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class DomainReport:
    """The whole report: totals, the rows by `by` (most pictures first) and the service families.

    `named` is how many domains (licences, searches …) there are, and `nameless` how many pictures have none.
    """

    by: str
    totals: counts.ReportTotals
    named: int
    nameless: int
    rows: tuple[Row, ...]
    families: tuple[FamilyRow, ...]

    @property
    def families_shown(self) -> tuple[FamilyRow, ...]:
        """The families, where they say more than the rows and are about the same thing."""
        return self.families if self.by in ("domain", "host") else ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_report(db: Database, by: str, top: int | None) -> DomainReport:
    """Counts everything; `top` keeps the largest rows and sums the others up in one."""
    counts.prepare_for_reports(db)
    groups, sizes = counts.groups(db, by), counts.median_sizes(db, by)
    whole = sum(group.pictures for group in groups) or 1
    nothing = NO_FAMILY if by == "family" else UNKNOWN
    rows, seen = [], 0
    for group in groups[: top or len(groups)]:
        seen += group.pictures
        family = family_of(group.key) if by == "domain" else ""
        rows.append(_row(group, group.key or nothing, family, whole, seen / whole, sizes.get(group.key, "")))
    rest = groups[len(rows) :]
    if others := [group for group in rest if group.key]:
        seen += sum(group.pictures for group in others)
        rows.append(_sum_up(others, whole, seen / whole))
    # What has none is no other of them, however small it is.
    rows += [_row(group, nothing, "", whole, 1.0, sizes.get("", "")) for group in rest if not group.key]
    nameless = sum(group.pictures for group in groups if not group.key)
    named = sum(1 for group in groups if group.key)
    return DomainReport(by, counts.totals(db), named, nameless, tuple(rows), tuple(_families(db)))


def _sum_up(rest: Sequence[counts.ReportGroup], whole: int, cumulative: float) -> Row:
    sums = (sum(getattr(group, name) for group in rest) for name in ("pictures", "done", "failed", "files"))
    return _row(counts.ReportGroup("", *sums), f"({counted(len(rest), 'other')})", "", whole, cumulative, "")


def _row(group: counts.ReportGroup, key: str, family: str, whole: int, cumulative: float, size: str) -> Row:
    tried = group.done + group.failed
    return Row(
        key, family, group.pictures, group.pictures / whole, cumulative, group.pictures - group.done + group.files,
        group.files, group.done, group.failed, group.done / tried if tried else None, size,
    )  # fmt: skip


def _families(db: Database) -> list[FamilyRow]:
    pictures: Counter[str] = Counter()
    domains: dict[str, set[str]] = {}
    whole = 0
    for domain, host, count in counts.hosts_of_domains(db):
        whole += count
        if family := family_of(domain, host):
            pictures[family] += count
            domains.setdefault(family, set()).add(domain)
    ranked = sorted(pictures.items(), key=lambda item: (-item[1], item[0]))
    return [FamilyRow(name, count, count / whole, len(domains[name])) for name, count in ranked]


def write_files(db: Database, workspace: Workspace, report: DomainReport) -> list[Path]:
    """Writes the page, the CSV and the JSON into `reports/` and gives their paths. Same data, same bytes."""
    from lib.pages import render_domain_report, write_page
    from lib.pages.index import refresh_index

    stem = workspace.reports / ("domains" if report.by == "domain" else f"by_{report.by}")
    samples = counts.sample_paths(db, report.by, SAMPLES, _sampled(report))
    rows = [_page_row(workspace, row, samples, downloaded=report.totals.done > 0) for row in report.rows]
    page = stem.with_suffix(".html")
    html = render_domain_report(
        page, _heading(report), rows, report.families_shown,
        noun=report.by, plural=PLURALS[report.by], named=report.named,
    )  # fmt: skip
    written = [page, stem.with_suffix(".csv"), stem.with_suffix(".json")]
    for path, text in zip(written, (html, as_csv(report), as_json(report)), strict=True):
        write_page(path, text)
    refresh_index(workspace)
    return written


def _sampled(report: DomainReport) -> dict[str, int]:
    """The groups that the page may show pictures of, by their keys in the database, with the number of their files."""
    rows = [row for row in report.rows if row.files and not row.key.endswith((" other)", " others)"))][:SAMPLED]
    return {_key(row): row.files for row in rows}


def _key(row: Row) -> str:
    return "" if row.key in (UNKNOWN, NO_FAMILY) else row.key


def _heading(report: DomainReport) -> Heading:
    totals = report.totals
    note = f"{counted(report.nameless, 'picture')} without one" if report.nameless else ""
    cards = [Card("Pictures", totals.pictures), Card("Addresses", totals.addresses)]
    cards.append(Card(PLURALS[report.by].capitalize(), report.named, note))
    cards += [] if report.by == "query" else [Card("Searches", totals.queries)]
    cards.append(Card("Downloaded", totals.done))
    return Heading("Where the pictures come from", f"Pictures by {report.by}", generated=totals.as_of, cards=cards)


def _page_row(workspace: Workspace, row: Row, samples: dict[str, list[str]], *, downloaded: bool) -> DomainRow:
    paths = [workspace.to_path(text) for text in samples.get(_key(row), [])]
    return DomainRow(
        domain=readable(row.key),
        named=not row.key.startswith("("),
        count=row.pictures,
        share=row.share,
        cumulative=row.cumulative,
        unique=row.unique if downloaded else None,
        family=row.family,
        downloaded=row.done if downloaded else None,
        failed=row.failed if downloaded else None,
        median_size=row.median_size,
        samples=paths,
    )


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


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


def as_text(report: DomainReport) -> str:
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


def as_csv(report: DomainReport) -> str:
    """The rows as CSV with a header line."""
    return csv_text([COLUMNS, *([getattr(row, column) for column in COLUMNS] for row in report.rows)])


def as_json(report: DomainReport) -> str:
    return json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_markdown(report: DomainReport) -> str:
    """The rows as a Markdown table."""
    numbers: dict[str, Callable[[Row], str]] = {}
    if any(row.family for row in report.rows):
        numbers["family"] = lambda row: cell(row.family)
    numbers |= _numbers(report)
    head = [report.by, *numbers]
    rows = [[cell(readable(row.key)), *(show(row) for show in numbers.values())] for row in report.rows]
    return markdown_table(head, rows, left={report.by, "family"})


def _numbers(report: DomainReport) -> dict[str, Callable[[Row], str]]:
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
