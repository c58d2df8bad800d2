"""Whole copies of the database, made while others may use it, checked before they count, and how they come back."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from datetime import datetime, timezone
from pathlib import Path

from lib.db.connection import BUSY_TIMEOUT_MS, Database
from lib.db.migrations import migrate, schema_version
from lib.errors import GleanerError, UsageError

_REPLACED = "-replaced"  # ends the name of what a restore has replaced
_NAME = re.compile(rf"gleaner-\d{{8}}T\d{{6}}Z(?:-\d+)?(?:{_REPLACED})?\.db")

ABANDONED_SECONDS = 3600.0


def make_backup(db: Database, folder: Path, keep: int, *, replaced: bool = False) -> Path:
    """Copies the database into `folder`, checks the copy, and keeps the newest `keep` of all copies there.

    `replaced` marks what a restore is about to replace: such a copy is never meant by `last`.
    Raises GleanerError when the database turns out to be damaged; older copies are then left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    target = _free_name(folder, _REPLACED if replaced else "")
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


def choose_backup(folder: Path, name: str) -> Path:
    """The copy that is meant: `last`, a name in the folder, or a path. Raises UsageError when there is none.

    `last` is never what a restore has replaced, so that a restore ends the same however often it is run or killed.
    """
    found = list_backups(folder)
    if name == "last":
        if last := next((path for path in found if not path.stem.endswith(_REPLACED)), None):
            return last
        raise UsageError(f"--restore: there is no backup in {folder}.")
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    shown = ", ".join(path.name for path in found[:5]) or "none"
    raise UsageError(f"--restore: there is no backup {name!r}; the newest backups are {shown}.")


def restore_backup(db: Database, copy: Path) -> None:
    """Puts a copy in the place of the database's content, in one transaction: after a kill it is as before.

    Raises UsageError for a copy that is damaged or no database of ours.
    """
    source = sqlite3.connect(f"{copy.resolve().as_uri()}?immutable=1", uri=True, timeout=BUSY_TIMEOUT_MS / 1000)
    try:
        _check_copy(source, copy)
        source.backup(db.connection)
    finally:
        source.close()
    migrate(db.connection)


def set_aside_damaged(database: Path) -> Path | None:
    """Moves a database that cannot be read out of the way, with its log; None where it is sound or not there."""
    if not database.exists() or _is_sound(database):
        return None
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    aside = database.with_name(f"{database.name}.damaged-{stamp}")
    for suffix in ("-wal", "-shm", ""):  # the file itself last: until then a kill leaves it to be found damaged again
        path = database.with_name(database.name + suffix)
        if path.exists():
            os.replace(path, aside.with_name(aside.name + suffix))
    return aside


def _is_sound(database: Path) -> bool:
    connection = sqlite3.connect(database, timeout=BUSY_TIMEOUT_MS / 1000)
    try:
        connection.execute("PRAGMA query_only = ON")
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError as error:
        return "not a database" not in str(error) and "malformed" not in str(error)
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


def _check_copy(source: sqlite3.Connection, copy: Path) -> None:
    try:
        version = int(source.execute("PRAGMA user_version").fetchone()[0])
        tables = {row[0] for row in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        sound = source.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise UsageError(f"--restore: {copy} is damaged or no database ({error}); choose another.") from None
    if sound != "ok":
        raise UsageError(f"--restore: {copy} is damaged ({sound}); choose another.")
    if not {"images", "responses", "runs"} <= tables or not 0 < version <= schema_version():
        raise UsageError(f"--restore: {copy} is no backup of this version or an older one; choose another.")


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


def _free_name(folder: Path, ending: str) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    # Counted on from the newest of the same second: rotation may have made room below it.
    taken = [number for other, number in map(_age, list_backups(folder)) if other == stamp]
    number = f"-{max(taken) + 1}" if taken else ""
    return folder / f"gleaner-{stamp}{number}{ending}.db"


def _age(path: Path) -> tuple[str, int]:
    stamp, _, number = path.stem.removeprefix("gleaner-").removesuffix(_REPLACED).partition("-")
    return stamp, int(number or 1)
