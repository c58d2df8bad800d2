"""One export: choose, split, write beside the place, put it there whole, journal it.

The dataset is built in a hidden folder beside its place and renamed when it is complete, so that a folder under its own
name is whole. The journal has the building from its begin, and the whole plan before anything is moved: what a kill
leaves is finished or cleared by the next run of step 7 (`finish_exports`).
Its manifest (`dataset.json`) says what it was made of: an export of the same changes nothing, one of something else
takes another place or, with `--replace`, sends the old one to the quarantine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import Context, journal
from lib.db import scores as store
from lib.db.downloads import opted_out
from lib.db.journal import MANIFEST, HeldDataset
from lib.db.scores import LabelRow
from lib.db.worklist import Worklist
from lib.errors import GleanerError, UsageError
from lib.files.pictures import PassedOver, folder_pictures, workspace_pictures
from lib.journal.moves import require_symbolic_links
from lib.progress import chunked
from lib.sort.export.building import Building, abandon, begin, commit, files_below, finish, plan
from lib.sort.export.card import DatasetCard, amend_card, filters_of, referring
from lib.sort.export.columns import LABEL, UNLABELLED, caption_column
from lib.sort.export.formats import (
    CONVERTED,
    ORIGIN,
    Columns,
    ImageFolder,
    Parquet,
    Writer,
    content_of,
    own_places,
    records,
    with_columns,
    write_without,
)
from lib.sort.export.history import history
from lib.sort.export.options import SIDES, ExportOptions, Shares
from lib.sort.export.push import load_client, push, would_push
from lib.sort.export.readable import PASSING, TOLD, UNREADABLE, Readable
from lib.sort.export.shards import TarShards
from lib.text import counted, did_you_mean, without_places

log = logging.getLogger("gleaner.export")

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
    not_taken: int = 0
    notes: list[str] = field(default_factory=list)  # on what was taken
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        self.readable = Readable(self.context, self.options, self.files)
        self.passed_over = PassedOver(self.context.workspace.root, self.options.folders)

    def run(self) -> str:
        """Does it; gives a note on what was done. In a dry run only counts."""
        if self.options.mode == "symlink" and not self.context.dry_run:
            require_symbolic_links(self.context.workspace.root)
        if self.options.push and not self.context.dry_run:
            load_client()  # before the work, which would be done in vain
        note = self._export()
        if not self.options.push or self.context.stopping():
            return note
        place, name, public = self.options.place, self.options.push, self.options.public
        if self.context.dry_run:
            return f"{note}; {would_push(place, name, public=public, count=sum(self.readable.splits.values()))}"
        return f"{note}; {push(place, name, public=public)}"

    def _export(self) -> str:
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
            self._take()
            self.readable.count(self._records())
        if there and there["left_out"] == self.readable.left_out:
            if not self.context.dry_run:
                self._remember()
            return f"{self.options.place} holds this dataset already"
        for sentence in [*self.notes, *self.readable.notes()]:
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
            plan(self.context, begun, files_below(begun.place))
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
        if self.not_taken:
            found["not_taken"] = self.not_taken
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
            raise UsageError(self._none_selected())
        self._find_columns()

    def _none_selected(self) -> str:
        where = self.options.where
        if where and (names := " or ".join(where.unlabelled(self.context.db))):
            return f"no picture fulfils --where: nothing is labelled by {names} yet; sort by it first."
        return "no picture fulfils --where; see the labels in reports/index.html."

    def _find_columns(self) -> None:
        """Finds out which columns the records have. Raises UsageError where one is asked for that is not there."""
        criteria = self._criteria()
        self.columns = Columns(criteria, label=self.options.label or "")
        self.columns.lists.scan(self.context.db, ([sha256 for sha256, _ in page] for page in self.files.contents()))
        if wanted := self.options.caption:
            own = [*ORIGIN, "source_name", *(f"{kind}_{name}" for name in criteria for kind in ("label", "score"))]
            self.columns.caption = caption_column(wanted, self.options.label, self.columns.lists, criteria, own)
        if surplus := self.columns.lists.surplus:
            self.notes.append(f"Left out: {counted(surplus, 'column')} of lists, beyond the first 500 by name.")

    def _take(self) -> None:
        """Leaves out all but the wanted number of pictures: the same ones for a seed, whatever their order."""
        wanted, balance = self.options.take, self.options.balance
        if not wanted:
            return
        pools: dict[str, array[int]] = {}  # eight bytes a picture
        for name, order, _ in self._ordered():
            pools.setdefault(name, array("Q")).append(order)
        unlabelled = len(pools.pop(UNLABELLED, ())) if balance else 0
        counts = {name: len(pool) for name, pool in pools.items()}
        given = parts_of(counts, wanted)
        last = {name: sorted(pool)[given[name] - 1] for name, pool in pools.items() if given[name]}
        surplus = (sha256 for name, order, sha256 in self._ordered() if order > last.get(name, -1))
        for part in chunked(surplus, BLOCK):
            self.not_taken += self.files.leave_out(part)
        self.notes += told_parts(counts, given, wanted, unlabelled, balance=balance)

    def _ordered(self) -> Iterator[tuple[str, int, str]]:
        """(label, place by lot, content) of the pictures that can be taken; without --balance they have one label."""
        for record in self.readable.sound(self._records()):
            digest = hashlib.blake2b(f"{self.options.seed}:{record['sha256']}".encode(), digest_size=8).digest()
            name = record[LABEL] if self.options.balance else ""
            yield name, int.from_bytes(digest, "big"), record["sha256"]

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
        options = (asked.form, asked.label, asked.parquet_pictures, asked.shares.version, asked.title, asked.caption)
        taken = (asked.take, asked.balance, asked.seed) if asked.take else ()
        chosen = (asked.where.text if asked.where else "", self.unhashed, *taken, repr(asked.encoding))
        digest = hashlib.sha256(json.dumps([*options, *chosen]).encode())
        for _, split, record in self._records():
            digest.update(json.dumps([split, record], sort_keys=True).encode())
        for reason, record in self._failed():
            digest.update(json.dumps([reason, record["image_url"]]).encode())
        return digest.hexdigest()

    def _records(self) -> Iterator[tuple[Path, str, dict[str, Any]]]:
        for page in self.files.contents():
            sides = self.files.labels([sha256 for sha256, _ in page])
            for path, record in records(self.context.db, self.context.workspace, page, self.columns):
                yield path, sides[record["sha256"]], record

    def _failed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(reason, record) of the pictures that step 5 did not get, where all pictures of the workspace were asked for:
        a condition, a number and a folder are about pictures that are there."""
        asked = self.options
        if asked.form != "webdataset" or asked.where or asked.take or asked.limit or asked.folders:
            return
        own = own_places(self.context.workspace)
        for row in store.failed_downloads(self.context.db):
            record: dict[str, Any] = {"sha256": "", "width": None, "height": None, "format": "", "source_name": ""}
            for criterion in self.columns.criteria:
                record |= {f"label_{criterion}": "", f"score_{criterion}": None}
            record |= {name: without_places(row[name] or "", own) for name in ORIGIN}
            yield row["reason"] or "failed", with_columns(record, row["columns"], self.columns, own)

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
        if isinstance(writer, TarShards):
            self.readable.on_failure = self._noting_failures(writer)
        try:
            with self.context.bar(sum(self.readable.splits.values()), "Exporting", "picture") as progress:
                for block in chunked(self.readable.chosen(self._records(), building / CONVERTED), BLOCK):
                    for path, split, record in block:
                        if self.context.stopping():
                            return
                        progress.update()
                        card.add(split, writer.add(split, path, record), record)
                    journal.note_dataset(self.context.db, begun.entry, (content_of(record) for _, _, record in block))
            if isinstance(writer, TarShards):
                self._add_failed(writer)
        finally:
            writer.close()
            shutil.rmtree(building / CONVERTED, ignore_errors=True)
        card.write(
            title=self.options.title or self.options.place.name,
            filters=filters_of(self.options),
            history=history(self.context.db, self.context.run_id), unhashed=self.unhashed,
            notes=[*self.notes, *self.readable.notes(), *referring(self.options)],
            files=self._patterns(), digest=digest,
        )  # fmt: skip
        manifest = {"digest": digest, "form": self.options.form, **self.readable.manifest()}
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")

    def _writer(self, folder: Path) -> Writer:
        kinds = self.columns.lists.shown_kinds
        if self.options.form == "webdataset":
            common = max(sorted(self.readable.formats), key=lambda name: self.readable.formats[name])
            extension = common if common in ("png", "webp") else "jpg"  # what OpenCLIP and the like look for
            return TarShards(folder, extension, self.options.shard_bytes, kinds, self.options.shares.are_several)
        if self.options.form == "parquet":
            embed = self.options.parquet_pictures == "embed"
            return Parquet(folder, embed, self.options.shard_bytes, kinds, self._labels())
        return ImageFolder(folder, self.options.mode, self.options.label or "", self._lopsided())

    def _labels(self) -> list[str]:
        """The classes of the column `label`; none where there is no such column."""
        if not self.options.label:
            return []
        return sorted({record[LABEL] for record in self.readable.sound(self._records())})

    def _noting_failures(self, writer: TarShards) -> Callable[[str, Mapping[str, Any], str], None]:
        """Returns a function that notes a picture which cannot go in, with all columns that others have."""
        encoding = self.options.encoding

        def note(split: str, record: Mapping[str, Any], reason: str) -> None:
            more: dict[str, Any] = {}
            if encoding:
                more |= {"original_format": "", "original_sha256": "", "original_frames": None}
            writer.fail(split, {**more, **record}, reason)

        return note

    def _add_failed(self, writer: TarShards) -> None:
        """Notes what step 5 did not get on the sides that have pictures, by the shares of these."""
        sides = [side for side in SIDES if self.readable.splits[side]]
        for reason, record in self._failed():
            side = self.options.shares.side(record["image_url"])
            more = (
                {"original_format": "", "original_sha256": "", "original_frames": None} if self.options.encoding else {}
            )
            writer.fail(side if side in sides else sides[0], {**more, **record}, reason, downloaded=False)

    def _patterns(self) -> dict[str, str]:
        """The files of each side, as Hugging Face's card names them; empty where it finds them by itself."""
        sides = [side for side in SIDES if self.readable.splits[side]]
        if self.options.form == "webdataset":
            return {side: f"{side}/*.tar" if self.options.shares.are_several else "*.tar" for side in sides}
        if self.options.form == "parquet":
            return {side: f"{side}-*.parquet" for side in sides}
        return {}

    def _lopsided(self) -> set[str]:
        """The columns that say nothing on one side and something on another: `datasets` wants one type of both.

        It tells types from what stands in `metadata.jsonl`, where nothing has no type.
        """
        if self.options.form != "imagefolder":
            return set()
        told: dict[str, set[str]] = {}
        for _, split, record in self.readable.chosen_as_planned(self._records()):
            for name, value in record.items():
                if value is not None and value != []:
                    told.setdefault(name, set()).add(split)
                else:
                    told.setdefault(name, set())
        sides = {side for side, count in self.readable.splits.items() if count}
        return {name for name, found in told.items() if found < sides}

    def _remember(self) -> None:
        """Keeps every picture's side, for later exports and for `--where \"split = train\"`."""
        version = self.options.shares.version
        rows = (LabelRow(item.sha256, item.label, None, "", version) for item in self.files.items("labelled"))
        store.save_labels(self.context.db, self.context.run_id, SPLIT, rows)


