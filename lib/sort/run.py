"""One run of step 7: measure what is not measured yet, label everything, plan, apply, describe what lies where.

Measures are kept by content and version, so that new thresholds cost no decode. The plan compares each picture's label
with the bucket that its sorted file lies in: what is new is copied (or moved, or linked), what has another label now
moves over, what is right stays. Everything that grows with the pictures is in a temporary database (`db.worklist`).

The end of a run of step 7: what is applied and written, and what is shown of it.
"""

from __future__ import annotations

import errno
import json
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db import scores as store
from lib.db import worklist as scratch
from lib.db.context import Context
from lib.db.journal import Action
from lib.db.scores import LabelRow
from lib.db.where import Condition
from lib.db.worklist import Worklist
from lib.errors import UsageError
from lib.files.pictures import folder_pictures, workspace_pictures
from lib.journal import files as journal_files
from lib.journal.moves import free_target
from lib.pages.index import refresh_index
from lib.progress import BarFactory
from lib.sort.criteria import Criterion
from lib.sort.export.settle import remove_empty_folders
from lib.sort.measures import PASSING, Measures
from lib.sort.options import subtitle
from lib.sort.output import as_table, csv_lines, refresh_metadata, write_report
from lib.sort.placements import Placement, Placements, Removals, read_placements
from lib.work.stream import Parallelism
from lib.workspace import Workspace

STEP = "sort"
ASIDE = ("not_asked", "no_answer")  # nothing is wrong with the picture; the next run asks again

