"""Moves, copies and links of files, journalled so that a kill loses nothing and a run can be undone.

The order is: the whole plan is written as `planned` entries; each file is handled; its entry becomes `done` together
with the row that follows the file. A kill in between leaves entries that are still `planned`; `settle` looks at the
disk, finishes what had happened and drops what had not.
"""

from __future__ import annotations

import errno
import filecmp
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lib.db import Database
from lib.db import actions as journal
from lib.db.actions import Action
from lib.db.runs import latest_run_with_actions, run_step
from lib.digest import sha256_of
from lib.errors import GleanerError, UsageError
from lib.moves import (
    copy_without_overwriting,
    hard_link,
    let_go,
    move_without_overwriting,
    remove_empty_parents,
    same_file,
    symbolic_link,
    temporary_name,
)
from lib.progress import BarFactory, no_bar
from lib.workspace import Workspace

log = logging.getLogger(__name__)

# What is wrong with one file or its folder, and not with the disk: the others can still be handled.
OF_ONE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY})
MARK_EVERY = 100  # entries marked done in one transaction; a kill loses only marks, which `settle` finds again


def plan(db: Database, run_id: int, actions: Iterable[Action]) -> int:
    """Writes the plan into the journal; nothing on disk is touched."""
    return journal.insert_actions(db, run_id, actions)


