"""Brings pictures back from the quarantine one by one: those that `--restore` names, and those that decisions keep.

Each comes back by a move of this run, planned in the journal first, so that a kill loses nothing and `--undo` takes it
back. Where a picture takes the place of the keeper, it comes back before that one goes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.db import Context
from lib.db.duplicates import TakenPicture, keep_files, places_of, record_duplicates, taken_pictures
from lib.db.hashes import set_apart
from lib.db.journal import Action
from lib.dedup.current import refresh_page
from lib.dedup.groups import DuplicateGroup, Member
from lib.dedup.inputs import PersonDecision
from lib.dedup.keep import Traits, is_below, sidecar_names
from lib.dedup.plan import QuarantinePlan, as_rows
from lib.errors import EXIT_FAILED, EXIT_OK, UsageError
from lib.files.pictures import PictureFile, sha256_of
from lib.journal import files as journal_files
from lib.text import path_as_text
from lib.times import utc_now

log = logging.getLogger(__name__)

LEAST_DIGITS = 6  # of a sha256: fewer are met by chance among some thousand pictures
_DIGITS = frozenset("0123456789abcdef")
SHOWN = 10  # sentences; a decisions file may name thousands


@dataclass
class Returns:
    """The pictures that come back in one run.

    roots       the folders that were named on the command line
    staying     folders in which nothing may go, links resolved
    only_shown  nothing moves
    """

    context: Context
    roots: Sequence[Path] = ()
    staying: Sequence[Path] = ()
    only_shown: bool = False
    coming: dict[str, TakenPicture] = field(default_factory=dict)  # by the place to which they come
    exchanged: dict[str, PictureFile] = field(default_factory=dict)  # the keeper that goes instead
    already: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # sentences
    back: set[str] = field(default_factory=set)  # places, once they are back

    def __post_init__(self) -> None:
        workspace = self.context.workspace
        self._notes: dict[tuple[int, str], Action] = {}
        self._taken: list[TakenPicture] = []  # newest first; one whose file is no longer there is none
        for taken in taken_pictures(self.context.db, workspace.quarantine.name + "/"):
            if not os.path.lexists(workspace.to_path(taken.move.target)):
                continue
            if taken.move.sha256:
                self._taken.append(taken)
            else:
                self._notes[taken.move.run_id, taken.move.source] = taken.move
        self._by_place: dict[str, TakenPicture] = {}
        for taken in self._taken:
            self._by_place.setdefault(self._place(taken.move.source), taken)

    def _place(self, text: str) -> str:
        return os.path.abspath(self.context.workspace.to_path(text))

    def ask(self, picture: str) -> None:
        """Notes that a picture is to come back: its old path, its path in the quarantine, or the head of its sha256.

        Raises UsageError for one that nobody knows, and where several are meant.
        """
        found = self._meant(picture)
        if len(found) > 1:
            places = ", ".join(path_as_text(taken.move.source) for taken in found[:3])
            raise UsageError(f"--restore {picture} means {len(found):,} pictures ({places}, …); give the path of one.")
        if found:
            self._add(found[0])
        elif self._is_there(picture):
            self.already.append(picture)
        else:
            raise UsageError(
                f"--restore {picture}: step 6 has no such picture in this quarantine; give its path from the page, its"
                f" path in the quarantine, or at least {LEAST_DIGITS} digits of its sha256, and check --workspace."
            )

    def _meant(self, picture: str) -> list[TakenPicture]:
        """Returns the pictures in the quarantine that somebody may mean; of a place that several have left the newest
        one."""
        known = self._by_place.get(os.path.abspath(picture)) or self._by_place.get(self._place(_slashed(picture)))
        if known:
            return [known]
        held = [taken for taken in self._taken if self._is_at(taken.move.target, picture)]
        return held or [taken for taken in self._by_place.values() if _begins(taken.move.sha256, picture)]

    def _is_at(self, text: str, picture: str) -> bool:
        return self._place(text) in (os.path.abspath(picture), self._place(_slashed(picture)))

    def _is_there(self, picture: str) -> bool:
        """Says whether a picture lies where it belongs: it was never moved, or has come back."""
        workspace = self.context.workspace
        if any(os.path.isfile(place) for place in (picture, self._place(_slashed(picture)))):
            return True
        if _begins(picture.lower(), picture) and any(
            workspace.to_path(path).is_file() for path in places_of(self.context.db, picture.lower())
        ):
            return True
        gone = taken_pictures(self.context.db, workspace.quarantine.name + "/", "undone")
        return any(
            os.path.isfile(workspace.to_path(taken.move.source))
            for taken in gone
            if self._is_at(taken.move.target, picture) or _begins(taken.move.sha256, picture)
        )

    def follow(self, decisions: Mapping[str, PersonDecision]) -> None:
        """Notes what decisions bring back: `keep` a picture that was moved, `keeper` in exchange for its keeper."""
        for path, decision in decisions.items():
            if decision.word not in ("keep", "keeper") or os.path.lexists(path):
                continue
            taken = self._by_place.get(os.path.abspath(path))
            if taken is None:
                self.refused.append(f"{path} is neither there nor in the quarantine")
            elif decision.word == "keep":
                self._add(taken)
            else:
                self._exchange(taken, decision.keeper or self._place(taken.keeper_path))

    def _exchange(self, taken: TakenPicture, keeper: str) -> None:
        place, path = self._place(taken.move.source), Path(keeper)
        if not taken.keeper_path or self._place(taken.keeper_path) != os.path.abspath(keeper):
            self.refused.append(f"{place} was moved away beside another keeper than {keeper}")
        elif not os.path.lexists(path):  # has gone already: nothing to exchange it for
            self._add(taken)
        elif is_below(path, self.staying):
            self.refused.append(f"{keeper} is protected, so it stays the keeper")
        elif path.is_symlink() or not path.is_file() or sha256_of(path) != taken.keeper_sha256:
            self.refused.append(f"{keeper} is no longer the picture that was shown")
        elif self._add(taken):
            status = path.stat()
            root = next((root for root in self.roots if root in path.parents), None) or self._root(path)
            file = PictureFile(path, taken.keeper_sha256, status.st_size, status.st_mtime_ns, root)
            self.exchanged[place] = file

    def _root(self, path: Path) -> Path:
        root = self.context.workspace.root
        return root if root in path.parents else path.parent

    def _add(self, taken: TakenPicture) -> bool:
        place = self._place(taken.move.source)
        if not os.path.lexists(place):
            self.coming[place] = taken
            return True
        link = os.path.islink(place) or os.stat(place).st_nlink > 1
        what = "a link or another file lies" if link else "another file lies"
        self.refused.append(
            f"{place} cannot come back: {what} in its place; move that away, or take run {taken.move.run_id} back with"
            f" --undo {taken.move.run_id}"
        )
        return False

    def carry_out(self) -> None:
        """Brings back what is to come, and lets go what that is exchanged for; in a dry run nothing.

        That a person wants these pictures is remembered, together with the plan.
        """
        context = self.context
        if self.only_shown or not self.coming or context.stopping():
            return
        plan = QuarantinePlan(
            context.workspace, context.run_id, self._groups(), sidecars=bool(self.roots), roots=self.roots
        )
        with context.db.transaction():
            self._remember()
            record_duplicates(context.db, context.run_id, as_rows(context.workspace, plan.groups))
            journal_files.plan(context.db, context.run_id, [*self._moves(), *plan.actions])

        def check(action: Action) -> str:
            if action.payload == "{}":
                return plan.check(action)
            return "occupied" if os.path.lexists(context.workspace.to_path(action.target)) else ""

        journal_files.apply(context, check=check)
        for place, taken in self.coming.items():
            if os.path.lexists(context.workspace.to_path(taken.move.target)):
                if not context.stopping():
                    self.refused.append(f"{place} could not be brought back")
            else:
                self.back.add(place)

    def _moves(self) -> Iterator[Action]:
        for taken in self.coming.values():
            reason = f"brought back: run {taken.move.run_id} had moved it"
            source = Path(taken.move.source)
            # Notes first: after a kill in between, the picture is still to come and brings none of them twice.
            for name in sidecar_names(source):
                note = self._notes.get((taken.move.run_id, source.with_name(name).as_posix()))
                if note is not None and not os.path.lexists(self._place(note.source)):
                    yield journal_files.returning(note, reason)
            yield journal_files.returning(taken.move, reason)

    def _groups(self) -> list[DuplicateGroup]:
        """The exchanges as groups of one: the picture that comes back is the keeper, the old keeper goes."""
        found = []
        for place, file in self.exchanged.items():
            taken = self.coming[place]
            status = self.context.workspace.to_path(taken.move.target).stat()
            path = Path(place)
            keeper = PictureFile(path, taken.move.sha256, status.st_size, status.st_mtime_ns, file.root)
            reason = "another copy was made the keeper by hand"
            member = Member(file, Traits(), taken.kind or "same", taken.distance, "remove", reason)
            found.append(DuplicateGroup(0, keeper, Traits(), (member,)))
        return found

    def _remember(self) -> None:
        db, run_id = self.context.db, self.context.run_id
        kept, apart = list[tuple[str, str, str]](), list[tuple[str, str]]()
        for place, taken in self.coming.items():
            kept.append((taken.move.source, taken.move.sha256, taken.keeper_sha256))
            if place in self.exchanged or not taken.keeper_sha256:
                continue
            if taken.keeper_sha256 == taken.move.sha256:  # by another run's order the keeper would be the one to go
                kept.append((taken.keeper_path, taken.keeper_sha256, taken.move.sha256))
            else:
                apart.append((taken.keeper_sha256, taken.move.sha256))
        keep_files(db, run_id, kept)
        set_apart(db, run_id, apart, utc_now())

    def tell(self) -> None:
        """Says of each picture that was asked for and does not come why."""
        for sentence in self.refused[:SHOWN]:
            log.warning("%s.", sentence)
        if len(self.refused) > SHOWN:
            log.warning("… and %s more that do not come back.", f"{len(self.refused) - SHOWN:,}")
        if self.already:
            log.warning("%s there already, so nothing was done about %s.", *_in_words(self.already))

    def counts(self) -> dict[str, int]:
        """Returns the numbers of the summary line: those alone that are not 0."""
        dry = self.only_shown
        moved = self.coming if dry else self.back
        found = {
            "to_restore" if dry else "restored": len(moved),
            "to_exchange" if dry else "exchanged": sum(self._has_gone(place) for place in self.exchanged),
            "already_there": len(self.already),
            "not_restored": len(self.refused),
        }
        return {name: count for name, count in found.items() if count}

    def _has_gone(self, place: str) -> bool:
        return self.only_shown or not os.path.lexists(self.exchanged[place].path)

    @property
    def exit_code(self) -> int:
        """1 where a picture that was asked for does not come back."""
        return EXIT_FAILED if self.refused else EXIT_OK

    def lines(self) -> Iterator[str]:
        """Yields a line a picture that comes back."""
        dry = self.only_shown
        for place, taken in self.coming.items():
            if dry or place in self.back:
                other = self.exchanged.get(place)
                gone = f"  (for {path_as_text(other.path)})" if other and self._has_gone(place) else ""
                yield f"{'would restore' if dry else 'restored'}  {path_as_text(taken.move.source)}{gone}"


def _slashed(picture: str) -> str:
    return Path(picture).as_posix()


def _begins(sha256: str, digits: str) -> bool:
    """Says whether a word is the head of a content's sha256."""
    head = digits.lower()
    return len(head) >= LEAST_DIGITS and _DIGITS.issuperset(head) and sha256.startswith(head)


def _in_words(names: Sequence[str]) -> tuple[str, str]:
    return (f"{names[0]} is", "it") if len(names) == 1 else (f"{len(names):,} pictures are", "them")


def restore(context: Context, pictures: Sequence[str]) -> Returns:
    """Brings back the pictures that `--restore` names. Raises UsageError before anything is touched."""
    returns = Returns(context, only_shown=context.dry_run)
    for picture in pictures:
        returns.ask(picture)
    returns.carry_out()
    returns.tell()
    if returns.back:
        refresh_page(context)
    return returns
