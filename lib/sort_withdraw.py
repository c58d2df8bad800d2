"""What step 7 takes out of `sorted/` again because it no longer belongs there.

A copy goes to the quarantine when its original went there, or holds another picture now, or when the criterion leaves
the picture out (`--min-score`). A picture that was moved into `sorted/` is the picture itself and goes back to where it
came from. Only what this step made and nobody has changed since is touched; everything is planned, shown, journalled
and can be undone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lib.db import worklist as scratch
from lib.db.actions import quarantined_sources
from lib.db.connection import Database
from lib.db.worklist import Worklist
from lib.digest import sha256_of
from lib.moves import free_target
from lib.placements import Placement, Placements
from lib.workspace import Workspace


@dataclass
class Withdrawals:
    """Finds them and writes them into the run's worklist. `changed` counts copies that are somebody's work by now."""

    db: Database
    workspace: Workspace
    run_id: int
    files: Worklist
    placements: Placements
    changed: int = 0
    _taken: set[str] = field(default_factory=set)

    def of_lost_originals(self, is_asked: Callable[[Placement], bool]) -> None:
        """Copies that no file of this run has claimed: their originals are in quarantine, or hold another picture."""
        if next(self.placements.unclaimed(), None) is None:
            return
        scratch.note_away(self.files.db, quarantined_sources(self.db, self.workspace.quarantine.name + "/"))
        for placement in self.placements.unclaimed():
            if placement.kind == "move" or not is_asked(placement):
                continue
            if os.path.lexists(self.workspace.to_path(placement.origin)):
                if self.files.has_path(placement.origin):
                    self._remove(placement, f"{placement.origin} holds another picture now")
            elif scratch.is_away(self.files.db, placement.origin):
                self._remove(placement, f"{placement.origin} is in quarantine")

    def of_left_out(self, state: str, because: Callable[[float | None, str], str]) -> None:
        """Sorted files of pictures that the criterion left out or that turned out to be unreadable."""
        for item in self.files.items(state):
            reason = because(item.score, item.reason) if item.bucket else ""
            if reason and (placement := self.placements.at(item.place)):
                self._send_back(placement, reason) if placement.kind == "move" else self._remove(placement, reason)

    def _remove(self, placement: Placement, reason: str) -> None:
        path = self.workspace.to_path(placement.target)
        if not self._is_as_made(placement, path):
            self.changed += 1
            return
        folder = self.workspace.quarantine / str(self.run_id)
        target = free_target(folder / placement.target, self._taken)
        self.placements.take(placement)
        self._plan(placement, target, path.lstat().st_size, reason)

    def _send_back(self, placement: Placement, reason: str) -> None:
        origin = self.workspace.to_path(placement.origin)
        if not os.path.lexists(origin):
            self._plan(placement, origin, self.workspace.to_path(placement.target).stat().st_size, reason)

    def _plan(self, placement: Placement, target: Path, size: int, reason: str) -> None:
        text = self.workspace.to_text(target)
        scratch.withdraw(self.files.db, placement.target, text, placement.sha256, size, reason)

    def _is_as_made(self, placement: Placement, path: Path) -> bool:
        if placement.kind == "symlink":
            return path.is_symlink()
        try:
            return not path.is_symlink() and sha256_of(path) == placement.sha256
        except OSError:
            return False
