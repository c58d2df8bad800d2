"""Taking a run back: the files, the tombstones, and what a person said in it."""

from __future__ import annotations

from lib import actions
from lib.db import Database
from lib.db.duplicates import forget_duplicates, moved_contents, reported_run
from lib.db.near import forget_apart
from lib.db.tombstones import unbury
from lib.progress import BarFactory
from lib.reports_index import refresh_index
from lib.workspace import Workspace


def undo(
    db: Database, workspace: Workspace, reference: str, *, dry_run: bool, bar: BarFactory
) -> dict[str, int | float | str]:
    """The counts of what was undone; only `undone` where there was nothing."""
    number = actions.run_to_undo(db, "dedup", reference)
    if number is None:
        return {"undone": 0}
    counts = actions.undo(db, workspace, number, dry_run=dry_run, bar=bar)
    if not dry_run:
        unbury(db, [content for content, _, _ in moved_contents(db, number, "undone")])
        forget_apart(db, number)
        if not actions.left(db, number):
            # The report was last written by the newest run that found something new.
            if reported_run(db) == number:
                _take_report_away(workspace)
            forget_duplicates(db, number)
    return {"run": number, **counts}


def _take_report_away(workspace: Workspace) -> None:
    """The report tells of a run that did not happen after all."""
    for suffix in (".html", ".json", ".csv"):
        (workspace.reports / "dedup").with_suffix(suffix).unlink(missing_ok=True)
    refresh_index(workspace)
