"""Fetches the pictures that the database lists, each from the best address that answers.

Reads   gleaner.db (images, image_variants, downloads)
Writes  images/<2 hex>/<image-id>_<kind>_<W>x<H>_<8 hex of sha256>.<ext>, downloads, files

Examples
    python 5_download.py
    python 5_download.py --dry-run
    python 5_download.py --workers 2 --retry-failed timeout connect_error
    python 5_download.py --stage thumbs
    python 5_download.py --stage originals --only kept

Next    python 6_dedup.py all --dry-run
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib.arguments import seconds, shard, size
from lib.errors import UsageError
from lib.text import counted

if TYPE_CHECKING:
    from lib.download.options import DownloadOptions
    from lib.download.report import DownloadReport

log = logging.getLogger("gleaner.download")
NEXT = "python 6_dedup.py all --dry-run"
MOST_MEGAPIXELS = 200  # what lib.images.decode opens


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "download")
    cli.add_dry_run(made)
    cli.add_limit(made, "pictures")
    cli.add_workers(made, 1, "processes, which divide the limits below among them")
    cli.add_undo(made)
    add = made.add_argument_group("what").add_argument
    shown = "try failed pictures again: all, or those that failed with a REASON such as timeout"
    add("--retry-failed", nargs="*", metavar="REASON", help=shown)
    add("--refresh", action="store_true", help="ask the addresses of finished pictures whether they have changed")
    shown = "ask the better addresses of finished pictures again; a larger picture replaces the smaller one"
    add("--upgrade", action="store_true", help=shown)
    shown = "which addresses: all, best first; thumbs only; originals, also in place of thumbs (default: all)"
    add("--stage", choices=("all", "thumbs", "originals"), default="all", help=shown)
    shown = "with the three above: what steps 6 and 7 have not put into quarantine"
    add("--only", choices=("kept",), help=shown)
    add("--shard", type=shard, default=(0, 1), metavar="I/N", help="part I of N of the pictures")
    shown = "robots.txt: obey it, only report it, or ignore it (default: obey)"
    add("--robots", choices=("obey", "report", "ignore"), default="obey", help=shown)
    shown = "ask nobody on the domains of this list, which step 3 writes; redirects to them are not followed either"
    add("--blocklist", type=Path, metavar="FILE", help=shown)
    shown = "ask nobody but the domains of this list; redirects to others are not followed either"
    add("--allowlist", type=Path, metavar="FILE", help=shown)
    add = made.add_argument_group("pace").add_argument
    add("--concurrency", type=cli.positive, default=64, metavar="N", help="requests at once (default: 64)")
    add("--per-host", type=cli.positive, default=6, metavar="N", help="requests at once to one host (default: 6)")
    shown = "requests at once to all hosts of one registrable domain (default: 12)"
    add("--per-domain", type=cli.positive, default=12, metavar="N", help=shown)
    shown = "more tries of an address after a failure that may pass (default: 2)"
    add("--retries", type=cli.whole, default=2, metavar="N", help=shown)
    shown = "seconds that the wait between tries starts from, doubled each time (default: 1.0)"
    add("--backoff", type=seconds, default=1.0, metavar="S", help=shown)
    shown = "seconds of silence that end a request (default: 20.0)"
    add("--timeout", type=seconds, default=20.0, metavar="S", help=shown)
    add("--deadline", type=seconds, default=300.0, metavar="S", help="seconds that one file may take (default: 300.0)")
    shown = "bytes a second below which a transfer is ended, over 10 s (default: 1K)"
    add("--min-speed", type=size, default="1K", metavar="SIZE", help=shown)
    add = made.add_argument_group("limits").add_argument
    add("--verify", choices=("decode",), help="decode every picture, in processes of their own")
    add("--strip-trailing", action="store_true", help="cut off what follows the end of a picture")
    add("--placeholders", type=Path, metavar="FILE", help="more pictures that stand for a removed one")
    shown = "fetch from loopback and private addresses and from any port too"
    add("--allow-private", action="store_true", help=shown)
    add("--max-bytes", type=size, default="50M", metavar="SIZE", help="largest file (default: 50M)")
    shown = f"largest picture, in millions of pixels (default: {MOST_MEGAPIXELS})"
    add("--max-megapixels", type=cli.positive, default=MOST_MEGAPIXELS, metavar="N", help=shown)
    shown = "room on the disk at which the run stops (default: 64M)"
    add("--min-free", type=size, default="64M", metavar="SIZE", help=shown)
    add = made.add_argument_group("where to").add_argument
    add("--to", default="", metavar="ADDRESS", help="keep the files there, such as s3://bucket/folder")
    add("--sidecar", choices=("json",), help="write what is known of each picture beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, needs="1_collect.py and 2_ingest_db.py")


def check(args: argparse.Namespace) -> None:
    if not args.max_bytes:
        raise UsageError("--max-bytes 0 keeps nothing; give a size such as 50M.")
    if args.max_megapixels > MOST_MEGAPIXELS:
        raise UsageError(f"--max-megapixels is {MOST_MEGAPIXELS} at most; steps 6 and 7 decode no larger pictures.")
    if args.only and not (args.refresh or args.upgrade or args.stage == "originals"):
        raise UsageError("--only kept goes with --refresh, --upgrade or --stage originals; add one of them.")


def work(session: cli.Session) -> cli.Summary:
    from lib.download import run as step
    from lib.download.options import options_from

    args, context = session.args, session.context
    if args.undo:
        return cli.Summary(step.undo(context, args.undo, args.to))
    cli.require_pictures(session)
    options = options_from(args, os.environ.get("GLEANER_CONTACT", ""))
    if args.retry_failed:
        step.check_reasons(context.db, args.retry_failed)
    if context.dry_run:
        found = step.plan(context.db, options, session.most_lines)
        if not args.json:
            cli.say(found.lines)
        counts = {"to_fetch": found.rows, "hosts": found.hosts, "waiting": found.waiting}
        return cli.Summary(dict(counts), next="" if found.rows else None, result={"plan": found.lines})
    return _summary(step.download(context, options), options)


def _summary(report: DownloadReport, options: DownloadOptions) -> cli.Summary:
    from lib.download.remedies import how_to_lift, why_nothing_came

    for line in report.lines():
        log.info("%s", line)
    for line in report.warnings():
        log.warning("%s", line)
    some = counted(report.waiting, "picture")
    waits = f"{some} {'waits' if report.waiting == 1 else 'wait'} until {report.next_due} or later;"
    waits += " run the same command then."
    away = (
        f"The files are at {report.elsewhere}; copy them to a folder for 6_dedup.py and 7_sort_quality.py, and name it."
    )
    nothing, reasons = report.came_to_nothing, report.stats.reasons
    why = why_nothing_came(reasons, options) if nothing else how_to_lift(reasons)
    notes = [note for note, holds in ((why, why), (waits, report.waiting), (away, report.elsewhere)) if holds]
    following = "" if report.elsewhere or nothing or report.only_waits else NEXT
    return cli.Summary(report.counts(), next=following, note=" ".join(notes), result=report.as_json())


if __name__ == "__main__":
    sys.exit(main())
