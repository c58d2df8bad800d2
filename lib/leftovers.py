"""What killed runs left half written in a workspace: found, and cleared by the next run of the step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lib.temporary import clear_dead, dead_files
from lib.workspace import Workspace

ANSWERS = ("collect", "ingest")  # the steps that write below xhr/


def clear_leftovers(workspace: Workspace, step: str) -> int:
    """Removes what killed runs left where this step writes; gives the number of files.

    The pictures' folder holds too many files to be walked through by every run: step 5 keeps its temporary ones in
    a folder of their own, and an import of pictures looks for its own.
    """
    found = sum(clear_dead(folder) for folder in (workspace.root, workspace.backups, workspace.reports))
    if step in ANSWERS:
        found += clear_dead(workspace.xhr, deep=True)
    return found


def find_leftovers(workspace: Workspace) -> Iterator[Path]:
    """Everything in the workspace that a killed run left half written."""
    yield from dead_files(workspace.root, deep=True)
