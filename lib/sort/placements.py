"""The files in `sorted/<criterion>/`, and those of them that leave again because they no longer belong there.

What lies there is read from the journal and checked against the disk, never guessed from names. A copy goes to the
quarantine when its original went there, or holds another picture now, or when the criterion leaves the picture out
(`--min-score`). A picture that was moved into `sorted/` is the picture itself and goes back to where it came from. Only
what this step made and nobody has changed since is touched; everything is planned, shown, journalled and can be undone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.db import Context, Database, scores
from lib.db.journal import quarantined_sources
from lib.db.scores import file_actions
from lib.db.worklist import Placement, Worklist
from lib.files.pictures import sha256_of
from lib.journal.moves import free_target
from lib.progress import chunked
from lib.workspace import Workspace

BLOCK = 500


def read_placements(db: Database, workspace: Workspace, criterion: str, files: Worklist | None = None) -> Worklist:
    """The worklist with what the journal says lies below `sorted/<criterion>/` and what still does."""
    files = files or Worklist()
    below = f"{workspace.sorted.name}/{criterion}/"
    for _, kind, source, target, sha256 in file_actions(db, "sort", below):
        before = files.placement_at(source) if kind == "move" else None
        if before:
            files.remove_placement(source)
        if target.startswith(below):  # else another criterion took the file away
            made = Placement(target, source, sha256, kind)
            files.add_placement(replace(before, target=target) if before else made)
    for placement in files.placements():
        if not os.path.lexists(workspace.to_path(placement.target)):
            files.remove_placement(placement.target)
    return files


def described(
    db: Database, criterion: str, placements: Iterable[Placement], *, sightings: bool = False
) -> Iterator[tuple[dict[str, Any], Placement]]:
    """The records of `metadata.jsonl` with what they describe, in the given order.

    With `sightings` they also say by whom and when the picture was seen.
    """
    for block in chunked(placements, BLOCK):
        contents = list(dict.fromkeys(placement.sha256 for placement in block))
        labels = scores.known_labels(db, criterion, contents)
        sizes = scores.known_sizes(db, contents)
        origins = scores.provenance(db, contents)
        seen = scores.sightings(db, contents) if sightings else {}
        for placement in block:
            label = labels.get(placement.sha256)
            width, height, form = sizes.get(placement.sha256, (0, 0, ""))
            record: dict[str, Any] = {
                "file_name": placement.name, "sha256": placement.sha256,
                "width": width, "height": height, "format": form,
                "criterion": criterion, "label": placement.bucket,
                "score": label.score if label else None, "reason": label.reason if label else "",
            }  # fmt: skip
            yield record | origins.get(placement.sha256, {}) | seen.get(placement.sha256, {}), placement


def claim_placement(files: Worklist, workspace: Workspace, path: str, sha256: str) -> Placement | None:
    """The placement of the file at `path`, which is then claimed; None for a file that was not sorted yet.

    It is the file itself where that was moved here; else what was made of it; else what was made of a file with the
    same content that has since gone from its old place (another criterion may have moved it).
    """
    candidates = files.unclaimed_of(sha256)
    for suits in (
        lambda p: p.target == path,
        lambda p: p.origin == path,
        lambda p: not os.path.lexists(workspace.to_path(p.origin)),
    ):
        for placement in candidates:
            if suits(placement):
                files.claim_placement(placement.target)
                return placement
    return None


@dataclass
class Removals:
    """Finds them and writes them into the run's worklist. `changed` counts copies that are somebody's work by now."""

    context: Context
    files: Worklist
    changed: int = 0
    _taken: set[str] = field(default_factory=set)

    def of_lost_originals(self, is_asked: Callable[[Placement], bool]) -> None:
        """Copies that no file of this run has claimed: their originals are in quarantine, or hold another picture."""
        if next(self.files.placements(unclaimed=True), None) is None:
            return
        workspace = self.context.workspace
        self.files.note_away(quarantined_sources(self.context.db, workspace.quarantine.name + "/"))
        for placement in self.files.placements(unclaimed=True):
            if placement.kind == "move" or not is_asked(placement):
                continue
            if os.path.lexists(workspace.to_path(placement.origin)):
                if self.files.has_path(placement.origin):
                    self._remove(placement, f"{placement.origin} holds another picture now")
            elif self.files.is_away(placement.origin):
                self._remove(placement, f"{placement.origin} is in quarantine")

    def of_left_out(self, state: str, because: Callable[[float | None, str], str]) -> None:
        """Sorted files of pictures that the criterion left out or that turned out to be unreadable."""
        for item in self.files.items(state):
            reason = because(item.score, item.reason) if item.bucket else ""
            if reason and (placement := self.files.placement_at(item.place)):
                self._send_back(placement, reason) if placement.kind == "move" else self._remove(placement, reason)

    def _remove(self, placement: Placement, reason: str) -> None:
        path = self.context.workspace.to_path(placement.target)
        if not self._is_as_made(placement, path):
            self.changed += 1
            return
        folder = self.context.workspace.quarantine / str(self.context.run_id)
        target = free_target(folder / placement.target, self._taken)
        self.files.claim_placement(placement.target)
        self._plan(placement, target, path.lstat().st_size, reason)

    def _send_back(self, placement: Placement, reason: str) -> None:
        origin = self.context.workspace.to_path(placement.origin)
        if not os.path.lexists(origin):
            self._plan(placement, origin, self.context.workspace.to_path(placement.target).stat().st_size, reason)

    def _plan(self, placement: Placement, target: Path, size: int, reason: str) -> None:
        self.files.add_removal(placement, self.context.workspace.to_text(target), size, reason)

    def _is_as_made(self, placement: Placement, path: Path) -> bool:
        if placement.kind == "symlink":
            return path.is_symlink()
        try:
            return not path.is_symlink() and sha256_of(path) == placement.sha256
        except OSError:
            return False
