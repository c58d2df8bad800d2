"""Numbered migrations: each runs in one transaction together with its number (`PRAGMA user_version`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "migrations"


def migrations() -> list[tuple[int, Path]]:
    """(number, file) of every migration, in order; a file is called `m001_what_it_does.sql`."""
    return sorted((int(path.name[1:4]), path) for path in FOLDER.glob("m[0-9][0-9][0-9]_*.sql"))


def schema_version() -> int:
    """The number of the newest migration."""
    return migrations()[-1][0]


def migrate(connection: sqlite3.Connection, newest: int | None = None) -> None:
    """Applies what is missing, up to the migration of the number `newest` (default: all).

    Two processes may try at once: the second one finds nothing left to do.

    Parents are not checked meanwhile: taking away a table that is made anew would take its children's rows with it.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] >= schema_version():
        return
    last = schema_version() if newest is None else newest
    checked = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    connection.execute("PRAGMA foreign_keys = OFF")  # has no effect within a transaction
    try:
        _migrate(connection, last)
    finally:
        connection.execute(f"PRAGMA foreign_keys = {checked}")


def _migrate(connection: sqlite3.Connection, last: int) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    try:
        current = connection.execute("PRAGMA user_version").fetchone()[0]
        for number, path in migrations():
            if not current < number <= last:
                continue
            for statement in statements(path.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def statements(script: str) -> Iterator[str]:
    """The single statements of a script: `executescript` would commit the transaction that it runs in."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if pending.strip():
        raise ValueError(f"unfinished SQL statement: {pending.strip()[:80]}")