SHOWN_LEFT = 100_000  # pictures with reasons in a report's lists; metadata and the database hold everything


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
    where: Condition | None = None
    files: Worklist = field(default_factory=lambda: Worklist(scratch.temporary()))
    measured: int = 0
    not_selected: int = 0
    changed: int = 0
    complete: bool = False
    outcome: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.placements = read_placements(self.db, self.workspace, self.criterion.name, self.files.db)
        self.withdrawals = Removals(self.db, self.workspace, self.run_id, self.files, self.placements)

    def prepare(self) -> None:
        """Gathers, measures and labels the pictures and makes the plan; `complete` stays False when stopped."""
        self._gather()
        self._select()
        measures = Measures(self.db, self.workspace, self.files, self.criterion, self.dry_run)
        self.measured = measures.fill(
            Parallelism(self.args.executor, self.args.workers), stopping=self.stopping, bar=self.bar
        )
        if not self.stopping():
            self._label(measures)
            self._aim()
            self._withdraw()
            self.complete = True

    def plan(self) -> Iterator[Action]:
        """What is to be done: first what leaves `sorted/`, then what goes there, as the pictures were found."""
        for gone in self.files.withdrawn():
            yield Action("move", gone["place"], gone["target"], gone["sha256"], gone["bytes"], reason=gone["reason"])
        for item in self.files.planned():
            yield Action(
                kind=item.kind,
                source=item.place,
                target=item.target,
                sha256=item.sha256,
                bytes=item.bytes,
                reason=item.reason,
            )

    def apply(self) -> None:
        """Records the labels, carries out the plan and brings every `metadata.jsonl` up to date."""
        store.save_labels(self.db, self.run_id, self.criterion.name, self._label_rows())
        store.drop_labels(self.db, self.criterion.name, self._without_label())
        journal_files.plan(self.db, self.run_id, self.plan())
        context = Context(self.db, self.workspace, self.run_id, stopping=self.stopping, bar=self.bar)
        self.outcome = journal_files.apply(context, check=self._changed)
        refresh_metadata(self.db, self.workspace)

    def buckets(self) -> Mapping[str, int]:
        """How many of the given pictures belong in each bucket."""
        return self.files.buckets()

    def counts(self) -> dict[str, int | float | str]:
        """The numbers of the summary line."""
        planned, again = self.files.plan_size()
        withdrawn = self.files.count_withdrawn()
        found: dict[str, int | float | str] = {"pictures": self.files.count()}
        found |= self.buckets()
        # An interrupted run did less than its plan.
        done = planned if self.dry_run else self.outcome["done"] - withdrawn
        found["to_sort" if self.dry_run else "sorted"] = max(0, done - again)
        if again:
            found["to_rebucket" if self.dry_run else "rebucketed"] = again
        if withdrawn:
            found["to_withdraw" if self.dry_run else "withdrawn"] = withdrawn
        if self.changed:
            found["changed_copies_left"] = self.changed
        if left := self.files.count("left_out"):
            found["below_min_score" if self.criterion.name == "quality" else "left_out"] = left
        if self.where:
            found["not_selected"] = self.not_selected
        found["unreadable"] = self.files.count("unreadable")
        found["measured"] = self.measured
        return found

    def _gather(self) -> None:
        placements = self.placements
        for path, sha256, size in self._pictures():
            placed = placements.claim(path, sha256)
            self.files.add(path, sha256, size, placed.target if placed else "", placed.bucket if placed else "")
        self.withdrawals.of_lost_originals(self._is_asked)
        if self.args.limit is None:
            self._add_moved_away(placements)
        if not self.files.count() and not self.args.folders:
            raise UsageError("there is no downloaded picture in the workspace; run 5_download.py first.")

    def _pictures(self) -> Iterator[tuple[str, str, int]]:
        if not self.args.folders:
            for picture in workspace_pictures(self.db, self.workspace, self.args.limit):
                yield self.workspace.to_text(picture.path), picture.sha256, picture.bytes
            return
        own = self.workspace.root.resolve()
        # What lies in the workspace is sorted only when it is asked for, never because it lies below a given folder.
        folders = [Path(os.path.abspath(folder)) for folder in self.args.folders]
        for picture in folder_pictures(
            self.db,
            folders,
            remember=not self.dry_run,
            unreadable=self._cannot_read,
            bar=self.bar,
            limit=self.args.limit,
        ):
            if _is_below(picture.path, own) and not _is_below(picture.root, own):
                continue
            yield self.workspace.to_text(picture.path), picture.sha256, picture.bytes

    def _add_moved_away(self, placements: Placements) -> None:
        """What an earlier run moved out of the given folders: it lies in `sorted/` now and may need another bucket.

        A copy whose original somebody deleted is the last of its picture and stays likewise.
        """
        for placement in placements.unclaimed():
            origin, target = (self.workspace.to_path(text) for text in (placement.origin, placement.target))
            if os.path.lexists(origin) or not target.exists():
                continue
            if self._is_asked(placement):
                size = target.stat().st_size
                self.files.add(placement.origin, placement.sha256, size, placement.target, placement.bucket)

    def _is_asked(self, placement: Placement) -> bool:
        """Whether what was sorted came from where this run looks."""
        if not self.args.folders:
            return not Path(placement.origin).is_absolute()
        origin = self.workspace.to_path(placement.origin)
        return any(_is_below(origin, folder) for folder in self.args.folders)

    def _cannot_read(self, path: Path, error: OSError) -> None:
        reason = "name_not_utf8" if error.errno == errno.EILSEQ else "unreadable_file"
        # What is no UTF-8 cannot be kept as text; the escapes say which bytes they are.
        text = self.workspace.to_text(path).encode("utf-8", "backslashreplace").decode("utf-8")
        self.files.add_unread(text, reason)

    def _select(self) -> None:
        """Leaves out what `--where` does not ask for; files that are sorted already stay where they are."""
        if self.where is None:
            return
        for page in self.files.contents():
            contents = [sha256 for sha256, _ in page]
            matching = self.where.matching(self.db, contents)
            self.not_selected += self.files.drop([sha256 for sha256 in contents if sha256 not in matching])

    def _label(self, measures: Measures) -> None:
        self.criterion = self.criterion.fitted(measures)
        for page in measures.pages():
            decisions: list[tuple[str, str, float | None, str, str]] = []
            for sha256, measure in page.items():
                if measure.value is None and measure.reason.startswith(ASIDE):
                    decisions.append(("left_out", "", None, measure.reason, sha256))
                elif measure.value is None:
                    decisions.append(("unreadable", "", None, measure.reason, sha256))
                elif (label := self.criterion.label(measure)) is None:
                    decisions.append(("left_out", "", measure.value, measure.reason, sha256))
                else:
                    decisions.append(("labelled", label.bucket, label.score, label.reason, sha256))
            self.files.decide(decisions)

    def _aim(self) -> None:
        names = _Names(self.files)
        for item in self.files.misplaced():
            folder = self.workspace.sorted / self.criterion.name / item.label
            target = free_target(folder / Path(item.place).name, names)  # type: ignore[arg-type]
            self.files.aim(item.id, "move" if item.bucket else self.args.mode, self.workspace.to_text(target))

    def _withdraw(self) -> None:
        """Plans to take out what is sorted already and was left out by the criterion, or cannot be read any more."""
        self.withdrawals.of_left_out("left_out", lambda score, _: "" if score is None else f"left out at {score:g}")
        self.withdrawals.of_left_out(
            "unreadable", lambda _, why: "" if why.startswith(PASSING) else f"unreadable: {why}"
        )
        self.changed = self.withdrawals.changed

    def _without_label(self) -> Iterator[str]:
        yield from (item.sha256 for item in self.files.items("left_out") if item.score is not None)
        yield from (item.sha256 for item in self.files.items("unreadable") if not item.reason.startswith(PASSING))

    def _label_rows(self) -> Iterator[LabelRow]:
        version = " ".join(version for _, version in self.criterion.keys)
        seen = ""
        for item in self.files.items("labelled"):
            if item.sha256 != seen:
                yield LabelRow(item.sha256, item.label, item.score, item.reason, version)
            seen = item.sha256

    def _changed(self, action: Action) -> str:
        """Why an action must not be carried out any more."""
        path = self.workspace.to_path(action.source)
        try:
            # A link that is taken out may lead nowhere.
            status = os.stat(path) if action.target.startswith(self.workspace.sorted.name + "/") else os.lstat(path)
        except OSError:
            return "gone"
        return "" if status.st_size == action.bytes else "changed"


