"""The output of step 6: the result as JSON, CSV and text, and the page with each group side by side."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.dedup.grouping import STRENGTH
from lib.dedup.groups import DuplicateGroup
from lib.dedup.keep import Traits
from lib.files.pictures import PictureFile
from lib.pages.model import Card, GroupView, Heading, MemberView
from lib.pages.render import write_page
from lib.pages.reports import render_dedup_report
from lib.times import utc_now
from lib.workspace import Workspace

COLUMNS = ("group", "path", "keeper", "kind", "distance", "decision", "reason", "width", "height", "bytes", "sha256")


def as_result(groups: Sequence[DuplicateGroup], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The object that `--json` prints; other programs build on its shape."""
    return {
        "groups": [
            {
                "keeper": full_path(group.keeper),
                "members": [
                    {
                        "path": full_path(member.file),
                        "kind": member.kind,
                        "distance": _number(member.distance),
                        "decision": member.decision,
                        "reason": member.reason,
                    }
                    for member in group.members
                ],
            }
            for group in groups
        ],
        "summary": dict(summary),
    }


def full_path(file: PictureFile) -> str:
    """Returns the name of a file in results: wherever a plan or a decision is read again, it means the same file."""
    return os.path.abspath(file.path)


def as_csv(groups: Sequence[DuplicateGroup]) -> str:
    """Returns one line a member, with its keeper."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for group in groups:
        for member in group.members:
            file, traits = member.file, member.traits
            what = (member.kind, _number(member.distance), member.decision, member.reason)
            size = (traits.width, traits.height, file.bytes, file.sha256)
            writer.writerow((group.number, full_path(file), full_path(group.keeper), *what, *size))
    return out.getvalue()


def as_lines(groups: Sequence[DuplicateGroup], workspace: Workspace, most: int | None = None) -> Iterator[str]:
    """Yields one block a group, as a person reads it; at most `most` groups, and how many more there are."""
    for group in groups[:most]:
        yield f"{group.number}. keep    {workspace.to_text(group.keeper.path)}  ({_size(group.traits)})"
        for member in group.members:
            distance = f", {_number(member.distance)} bits" if member.distance else ""
            name = workspace.to_text(member.file.path)
            what = f"{member.kind}: {_size(member.traits)}{distance}, {member.reason}"
            yield f"   {member.decision:<7} {name}  ({what})"
    if most is not None and len(groups) > most:
        yield f"… and {len(groups) - most:,} groups more (-v prints all; the page shows them)"


def write_reports(
    workspace: Workspace,
    groups: Sequence[DuplicateGroup],
    summary: Mapping[str, Any],
    run: int,
    about: str,
    urls: Mapping[str, str],
    moved: Mapping[Path, Path],
) -> Path:
    """Writes `reports/dedup.html`, `.json` and `.csv`; gives the page's path.

    `urls`: content -> page it was found on. `moved`: where a file lies now that has been moved.
    """
    folder = workspace.reports
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "dedup.html"
    text = json.dumps(as_result(groups, summary), ensure_ascii=False, indent=1)
    write_page(folder / "dedup.json", text)
    write_page(folder / "dedup.csv", as_csv(groups))

    def doubt(group: DuplicateGroup) -> tuple[int, float, int]:  # of its weakest pair, as the page itself orders them
        return *max((STRENGTH.index(m.kind), m.distance) for m in group.members), -group.number

    views = [_group_view(group, urls, moved) for group in sorted(groups, key=doubt, reverse=True)]
    write_page(page, render_dedup_report(page, _heading(groups, summary, about, moved), views, run=str(run)))
    return page


def _heading(
    groups: Sequence[DuplicateGroup], summary: Mapping[str, Any], about: str, moved: Mapping[Path, Path]
) -> Heading:
    members = [member for group in groups for member in group.members]
    going = [m for m in members if m.decision == "remove" and (not moved or m.file.path in moved)]
    size = f"{sum(m.file.bytes for m in going) / 1e6:,.1f} MB"
    cards = [
        Card("Files", int(summary.get("files", 0)), "looked at"),
        Card("Groups", len(groups)),
        Card("In quarantine" if moved else "To quarantine", len(going), size),
        Card("For review", sum(m.decision == "review" for m in members), "stay until you decide"),
    ]
    where = "lie in the quarantine folder" if moved else "go to the quarantine folder"
    notes = [f"Removed pictures {where} and come back with --undo."] if going else []
    if left := int(summary.get("not_moved", 0)):
        notes.append(f"{left:,} more were to go and stay: they changed meanwhile, or their folder may not be changed.")
    if broken := int(summary.get("broken", 0)):
        notes.append(f"{broken:,} pictures could not be decoded and are in no group.")
    return Heading("Repeated pictures", about, utc_now(), cards, notes)


def _group_view(group: DuplicateGroup, urls: Mapping[str, str], moved: Mapping[Path, Path]) -> GroupView:
    def view(file: PictureFile, traits: Traits, **more: Any) -> MemberView:
        return MemberView(
            path=full_path(file),
            file=moved.get(file.path, file.path),
            width=traits.width or None,
            height=traits.height or None,
            size_bytes=file.bytes,
            format=traits.format.upper(),
            page_url=urls.get(file.sha256, ""),
            **more,
        )

    members = [
        view(m.file, m.traits, kind=m.kind, decision=m.decision, distance=_number(m.distance), reason=m.reason)
        for m in group.members
    ]
    return GroupView(str(group.number), view(group.keeper, group.traits), members)


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _size(traits: Traits) -> str:
    return f"{traits.width}x{traits.height} {traits.format}" if traits.pixels else "size unknown"
