"""Whole copies of the database, made while others may use it, checked before they count."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from datetime import datetime, timezone
from pathlib import Path

from lib.db.connection import Database
from lib.errors import GleanerError

_NAME = re.compile(r"gleaner-\d{8}T\d{6}Z(?:-\d+)?\.db")

ABANDONED_SECONDS = 3600.0


def make_backup(db: Database, folder: Path, keep: int) -> Path:
    """Copies the database into `folder`, checks the copy, and keeps the newest `keep` of all copies there.

    Raises GleanerError when the database turns out to be damaged; older copies are then left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    target = _free_name(folder)
    temporary = folder / f".{target.name}.{os.getpid()}.part"
    try:
        _copy(db, temporary)
        os.replace(temporary, target)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)
    for old in list_backups(folder)[keep:]:
        old.unlink(missing_ok=True)
    return target


def list_backups(folder: Path) -> list[Path]:
    """The copies in a folder, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_age, reverse=True)


def _copy(db: Database, path: Path) -> None:
    copy = sqlite3.connect(path, isolation_level=None)
    try:
        db.connection.backup(copy)
        # A copy is one file: in WAL mode it would grow two more as soon as somebody looks at it.
        copy.execute("PRAGMA journal_mode=DELETE")
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    finally:
        copy.close()
    if found != "ok":
        raise GleanerError(f"the database is damaged ({found}); put back an older copy from {path.parent}.")
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _sweep(folder: Path) -> None:
    """Removes what a killed backup left half-written; one that is under way was written to just now."""
    for path in folder.glob(".gleaner-*.part*"):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            path.unlink(missing_ok=True)


def _free_name(folder: Path) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    # Counted on from the newest of the same second: rotation may have made room below it.
    taken = [number for other, number in map(_age, list_backups(folder)) if other == stamp]
    return folder / (f"gleaner-{stamp}-{max(taken) + 1}.db" if taken else f"gleaner-{stamp}.db")


def _age(path: Path) -> tuple[str, int]:
    stamp, _, number = path.stem.removeprefix("gleaner-").partition("-")
    return stamp, int(number or 1)
