"""Settings of a connection that writes millions of rows, and a thread that carries the log over meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from lib.db.connection import BUSY_TIMEOUT_MS, Database

CACHE_KIB = 192 * 1024  # holds the upper levels of every index of a million pictures
NO_CHECKPOINT, CHECKPOINT_PAGES = 0, 1000  # the second is SQLite's own
# Bytes of the log: when it is carried over, and when the writer waits until it has been. A longer one would write fewer
# pages twice, but every read searches it: with four gigabytes the whole took a fifth more processor time.
CHECKPOINT_LOG, LARGEST_LOG = 128 * 2**20, 1024 * 2**20


@contextmanager
def bulk_mode(db: Database, *, foreign_keys: bool = True) -> Iterator[Checkpointer]:
    """A large page cache, and checkpoints on a thread of their own. With SQLite's own settings the writer read each
    index page again for every batch and wrote it twice: a third of its time.

    `foreign_keys=False` spares looking up the parent of every row, for a caller that has just written the parents in
    the same transaction and looks for the others itself.
    """
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if db.path is None or db.value("PRAGMA query_only"):
        yield Checkpointer(None)
        return
    db.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
    db.execute(f"PRAGMA wal_autocheckpoint = {NO_CHECKPOINT}")
    db.execute("PRAGMA secure_delete = OFF")  # some builds overwrite with zeros what they free
    db.execute("PRAGMA journal_size_limit = 0")  # a log that begins anew is short again
    checkpointer = Checkpointer(db.path)
    try:
        yield checkpointer
    finally:
        checkpointer.close()
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute("PRAGMA journal_size_limit = -1")
        db.execute("PRAGMA foreign_keys = ON")


class Checkpointer:
    """Carries the write-ahead log over into the database while the writer goes on, and never makes anybody wait."""

    def __init__(self, path: Path | None):
        self.path = path
        self.asked, self.idle = Event(), Event()
        self.idle.set()
        self.ended = False
        self.due = CHECKPOINT_LOG
        self.thread = Thread(target=self._work, name="checkpoints", daemon=True) if path else None
        if self.thread:
            self.thread.start()

    def committed(self) -> None:
        """To be called after every large transaction; waits only where the log has grown far too long."""
        if self.path is None:
            return
        log = self.path.with_name(self.path.name + "-wal")
        size = log.stat().st_size if log.exists() else 0
        if size < CHECKPOINT_LOG:
            self.due = CHECKPOINT_LOG  # it was carried over as a whole and began anew
        if size < self.due:
            return
        self.due = size + CHECKPOINT_LOG
        self.idle.clear()
        self.asked.set()
        if size > LARGEST_LOG:
            self.idle.wait()
            self.due = 0

    def close(self) -> None:
        self.ended = True
        self.asked.set()
        if self.thread:
            self.thread.join()

    def _work(self) -> None:
        connection = sqlite3.connect(str(self.path), isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            while self.asked.wait() and not self.ended:
                self.asked.clear()
                self._checkpoint(connection)
                if not self.asked.is_set():
                    self.idle.set()
        finally:
            self.idle.set()
            connection.close()

    @staticmethod
    def _checkpoint(connection: sqlite3.Connection) -> None:
        # Passive: it carries over what no reader holds, and leaves the rest to the next time. A full disk shows in the
        # writer's own transaction, with a sentence.
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
