"""What a killed run left behind: rows it held, files it had not finished, files that it finished but did not record."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from lib.db import Database
from lib.db.claims import leases, release
from lib.db.downloads import has_path
from lib.downloading.names import PARTS, part_owner, read_name
from lib.workspace import Workspace

STALE_SECONDS = 24 * 3600  # after which an unfinished file of another machine is given up


def own_lease() -> str:
    """Who works on a row: machine and process number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def release_dead(db: Database) -> int:
    """Frees the rows of processes of this machine that are no more; gives their number."""
    return sum(release(db, lease) for lease in leases(db) if _is_dead(lease))


def _is_dead(lease: str) -> bool:
    machine, _, number = lease.rpartition(":")
    return machine == socket.gethostname() and number.isdigit() and not _other_process_lives(int(number))


def _other_process_lives(number: int) -> bool:
    if number == os.getpid():  # a number that came round again: this run has claimed nothing yet
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove_stale_parts(workspace: Workspace) -> int:
    """Removes unfinished files of processes that are no more; gives their number."""
    folder, removed = workspace.images / PARTS, 0
    if not folder.is_dir():
        return 0
    for path in folder.glob("*.part"):
        if _is_stale(path):
            path.unlink(missing_ok=True)
            removed += 1
    remove_parts_folder(workspace)
    return removed


def _is_stale(path: Path) -> bool:
    machine, _, rest = path.name.partition("-")
    number = rest.partition("-")[0]
    if machine == part_owner().partition("-")[0] and number.isdigit():
        return not _other_process_lives(int(number))
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


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
