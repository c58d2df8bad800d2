"""The flags of step 4 as one value."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import values_of

EXAMPLES = 10  # rows of each rule, where no number is asked for


@dataclass(frozen=True)
class CleanupOptions:
    """The flags of the same names: the rules, and the jobs on the database's file and its backups."""

    rule: list[str] | None
    blocklist: Path | None
    allowlist: Path | None
    min_side: int
    languages: list[str] | None
    examples: int | None
    keep: int
    forget_query: int | None
    restore: str | None
    reset: str | None
    yes: str

    @property
    def shown(self) -> int:
        """Rows of each rule that may be shown."""
        return EXAMPLES if self.examples is None else self.examples

    def most_lines(self, usual: int | None) -> int | None:
        """The lines of detail that are shown at most: all where a number of rows was asked for."""
        return usual if self.examples is None else None


def options_from(args: Namespace) -> CleanupOptions:
    return CleanupOptions(**values_of(args, CleanupOptions))
