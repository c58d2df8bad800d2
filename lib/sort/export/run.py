"""One export: choose, split, write beside the place, put it there whole, journal it.

The dataset is built in a hidden folder beside its place and renamed when it is complete, so that a folder under its own
name is whole. The journal has the building from its begin, and the whole plan before anything is moved: what a kill
leaves is finished or cleared by the next run of step 7 (`finish_exports`).
Its manifest (`dataset.json`) says what it was made of: an export of the same changes nothing, one of something else
takes another place or, with `--replace`, sends the old one to the quarantine.
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import Context, Database, journal
from lib.db import scores as store
from lib.db.journal import BUILDING, Action
from lib.db.scores import LabelRow
from lib.db.worklist import Worklist
from lib.errors import GleanerError, UsageError
from lib.files.pictures import PassedOver, folder_pictures, sha256_of, workspace_pictures
from lib.journal.moves import let_go, move_without_overwriting, same_file, temporary_name
from lib.progress import chunked
from lib.sort.export.card import DatasetCard
from lib.sort.export.formats import CONVERTED, ImageFolder, Parquet, TarShards, Writer, file_name, records
from lib.sort.export.readable import PASSING, TOLD, UNREADABLE, Readable
from lib.sort.options import ExportOptions, Shares
from lib.sort.output import remove_if_empty
from lib.temporary import is_temporary, temporary_beside
from lib.workspace import Workspace

log = logging.getLogger("gleaner.export")

MANIFEST = "dataset.json"
# Why an entry is in the journal that is no file: all of a folder that was being built is there, and all of the plan. It
# and the entry of the folder are dropped when the dataset is in its place.
COMPLETE = "complete"
BLOCK = 500
SPLIT = "split"  # the criterion under which sides are kept


@dataclass
class Export:
    """The run's state, filled from top to bottom."""

    context: Context
    options: ExportOptions
    files: Worklist = field(default_factory=Worklist)
    left: int = 0
    unhashed: int = 0

    def __post_init__(self) -> None:
        self.readable = Readable(self.context, self.options, self.files)
        self.passed_over = PassedOver(self.context.workspace.root, self.options.folders)

    def run(self) -> str:
        """Does it; gives a note on what was done. In a dry run only counts."""
        self._gather()
        sides = self._sides()
        for page in self.files.contents():
            decisions = [("labelled", sides.side(sha256), None, "", sha256) for sha256, _ in page]
            self.files.set_labels(decisions)
            self.readable.splits.update(side for _, side, *_ in decisions)
        digest = self._digest()
        there = self._manifest(digest)
        if there is None:
            self._refuse_taken_place()
        if there and not PASSING & there["left_out"].keys():
            self.readable.recall(there)
        elif not self.readable.look():
            return "stopped before it was complete; nothing was kept"
        else:
            self.readable.count(self._records())
        if there and there["left_out"] == self.readable.left_out:
            if not self.context.dry_run:
                self._remember()
            return f"{self.options.place} holds this dataset already"
        for sentence in self.readable.notes():
            log.warning("%s", sentence)
        if self.context.dry_run:
            return f"would write {self.options.place}"
        self._refuse_taken_place()
        begun = begin(self.context, self.options.place)
        try:
            self._build(begun.folder, digest)
            if self.context.stopping():
                abandon(self.context.db, begun)
                return "stopped before it was complete; nothing was kept"
            for part in chunked(self._planned(begun.folder), BLOCK):  # they are hashed: other steps get their turn
                journal.insert_actions(self.context.db, self.context.run_id, part)
            with self.context.db.transaction():
                self._remember()
                commit(self.context.db, begun)
        except OSError as error:
            abandon(self.context.db, begun)
            raise GleanerError(f"the dataset could not be written ({error}); make room and run it again.") from error
        finish(self.context, begun)
        return f"dataset: {self.options.place}"

    def _refuse_taken_place(self) -> None:
        if self.options.place.exists() and not self.options.replace and not self.context.dry_run:
            raise UsageError(f"{self.options.place} exists and holds something else; give another --to, or --replace.")

    def counts(self) -> dict[str, int | float | str]:
        found: dict[str, int | float | str] = {"pictures": sum(self.readable.splits.values()), **self.readable.splits}
        if self.options.where:
            found["not_selected"] = self.left
        return found | self.readable.counts() | self.passed_over.counts()

    def _gather(self) -> None:
        if self.options.label and self.options.label not in self._criteria():
            raise UsageError(f"nothing is labelled by {self.options.label!r} yet; sort by it first.")
        context, folders, limit = self.context, self.options.folders, self.options.limit
        missing: list[tuple[str, str]] = []
        found = workspace_pictures(context.db, context.workspace, limit, missing=missing)
        if folders:
            remember = not context.dry_run
            found = folder_pictures(
                context.db, folders, remember=remember, bar=context.bar, limit=limit,
                unreadable=self._note_unreadable, passed_over=self.passed_over,
            )  # fmt: skip
        for picture in found:
            self.files.add(self.context.workspace.to_text(picture.path), picture.sha256, picture.bytes)
        for sha256, path in missing:  # last: a content is read from its first file
            self.files.add(path, sha256, 0)
        if not self.files.count():
            raise UsageError("there is no picture to export; run 5_download.py first or give a folder.")
        if self.options.where:
            self.left = self.files.select(context.db, self.options.where)
        if not self.files.count():
            raise UsageError("no picture fulfils --where; see the labels in reports/index.html.")

    def _note_unreadable(self, path: Path, error: OSError) -> None:
        self.readable.left_out[UNREADABLE] += 1

    def _sides(self) -> Sides:
        groups = Groups()
        for sha256, keeper in store.repeats(self.context.db):
            groups.join(sha256, keeper)
        for page in self.files.contents():
            contents = [sha256 for sha256, _ in page]
            self.unhashed += store.count_unhashed(self.context.db, contents)
            groups.add_hashes(store.known_phashes(self.context.db, contents))
        if self.unhashed:
            log.warning(
                "step 6 has not looked at %d of the pictures: their repeats may be on both sides; run 6_dedup.py first",
                self.unhashed,
            )
        sides = Sides(self.options.shares, groups)
        sides.remember(store.all_labels(self.context.db, SPLIT, self.options.shares.version))
        return sides

    def _digest(self) -> str:
        """One number for all that the dataset is made of: form, options, every picture with its side, every label."""
        asked = self.options
        options = (asked.form, asked.label, asked.parquet_pictures, asked.shares.version, asked.title, asked.convert)
        chosen = (asked.where.text if asked.where else "", self.unhashed)
        digest = hashlib.sha256(json.dumps([*options, *chosen]).encode())
        for _, split, record in self._records():
            digest.update(json.dumps([split, record], sort_keys=True).encode())
        return digest.hexdigest()

    def _records(self) -> Iterator[tuple[Path, str, dict[str, Any]]]:
        criteria = self._criteria()
        for page in self.files.contents():
            sides = self.files.labels([sha256 for sha256, _ in page])
            for path, record in records(self.context.db, self.context.workspace, page, criteria):
                yield path, sides[record["sha256"]], record

    def _criteria(self) -> list[str]:
        return [name for name in store.criteria(self.context.db) if name != SPLIT]

    def _manifest(self, digest: str) -> dict[str, Any] | None:
        """The manifest of the dataset in that place, where it is of this digest."""
        try:
            found: dict[str, Any] = json.loads((self.options.place / MANIFEST).read_text())
            return found if found["digest"] == digest and found.keys() >= set(TOLD) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _build(self, building: Path, digest: str) -> None:
        self.readable.convert(self._records(), building / CONVERTED)
        writer, card = self._writer(building), DatasetCard(building, self._criteria())
        try:
            with self.context.bar(sum(self.readable.splits.values()), "Exporting", "picture") as progress:
                for path, split, record in self.readable.chosen(self._records(), building / CONVERTED):
                    if self.context.stopping():
                        return
                    progress.update()
                    writer.add(split, path, record)
                    card.add(split, file_name(record, path), record)
        finally:
            writer.close()
            shutil.rmtree(building / CONVERTED, ignore_errors=True)
        filters = [f"--where {self.options.where.text}"] if self.options.where else []
        card.write(
            title=self.options.title or self.options.place.name, form=self.options.form, filters=filters,
            history=store.history(self.context.db), unhashed=self.unhashed, notes=self.readable.notes(),
        )  # fmt: skip
        manifest = {"digest": digest, "form": self.options.form, **self.readable.manifest()}
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")

    def _writer(self, folder: Path) -> Writer:
        if self.options.form == "webdataset":
            common = max(sorted(self.readable.formats), key=lambda name: self.readable.formats[name])
            return TarShards(folder, {"jpeg": "jpg", "": "jpg"}.get(common, common), self.options.shard_bytes)
        if self.options.form == "parquet":
            return Parquet(folder, self.options.parquet_pictures == "embed", self.options.shard_bytes)
        return ImageFolder(folder, self.options.mode, self.options.label or "")

    def _planned(self, building: Path) -> Iterator[Action]:
        """The plan: the files of an older dataset go to the quarantine, those of the new one come."""
        away = self.context.workspace.quarantine / str(self.context.run_id) / "export" / self.options.place.name
        for path in files_below(self.options.place):
            content = "" if path.is_symlink() else sha256_of(path)
            yield self._action("move", path, away / path.relative_to(self.options.place), content, path.lstat().st_size)
        for path in files_below(building):
            target = self.options.place / path.relative_to(building)
            if path.is_symlink():
                yield self._action("symlink", Path(os.readlink(path)), target)
            else:  # undo takes away only what is still as it was written
                yield self._action("write", None, target, sha256_of(path), path.stat().st_size)

    def _action(self, kind: str, source: Path | None, target: Path, sha256: str = "", size: int = 0) -> Action:
        text = self.context.workspace.to_text(source) if source else ""
        return Action(kind, text, self.context.workspace.to_text(target), sha256, size)

    def _remember(self) -> None:
        """Keeps every picture's side, for later exports and for `--where \"split = train\"`."""
        version = self.options.shares.version
        rows = (LabelRow(item.sha256, item.label, None, "", version) for item in self.files.items("labelled"))
        store.save_labels(self.context.db, self.context.run_id, SPLIT, rows)


