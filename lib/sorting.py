"""One run of step 7: measure what is not measured yet, label everything, plan, apply, describe what lies where.

Measures are kept by content and version, so that new thresholds cost no decode. The plan compares each picture's label
with the bucket that its sorted file lies in: what is new is copied (or moved, or linked), what has another label now
moves over, what is right stays.
"""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib import actions
from lib.criteria import Criterion, Label, Measure
from lib.db import Database
from lib.db import scores as store
from lib.db.actions import Action
from lib.db.scores import LabelRow, ScoreRow
from lib.errors import UsageError
from lib.pictures import folder_pictures, workspace_pictures
from lib.placements import Placement, Placements, read_placements
from lib.progress import BarFactory
from lib.sort_output import refresh_metadata
from lib.stream import stream
from lib.workspace import Workspace

STEP = "sort"
SAVE_EVERY = 200  # measures in one transaction; a kill loses at most as many, which are measured again
CHUNK = 8  # pictures sent to a worker at once
# Reasons that lie in the moment and not in the content: never kept, tried again by the next run.
PASSING = ("missing_file", "unreadable_file", "worker_killed", "MemoryError", "OSError", "PermissionError")


@dataclass(frozen=True)
class Item:
    """One file to be sorted; `path` is as `Workspace.to_text` writes it, `placed` where it was sorted to before."""

    path: str
    sha256: str
    bytes: int
    placed: Placement | None

    @property
    def place(self) -> str:
        return self.placed.target if self.placed else self.path


