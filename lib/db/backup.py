"""Whole copies of the database, made while others may use it, checked before they count, and how they come back."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from lib.db.connection import Database, for_owner_only, prepare
from lib.db.migrations import migrate
from lib.db.soundness import BESIDE, EMPTY, FOREIGN, NEWER, find_fault, is_ours, only_reading
from lib.errors import GleanerError, UsageError
from lib.temporary import clear_dead, temporary_beside
from lib.workspace import DATABASE_NAME

_REPLACED = "-replaced"  # ends the name of what a restore has replaced
_NAME = re.compile(rf"gleaner-\d{{8}}T\d{{6}}Z(?:-\d+)?(?:{_REPLACED})?\.db")

_ASIDE = ".damaged-"  # in the name of a file that could not be used


def make_backup(db: Database, folder: Path, keep: int, *, replaced: bool = False) -> Path:
    """Copies the database into `folder`, checks the copy, and keeps the newest `keep` of all copies there.

    `replaced` marks what a restore is about to replace: such a copy is never meant by `last`.
    Raises GleanerError when the database turns out to be damaged; older copies are then left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_dead(folder)
    for old in list_backups(folder):
        for_owner_only(old)
    target = _free_name(folder, _REPLACED if replaced else "")
    temporary = temporary_beside(target)
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _copy(db, temporary)
        os.replace(temporary, target)
    finally:
        for suffix in ("", *BESIDE):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
    for old in list_backups(folder)[keep:]:
        old.unlink(missing_ok=True)
    return target


def list_backups(folder: Path) -> list[Path]:
    """The copies in a folder, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_age, reverse=True)


def choose_backup(folder: Path, name: str) -> tuple[Path, list[str]]:
    """The copy that is meant (`last`, a name in the folder, or a path), and sentences on newer ones that are no use.

    `last` is the newest that is sound, and never what a restore has replaced, so that a restore ends the same however
    often it is run or killed. Raises UsageError when there is none, or when the one that is named cannot be used.
    """
    found = list_backups(folder)
    if name != "last":
        path = _named(folder, name, found)
        if fault := _unfit(path):
            raise UsageError(f"--restore: {fault}; choose another.")
        return path, []
    passed: list[str] = []
    for path in found:
        if path.stem.endswith(_REPLACED):
            continue
        if not (fault := _unfit(path)):
            return path, passed
        passed.append(f"{fault}; the next older backup is taken")
    if passed:
        raise UsageError(f"--restore: none of the {len(passed)} backups in {folder} can be used; name another file.")
    raise UsageError(f"--restore: there is no backup in {folder}.")


def _named(folder: Path, name: str, found: list[Path]) -> Path:
    for path in (Path(name), folder / name):
        try:
            if not path.is_file():
                continue
            if path.resolve().parent == folder.resolve().parent and path.name == DATABASE_NAME:
                raise UsageError(f"--restore: {path} is the database itself; name a backup of it.")
        except (OSError, ValueError):  # too long a name, a null character
            continue
        return path
    shown = ", ".join(path.name for path in found[:5]) or "none"
    raise UsageError(f"--restore: there is no backup {name!r}; the newest backups are {shown}.")


def _unfit(copy: Path) -> str:
    """Why a copy cannot be put back; empty where it can."""
    try:
        fault = find_fault(copy, deep=True, texts=True)
    except OSError as error:
        return f"{copy} cannot be read ({error.strerror})"
    if fault is None and not is_ours(copy):
        return f"{copy} holds nothing"
    kinds = {
        FOREIGN: f"{copy} is no backup of this program's",
        NEWER: f"{copy} was made by a newer Gleaner",
        EMPTY: f"{copy} is empty",
    }
    return kinds.get(fault.kind, f"{copy} is damaged or no database ({fault.brief})") if fault else ""


def restore_backup(db: Database, copy: Path) -> None:
    """Puts a copy in the place of the database's content, in one transaction: after a kill it is as before."""
    with only_reading(copy) as source:
        source.backup(db.connection)
    migrate(db.connection)


def replace_unusable(database: Path, copy: Path) -> Path | None:
    """Puts a copy in the place of a file that cannot be used, without opening it; gives where that one is now.

    The copy is whole beside its place before anything is moved. From then on a kill leaves either the file as it was or
    what `finish_replacing` finishes, which every step begins with.
    """
    part = temporary_beside(database)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        made = sqlite3.connect(part, isolation_level=None)
        try:
            with only_reading(copy) as source:
                source.backup(made)
            prepare(made)
        finally:
            made.close()
        _sync(part)
        os.replace(part, waiting(database))
    finally:
        for suffix in ("", *BESIDE):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    aside = _free_aside(database) if os.path.lexists(database) else None
    if aside:
        os.rename(database, aside)
        for_owner_only(aside) if aside.is_file() else None
    finish_replacing(database)
    return aside


def finish_replacing(database: Path) -> bool:
    """Brings a copy that waits under its name where there is no file of that name; gives whether there was one.

    A log that belonged to the file which was there goes where that one went: SQLite would read it into the copy.
    """
    if os.path.lexists(database) or not waiting(database).exists():
        return False
    left = [path for suffix in BESIDE if (path := database.with_name(database.name + suffix)).exists()]
    if left:
        aside = next(iter(sorted(database.parent.glob(f"{database.name}{_ASIDE}*[0-9Z]"), reverse=True)), None)
        aside = aside or _free_aside(database)
        for path in left:
            os.replace(path, aside.with_name(aside.name + path.name.removeprefix(database.name)))
    os.rename(waiting(database), database)
    return True


def waiting(database: Path) -> Path:
    """Where a whole copy waits for the unusable file to be moved away."""
    return database.with_name(f"{database.name}.restoring")


def _free_aside(database: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        aside = database.with_name(f"{database.name}{_ASIDE}{stamp}" + (f"-{number}" if number > 1 else ""))
        if not any(os.path.lexists(aside.with_name(aside.name + suffix)) for suffix in ("", *BESIDE)):
            return aside
    raise AssertionError("numbers do not end")


def _sync(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


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
    _sync(path)


def _free_name(folder: Path, ending: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    # Counted on from the newest of the same second: rotation may have made room below it.
    taken = [number for other, number in map(_age, list_backups(folder)) if other == stamp]
    number = f"-{max(taken) + 1}" if taken else ""
    return folder / f"gleaner-{stamp}{number}{ending}.db"


def _age(path: Path) -> tuple[str, int]:
    stamp, _, number = path.stem.removeprefix("gleaner-").removesuffix(_REPLACED).partition("-")
    return stamp, int(number or 1)
