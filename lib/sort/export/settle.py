"""The way of a finished dataset to its place, which a kill may cut off anywhere, and how the next run goes on with it.

The journal says first that a folder is being built, then all that putting it in its place comes to, then that this is
done. What was only being built is cleared; from the plan on everything is finished, by whichever run comes next.
"""

from __future__ import annotations

import errno
import filecmp
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lib.db import Context, Database, journal
from lib.db.journal import BUILDING, Action
from lib.errors import GleanerError
from lib.journal.moves import let_go, move_without_overwriting, same_file, temporary_name
from lib.temporary import is_temporary, temporary_beside
from lib.workspace import Workspace

MANIFEST = "dataset.json"
# Why an entry is in the journal that is no file: all of a folder that was being built is there, and all of the plan. It
# and the entry of the folder are dropped when the dataset is in its place.
COMPLETE = "complete"
BLOCK = 500

log = logging.getLogger("gleaner.export")


@dataclass(frozen=True)
class Building:
    """The folder in which a dataset is made, its place, and the number of the entry that tells of both."""

    folder: Path
    place: Path
    run_id: int
    entry: int


def begin(context: Context, place: Path) -> Building:
    """Makes the folder, and tells the journal of it first."""
    folder = temporary_beside(place)
    to_text = context.workspace.to_text
    entry = Action("write", to_text(folder), to_text(place), reason=BUILDING)
    journal.insert_actions(context.db, context.run_id, [entry])
    folder.mkdir(parents=True)
    return _begun(context, context.run_id)[0]


def commit(db: Database, begun: Building) -> None:
    """From here on the export is finished, by whichever run: the folder is complete, and so is the plan."""
    journal.insert_actions(db, begun.run_id, [Action("write", reason=COMPLETE)])


def abandon(db: Database, begun: Building) -> None:
    """Clears what was built, which is no dataset of anybody's yet, and what was planned."""
    if is_temporary(begun.folder.name) and not begun.folder.is_symlink():
        shutil.rmtree(begun.folder, ignore_errors=True)
    journal.set_state(db, [action.id for action in _planned(db, begun)], "dropped")


def finish(context: Context, begun: Building) -> None:
    """Carries out what is planned, from wherever it was cut off. Raises GleanerError where a file is in the way."""
    if begun.folder.is_dir():  # else it is in its place, and what has the older files' names is the new dataset's
        for action in _planned(context.db, begun):
            if action.kind == "move":
                _move(context.workspace, action)
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
    _record(context, begun)


def settle_exports(context: Context) -> int:
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


def in_blocks(actions: Iterable[Action]) -> Iterator[list[Action]]:
    entries = iter(actions)
    while block := list(islice(entries, BLOCK)):
        yield block


def _begun(context: Context, run_id: int) -> list[Building]:
    to_path = context.workspace.to_path
    return [
        Building(to_path(action.source), to_path(action.target), run_id, action.id)
        for action in journal.iter_actions(context.db, run_id, "planned")
        if action.reason == BUILDING
    ]


def _planned(db: Database, begun: Building) -> Iterator[Action]:
    yield from (action for action in journal.iter_actions(db, begun.run_id, "planned") if action.id >= begun.entry)


def _record(context: Context, begun: Building) -> None:
    """Marks what has happened; the rest, and the two entries that are no files, are dropped."""
    db = context.db
    with db.transaction():
        for block in in_blocks(_planned(db, begun)):
            done = [action.id for action in block if _has_happened(context.workspace, action)]
            journal.set_state(db, done, "done")
            journal.set_state(db, {action.id for action in block} - set(done), "dropped")


def _has_happened(workspace: Workspace, action: Action) -> bool:
    is_file = action.reason not in (BUILDING, COMPLETE)
    return is_file and os.path.lexists(workspace.to_path(action.target))


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
    for folder in sorted((path for path in (place, *place.rglob("*")) if _is_folder(path)), reverse=True):
        with suppress(OSError):  # not empty
            folder.rmdir()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
