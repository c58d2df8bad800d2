"""Numbered migrations, and `docs/schema.md`, which `python -m lib.db.schema` writes from the schema they make.

Each migration runs in one transaction together with its number (`PRAGMA user_version`). The document's words come from
the comments in the migrations, its columns from the database.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from lib.domains import one_form, registrable_domain
from lib.records import address_digest

log = logging.getLogger("gleaner")

CACHE_KIB = 196_608  # keys are written in no order: with SQLite's own 2 MB each page goes to the disk many times
FOLDER = Path(__file__).parent / "migrations"

DOCUMENT = Path(__file__).parents[2] / "docs" / "schema.md"
HEAD = """# The database

`gleaner.db`, SQLite in WAL mode, schema {version}.

Made by `python -m lib.db.schema`; do not edit.

Times are UTC in ISO 8601, states are short words under a CHECK, JSON holds only what is never queried."""


def migrations() -> list[tuple[int, Path]]:
    """(number, file) of every migration, in order; a file is called `m001_what_it_does.sql`."""
    return sorted((int(path.name[1:4]), path) for path in FOLDER.glob("m[0-9][0-9][0-9]_*.sql"))


def schema_version() -> int:
    return migrations()[-1][0]


def migrate(connection: sqlite3.Connection, newest: int | None = None) -> None:
    """Applies what is missing, up to the migration of the number `newest` (default: all).

    Two processes may try at once: the second one finds nothing left to do.

    Parents are not checked meanwhile: taking away a table that is made anew would take its children's rows with it.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] >= schema_version():
        return
    last = schema_version() if newest is None else newest
    settings = [(name, connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("foreign_keys", "cache_size")]
    connection.execute("PRAGMA foreign_keys = OFF")  # has no effect within a transaction
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    try:
        _migrate(connection, last)
    finally:
        for name, value in settings:
            connection.execute(f"PRAGMA {name} = {value}")


def _migrate(connection: sqlite3.Connection, last: int) -> None:
    connection.create_function(
        "address_digest", 1, lambda url: None if url is None else address_digest(url), deterministic=True
    )
    connection.create_function("one_form", 1, one_form, deterministic=True)
    connection.create_function("registrable_domain", 1, registrable_domain, deterministic=True)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        current = connection.execute("PRAGMA user_version").fetchone()[0]
        if 0 < current < last:
            log.info("bringing the database from schema %d to %d: minutes for millions of pictures", current, last)
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


def describe_schema() -> str:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    comments = _comments(r"(\w+)")
    parts = [HEAD.format(version=schema_version())]
    tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
    for name, sql in tables:
        if not name.startswith("sqlite_"):
            parts += ["", f"## {name}", "", _sentence(comments.get(name, "")), ""]
            parts += _columns(connection, name, sql) + _keys(connection, name)
    return "\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _comments(name: str) -> dict[str, str]:
    """Returns the migrations' words for what a pattern names: `-- table: words`, `-- table.column: words`."""
    found: dict[str, str] = {}
    for _, path in migrations():
        found.update(re.findall(rf"^-- {name}: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def _columns(connection: sqlite3.Connection, table: str, sql: str) -> list[str]:
    notes = {**_column_comments(sql), **_comments(rf"{table}\.(\w+)")}
    lines = ["| column | type | |", "| --- | --- | --- |"]
    for _, name, kind, not_null, default, key in connection.execute(f"PRAGMA table_info({table})"):
        traits = ["key"] if key else []
        traits += ["may be empty"] if not not_null and not key else []
        traits += [f"default `{default}`"] if default is not None and default not in ("''", "'{}'") else []
        note = "; ".join(filter(None, [notes.get(name, ""), ", ".join(traits)]))
        lines.append(f"| `{name}` | {kind.lower()} | {note.replace('|', chr(92) + '|')} |")
    return lines


def _column_comments(sql: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    # SQLite writes a column that a later migration added behind the last one, on its line.
    for line in re.sub(r", (\w+ (?:TEXT|INTEGER|REAL|BLOB)\b)", r",\n    \1", sql).splitlines():
        if match := re.match(r"\s+([a-z_0-9]+) (?:TEXT|INTEGER|REAL|BLOB)\b", line):
            name = match[1]
        comment = re.search(r"-- (.+)$", line)
        allowed = re.search(r"CHECK \(\w+ IN \(([^)]*)\)?", line)
        parts = [found[name]] if name in found else []
        if allowed and "'" in allowed[1]:
            parts.append(", ".join(re.findall(r"'([^']*)'", allowed[1])).strip(", "))
        elif (
            "'" in line
            and name
            and not re.match(r"\s+[a-z_0-9]+ (?:TEXT|INTEGER|REAL|BLOB)\b", line)
            and "(" not in line[:8]
        ):
            parts.append(", ".join(re.findall(r"'([^']*)'", line)))
        if comment:
            parts.append(comment[1])
        if parts and name:
            found[name] = ", ".join(parts) if len(parts) > 1 else parts[0]
    return found


def _keys(connection: sqlite3.Connection, table: str) -> list[str]:
    lines: list[str] = []
    for row in connection.execute(f"PRAGMA index_list({table})").fetchall():
        _, index, unique, origin = row[:4]
        columns = ", ".join(f"`{c[2]}`" for c in connection.execute(f"PRAGMA index_info({index})"))
        if origin == "pk" and "," not in columns:
            continue
        word = {"pk": "Key", "u": "Unique"}.get(origin, "Unique index" if unique else "Index")
        lines.append(f"- {word}: {columns}")
    for row in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
        lines.append(f"- `{row[3]}` refers to `{row[2]}.{row[4] or 'id'}`")
    return ["", *lines] if lines else []


def main() -> None:
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(describe_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
