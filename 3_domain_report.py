"""Shows where the pictures come from: by domain, service family, engine, query, licence, format or claimed size.

Reads   images, downloads and files in the database
Writes  the table to stdout; reports/domains.html, .csv and .json (with --by X: reports/by_X.*)

Examples
    python 3_domain_report.py
    python 3_domain_report.py --by licence --format markdown
    python 3_domain_report.py --top 20 --format csv

Next    python 4_db_cleanup.py --dry-run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lib import cli


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "report")
    cli.add_dry_run(made)
    made.add_argument(
        "--by",
        choices=("domain", "host", "engine", "query", "licence", "format", "size"),
        default="domain",
        help="what the pictures are counted by (default: domain, the registrable one)",
    )
    made.add_argument(
        "--top", type=cli.positive, metavar="N", help="show the N largest, the others as one (default: all)"
    )
    made.add_argument(
        "--format",
        choices=("text", "csv", "json", "markdown", "html"),
        default="text",
        help="what is printed; html prints the page's path only (default: text)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, needs="1_collect.py and 2_ingest_db.py")


def work(session: cli.Session) -> cli.Summary:
    from lib.report import FORMATS, make_report, write_files

    report = make_report(session.db, session.args.by, session.args.top)
    if not report.rows:
        raise cli.UsageError("the database holds no picture yet; run 2_ingest_db.py first.")
    written = [] if session.dry_run else write_files(session.db, session.workspace, report)
    if session.args.format == "html":
        print(*(path for path in written if path.suffix == ".html"), sep="\n")
    elif not session.args.json:
        print(FORMATS[session.args.format](report).rstrip("\n"))
    totals = report.totals
    return cli.Summary(
        {"pictures": totals.pictures, "domains": totals.domains, "families": len(report.families)},
        note=f"page: {written[0]}" if written else "",
        next="python 4_db_cleanup.py --dry-run",
        result=report.as_dict(),
    )


if __name__ == "__main__":
    sys.exit(main())
