"""The files that step 7 writes besides the pictures: a `metadata.jsonl` in every bucket, and the report of a criterion.

Everything is made line by line, so that a million pictures need no memory, and compared with the file that is there:
one that is right is not touched. What was written is known by one number, so that a run with nothing new compares
nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

from lib import __version__
from lib.db import Context, Database
from lib.db import scores as store
from lib.db.worklist import Placement, Worklist
from lib.pages.model import Bucket, Card, Heading, SheetItem
from lib.pages.render import write_page
from lib.pages.reports import ITEM_LIMIT, render_contact_sheet
from lib.pages.thumbnails import are_all_there
from lib.progress import chunked
from lib.sort.criteria import Criterion
from lib.sort.options import SortOptions
from lib.sort.placements import read_placements
from lib.text import counted
from lib.workspace import Workspace

METADATA = "metadata.jsonl"
CSV_COLUMNS = ("path", "label", "score", "reason", "width", "height", "format", "sha256", "source")
BLOCK = 500
Unsorted = tuple[str, str, float | None]  # (path, reason, score) of a picture that was not sorted
REASONS = 40  # different reasons up to which they are words to be counted, and no sentences about one picture
NO_DEFECTS = ("", "no defect found")


def refresh_metadata(db: Database, workspace: Workspace) -> None:
    """Makes every `metadata.jsonl` below `sorted/` say what lies in its folder, and removes those of empty buckets.

    A file that is right already is not touched. All criteria are looked at: one may have moved another's files away.
    """
    if not workspace.sorted.is_dir():
        return
    for folder in sorted(path for path in workspace.sorted.iterdir() if path.is_dir()):
        files = read_placements(db, workspace, folder.name)
        for bucket in sorted(path for path in folder.iterdir() if path.is_dir()):
            own = files.placements(f"{workspace.sorted.name}/{folder.name}/{bucket.name}/")
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record, _ in described(db, folder.name, own))
            replace_with(bucket / METADATA, lines)
            remove_if_empty(bucket)
        remove_if_empty(folder)
    remove_if_empty(workspace.sorted)


def described(
    db: Database, criterion: str, placements: Iterable[Placement]
) -> Iterator[tuple[dict[str, Any], Placement]]:
    """The records of `metadata.jsonl` with what they describe, in the given order."""
    for block in chunked(placements, BLOCK):
        contents = list(dict.fromkeys(placement.sha256 for placement in block))
        labels = store.known_labels(db, criterion, contents)
        sizes = store.known_sizes(db, contents)
        origins = store.provenance(db, contents)
        for placement in block:
            label = labels.get(placement.sha256)
            width, height, form = sizes.get(placement.sha256, (0, 0, ""))
            record: dict[str, Any] = {
                "file_name": placement.name, "sha256": placement.sha256,
                "width": width, "height": height, "format": form,
                "criterion": criterion, "label": placement.bucket,
                "score": label.score if label else None, "reason": label.reason if label else "",
            }  # fmt: skip
            yield record | origins.get(placement.sha256, {}), placement


@dataclass(frozen=True)
class Report:
    """The page, one number for what it was made of ('' where that may be changing), and whether it was known to be
    right."""

    page: Path
    source: str
    is_known: bool = False


def write_report(
    context: Context,
    options: SortOptions,
    criterion: Criterion,
    unreadable: list[Unsorted],
    left_out: list[Unsorted],
    *,
    at_rest: Worklist | None = None,
) -> Report:
    """Writes `reports/sort_<criterion>.json`, `.csv` and `.html`, and before them every `metadata.jsonl`.

    Files that are right are not touched. `at_rest` are the files of a run that has changed none: where nothing else is
    new either, nothing is made and compared.
    """
    db, workspace, name = context.db, context.workspace, criterion.name
    page = workspace.reports / f"sort_{name}.html"
    head = {
        "criterion": name,
        "settings": options.subtitle,
        "buckets": [{"name": bucket, "rule": rule} for bucket, rule in criterion.buckets()],
        "unreadable": [{"path": path, "reason": reason} for path, reason, _ in unreadable],
        "left_out": [{"path": path, "score": score, "reason": reason} for path, reason, score in left_out],
    } | criterion.report()
    files = at_rest or read_placements(db, workspace, name)
    source = _source(db, name, head, files)
    state = _state(source, page, workspace.sorted / name) if at_rest and source and are_all_there(page) else ""
    if state and store.written_state(db, name) == state:  # '' is also what stands for a report never written
        return Report(page, source, is_known=True)

    def rows() -> Iterator[dict[str, Any]]:
        for record, placement in described(db, name, files.placements()):
            yield {"path": placement.target, "source": placement.origin, "how": placement.kind} | record

    store.note_written(db, name, "")  # a run that is killed from here on leaves files that the next one compares
    refresh_metadata(db, workspace)
    # The page shows nothing that the data does not hold, and its thumbnails are dear.
    data = page.with_suffix(".json")
    changed = replace_with(data, _json_lines(head, rows()))
    replace_with(page.with_suffix(".csv"), csv_lines(rows()))
    if changed or not are_all_there(page):
        write_page(page, _page(page, workspace, head, rows, options.spread.workers))
    return Report(page, source)


def note_report(context: Context, criterion: Criterion, report: Report) -> None:
    """Keeps what the report was made of, when all that belongs to it is written."""
    state = _state(report.source, report.page, context.workspace.sorted / criterion.name) if report.source else ""
    store.note_written(context.db, criterion.name, state)


def _source(db: Database, name: str, head: Mapping[str, Any], files: Worklist) -> str:
    """One number for all that the files are made of; '' where another step may be changing it."""
    if known := store.made_of(db, name):
        known += [__version__, json.dumps(head), files.placements_digest()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest() if known else ""


def _state(source: str, page: Path, folder: Path) -> str:
    """`source` with how the report's files and every bucket's `metadata.jsonl` lie on disk; '' where one is missing."""
    buckets = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = []
    try:
        for path in (page, page.with_suffix(".json"), page.with_suffix(".csv"), *(b / METADATA for b in buckets)):
            status = path.stat()
            found.append([str(path), status.st_size, status.st_mtime_ns, status.st_ino])
    except OSError:
        return ""
    return hashlib.sha256(json.dumps([source, found]).encode()).hexdigest()


def csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The sorted pictures as CSV, line by line."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(value) for name, value in row.items()})
        if out.tell() > 65_536:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def as_table(buckets: Mapping[str, int], rules: Sequence[tuple[str, str]]) -> str:
    """The buckets with their counts, as a person reads them."""
    notes = dict(rules)
    names = [name for name, _ in rules] + sorted(set(buckets) - set(notes))
    width = max(map(len, names), default=0)
    return "\n".join(f"{name:<{width}}  {buckets.get(name, 0):>7,}  {notes.get(name, '')}".rstrip() for name in names)


def replace_with(path: Path, lines: Iterable[str]) -> bool:
    """Writes the file whole or not at all, and only where it would differ; False where it was right.

    Nothing is written, beside the file neither, as far as the old one is right. For no lines no file is left.
    """
    parts: Iterator[bytes] = (line.encode("utf-8", "replace") for line in lines)
    first = next(parts, None)
    if first is None:
        was_there = path.exists()
        path.unlink(missing_ok=True)
        return was_there
    parts = chain([first], parts)
    waiting = path.with_name(f".{path.name}.part")
    try:
        if not path.is_file():
            _write(waiting, parts)
        elif not _written_differently(path, parts, waiting):
            return False
        os.replace(waiting, path)
    finally:
        waiting.unlink(missing_ok=True)
    return True


def _written_differently(path: Path, parts: Iterator[bytes], waiting: Path) -> bool:
    """False where the file holds just this; else `waiting` does."""
    right = 0
    with path.open("rb") as old:
        for part in parts:
            if old.read(len(part)) != part:
                break
            right += len(part)
        else:
            if not old.read(1):
                return False
            part = b""
        old.seek(0)
        _write(waiting, chain(_blocks(old, right), [part], parts))
    return True


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first `size` bytes of an open file."""
    while size and (block := file.read(min(size, 1 << 20))):
        size -= len(block)
        yield block


