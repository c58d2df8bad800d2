"""Opens the database: its settings, explicit transactions, and the settings for writing millions of rows."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar
from urllib.parse import quote

from lib.db.schema import migrate, schema_version
from lib.db.soundness import BESIDE, DAMAGED, EMPTY, Fault, find_fault
from lib.errors import GleanerError, UsageError
from lib.temporary import clear_dead, rename_unless_taken, temporary_beside
from lib.text import file_name_of, license_id

T = TypeVar("T")

# Another step may be in the middle of a batch; batches take milliseconds, so half a minute means something is wrong.
BUSY_TIMEOUT_MS = 30_000
PAGE_BYTES = 8192  # of a new database: half as many pages to write and to carry over as with SQLite's own 4096
OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

BLOCK = 500  # rows
CACHE_KIB = 192 * 1024  # holds the upper levels of every index of a million pictures
NO_CHECKPOINT, CHECKPOINT_PAGES = 0, 1000  # the second is SQLite's own
# Bytes of the log: when it is carried over, and when the writer waits until it has been. A longer one would write fewer
# pages twice, but every read searches it: with four gigabytes the whole took a fifth more processor time.
CHECKPOINT_LOG, LARGEST_LOG = 128 * 2**20, 1024 * 2**20


class Database:
    """One SQLite connection in autocommit mode; a transaction is opened explicitly with `transaction()`."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None):
        # Statements say what a licence and a file are called; the rows hold what the sources and the system call them.
        connection.create_function("license_id", 2, license_id)
        connection.create_function("file_name_of", 1, lambda path: file_name_of(path or ""))
        self.connection = connection
        self.path = path

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any] | dict[str, Any]]) -> sqlite3.Cursor:
        return self.connection.executemany(sql, rows)

    def rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.connection.execute(sql, parameters).fetchone()
        return found

    def value(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """The first column of the first row, or None where there is no row."""
        found = self.row(sql, parameters)
        return None if found is None else found[0]

    def column(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """The first column of every row."""
        return [row[0] for row in self.connection.execute(sql, parameters)]

    def mapping(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> dict[Any, Any]:
        """The second column of every row by the first."""
        return {row[0]: row[1] for row in self.connection.execute(sql, parameters)}

    def in_blocks(self, sql: str, last: int | str | bytes = 0, block: int = BLOCK, **values: Any) -> Iterator[Any]:
        """Yields rows a block at a time, so that rows may be changed meanwhile.

        The statement is in the order of its first column and compares it with `:last`, from where a block goes on.
        """
        while rows := self.rows(f"{sql} LIMIT {block}", {"last": last, **values}):
            yield from rows
            last = rows[-1][0]

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """BEGIN IMMEDIATE … COMMIT; rolled back on any exception, and flat when one is already open."""
        if self.connection.in_transaction:
            yield self
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(path: Path) -> Database:
    """Opens the database for reading and writing, creating it or bringing its schema up to date first.

    It is for its owner alone, since it holds the arguments of every run. Raises GleanerError or UsageError, with
    nothing changed, when the file is damaged, some other program's, or was made by a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_dead(path.parent, target=path.name)
    if not path.exists():
        with private_temporary(path) as part:
            with closing(_connect(str(part), path)) as connection:
                prepare(connection)
            with suppress(FileExistsError):  # another process was quicker
                rename_unless_taken(part, path)
    elif (fault := find_fault(path)) and fault.kind != EMPTY:
        raise fault.error(path)
    for_owner_only(path)
    connection = _connect(str(path), path)
    _with_clear_errors(path, lambda: prepare(connection))
    return Database(connection, path)


def beside(path: Path) -> list[Path]:
    """The files that SQLite keeps beside a database."""
    return [path.with_name(path.name + suffix) for suffix in BESIDE]


def is_unused(path: Path) -> bool:
    """Tells if a database holds nothing but the records of runs."""
    with closing(_connect(str(path), path)) as connection:
        return not any(
            connection.execute(f'SELECT EXISTS (SELECT 1 FROM "{table}")').fetchone()[0]
            for table in ("queries", "responses", "images", "files", "scores", "duplicates", "actions")
        )


def for_owner_only(path: Path) -> None:
    """Takes a database, and what SQLite keeps beside it, out of others' sight. What belongs to another stays."""
    if sys.platform == "win32":
        return
    for one in (path, *(path.with_name(path.name + suffix) for suffix in BESIDE)):
        with suppress(OSError):
            if one.stat().st_mode & 0o077:
                one.chmod(0o600)


def open_for_preview(path: Path) -> Database:
    """Opens the database so that nothing can be written to it; an empty one in memory where there is no file.

    `query_only` rather than `mode=ro`: a read-only connection would leave `-wal` and `-shm` files behind, whereas an
    ordinary one removes them on closing. In a folder that cannot be written, `immutable` is the only way to read.
    """
    if not path.exists() or path.stat().st_size == 0:
        return open_empty()
    if fault := find_fault(path):
        raise fault.error(path)
    connection = _with_clear_errors(path, lambda: _connect_for_reading(path))
    connection.execute("PRAGMA query_only=ON")
    return Database(connection, path)


def open_empty() -> Database:
    connection = _connect(":memory:", Path(":memory:"))
    migrate(connection)
    return Database(connection, None)


@contextmanager
def meanwhile(db: Database, search: Callable[[Database], T]) -> Iterator[Callable[[], T]]:
    """Runs a search on a thread and a connection of its own; what is yielded waits for what it finds.

    It sees what has been committed, and SQLite works on both at once. A database in memory is searched when asked for.
    """
    if db.path is None:
        yield lambda: search(db)
        return
    path = db.path

    def search_beside() -> T:
        with open_for_preview(path) as beside:
            return search(beside)

    with ThreadPoolExecutor(1, "meanwhile") as pool:
        yield pool.submit(search_beside).result


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    try:
        # A log that a killed run left, or that a living one writes: reading it must not carry it over into the file.
        left = path.with_name(path.name + "-wal").exists()
        target = f"file:{quote(path.resolve().as_posix())}?mode=ro" if left else str(path)
        connection = _connect(target, path, uri=left)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.OperationalError, GleanerError):
        connection = _connect(f"file:{quote(path.resolve().as_posix())}?immutable=1", path, uri=True)
    found, known = int(connection.execute("PRAGMA user_version").fetchone()[0]), schema_version()
    if found < known:
        raise UsageError(f"{path} has an older schema ({found}, here {known}); run the step once without --dry-run.")
    return connection


def _connect(target: str, path: Path, *, uri: bool = False) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise GleanerError(f"SQLite {sqlite3.sqlite_version} is too old; use a Python that ships SQLite 3.37 or newer.")
    try:
        connection = sqlite3.connect(target, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, uri=uri)
    except sqlite3.OperationalError as error:
        raise GleanerError(f"cannot open {path} ({error}); check that the folder exists and can be written.") from error
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


@contextmanager
def private_temporary(path: Path) -> Iterator[Path]:
    """Makes an empty file beside a database, for its owner alone; what is still there of it at the end goes."""
    part = temporary_beside(path)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield part
    finally:
        for suffix in ("", *BESIDE):
            part.with_name(part.name + suffix).unlink(missing_ok=True)


def prepare(connection: sqlite3.Connection) -> None:
    """Sets up a connection that writes, and brings the schema up to date."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # changes nothing where there are tables already
    connection.execute("PRAGMA journal_mode=WAL")
    # In WAL mode NORMAL survives a killed process; only a power cut may take back the last batch, which is redone.
    connection.execute("PRAGMA synchronous=NORMAL")
    migrate(connection)


def _with_clear_errors(path: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "not a database" not in str(error):
            raise
        raise Fault(DAMAGED, str(error)).error(path) from error


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
                # Passive: it carries over what no reader holds, and leaves the rest to the next time. A full disk shows
                # in the writer's own transaction, with a sentence.
                with suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if not self.asked.is_set():
                    self.idle.set()
        finally:
            self.idle.set()
            connection.close()
