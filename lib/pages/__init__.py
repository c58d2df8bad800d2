"""Self-contained HTML pages: plain values in, one file out that opens without a network and prints well.

    html = render_domain_report(page, heading, domains, families)
    write_page(page, html)

`page` is where the page will lie; links to pictures are made relative to it.
"""

from __future__ import annotations

from lib.pages.contact_sheet import render_contact_sheet
from lib.pages.dedup import render_dedup_report
from lib.pages.domains import render_domain_report
from lib.pages.index import render_run_summary
from lib.pages.model import (
    Bucket,
    Card,
    DomainRow,
    FamilyRow,
    GroupView,
    Heading,
    MemberView,
    ReportEntry,
    RunRow,
    SheetItem,
)
from lib.pages.render import write_page

__all__ = [
    "Bucket",
    "Card",
    "DomainRow",
    "FamilyRow",
    "GroupView",
    "Heading",
    "MemberView",
    "ReportEntry",
    "RunRow",
    "SheetItem",
    "render_contact_sheet",
    "render_dedup_report",
    "render_domain_report",
    "render_run_summary",
    "write_page",
]