@dataclass
class Groups:
    """Contents that repeat each other, joined: by step 6's findings and by equal perceptual hashes."""

    parent: dict[str, str] = field(default_factory=dict)
    by_hash: dict[str, str] = field(default_factory=dict)

    def join(self, one: str, other: str) -> None:
        first, second = self.of(one), self.of(other)
        if first != second:
            self.parent[max(first, second)] = min(first, second)

    def add_hashes(self, hashes: Mapping[str, str]) -> None:
        """Perceptual hashes by content."""
        for content, value in hashes.items():
            self.join(content, self.by_hash.setdefault(value, content))

    def of(self, content: str) -> str:
        """The name of the content's group: one of its members."""
        root = content
        while (above := self.parent.get(root, root)) != root:
            root = above
        while (above := self.parent.get(content, content)) != root:
            self.parent[content], content = root, above
        return root


@dataclass
class Sides:
    """Sides of groups. What an earlier export decided (`known`, by content) holds for all that joined a group since."""

    shares: Shares
    groups: Groups
    decided: dict[str, str] = field(default_factory=dict)

    def remember(self, known: Iterable[tuple[str, str]]) -> None:
        """(content, side) of an earlier export with the same shares; the first of a group decides."""
        for content, side in known:
            self.decided.setdefault(self.groups.of(content), side)

    def side(self, content: str) -> str:
        group = self.groups.of(content)
        return self.decided.get(group) or self.shares.side(group)


@dataclass(frozen=True)
class Building:
    """The folder in which a dataset is made, its place, and the number of the journal's entry of both."""

    folder: Path
    place: Path
    run_id: int
    entry: int


def begin(context: Context, place: Path) -> Building:
    """Enters the folder in the journal, then makes it."""
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