def _write(path: Path, parts: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(parts)


def _json_lines(head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One JSON object with the rows under `pictures`, a picture a line."""
    yield json.dumps(head, ensure_ascii=True, indent=1)[:-2] + ',\n "pictures": ['
    before = "\n"
    for row in rows:
        yield f"{before}  {json.dumps(row, ensure_ascii=True)}"
        before = ",\n"
    yield "\n ]\n}\n"


def _page(page: Path, workspace: Workspace, head: Mapping[str, Any], rows: Any, workers: int) -> str:
    unreadable = head["unreadable"]
    totals = SortTotals.of(rows())
    counts, cards = totals.labels, totals.cards()
    if head["left_out"]:
        cards.append(Card("Left out", len(head["left_out"]), "by the criterion"))
    if unreadable:
        cards.append(Card("Unreadable", len(unreadable), "left where they are"))
    notes = [f"{entry['path']} was not sorted: {entry['reason']}." for entry in unreadable[:20]]
    if len(unreadable) > 20:
        notes.append(f"{len(unreadable) - 20} more could not be read; the JSON file beside this page has them all.")
    notes += head.get("notes", [])
    ruled = {entry["name"]: entry["rule"] for entry in head["buckets"]}
    named = ruled | {name: "" for name in sorted(counts) if name not in ruled}
    buckets = [Bucket(name, counts[name], rule) for name, rule in named.items()]
    heading = Heading(f"Sorted by {head['criterion']}", head["settings"], cards=cards, notes=notes)
    chosen = sorted(_shown(rows(), counts), key=lambda row: (-(row["score"] or 0.0), row["path"]))
    items = [_item(workspace, row) for row in chosen]
    return render_contact_sheet(page, heading, buckets, items, workers=workers)


def _shown(rows: Iterable[dict[str, Any]], counts: Counter[str]) -> list[dict[str, Any]]:
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


def _item(workspace: Workspace, row: Mapping[str, Any]) -> SheetItem:
    known = (row.get(name, "") for name in ("title", "query", "engine", "license", "attribution"))
    return SheetItem(
        file=workspace.to_path(row["path"]),
        name=row["file_name"],
        bucket=row["label"],
        score=row["score"],
        reason=row["reason"],
        width=row["width"] or None,
        height=row["height"] or None,
        detail=" · ".join(text for text in known if text),
    )


def cell(value: Any) -> Any:
    """The value; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def remove_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing; any other stays."""
    with suppress(OSError):
        folder.rmdir()


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
