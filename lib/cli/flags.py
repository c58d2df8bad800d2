"""The flags that steps share, and how their help looks."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from lib import __version__
from lib.arguments import cpu_count, positive, run_reference
from lib.text import redact_any

STEP_FILES = {
    "collect": "1_collect.py",
    "ingest": "2_ingest_db.py",
    "report": "3_domain_report.py",
    "cleanup": "4_db_cleanup.py",
    "download": "5_download.py",
    "dedup": "6_dedup.py",
    "sort": "7_sort_quality.py",
}


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=min(110, _terminal_width()))


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(redact_any(message))  # what was typed wrong is repeated


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 100


def parser(doc: str | None, step: str) -> argparse.ArgumentParser:
    """A parser whose help is the step's docstring, with the flags that every step has."""
    first, _, rest = (doc or "").strip().partition("\n")
    made = _ArgumentParser(
        prog=STEP_FILES.get(step, step),
        description=first,
        epilog=rest.strip("\n"),
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
    )
    group = made.add_argument_group("common")
    group.add_argument("-h", "--help", action="help", help="show this page and exit")
    group.add_argument(
        "--version", action="version", version=f"Gleaner {__version__}", help="show the version and exit"
    )
    group.add_argument(
        "--workspace",
        type=Path,
        default=Path("workspace"),
        metavar="DIR",
        help="the folder that the steps share (default: workspace)",
    )
    group.add_argument("--json", action="store_true", help="print the summary as one JSON object on stdout")
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice for everything")
    group.add_argument("-q", "--quiet", action="store_true", help="say only what went wrong")
    made.set_defaults(step=step)
    return made


def add_dry_run(to: argparse.ArgumentParser) -> None:
    to.add_argument("-n", "--dry-run", action="store_true", help="show what would be done and write nothing at all")


def add_limit(to: argparse.ArgumentParser, what: str) -> None:
    to.add_argument("--limit", type=positive, metavar="N", help=f"handle at most N {what} (default: all)")


def add_workers(to: argparse.ArgumentParser, default: int | None = None, what: str = "worker processes") -> None:
    shown = "one a processor" if default is None else str(default)
    to.add_argument(
        "--workers",
        type=positive,
        default=default or cpu_count(),
        metavar="N",
        help=f"{what} (default: {shown})",
    )


def add_executor(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where the work is done: this machine or a Ray cluster (default: local)",
    )


def add_undo(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--undo",
        type=run_reference,
        metavar="RUN|last",
        help="take back what a run of this step did, then exit",
    )
