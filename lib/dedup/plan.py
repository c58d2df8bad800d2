"""From groups to moves: asking a person about each group, the plan of a run, and deleting its quarantine for good.

Each move is checked once more at the last moment. Nothing is deleted but by --purge, and only after a person said so.
"""

from __future__ import annotations

import dataclasses
import filecmp
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lib.db import Context, Database, journal
from lib.db.duplicates import DuplicateRow, set_file_state
from lib.db.journal import Action, latest_run_with_actions, run_step
from lib.dedup.groups import DuplicateGroup, Member
from lib.dedup.judge import ONE_FILE
from lib.dedup.keep import is_below, sidecar_names
from lib.errors import GleanerError
from lib.files.pictures import PictureFile
from lib.journal import files as journal_files
from lib.journal.evidence import LINKS, is_returned, stands_for
from lib.journal.moves import free_target
from lib.temporary import remove_file
from lib.workspace import Workspace

log = logging.getLogger(__name__)

# Of the files looked at, where --max-share is not given. A search by pictures is asked for copies: of the gallery's
# results 49 % are, and a picture that everybody shows brings more. What went wrong in trials took 61 % (--remove
# edited), 88 % (--near-query 128) and 98 % (--far-query 60), all of it asked for by a flag. So the usual kinds may take
# four in five of what step 5 has fetched, anything else half, as of a person's own folders.
MOST_REMOVED = 0.5
MOST_REMOVED_OF_A_SEARCH = 0.8
FEW = 10  # files; without --max-share so few may go in any case, or three copies of one picture would be refused

LINK_KINDS = {"hard": "hardlink", "sym": "symlink"}

QUESTION = "move these away? [y]es, [n]o, [s]top asking and keep the rest, [q]uit without any move: "

BATCH = 200  # files whose rows are written at once


@dataclass(frozen=True)
class Guard:
    """The facts that must still hold when a file is about to be moved."""

    victim: PictureFile
    keeper: PictureFile
    same_bytes: bool


