"""Reads the raw answers of step 1 into the database: pictures, their addresses, and which query showed them.

Reads   responses that are pending, and their files below xhr/
Writes  images, image_variants, results, and a pending row in downloads for every picture

Examples
    python 2_ingest_db.py
    python 2_ingest_db.py --dry-run
    python 2_ingest_db.py --retry-failed
    python 2_ingest_db.py --watch
    python 2_ingest_db.py --reparse
    python 2_ingest_db.py --rescan
    python 2_ingest_db.py --import old/XHR
    python 2_ingest_db.py --import old/yandex_images.db
    python 2_ingest_db.py --import urls.parquet
    python 2_ingest_db.py --import lists/ 'part-*.parquet'
    python 2_ingest_db.py --import-folder photos
    python 2_ingest_db.py --check --repair
    python 2_ingest_db.py --undo last

An answer that cannot be read fails with a reason, and the others go on. A second run reads only what is new.

Next    python 3_domain_report.py
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.arguments import encoding_name
from lib.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lib.ingest.options import options_from
from lib.workspace import Workspace


def build_parser() -> argparse.ArgumentParser:
    # fmt: off
    made = cli.parser(__doc__, "ingest")
    add = made.add_argument_group("what is taken in").add_argument
    add("--import",        dest="source", type=Path, nargs="+", metavar="PATH",
                           help="take in raw answers, lists of URLs or another pipeline's database: files, folders, "
                                "or patterns such as 'part-*.parquet'")
    add("--import-folder", dest="folder", type=Path, metavar="DIR",
                           help="take in pictures that are on disk, each content once, with sidecars")
    add("--encoding",      type=encoding_name, metavar="NAME",
                           help="the letters of a list or sidecar that is not UTF-8, such as cp1251")
    add("--url-column",    metavar="NAME",
                           help="the column of a list that holds the addresses, or its number from 1")
    add("--rescan",        action="store_true", help="also take in files below xhr/ that the database does not know")
    add("--retry-failed",  action="store_true", help="read the answers again that could not be read")
    add("--reparse",       action="store_true",
                           help="read all answers again with a better parser; what is read no more leaves")
    add("--watch",         nargs="?", type=cli.positive, const=0, metavar="SECONDS",
                           help="go on as step 1 writes, until Ctrl-C or until nothing came for SECONDS")
    add = made.add_argument_group("database and disk").add_argument
    add("--check",         action="store_true", help="compare the database with the disk, both ways, and exit")
    add("--repair",        action="store_true", help="with --check: put right what can be put right")
    add("--strict",        action="store_true",
                           help="exit code 3 when something could not be read or --check found anything")
    cli.add_limit(made, "answers (or pictures of an imported list)")
    cli.add_workers(made)
    cli.add_dry_run(made)
    cli.add_undo(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check)


def check(args: argparse.Namespace) -> None:
    workspace = Workspace(args.workspace)
    if args.repair and not args.check:
        raise UsageError("--repair belongs to --check; give both.")
    if args.watch is not None and args.dry_run:
        raise UsageError("--watch would wait for what a dry run does not write; give one of them.")
    jobs = {"--import": args.source, "--import-folder": args.folder, "--check": args.check, "--reparse": args.reparse}
    if len(chosen := [name for name, given in {**jobs, "--undo": args.undo}.items() if given]) > 1:
        raise UsageError(f"{' and '.join(chosen)} are different jobs; give one of them.")
    if args.folder and args.folder.exists() and not args.folder.is_dir():
        raise UsageError(f"--import-folder: {args.folder} is no folder; a list or an answer is for --import.")
    can_begin = args.source or args.folder or (args.rescan and workspace.xhr.is_dir())
    if not workspace.database.exists() and not can_begin:
        raise UsageError(f"there is no database in {workspace.root}; run 1_collect.py first.")
    if args.source and not workspace.database.exists():  # what cannot be taken in makes no workspace
        from lib.ingest.sources import refuse_unknown

        refuse_unknown(args.source, args.encoding or "", args.url_column or "")
    if args.folder and not args.folder.exists():
        raise UsageError(f"{args.folder} is no folder; give the path of one that exists.")


def work(session: cli.Session) -> cli.Summary:
    from lib.db.journal import has_rows
    from lib.ingest.run import counts_of, remark_on, take_in

    args, options = session.args, options_from(session.args)
    if args.undo:
        return undo(session)
    if args.check:
        return check_disk(session)
    totals = take_in(session.context, options)
    counts = counts_of(totals, options, dry_run=session.dry_run)
    code = EXIT_INCOMPLETE if args.strict and totals.failed else EXIT_OK
    has_pictures = has_rows(session.db, "images") and not totals.came_to_nothing
    following = "python 3_domain_report.py" if has_pictures else ""
    return cli.Summary(counts, following, code, remark_on(totals, session.run_id))


def undo(session: cli.Session) -> cli.Summary:
    from lib.journal.rows import undo_named

    counts, note = undo_named(session.context, session.step, session.args.undo)
    return cli.Summary(dict(counts), note=note)


def check_disk(session: cli.Session) -> cli.Summary:
    from lib.ingest.check import Checker

    repair = session.args.repair
    found = Checker(session.context, repair and not session.dry_run).run()
    if not session.args.json:
        cli.say(found.lines(), session.most_lines)
    left = sum(found.counts().values()) - found.repaired
    note = "put right what can be: python 2_ingest_db.py --check --repair" if found.mendable and not repair else ""
    counts = {"files": found.files, "answers": found.answers, **found.counts(), "repaired": found.repaired}
    code = EXIT_INCOMPLETE if session.args.strict and left > 0 else EXIT_OK
    result = {"findings": found.rows()}
    return cli.Summary(dict(counts), None if not repair else "", note=note, exit_code=code, result=result)


if __name__ == "__main__":
    sys.exit(main())
