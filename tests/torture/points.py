"""Points at which a run can be disturbed: right before every operation on a file, and on both sides of every commit.

Python tells an audit hook of every file that is opened, linked, renamed, removed, made, before it happens. What has no
such event is wrapped: bytes that are written (half of them are there when the point is reached), `fsync`, and SQLite's
commits. Only what happens below one folder counts. `install` is called once in a process that runs a single step.

Workers of such a process are processes of their own. They count on in the same log, whose length is the number: the
start of Python there calls `join` (see hook/sitecustomize.py).
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("count", "kill", "full", "pages", "interrupt", "interrupt-twice")
VARIABLE = "TORTURE_POINTS"  # what workers are told
LINE = 320  # bytes of a line of the log

# Operations that may need room on the disk.
GROWING = frozenset({"create", "os.link", "os.symlink", "os.mkdir", "os.rename", "write", "fsync", "commit"})
EVENTS = {  # an audit event: where its paths stand among its arguments
    "os.link": (0, 1),
    "os.rename": (0, 1),
    "os.symlink": (1,),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.utime": (0,),
    "shutil.copyfile": (1,),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DISK_FULL = "database or disk is full"  # SQLite's own words


class Points:
    """Counts the points that are reached, writes each down, and acts at the one that was asked for."""

    def __init__(self, kind: str, at: int, root: str, log: str) -> None:
        self.kind, self.at, self.root = kind, at, root + os.sep
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self.leader = os.getpgrp()
        self.lock = threading.RLock()
        self.inside = threading.local()
        self.write = os.write

    def reached(self, operation: str, what: str) -> bool:
        """Notes a point; True where a full disk is due there. A kill does not come back."""
        if getattr(self.inside, "busy", False):
            return False
        self.inside.busy = True
        try:
            with self.lock:
                line = f"{operation} {what}".encode("utf-8", "surrogateescape")[: LINE - 1]
                self.write(self.log, line.ljust(LINE - 1) + b"\n")
                number = os.lseek(self.log, 0, os.SEEK_CUR) // LINE  # where this line ends, whoever else writes
            if number != self.at:
                return False
            if self.kind == "kill":
                os.killpg(self.leader, signal.SIGKILL)
        finally:
            self.inside.busy = False
        # A terminal sends it to all of them; the leader of the group is the step itself.
        if self.kind.startswith("interrupt"):
            os.kill(self.leader, signal.SIGINT)
        if self.kind == "interrupt-twice":
            os.kill(self.leader, signal.SIGINT)
        return self.kind == "full" and operation in GROWING

    def file(self, operation: str, *paths: Any) -> bool:
        """The same for an operation on files, if any of them is below the folder."""
        try:
            names = [os.path.abspath(os.fsdecode(path)) for path in paths]
        except TypeError:  # an open file
            names = [self.name_of(path) for path in paths if isinstance(path, int)]
        if not any(name.startswith(self.root) for name in names):
            return False
        return self.reached(operation, " -> ".join(name.removeprefix(self.root) for name in names))

    def name_of(self, descriptor: int) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return ""

    def fill(self, operation: str, *paths: Any) -> None:
        if self.file(operation, *paths):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *paths[-1:])


def install(kind: str, at: int, root: str, log: str) -> None:
    """Acts at point number `at` below `root`; the points that were reached are written to `log`, one a line."""
    if kind not in KINDS:
        raise ValueError(kind)
    os.environ[VARIABLE] = json.dumps([kind, at, root, log])
    points = Points(kind, at, root, log)
    sys.addaudithook(_audit(points))
    _wrap_writes(points)
    _wrap_sqlite(points)


def join() -> None:
    """Does the same in a worker of such a process."""
    if told := os.environ.get(VARIABLE):
        install(*json.loads(told))


def _audit(points: Points) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING and not isinstance(path, int):
                points.fill("create" if flags & os.O_CREAT and not os.path.lexists(path) else "open", path)
        elif event in EVENTS:
            points.fill(event, *(arguments[place] for place in EVENTS[event]))

    return hook


def _wrap_writes(points: Points) -> None:
    """Every way in which Python writes bytes: descriptors, file objects of `open`, and the copies of `shutil`."""
    write, fsync = os.write, os.fsync

    def half(descriptor: int, data: Any) -> None:
        view = memoryview(data).cast("B")
        write(descriptor, view[: len(view) // 2])

    def writing(descriptor: int, data: Any) -> None:
        """Lets half of the bytes through before the point; where the run goes on, takes them back."""
        if getattr(points.inside, "busy", False) or not points.name_of(descriptor).startswith(points.root):
            return
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        half(descriptor, data)
        points.fill("write", descriptor)
        os.lseek(descriptor, position, os.SEEK_SET)

    def hooked_write(descriptor: int, data: Any) -> int:
        writing(descriptor, data)
        return write(descriptor, data)

    def hooked_fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        points.fill("fsync", number)
        fsync(number)

    class HookedFile(io.FileIO):
        def write(self, data: Any) -> int:
            writing(self.fileno(), data)
            return super().write(data)

    real = io.open

    def hooked_open(  # the arguments of `open`
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
        newline: Any = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        raw_mode = mode.replace("t", "").replace("b", "")
        if raw_mode == "r" or "U" in mode or (buffering == 0 and "b" not in mode):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = HookedFile(file, raw_mode, closefd, opener)
        if buffering == 0:
            return raw
        try:
            size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
            if "b" in mode:
                return buffered
            text = io.TextIOWrapper(buffered, io.text_encoding(encoding), errors, newline, buffering == 1)
            text.mode = mode  # type: ignore[misc]
            return text
        except BaseException:
            raw.close()
            raise

    os.write, os.fsync = hooked_write, hooked_fsync
    io.open = builtins.open = hooked_open  # type: ignore[assignment]
    # The kernel's own copies have no middle to stop in: `shutil` then reads and writes.
    for fast in ("_USE_CP_SENDFILE", "_USE_CP_COPY_FILE_RANGE"):
        if hasattr(shutil, fast):
            setattr(shutil, fast, False)


def _wrap_sqlite(points: Points) -> None:
    """Commits: of a transaction, and of a statement that is one by itself."""

    class Connection(sqlite3.Connection):
        base = ""

        def commit(self) -> None:
            if self.in_transaction:
                self.end(super().commit, "commit")

        def end(self, act: Callable[[], Any], what: str) -> Any:
            where = os.path.basename(self.base)
            if not os.path.abspath(self.base).startswith(points.root):
                return act()
            if points.reached("commit", f"{where} ({what})"):
                if self.in_transaction:  # SQLite rolls back where a commit finds no room
                    super().rollback()
                raise sqlite3.OperationalError(DISK_FULL)
            done = act()
            points.reached("committed", f"{where} ({what})")
            return done

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            word = sql.lstrip()[:9].upper()
            if word.startswith(("COMMIT", "END")):
                return self.end(lambda: super(Connection, self).execute(sql, *parameters), "commit")
            writes = word.startswith(("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "VACUUM", "REPLACE"))
            if writes and not self.in_transaction:
                return self.end(lambda: super(Connection, self).execute(sql, *parameters), word.lower().strip())
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if self.in_transaction:
                return super().executemany(sql, *parameters)
            return self.end(lambda: super(Connection, self).executemany(sql, *parameters), "many")

        def backup(self, target: sqlite3.Connection, **options: Any) -> None:
            self.end(lambda: super(Connection, self).backup(target, **options), "backup")

    real = sqlite3.connect

    def connect(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        options.setdefault("factory", Connection)
        made = real(database, *arguments, **options)
        if isinstance(made, Connection):
            name = os.fsdecode(database) if not isinstance(database, Path) else str(database)
            made.base = name.removeprefix("file:").partition("?")[0]
            if points.kind == "pages" and os.path.abspath(made.base).startswith(points.root):
                used = made.execute("PRAGMA page_count").fetchone()[0]
                made.execute(f"PRAGMA max_page_count = {max(1, used + points.at)}")
        return made

    sqlite3.connect = connect  # type: ignore[assignment]
