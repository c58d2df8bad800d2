"""Finds repeated pictures and moves them into the quarantine; the best copy of each stays where it is.

Reads   files in the database and images/, or the folders named on the command line
Writes  quarantine/<run>/ with a journal (--undo brings everything back), duplicates, reports/dedup.html, .json, .csv

MODE is one of
    exact       the same bytes, or the same pixels in other bytes
    similar     exact, and the same picture re-encoded, resized or retoned; edited ones are shown for review
    filename    several files of one picture by the names that step 5 gives (other names never form a group)
    semantic    similar, and other pictures of the same subject (open_clip), for review
    all         similar and filename (default)

Examples
    python 6_dedup.py --dry-run
    python 6_dedup.py
    python 6_dedup.py exact photos more-photos --protect photos
    python 6_dedup.py similar new-photos --reference my-dataset
    python 6_dedup.py train test --leak
    python 6_dedup.py --near-query 40 --far-query 110 --dry-run
    python 6_dedup.py --remove bytes pixels --max-share 20%
    python 6_dedup.py --restore holiday/beach.jpg
    python 6_dedup.py --undo last
    python 6_dedup.py --purge last

Next    python 7_sort_quality.py quality --dry-run
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.dedup.options import HASHES, KEEP, KINDS, MODES, OF_ONE_RUN, REMOVED, check, options_from

COUNTED = {"bytes": "byte for byte", "pixels": "pixel for pixel", "same": "same picture"}  # in the summary line


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "dedup")
    made.add_argument(
        "what", nargs="*", metavar="MODE|FOLDER", help="a mode, then folders (default: all, on the workspace)"
    )
    add = made.add_argument_group("what is a repeat").add_argument
    add("--mode", choices=MODES, help="the mode, where it is not the first word")
    add("--hash", choices=HASHES, default="dct", help="256-bit DCT hash, or one of imagehash's kinds (default: dct)")
    add("--hash-size", type=cli.positive, metavar="N", help="bits along a side of imagehash's kinds (default: 8)")
    shown = "bits that may differ for the same picture (default: 40 of 256; of 64: phash 4, dhash 2, ahash, whash 1)"
    add("--threshold", type=cli.whole, metavar="N", help=shown)
    add("--reference", type=Path, action="append", default=[], metavar="DIR", help="compare against, never touch DIR")
    shown = "also remove what is within N bits of a query picture (step 1's, or those of --reference)"
    add("--near-query", type=cli.whole, metavar="N", help=shown)
    add("--far-query", type=cli.whole, metavar="N", help="also remove what is beyond N bits of every query picture")
    shown = "show what of the second folder is in the first, move nothing; exit code 3 where there is any"
    add("--leak", action="store_true", help=shown)
    add("--clip-model", default="default", metavar="NAME", help="of mode semantic, as in step 7 (default: default)")
    add("--models-dir", type=Path, metavar="DIR", help="where the models' files lie (default: as in step 7)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="what a model runs on (default: auto)")
    add("--least-cosine", type=cli.share, metavar="X", help="of two pictures of one subject (default: 0.93)")
    add = made.add_argument_group("what becomes of it").add_argument
    shown = "what is moved: bytes, pixels, same, edited, semantic, filename, or none (default: bytes pixels same)"
    add("--remove", nargs="+", choices=KINDS, default=list(REMOVED), metavar="KIND", help=shown)
    add("--keep", choices=KEEP, default="best", help="which copy stays (default: best, as docs/dedup.md says)")
    add("--protect", type=Path, action="append", default=[], metavar="DIR", help="move nothing below DIR; repeatable")
    shown = "refuse to move more of the files than this (default: 50%%, of a search 80%%, 10 files in any case)"
    add("--max-share", type=cli.share, metavar="SHARE", help=shown)
    add("--link", choices=("hard", "sym"), help="put a link to the keeper in the place of files with the same bytes")
    add("--interactive", action="store_true", help="ask for each group: yes, no, stop asking, quit")
    add("--plan", type=Path, metavar="FILE", help="write the plan to FILE as JSON and move nothing")
    add("--apply", type=Path, metavar="FILE", help="move only what a plan, perhaps edited, says to remove")
    add("--decisions", type=Path, metavar="FILE", help="follow decisions saved from the page; remember what is kept")
    shown = "bring a picture back from the quarantine: its path, then or now, or its sha256; repeatable"
    add("--restore", action="append", default=[], metavar="PICTURE", help=shown)
    add("--purge", type=cli.run_reference, metavar="RUN|last", help="delete a run's quarantine for good, after asking")
    add("--format", choices=("text", "csv"), default="text", help="how the groups are printed (default: text)")
    cli.add_page(made)
    cli.add_dry_run(made)
    cli.add_limit(made, "pictures")
    cli.add_workers(made)
    cli.add_executor(made)
    cli.add_undo(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, alone=True)


def work(session: cli.Session) -> cli.Summary:
    if session.args.mode != "semantic":
        # Before NumPy is loaded: its products are small here, and threads that wait for their share of one by spinning
        # cost a third of all processor time. Embeddings are compared by large products.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from lib.dedup.plan import ask
    from lib.dedup.report import as_csv, as_lines
    from lib.dedup.run import Run, finish_interrupted

    if not session.dry_run:
        finish_interrupted(session.context, purging=bool(session.args.purge))
    if session.args.undo:
        return undo(session)
    if session.args.purge:
        return purge(session)
    if session.args.restore:
        return restore(session)
    command = cli.command_again(session.parser, session.args, OF_ONE_RUN)
    run = Run(session.context, options_from(session.args, command))
    groups = run.find()
    if session.args.interactive and not session.dry_run:
        groups = run.accept(*ask(groups, say, sys.stdin.readline))
    if not session.stopping():
        run.apply()
    if not session.args.json:
        cli.say(run.returns.lines() if run.returns else (), session.most_lines)
        as_text = as_lines(groups, session.workspace, session.most_lines, run.broken, run.page is not None)
        for line in [as_csv(groups, run.broken).rstrip()] if session.args.format == "csv" else as_text:
            print(line)
    about = {"mode": session.args.mode, "run": session.run_id or None, "dry_run": session.dry_run}
    result = run.result(run.counts() | about)
    beside = {name: result[name] for name in ("groups", "summary")}  # other programs have long read them there
    plan = session.args.plan
    following = session.again("plan", plus=["--apply", str(plan)]) if plan else run.following
    return cli.Summary(run.counts(), following, run.exit_code, run.remark, result, beside=beside, words=COUNTED)


def undo(session: cli.Session) -> cli.Summary:
    from lib.db.journal import has_rows
    from lib.dedup.run import undo

    counts = undo(session.context, session.args.undo)
    note = "" if len(counts) > 1 else "there is nothing to undo"
    # A run on folders alone leaves no picture in the database that the next one could look at.
    following = "python 6_dedup.py --dry-run" if has_rows(session.db, "images") else ""
    return cli.Summary(counts, note=note, next=following)


def restore(session: cli.Session) -> cli.Summary:
    from lib.dedup.restore import restore

    done = restore(session.context, session.args.restore)
    cli.say(() if session.args.json else done.lines(), session.most_lines)
    return cli.Summary(done.counts(), exit_code=done.exit_code)


def purge(session: cli.Session) -> cli.Summary:
    from lib.dedup.plan import purge_asked

    counts, note = purge_asked(session.context, session.args.purge, say, sys.stdin.readline)
    return cli.Summary(counts, note=note)


def say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
