"""What lies in `sorted/<criterion>/`: read from the journal, checked against the disk, never guessed from names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lib.db import Database, worklist
from lib.db.scores import file_actions
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
        worklist.take(self.scratch, placement.target)


def read_placements(db: Database, workspace: Workspace, criterion: str, scratch: Database | None = None) -> Placements:
    """What the journal says lies below `sorted/<criterion>/` and what still does."""
    scratch = scratch or worklist.temporary()
    below = f"{workspace.sorted.name}/{criterion}/"
    for _, kind, source, target, sha256 in file_actions(db, "sort", below):
        before = worklist.lift(scratch, source) if kind == "move" else None
        if not target.startswith(below):
            continue  # another criterion took the file away
        if before:
            worklist.place(scratch, target, before["origin"], before["sha256"], before["kind"])
        else:
            worklist.place(scratch, target, source, sha256, kind)
    found = Placements(workspace, scratch)
    for placement in found:
        if not os.path.lexists(workspace.to_path(placement.target)):
            worklist.lift(scratch, placement.target)
    return found
