"""What is left to do after runs that did not come to their end: moves, links, an undo, a deletion for good."""

from __future__ import annotations

from lib import actions
from lib.db import Database
from lib.db import actions as journal
from lib.dedup.purge import settle_purge
from lib.dedup.undo import close
from lib.reports_index import refresh_index
from lib.workspace import Workspace


def settle(db: Database, workspace: Workspace, run_id: int) -> None:
    """Finishes what killed runs had begun: see `lib.actions.settle`. To be called by a step that is alone."""
    actions.settle(db, workspace, "dedup", run_id, tidy=True)
    last = journal.broken_off(db, "dedup", run_id)
    if last and last.purge and (number := actions.run_to_undo(db, "dedup", last.purge, run_id)) is not None:
        settle_purge(db, workspace, number)
    if last and last.undo and (number := actions.run_to_undo(db, "dedup", last.undo, run_id)) is not None:
        close(db, workspace, number)
    actions.settle_others(db, workspace, run_id, ("sort",))
    if last and workspace.reports.is_dir():  # the index is written last
        refresh_index(workspace)
