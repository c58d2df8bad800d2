"""The database, the only place where SQL stands, and the context of a run, which library code takes.

`open_database` gives a `Database`; the modules beside this one hold the functions that read and write it, one module a
subject, each function taking the `Database` first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib.db.connection import Database, open_database, open_for_preview
from lib.progress import BarFactory, no_bar
from lib.workspace import Workspace

__all__ = ["Context", "Database", "never", "open_database", "open_for_preview"]


def never() -> bool:
    """The answer of a run that nobody can stop."""
    return False


@dataclass(frozen=True)
class Context:
    """The run: its database and folders, its number in the journal, and how it is watched and stopped.

    `run_id` is 0 in a dry run, which has no row. `stopping()` is true once the run should finish what is in flight
    and return. `bar` shows progress where a person looks on.
    """

    db: Database
    workspace: Workspace
    run_id: int = 0
    dry_run: bool = False
    stopping: Callable[[], bool] = never
    bar: BarFactory = no_bar
