"""`reports/index.html`: which reports there are, and what the last runs did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.pages.model import Heading, ReportEntry, RunRow
from lib.pages.render import picture_url, render


def render_run_summary(
    page: Path, heading: Heading, reports: Sequence[ReportEntry], runs: Sequence[RunRow] = ()
) -> str:
    """The page as HTML; `reports` in the order to show them."""
    linked = [(report, picture_url(report.file, page)) for report in reports]
    return render("index", "index.js", heading=heading, reports=linked, runs=runs)
