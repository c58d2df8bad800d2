"""The session that a step is given, and the summary that it gives back."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import Any

from lib.db import Context, Database
from lib.errors import EXIT_OK
from lib.progress import BarFactory, no_bar
from lib.workspace import Workspace


@dataclass
class Summary:
    """Summary of a run. `counts` become the summary line, the run's row and `--json`; `result` replaces the latter.

    Iterators in a `result` that is a dict are written entry by entry, so that a long list needs no memory.
    """

    counts: dict[str, int | float | str]
    next: str = ""
    exit_code: int = EXIT_OK
    note: str = ""
    result: Any = None


@dataclass
class Session:
    """One run as its script sees it: the parsed arguments beside everything that library code takes as `context`."""

    step: str
    args: argparse.Namespace
    workspace: Workspace
    db: Database
    run_id: int
    interrupts: int = 0
    bar: BarFactory = no_bar
    started: float = field(default_factory=time.monotonic)

    @property
    def dry_run(self) -> bool:
        return bool(getattr(self.args, "dry_run", False))

    @property
    def context(self) -> Context:
        """The run as library code takes it: everything but the parsed arguments."""
        return Context(self.db, self.workspace, self.run_id, self.dry_run, self.stopping, self.bar)

    def stopping(self) -> bool:
        """True after the first Ctrl-C: finish what is in flight, commit, and return."""
        return self.interrupts > 0
