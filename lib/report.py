"""Step 3's work: where the pictures come from, as a table, as data and as a page."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db import report as counts
from lib.families import family_of
from lib.pages.model import Card, DomainRow, FamilyRow, Heading
from lib.workspace import Workspace

log = logging.getLogger("gleaner.report")

BARS = 24  # width of the longest bar in the text table, characters
SAMPLES = 4  # thumbnails beside a domain on the page
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
UNKNOWN = "(unknown)"
PLURALS = {
    "domain": "domains",
    "family": "families",
    "host": "hosts",
    "engine": "engines",
    "licence": "licences",
    "format": "formats",
    "size": "claimed sizes",
    "query": "queries",
}


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


@dataclass(frozen=True)
class Report:
    """The whole report: totals, the rows by `by` (most pictures first) and the service families."""

    by: str
    totals: counts.Totals
    rows: tuple[Row, ...]
    families: tuple[FamilyRow, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "totals": asdict(self.totals),
            "rows": [asdict(row) for row in self.rows],
            "families": [asdict(family) for family in self.families],
        }


def make_report(db: Database, by: str, top: int | None) -> Report:
    """Counts everything; `top` keeps the largest rows and sums the others up in one."""
    counts.prepare_for_reports(db)
    groups, sizes = counts.groups(db, by), counts.median_sizes(db, by)
    whole = sum(group.pictures for group in groups) or 1
    rows, seen = [], 0
    for group in groups[: top or len(groups)]:
        seen += group.pictures
        family = family_of(group.key) if by == "domain" else ""
        rows.append(_row(group, group.key or UNKNOWN, family, whole, seen / whole, sizes.get(group.key, "")))
    if rest := groups[len(rows) :]:
        rows.append(_sum_up(rest, whole))
    return Report(by, counts.totals(db), tuple(rows), tuple(_families(db)))


def _sum_up(rest: Sequence[counts.Group], whole: int) -> Row:
    sums = (sum(getattr(group, name) for group in rest) for name in ("pictures", "done", "failed", "files"))
    return _row(counts.Group("", *sums), f"({len(rest):,} others)", "", whole, 1.0, "")


def _row(group: counts.Group, key: str, family: str, whole: int, cumulative: float, size: str) -> Row:
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


def as_text(report: Report) -> str:
    """The table for a terminal, with bars."""
    keys = [readable(row.key) for row in report.rows]
    names = [key if len(key) <= 40 else key[:39] + "…" for key in keys]
    width = max((len(name) for name in names), default=8)
    most = max((row.pictures for row in report.rows), default=1) or 1
    lines = [f"{report.totals.pictures:,} pictures, {report.totals.addresses:,} addresses, by {report.by}", ""]
    head = f"{'pictures':>9}  {'share':>6}  {'sum':>6}  {'unique':>9}  {'files':>7}  {'failed':>7}  {'success':>7}"
    lines.append(f"{report.by:<{width}}  {head}")
    for name, row in zip(names, report.rows, strict=True):
        bar = "█" * max(1 if row.pictures else 0, round(BARS * row.pictures / most))
        numbers = f"{row.pictures:>9,}  {row.share:>6.1%}  {row.cumulative:>6.1%}  {row.unique:>9,}"
        numbers += f"  {row.files:>7,}  {row.failed:>7,}  {percent(row.success):>7}"
        lines.append(f"{name:<{width}}  {numbers}  {bar}")
    if report.families:
        lines += ["", f"{'family':<{width}}  {'pictures':>9}  {'share':>6}"]
        lines += [f"{f.family:<{width}}  {f.count:>9,}  {f.share:>6.1%}" for f in report.families]
    return "\n".join(lines)


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


def as_csv(report: Report) -> str:
    """The rows as CSV with a header line; a key that a spreadsheet would run as a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in report.rows:
        values = [getattr(row, column) for column in COLUMNS]
        writer.writerow([f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" and v else v for v in values])
    return out.getvalue()


def as_json(report: Report) -> str:
    return json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_markdown(report: Report) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"| {report.by} | family | pictures | share | sum | unique | files | failed | success | median size |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.rows:
        key = row.key.replace("|", "\\|")
        numbers = f"{row.pictures:,} | {row.share:.1%} | {row.cumulative:.1%} | {row.unique:,} | {row.files:,}"
        rest = f"{row.failed:,} | {percent(row.success)} | {row.median_size}"
        lines.append(f"| {key} | {row.family} | {numbers} | {rest} |")
    return "\n".join(lines) + "\n"


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json, "markdown": as_markdown}


def write_files(db: Database, workspace: Workspace, report: Report) -> list[Path]:
    """Writes the page, the CSV and the JSON into `reports/` and gives their paths. Same data, same bytes."""
    from lib.pages import render_domain_report, write_page
    from lib.reports_index import refresh_index

    stem = workspace.reports / ("domains" if report.by == "domain" else f"by_{report.by}")
    samples = counts.sample_paths(db, report.by, SAMPLES)
    rows = [_page_row(workspace, row, samples, downloaded=report.totals.done > 0) for row in report.rows]
    page = stem.with_suffix(".html")
    html = render_domain_report(
        page, _heading(report), rows, list(report.families), noun=report.by, plural=PLURALS[report.by]
    )
    written = [page, stem.with_suffix(".csv"), stem.with_suffix(".json")]
    for path, text in zip(written, (html, as_csv(report), as_json(report)), strict=True):
        write_page(path, text)
    refresh_index(workspace)
    return written


def _heading(report: Report) -> Heading:
    totals = report.totals
    cards = [Card("Pictures", totals.pictures), Card("Addresses", totals.addresses), Card("Domains", totals.domains)]
    cards += [Card("Searches", totals.queries), Card("Downloaded", totals.done)]
    return Heading("Where the pictures come from", f"Pictures by {report.by}", generated=totals.as_of, cards=cards)


def _page_row(workspace: Workspace, row: Row, samples: dict[str, list[str]], *, downloaded: bool) -> DomainRow:
    paths = [workspace.to_path(text) for text in samples.get("" if row.key == UNKNOWN else row.key, [])]
    return DomainRow(
        domain=readable(row.key),
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
