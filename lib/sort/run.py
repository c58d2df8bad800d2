"""One run of step 7: measure what is not measured yet, label everything, plan, apply, describe what lies where.

Measures are kept by content and version, so that new thresholds cost no decode. The plan compares each picture's label
with the bucket that its sorted file lies in: what is new is copied (or moved, or linked), what has another label now
moves over, what is right stays. Everything that grows with the pictures is in a temporary database (`db.worklist`).
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lib.db import Context
from lib.db import scores as store
from lib.db.journal import Action
from lib.db.scores import LabelRow
from lib.db.worklist import Placement, TakenNames, Worklist
from lib.errors import UsageError
from lib.files.names import portable_name
from lib.files.pictures import PassedOver, folder_pictures, workspace_pictures
from lib.journal import files as journal_files
from lib.journal.moves import free_target, require_symbolic_links
from lib.pages.render import place_of_page, write_page
from lib.pages.thumbnails import are_all_there
from lib.progress import chunked
from lib.quality.measure import Measure
from lib.sort.criteria import Criterion
from lib.sort.export.building import remove_empty_folders
from lib.sort.measures import Measures, is_passing, why_unanswered
from lib.sort.options import SortOptions
from lib.sort.output import (
    Report,
    Unsorted,
    as_table,
    csv_lines,
    note_report,
    refresh_metadata,
    report_head,
    write_report,
)
from lib.sort.placements import Removals, claim_placement, read_placements
from lib.sort.sheet import Offer, clusters_sheet, contact_sheet, planned_rows, sizes_of
from lib.text import counted, first_lines

FEWEST = 3  # lines of the plan that are shown however many buckets there are
STEP = "sort"
ASIDE = ("not_asked", "no_answer")  # nothing is wrong with the picture; the next run asks again
SHOWN_UNANSWERED = 10  # pictures that a model gave no answer about
SHOWN_LEFT = 100_000  # pictures with reasons in a report's lists; metadata and the database hold everything


@dataclass
class Sorting:
    """The run's state, filled from top to bottom."""

    context: Context
    options: SortOptions
    files: Worklist = field(default_factory=Worklist)
    measured: int = 0
    not_selected: int = 0
    complete: bool = False
    outcome: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.db, self.workspace = self.context.db, self.context.workspace
        self.criterion: Criterion = self.options.criterion
        read_placements(self.db, self.workspace, self.criterion.name, self.files)
        self.removals = Removals(self.context, self.files)
        self.passed_over = PassedOver(self.workspace.root, self.options.folders)

    def prepare(self) -> None:
        """Gathers, measures and labels the pictures and makes the plan; `complete` stays False when stopped."""
        if self.options.mode == "symlink" and not self.context.dry_run:
            require_symbolic_links(self.workspace.root)
        self._gather()
        if self.options.where:  # files that are sorted already stay where they are
            self.not_selected = self.files.select(self.db, self.options.where)
        measures = Measures(self.context, self.files, self.criterion)
        self.measured = measures.fill(self.options.spread)
        if not self.context.stopping():
            self.criterion = self.criterion.fit(measures)
            for page in measures.pages():
                self.files.set_labels((*self._decision(measure), sha256) for sha256, measure in page.items())
            self._plan_moves()
            # What is sorted already leaves where the criterion left it out, or where it cannot be read any more.
            self.removals.of_left_out("left_out", lambda score, _: "" if score is None else f"left out at {score:g}")
            self.removals.of_left_out("unreadable", lambda _, why: "" if is_passing(why) else f"unreadable: {why}")
            self.complete = True

    def plan(self) -> Iterator[Action]:
        """The actions: first of what leaves `sorted/`, then of what goes there, as the pictures were found."""
        for gone in self.files.removals():
            yield Action("move", gone["place"], gone["target"], gone["sha256"], gone["bytes"], reason=gone["reason"])
        for item in self.files.planned():
            yield Action(item.kind, item.place, item.target, item.sha256, item.bytes, reason=item.reason)

    def apply(self) -> None:
        """Records the labels and carries out the plan."""
        db, run_id, name = self.db, self.context.run_id, self.criterion.name
        store.save_labels(db, run_id, name, self._label_rows())
        store.drop_labels(db, name, self._without_label())
        journal_files.plan(db, run_id, self.plan())
        self.outcome = journal_files.apply(self.context, check=self._changed)

    def counts(self) -> dict[str, int | float | str]:
        """The numbers of the summary line."""
        dry_run = self.context.dry_run
        planned, again = self.files.plan_size()
        withdrawn = self.files.count_removals()
        found: dict[str, int | float | str] = {"pictures": self.files.count()}
        found |= self.files.buckets()
        # An interrupted run did less than its plan.
        done = planned if dry_run else self.outcome["done"] - withdrawn
        found["to_sort" if dry_run else "sorted"] = max(0, done - again)
        if again:
            found["to_rebucket" if dry_run else "rebucketed"] = again
        if withdrawn:
            found["to_withdraw" if dry_run else "withdrawn"] = withdrawn
        if self.removals.changed:
            found["changed_copies_left"] = self.removals.changed
        if left := self.files.count("left_out"):
            found["below_min_score" if self.criterion.name == "quality" else "left_out"] = left
        if silent := Counter(why_unanswered(reason) for _, reason in unanswered(self)):
            found["unanswered"] = silent.total()
            found |= {f"unanswered_{reason}": count for reason, count in silent.most_common()}
        if self.options.where:
            found["not_selected"] = self.not_selected
        found["unreadable"] = self.files.count("unreadable")
        reasons = Counter(reason.partition(":")[0] for _, reason, _ in self.files.reasons("unreadable"))
        found |= {f"unreadable_{reason}": count for reason, count in sorted(reasons.items())}
        found |= self.passed_over.counts()
        found["measured"] = self.measured
        return found

    @property
    def why_nothing_was_sorted(self) -> str:
        """The commonest reason where not one picture could be read; empty where one could."""
        pictures, unreadable = self.files.count(), self.files.count("unreadable")
        if not pictures or unreadable < pictures:
            return ""
        reasons = Counter(reason.partition(":")[0] for _, reason, _ in self.files.reasons("unreadable"))
        reason, count = reasons.most_common(1)[0]
        return f"no picture could be sorted: {count:,} of {counted(unreadable, 'picture')} failed as {reason}"

    def _gather(self) -> None:
        for path, sha256, size in self._pictures():
            placed = claim_placement(self.files, self.workspace, path, sha256)
            self.files.add(path, sha256, size, placed.target if placed else "", placed.bucket if placed else "")
        self.removals.of_lost_originals(self._is_asked)
        if self.options.limit is None:
            self._add_moved_away()
        if not self.files.count() and not self.options.folders:
            raise UsageError("there is no downloaded picture in the workspace; run 5_download.py first.")

    def _pictures(self) -> Iterator[tuple[str, str, int]]:
        if not self.options.folders:
            for picture in workspace_pictures(self.db, self.workspace, self.options.limit):
                yield self.workspace.to_text(picture.path), picture.sha256, picture.bytes
            return
        own = self.workspace.root.resolve()
        # What lies in the workspace is sorted only when it is asked for, never because it lies below a given folder.
        for picture in folder_pictures(
            self.db, self.options.folders, remember=not self.context.dry_run, unreadable=self._cannot_read,
            bar=self.context.bar, limit=self.options.limit, passed_over=self.passed_over,
        ):  # fmt: skip
            if _is_below(picture.path, own) and not _is_below(picture.root, own):
                continue
            yield self.workspace.to_text(picture.path), picture.sha256, picture.bytes

    def _add_moved_away(self) -> None:
        """Adds files that a run moved out of the given folders: they lie in `sorted/` and may need another bucket.

        A copy whose original somebody deleted is the last of its picture and stays likewise.
        """
        for placement in self.files.placements(unclaimed=True):
            origin, target = (self.workspace.to_path(text) for text in (placement.origin, placement.target))
            if os.path.lexists(origin) or not target.exists():
                continue
            if self._is_asked(placement):
                size = target.stat().st_size
                self.files.add(placement.origin, placement.sha256, size, placement.target, placement.bucket)

    def _is_asked(self, placement: Placement) -> bool:
        """True where what was sorted came from where this run looks."""
        if not self.options.folders:
            return not Path(placement.origin).is_absolute()
        origin = self.workspace.to_path(placement.origin)
        return any(_is_below(origin, folder) for folder in self.options.folders)

    def _cannot_read(self, path: Path, error: OSError) -> None:
        reason = "name_not_utf8" if error.errno == errno.EILSEQ else "unreadable_file"
        # What is no UTF-8 cannot be kept as text; the escapes say which bytes they are.
        text = self.workspace.to_text(path).encode("utf-8", "backslashreplace").decode("utf-8")
        self.files.add_unread(text, reason)

    def _decision(self, measure: Measure) -> tuple[str, str, float | None, str]:
        """(state, bucket, score, reason) of a picture."""
        if measure.value is None:
            return "left_out" if measure.reason.startswith(ASIDE) else "unreadable", "", None, measure.reason
        label = self.criterion.label(measure)
        if label is None:
            return "left_out", "", measure.value, measure.reason
        return "labelled", label.bucket, label.score, label.reason

    def _plan_moves(self) -> None:
        names = TakenNames(self.files.db)
        for item in self.files.misplaced():
            folder = self.workspace.sorted / self.criterion.name / item.label
            target = free_target(folder / portable_name(Path(item.place).name), names)
            kind = "move" if item.bucket else self.options.mode
            self.files.plan_move(item.id, kind, self.workspace.to_text(target))

    def _without_label(self) -> Iterator[str]:
        yield from (item.sha256 for item in self.files.items("left_out") if item.score is not None)
        yield from (item.sha256 for item in self.files.items("unreadable") if not is_passing(item.reason))

    def _label_rows(self) -> Iterator[LabelRow]:
        version = " ".join(version for _, version in self.criterion.keys)
        seen = ""
        for item in self.files.items("labelled"):
            if item.sha256 != seen:
                yield LabelRow(item.sha256, item.label, item.score, item.reason, version)
            seen = item.sha256

    def _changed(self, action: Action) -> str:
        """The reason why an action must not be carried out any more; '' where it may."""
        path = self.workspace.to_path(action.source)
        try:
            # A link that is taken out may lead nowhere.
            status = os.stat(path) if action.target.startswith(self.workspace.sorted.name + "/") else os.lstat(path)
        except OSError:
            return "gone"
        return "" if status.st_size == action.bytes else "changed"


