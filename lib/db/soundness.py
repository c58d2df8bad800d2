"""Checks whether a database file can be used, by reading alone: file, log and folder stay as they are.

A file is ours when its tables are those of the schema that its `user_version` names; anything else is some other
program's, a newer version's, or damaged. How the pages hang together, and whether every text can be read, is looked at
where the file is small enough for nobody to notice, and in full where a restore depends on it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from lib.db.schema import migrate, schema_version
from lib.errors import GleanerError, UsageError

BESIDE = ("-wal", "-shm", "-journal")
SMALL = 8_000_000  # bytes: every text of so large a file is read in about 0.1 s
MIDDLE = 64_000_000  # bytes: SQLite walks through all pages of so large a file in about 0.1 s
OURS = frozenset({"runs", "queries", "responses", "images"})  # tables that every version has had
SHOWN = 100  # characters of what SQLite says
DAMAGED, FOREIGN, NEWER, EMPTY, ODD = "damaged", "foreign", "newer", "empty", "odd"
Tables = dict[str, frozenset[str]]


@dataclass(frozen=True)
class Fault:
    """The reason why a file cannot be used."""

    kind: str
    detail: str

    @property
    def brief(self) -> str:
        """The detail on one line: SQLite repeats whole statements."""
        line = " ".join(self.detail.split())
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"

    def error(self, path: Path) -> GleanerError:
        """The fault as a sentence with its remedy."""
        detail, back = self.brief, "put back a copy with `python 4_db_cleanup.py --restore last`"
        sentences = {
            DAMAGED: f"{path} is damaged or no SQLite database ({detail}); {back}, or move the file away.",
            EMPTY: f"{path} is empty and no database any more; {back}, or move the file away to begin anew.",
            ODD: f"{path} is {detail}, no database; {back}, or move it away.",
            FOREIGN: f"{path} is some other program's database; give another --workspace.",
            NEWER: f"{path} was made by a newer Gleaner ({detail}); update this copy.",
        }
        return (UsageError if self.kind == FOREIGN else GleanerError)(sentences[self.kind])


def refuse_unusable(path: Path) -> None:
    """Raises GleanerError or UsageError for a file that is there and cannot be used; looks deeper where it is small."""
    if fault := find_fault(path, deep=_size(path) <= MIDDLE, texts=_size(path) <= SMALL):
        raise fault.error(path)


def find_fault(path: Path, *, deep: bool = False, texts: bool = False, seconds: float = 0.0) -> Fault | None:
    """Returns the first fault of a database file; None where nothing is found or nothing is there.

    `deep` walks through all pages and indexes, `texts` reads every text; both end unfinished after so many `seconds`
    (0: never). Raises OSError where the file may not be read.
    """
    last: tuple[Fault, list[tuple[int, int]]] | None = None
    for _ in range(10):
        found = _plain_fault(path) or _inner_fault(path, deep=deep, texts=texts, seconds=seconds)
        # A living run may have written while it was read: only what is found twice in one and the same file is true.
        if found is None or last == (found, _state(path)):
            return found
        last = (found, _state(path))
        time.sleep(0.02)
    return found


def is_ours(path: Path) -> bool:
    """True where a file in which no fault was found holds our tables, rather than nothing."""
    with only_reading(path) as connection:
        return tables_of(connection).keys() >= OURS


@contextmanager
def only_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing: neither the file nor its log, and no file appears beside it."""
    if _has_to_be_copied(path):
        with tempfile.TemporaryDirectory(prefix="gleaner-") as folder:
            for one in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))):
                if one.exists():
                    shutil.copyfile(one, Path(folder, one.name))
            yield from _connected(f"file:{quote(Path(folder, path.name).as_posix())}")
    else:
        mode = "mode=ro" if _size(path.with_name(path.name + "-wal")) else "immutable=1"
        yield from _connected(f"file:{quote(path.resolve().as_posix())}?{mode}")


def _has_to_be_copied(path: Path) -> bool:
    """True where SQLite would carry over a killed run's log as soon as it opened the file in its place.

    Nobody has it open then: the index of a log that is in use lies beside it.
    """
    log, shared, journal = (path.with_name(path.name + suffix) for suffix in BESIDE)
    return bool(_size(journal) or (_size(log) and not shared.exists()))


def _connected(uri: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30.0)) as connection:
        connection.text_factory = lambda body: body.decode("utf-8", "replace")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        yield connection


