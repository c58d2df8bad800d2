"""What step 7 writes besides the pictures: a `metadata.jsonl` in every bucket, and the report of a criterion."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db import scores as store
from lib.pages import Bucket, Card, Heading, SheetItem, render_contact_sheet, write_page
from lib.placements import Placement, read_placements
from lib.workspace import Workspace

METADATA = "metadata.jsonl"
CSV_COLUMNS = ("path", "label", "score", "reason", "width", "height", "format", "sha256", "source")


def refresh_metadata(db: Database, workspace: Workspace) -> None:
    """Makes every `metadata.jsonl` below `sorted/` say what lies in its folder, and removes those of empty buckets.

    A file that is right already is not touched. All criteria are looked at: one may have moved another's files away.
    """
    if not workspace.sorted.is_dir():
        return
    for folder in sorted(path for path in workspace.sorted.iterdir() if path.is_dir()):
        records = describe(db, workspace, folder.name)
        for bucket in sorted(path for path in folder.iterdir() if path.is_dir()):
            own = records.get(bucket.name, [])
            if own:
                write_if_changed(bucket / METADATA, "".join(_line(record) for record in own))
            else:
                (bucket / METADATA).unlink(missing_ok=True)
                _remove_if_empty(bucket)
        _remove_if_empty(folder)
    _remove_if_empty(workspace.sorted)


def describe(db: Database, workspace: Workspace, criterion: str) -> dict[str, list[dict[str, Any]]]:
    """The records of `metadata.jsonl` by bucket, in the order of the file names."""
    placements = sorted(read_placements(db, workspace, criterion), key=lambda p: p.target)
    contents = list(dict.fromkeys(placement.sha256 for placement in placements))
    labels = store.known_labels(db, criterion, contents)
    sizes = store.known_sizes(db, contents)
    origins = store.provenance(db, contents)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for placement in placements:
        label = labels.get(placement.sha256)
        width, height, form = sizes.get(placement.sha256, (0, 0, ""))
        record: dict[str, Any] = {
            "file_name": placement.target.rpartition("/")[2],
            "sha256": placement.sha256,
            "width": width,
            "height": height,
            "format": form,
            "criterion": criterion,
            "label": placement.bucket,
            "score": label.score if label else None,
            "reason": label.reason if label else "",
        }
        found[placement.bucket].append(record | origins.get(placement.sha256, {}))
    return found


def write_report(
    db: Database,
    workspace: Workspace,
    criterion: str,
    *,
    rules: Sequence[tuple[str, str]],
    subtitle: str,
    unreadable: Mapping[str, str],
    left_out: Mapping[str, float],
    workers: int,
) -> Path:
    """`reports/sort_<criterion>.json`, `.csv` and `.html`; gives the page. Files that are right are not touched."""
    page = workspace.reports / f"sort_{criterion}.html"
    rows = _rows(db, workspace, criterion)
    data = {
        "criterion": criterion,
        "settings": subtitle,
        "buckets": [{"name": name, "rule": rule} for name, rule in rules],
        "pictures": rows,
        "unreadable": [{"path": path, "reason": reason} for path, reason in sorted(unreadable.items())],
        "left_out": [{"path": path, "score": score} for path, score in sorted(left_out.items())],
    }
    text = json.dumps(data, ensure_ascii=True, indent=1) + "\n"
    # The page shows nothing that the data does not hold, and its thumbnails are dear. The data is written last: a run
    # that is killed in between leaves data that differs, and the next run writes the page again.
    if differs(page.with_suffix(".json"), text) or not page.exists():
        write_page(page, _page(page, workspace, criterion, data, workers))
    write_if_changed(page.with_suffix(".csv"), as_csv(rows))
    write_if_changed(page.with_suffix(".json"), text)
    return page


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """The sorted pictures as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def as_table(buckets: Mapping[str, int], rules: Sequence[tuple[str, str]]) -> str:
    """The buckets with their counts, as a person reads them."""
    notes = dict(rules)
    names = [name for name, _ in rules] + sorted(set(buckets) - set(notes))
    width = max(map(len, names), default=0)
    return "\n".join(f"{name:<{width}}  {buckets.get(name, 0):>7,}  {notes.get(name, '')}".rstrip() for name in names)


def write_if_changed(path: Path, text: str) -> None:
    """Writes the file whole or not at all, and only when it would differ."""
    if differs(path, text):
        write_page(path, text)


def differs(path: Path, text: str) -> bool:
    """Whether the file is not there or holds something else."""
    try:
        return path.read_bytes() != text.encode("utf-8", errors="replace")
    except FileNotFoundError:
        return True


def _rows(db: Database, workspace: Workspace, criterion: str) -> list[dict[str, Any]]:
    sources = {p.target: p for p in read_placements(db, workspace, criterion)}
    rows = []
    for bucket, records in describe(db, workspace, criterion).items():
        for record in records:
            path = f"{workspace.sorted.name}/{criterion}/{bucket}/{record['file_name']}"
            placement: Placement = sources[path]
            rows.append({"path": path, "source": placement.origin, "how": placement.kind} | record)
    return rows


def _page(page: Path, workspace: Workspace, criterion: str, data: Mapping[str, Any], workers: int) -> str:
    rows, unreadable = data["pictures"], data["unreadable"]
    items = [_item(workspace, row) for row in sorted(rows, key=lambda r: (-(r["score"] or 0.0), r["path"]))]
    cards = [Card("Pictures", len(rows))]
    if data["left_out"]:
        cards.append(Card("Left out", len(data["left_out"]), "below the lowest score"))
    if unreadable:
        cards.append(Card("Unreadable", len(unreadable), "left where they are"))
    notes = [f"{entry['path']} was not sorted: {entry['reason']}." for entry in unreadable[:20]]
    if len(unreadable) > 20:
        notes.append(f"{len(unreadable) - 20} more could not be read; the JSON file beside this page has them all.")
    buckets = [Bucket(entry["name"], note=entry["rule"]) for entry in data["buckets"]]
    heading = Heading(f"Sorted by {criterion}", data["settings"], cards=cards, notes=notes)
    return render_contact_sheet(page, heading, buckets, items, workers=workers)


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


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
