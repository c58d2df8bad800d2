"""Shows where the pictures come from: by domain, service family, engine, query, licence, format or claimed size.

Reads   images, downloads and files in the database
Writes  the table to stdout; reports/domains.html, .csv and .json (with --by X: reports/by_X.*; with --results:
        reports/results_<number of the search>.*)

Examples
    python 3_domain_report.py
    python 3_domain_report.py --by licence --format markdown
    python 3_domain_report.py --top 20 --format csv
    python 3_domain_report.py --results cat.jpg
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

from lib.arguments import require_folder_of
from lib.errors import UsageError
from lib.report.options import FORMATS, KEYS, ReportOptions, options_from


def build_parser() -> argparse.ArgumentParser:
    # fmt: off
    made = cli.parser(__doc__, "report")
    cli.add_dry_run(made)
    add = made.add_argument_group("the report").add_argument
    add("--by",        choices=KEYS, default="domain",
                       help="what the pictures are counted by (default: domain, the registrable one)")
    add("--top",       type=cli.positive, metavar="N", help="show the N largest, the others as one (default: all)")
    add("--format",    choices=FORMATS, default="text",
                       help="what is printed; html prints the page's path only (default: text)")
    add("--results",   nargs="*", metavar="QUERY",
                       help="pages of single searches, the query picture beside its hits; QUERY is a search's number, "
                            "its keyword, or its picture's path or file name (default: every search, the newest 100)")
    add("--compare",   nargs=2, metavar=("A", "B"),
                       help="two searches (number or words) or two runs of step 1 (run:N) side by side")
    add = made.add_argument_group("a part of the database, and lists of domains").add_argument
    add("--extract",   nargs="+", metavar="NAME",
                       help="write the pictures of these families or domains to a database of their own")
    add("--to",        type=Path, metavar="FILE", help="where --extract writes, such as vk_images.db")
    add("--of",        nargs="+", metavar="NAME",
                       help="families or domains for the lists below (default: the rows shown)")
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
    if args.results is not None and (args.compare or args.extract or args.blocklist or args.allowlist):
        raise UsageError("--results makes pages of searches and goes with neither --compare nor --extract nor a list.")
    if args.compare and args.format == "html":
        raise UsageError("--compare has no page; give --format text, csv, json or markdown.")
    chosen_domains([*(args.extract or ()), *(args.of or ())])
    for flag in ("to", "blocklist", "allowlist"):
        require_folder_of(getattr(args, flag), f"--{flag}")


def work(session: cli.Session) -> cli.Summary:
    from lib.report import run

    options = options_from(session.args)
    if options.results is not None:
        return results(session, options.results)
    if options.compare:
        return compare(session, options)
    if options.extract:
        pictures, note = run.extract(session.context, options)
        return cli.Summary({"pictures": pictures}, note=note)
    return report(session, options)


def compare(session: cli.Session, options: ReportOptions) -> cli.Summary:
    from lib.report.run import make_comparison
    from lib.report.tables import written_as

    found = make_comparison(session.db, options)
    if not session.args.json:
        most = session.most_lines if options.top is None else None
        print(written_as(found, options.format, most).rstrip("\n"))
    counts = {"only_a": found.total.only_a, "both": found.total.both, "only_b": found.total.only_b}
    return cli.Summary(dict(counts), result=found.as_dict())


def results(session: cli.Session, names: Sequence[str]) -> cli.Summary:
    from lib.report.results import chosen_searches, lines_of, make_results, write_results

    cli.require_pictures(session)
    searches, more = chosen_searches(session.context, names)
    told, hits, pages = [], 0, []
    for search in searches:
        if session.stopping():
            break
        found = make_results(session.context, search, workers=cli.cpu_count())
        hits += len(found.hits)
        told.append(found.as_dict())
        if not session.dry_run:
            pages.append(write_results(session.context, found, workers=cli.cpu_count())[0])
        if not session.args.json:
            cli.say(lines_of(found))
    notes = [f"page: {page}" for page in pages[:1]] + [f"and {len(pages) - 1} more beside it"] * (len(pages) > 1)
    notes += [f"{more} older searches are left out; name them, such as --results {searches[-1].id - 1}"] * bool(more)
    counts = {"searches": len(told), "hits": hits, "pictures": sum(one["pictures"] for one in told)}
    return cli.Summary(dict(counts), note="; ".join(notes), result={"searches": told})


def report(session: cli.Session, options: ReportOptions) -> cli.Summary:
    from lib.report.run import make_report, write_files, write_lists
    from lib.report.tables import written_as

    cli.require_pictures(session)
    as_json = session.args.json
    found = make_report(session.db, options.by, options.top)
    listed = write_lists(session.context, options, [row.key for row in found.rows])
    written = [] if session.dry_run else write_files(session.db, session.workspace, found)
    if options.format == "html" and not as_json:
        print(*(path for path in written if path.suffix == ".html"), sep="\n")
    elif not as_json:
        most = session.most_lines if options.top is None else None
        print(written_as(found, options.format, most).rstrip("\n"))
    totals, page = found.totals, written[0] if written and options.format != "html" else None
    shown = {"page": page, "blocklist": options.blocklist, "allowlist": options.allowlist}
    return cli.Summary(
        {"pictures": totals.pictures, "domains": totals.domains, "families": len(found.families), **listed},
        note=", ".join(f"{what}: {path}" for what, path in shown.items() if path and not session.dry_run),
        next="python 4_db_cleanup.py --dry-run",
        result=found.as_dict(),
    )


if __name__ == "__main__":
    sys.exit(main())
