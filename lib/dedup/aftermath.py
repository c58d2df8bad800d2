"""What is left to do after the moves: links that a kill prevented, and folders that are empty now."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lib import actions
from lib.db import Database
from lib.db import actions as journal
from lib.db.actions import Action
from lib.dedup.plan import LINKS
from lib.digest import sha256_of
from lib.moves import remove_empty_parents
from lib.workspace import Workspace


def settle(db: Database, workspace: Workspace) -> None:
    """Finishes what killed runs had begun: see `lib.actions.settle`. To be called by a step that is alone."""
    runs = journal.runs_with_planned_actions(db, "dedup")

    def is_due(action: Action) -> bool:
        return action.kind in LINKS.values() and _is_owed(db, workspace, action)

    actions.settle(db, workspace, "dedup", is_due)
    for run in runs:
        remove_emptied(workspace, journal.iter_actions(db, run, "done"))


def remove_emptied(workspace: Workspace, moved: Iterable[Action]) -> None:
    """Removes the folders below images/ that these moves have emptied; --undo makes them again.

    A folder that a person named on the command line stays, empty or not: it is theirs.
    """
    images = os.path.abspath(workspace.images)
    emptied = {os.path.dirname(os.path.abspath(workspace.to_path(a.source))) for a in moved if a.kind == "move"}
    for folder in sorted(emptied):
        if folder.startswith(images + os.sep):
            remove_empty_parents(workspace.images / os.path.relpath(folder, images), workspace.images)


def _is_owed(db: Database, workspace: Workspace, link: Action) -> bool:
    """Whether the file whose place the link was to take has been moved away, and the keeper is what it was."""
    keeper, place = workspace.to_path(link.source), workspace.to_path(link.target)
    if os.path.lexists(place) or keeper.is_symlink() or not keeper.is_file():
        return False
    moved = any(a.kind == "move" and a.source == link.target for a in journal.iter_actions(db, link.run_id, "done"))
    return moved and sha256_of(keeper) == link.sha256
