"""Moves, copies and links files, with a journal: a kill loses nothing and a run can be undone.

The order is: the whole plan is written as `planned` entries; each file is handled; its entry becomes `done` together
with the rows that follow the file. A kill in between leaves entries that are still `planned`; `finish_interrupted`
looks at the disk, finishes what had happened and drops what had not. Taking back goes the same way: each file, then its
entry and its rows; what a kill left between the two is recognised by the disk.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lib.db import Context, Database, duplicates, journal
from lib.db.duplicates import forget_unmoved
from lib.db.journal import Action, latest_run_with_actions, run_step
from lib.errors import GleanerError, UsageError
from lib.journal.evidence import (
    LINKS,
    Elsewhere,
    both_hold,
    has_happened,
    is_as_made,
    is_content,
    is_returned,
    room_of,
    stands_for,
)
from lib.journal.moves import (
    copy_without_overwriting,
    hard_link,
    let_go,
    move_without_overwriting,
    remove_empty_parents,
    same_file,
    symbolic_link,
    temporary_name,
)
from lib.temporary import remove_file
from lib.workspace import Workspace, file_lock, step_lock

log = logging.getLogger(__name__)

# What is wrong with one file or its folder, and not with the disk: the others can still be handled.
OF_ONE_FILE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}
    | {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP}  # names that the other file system does not take
)
MARK_EVERY = 100  # entries marked in one transaction; a kill loses only marks, which the disk gives back


def plan(db: Database, run_id: int, actions: Iterable[Action]) -> int:
    """Writes the plan into the journal; nothing on disk is touched."""
    return journal.insert_actions(db, run_id, actions)


def apply(context: Context, *, check: Callable[[Action], str] = lambda action: "") -> Counter[str]:
    """Carries out the planned file actions of the run and counts them by outcome.

    `check` is asked right before each action and may give a reason not to do it. Outcomes are `done`, `dropped`
    (a check said no) and `failed` (the file or its folder may not be changed). Raises GleanerError where the source has
    gone or the target appeared, and OSError for a full disk.
    """
    db, run_id, counts = context.db, context.run_id, Counter[str]()
    done, emptied = list[Action](), ""
    with context.bar(journal.count_actions(db, run_id, "planned"), "Applying", "file") as progress:
        try:
            for action in journal.iter_actions(db, run_id, "planned"):
                # A file that was moved to make room for a link is not left without it.
                if context.stopping() and not (action.kind in LINKS and action.target == emptied):
                    break
                emptied = ""
                if check(action):
                    counts["dropped"] += 1
                    journal.set_state(db, [action.id], "dropped")
                    continue
                if not _attempt(db, context.workspace, action, _carry_out):
                    counts["failed"] += 1
                    continue
                done.append(action)
                emptied = action.source if action.kind == "move" else ""
                counts["done"] += 1
                progress.update()
                if len(done) >= MARK_EVERY:
                    _mark(db, context.workspace, done, "done")
                    done.clear()
        finally:
            _mark(db, context.workspace, done, "done")
    return counts


def finish_interrupted(context: Context, step: str, *, tidy: bool = False) -> int:
    """Brings the journal in line with the disk after a kill; gives the number of entries that it settled.

    What has happened is finished and marked, a link that a moved file made room for is made up for, the rest is
    dropped, with `tidy` also the folders that were made for it. To be called by a step that is `alone` (see
    `lib.cli.run`): a living run's plan would be dropped.
    """
    finished = _finish_runs(context, journal.runs_with_planned_actions(context.db, step), tidy)
    if (number := broken_undo(context.db, step, context.run_id)) is not None:
        finished += _finish_undo(context, number)
    return finished


def finish_others(context: Context, steps: Sequence[str]) -> None:
    """Does the same for other steps, where no run of theirs is at work, with all that follows from what they did.

    For a step that relies on where files lie and on what was taken away.
    """
    for step in steps:
        runs = journal.runs_with_planned_actions(context.db, step)
        undone = broken_undo(context.db, step, context.run_id)
        if not runs and undone is None:
            continue
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(step_lock(context.workspace.root, step), step))
            except GleanerError:  # what a living run has planned is its own affair
                continue
            _finish_runs(context, runs, tidy=True)
            if undone is not None:
                _finish_undo(context, undone)
    duplicates.mark_missed(context.db)


def _finish_runs(context: Context, runs: Iterable[int], tidy: bool) -> int:
    finished = 0
    for run_id in runs:
        for action in journal.iter_actions(context.db, run_id, "planned"):
            _finish_action(context.db, context.workspace, action)
            if tidy:
                _tidy(context.workspace, action.target)
            finished += 1
        forget_unmoved(context.db, run_id)
    return finished


def _finish_action(db: Database, workspace: Workspace, action: Action) -> None:
    if action.kind in ("move", "copy"):
        with suppress(OSError):
            temporary_name(workspace.to_path(action.target)).unlink()
    room = room_of(db, action)
    happened = has_happened(workspace, action, room)
    if not happened and not _link_is_due(workspace, action, room):
        journal.set_state(db, [action.id], "dropped")
        return
    try:
        done = _attempt(db, workspace, action, partial(_finish_half_move, db) if happened else _carry_out)
    except GleanerError as error:  # what cannot be made up for must not stop every run to come
        log.warning("%s", error)
        journal.set_state(db, [action.id], "dropped")
        return
    if done:
        _mark(db, workspace, [action], "done")


def _link_is_due(workspace: Workspace, link: Action, room: Action | None) -> bool:
    """True where the file whose place a link was to take has been moved away, and what it leads to is what it was."""
    keeper, place = workspace.to_path(link.source), workspace.to_path(link.target)
    if room is None or room.state != "done" or os.path.lexists(place):
        return False
    return is_content(keeper, link)


def _finish_undo(context: Context, run_id: int) -> int:
    """Marks what an undo had taken back when it was killed; what it had not reached stays as it is."""
    db, workspace, finished = context.db, context.workspace, 0
    undoing = _Undoing(db, workspace, run_id, resumed=True)
    for action in journal.iter_actions(db, run_id, "done", newest_first=True):
        source, target = workspace.to_path(action.source), workspace.to_path(action.target)
        if action.kind in LINKS and os.path.lexists(target):
            room = room_of(db, action)
            if room is None or is_as_made(workspace, action, room) or not undoing.is_back(room):
                undoing.standing.add(action.target)
                continue
        elif os.path.lexists(target):
            if action.kind == "move" and not os.path.lexists(source):
                with suppress(OSError):
                    temporary_name(source).unlink()
            if action.kind != "move" or not both_hold(source, target):
                continue
        if undoing.attempt(action) == "undone":
            _mark(db, workspace, [action], "undone")
            finished += 1
    return finished


def undo(context: Context, run_id: int) -> Counter[str]:
    """Takes back the file actions of a run, newest first. Nothing is ever overwritten, nor the last of its content
    taken away.

    Outcomes are `undone`, `missing` (what would be put back has gone), `occupied` (another file now lies at the old
    place), `changed` (a copy or link is no longer what the run made, so it is somebody's work and stays), `last_copy`
    (its content lies nowhere else any more, so it stays) and `failed` (the file or its folder may not be changed); all
    but the first stay `done`, so that a later undo can try again.
    """
    db, workspace, counts = context.db, context.workspace, Counter[str]()
    undoing, undone = _Undoing(db, workspace, run_id, context.dry_run), list[Action]()
    with context.bar(journal.count_actions(db, run_id, "done"), "Undoing", "file") as progress:
        try:
            for action in journal.iter_actions(db, run_id, "done", newest_first=True):
                outcome = undoing.attempt(action)
                counts[outcome] += 1
                progress.update()
                if outcome == "undone" and not context.dry_run:
                    undone.append(action)
                if len(undone) >= MARK_EVERY:
                    _mark(db, workspace, undone, "undone")
                    undone.clear()
        finally:
            _mark(db, workspace, undone, "undone")
    return counts


def run_to_undo(db: Database, step: str, reference: str, before: int = 0) -> int | None:
    """The number of the run that `--undo` names; None when `last` finds nothing to take back.

    `before` is the number of the run that asks. After an undo that was broken off `last` is the run that it was taking
    back, so that the same command goes on with it. Raises UsageError for a number that is no run of the step.
    """
    if reference == "last":
        return broken_undo(db, step, before) or latest_run_with_actions(db, step)
    if run_step(db, int(reference)) != step:
        raise UsageError(f"run {reference} is no run of this step; `--undo last` takes back the newest one.")
    return int(reference)


def broken_undo(db: Database, step: str, before: int) -> int | None:
    """The run that the newest run of a step was taking back when it was broken off; None where it was doing else."""
    last = journal.broken_off(db, step, before)
    if last is None or not last.undo:
        return None
    if last.undo != "last":
        return int(last.undo) if last.undo.isdigit() and run_step(db, int(last.undo)) == step else None
    return journal.taken_back_since(db, step, last.started_at) or latest_run_with_actions(db, step)


def left(db: Database, run_id: int) -> int:
    """The number of a run's actions that are still in force."""
    return journal.count_actions(db, run_id, "done")


def describe(workspace: Workspace, actions: Iterable[Action], *, dry_run: bool) -> Iterator[str]:
    """One line an action, as a person reads it."""
    for action in actions:
        verb = f"would {action.kind}" if dry_run else action.kind
        because = f"  ({action.reason})" if action.reason else ""
        yield f"{verb}  {action.source} -> {action.target}{because}"


def _attempt(db: Database, workspace: Workspace, action: Action, work: Callable[[Workspace, Action], object]) -> bool:
    """True where it could be done; what one file does not allow is recorded and told, and is no reason to stop."""
    try:
        work(workspace, action)
        return True
    except (OSError, GleanerError) as error:
        _tidy(workspace, action.target)
        if isinstance(error, _Appeared):  # the other file must never be taken for this one
            journal.set_state(db, [action.id], "dropped")
        if isinstance(error, GleanerError):
            raise
        outcome = _of_one_file(action.source, error)
    journal.set_state(db, [action.id], outcome)
    return False


class _Appeared(GleanerError):
    """Another file lies where one was to go."""


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
        raise _Appeared(f"{action.target} appeared while working; run the same command again.") from error


_EFFECTS: dict[str, Callable[[Path, Path], None]] = {
    "move": move_without_overwriting,
    "copy": copy_without_overwriting,
    "hardlink": hard_link,
    "symlink": symbolic_link,
}


def _mark(db: Database, workspace: Workspace, actions: list[Action], state: str) -> None:
    """Marks entries as `done` or `undone`, and writes with them all that follows."""
    if not actions:
        return
    moves = [action for action in actions if action.kind == "move"]
    if state == "done":
        for folder in sorted({workspace.to_path(action.source).parent for action in moves}):
            # One that a person named on the command line stays, empty or not: it is theirs. Undo makes folders again.
            remove_empty_parents(folder, workspace.images)
    with db.transaction():
        journal.set_state(db, [action.id for action in actions], state)
        for action in moves:
            old, new = (action.source, action.target) if state == "done" else (action.target, action.source)
            # A file in the quarantine is quarantined; anywhere else it is present.
            file_state = "quarantined" if new.startswith(workspace.quarantine.name + "/") else "present"
            journal.follow_file(db, action.sha256, old, new, file_state)
        follow = duplicates.mark_removed if state == "done" else duplicates.unmark_removed
        follow(db, [action.id for action in moves])
        _follow_returns(db, moves, state)


def returning(move: Action, reason: str) -> Action:
    """The entry that brings a file back which the entry `move` has taken away.

    That one counts as taken back as long as this one is in force.
    """
    payload = json.dumps({"returns": move.id})
    return Action("move", move.target, move.source, move.sha256, move.bytes, payload=payload, reason=reason)


def _follow_returns(db: Database, moves: Sequence[Action], state: str) -> None:
    """Brings the entries in line that took files away which these moves have brought back, or have taken again."""
    found = (json.loads(action.payload).get("returns") for action in moves if action.payload != "{}")
    if not (ids := [number for number in found if number]):
        return
    journal.set_state(db, ids, "undone" if state == "done" else "done")
    follow = duplicates.unmark_removed if state == "done" else duplicates.mark_removed
    follow(db, ids)


def _tidy(workspace: Workspace, text: str) -> None:
    """Removes the folders of the workspace that hold nothing where a file was to go or has gone; `images/` stays."""
    folder = workspace.to_path(text).parent
    inside = workspace.images == folder or workspace.images in folder.parents
    remove_empty_parents(folder, workspace.images if inside else workspace.root)


def _finish_half_move(db: Database, workspace: Workspace, action: Action) -> None:
    source, target = workspace.to_path(action.source), workspace.to_path(action.target)
    if action.kind != "move" or not both_hold(source, target):
        return
    after = journal.neighbour(db, action, after=True)
    if after is None or not stands_for(workspace, after, action):
        let_go(source, target)


@dataclass
class _Undoing:
    """Takes entries of one run back, newest first; a dry run only says what would come of it."""

    db: Database
    workspace: Workspace
    run_id: int
    dry_run: bool = False
    resumed: bool = False  # an undo was broken off: copies that have gone are those that it took away
    standing: set[str] = field(default_factory=set)  # places that links of the run still take

    def __post_init__(self) -> None:
        self.elsewhere = Elsewhere(self.db, self.workspace, self.run_id)

    def attempt(self, action: Action) -> str:
        """Takes an entry back and gives the outcome; `failed` where the file or its folder may not be changed."""
        try:
            return self._take_back(action)
        except OSError as error:
            return _of_one_file(action.target, error)

    def _take_back(self, action: Action) -> str:
        if action.kind == "move":
            return self._put_back(action)
        room = room_of(self.db, action)
        if room is not None:
            self.standing.add(action.target)
        outcome = self._remove(action, room)
        if outcome == "undone":
            self.standing.discard(action.target)
            if self.dry_run:
                self.elsewhere.freed.add(action.target)
        return outcome

    def _put_back(self, action: Action) -> str:
        source, target = self.workspace.to_path(action.source), self.workspace.to_path(action.target)
        there = os.path.lexists(source) and action.source not in self.elsewhere.freed
        if not os.path.lexists(target):
            if action.source in self.standing or not there or not is_returned(self.workspace, action):
                return "missing"
        elif there and (action.source in self.standing or not both_hold(source, target)):
            return "occupied"
        elif self.dry_run:
            self.elsewhere.freed.add(action.target)
        elif there:
            temporary_name(source).unlink(missing_ok=True)
            remove_file(target)
        else:
            move_without_overwriting(target, source)
        if not self.dry_run:
            _tidy(self.workspace, action.target)
        return "undone"

    def _remove(self, action: Action, room: Action | None) -> str:
        target = self.workspace.to_path(action.target)
        if not os.path.lexists(target):
            if not self.resumed:
                return "missing"
            # Taken away already, if what it was made of is still somewhere.
            source = self.workspace.to_path(action.source)
            there = os.path.exists(source) if action.kind == "symlink" else self.elsewhere.holds(action)
            return "undone" if there else "missing"
        if not is_as_made(self.workspace, action, room):
            return "undone" if room is not None and self.is_back(room) else "changed"
        if room is not None and not (
            room.state == "done" and os.path.lexists(self.workspace.to_path(room.target))
        ):  # the file that was here cannot come back, and an empty place is no way back
            return "missing"
        if not self.elsewhere.holds(action):
            return "last_copy"
        if not self.dry_run:
            remove_file(target)
            _tidy(self.workspace, action.target)
        return "undone"

    def is_back(self, room: Action) -> bool:
        """True where the file that made room for a link lies in its place again, whole or as a kill left it."""
        source, target = self.workspace.to_path(room.source), self.workspace.to_path(room.target)
        if not os.path.lexists(target):
            return os.path.lexists(source) and is_returned(self.workspace, room)
        if self.resumed:
            return both_hold(source, target)
        return not source.is_symlink() and same_file(source, target)