class QuarantinePlan:
    """The moves of a run and the guard of each.

    `roots` are all folders that were looked at, so that a run which goes on with what a killed one has left puts its
    files where that one would have put them.
    """

    def __init__(
        self,
        workspace: Workspace,
        run_id: int,
        groups: Sequence[DuplicateGroup],
        *,
        sidecars: bool,
        link: str = "",
        roots: Sequence[Path] = (),
    ):
        self.workspace, self.link = workspace, link
        self.groups = groups
        self.victims = {str(member.file.path) for _, member in removals(groups)}
        looked_at = set(roots) or {group.keeper.root for group in groups}
        self._bases = _bases(looked_at | {member.file.root for _, member in removals(groups)})
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self.guards: dict[str, Guard] = {}
        self.links: dict[str, Guard] = {}
        self.actions = list(self._plan(run_id, sidecars))

    def _plan(self, run_id: int, sidecars: bool) -> Iterator[Action]:
        taken: set[str] = set()
        folder = self.workspace.quarantine / str(run_id)
        for group, member in removals(self.groups):
            guard = Guard(member.file, group.keeper, member.kind == "bytes")
            inner = self._bases[member.file.root] / member.file.path.relative_to(member.file.root)
            target = free_target(folder / inner, taken)
            reason = f"{member.kind}: repeats {self.workspace.to_text(group.keeper.path)}"
            # Notes go first: after a kill in between, the picture is still there and the next run takes it.
            for note in self._notes(member.file.path) if sidecars else ():
                ending = note.name[len(member.file.path.stem) :]
                yield self._move(guard, note, free_target(target.with_name(target.stem + ending), taken), "", reason)
            yield self._move(guard, member.file.path, target, member.file.sha256, reason)
            if self.link and guard.same_bytes:  # a link to the keeper in the file's place
                kept, place = self.workspace.to_text(group.keeper.path), self.workspace.to_text(member.file.path)
                self.links[place] = guard
                size = group.keeper.bytes
                yield Action(LINK_KINDS[self.link], kept, place, group.keeper.sha256, size, reason=reason)

    def _move(self, guard: Guard, source: Path, target: Path, sha256: str, reason: str) -> Action:
        text = self.workspace.to_text(source)
        self.guards[text] = guard
        size = 0
        with suppress(OSError):
            size = source.stat().st_size
        return Action("move", text, self.workspace.to_text(target), sha256, size, reason=reason)

    def _notes(self, path: Path) -> Iterator[Path]:
        """The notes beside a picture, unless another picture that stays has the same name but for the suffix."""
        names = sidecar_names(path)
        siblings = self._names_by_stem(path.parent).get(path.stem, [])
        shared = any(n != path.name and n not in names and str(path.with_name(n)) not in self.victims for n in siblings)
        for name in names:
            note = path.with_name(name)
            if shared and not name.startswith(path.name + "."):
                continue
            # A name with an ending may be longer than names can be, where `Path` raises.
            if os.path.isfile(note) and not os.path.islink(note) and self.workspace.to_text(note) not in self.guards:
                yield note

    def _names_by_stem(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            found: dict[str, list[str]] = {}
            for name in os.listdir(folder):
                found.setdefault(Path(name).stem, []).append(name)
            self._listings[folder] = found
        return self._listings[folder]

    def check(self, action: Action) -> str:
        """Returns the reason not to carry out a move after all; empty when everything is as planned."""
        reason = self._objection(action)
        if reason and action.kind == "move":
            log.warning("%s stays where it is: %s", action.source, reason.replace("_", " "))
        return reason

    def _objection(self, action: Action) -> str:
        if action.kind in LINK_KINDS.values():
            return self._link_is_due(action)
        if (guard := self.guards.get(action.source)) is None:
            return "not_planned"
        there = os.path.lexists(self.workspace.to_path(action.source))
        return self._changed(guard) or ("" if there else "missing_file")

    def _link_is_due(self, action: Action) -> str:
        """Allows a link only where the file was moved away and its keeper is what it was."""
        guard = self.links.get(action.target)
        if guard is None or os.path.lexists(self.workspace.to_path(action.target)):
            return "not_planned"
        return "" if _as_planned(guard.keeper) and not guard.keeper.path.is_symlink() else "keeper_changed"

    def _changed(self, guard: Guard) -> str:
        victim, keeper = guard.victim, guard.keeper
        for name, file in (("keeper", keeper), ("file", victim)):
            if file.path.is_symlink():
                return f"{name}_is_a_link"
            if not _as_planned(file):
                return f"{name}_changed"
        if str(keeper.path) in self.victims or is_below(keeper.path, (self.workspace.quarantine.resolve(),)):
            return "keeper_goes_too"
        if os.path.samefile(keeper.path, victim.path):
            return "one_file"
        if guard.same_bytes and not filecmp.cmp(keeper.path, victim.path, shallow=False):
            return "bytes_differ"
        return ""


def removals(groups: Iterable[DuplicateGroup]) -> Iterator[tuple[DuplicateGroup, Member]]:
    """Yields every file that is to go, with its group."""
    for group in groups:
        for member in group.members:
            if member.decision == "remove":
                yield group, member


def far_link(group: DuplicateGroup, member: Member) -> str:
    """Returns the reason to keep a file in whose place no hard link to its keeper can be put; empty for any other."""
    if member.kind != "bytes" or _device(member.file.path) == _device(group.keeper.path):
        return ""
    return "on another file system than the keeper, where no hard link reaches"


def kept_where(
    groups: Iterable[DuplicateGroup], reason: Callable[[DuplicateGroup, Member], str]
) -> list[DuplicateGroup]:
    """Returns the groups, with every removal taken back that there is a reason against."""

    def kept(group: DuplicateGroup, member: Member) -> Member:
        why = reason(group, member) if member.decision == "remove" else ""
        return dataclasses.replace(member, decision="keep", reason=why) if why else member

    return [dataclasses.replace(group, members=tuple(kept(group, m) for m in group.members)) for group in groups]


def check_removal_limit(removed: int, looked_at: int, limit: float | None, usual: float = MOST_REMOVED) -> None:
    """Raises GleanerError when more would go than was asked for or, without a limit, than is usual."""
    most = usual if limit is None else limit
    if removed <= most * looked_at or (limit is None and removed <= FEW):
        return
    enough = -(-100 * removed // looked_at)  # per cent, rounded up
    raise GleanerError(
        f"{removed:,} of {looked_at:,} files ({removed / looked_at:.1%}) would go, more than {most:.0%}, so nothing"
        f" was moved; look at them with --dry-run and allow it with --max-share {enough}%."
    )


def as_rows(workspace: Workspace, groups: Iterable[DuplicateGroup]) -> Iterator[DuplicateRow]:
    """Yields the rows of the groups. A second name of the keeper is the same file, and no repeat of it."""
    for group in groups:
        for member in group.members:
            if member.decision == "keep" and member.reason == ONE_FILE:
                continue
            yield DuplicateRow(
                workspace.to_text(member.file.path),
                member.file.sha256,
                group.number,
                workspace.to_text(group.keeper.path),
                group.keeper.sha256,
                member.kind,
                member.distance,
                member.decision,
                member.reason,
            )


def _bases(roots: set[Path]) -> dict[Path, Path]:
    """Returns where each folder's files go in the run's quarantine: nothing between for one folder, else its name."""
    if len(roots) < 2:
        return dict.fromkeys(roots, Path())
    bases: dict[Path, Path] = {}
    taken: set[str] = set()
    for root in sorted(roots):
        name, number = root.name or "root", 1
        while name.casefold() in taken:
            number += 1
            name = f"{root.name or 'root'}_{number}"
        taken.add(name.casefold())
        bases[root] = Path(name)
    return bases


def _as_planned(file: PictureFile) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.bytes, file.mtime_ns)


def _device(path: Path) -> int:
    try:
        return path.parent.stat().st_dev
    except OSError:
        return -1


def ask(
    groups: Sequence[DuplicateGroup], say: Callable[[str], object], hear: Callable[[], str]
) -> tuple[set[int], set[int]]:
    """Asks about each group; returns the numbers of those to be left alone, and of those that a person said no to.

    To stop asking says nothing of the groups that were not shown. `hear` gives a line, or nothing at the end of the
    input.
    """
    pending = [group for group in groups if any(removals([group]))]
    refused: set[int] = set()
    for place, group in enumerate(pending):
        say(f"\n{place + 1} of {len(pending)}: keep {group.keeper.path}\n")
        for member in group.members:
            say(f"  {member.decision:<7} {member.file.path}  ({member.kind}, {member.reason})\n")
        answer = _answer(say, hear)
        if answer == "q":
            return {other.number for other in pending}, set()
        if answer == "s":
            return refused | {other.number for other in pending[place:]}, refused
        if answer == "n":
            refused.add(group.number)
    return refused, refused


def _answer(say: Callable[[str], object], hear: Callable[[], str]) -> str:
    """Returns one of y, n, s, q; the end of the input means q, so that a pipe that breaks moves nothing."""
    while True:
        say(QUESTION)
        line = hear()
        if not line:
            return "q"
        if (letter := line.strip().lower()[:1]) and letter in "ynsq":
            return letter


@dataclass(frozen=True)
class Purge:
    """The files that a run's quarantine still holds."""

    run_id: int
    actions: list[Action]
    bytes: int

    @property
    def question(self) -> str:
        count = len(self.actions)
        return (
            f"Delete {count:,} files ({self.bytes / 1e6:,.1f} MB) of run {self.run_id} for good? They cannot come back."
            f" Type {count} to do it: "
        )


def quarantined(db: Database, workspace: Workspace, run_id: int) -> Purge:
    """Returns the files of a run that still lie in the quarantine."""
    folder, held = workspace.quarantine.resolve(), list[Action]()
    for action in journal.iter_actions(db, run_id, "done"):
        path = workspace.to_path(action.target)
        if action.kind == "move" and folder in path.resolve().parents and not path.is_symlink():
            held.append(action)
    return Purge(run_id, held, sum(action.bytes for action in held))


def purge_asked(
    context: Context, reference: str, say: Callable[[str], object], hear: Callable[[], str]
) -> tuple[dict[str, int | float | str], str]:
    """Deletes the quarantine of a run for good, once a person has typed how many files that are; gives the counts and
    what there is to say."""
    number = journal_files.run_to_undo(context.db, "dedup", reference, context.run_id)
    held = quarantined(context.db, context.workspace, number) if number else None
    if held is None or not held.actions:
        return {"deleted": 0}, "there is nothing in the quarantine of that run"
    if context.dry_run:
        return {"to_delete": len(held.actions), "bytes": held.bytes}, ""
    say(held.question)
    if hear().strip() != str(len(held.actions)):
        return {"deleted": 0}, "nothing was deleted"
    return {"deleted": purge(context, held), "bytes": held.bytes}, ""


def purge(context: Context, what: Purge) -> int:
    """Deletes the files and records it; gives their number. A kill leaves files whose rows the next purge corrects."""
    count, gone = 0, list[Action]()
    for action in what.actions:
        if context.stopping():
            break
        if len(gone) == BATCH:
            _record(context.db, gone)
            gone.clear()
        with suppress(FileNotFoundError):
            remove_file(context.workspace.to_path(action.target))
        gone.append(action)
        count += 1
    # Before the last rows are written: as long as there are any, the same command goes on.
    _remove_empty(context.workspace, what.run_id)
    _record(context.db, gone)
    return count


def finish_purge(db: Database, workspace: Workspace, reference: str) -> None:
    """Records what a deletion that was killed had deleted of a run's quarantine."""
    run_id = latest_run_with_actions(db, "dedup") if reference == "last" else int(reference)
    if run_id is None or run_step(db, run_id) != "dedup":
        return
    held = quarantined(db, workspace, run_id).actions
    gone = [a for a in held if not os.path.lexists(workspace.to_path(a.target)) and not _is_back(db, workspace, a)]
    _remove_empty(workspace, run_id)
    _record(db, gone)


def clear_emptied(db: Database, workspace: Workspace) -> None:
    """Takes the folders away that a deletion has emptied and was killed before it could."""
    for folder in workspace.quarantine.glob("[0-9]*"):
        if folder.name.isdecimal() and run_step(db, int(folder.name)) == "dedup":
            _remove_empty(workspace, int(folder.name))


def _record(db: Database, gone: list[Action]) -> None:
    """A link in the place of a file that cannot come back stays for good: nothing is left to take back."""
    after = (journal.neighbour(db, action, after=True) for action in gone)
    links = [
        link
        for link, action in zip(after, gone, strict=True)
        if link and link.kind in LINKS and link.state == "done" and link.target == action.source
    ]
    with db.transaction():
        journal.set_state(db, [action.id for action in (*gone, *links)], "dropped")
        for action in gone:
            if action.sha256:
                set_file_state(db, action.sha256, action.target, "missing")


def _is_back(db: Database, workspace: Workspace, moved: Action) -> bool:
    """Says whether the file lies in its old place again, and not a link with the same bytes."""
    link = journal.neighbour(db, moved, after=True)
    return is_returned(workspace, moved) and not (link is not None and stands_for(workspace, link, moved))


def _remove_empty(workspace: Workspace, run_id: int) -> None:
    base = workspace.quarantine / str(run_id)
    for folder, _, _ in os.walk(base, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