@dataclass
class Sorting:
    """The run's state, filled from top to bottom."""

    args: Namespace
    db: Database
    workspace: Workspace
    run_id: int
    dry_run: bool
    stopping: Callable[[], bool]
    bar: BarFactory
    criterion: Criterion
    items: list[Item] = field(default_factory=list)
    measures: dict[str, Measure] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # path -> reason
    left_out: dict[str, float] = field(default_factory=dict)  # path -> score below --min-score
    plan: list[Action] = field(default_factory=list)
    measured: int = 0
    outcome: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> list[Action]:
        """Gathers, measures and labels the pictures, and gives the plan. Empty when stopped on the way."""
        self.items = self._gather()
        if self._measure() and not self.stopping():
            self._label()
            self.plan = list(self._actions())
        return self.plan

    def apply(self) -> None:
        """Records the labels, carries out the plan and brings every `metadata.jsonl` up to date."""
        rows = [
            LabelRow(sha256, label.bucket, label.score, label.reason, self.criterion.version)
            for sha256, label in self.labels.items()
        ]
        store.save_labels(self.db, self.run_id, self.criterion.name, rows)
        actions.plan(self.db, self.run_id, self.plan)
        self.outcome = actions.apply(
            self.db, self.workspace, self.run_id, check=self._changed, stopping=self.stopping, bar=self.bar
        )
        refresh_metadata(self.db, self.workspace)

    def buckets(self) -> Counter[str]:
        """How many of the given pictures belong in each bucket."""
        return Counter(self.labels[item.sha256].bucket for item in self.items if item.sha256 in self.labels)

    def counts(self) -> dict[str, int | float | str]:
        """The numbers of the summary line."""
        again = sum(1 for action in self.plan if action.source.startswith(self._below()))
        found: dict[str, int | float | str] = {"pictures": len(self.items) + len(self._unread())}
        found |= dict(sorted(self.buckets().items()))
        # An interrupted run did less than its plan.
        done = len(self.plan) if self.dry_run else self.outcome["done"]
        found["to_sort" if self.dry_run else "sorted"] = max(0, done - again)
        if again:
            found["to_rebucket" if self.dry_run else "rebucketed"] = again
        if self.left_out:
            found["below_min_score"] = len(self.left_out)
        found["unreadable"] = len(self.unreadable)
        found["measured"] = self.measured
        return found

    # --- what there is -----------------------------------------------------------------------------------------

    def _gather(self) -> list[Item]:
        placements = read_placements(self.db, self.workspace, self.criterion.name)
        items = []
        for path, sha256, size in self._pictures():
            items.append(Item(path, sha256, size, placements.claim(self.workspace, path, sha256)))
        items += self._moved_away(placements)
        if not items and not self.unreadable and not self.args.folders:
            raise UsageError("there is no downloaded picture in the workspace; run 5_download.py first.")
        return items

    def _pictures(self) -> Iterator[tuple[str, str, int]]:
        if not self.args.folders:
            for picture in workspace_pictures(self.db, self.workspace):
                yield self.workspace.to_text(picture.path), picture.sha256, picture.bytes
            return
        own = self.workspace.root.resolve()
        # What lies in the workspace is sorted only when it is asked for, never because it lies below a given folder.
        folders = [Path(os.path.abspath(folder)) for folder in self.args.folders]
        for picture in folder_pictures(
            self.db, folders, remember=not self.dry_run, unreadable=self._cannot_read, bar=self.bar
        ):
            if _is_below(picture.path, own) and not _is_below(picture.root, own):
                continue
            yield self.workspace.to_text(picture.path), picture.sha256, picture.bytes

    def _moved_away(self, placements: Placements) -> Iterator[Item]:
        """What an earlier run moved out of the given folders: it lies in `sorted/` now and may need another bucket."""
        folders = [Path(os.path.abspath(folder)) for folder in self.args.folders]
        for placement in sorted(placements, key=lambda p: p.target):
            origin, target = (self.workspace.to_path(text) for text in (placement.origin, placement.target))
            if placement.target not in placements.unclaimed or os.path.lexists(origin) or not target.exists():
                continue
            asked = any(_is_below(origin, folder) for folder in folders)
            if asked or (not folders and not Path(placement.origin).is_absolute()):
                yield Item(placement.origin, placement.sha256, target.stat().st_size, placement)

    def _cannot_read(self, path: Path, error: OSError) -> None:
        reason = "name_not_utf8" if error.errno == errno.EILSEQ else "unreadable_file"
        self.unreadable[self.workspace.to_text(path)] = reason

    # --- what it is --------------------------------------------------------------------------------------------

    def _measure(self) -> bool:
        """Fills `measures` from the cache and by measuring; False when stopped before the end."""
        places: dict[str, Path] = {}
        for item in self.items:
            places.setdefault(item.sha256, self.workspace.to_path(item.place))
        criterion = self.criterion
        known = store.known_scores(self.db, criterion.metric, criterion.version, list(places))
        self.measures = {sha256: _from_row(row) for sha256, row in known.items()}
        todo = {path: sha256 for sha256, path in places.items() if sha256 not in known}
        fresh: list[ScoreRow] = []
        outcomes = stream(
            criterion.measure,
            todo,
            executor=self.args.executor,
            # A worker process takes half a second to start: not for a handful of pictures.
            workers=min(self.args.workers, max(1, len(todo) // CHUNK)),
            chunk=CHUNK,
        )
        with self.bar(len(todo), "Measuring", "picture") as progress:
            for outcome in outcomes:
                measure = outcome.value or Measure(None, outcome.error)
                self.measures[todo[outcome.item]] = measure
                self.measured += 1
                progress.update()
                if not measure.reason.startswith(PASSING) or measure.value is not None:
                    fresh.append(_to_row(todo[outcome.item], measure))
                if len(fresh) >= SAVE_EVERY:
                    self._save(fresh)
                if self.stopping():
                    break
        outcomes.close()
        self._save(fresh)
        return not self.stopping()

    def _save(self, fresh: list[ScoreRow]) -> None:
        if not self.dry_run:
            store.save_scores(self.db, self.criterion.metric, self.criterion.version, fresh)
        fresh.clear()

    def _label(self) -> None:
        readable = [self.measures[item.sha256] for item in self.items if self.measures[item.sha256].value is not None]
        self.criterion = self.criterion.fitted(readable)
        for item in self.items:
            measure = self.measures[item.sha256]
            if measure.value is None:
                self.unreadable[item.place] = measure.reason
            elif (label := self.criterion.label(measure)) is None:
                self.left_out[item.place] = measure.value
            else:
                self.labels[item.sha256] = label

    # --- what to do --------------------------------------------------------------------------------------------

    def _actions(self) -> Iterator[Action]:
        taken: set[str] = set()
        for item in self.items:
            label = self.labels.get(item.sha256)
            if label is None or (item.placed and item.placed.bucket == label.bucket):
                continue
            kind = "move" if item.placed else self.args.mode
            name = Path(item.place).name
            folder = self.workspace.sorted / self.criterion.name / label.bucket
            target = actions.free_target(folder / name, taken)
            yield Action(
                kind=kind,
                source=item.place,
                target=self.workspace.to_text(target),
                sha256=item.sha256,
                bytes=item.bytes,
                reason=label.reason,
            )

    def _changed(self, action: Action) -> str:
        """Why an action must not be carried out any more."""
        try:
            status = os.stat(self.workspace.to_path(action.source))
        except OSError:
            return "gone"
        return "" if status.st_size == action.bytes else "changed"

    def _below(self) -> str:
        return f"{self.workspace.sorted.name}/{self.criterion.name}/"

    def _unread(self) -> set[str]:
        return set(self.unreadable) - {item.place for item in self.items}


def sweep(workspace: Workspace, criterion: str | None) -> None:
    """Removes the temporary files of a killed run: a name with a leading dot and `.part` is never a finished file."""
    if criterion:
        left = [*(workspace.sorted / criterion).glob("*/.*.part"), *workspace.reports.glob(f".sort_{criterion}.*.part")]
        for path in left:
            path.unlink(missing_ok=True)


def undo(db: Database, workspace: Workspace, reference: str, *, dry_run: bool, bar: BarFactory) -> Mapping[str, int]:
    """Takes back a run's files and brings every `metadata.jsonl` up to date; labels and scores stay known."""
    number = actions.run_to_undo(db, STEP, reference)
    if number is None:
        return {"undone": 0}
    counts = actions.undo(db, workspace, number, dry_run=dry_run, bar=bar)
    if not dry_run:
        refresh_metadata(db, workspace)
    return counts


def _to_row(sha256: str, measure: Measure) -> ScoreRow:
    size = {"width": measure.width, "height": measure.height, "format": measure.format}
    return ScoreRow(sha256, measure.value, measure.reason, {**size, **measure.detail})


def _from_row(row: ScoreRow) -> Measure:
    detail = dict(row.detail)
    width, height = int(detail.pop("width", 0)), int(detail.pop("height", 0))
    return Measure(row.value, row.reason, width, height, str(detail.pop("format", "")), detail)


def _is_below(path: Path, folder: Path) -> bool:
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path == folder or folder in path.parents