def _state(path: Path) -> list[tuple[int, int]]:
    found = []
    for one in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            status = one.stat()
            found.append((status.st_size, status.st_mtime_ns))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _plain_fault(path: Path) -> Fault | None:
    """Finds a fault without SQLite."""
    if not os.path.lexists(path):
        return None
    try:
        status = path.stat()
    except (FileNotFoundError, RuntimeError):
        return Fault(ODD, "a link that leads nowhere")
    if not stat.S_ISREG(status.st_mode):
        return Fault(ODD, "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file")
    if status.st_size == 0:
        return Fault(EMPTY, "")
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return Fault(DAMAGED, "file is not a database")
    size = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big") if head[24:28] == head[92:96] else 0
    if pages * (65536 if size == 1 else size) > status.st_size and not _size(path.with_name(path.name + "-wal")):
        return Fault(DAMAGED, "it is cut short")
    return None


def _inner_fault(path: Path, *, deep: bool, texts: bool, seconds: float) -> Fault | None:
    if not os.path.lexists(path) or (not deep and _size(path) > MIDDLE and _has_to_be_copied(path)):
        return None
    try:
        with only_reading(path) as connection:
            end = time.monotonic() + seconds if seconds else 0.0
            if end:
                connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
            return (
                _schema_fault(connection)
                or (_page_fault(connection) if deep else None)
                or (_text_fault(connection, end) if texts else None)
            )
    except sqlite3.OperationalError as error:
        unknown = ("locked", "busy", "unable to open", "interrupted", "full", "disk I/O")
        return None if any(word in str(error) for word in unknown) else Fault(DAMAGED, str(error))
    except sqlite3.Error as error:
        return Fault(DAMAGED, str(error))
    except (UnicodeError, ValueError, OverflowError, TypeError):  # SQLite's own message repeats what is garbled
        return Fault(DAMAGED, "its schema cannot be read")


def _schema_fault(connection: sqlite3.Connection) -> Fault | None:
    version, found = int(connection.execute("PRAGMA user_version").fetchone()[0]), tables_of(connection)
    stamp = int(connection.execute("PRAGMA application_id").fetchone()[0])
    newest = expected_tables(schema_version())
    if not found and version == 0 and stamp == 0:
        return None  # nothing in it yet
    if not found.keys() >= OURS:
        is_ours = 2 * len(found.keys() & newest.keys()) > len(newest)
        return Fault(DAMAGED, "tables are missing") if is_ours else Fault(FOREIGN, "")
    if version > schema_version():
        return Fault(NEWER, f"schema {version}, here {schema_version()}")
    wanted = expected_tables(version) if version > 0 else {}
    if {name: found.get(name) for name in newest | wanted} != {name: wanted.get(name) for name in newest | wanted}:
        return Fault(DAMAGED, f"its tables are not those of schema {version}")
    return None


def tables_of(connection: sqlite3.Connection) -> Tables:
    """The columns of every table but SQLite's own."""
    rows = connection.execute(
        "SELECT name, (SELECT json_group_array(name) FROM pragma_table_info(sqlite_master.name)) FROM sqlite_master"
        " WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    return {name: frozenset(json.loads(columns)) for name, columns in rows}


@lru_cache(maxsize=4)
def expected_tables(version: int) -> Tables:
    """The tables of a schema, as the migrations up to it make them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, version)
        return tables_of(connection)


def _page_fault(connection: sqlite3.Connection) -> Fault | None:
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    return None if found == "ok" else Fault(DAMAGED, " ".join(str(found).split()))


def _text_fault(connection: sqlite3.Connection, end: float) -> Fault | None:
    """A text that is no UTF-8, or no JSON where the schema's default says that it is."""
    connection.text_factory = bytes
    names = {name.decode("utf-8", "replace") for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for table in sorted(names & expected_tables(schema_version()).keys()):
        columns = _columns_of_texts(connection, table)
        if not columns:
            continue
        listed = ", ".join(f'"{name}"' for name in columns)
        for row in connection.execute(f'SELECT {listed} FROM "{table}"'):
            for (name, is_json), value in zip(columns.items(), row, strict=True):
                if value is not None and not _can_be_read(value, is_json=is_json):
                    return Fault(DAMAGED, f"a text in {table}.{name} cannot be read")
            if end and time.monotonic() > end:
                return None
    return None


def _columns_of_texts(connection: sqlite3.Connection, table: str) -> dict[str, bool]:
    """Each column of texts with whether it holds JSON."""
    rows = connection.execute("SELECT name, type, dflt_value FROM pragma_table_info(?)", (table,))
    return {name.decode(): default in (b"'{}'", b"'[]'") for name, kind, default in rows if kind == b"TEXT"}


def _can_be_read(value: bytes, *, is_json: bool) -> bool:
    try:
        text = value.decode("utf-8")
        if is_json and text:
            json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
