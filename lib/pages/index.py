"""`reports/index.html`: links the reports which are there, and tells what the last runs did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.pages.model import Heading, ReportEntry, RunRow
from lib.pages.render import picture_url, read_cards, render, write_page
from lib.workspace import Workspace

INDEX = "index.html"
MOST_CARDS = 4  # totals shown of each report
TITLES = {
    "domains": ("Where the pictures come from", "Step 3 · domain report"),
    "dedup": ("Repeated pictures", "Step 6 · deduplication"),
}


def render_run_summary(
    page: Path, heading: Heading, reports: Sequence[ReportEntry], runs: Sequence[RunRow] = ()
) -> str:
    """The page as HTML; `reports` in the order to show them."""
    linked = [(report, picture_url(report.file, page)) for report in reports]
    return render("index", "index.js", heading=heading, reports=linked, runs=runs)


def refresh_index(workspace: Workspace) -> Path:
    """Writes the index anew from the pages that lie in `reports/`; the same pages give the same bytes."""
    page = workspace.reports / INDEX
    found = sorted((path for path in workspace.reports.glob("*.html") if path.name != INDEX), key=_order)
    entries = [ReportEntry(path, *_title(path.stem), counts=read_cards(path)[:MOST_CARDS]) for path in found]
    return write_page(page, render_run_summary(page, Heading("Reports", f"Workspace {workspace.root.name}"), entries))


def _order(path: Path) -> tuple[str, bool, str]:
    """By step, and within one the main report first."""
    return _title(path.stem)[1], path.stem not in TITLES, path.stem


def _title(stem: str) -> tuple[str, str]:
    if stem.startswith("by_"):
        return f"Pictures by {stem[3:]}", "Step 3 · domain report"
    if stem.startswith("sort_"):
        return f"Sorted by {stem[5:].replace('_', ' ')}", "Step 7 · sorting"
    return TITLES.get(stem, (stem.replace("_", " ").capitalize(), ""))