def parts_of(counts: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Shares a number among pools: as many of each, and of those that have fewer all, so that the others make it up."""
    given, left = {}, wanted
    for place, name in enumerate(ascending := sorted(counts, key=lambda name: (counts[name], name))):
        given[name] = min(counts[name], left // (len(ascending) - place))
        left -= given[name]
    return given


def told_parts(
    counts: Mapping[str, int], given: Mapping[str, int], wanted: int, unlabelled: int, *, balance: bool
) -> list[str]:
    """Sentences on what was taken of what, where that is not what was asked for."""
    notes, taken = [], sum(given.values())
    if taken < wanted:
        notes.append(f"--take {wanted:,}: there are {counted(taken, 'picture')} only, and all of them are in.")
    if balance:
        fair = wanted // max(1, len(counts))
        short = [f"{name} ({given[name]:,})" for name in sorted(counts) if given[name] < fair]
        if short:
            others = "" if taken < wanted else "; the others make up for it"
            notes.append(f"--balance: fewer than {fair:,} pictures have the label {', '.join(short)}{others}.")
        parts = ", ".join(f"{name} {given[name]:,}" for name in sorted(counts))
        notes.append(f"Taken by label: {parts}.")
        if unlabelled:
            notes.append(f"{counted(unlabelled, 'picture')} without a label were not taken.")
    return notes


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
            return write_without(place, None, held.contents, sides_of(place)).pictures.total()
        begun = begin(context, place, keeps=True)
        try:
            removal = write_without(place, begun.folder, held.contents, sides_of(place))
            if count := removal.pictures.total():
                removal.files += amend_card(place, begun.folder, removal.names, count)
                removal.files.append(_amend_manifest(place, begun.folder, removal.pictures))
                plan(context, begun, removal.files)
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


def sides_of(place: Path) -> list[str]:
    """The sides of a dataset, by its manifest."""
    return list(json.loads((place / MANIFEST).read_text(encoding="utf-8"))["pictures"])


def _amend_manifest(place: Path, to: Path, gone: Mapping[str, int]) -> Path:
    """Writes the manifest of a dataset that lost pictures, so that it is no other export's; gives the older one."""
    manifest: dict[str, Any] = json.loads((older := place / MANIFEST).read_text(encoding="utf-8"))
    sides = Counter(manifest["pictures"])
    sides.subtract(gone)
    taken = {"opted_out": manifest.get("opted_out", 0) + sum(gone.values())}
    text = json.dumps(manifest | {"digest": "", "pictures": dict(sides)} | taken, indent=1) + "\n"
    (to / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    return older
