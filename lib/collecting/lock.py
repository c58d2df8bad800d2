"""One run an engine: two runs at once would ask twice as often as the engine's pace allows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lib.errors import GleanerError
from lib.workspace import Workspace


@contextmanager
def engine_lock(workspace: Workspace, engine: str) -> Iterator[None]:
    """Holds the engine for this process; the system lets it go when the process ends, however that happens."""
    handle = os.open(workspace.root / f".collect-{engine}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(handle):
            raise GleanerError(f"another run is searching {engine} for this workspace; wait until it has ended.")
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":

    def _lock(handle: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _lock(handle: int) -> bool:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
