"""Shows where the pictures come from: by domain, service family, engine, query, licence, format or claimed size.

Reads   images, downloads and files in the database
Writes  the table to stdout; reports/domains.html, .csv and .json (with --by X: reports/by_X.*)

Examples
    python 3_domain_report.py
    python 3_domain_report.py --by licence --format markdown
    python 3_domain_report.py --top 20 --format csv
    python 3_domain_report.py --compare run:1 run:2 --by engine
    python 3_domain_report.py --extract VK --to vk_images.db
    python 3_domain_report.py --of Pinterest example.org --blocklist blocked.txt

Next    python 4_db_cleanup.py --dry-run
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.errors import UsageError

KEYS = ("domain", "family", "host", "engine", "query", "licence", "format", "size")


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "report")
    cli.add_dry_run(made)
    add = made.add_argument_group("the report").add_argument
    shown = "what the pictures are counted by (default: domain, the registrable one)"
    add("--by", choices=KEYS, default="domain", help=shown)
    add("--top", type=cli.positive, metavar="N", help="show the N largest, the others as one (default: all)")
    shown = "what is printed; html prints the page's path only (default: text)"
    add("--format", choices=("text", "csv", "json", "markdown", "html"), default="text", help=shown)
    shown = "two searches (number or words) or two runs of step 1 (run:N) side by side"
    add("--compare", nargs=2, metavar=("A", "B"), help=shown)
    add = made.add_argument_group("a part of the database, and lists of domains").add_argument
    shown = "write the pictures of these families or domains to a database of their own"
    add("--extract", nargs="+", metavar="NAME", help=shown)
    add("--to", type=Path, metavar="FILE", help="where --extract writes, such as vk_images.db")
    shown = "families or domains for the lists below (default: the rows shown)"
    add("--of", nargs="+", metavar="NAME", help=shown)
    add("--blocklist", type=Path, metavar="FILE", help="write a list of domains to be left out")
    add("--allowlist", type=Path, metavar="FILE", help="write a list of domains to keep to")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, needs="1_collect.py and 2_ingest_db.py")


def check(args: argparse.Namespace) -> None:
    from lib.domains import chosen_domains

    if bool(args.extract) != bool(args.to):
        raise UsageError("--extract and --to belong together; give both.")
    if args.of and not (args.blocklist or args.allowlist):
        raise UsageError("--of names domains for a list; give --blocklist FILE or --allowlist FILE too.")
    if (args.blocklist or args.allowlist) and not args.of and args.by not in ("domain", "host", "family"):
        raise UsageError(f"a list holds domains and --by {args.by} shows none; name them with --of.")
    if args.compare and args.format == "html":
        raise UsageError("--compare has no page; give --format text, csv, json or markdown.")
    chosen_domains([*(args.extract or ()), *(args.of or ())])


def work(session: cli.Session) -> cli.Summary:
    args = session.args
    if args.compare:
        return compare(session)
    if args.extract:
        return extract(session)
    from lib.report.domains import FORMATS, make_report, write_files

    cli.require_pictures(session)
    report = make_report(session.db, args.by, args.top)
    listed = write_lists(session, [row.key for row in report.rows])
    written = [] if session.dry_run else write_files(session.db, session.workspace, report)
    if args.format == "html" and not args.json:
        print(*(path for path in written if path.suffix == ".html"), sep="\n")
    elif not args.json:
        print(FORMATS[args.format](report).rstrip("\n"))
    totals, page = report.totals, written[0] if written and args.format != "html" else None
    shown = {"page": page, "blocklist": args.blocklist, "allowlist": args.allowlist}
    return cli.Summary(
        {"pictures": totals.pictures, "domains": totals.domains, "families": len(report.families), **listed},
        note=", ".join(f"{what}: {path}" for what, path in shown.items() if path and not session.dry_run),
        next="python 4_db_cleanup.py --dry-run",
        result=report.as_dict(),
    )


def compare(session: cli.Session) -> cli.Summary:
    from lib.report.compare import FORMATS, make_comparison

    found = make_comparison(session.db, session.args.compare, session.args.by, session.args.top)
    if not session.args.json:
        print(FORMATS[session.args.format](found).rstrip("\n"))
    counts = {"only_a": found.total.only_a, "both": found.total.both, "only_b": found.total.only_b}
    return cli.Summary(dict(counts), result=found.as_dict())


def extract(session: cli.Session) -> cli.Summary:
    from lib.db.report import count_pictures
    from lib.db.report import extract as write
    from lib.domains import chosen_domains

    chosen = chosen_domains(session.args.extract)
    found = count_pictures(session.db, chosen)
    if not found:
        return cli.Summary({"pictures": 0}, note=f"no picture comes from {' or '.join(session.args.extract)}")
    if session.dry_run:
        return cli.Summary({"pictures": found}, note=f"would be written: {session.args.to}")
    return cli.Summary({"pictures": write(session.db, chosen, session.args.to)}, note=f"written: {session.args.to}")


def write_lists(session: cli.Session, shown: list[str]) -> dict[str, int]:
    """Writes the names given, or those of the rows shown, as lists for steps 4 and 5; gives their numbers."""
    from lib.domains import chosen_domains, names_of, write_list

    args = session.args
    rows = [name for name in shown if name and not name.startswith("(")]
    names = names_of(chosen_domains(args.of or rows if args.by == "family" or args.of else ())) or rows
    counts = {}
    for flag, path in (("blocklist", args.blocklist), ("allowlist", args.allowlist)):
        if path:
            about = f"{flag}: {'leave these domains out' if flag == 'blocklist' else 'keep to these domains'}"
            counts[f"{flag}_names"] = len(set(names)) if session.dry_run else write_list(path, names, about)
    return counts


if __name__ == "__main__":
    sys.exit(main())
