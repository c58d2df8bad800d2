"""Taking a run back: the files with all that follows them, the groups, and what a person said in it."""

from __future__ import annotations

from lib import actions
from lib.db import Database
from lib.db.duplicates import forget_duplicates, reported_run
from lib.db.near import forget_apart
from lib.progress import BarFactory
from lib.reports_index import refresh_index
from lib.workspace import Workspace


def undo(
    db: Database, workspace: Workspace, reference: str, *, before: int, dry_run: bool, bar: BarFactory
) -> dict[str, int | float | str]:
    """The counts of what was undone; only `undone` where there was nothing. `before` is the run that asks."""
    number = actions.run_to_undo(db, "dedup", reference, before)
    if number is None:
        return {"undone": 0}
    counts = actions.undo(db, workspace, number, dry_run=dry_run, bar=bar)
    if not dry_run:
        forget_apart(db, number)
        close(db, workspace, number)
    return {"run": number, **counts}


def close(db: Database, workspace: Workspace, number: int) -> None:
    """Takes back what a run found, once nothing that it moved is left; to be repeated where it was broken off."""
    if actions.left(db, number):
        return
    # The report was last written by the newest run that found something new.
    if reported_run(db) == number:
        _take_report_away(workspace)
    forget_duplicates(db, number)


def _take_report_away(workspace: Workspace) -> None:
    """The report tells of a run that did not happen after all."""
    for suffix in (".html", ".json", ".csv"):
        (workspace.reports / "dedup").with_suffix(suffix).unlink(missing_ok=True)
    refresh_index(workspace)