def finish_interrupted(context: Context) -> None:
    """Finishes what killed runs of this step had begun, and of step 6 what this one relies on.

    Removes temporary files too, those of `reports/` as well: a name with a leading dot and `.part` is never a finished
    file.
    """
    journal_files.finish_interrupted(context, STEP, tidy=True)
    journal_files.finish_others(context, ("dedup",))
    workspace = context.workspace
    for path in (*workspace.sorted.glob("*/*/.*.part"), *workspace.reports.glob(".sort_*.part")):
        path.unlink(missing_ok=True)


def undo(context: Context, reference: str) -> Mapping[str, int]:
    """Takes back a run's files and brings every `metadata.jsonl` up to date; labels and scores stay known."""
    db, workspace, dry_run = context.db, context.workspace, context.dry_run
    number = journal_files.run_to_undo(db, STEP, reference, context.run_id)
    counts = Counter(undone=0)
    if number is not None:
        counts = journal_files.undo(context, number)
    if not dry_run:
        if number is not None:
            remove_empty_folders(context, number)
        refresh_metadata(db, workspace)  # also where there was nothing: a killed run may have left folders
    return counts


def _is_below(path: Path, folder: Path) -> bool:
    # Texts: asked about every picture, and paths take ten times as long.
    text, above = (os.path.normcase(os.path.abspath(one)) for one in (path, folder))
    return text == above or text.startswith(os.path.join(above, ""))


