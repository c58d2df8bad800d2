"""The flags of step 4 as one value."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CleanupOptions:
    """The rules, and the jobs on the database's file and its backups."""

    rule: tuple[str, ...]
    blocklist: Path | None
    allowlist: Path | None
    min_side: int
    languages: tuple[str, ...]
    examples: int
    keep: int
    forget_query: int | None
    restore: str | None
    reset: str | None
    yes: str


def options_from(args: Namespace) -> CleanupOptions:
    return CleanupOptions(
        tuple(args.rule or ()), args.blocklist, args.allowlist, args.min_side, tuple(args.languages or ()),
        args.examples, args.keep, args.forget_query, args.restore, args.reset, args.yes,
    )  # fmt: skip
