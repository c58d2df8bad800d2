"""Fetches the pictures that the database lists, each from the best address that answers.

Reads   gleaner.db (images, image_variants, downloads)
Writes  images/<2 hex>/<image-id>_<kind>_<W>x<H>_<8 hex of sha256>.<ext>, downloads, files

Examples
    python 5_download.py
    python 5_download.py --dry-run
    python 5_download.py --limit 500 --per-host 2
    python 5_download.py --retry-failed timeout connect_error

Next    python 6_dedup.py exact
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lib import cli
from lib.errors import UsageError

if TYPE_CHECKING:
    from lib.download import Report
    from lib.downloading.engine import Options

log = logging.getLogger("gleaner.download")
NEXT = "python 6_dedup.py exact"


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "download")
    cli.add_dry_run(made)
    cli.add_limit(made, "pictures")
    retry = "try failed pictures again first: all, or those that failed with a REASON such as timeout"
    made.add_argument("--retry-failed", nargs="*", metavar="REASON", help=retry)
    pace, limits = made.add_argument_group("pace"), made.add_argument_group("limits")
    for flag, kind, default, unit, text in PACE:
        pace.add_argument(flag, type=kind, default=default, metavar=unit, help=f"{text} (default: {default})")
    for flag, kind, default, unit, text in LIMITS:
        limits.add_argument(flag, type=kind, default=default, metavar=unit, help=f"{text} (default: {default})")
    private = "fetch from loopback and private addresses and from any port too"
    limits.add_argument("--allow-private", action="store_true", help=private)
    return made


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 and less than a million")
    return value


def size(text: str) -> int:
    """Bytes, written as 800, 20K, 50M or 2G."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    digits, unit = (text[:-1], units[text[-1:].upper()]) if text[-1:].upper() in units else (text, 1)
    return cli.whole(digits) * unit


PACE: tuple[tuple[str, Callable[[str], Any], Any, str, str], ...] = (
    ("--concurrency", cli.positive, 64, "N", "requests at once"),
    ("--per-host", cli.positive, 6, "N", "requests at once to one host"),
    ("--retries", cli.whole, 2, "N", "more tries of an address after a failure that may pass"),
    ("--backoff", seconds, 1.0, "S", "seconds that the wait between tries starts from, doubled each time"),
    ("--timeout", seconds, 20.0, "S", "seconds of silence that end a request"),
    ("--deadline", seconds, 300.0, "S", "seconds that one file may take"),
    ("--min-speed", size, "1K", "SIZE", "bytes a second below which a transfer is ended, over 10 s"),
)
LIMITS: tuple[tuple[str, Callable[[str], Any], Any, str, str], ...] = (
    ("--max-bytes", size, "50M", "SIZE", "largest file"),
    ("--max-megapixels", cli.positive, 200, "N", "largest picture, in millions of pixels"),
    ("--min-free", size, "64M", "SIZE", "room on the disk at which the run stops"),
)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, needs="1_collect.py and 2_ingest_db.py")


def check(args: argparse.Namespace) -> None:
    if not args.max_bytes:
        raise UsageError("--max-bytes 0 keeps nothing; give a size such as 50M.")


def work(session: cli.Session) -> cli.Summary:
    from lib import download as step

    args, options = session.args, _options(session.args)
    if args.retry_failed:
        step.check_reasons(session.db, args.retry_failed)
    if session.dry_run:
        found = step.plan(session.db, args.retry_failed, options)
        if not args.json:
            print(*found.lines, sep="\n", end="\n" if found.lines else "")
        return cli.Summary({"to_fetch": found.rows, "hosts": found.hosts, "waiting": found.waiting})
    report = step.download(
        session.db, session.workspace, session.run_id, options,
        retry=args.retry_failed, stopping=session.stopping, bar=session.bar,
    )  # fmt: skip
    return _summary(report)


def _options(args: argparse.Namespace) -> Options:
    from lib.downloading.engine import Options, PictureLimits
    from lib.net.client import Limits

    return Options(
        Limits(args.timeout, args.deadline, args.max_bytes, args.min_speed),
        PictureLimits(args.max_megapixels * 1_000_000),
        args.concurrency, args.per_host, args.retries, args.backoff, args.limit, args.allow_private,
        os.environ.get("GLEANER_CONTACT", ""), args.min_free,
    )  # fmt: skip


def _summary(report: Report) -> cli.Summary:
    for title, lines in (("slowest hosts", report.slowest), ("failing hosts", report.failing)):
        for line in lines:
            log.debug("%s: %s", title, line)
    counts: dict[str, int | float | str] = {state: report.states[state] for state in ("done", "failed")}
    counts.update({state: n for state, n in sorted(report.states.items()) if state not in counts})
    counts.update({"new_files": report.files, "MiB": round(report.bytes / 2**20, 2)})
    counts.update({reason: n for reason, n in report.reasons.most_common() if reason not in counts})
    waits = f"{report.waiting} pictures wait until {report.next_due} or later; run the same command then."
    return cli.Summary(counts, next=NEXT, note=waits if report.waiting else "")


if __name__ == "__main__":
    sys.exit(main())