def finish(run: Sorting, offer: Offer) -> Path:
    """Applies the plan and writes the report; gives the page that there is to look at."""
    run.apply()
    at_rest = None if run.outcome.total() else run.files
    report = write_report(run.context, run.options, run.criterion, *_unsorted(run), offer, at_rest=at_rest)
    page = report.page
    if run.criterion.clusters:
        page = _clusters_page(run, report)
    if not report.is_known and not offer.page:
        note_report(run.context, run.criterion, report)
    return page


def preview(run: Sorting, offer: Offer) -> Path:
    """Writes the page as it will be to where a dry run's goes; gives the page that there is to look at."""
    context, criterion = run.context, run.criterion
    page = place_of_page(offer.page, run.workspace.reports / f"sort_{criterion.name}.html", only_shown=True)
    head = report_head(run.options, criterion, *_unsorted(run))
    html = contact_sheet(
        page, run.workspace, head, lambda: planned_rows(context, criterion, run.files),
        command=("To do this", offer.in_earnest), only_shown=True, workers=run.options.spread.workers,
    )  # fmt: skip
    write_page(page, html)
    return _clusters_page(run, Report(page, "")) if criterion.clusters else page


def _unsorted(run: Sorting) -> tuple[list[Unsorted], list[Unsorted]]:
    unreadable, left_out = (list(islice(run.files.reasons(s), SHOWN_LEFT)) for s in ("unreadable", "left_out"))
    return unreadable, left_out


