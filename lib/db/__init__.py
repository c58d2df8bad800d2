"""The database: the only place where SQL stands.

`open_database` gives a `Database`; the modules beside this one hold the functions that read and write it, one module a
subject, each function taking the `Database` first.
"""

from __future__ import annotations

from lib.db.connection import Database, open_database, open_for_preview

__all__ = ["Database", "open_database", "open_for_preview"]
