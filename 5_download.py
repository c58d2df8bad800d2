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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.arguments import seconds, shard, size
from lib.errors import UsageError
from lib.text import counted

if TYPE_CHECKING:
    from lib.download.options import DownloadOptions
    from lib.download.run import DownloadReport

log = logging.getLogger("gleaner.download")
NEXT = "python 6_dedup.py all --dry-run"
MOST_MEGAPIXELS = 200  # what lib.images.decode opens


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "download")
    cli.add_dry_run(made)
    cli.add_limit(made, "pictures")
    cli.add_workers(made, 1, "processes, which divide the limits below among them")
    cli.add_undo(made)
    groups = {name: made.add_argument_group(name) for name in ("what", "pace", "limits", "where to")}
    for name, flag, extra, text in CHOICES:
        groups[name].add_argument(flag, help=text, **extra)
    for name, flag, kind, default, unit, text in NUMBERS:
        groups[name].add_argument(flag, type=kind, default=default, metavar=unit, help=f"{text} (default: {default})")
    return made


ON: dict[str, Any] = {"action": "store_true"}
RETRY = "try failed pictures again: all, or those that failed with a REASON such as timeout"
UPGRADE = "ask the better addresses of finished pictures again; a larger picture replaces the smaller one"
STAGE = "which addresses: all, best first; thumbs only; originals, also in place of thumbs (default: all)"
ROBOTS = "robots.txt: obey it, only report it, or ignore it (default: obey)"
BLOCK = "ask nobody on the domains of this list, which step 3 writes; redirects to them are not followed either"
ALLOW = "ask nobody but the domains of this list; redirects to others are not followed either"
PRIVATE = "fetch from loopback and private addresses and from any port too"
CHOICES: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("what", "--retry-failed", {"nargs": "*", "metavar": "REASON"}, RETRY),
    ("what", "--refresh", ON, "ask the addresses of finished pictures whether they have changed"),
    ("what", "--upgrade", ON, UPGRADE),
    ("what", "--stage", {"choices": ("all", "thumbs", "originals"), "default": "all"}, STAGE),
    ("what", "--only", {"choices": ("kept",)}, "with the three above: what steps 6 and 7 have not put into quarantine"),
    ("what", "--shard", {"type": shard, "default": (0, 1), "metavar": "I/N"}, "part I of N of the pictures"),
    ("what", "--robots", {"choices": ("obey", "report", "ignore"), "default": "obey"}, ROBOTS),
    ("what", "--blocklist", {"type": Path, "metavar": "FILE"}, BLOCK),
    ("what", "--allowlist", {"type": Path, "metavar": "FILE"}, ALLOW),
    ("limits", "--verify", {"choices": ("decode",)}, "decode every picture, in processes of their own"),
    ("limits", "--strip-trailing", ON, "cut off what follows the end of a picture"),
    ("limits", "--placeholders", {"type": Path, "metavar": "FILE"}, "more pictures that stand for a removed one"),
    ("limits", "--allow-private", ON, PRIVATE),
    ("where to", "--to", {"default": "", "metavar": "ADDRESS"}, "keep the files there, such as s3://bucket/folder"),
    ("where to", "--sidecar", {"choices": ("json",)}, "write what is known of each picture beside it"),
)
NUMBERS: tuple[tuple[str, str, Callable[[str], Any], Any, str, str], ...] = (
    ("pace", "--concurrency", cli.positive, 64, "N", "requests at once"),
    ("pace", "--per-host", cli.positive, 6, "N", "requests at once to one host"),
    ("pace", "--per-domain", cli.positive, 12, "N", "requests at once to all hosts of one registrable domain"),
    ("pace", "--retries", cli.whole, 2, "N", "more tries of an address after a failure that may pass"),
    ("pace", "--backoff", seconds, 1.0, "S", "seconds that the wait between tries starts from, doubled each time"),
    ("pace", "--timeout", seconds, 20.0, "S", "seconds of silence that end a request"),
    ("pace", "--deadline", seconds, 300.0, "S", "seconds that one file may take"),
    ("pace", "--min-speed", size, "1K", "SIZE", "bytes a second below which a transfer is ended, over 10 s"),
    ("limits", "--max-bytes", size, "50M", "SIZE", "largest file"),
    ("limits", "--max-megapixels", cli.positive, MOST_MEGAPIXELS, "N", "largest picture, in millions of pixels"),
    ("limits", "--min-free", size, "64M", "SIZE", "room on the disk at which the run stops"),
)


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

    args = session.args
    if args.undo:
        return cli.Summary(
            step.undo(session.db, session.workspace, args.undo, session.dry_run, session.run_id, args.to)
        )
    cli.require_pictures(session)
    options = _options(args)
    if args.retry_failed:
        step.check_reasons(session.db, args.retry_failed)
    if session.dry_run:
        found = step.plan(session.db, options)
        if not args.json:
            print(*map(cli.clean, found.lines), sep="\n", end="\n" if found.lines else "")
        return cli.Summary({"to_fetch": found.rows, "hosts": found.hosts, "waiting": found.waiting})
    report = step.download(
        session.db, session.workspace, session.run_id, options, stopping=session.stopping, bar=session.bar
    )
    return _summary(report)


def _options(args: argparse.Namespace) -> DownloadOptions:
    from lib.download.options import from_arguments

    return from_arguments(vars(args), os.environ.get("GLEANER_CONTACT", ""))


def _summary(report: DownloadReport) -> cli.Summary:
    for line in report.lines():
        log.info("%s", line)
    some = counted(report.waiting, "picture")
    waits = f"{some} {'waits' if report.waiting == 1 else 'wait'} until {report.next_due} or later;"
    waits += " run the same command then."
    away = (
        f"The files are at {report.elsewhere}; copy them to a folder for 6_dedup.py and 7_sort_quality.py, and name it."
    )
    notes = [note for note, holds in ((waits, report.waiting), (away, report.elsewhere)) if holds]
    following = "" if report.elsewhere else NEXT
    return cli.Summary(report.counts(), next=following, note=" ".join(notes), result=report.as_json())


if __name__ == "__main__":
    sys.exit(main())
