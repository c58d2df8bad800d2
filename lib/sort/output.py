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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lib import __version__
from lib.db import Context, Database
from lib.db import scores as store
from lib.db.worklist import Worklist
from lib.pages.render import place_of_page, write_page
from lib.pages.thumbnails import are_all_there
from lib.sort.criteria import Criterion
from lib.sort.options import SortOptions
from lib.sort.placements import described, read_placements
from lib.sort.sheet import Offer, contact_sheet
from lib.workspace import Workspace

METADATA = "metadata.jsonl"
CSV_COLUMNS = ("path", "label", "score", "reason", "width", "height", "format", "sha256", "source")
Unsorted = tuple[str, str, float | None]  # (path, reason, score) of a picture that was not sorted


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


@dataclass(frozen=True)
class Report:
    """The page, one number for what it was made of ('' where that may be changing), and whether it was known to be
    right."""

    page: Path
    source: str
    is_known: bool = False


def report_head(
    options: SortOptions, criterion: Criterion, unreadable: list[Unsorted], left_out: list[Unsorted]
) -> dict[str, Any]:
    """The facts of a report, but for its pictures."""
    return {
        "criterion": criterion.name,
        "settings": options.subtitle,
        "buckets": [{"name": bucket, "rule": rule} for bucket, rule in criterion.buckets()],
        "unreadable": [{"path": path, "reason": reason} for path, reason, _ in unreadable],
        "left_out": [{"path": path, "score": score, "reason": reason} for path, reason, score in left_out],
    } | criterion.report()


def write_report(
    context: Context,
    options: SortOptions,
    criterion: Criterion,
    unreadable: list[Unsorted],
    left_out: list[Unsorted],
    offer: Offer,
    *,
    at_rest: Worklist | None = None,
) -> Report:
    """Writes `reports/sort_<criterion>.json`, `.csv` and the page, and before them every `metadata.jsonl`.

    Files that are right are not touched. `at_rest` are the files of a run that has changed none: where nothing else is
    new either, nothing is made and compared.
    """
    db, workspace, name = context.db, context.workspace, criterion.name
    usual = workspace.reports / f"sort_{name}.html"
    page = place_of_page(offer.page, usual, only_shown=False)
    head = report_head(options, criterion, unreadable, left_out)
    files = at_rest or read_placements(db, workspace, name)
    source = _source(db, name, head, files)
    state = _state(source, usual, workspace.sorted / name) if at_rest and source and are_all_there(page) else ""
    if state and not offer.page and store.written_state(db, name) == state:  # '' stands for a report never written
        return Report(page, source, is_known=True)

    def rows() -> Iterator[dict[str, Any]]:
        for record, placement in described(db, name, files.placements(), sightings=True):
            yield {"path": placement.target, "source": placement.origin, "how": placement.kind} | record

    store.note_written(db, name, "")  # a run that is killed from here on leaves files that the next one compares
    refresh_metadata(db, workspace)
    # The page shows nothing that the data does not hold, and its thumbnails are dear.
    data = usual.with_suffix(".json")
    changed = replace_with(data, _json_lines(head, rows()))
    replace_with(usual.with_suffix(".csv"), csv_lines(rows()))
    if changed or offer.page or not are_all_there(page) or page.stat().st_mtime_ns < data.stat().st_mtime_ns:
        number = context.run_id if at_rest is None else store.latest_placing_run(db, name)
        command = ("To take this back", offer.way_back(number)) if number else ("", "")
        workers = options.spread.workers
        write_page(page, contact_sheet(page, workspace, head, rows, command=command, workers=workers))
    return Report(page, source)


def note_report(context: Context, criterion: Criterion, report: Report) -> None:
    """Keeps what the report was made of, when all that belongs to it is written."""
    usual = context.workspace.reports / f"sort_{criterion.name}.html"
    state = _state(report.source, usual, context.workspace.sorted / criterion.name) if report.source else ""
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


def cell(value: Any) -> Any:
    """The value; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def remove_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing; any other stays."""
    with suppress(OSError):
        folder.rmdir()
