"""Step 3 from top to bottom: counts, writes the page and its files, compares, extracts, and writes lists of domains."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from lib.db import Context, Database
from lib.db import report as counts
from lib.domains import chosen_domains, family_of, names_of, shown_host, write_list
from lib.pages.model import Card, DomainRow, FamilyRow, Heading
from lib.pages.render import write_page
from lib.pages.reports import render_domain_report
from lib.report.options import ReportOptions
from lib.report.tables import Comparison, DomainReport, Row, written_as
from lib.text import counted
from lib.workspace import Workspace

SAMPLES = 4  # thumbnails beside a domain on the page
SAMPLED = 24  # rows that are asked for them: the page shows twelve, and files of some may have gone
PLURALS = {
    "domain": "domains", "family": "families", "host": "hosts", "engine": "engines", "licence": "licences",
    "format": "formats", "size": "claimed sizes", "query": "queries",
}  # fmt: skip
SINGULARS = {"size": "claimed size"}
UNKNOWN, NO_FAMILY = "(unknown)", "(no family)"  # the row of pictures without the thing they are counted by


def make_report(db: Database, by: str, top: int | None) -> DomainReport:
    """Counts everything; `top` keeps the largest rows and sums the others up in one."""
    counts.prepare_for_reports(db)
    groups, sizes, engines = counts.groups(db, by), counts.median_sizes(db, by), counts.engines_by_key(db, by)
    whole = sum(group.pictures for group in groups) or 1
    nothing = NO_FAMILY if by == "family" else UNKNOWN
    rows, seen = [], 0
    for group in groups[: top or len(groups)]:
        seen += group.pictures
        family = family_of(group.key) if by == "domain" else ""
        row = _row(group, group.key or nothing, family, whole, seen / whole, sizes.get(group.key, ""))
        rows.append(replace(row, engines=engines.get(group.key, "")))
    rest = groups[len(rows) :]
    if others := [group for group in rest if group.key]:
        seen += sum(group.pictures for group in others)
        sums = (sum(getattr(group, name) for group in others) for name in ("pictures", "done", "failed", "files"))
        name = f"({counted(len(others), 'other')})"
        rows.append(_row(counts.ReportGroup("", *sums), name, "", whole, seen / whole, ""))
    # What has none is no other of them, however small it is.
    last = [_row(group, nothing, "", whole, 1.0, sizes.get("", "")) for group in rest if not group.key]
    rows += [replace(row, engines=engines.get("", "")) for row in last]
    nameless = sum(group.pictures for group in groups if not group.key)
    named = sum(1 for group in groups if group.key)
    return DomainReport(by, counts.totals(db), named, nameless, tuple(rows), tuple(_families(db)))


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
    stem = workspace.reports / ("domains" if report.by == "domain" else f"by_{report.by}")
    samples = counts.sample_paths(db, report.by, SAMPLES, _sampled(report))
    rows = [_page_row(workspace, row, samples, downloaded=report.totals.done > 0) for row in report.rows]
    page = stem.with_suffix(".html")
    html = render_domain_report(
        page, _heading(report), rows, report.families_shown,
        noun=SINGULARS.get(report.by, report.by), plural=PLURALS[report.by], named=report.named,
    )  # fmt: skip
    written = [page, stem.with_suffix(".csv"), stem.with_suffix(".json")]
    for path, text in zip(written, (html, report.as_csv(), written_as(report, "json")), strict=True):
        write_page(path, text)
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
    cards = [
        Card("Picture" if totals.pictures == 1 else "Pictures", totals.pictures, report.shared_note),
        Card("Address" if totals.addresses == 1 else "Addresses", totals.addresses),
        Card(
            (SINGULARS.get(report.by, report.by) if report.named == 1 else PLURALS[report.by]).capitalize(),
            report.named,
            note,
        ),
    ]
    cards += [] if report.by == "query" else [Card("Search" if totals.queries == 1 else "Searches", totals.queries)]
    cards.append(Card("Downloaded", totals.done))
    return Heading("Where the pictures come from", f"Pictures by {report.by}", generated=totals.as_of, cards=cards)


def _page_row(workspace: Workspace, row: Row, samples: dict[str, list[str]], *, downloaded: bool) -> DomainRow:
    return DomainRow(
        domain=shown_host(row.key),
        named=not row.key.startswith("("),
        count=row.pictures,
        share=row.share,
        cumulative=row.cumulative,
        unique=row.unique if downloaded else None,
        family=row.family,
        downloaded=row.done if downloaded else None,
        failed=row.failed if downloaded else None,
        median_size=row.median_size,
        engines=row.engines,
        samples=[workspace.to_path(text) for text in samples.get(_key(row), [])],
    )


def make_comparison(db: Database, options: ReportOptions) -> Comparison:
    """Compares the two named sides by a key; `top` keeps the largest rows. Raises UsageError for what is no side."""
    by, top = options.by, options.top
    counts.prepare_for_reports(db)
    a, b = (counts.side(db, name) for name in options.compare or ())
    rows = counts.compare(db, a, b, by)
    once = counts.compare(db, a, b, "engine") if by == "query" else rows  # one engine and many queries a picture
    sums = [sum(numbers) for numbers in zip(*((row.only_a, row.both, row.only_b) for row in once), strict=True)]
    total = counts.SharedPictures("all", *(sums or (0, 0, 0)))
    overlap = total.both / (total.only_a + total.both + total.only_b) if once else 0.0
    nothing = NO_FAMILY if by == "family" else UNKNOWN
    shown = [row if row.key else replace(row, key=nothing) for row in rows[: top or len(rows)]]
    return Comparison(by, a.name, b.name, overlap, total, tuple(shown))


def extract(context: Context, options: ReportOptions) -> tuple[int, str]:
    """Writes the pictures of some domains to a database of their own; gives their number and a remark."""
    assert options.extract and options.to
    chosen = chosen_domains(options.extract)
    if not (found := counts.count_pictures(context.db, chosen)):
        return 0, f"no picture comes from {' or '.join(options.extract)}"
    if context.dry_run:
        return found, f"would be written: {options.to}"
    return counts.extract(context.db, chosen, options.to), f"written: {options.to}"


def write_lists(context: Context, options: ReportOptions, shown: list[str]) -> dict[str, int]:
    """Writes the names given, or those of the rows shown, as lists for steps 4 and 5; gives their numbers."""
    rows = [name for name in shown if name and not name.startswith("(")]
    names = names_of(chosen_domains(options.of or (rows if options.by == "family" else ()))) or rows
    numbers = {}
    for flag, path, purpose in (
        ("blocklist", options.blocklist, "leave these domains out"),
        ("allowlist", options.allowlist, "keep to these domains"),
    ):
        if path:
            about = f"{flag}: {purpose}"
            numbers[f"{flag}_names"] = len(set(names)) if context.dry_run else write_list(path, names, about)
    return numbers
