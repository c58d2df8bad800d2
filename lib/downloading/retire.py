"""Contents that a better one replaced go to the quarantine, journalled like every move, and can be brought back."""

from __future__ import annotations

from lib import actions
from lib.actions import Action
from lib.db import Database
from lib.db.claims import leases
from lib.db.superseded import unused_contents
from lib.downloading.target import local_path
from lib.moves import free_target
from lib.workspace import Workspace


def retire(db: Database, workspace: Workspace, run_id: int) -> int:
    """Moves what no picture uses any more out of the pictures' folder; gives the number of files.

    While another download is at work it does nothing: the next run will.
    """
    if leases(db):
        return 0
    actions.settle(db, workspace, "download", run_id, tidy=True)
    planned = list(_plan(db, workspace, run_id))
    if not planned:
        return 0
    actions.plan(db, run_id, planned)
    done = actions.apply(
        db, workspace, run_id, check=lambda action: "" if workspace.to_path(action.source).exists() else "gone"
    )
    return done["done"]


def _plan(db: Database, workspace: Workspace, run_id: int) -> list[Action]:
    taken: set[str] = set()
    planned = []
    for sha256, text, size, replaced in unused_contents(db):
        path = local_path(workspace, text)
        if path is None or not path.exists():
            continue
        inside = path.name if text.startswith("/") else text
        target = free_target(workspace.quarantine / str(run_id) / inside, taken)
        reason = "superseded" if replaced else "opted_out"
        planned.append(Action("move", text, workspace.to_text(target), sha256, size, reason=reason))
    return planned
