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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import Context, Database, journal
from lib.db import scores as store
from lib.db.downloads import opted_out
from lib.db.journal import BUILDING, MANIFEST, Action, HeldDataset
from lib.db.scores import LabelRow
from lib.db.worklist import Worklist
from lib.errors import GleanerError, UsageError
from lib.files.pictures import PassedOver, folder_pictures, sha256_of, workspace_pictures
from lib.journal.moves import let_go, move_without_overwriting, require_symbolic_links, same_file, temporary_name
from lib.progress import chunked
from lib.sort.export.card import DatasetCard, amend_card, filters_of, referring
from lib.sort.export.formats import (
    CONVERTED,
    ImageFolder,
    Parquet,
    TarShards,
    Writer,
    content_of,
    file_name,
    names_of,
    records,
    write_without,
)
from lib.sort.export.history import history
from lib.sort.export.readable import PASSING, TOLD, UNREADABLE, Readable
from lib.sort.options import ExportOptions, Shares
from lib.sort.output import remove_if_empty
from lib.temporary import is_temporary, temporary_beside
from lib.text import counted, did_you_mean
from lib.workspace import Workspace

log = logging.getLogger("gleaner.export")

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
    opted_out: int = 0

    def __post_init__(self) -> None:
        self.readable = Readable(self.context, self.options, self.files)
        self.passed_over = PassedOver(self.context.workspace.root, self.options.folders)

    def run(self) -> str:
        """Does it; gives a note on what was done. In a dry run only counts."""
        if self.options.mode == "symlink" and not self.context.dry_run:
            require_symbolic_links(self.context.workspace.root)
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
            self._build(begun, digest)
            if self.context.stopping():
                abandon(self.context.db, begun)
                return "stopped before it was complete; nothing was kept"
            _plan(self.context, begun, files_below(begun.place))
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
        if self.opted_out:
            found["opted_out"] = self.opted_out
        return found | self.readable.counts() | self.passed_over.counts()

    def _gather(self) -> None:
        if self.options.label and self.options.label not in self._criteria():
            hint = did_you_mean(self.options.label, self._criteria())
            raise UsageError(f"nothing is labelled by {self.options.label!r} yet; sort by it first.{hint}")
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
            self.files.add(context.workspace.to_text(picture.path), picture.sha256, picture.bytes)
        for sha256, path in missing:  # last: a content is read from its first file
            self.files.add(path, sha256, 0)
        for page in self.files.contents():
            self.opted_out += self.files.leave_out(opted_out(context.db, [sha256 for sha256, _ in page]))
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
            found: dict[str, Any] = json.loads((self.options.place / MANIFEST).read_text(encoding="utf-8"))
            return found if found["digest"] == digest and found.keys() >= set(TOLD) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _build(self, begun: Building, digest: str) -> None:
        building = begun.folder
        self.readable.convert(self._records(), building / CONVERTED)
        writer, card = self._writer(building), DatasetCard(building, self._criteria())
        try:
            with self.context.bar(sum(self.readable.splits.values()), "Exporting", "picture") as progress:
                for block in chunked(self.readable.chosen(self._records(), building / CONVERTED), BLOCK):
                    for path, split, record in block:
                        if self.context.stopping():
                            return
                        progress.update()
                        writer.add(split, path, record)
                        card.add(split, file_name(record, path), record)
                    journal.note_dataset(self.context.db, begun.entry, (content_of(record) for _, _, record in block))
        finally:
            writer.close()
            shutil.rmtree(building / CONVERTED, ignore_errors=True)
        card.write(
            title=self.options.title or self.options.place.name, form=self.options.form,
            filters=filters_of(self.options),
            history=history(self.context.db, self.context.run_id), unhashed=self.unhashed,
            notes=[*self.readable.notes(), *referring(self.options)],
        )  # fmt: skip
        manifest = {"digest": digest, "form": self.options.form, **self.readable.manifest()}
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")

    def _writer(self, folder: Path) -> Writer:
        if self.options.form == "webdataset":
            common = max(sorted(self.readable.formats), key=lambda name: self.readable.formats[name])
            return TarShards(folder, {"jpeg": "jpg", "": "jpg"}.get(common, common), self.options.shard_bytes)
        if self.options.form == "parquet":
            return Parquet(folder, self.options.parquet_pictures == "embed", self.options.shard_bytes)
        return ImageFolder(folder, self.options.mode, self.options.label or "")

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


