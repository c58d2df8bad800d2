"""The database as a whole: backups and their return, making the file smaller, resets, and the queries of `--check`.

A backup is made while others may use the database, and is checked before it counts.
"""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps
from pathlib import Path

from lib.db.connection import Database, for_owner_only, prepare, private_temporary
from lib.db.schema import migrate
from lib.db.soundness import BESIDE, EMPTY, FOREIGN, NEWER, find_fault, is_ours, only_reading
from lib.errors import GleanerError, UsageError
from lib.temporary import clear_dead
from lib.times import utc_now
from lib.workspace import DATABASE_NAME

_REPLACED = "-replaced"  # ends the name of what a restore has replaced
_NAME = re.compile(rf"gleaner-\d{{8}}T\d{{6}}Z(?:-\d+)?(?:{_REPLACED})?\.db")

_ASIDE = ".damaged-"  # in the name of a file that could not be used

# What each reset empties, children first. Files on disk stay, and so do raw answers.
RESETS: dict[str, tuple[str, ...]] = {
    "downloads": ("downloads",),
    "hashes": ("duplicates", "hashes"),
    "scores": ("labels", "scores", "embeddings"),
}
KEPT = ("runs",)  # what every reset leaves: the history of the runs themselves

_TOUCHED = " WHERE state <> 'pending' OR attempts > 0"
_RESET_DOWNLOADS = (
    "UPDATE downloads SET state = 'pending', reason = '', attempts = 0, next_try_at = '', variant_id = NULL, kind = '',"
    " sha256 = NULL, http_status = NULL, final_url = '', content_type = '', etag = '', last_modified = '',"
    f" bytes = NULL, elapsed_ms = NULL, log = '[]', lease = '', lease_until = '', updated_at = ?{_TOUCHED}"
)

BLOCK = 2_000


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
    with private_temporary(target) as temporary:
        _copy(db, temporary)
        os.replace(temporary, target)
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
    """The reason why a copy cannot be put back; empty where it can."""
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
    with private_temporary(database) as part:
        with closing(sqlite3.connect(part, isolation_level=None)) as made:
            with only_reading(copy) as source:
                source.backup(made)
            prepare(made)
        _sync(part)
        os.replace(part, waiting(database))
    aside = _free_aside(database) if os.path.lexists(database) else None
    if aside:
        os.rename(database, aside)
        if aside.is_file():
            for_owner_only(aside)
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
    """The place of a whole copy that waits for the unusable file to be moved away."""
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
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        db.connection.backup(copy)
        # A copy is one file: in WAL mode it would grow two more as soon as somebody looks at it.
        copy.execute("PRAGMA journal_mode=DELETE")
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
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


@dataclass(frozen=True)
class Room:
    """The size of the file and of its unused pages, in bytes."""

    size: int
    free: int

    @property
    def share(self) -> float:
        return self.free / self.size if self.size else 0.0


def room(db: Database) -> Room:
    page = int(db.value("PRAGMA page_size"))
    return Room(int(db.value("PRAGMA page_count")) * page, int(db.value("PRAGMA freelist_count")) * page)


def vacuum(db: Database) -> None:
    """Writes the database anew without its gaps; a kill leaves it as it was."""
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def tables_of(db: Database, what: str) -> tuple[str, ...]:
    """The tables that a reset empties; for `everything` all of them but the history of runs."""
    if what != "everything":
        return RESETS[what]
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    return tuple(name for name in db.column(sql) if name not in KEPT)


def count_rows(db: Database, what: str) -> dict[str, int]:
    """Counts the rows that a reset would take or change, by table; tables where it finds none are left out."""
    where = _TOUCHED if what == "downloads" else ""
    found = {table: int(db.value(f"SELECT count(*) FROM {table}{where}")) for table in tables_of(db, what)}
    return {table: rows for table, rows in found.items() if rows}


def examples(db: Database, what: str, table: str, most: int) -> list[str]:
    """A few of the rows, by the first columns that say something."""
    where = _TOUCHED if what == "downloads" else ""
    rows = db.rows(f"SELECT * FROM {table}{where} LIMIT ?", (most,))
    return [" ".join([str(value)[:60] for value in tuple(row) if value not in ("", None)][:5]) for row in rows]


