"""What a killed run left behind: rows that it held, and files that it finished but did not record."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lib.db import Database
from lib.db.claims import leases, release
from lib.db.downloads import has_path
from lib.downloading.names import PARTS, read_name
from lib.workspace import Workspace


def own_lease() -> str:
    """Who works on a row: machine and process number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def release_dead(db: Database) -> int:
    """Frees the rows of processes of this machine that are no more; gives their number."""
    return sum(release(db, lease) for lease in leases(db) if _is_dead(lease))


def _is_dead(lease: str) -> bool:
    machine, _, number = lease.rpartition(":")
    return machine == socket.gethostname() and number.isdigit() and not process_lives(int(number))


def process_lives(number: int) -> bool:
    """Whether another process has this number."""
    if number == os.getpid():  # a number that came round again: this run has claimed nothing yet
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove_parts_folder(workspace: Workspace) -> None:
    """Takes the folder of temporary files away when it is empty."""
    try:
        (workspace.images / PARTS).rmdir()
    except OSError:
        return


def find_orphans(db: Database, workspace: Workspace) -> dict[str, list[Path]]:
    """Whole files under final names that no row knows, by the safe id in their name.

    A kill between the rename and the commit leaves them, at most one batch and what was in flight.
    """
    found: dict[str, list[Path]] = {}
    for shelf in sorted(workspace.images.glob("[0-9a-f][0-9a-f]")):
        for path in sorted(shelf.iterdir()):
            parts = read_name(path.name)
            if parts and not path.is_symlink() and not has_path(db, workspace.to_text(path)):
                found.setdefault(parts[0], []).append(path)
    return found
