"""The contact sheet of a criterion: what lies in its buckets, or in a dry run what will."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lib.db import Context
from lib.db import scores as store
from lib.db.worklist import Worklist
from lib.pages.model import Bucket, Card, Heading, SheetItem
from lib.pages.render import write_page
from lib.pages.reports import ITEM_LIMIT, render_contact_sheet
from lib.progress import chunked
from lib.sort.criteria import Criterion
from lib.sort.placements import described
from lib.text import counted
from lib.workspace import Workspace

BLOCK = 500
REASONS = 40  # different reasons up to which they are words to be counted, and no sentences about one picture
NO_DEFECTS = ("", "no defect found")
ONLY_SHOWN = "This is a dry run: nothing has been moved, and nothing was written into the workspace."

Rows = Callable[[], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Offer:
    """The page's place as `--page` names it, None for the usual one, and the commands that it offers.

    These are the run in earnest where this one is dry, else the one that takes a run back, by that run's number.
    """

    page: Path | None = None
    in_earnest: str = ""
    way_back: Callable[[int], str] = lambda number: ""


@dataclass
class SortTotals:
    """The numbers of a page's cards, of all pictures; eight bytes a picture and number."""

    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    scores: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))
    criterion: str = ""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> SortTotals:
        found = cls()
        for row in rows:
            found.labels[row["label"]] += 1
            found.criterion = row["criterion"]
            if row["score"] is not None:
                found.scores.append(row["score"])
            if row["width"]:
                found.sizes.append(row["width"] * row["height"] / 1e6)
            if row["reason"] in found.reasons or len(found.reasons) < REASONS:
                found.reasons[row["reason"]] += 1
        return found

    def cards(self) -> list[Card]:
        total = self.labels.total()
        cards = [Card("Pictures", total, f"in {counted(len(self.labels), 'bucket')}")]
        if self.sizes:
            cards.append(Card("Median size", f"{median(self.sizes):.2g} MP", "upright, real pixels"))
        if self.criterion == "quality" and self.scores:
            cards.append(Card("Median score", round(median(self.scores), 1), "of 0 to 100"))
        common = [(reason, count) for reason, count in self.reasons.most_common() if reason not in NO_DEFECTS]
        defects = [(reason, count) for reason, count in common if reason.replace(" ", "").isalpha()]  # no "musiq 71.2"
        if len(self.reasons) < REASONS and self.criterion == "quality" and defects:
            reason, count = defects[0]
            cards.append(Card("Named most", reason, f"in {counted(count, 'picture')}"))
        return cards


def contact_sheet(
    page: Path,
    workspace: Workspace,
    head: Mapping[str, Any],
    rows: Rows,
    *,
    command: tuple[str, str] = ("", ""),
    only_shown: bool = False,
    workers: int = 0,
) -> str:
    """The page for the head of a report and the rows of its pictures, as `output.write_report` makes them.

    `command` is a command line with what it does.
    """
    unreadable = head["unreadable"]
    totals = SortTotals.of(rows())
    counts, cards = totals.labels, totals.cards()
    if head["left_out"]:
        cards.append(Card("Left out", len(head["left_out"]), "by the criterion"))
    if unreadable:
        cards.append(Card("Unreadable", len(unreadable), "left where they are"))
    notes = [ONLY_SHOWN] if only_shown else []
    notes += [f"{entry['path']} was not sorted: {entry['reason']}." for entry in unreadable[:20]]
    if len(unreadable) > 20:
        where = "--json lists them all" if only_shown else "the JSON file beside this page has them all"
        notes.append(f"{len(unreadable) - 20} more could not be read; {where}.")
    notes += head.get("notes", [])
    ruled = {entry["name"]: entry["rule"] for entry in head["buckets"]}
    named = ruled | {name: "" for name in sorted(counts) if name not in ruled}
    buckets = [Bucket(name, counts[name], rule) for name, rule in named.items()]
    title = f"Sorted by {head['criterion'].replace('_', ' ')}{', as it would be' if only_shown else ''}"
    heading = Heading(title, head["settings"], cards=cards, notes=notes, command=command[1], command_is=command[0])
    chosen = sorted(_shown(rows(), counts), key=lambda row: (-(row["score"] or 0.0), row["path"]))
    items = [sheet_item(workspace, row) for row in chosen]
    rest = "--json lists all" if only_shown else "metadata.jsonl in each folder lists all"
    return render_contact_sheet(page, heading, buckets, items, rest=rest, workers=workers)


