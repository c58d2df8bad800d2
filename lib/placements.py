"""What lies in `sorted/<criterion>/`: read from the journal, checked against the disk, never guessed from names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lib.db import Database
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


class Placements:
    """The files under one criterion's folder, to be found by content."""

    def __init__(self, found: Iterable[Placement]):
        self.by_target = {placement.target: placement for placement in found}
        self.by_content: dict[str, list[Placement]] = defaultdict(list)
        for placement in self.by_target.values():
            self.by_content[placement.sha256].append(placement)
        self.unclaimed = set(self.by_target)

    def __iter__(self) -> Iterator[Placement]:
        return iter(self.by_target.values())

    def claim(self, workspace: Workspace, path: str, sha256: str) -> Placement | None:
        """The placement of the file at `path`, which is then taken; None for a file that was not sorted yet.

        It is the file itself where that was moved here; else what was made of it; else what was made of a file with
        the same content that has since gone from its old place (another criterion may have moved it).
        """
        candidates = [p for p in self.by_content.get(sha256, ()) if p.target in self.unclaimed]
        for suits in (
            lambda p: p.target == path,
            lambda p: p.origin == path,
            lambda p: not os.path.lexists(workspace.to_path(p.origin)),
        ):
            for placement in candidates:
                if suits(placement):
                    self.unclaimed.discard(placement.target)
                    return placement
        return None


def read_placements(db: Database, workspace: Workspace, criterion: str) -> Placements:
    """What the journal says lies below `sorted/<criterion>/` and what still does."""
    below = f"{workspace.sorted.name}/{criterion}/"
    found: dict[str, Placement] = {}
    for _, kind, source, target, sha256 in file_actions(db, "sort", below):
        before = found.pop(source, None) if kind == "move" else None
        if not target.startswith(below):
            continue  # another criterion took the file away
        found[target] = replace(before, target=target) if before else Placement(target, source, sha256, kind)
    return Placements(p for p in found.values() if os.path.lexists(workspace.to_path(p.target)))
