"""The one writer of rows: collects outcomes and writes them in batches, so that a row costs microseconds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from lib.db import Database
from lib.db.downloads import Outcome, record
from lib.downloading.job import Ending
from lib.downloading.tally import Tally
from lib.downloading.target import Target
from lib.errors import GleanerError
from lib.workspace import Workspace

BATCH_ROWS = 200
BATCH_SECONDS = 0.5


class Ledger:
    """Outcomes on their way into the database. What a kill takes away is found again on disk by its name."""

    def __init__(
        self,
        db: Database,
        workspace: Workspace,
        run_id: int,
        target: Target,
        committed: Callable[[list[str]], None],
        min_free: int = 0,
    ):
        self.db, self.workspace, self.run_id, self.target = db, workspace, run_id, target
        self.committed, self.min_free = committed, min_free
        self.batch: list[Ending] = []
        self.since = 0.0
        self.tally = Tally()

    def add(self, outcome: Ending) -> None:
        if not self.batch:
            self.since = time.monotonic()
        self.batch.append(outcome)
        if len(self.batch) >= BATCH_ROWS:
            self.flush()

    def flush_if_due(self) -> None:
        if self.batch and time.monotonic() - self.since >= BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been collected. Raises sqlite3.Error or OSError when the disk will not take it."""
        if not self.batch:
            return
        batch, self.batch = self.batch, []
        added, surplus = record(self.db, self.run_id, batch)
        self.tally.files += added
        for text in surplus:
            self.target.remove(text)
        self.committed([outcome.file.sha256 for outcome in batch if isinstance(outcome, Outcome) and outcome.file])
        for outcome in batch:
            self.tally.count(outcome)
        self.check_space()

    def check_space(self) -> None:
        """Stops the run before the disk is full: other programs need the rest."""
        free = shutil.disk_usage(self.workspace.images).free
        if free < self.min_free:
            raise GleanerError(
                f"only {free / 2**20:.0f} MiB are free on the disk of {self.workspace.images} (--min-free);"
                " make room and run the same command again."
            )