def planned_rows(context: Context, criterion: Criterion, files: Worklist) -> Iterator[dict[str, Any]]:
    """The rows of the page as it will be, each with the path at which the picture lies now: what stays in `sorted/`,
    then what this run labels."""
    for record, placement in described(context.db, criterion.name, files.staying(), sightings=True):
        yield {"path": placement.target} | record
    for block in chunked(files.items("labelled"), BLOCK):
        contents = [item.sha256 for item in block]
        sizes = sizes_of(context, criterion, files, contents)
        origins, sightings = store.provenance(context.db, contents), store.sightings(context.db, contents)
        for item in block:
            width, height, form = sizes.get(item.sha256, (0, 0, ""))
            yield {
                "path": item.place, "file_name": (item.target or item.place).rpartition("/")[2],
                "sha256": item.sha256, "width": width, "height": height, "format": form, "criterion": criterion.name,
                "label": item.label, "score": item.score, "reason": item.reason,
            } | origins.get(item.sha256, {}) | sightings.get(item.sha256, {})  # fmt: skip


def sizes_of(
    context: Context, criterion: Criterion, files: Worklist, contents: Sequence[str]
) -> dict[str, tuple[int, int, str]]:
    """(width, height, format) of contents; a dry run has measured some that the database does not know."""
    sizes = store.known_sizes(context.db, contents)
    for metric, _ in criterion.keys if context.dry_run else ():
        for sha256, (row, _) in files.kept(metric, contents).items():
            sizes.setdefault(sha256, (row.detail["width"], row.detail["height"], row.detail["format"]))
    return sizes


def _shown(rows: Iterable[Mapping[str, Any]], counts: Counter[str]) -> list[Mapping[str, Any]]:
    """All rows where a page can hold them; else of each bucket so many, evenly over its files."""
    if sum(counts.values()) <= ITEM_LIMIT:
        return list(rows)
    room = max(1, ITEM_LIMIT // len(counts))
    steps = {name: -(-count // room) for name, count in counts.items()}
    seen: Counter[str] = Counter()
    chosen = []
    for row in rows:
        if seen[row["label"]] % steps[row["label"]] == 0:
            chosen.append(row)
        seen[row["label"]] += 1
    return chosen


def sheet_item(workspace: Workspace, row: Mapping[str, Any]) -> SheetItem:
    """One picture of the page; `path` of the row is where it lies."""
    engines = row.get("engines") or ([row["engine"]] if row.get("engine") else [])
    query = row.get("query", "")
    found_by = [" and ".join(engines), f"“{query}”" if query else ""]
    return SheetItem(
        file=workspace.to_path(row["path"]),
        name=row["file_name"],
        bucket=row["label"],
        score=row["score"],
        reason=row["reason"],
        width=row["width"] or None,
        height=row["height"] or None,
        title=" ".join(row.get("title", "").split()),
        page_url=row.get("page_url", ""),
        creator=row.get("creator", ""),
        license=row.get("license", ""),
        license_url=row.get("license_url", ""),
        published=row.get("published_at", ""),
        first_seen=row.get("first_seen_at", ""),
        found_by=", ".join(part for part in found_by if part),
    )


def clusters_sheet(
    page: Path, context: Context, criterion: Criterion, files: Worklist, subtitle: str, workers: int
) -> Path:
    """Writes `sort_topic_clusters.html`: every cluster with the pictures nearest to its middle, best cluster first.

    A picture that several searches found is shown in the first of its clusters.
    """
    faces = list(dict.fromkeys(sha256 for cluster in criterion.clusters for sha256 in cluster.faces))
    rows = _face_rows(context, criterion, files, faces)
    buckets, items, seen = [], [], set[str]()
    for cluster in criterion.clusters:
        note = f"{'kept' if cluster.kept else 'left out'}, score {cluster.score:+.2f}, {cluster.unique} unique, "
        note += f"coherence {cluster.coherence:.2f}"
        again = seen.intersection(cluster.faces)
        beside = f"; {counted(len(again), 'picture')} of it shown above" if again else ""
        buckets.append(Bucket(cluster.name, cluster.pictures, note + beside))
        fresh = [rows[sha256] for sha256 in cluster.faces if sha256 in rows and sha256 not in seen]
        items += [sheet_item(context.workspace, row | {"label": cluster.name, "reason": note}) for row in fresh]
        seen.update(cluster.faces)
    notes = [ONLY_SHOWN] if context.dry_run else []
    heading = Heading("Clusters by query", subtitle, notes=notes + criterion.report()["notes"])
    html = render_contact_sheet(
        page, heading, buckets, items, total=criterion.clustered, rest="those nearest to the middle of each cluster",
        workers=workers,
    )  # fmt: skip
    return page if page.exists() and page.read_text("utf-8") == html else write_page(page, html)


def _face_rows(
    context: Context, criterion: Criterion, files: Worklist, faces: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The row of each content that has a file, without label and reason."""
    places = files.places(faces, as_planned=not context.dry_run)
    origins, sightings = store.provenance(context.db, faces), store.sightings(context.db, faces)
    sizes, found = sizes_of(context, criterion, files, faces), {}
    for sha256, place in places.items():
        width, height, form = sizes.get(sha256, (0, 0, ""))
        row = {"path": place, "file_name": place.rpartition("/")[2], "score": None, "format": form}
        found[sha256] = row | {"width": width, "height": height}
        found[sha256] |= origins.get(sha256, {}) | sightings.get(sha256, {})
    return found
