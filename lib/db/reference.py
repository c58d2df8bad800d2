"""Reading the reference pipeline's database (`yandex_images.db`): tables `images` and `image_variants`.

Columns come and go between its versions, so what is there is read and what is not counts as empty. Nothing is written
to it, and no `-wal` or `-shm` file is left beside it. A file from elsewhere may hold anything: only named columns of
plain tables are read, a row at a time, and SQLite itself refuses values that are too long to be any text.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.errors import GleanerError, UsageError

MAGIC = b"SQLite format 3\x00"
LONGEST_VALUE = 2**20  # bytes; a title or an address has some hundreds
MOST_VARIANTS = 1_000  # rows of one picture; the engine shows fewer than thirty
_TABLES = ("images", "image_variants")
_OURS = {"responses", "queries", "runs"}
_LEAST, _MOST = -(2**63), 2**63 - 1  # numbers of rows
_ROWIDS = ("rowid", "_rowid_", "oid")  # a table may have a column of one of these names

Row = dict[str, Any]


@contextmanager
def open_reference(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection. Raises UsageError for another program's database and GleanerError for a damaged one."""
    # `immutable` leaves no files behind, but would not see what still stands in a write-ahead log.
    options = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        _check(connection, path)
        yield connection
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # what SQLite quotes may be no text
        raise GleanerError(f"{path} is damaged ({error}); give a whole copy to --import.") from error
    finally:
        connection.close()


def iter_pictures(
    connection: sqlite3.Connection, wanted: Sequence[str], reasons: Counter[str]
) -> Iterator[tuple[Row, list[Row]]]:
    """Every picture's row with the rows of its addresses, in the order of the ids; only the columns that are wanted.

    Both tables are sorted by id and walked side by side: the reference has no index on `image_variants.image_id`. The
    sort is of ids alone, in a temporary table, so that nothing else needs to be in memory or on disk twice.
    """
    images, variants = (_Table(connection, name, wanted, reasons) for name in _TABLES)
    others = variants.sorted_by("image_id")
    waiting = next(others, None)
    for key, rowid in images.sorted_by("id"):
        own: list[Row] = []
        while waiting is not None and waiting[0] <= key:
            if waiting[0] == key and len(own) < MOST_VARIANTS:
                own.append(variants.row(waiting[1]))
            elif waiting[0] == key:
                reasons["too_many_addresses"] += 1
            waiting = next(others, None)
        yield images.row(rowid), own


class _Table:
    """A table of the reference: its rows one by one, without the values that are too long."""

    def __init__(self, connection: sqlite3.Connection, name: str, wanted: Sequence[str], reasons: Counter[str]):
        self._connection, self._name, self._reasons = connection, name, reasons
        # Columns that are computed are not listed here: they could compute anything.
        there = {row[1] for row in connection.execute(f"PRAGMA main.table_info({name})")}
        self._columns = [column for column in wanted if column in there]
        lowered = {column.lower() for column in there}
        self._rowid = next((column for column in _ROWIDS if column not in lowered), "rowid")

    def sorted_by(self, column: str) -> Iterator[tuple[bytes, int]]:
        """(id, number) of the rows that have an id, in the order of the ids."""
        order = f"temp.order_of_{self._name}"
        self._connection.execute(f"CREATE TEMP TABLE order_of_{self._name} (key BLOB, number INTEGER)")
        self._connection.executemany(f"INSERT INTO {order} VALUES (?, ?)", self._keys(column))
        yield from self._connection.execute(f"SELECT key, number FROM {order} ORDER BY key, number")

    def row(self, number: int) -> Row:
        """The values of a row that are wanted and there. One that is too long is left out and counted."""
        try:
            found = self._values(self._columns, number)
        except sqlite3.DataError:
            found = {}
            for column in self._columns:
                try:
                    found |= self._values([column], number)
                except sqlite3.DataError:
                    self._reasons["too_long"] += 1
        long = [name for name, v in found.items() if isinstance(v, str | bytes) and len(v) > LONGEST_VALUE]
        self._reasons.update("too_long" for _ in long)
        return {name: value for name, value in found.items() if name not in long}

    def _values(self, columns: Sequence[str], number: int) -> Row:
        listed = ", ".join(f'"{column}"' for column in columns)
        sql = f"SELECT {listed} FROM main.{self._name} WHERE {self._rowid} = ?"
        return dict(self._connection.execute(sql, (number,)).fetchone() or ())

    def _keys(self, column: str) -> Iterator[tuple[bytes, int]]:
        """(id, number) of the rows that have an id. Bytes compare alike in SQLite and in Python, whatever the encoding.

        A row whose id is too long ends the statement; another goes on behind it.
        """
        rowid, first = self._rowid, _LEAST
        sql = f'SELECT {rowid}, CAST(CAST("{column}" AS TEXT) AS BLOB) FROM main.{self._name} WHERE {rowid}'
        while first <= _MOST:
            try:
                for number, key in self._connection.execute(f"{sql} >= ? ORDER BY {rowid}", (first,)):
                    yield from () if key is None else ((key, number),)
                    first = number + 1
                return
            except sqlite3.DataError:  # by this row or the next: Python asks for one in advance
                following = f"SELECT {rowid} FROM main.{self._name} WHERE {rowid} >= ? ORDER BY {rowid} LIMIT 1"
                number = self._connection.execute(following, (first,)).fetchone()[0]
                key = self._key(f"{sql} = ?", number)
                yield from () if key is None else ((key, number),)
                first = number + 1

    def _key(self, sql: str, number: int) -> bytes | None:
        try:
            return self._connection.execute(sql, (number,)).fetchone()[1]
        except sqlite3.DataError:
            self._reasons["too_long"] += 1
            return None


def _check(connection: sqlite3.Connection, path: Path) -> None:
    plain = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    tables = {row[0] for row in connection.execute(plain)}
    if tables >= _OURS:
        raise UsageError(f"{path} is a Gleaner database already; name its folder with --workspace instead.")
    if not tables >= set(_TABLES):
        raise UsageError(f"{path} has no tables images and image_variants; give the reference pipeline's database.")