def apply(
    db: Database,
    workspace: Workspace,
    run_id: int,
    *,
    check: Callable[[Action], str] = lambda action: "",
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> Counter[str]:
    """Carries out the planned file actions of a run and counts them by outcome.

    `check` is asked right before each action and may give a reason not to do it. Outcomes are `done`, `dropped`
    (a check said no) and `failed` (the file or its folder may not be changed). Raises GleanerError where the source has
    gone or the target appeared, and OSError for a full disk.
    """
    counts: Counter[str] = Counter()
    done: list[Action] = []
    with bar(journal.count_actions(db, run_id, "planned"), "Applying", "file") as progress:
        try:
            for action in journal.iter_actions(db, run_id, "planned"):
                if stopping():
                    break
                if check(action):
                    counts["dropped"] += 1
                    journal.set_state(db, [action.id], "dropped")
                    continue
                if not _attempt(db, workspace, action, _carry_out):
                    counts["failed"] += 1
                    continue
                done.append(action)
                counts["done"] += 1
                progress.update()
                if len(done) >= MARK_EVERY:
                    _mark_done(db, workspace, done)
                    done.clear()
        finally:
            _mark_done(db, workspace, done)
    return counts


def settle(
    db: Database, workspace: Workspace, step: str, is_due: Callable[[Action], bool] = lambda action: False
) -> int:
    """Brings the journal in line with the disk after a kill; gives the number of entries that it settled.

    `is_due` is asked about an action that has not happened: whether it is made up for, since what it belongs to has.
    To be called by a step that is `alone` (see `lib.cli.run`): a living run's plan would be dropped.
    """
    settled = 0
    for run_id in journal.runs_with_planned_actions(db, step):
        for action in journal.iter_actions(db, run_id, "planned"):
            _settle_one(db, workspace, action, is_due)
            settled += 1
    return settled


def _settle_one(db: Database, workspace: Workspace, action: Action, is_due: Callable[[Action], bool]) -> None:
    temporary_name(workspace.to_path(action.target)).unlink(missing_ok=True)
    happened = _has_happened(workspace, action)
    if not happened and not is_due(action):
        journal.set_state(db, [action.id], "dropped")
        return
    try:
        done = _attempt(db, workspace, action, _finish_half_move if happened else _carry_out)
    except GleanerError as error:  # what cannot be made up for must not stop every run to come
        log.warning("%s", error)
        journal.set_state(db, [action.id], "dropped")
        return
    if done:
        _mark_done(db, workspace, [action])


def undo(
    db: Database, workspace: Workspace, run_id: int, *, dry_run: bool = False, bar: BarFactory = no_bar
) -> Counter[str]:
    """Takes back the file actions of a run, newest first. Nothing is ever overwritten.

    Outcomes are `undone`, `missing` (what would be put back has gone), `occupied` (another file now lies at the old
    place), `changed` (a copy or link is no longer what the run made, so it is somebody's work and stays) and `failed`
    (the file or its folder may not be changed); all but the first stay `done`, so that a later undo can try again.
    """
    counts: Counter[str] = Counter()
    freed: set[str] = set()  # by a dry run, which takes nothing away
    with bar(journal.count_actions(db, run_id, "done"), "Undoing", "file") as progress:
        for action in journal.iter_actions(db, run_id, "done", newest_first=True):
            try:
                outcome = _undo_one(db, workspace, action, dry_run)
            except OSError as error:
                outcome = _of_one_file(action.target, error)
            if outcome == "occupied" and action.source in freed:
                outcome = "undone"
            if dry_run and outcome == "undone":
                freed.add(action.target)
            counts[outcome] += 1
            progress.update()
    return counts


def run_to_undo(db: Database, step: str, reference: str) -> int | None:
    """The number of the run that `--undo` names; None when `last` finds nothing to take back.

    Raises UsageError for a number that is no run of the step.
    """
    if reference == "last":
        return latest_run_with_actions(db, step)
    if run_step(db, int(reference)) != step:
        raise UsageError(f"run {reference} is no run of this step; `--undo last` takes back the newest one.")
    return int(reference)


def left(db: Database, run_id: int) -> int:
    """How many of a run's actions are still in force."""
    return journal.count_actions(db, run_id, "done")


def describe(workspace: Workspace, actions: Iterable[Action], *, dry_run: bool) -> Iterator[str]:
    """One line an action, as a person reads it."""
    for action in actions:
        verb = f"would {action.kind}" if dry_run else action.kind
        because = f"  ({action.reason})" if action.reason else ""
        yield f"{verb}  {action.source} -> {action.target}{because}"


def _attempt(db: Database, workspace: Workspace, action: Action, work: Callable[[Workspace, Action], object]) -> bool:
    """Whether it could be done; what one file does not allow is recorded and told, and is no reason to stop."""
    try:
        work(workspace, action)
        return True
    except OSError as error:
        outcome = _of_one_file(action.source, error)
    journal.set_state(db, [action.id], outcome)
    remove_empty_parents(workspace.to_path(action.target).parent, workspace.root)
    return False


def _of_one_file(name: str, error: OSError) -> str:
    """`failed`; raises the error again where it is about more than one file."""
    if error.errno not in OF_ONE_FILE:
        raise error
    log.warning("%s stays where it is: %s", name, error.strerror)
    return "failed"


def _carry_out(workspace: Workspace, action: Action) -> None:
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    try:
        _EFFECTS[action.kind](source, target)
    except FileNotFoundError as error:
        raise GleanerError(f"{action.source} has gone while working ({error}); run the same command again.") from error
    except FileExistsError as error:
        raise GleanerError(f"{action.target} appeared while working; run the same command again.") from error


_EFFECTS: dict[str, Callable[[Path, Path], None]] = {
    "move": move_without_overwriting,
    "copy": copy_without_overwriting,
    "hardlink": hard_link,
    "symlink": symbolic_link,
}


def _mark_done(db: Database, workspace: Workspace, actions: list[Action]) -> None:
    if not actions:
        return
    with db.transaction():
        journal.set_state(db, [action.id for action in actions], "done")
        for action in actions:
            if action.kind == "move":
                journal.follow_file(
                    db, action.sha256, action.source, action.target, _state_at(workspace, action.target)
                )


def _state_at(workspace: Workspace, text: str) -> str:
    """A file in the quarantine is quarantined; anywhere else it is present."""
    return "quarantined" if text.startswith(workspace.quarantine.name + "/") else "present"


def _has_happened(workspace: Workspace, action: Action) -> bool:
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    if not os.path.lexists(target):
        return False
    # A final name only ever shows a whole file; but where both names exist, only equal bytes prove that it is this one.
    return not os.path.lexists(source) or same_file(source, target) or filecmp.cmp(source, target, shallow=False)


def _finish_half_move(workspace: Workspace, action: Action) -> None:
    source = workspace.to_path(action.source)
    if action.kind == "move" and os.path.lexists(source):
        let_go(source, workspace.to_path(action.target))


def _undo_one(db: Database, workspace: Workspace, action: Action, dry_run: bool) -> str:
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    if not os.path.lexists(target):
        return "missing"
    if action.kind == "move":
        if os.path.lexists(source) and not _is_put_back(source, target):
            return "occupied"
        if not dry_run:
            _put_back(source, target)
    else:
        if not _is_as_made(source, target, action):
            return "changed"
        if not dry_run:
            os.unlink(target)
    if not dry_run:
        with db.transaction():
            journal.set_state(db, [action.id], "undone")
            if action.kind == "move":
                journal.follow_file(
                    db, action.sha256, action.target, action.source, _state_at(workspace, action.source)
                )
        remove_empty_parents(target.parent, workspace.root)
    return "undone"


def _is_as_made(source: Path, target: Path, action: Action) -> bool:
    """Whether a copy or link still is what the run made of its source."""
    if action.kind == "symlink":
        link = os.path.join(target.parent, os.readlink(target)) if target.is_symlink() else ""
        return bool(link) and os.path.abspath(link) == os.path.abspath(source)
    if target.is_symlink() or not target.is_file():
        return False
    if action.kind == "hardlink" and same_file(source, target):
        return True
    return sha256_of(target) == (action.sha256 or (sha256_of(source) if source.is_file() else ""))


def _is_put_back(source: Path, target: Path) -> bool:
    """Whether both names hold the file, as an undo leaves them that was killed between its two halves.

    A link to the file is another thing: it holds nothing.
    """
    if source.is_symlink() != target.is_symlink():
        return False
    if same_file(source, target):
        return True
    return source.is_file() and target.is_file() and filecmp.cmp(source, target, shallow=False)


def _put_back(source: Path, target: Path) -> None:
    if os.path.lexists(source):
        temporary_name(source).unlink(missing_ok=True)
        os.unlink(target)
    else:
        move_without_overwriting(target, source)