def reset(db: Database, what: str) -> None:
    """Empties the tables, or makes all downloads pending again, in one transaction."""
    # Every table that refers to an emptied one is emptied too, so there is nothing to check row by row.
    db.execute(f"PRAGMA foreign_keys = {'OFF' if what == 'everything' else 'ON'}")
    try:
        with db.transaction():
            if what == "downloads":
                db.execute(_RESET_DOWNLOADS, (utc_now(),))
                return
            for table in tables_of(db, what):
                db.execute(f"DELETE FROM {table}")
    finally:
        db.execute("PRAGMA foreign_keys = ON")


@dataclass(frozen=True)
class FileClaim:
    """A file by its row: the content, its bytes, its place, and whether it has gone missing."""

    sha256: str
    path: str
    bytes: int
    state: str


@dataclass(frozen=True)
class AnswerClaim:
    """A raw answer by its row: its place and its content (empty where that was not recorded)."""

    id: int
    path: str
    sha256: str


def iter_files(db: Database) -> Iterator[FileClaim]:
    """Every content, in the order of the hashes, in blocks, so that rows may change while reading."""
    sql = "SELECT sha256, path, bytes, state FROM files WHERE sha256 > :last ORDER BY sha256"
    return (FileClaim(*row) for row in db.in_blocks(sql, "", BLOCK))


def iter_answers(db: Database) -> Iterator[AnswerClaim]:
    """Every raw answer that has a file."""
    sql = "SELECT id, path, sha256 FROM responses WHERE id > :last AND path <> '' ORDER BY id"
    return (AnswerClaim(*row) for row in db.in_blocks(sql, 0, BLOCK))


def known_paths(db: Database, paths: Sequence[str]) -> set[str]:
    """Those of the paths at which a content lies by its row."""
    sql = "SELECT path FROM files WHERE state <> 'missing' AND path IN (SELECT value FROM json_each(?))"
    return set(db.column(sql, (dumps(list(paths)),)))


def without_file(db: Database) -> list[tuple[int, str]]:
    """(number, key) of pictures that count as downloaded although their content is missing or has no row."""
    rows = db.execute(
        "SELECT image_id, ifnull(key, image_id) FROM downloads LEFT JOIN images ON images.id = image_id"
        " LEFT JOIN files ON files.sha256 = downloads.sha256"
        " WHERE downloads.state = 'done' AND (files.sha256 IS NULL OR files.state = 'missing')"
    )
    return [(row[0], str(row[1])) for row in rows]


def without_download(db: Database) -> list[tuple[int, str]]:
    """(number, key) of pictures that lack the row by which they would be fetched."""
    lacking = "NOT EXISTS (SELECT 1 FROM downloads WHERE image_id = images.id)"
    return [(row[0], row[1]) for row in db.execute(f"SELECT id, key FROM images WHERE {lacking}")]


def broken_references(db: Database) -> list[str]:
    """Rows whose parent is not there, as `table → parent`; step 4 takes them out."""
    return [f"{row[0]} → {row[2]}" for row in db.execute("PRAGMA foreign_key_check")]


def damage(db: Database) -> list[str]:
    """Faults that SQLite finds in the database itself; empty when it is sound."""
    found = db.column("PRAGMA integrity_check(10)")
    return [] if found == ["ok"] else found


def set_file_state(db: Database, hashes: Iterable[str], state: str) -> None:
    db.executemany("UPDATE files SET state = ? WHERE sha256 = ?", [(state, sha256) for sha256 in hashes])


def ask_again(db: Database, image_ids: Iterable[int]) -> None:
    """Makes pictures pending again whose file is gone, so that step 5 fetches it anew."""
    now = utc_now()
    db.executemany(
        "UPDATE downloads SET state = 'pending', reason = '', attempts = 0, next_try_at = '', sha256 = NULL,"
        " variant_id = NULL, kind = '', etag = '', last_modified = '', log = '[]', updated_at = ? WHERE image_id = ?",
        [(now, image_id) for image_id in image_ids],
    )


def add_downloads(db: Database, image_ids: Iterable[int]) -> None:
    now = utc_now()
    db.executemany(
        "INSERT INTO downloads (image_id, updated_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(image_id, now) for image_id in image_ids],
    )


def fail_answers(db: Database, found: Iterable[tuple[int, str]]) -> None:
    """Notes with answers, by number, why their file cannot be read any more. Their pictures stay."""
    db.executemany(
        "UPDATE responses SET ingest_reason = ? WHERE id = ?", [(reason, number) for number, reason in found]
    )
