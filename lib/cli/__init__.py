"""The edge of every step; a step script imports this and nothing else of it.

A step declares its parser with `parser()` and the `add_*` functions, and hands it to `run()`.
"""

from lib.arguments import cpu_count, positive, run_reference, share, whole
from lib.cli.again import command_again
from lib.cli.flags import STEP_FILES, add_dry_run, add_executor, add_limit, add_page, add_undo, add_workers, parser
from lib.cli.output import Session, Summary, envelope, log, print_json, say
from lib.cli.run import parse, require_pictures, run
from lib.errors import EXIT_OK, UsageError

__all__ = [
    "EXIT_OK", "STEP_FILES", "Session", "Summary", "UsageError", "add_dry_run", "add_executor",
    "add_limit", "add_page", "add_undo", "add_workers", "command_again", "cpu_count", "envelope", "log", "parse",
    "parser", "positive", "print_json", "require_pictures", "run", "run_reference", "say", "share", "whole",
]  # fmt: skip
