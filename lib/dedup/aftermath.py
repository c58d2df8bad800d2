"""What is left to do after runs that did not come to their end: moves, links, an undo, a deletion for good."""

from __future__ import annotations

from lib import actions
from lib.db import Database
from lib.db import actions as journal
from lib.dedup.purge import clear_emptied, settle_purge
from lib.dedup.undo import close
from lib.reports_index import refresh_index
from lib.workspace import Workspace


def settle(db: Database, workspace: Workspace, run_id: int, *, purging: bool = False) -> None:
    """Finishes what killed runs had begun: see `lib.actions.settle`. To be called by a step that is alone.

    With `purging` the run is to delete for good itself, and goes on with what a killed one was deleting.
    """
    actions.settle(db, workspace, "dedup", run_id, tidy=True)
    last = journal.broken_off(db, "dedup", run_id)
    number = actions.broken_undo(db, "dedup", run_id)
    if number is not None:
        close(db, workspace, number)
    elif last and last.purge and not purging:
        settle_purge(db, workspace, last.purge)
    if last and last.purge:
        clear_emptied(db, workspace)
    actions.settle_others(db, workspace, run_id, ("sort",))
    if last and workspace.reports.is_dir():  # the index is written last
        refresh_index(workspace)
