"""The jobs of step 4 that are no rules: putting a backup back, making the file smaller, starting parts anew."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from lib.db import Database
from lib.db import upkeep as table
from lib.db.backup import make_backup
from lib.errors import GleanerError, UsageError
from lib.workspace import Workspace

PAYS_FROM = 0.10  # of the file unused: below that, writing all of it anew gains too little
NEEDED_ROOM = 2.2  # times the file's size: SQLite writes a copy and then the log


@dataclass(frozen=True)
class Reset:
    """What a reset would take: rows by table, with a few examples of each."""

    what: str
    rows: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)


def plan_reset(db: Database, what: str, examples: int) -> Reset:
    rows = table.count_rows(db, what)
    return Reset(what, rows, {name: table.examples(db, what, name, examples) for name in rows})


def question(workspace: Workspace) -> str:
    """What is asked before everything goes."""
    return f"type the workspace's name ({workspace.root.resolve().name}) to empty its database: "


def confirm(workspace: Workspace, given: str) -> None:
    """Everything goes only by the workspace's name. Raises UsageError for another or none."""
    name = workspace.root.resolve().name
    if not given:
        raise UsageError(f"--reset everything needs --yes {name} where nobody can be asked.")
    if given.strip() != name:
        raise UsageError(f"{given.strip()!r} is not the workspace's name ({name}); nothing was changed.")


def make_smaller(db: Database, workspace: Workspace, *, dry_run: bool) -> tuple[dict[str, int], str]:
    """Writes the file without its gaps where that pays; gives the counts and what there is to say.

    Raises GleanerError where there is no room for the copy that SQLite makes.
    """
    before = table.room(db)
    if before.share < PAYS_FROM:
        return {"bytes": before.size, "unused": before.free}, "too little is unused for it to pay"
    if dry_run:
        return {"bytes": before.size, "unused": before.free}, ""
    left, needed = shutil.disk_usage(workspace.root).free, NEEDED_ROOM * before.size
    if left < needed:
        raise GleanerError(f"that needs {needed / 1e6:,.0f} MB of room and {left / 1e6:,.0f} MB are left; make room.")
    table.vacuum(db)
    return {"bytes_before": before.size, "bytes_after": table.room(db).size}, ""


def reset(db: Database, workspace: Workspace, what: str, keep: int) -> str:
    """A backup first, then the reset; gives the backup's path as text."""
    backup = make_backup(db, workspace.backups, keep)
    table.reset(db, what)
    return workspace.to_text(backup)
