"""Proof on the disk that an entry of the journal happened, is as it was made, or was taken back.

What counts as proof depends on the kind. Equal bytes prove a copy; they never prove a link, since the file whose place
a link was to take has the same bytes.
"""

from __future__ import annotations

import filecmp
import os
from dataclasses import dataclass, field
from pathlib import Path

from lib.db import Database, journal
from lib.db.journal import Action
from lib.files.pictures import sha256_of
from lib.journal.moves import same_file
from lib.workspace import Workspace

LINKS = ("hardlink", "symlink")
COARSEST_CLOCK = 2.0  # seconds: FAT keeps the time of a file in steps of two


def room_of(db: Database, link: Action) -> Action | None:
    """The move of the same run that made room for a link, as the journal has it now; None where none had to."""
    if link.kind not in LINKS:
        return None
    before = journal.neighbour(db, link, after=False)
    return before if before is not None and before.kind == "move" and before.source == link.target else None


def stands_for(workspace: Workspace, link: Action, moved: Action) -> bool:
    """True where a link stands where a file was moved away to make room for it."""
    source, target = workspace.to_path(link.source), workspace.to_path(link.target)
    return link.kind in LINKS and link.target == moved.source and _is_link_to(target, source, link.kind)


def has_happened(workspace: Workspace, action: Action, room: Action | None) -> bool:
    """True where a planned entry was carried out. `room` is what `room_of` says of it.

    A link stands where the file was that it replaces, so it can be there only after that file has gone: two names that
    were one file before the run are the user's own.
    """
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    if not os.path.lexists(target) or (room is not None and room.state != "done"):
        return False
    if action.kind == "move":
        # A final name only ever shows a whole file; and what lies in the run's own quarantine keeps its way back, even
        # where somebody has changed it there.
        quarantine = f"{workspace.quarantine.name}/{action.run_id}/"
        left = not os.path.lexists(source) and (action.target.startswith(quarantine) or _is_own_link(target, action))
        return left or both_hold(source, target) or is_content(target, action)
    if room is None and not action.target.startswith(workspace.sorted.name + "/"):
        return False  # copies, and links for which no file has to go, are made below sorted/ and nowhere else
    if action.kind in LINKS:
        return _is_link_to(target, source, action.kind)
    return is_content(target, action)


def both_hold(one: Path, other: Path) -> bool:
    """True where both names hold one file, as a move leaves them that was killed between its two halves.

    From disk to disk a move is a copy, which has the bytes and the time of the file. A link to the file is another
    thing: it holds nothing.
    """
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.path.realpath(one) == os.path.realpath(other)
    if same_file(one, other):
        return True
    try:
        apart = abs(one.stat().st_mtime - other.stat().st_mtime)
        return apart <= COARSEST_CLOCK and filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def is_returned(workspace: Workspace, action: Action) -> bool:
    """True where a file that was moved, and is gone from where it went, lies at its old place again."""
    source = workspace.to_path(action.source)
    return _is_own_link(source, action) or is_content(source, action)


def is_as_made(workspace: Workspace, action: Action, room: Action | None) -> bool:
    """True where a copy, a link or a written file is what the run made."""
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    if room is not None or action.kind == "symlink":
        return _is_link_to(target, source, action.kind)
    if action.kind == "hardlink" and _is_link_to(target, source, action.kind):
        return True
    if action.sha256 or not source.is_file():
        return bool(action.sha256) and _has_sha256(target, action.sha256)
    return _has_sha256(target, sha256_of(source))


def is_content(path: Path, action: Action) -> bool:
    """True where a path is a file, not a link, with the content of an entry; of its size where no content was noted."""
    if path.is_symlink() or not path.is_file():
        return False
    return _has_sha256(path, action.sha256) if action.sha256 else path.stat().st_size == action.bytes


@dataclass
class Elsewhere:
    """Other places of the contents of a run, besides those that the run made for them."""

    db: Database
    workspace: Workspace
    run_id: int
    freed: set[str] = field(default_factory=set)  # places that a dry run counts as gone
    _known: dict[str, list[str]] | None = None

    def holds(self, action: Action) -> bool:
        """True where taking the target of an entry away leaves its content under another name."""
        source, target = (self.workspace.to_path(text) for text in (action.source, action.target))
        if action.kind == "symlink":  # holds nothing
            return True
        if action.source and _is_link_to(target, source, "hardlink"):
            return True
        if action.kind == "write" and not self._places(action):
            return True  # no picture, but what the run wrote of its own
        if action.source and self._is_there(action.source, action):
            return True
        return any(self._is_there(place, action) for place in self._places(action))

    def _is_there(self, place: str, action: Action) -> bool:
        path = self.workspace.to_path(place)
        if "://" in place or place == action.target or place in self.freed:
            return False
        if os.path.abspath(path) == os.path.abspath(self.workspace.to_path(action.target)):
            return False
        return is_content(path, action)

    def _places(self, action: Action) -> list[str]:
        if self._known is None:
            self._known = {}
            for sha256, place in journal.places_of_contents(self.db, self.run_id):
                self._known.setdefault(sha256, []).append(place)
        return self._known.get(action.sha256, [])


def _is_own_link(path: Path, action: Action) -> bool:
    """True for a link at one end of a move within `sorted/`: step 7 moves its own, and no step moves another's."""
    return path.is_symlink() and action.source.startswith("sorted/")


def _is_link_to(target: Path, source: Path, kind: str) -> bool:
    if kind == "hardlink":
        return not target.is_symlink() and not source.is_symlink() and same_file(source, target)
    if not target.is_symlink():
        return False
    leads_to = os.path.join(target.parent, os.readlink(target))
    return any(resolve(leads_to) == resolve(source) for resolve in (os.path.abspath, os.path.realpath))


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return not path.is_symlink() and path.is_file() and sha256_of(path) == sha256
    except OSError:  # what may not be read proves nothing
        return False