class _Names:
    """The names that are taken, as `free_target` wants them: a set that lies on disk."""

    def __init__(self, files: Worklist):
        self.files = files

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def add(self, name: str) -> None:
        self.files.add_name(name)


def settle(db: Database, workspace: Workspace, run_id: int) -> None:
    """Finishes what killed runs of this step had begun, and of step 6 what this one relies on.

    Removes temporary files too, those of `reports/` as well: a name with a leading dot and `.part` is never a finished
    file.
    """
    journal_files.finish_interrupted(Context(db, workspace, run_id), STEP, tidy=True)
    journal_files.finish_others(Context(db, workspace, run_id), ("dedup",))
    for path in (*workspace.sorted.glob("*/*/.*.part"), *workspace.reports.glob(".sort_*.part")):
        path.unlink(missing_ok=True)


def undo(
    db: Database, workspace: Workspace, reference: str, *, before: int, dry_run: bool, bar: BarFactory
) -> Mapping[str, int]:
    """Takes back a run's files and brings every `metadata.jsonl` up to date; labels and scores stay known.

    `before` is the run that asks.
    """
    number = journal_files.run_to_undo(db, STEP, reference, before)
    counts = Counter(undone=0)
    if number is not None:
        counts = journal_files.undo(Context(db, workspace, dry_run=dry_run, bar=bar), number)
    if not dry_run:
        if number is not None:
            remove_empty_folders(db, workspace, number)
        refresh_metadata(db, workspace)  # also where there was nothing: a killed run may have left folders
    return counts


def _is_below(path: Path, folder: Path) -> bool:
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path == folder or folder in path.parents


def finish(run: Sorting) -> str:
    """Applies the plan and writes the report; gives the note that says where the page is."""
    run.apply()
    page = write_report(
        run.db,
        run.workspace,
        run.criterion.name,
        rules=run.criterion.buckets(),
        subtitle=subtitle(run.args),
        unreadable=_told(run, "unreadable"),
        left_out=_told(run, "left_out"),
        workers=run.args.workers,
        extra=_extra(run),
    )
    if clusters := getattr(run.criterion, "clusters", ()):
        page = _clusters_page(run, clusters)
    refresh_index(run.workspace)
    return f"page: {page}"


