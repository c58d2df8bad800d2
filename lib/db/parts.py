"""Files that are not yet whole: named so that the next run knows which of them nobody is writing any more."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from pathlib import Path

ABANDONED_SECONDS = 3600.0  # after so long without a write, whatever the number of its process says


def part_of(target: Path) -> Path:
    """Where a file is written before it comes under its name; in the same folder, hidden, with the process' number."""
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def sweep_parts(folder: Path, name: str) -> int:
    """Removes what processes that are no more have left half-written of a file; gives the number of files.

    `name` is the file's name or the beginning of it. What SQLite has put beside such a part goes with it.
    """
    pattern = re.compile(rf"\.{re.escape(name)}.*?\.(\d+)(?:\.[0-9a-f]{{8}})?\.part(?:-journal|-wal|-shm)?")
    found = 0
    for path in folder.glob(f".{name}*.part*"):
        if (match := pattern.fullmatch(path.name)) and (not _is_alive(int(match[1])) or _is_old(path)):
            path.unlink(missing_ok=True)
            found += 1
    return found


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # there, signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
