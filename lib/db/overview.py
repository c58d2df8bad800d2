"""How much is in a database, for people who want to know whether there is anything."""

from __future__ import annotations

from lib.db.connection import Database


def table_counts(db: Database) -> dict[str, int]:
    """Rows of every table, by the table's name."""
    names = db.rows("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
    return {name: int(db.value(f'SELECT count(*) FROM "{name}"')) for (name,) in names}


def has_rows(db: Database, table: str) -> bool:
    """Whether a table holds anything at all."""
    return bool(db.value(f'SELECT EXISTS (SELECT 1 FROM "{table}")'))
