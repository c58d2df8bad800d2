"""Pictures under which a codec may bring the whole process down: known by name afterwards, and then decoded apart.

Decoding in threads of this process spares the start of others, which on a small folder costs more than the work. But a
codec that crashes then takes the run with it. So every decode notes its file first; what is still noted when the next
run begins was under way when this one died, and is decoded in a process of its own from then on.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, TypeVar

from lib.stream import WORKER_KILLED, stream

T = TypeVar("T")

SLOT = 4096 + 64  # bytes: the longest path that Linux takes
SLOTS = 64  # decodes under way at once; more than that are not noted


class Suspects:
    """The notes of one workspace: a file in the temporary folder, because a dry run must leave the workspace alone.

    paths   what to decode apart: what an earlier run died under
    killed  what brought down the process that decoded it apart
    """

    def __init__(self, workspace: Path | None):
        """Without a workspace nothing is noted."""
        self.killed: set[str] = set()
        self._slots: dict[int, int] = {}
        self._lock = Lock()
        self.paths: set[str] = set()
        self._notes: mmap.mmap | None = None
        if workspace is None:
            return
        name = hashlib.blake2b(str(workspace.absolute()).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        self.file = Path(tempfile.gettempdir()) / f"gleaner-{_user()}-{name}.decoding"
        self.paths = self._left_over()
        self._notes = self._open()

    def _left_over(self) -> set[str]:
        try:
            notes = self.file.read_bytes()
        except OSError:
            return set()
        found = (notes[start : start + SLOT].split(b"\0", 1)[0] for start in range(0, len(notes), SLOT))
        return {path.decode("utf-8", "surrogateescape") for path in found if path}

    def _open(self) -> mmap.mmap | None:
        """Memory of a file outlives the process that wrote it, without a call to the system for each note."""
        try:
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError:
            return None  # no place for notes: a crash then stays a riddle, but all else works
        try:
            # Never made shorter: another run of this workspace may have it in its memory.
            os.write(handle, b"\0" * SLOT * SLOTS)
            return mmap.mmap(handle, SLOT * SLOTS)
        except OSError:
            return None
        finally:
            os.close(handle)

    @contextmanager
    def noted(self, path: str) -> Iterator[None]:
        """Notes a file for as long as the block lasts."""
        name = path.encode("utf-8", "surrogateescape")
        slot = self._slot()
        if self._notes is None or slot >= SLOTS or len(name) >= SLOT:
            yield
            return
        start = slot * SLOT
        self._notes[start : start + len(name) + 1] = name + b"\0"
        try:
            yield
        finally:
            self._notes[start] = 0

    def noting(self, task: Callable[[str], T]) -> Callable[[str], T]:
        """The task, each file noted while it lasts; for this process and its threads."""

        def noted(path: str) -> T:
            with self.noted(path):
                return task(path)

        return noted

    def _slot(self) -> int:
        thread = get_ident()
        slot = self._slots.get(thread)
        if slot is None:
            with self._lock:
                slot = self._slots[thread] = len(self._slots)
        return slot

    def run(self, task: Callable[[str], T], path: str) -> tuple[T | None, str]:
        """(value, "") or (None, reason): here, or in a process of its own where the file is suspect."""
        if path not in self.paths:
            with self.noted(path):
                return task(path), ""
        outcome: Any = next(stream(task, [path], executor="processes", chunk=1))
        self.learn(path, outcome.error)
        return outcome.value, outcome.error

    def learn(self, path: str, error: str) -> None:
        """Takes note of what became of a file that was decoded apart."""
        if error == WORKER_KILLED:
            self.killed.add(path)

    def close(self) -> None:
        """Ends the notes; what killed the process that decoded it apart is decoded so in the next run, too."""
        if self._notes is None:
            return
        self._notes.close()
        self._notes = None
        names = [path.encode("utf-8", "surrogateescape") for path in sorted(self.killed)]
        with suppress(OSError):
            if names:
                beside = self.file.with_suffix(f".{os.getpid()}")
                beside.write_bytes(b"".join(name.ljust(SLOT, b"\0") for name in names if len(name) < SLOT))
                os.replace(beside, self.file)
            else:
                self.file.unlink()


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
