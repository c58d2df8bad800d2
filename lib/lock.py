"""Locks that a process holds and that the system lets go when it ends, however that happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.errors import GleanerError


def step_lock(root: Path, step: str) -> Path:
    """The lock that a step which keeps a journal holds in a workspace while it is at work."""
    return root / f".{step}.lock"


@contextmanager
def held(path: Path, busy: str) -> Iterator[None]:
    """Holds the lock file `path`; raises GleanerError with the sentence `busy` when another process has it.

    The file stays: removing it would let two processes hold locks on two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(handle):
            raise GleanerError(busy)
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
