"""What lies in `sorted/<criterion>/`, and what of it leaves again because it no longer belongs there.

What lies there is read from the journal and checked against the disk, never guessed from names. A copy goes to the
quarantine when its original went there, or holds another picture now, or when the criterion leaves the picture out
(`--min-score`). A picture that was moved into `sorted/` is the picture itself and goes back to where it came from. Only
what this step made and nobody has changed since is touched; everything is planned, shown, journalled and can be undone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib.db import Database, worklist
from lib.db.context import Context
from lib.db.journal import quarantined_sources
from lib.db.scores import file_actions
from lib.db.worklist import Worklist
from lib.files.pictures import sha256_of
from lib.journal.moves import free_target
from lib.workspace import Workspace


@dataclass(frozen=True)
class Placement:
    """A file that step 7 put somewhere. Paths are as `Workspace.to_text` writes them.

    `origin` is where the file came from when it was first sorted under this criterion; `kind` is how: copy, move,
    hardlink or symlink.
    """

    target: str
    origin: str
    sha256: str
    kind: str

    @property
    def bucket(self) -> str:
        return self.target.split("/")[2]

    @property
    def name(self) -> str:
        return self.target.rpartition("/")[2]


class Placements:
    """The files under one criterion's folder, to be found by content; kept in a temporary database."""

    def __init__(self, workspace: Workspace, scratch: Database):
        self.workspace, self.scratch = workspace, scratch

    def __iter__(self) -> Iterator[Placement]:
        return self.below("")

    def below(self, folder: str) -> Iterator[Placement]:
        """By target; of those below a folder (with its closing slash) where one is given."""
        for page in worklist.iter_placements(self.scratch, folder):
            yield from (Placement(**dict(row)) for row in page)

    def unclaimed(self) -> Iterator[Placement]:
        """What no file of this run has claimed, by target."""
        for page in worklist.iter_placements(self.scratch, free=True):
            yield from (Placement(**dict(row)) for row in page)

    def claim(self, path: str, sha256: str) -> Placement | None:
        """The placement of the file at `path`, which is then taken; None for a file that was not sorted yet.

        It is the file itself where that was moved here; else what was made of it; else what was made of a file with
        the same content that has since gone from its old place (another criterion may have moved it).
        """
        candidates = [Placement(**dict(row)) for row in worklist.free_placements(self.scratch, sha256)]
        for suits in (
            lambda p: p.target == path,
            lambda p: p.origin == path,
            lambda p: not os.path.lexists(self.workspace.to_path(p.origin)),
        ):
            for placement in candidates:
                if suits(placement):
                    self.take(placement)
                    return placement
        return None

    def at(self, target: str) -> Placement | None:
        """What lies at a path below the criterion's folder."""
        row = worklist.placement_at(self.scratch, target)
        return Placement(**dict(row)) if row else None

    def take(self, placement: Placement) -> None:
        worklist.claim_placement(self.scratch, placement.target)


def read_placements(db: Database, workspace: Workspace, criterion: str, scratch: Database | None = None) -> Placements:
    """What the journal says lies below `sorted/<criterion>/` and what still does."""
    scratch = scratch or worklist.temporary()
    below = f"{workspace.sorted.name}/{criterion}/"
    for _, kind, source, target, sha256 in file_actions(db, "sort", below):
        before = worklist.remove_placement(scratch, source) if kind == "move" else None
        if not target.startswith(below):
            continue  # another criterion took the file away
        if before:
            worklist.add_placement(scratch, target, before["origin"], before["sha256"], before["kind"])
        else:
            worklist.add_placement(scratch, target, source, sha256, kind)
    found = Placements(workspace, scratch)
    for placement in found:
        if not os.path.lexists(workspace.to_path(placement.target)):
            worklist.remove_placement(scratch, placement.target)
    return found


@dataclass
class Removals:
    """Finds them and writes them into the run's worklist. `changed` counts copies that are somebody's work by now."""

    context: Context
    files: Worklist
    placements: Placements
    changed: int = 0
    _taken: set[str] = field(default_factory=set)

    def of_lost_originals(self, is_asked: Callable[[Placement], bool]) -> None:
        """Copies that no file of this run has claimed: their originals are in quarantine, or hold another picture."""
        if next(self.placements.unclaimed(), None) is None:
            return
        worklist.note_away(
            self.files.db, quarantined_sources(self.context.db, self.context.workspace.quarantine.name + "/")
        )
        for placement in self.placements.unclaimed():
            if placement.kind == "move" or not is_asked(placement):
                continue
            if os.path.lexists(self.context.workspace.to_path(placement.origin)):
                if self.files.has_path(placement.origin):
                    self._remove(placement, f"{placement.origin} holds another picture now")
            elif worklist.is_away(self.files.db, placement.origin):
                self._remove(placement, f"{placement.origin} is in quarantine")

    def of_left_out(self, state: str, because: Callable[[float | None, str], str]) -> None:
        """Sorted files of pictures that the criterion left out or that turned out to be unreadable."""
        for item in self.files.items(state):
            reason = because(item.score, item.reason) if item.bucket else ""
            if reason and (placement := self.placements.at(item.place)):
                self._send_back(placement, reason) if placement.kind == "move" else self._remove(placement, reason)

    def _remove(self, placement: Placement, reason: str) -> None:
        path = self.context.workspace.to_path(placement.target)
        if not self._is_as_made(placement, path):
            self.changed += 1
            return
        folder = self.context.workspace.quarantine / str(self.context.run_id)
        target = free_target(folder / placement.target, self._taken)
        self.placements.take(placement)
        self._plan(placement, target, path.lstat().st_size, reason)

    def _send_back(self, placement: Placement, reason: str) -> None:
        origin = self.context.workspace.to_path(placement.origin)
        if not os.path.lexists(origin):
            self._plan(placement, origin, self.context.workspace.to_path(placement.target).stat().st_size, reason)

    def _plan(self, placement: Placement, target: Path, size: int, reason: str) -> None:
        text = self.context.workspace.to_text(target)
        worklist.add_removal(self.files.db, placement.target, text, placement.sha256, size, reason)

    def _is_as_made(self, placement: Placement, path: Path) -> bool:
        if placement.kind == "symlink":
            return path.is_symlink()
        try:
            return not path.is_symlink() and sha256_of(path) == placement.sha256
        except OSError:
            return False
