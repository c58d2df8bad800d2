"""The flags of step 4 as one value."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import values_of


@dataclass(frozen=True)
class CleanupOptions:
    """The flags of the same names: the rules, and the jobs on the database's file and its backups."""

    rule: list[str] | None
    blocklist: Path | None
    allowlist: Path | None
    min_side: int
    languages: list[str] | None
    examples: int
    keep: int
    forget_query: int | None
    restore: str | None
    reset: str | None
    yes: str


def options_from(args: Namespace) -> CleanupOptions:
    return CleanupOptions(**values_of(args, CleanupOptions))