def _plan(context: Context, begun: Building, leaving: Iterable[Path]) -> None:
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


@dataclass
class OptOuts:
    """The datasets of earlier exports that hold pictures whose owners have opted out since, and what becomes of them.

    `found` has an entry for each, with its `path`, the `run` that wrote it, its pictures and an `outcome`: `held`
    (nothing was done), `taken_out`, `not_there` (moved or removed since) or `unreadable`.
    """

    context: Context
    place: Path | None = None  # the only one that counts
    found: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Takes the pictures out of every dataset that lies in its place; in a dry run it only looks."""
        for held in journal.datasets_with_opted_out(self.context.db):
            place = self.context.workspace.to_path(held.place)
            if (self.place and self.place.absolute() != place.absolute()) or self.context.stopping():
                continue
            entry: dict[str, Any] = {"path": held.place, "run": held.run_id, "sha256": sorted(held.contents)}
            entry |= {"pictures": len(held.contents), "outcome": "not_there"}
            self.found.append(entry)
            if not (place / MANIFEST).is_file():
                continue
            try:
                entry["pictures"] = self._take_out(place, held)
                entry["outcome"] = "held" if self.context.dry_run else "taken_out"
            except (OSError, ValueError, KeyError) as error:
                log.warning("%s is left as it is: %s", place, error)
                entry["outcome"] = "unreadable"

    def counts(self) -> dict[str, int | float | str]:
        outcomes = Counter(entry["outcome"] for entry in self.found)
        return {"datasets": len(self.found), "pictures": sum(entry["pictures"] for entry in self.found), **outcomes}

    def lines(self) -> Iterator[str]:
        """One line a dataset, as a person reads it."""
        words = {
            "held": "would take {} out of {}", "taken_out": "took {} out of {}", "unreadable": "left {} in {}",
            "not_there": "cannot take {} out of {}, which is not there any more",
        }  # fmt: skip
        for entry in self.found:
            yield words[entry["outcome"]].format(counted(entry["pictures"], "picture"), entry["path"])

    def _take_out(self, place: Path, held: HeldDataset) -> int:
        """Gives the number of pictures that a dataset loses. What is in the way ends it, and it stays as it was."""
        context = self.context
        if context.dry_run:
            return write_without(place, None, held.contents).pictures.total()
        begun = begin(context, place, keeps=True)
        try:
            removal = write_without(place, begun.folder, held.contents)
            if count := removal.pictures.total():
                removal.files += amend_card(place, begun.folder, names_of(held.contents), count)
                removal.files.append(_amend_manifest(place, begun.folder, removal.pictures))
                _plan(context, begun, removal.files)
                with context.db.transaction():
                    journal.follow_dataset(context.db, held.id, begun.entry, held.contents)
                    commit(context.db, begun)
        except BaseException:
            abandon(context.db, begun)
            raise
        if count:
            finish(context, begun)
        else:  # somebody has taken them out by hand
            abandon(context.db, begun)
            journal.forget_dataset(context.db, held.id, held.contents)
        return count


def _amend_manifest(place: Path, to: Path, gone: Mapping[str, int]) -> Path:
    """Writes the manifest of a dataset that lost pictures, so that it is no other export's; gives the older one."""
    manifest: dict[str, Any] = json.loads((older := place / MANIFEST).read_text(encoding="utf-8"))
    sides = Counter(manifest["pictures"])
    sides.subtract(gone)
    taken = {"opted_out": manifest.get("opted_out", 0) + sum(gone.values())}
    text = json.dumps(manifest | {"digest": "", "pictures": dict(sides)} | taken, indent=1) + "\n"
    (to / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    return older


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
