"""Finds repeated pictures and moves them into the quarantine; the best copy of each stays where it is.

Reads   files in the database and images/, or the folders named on the command line
Writes  quarantine/<run>/ with a journal (--undo brings everything back), duplicates, reports/dedup.html, .json, .csv

MODE is one of
    exact       the same bytes, or the same pixels in other bytes
    similar     exact, and the same picture re-encoded, resized or retoned; edited ones are shown for review
    filename    several files of one picture by the names that step 5 gives (other names never form a group)
    all         similar and filename (default)

Examples
    python 6_dedup.py --dry-run
    python 6_dedup.py
    python 6_dedup.py exact photos more-photos --protect photos
    python 6_dedup.py similar photos --interactive
    python 6_dedup.py --remove bytes pixels --max-share 20%
    python 6_dedup.py --undo last

Next    python 7_sort_quality.py quality --dry-run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib import cli

MODES = ("exact", "similar", "filename", "all")
KINDS = ("bytes", "pixels", "same", "edited", "filename", "none")
KEEP = ("best", "largest", "oldest", "newest", "first")


SHOWN = 10  # groups printed without -v


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "dedup")
    add = made.add_argument
    add("what", nargs="*", metavar="MODE|FOLDER", help="a mode, then folders (default: all, on the workspace)")
    add("--mode", choices=MODES, help="the mode, where it is not the first word")
    add("--threshold", type=bits, default=40, metavar="N", help="bits of 256 that may differ (default: 40)")
    shown = "what is moved: bytes, pixels, same, edited, filename, or none (default: bytes pixels same)"
    add("--remove", nargs="+", choices=KINDS, default=["bytes", "pixels", "same"], metavar="KIND", help=shown)
    add("--keep", choices=KEEP, default="best", help="which copy stays (default: best, as docs/dedup.md says)")
    add("--protect", type=Path, action="append", default=[], metavar="DIR", help="move nothing below DIR; repeatable")
    shown = "refuse to move more of the files than this (default: 50%%, but 10 files in any case)"
    add("--max-share", type=cli.share, metavar="SHARE", help=shown)
    add("--interactive", action="store_true", help="ask for each group: yes, no, stop asking, quit")
    add("--plan", type=Path, metavar="FILE", help="write the plan to FILE as JSON and move nothing")
    add("--apply", type=Path, metavar="FILE", help="move only what a plan, perhaps edited, says to remove")
    add("--decisions", type=Path, metavar="FILE", help="follow the decisions saved from the page")
    add("--format", choices=("text", "csv"), default="text", help="how the groups are printed (default: text)")
    cli.add_dry_run(made)
    cli.add_workers(made)
    cli.add_executor(made)
    cli.add_undo(made)
    return made


def bits(text: str) -> int:
    """A distance of 0 to 64 bits."""
    value = cli.whole(text)
    if value > 64:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 64: distinct pictures begin to match")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, alone=True)


def check(args: argparse.Namespace) -> None:
    leading = args.what[0] if args.what and args.what[0] in MODES else None
    if leading and args.mode and leading != args.mode:
        raise cli.UsageError(f"the modes {leading} and --mode {args.mode} contradict each other; give one of them.")
    args.folders = [Path(word) for word in args.what[1 if leading else 0 :]]
    args.mode = leading or args.mode or "all"
    if args.plan and args.dry_run:
        raise cli.UsageError("--plan writes a file and a dry run writes nothing; leave one of them out.")
    for folder in (*args.folders, *args.protect):
        if not folder.exists():
            raise cli.UsageError(f"{folder} does not exist; modes are {', '.join(MODES)}, the rest are folders.")
    if not args.folders and not (args.workspace / "gleaner.db").exists():
        raise cli.UsageError(f"there is no database in {args.workspace}; run 5_download.py first, or name a folder.")


def work(session: cli.Session) -> cli.Summary:
    from lib import actions
    from lib.dedup.page import as_csv, as_lines, as_result
    from lib.dedup.run import Run

    if session.args.undo:
        return undo(session)
    if not session.dry_run:
        actions.settle(session.db, session.workspace, "dedup")
    run = Run(
        session.args, session.db, session.workspace, session.run_id, session.dry_run, session.stopping, session.bar
    )
    groups = run.find()
    if session.args.interactive and not session.dry_run:
        from lib.dedup.ask import ask

        groups = run.accept(
            ask(groups, lambda text: print(text, end="", file=sys.stderr, flush=True), sys.stdin.readline)
        )
    if not session.stopping():
        run.apply()
    if not session.args.json:
        most = None if session.args.verbose else SHOWN
        as_table = session.args.format == "csv"
        for line in [as_csv(groups).rstrip()] if as_table else as_lines(groups, session.workspace, most):
            print(line)
    counts = run.counts()
    about = {"mode": session.args.mode, "run": session.run_id or None, "dry_run": session.dry_run}
    following = "python 7_sort_quality.py quality --dry-run"
    return cli.Summary(counts, note=run.note, next=following, result=as_result(groups, counts | about))


def undo(session: cli.Session) -> cli.Summary:
    from lib import actions

    if not session.dry_run:
        actions.settle(session.db, session.workspace, "dedup")
    number = actions.run_to_undo(session.db, "dedup", session.args.undo)
    if number is None:
        return cli.Summary({"undone": 0}, note="there is nothing to undo")
    counts = actions.undo(session.db, session.workspace, number, dry_run=session.dry_run, bar=session.bar)
    return cli.Summary({"run": number, **counts}, next="python 6_dedup.py --dry-run")


if __name__ == "__main__":
    sys.exit(main())
