"""Deleting for good what step 6 moved into the quarantine: its own command, and only after a person said so."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from lib.db import Database
from lib.db import actions as journal
from lib.db.actions import Action
from lib.db.duplicates import set_file_state
from lib.db.runs import latest_run_with_actions, run_step
from lib.evidence import LINKS, is_returned, stands_for
from lib.workspace import Workspace

BATCH = 200  # files whose rows are written at once


@dataclass(frozen=True)
class Purge:
    """What a run's quarantine still holds."""

    run_id: int
    actions: list[Action]
    bytes: int

    @property
    def question(self) -> str:
        count = len(self.actions)
        return (
            f"Delete {count:,} files ({self.bytes / 1e6:,.1f} MB) of run {self.run_id} for good? They cannot come back."
            f" Type {count} to do it: "
        )


def quarantined(db: Database, workspace: Workspace, run_id: int) -> Purge:
    """The files of a run that still lie in the quarantine."""
    held = [
        action
        for action in journal.iter_actions(db, run_id, "done")
        if action.kind == "move" and _inside(workspace, action)
    ]
    return Purge(run_id, held, sum(action.bytes for action in held))


def purge(db: Database, workspace: Workspace, what: Purge, stopping: Callable[[], bool] = lambda: False) -> int:
    """Deletes the files and records it; gives their number. A kill leaves files whose rows the next purge settles."""
    count, gone = 0, list[Action]()
    for action in what.actions:
        if stopping():
            break
        if len(gone) == BATCH:
            _record(db, gone)
            gone.clear()
        workspace.to_path(action.target).unlink(missing_ok=True)
        gone.append(action)
        count += 1
    # Before the last rows are written: as long as there are any, the same command goes on.
    _remove_empty(workspace, what.run_id)
    _record(db, gone)
    return count


def settle_purge(db: Database, workspace: Workspace, reference: str) -> None:
    """Records what a deletion that was killed had deleted of a run's quarantine."""
    run_id = latest_run_with_actions(db, "dedup") if reference == "last" else int(reference)
    if run_id is None or run_step(db, run_id) != "dedup":
        return
    held = quarantined(db, workspace, run_id).actions
    gone = [a for a in held if not os.path.lexists(workspace.to_path(a.target)) and not _is_back(db, workspace, a)]
    _remove_empty(workspace, run_id)
    _record(db, gone)


def clear_emptied(db: Database, workspace: Workspace) -> None:
    """Takes the folders away that a deletion has emptied and was killed before it could."""
    for folder in workspace.quarantine.glob("[0-9]*"):
        if folder.name.isdecimal() and run_step(db, int(folder.name)) == "dedup":
            _remove_empty(workspace, int(folder.name))


def _record(db: Database, gone: list[Action]) -> None:
    """A link in the place of a file that cannot come back stays for good: nothing is left to take back."""
    after = (journal.following(db, action) for action in gone)
    links = [link for link, action in zip(after, gone, strict=True) if link and _replaces(link, action)]
    with db.transaction():
        journal.set_state(db, [action.id for action in (*gone, *links)], "dropped")
        for action in gone:
            if action.sha256:
                set_file_state(db, action.sha256, action.target, "missing")


def _is_back(db: Database, workspace: Workspace, moved: Action) -> bool:
    """Whether the file lies in its old place again, and not a link with the same bytes."""
    link = journal.following(db, moved)
    return is_returned(workspace, moved) and not (link is not None and stands_for(workspace, link, moved))


def _replaces(link: Action, moved: Action) -> bool:
    return link.kind in LINKS and link.state == "done" and link.target == moved.source


def _inside(workspace: Workspace, action: Action) -> bool:
    path = workspace.to_path(action.target)
    return workspace.quarantine.resolve() in path.resolve().parents and not path.is_symlink()


def _remove_empty(workspace: Workspace, run_id: int) -> None:
    base = workspace.quarantine / str(run_id)
    for folder, _, _ in os.walk(base, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            continue
