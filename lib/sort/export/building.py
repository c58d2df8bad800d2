"""The way of a dataset from the folder in which it is built to its place: journalled, and finished after a kill.

The journal has the building from its begin, and the whole plan before anything is moved: what a kill leaves is finished
or cleared by the next run of step 7 (`finish_exports`).
"""

from __future__ import annotations

import errno
import filecmp
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.db import Context, Database, journal
from lib.db.journal import BUILDING, MANIFEST, Action
from lib.errors import GleanerError
from lib.files.pictures import sha256_of
from lib.journal.moves import let_go, move_without_overwriting, same_file, temporary_name
from lib.progress import chunked
from lib.sort.output import remove_if_empty
from lib.temporary import is_temporary, temporary_beside
from lib.workspace import Workspace

log = logging.getLogger("gleaner.export")

# Why an entry is in the journal that is no file: all of a folder that was being built is there, and all of the plan. It
# and the entry of the folder are dropped when the dataset is in its place.
COMPLETE = "complete"
BLOCK = 500


@dataclass(frozen=True)
class Building:
    """The folder in which a dataset is made, its place, and the number of the journal's entry of both.

    One that `keeps` is made of another that lies in the place: files that are not planned to leave stay.
    """

    folder: Path
    place: Path
    run_id: int
    entry: int
    keeps: bool = False


def begin(context: Context, place: Path, *, keeps: bool = False) -> Building:
    """Enters the folder in the journal, then makes it."""
    folder = temporary_beside(place)
    to_text = context.workspace.to_text
    payload = json.dumps({"keeps": True}) if keeps else "{}"
    entry = Action("write", to_text(folder), to_text(place), payload=payload, reason=BUILDING)
    journal.insert_actions(context.db, context.run_id, [entry])
    folder.mkdir(parents=True)
    return _begun(context, context.run_id)[-1]


def plan(context: Context, begun: Building, leaving: Iterable[Path]) -> None:
    """Writes the plan: files of the dataset in that place go to the quarantine, those of the new one come."""
    for part in chunked(_planned_files(context, begun, leaving), BLOCK):  # they are hashed: other steps get their turn
        journal.insert_actions(context.db, context.run_id, part)


def _planned_files(context: Context, begun: Building, leaving: Iterable[Path]) -> Iterator[Action]:
    place, to_text = begun.place, context.workspace.to_text
    away = context.workspace.quarantine / str(context.run_id) / "export" / place.name
    if begun.keeps:  # of several datasets with one name
        away = away.with_name(f"{begun.entry}-{place.name}")
    for path in leaving:
        content, target = "" if path.is_symlink() else sha256_of(path), away / path.relative_to(place)
        yield Action("move", to_text(path), to_text(target), content, path.lstat().st_size)
    for path in files_below(begun.folder):
        target = place / path.relative_to(begun.folder)
        if path.is_symlink():
            yield Action("symlink", to_text(Path(os.readlink(path))), to_text(target))
        else:  # undo takes away only what is still as it was written
            yield Action("write", "", to_text(target), sha256_of(path), path.stat().st_size)


def commit(db: Database, begun: Building) -> None:
    """From here on the export is finished, by whichever run: the folder is complete, and so is the plan."""
    journal.insert_actions(db, begun.run_id, [Action("write", reason=COMPLETE)])


def abandon(db: Database, begun: Building) -> None:
    """Clears what was built, which is no dataset of anybody's yet, and what was planned."""
    if is_temporary(begun.folder.name) and not begun.folder.is_symlink():
        shutil.rmtree(begun.folder, ignore_errors=True)
    journal.set_state(db, [action.id for action in _planned(db, begun)], "dropped")
    journal.forget_dataset(db, begun.entry)


def finish(context: Context, begun: Building) -> None:
    """Carries out what is planned, from wherever it was cut off. Raises GleanerError where a file is in the way."""
    if begun.folder.is_dir():  # else it is in its place, and what has the older files' names is the new dataset's
        for action in _planned(context.db, begun):
            if action.kind == "move":
                _move(context.workspace, action)
        _put_in_place(begun)
    _record(context, begun)


def _put_in_place(begun: Building) -> None:
    if begun.keeps:
        for path in files_below(begun.folder):
            target = begun.place / path.relative_to(begun.folder)
            if os.path.lexists(target):
                raise GleanerError(f"{target} came while the dataset was written; move it away.")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
        _remove_empty(begun.folder)
        _remove_empty(begun.place)
        return
    _remove_empty(begun.place)
    try:
        os.rename(begun.folder, begun.place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise GleanerError(
            f"{begun.place} holds files that came while the dataset was written; move them away and run the same"
            " command again."
        ) from error


def finish_exports(context: Context) -> int:
    """Finishes or clears the exports that were cut off; gives their number. For a run of step 7, which is alone."""
    cut_off = 0
    for run_id in journal.runs_with_begun_datasets(context.db):
        for begun in _begun(context, run_id):
            cut_off += 1
            if not any(action.reason == COMPLETE for action in _planned(context.db, begun)):
                abandon(context.db, begun)
                continue
            try:
                finish(context, begun)
            except GleanerError as error:  # it must not stop every run to come
                log.warning("%s The dataset is given up.", error)
                shutil.rmtree(begun.folder, ignore_errors=True)
                _record(context, begun)
    return cut_off


def remove_empty_folders(context: Context, run_id: int) -> None:
    """After an undo: the folders of the run's dataset that hold nothing any more."""
    for action in journal.iter_actions(context.db, run_id, "undone"):
        if action.kind == "write" and action.target.endswith(f"/{MANIFEST}"):
            _remove_empty(context.workspace.to_path(action.target).parent)


def files_below(folder: Path) -> list[Path]:
    """Everything below a folder that is no folder, sorted. A link to a folder is a file here."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _begun(context: Context, run_id: int) -> list[Building]:
    to_path = context.workspace.to_path
    return [
        Building(to_path(action.source), to_path(action.target), run_id, action.id, action.payload != "{}")
        for action in journal.iter_actions(context.db, run_id, "planned")
        if action.reason == BUILDING
    ]


def _planned(db: Database, begun: Building) -> Iterator[Action]:
    yield from (action for action in journal.iter_actions(db, begun.run_id, "planned") if action.id >= begun.entry)


def _record(context: Context, begun: Building) -> None:
    """Marks what has happened; the rest, and the two entries that are no files, are dropped."""
    db = context.db
    with db.transaction():
        for block in chunked(_planned(db, begun), BLOCK):
            files = [action for action in block if action.reason not in (BUILDING, COMPLETE)]
            done = {action.id for action in files if os.path.lexists(context.workspace.to_path(action.target))}
            journal.set_state(db, done, "done")
            journal.set_state(db, {action.id for action in block} - done, "dropped")


def _move(workspace: Workspace, action: Action) -> None:
    """Moves a file of the older dataset away, unless that has happened."""
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    if not os.path.lexists(source):
        return
    if not os.path.lexists(target):
        temporary_name(target).unlink(missing_ok=True)
        move_without_overwriting(source, target)
    elif not source.is_symlink() and (same_file(source, target) or filecmp.cmp(source, target, shallow=False)):
        let_go(source, target)  # only a move from disk to disk that was cut off between its halves leaves both


def _remove_empty(place: Path) -> None:
    """Removes the folder and those below it as far as they hold nothing."""
    below = (path for path in (place, *place.rglob("*")) if path.is_dir() and not path.is_symlink())
    for folder in sorted(below, reverse=True):
        remove_if_empty(folder)