def shown(run: Sorting, form: str) -> Iterator[str]:
    """The lines for stdout: the plan in a dry run, then the buckets; or the pictures as CSV or JSON."""
    if form == "csv":
        yield from (part.rstrip("\n") for part in csv_lines(_pictures(run)))
    elif form == "json":
        yield from _json_list(_pictures(run))
    else:
        if run.dry_run:
            yield from journal_files.describe(run.workspace, run.plan(), dry_run=True)
        yield from (f"leave  {path}  ({reason})" for path, reason, _ in run.files.told("unreadable"))
        yield from getattr(run.criterion, "notes", list)()
        yield as_table(run.buckets(), run.criterion.buckets())


def as_result(run: Sorting) -> dict[str, Any]:
    """What `--json` prints; the lists are iterators, since there may be a million entries."""
    return {
        "criterion": run.criterion.name,
        "dry_run": run.dry_run,
        "run": run.run_id or None,
        "buckets": dict(sorted(run.buckets().items())),
        "actions": ({"kind": a.kind, "source": a.source, "target": a.target, "reason": a.reason} for a in run.plan()),
        "unreadable": ({"path": path, "reason": reason} for path, reason, _ in run.files.told("unreadable")),
        "left_out": ({"path": path, "score": score} for path, _, score in run.files.told("left_out")),
        "summary": run.counts(),
    } | _extra(run)


def _clusters_page(run: Sorting, clusters: Any) -> Path:
    """`reports/sort_topic_clusters.html`: every cluster with the pictures nearest to its middle, best cluster first."""
    from lib.pages import Bucket, Heading, SheetItem, render_contact_sheet, write_page

    page = run.workspace.reports / f"sort_{run.criterion.name}_clusters.html"
    places = run.files.places([sha256 for cluster in clusters for sha256 in cluster.faces])
    buckets, items = [], []
    for cluster in clusters:
        mark = "kept" if cluster.kept else "left out"
        note = f"{mark}, score {cluster.score:+.2f}, {cluster.unique} unique, coherence {cluster.coherence:.2f}"
        buckets.append(Bucket(cluster.name, cluster.pictures, note))
        faces = [run.workspace.to_path(places[sha256]) for sha256 in cluster.faces if sha256 in places]
        items += [SheetItem(path, path.name, cluster.name, reason=note) for path in faces]
    heading = Heading("Clusters by query", subtitle(run.args), notes=list(run.criterion.said))  # type: ignore[attr-defined]
    html = render_contact_sheet(page, heading, buckets, items, workers=run.args.workers)
    return page if page.exists() and page.read_text("utf-8") == html else write_page(page, html)


def _told(run: Sorting, state: str) -> list[tuple[str, str, float | None]]:
    return [row for row, _ in zip(run.files.told(state), range(SHOWN_LEFT), strict=False)]


def _extra(run: Sorting) -> dict[str, Any]:
    """What a criterion has to say besides its labels (the topic's clusters)."""
    report = getattr(run.criterion, "report", None)
    return report() if report else {}


def _json_list(entries: Iterator[Any]) -> Iterator[str]:
    """The lines of a JSON array, an entry a line; each is known to be the last one only when there is no next."""
    waiting = next(entries, None)
    yield "["
    while waiting is not None:
        entry, waiting = waiting, next(entries, None)
        yield f" {json.dumps(entry, ensure_ascii=False)}{',' if waiting is not None else ''}"
    yield "]"


def _pictures(run: Sorting) -> Iterator[dict[str, Any]]:
    block = []
    for item in run.files.items("labelled"):
        block.append(item)
        if len(block) == 500:
            yield from _rows(run, block)
            block = []
    yield from _rows(run, block)


def _rows(run: Sorting, items: list[Any]) -> Iterator[dict[str, Any]]:
    sizes = store.known_sizes(run.db, [item.sha256 for item in items])
    for metric, _ in run.criterion.keys if run.dry_run else ():
        for sha256, (row, _) in run.files.kept(metric, [item.sha256 for item in items]).items():
            detail = row.detail
            sizes.setdefault(sha256, (detail["width"], detail["height"], detail["format"]))
    for item in items:
        width, height, form = sizes.get(item.sha256, (0, 0, ""))
        words = {"label": item.label, "score": item.score, "reason": item.reason}
        yield {"path": item.path, **words, "width": width, "height": height, "format": form, "sha256": item.sha256}