def _clusters_page(run: Sorting, report: Report) -> Path:
    page = report.page.with_name(f"{report.page.stem}_clusters.html")
    if report.is_known and are_all_there(page):
        return page
    return clusters_sheet(page, run.context, run.criterion, run.files, run.options.subtitle, run.options.spread.workers)


def unanswered(run: Sorting) -> Iterator[tuple[str, str]]:
    """(path, reason) of the pictures that a model was asked about and gave no answer, in this run or those before."""
    return ((path, reason) for path, reason, _ in run.files.reasons("left_out") if why_unanswered(reason))


def _unanswered_lines(run: Sorting, most: int | None) -> Iterator[str]:
    silent = unanswered(run)
    yield from (f"no answer  {path}  ({reason.partition(': ')[2]})" for path, reason in islice(silent, most))
    if left := sum(1 for _ in silent):
        yield f"no answer  {counted(left, 'more picture')}; -v names them all"


def shown(run: Sorting, *, as_csv: bool, most: int | None = None) -> Iterator[str]:
    """The lines for stdout: what cannot be read, in a dry run the plan, then the buckets; or the pictures as CSV.

    They are `most` lines, unless the buckets are more; pictures without an answer are named beside.
    """
    if as_csv:
        yield from (part.rstrip("\n") for part in csv_lines(pictures(run)))
        return
    table = as_table(run.files.buckets(), run.criterion.buckets()).splitlines()
    ending = [*_unanswered_lines(run, most if most is None else SHOWN_UNANSWERED), *run.criterion.notes()]
    ending += first_lines(table, most, "buckets more (-v prints all)")
    left = (f"leave  {path}  ({reason})" for path, reason, _ in run.files.reasons("unreadable"))
    plan = journal_files.describe(run.workspace, run.plan(), dry_run=True) if run.context.dry_run else ()
    yield from first_lines(chain(left, plan), most if most is None else max(FEWEST, most - len(ending)))
    yield from ending


def as_result(run: Sorting) -> dict[str, Any]:
    """The object that `--json` prints; its lists are iterators, since there may be a million entries."""
    return {
        "criterion": run.criterion.name,
        "buckets": run.files.buckets(),
        "actions": ({"kind": a.kind, "source": a.source, "target": a.target, "reason": a.reason} for a in run.plan()),
        "unreadable": ({"path": path, "reason": reason} for path, reason, _ in run.files.reasons("unreadable")),
        "left_out": ({"path": path, "score": score} for path, _, score in run.files.reasons("left_out")),
        "unanswered": ({"path": path, "reason": reason} for path, reason in unanswered(run)),
        "pictures": pictures(run),
    } | run.criterion.report()


def pictures(run: Sorting) -> Iterator[dict[str, Any]]:
    """The labelled pictures, as CSV and JSON list them."""
    for block in chunked(run.files.items("labelled"), 500):
        sizes = sizes_of(run.context, run.criterion, run.files, [item.sha256 for item in block])
        for item in block:
            width, height, form = sizes.get(item.sha256, (0, 0, ""))
            words = {"label": item.label, "score": item.score, "reason": item.reason}
            yield {"path": item.path, **words, "width": width, "height": height, "format": form, "sha256": item.sha256}
