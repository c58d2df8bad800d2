"""The output of step 6: the result as JSON, CSV and text, and the page with each group side by side."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib.db.duplicates import Source
from lib.dedup.grouping import STRENGTH
from lib.dedup.groups import DuplicateGroup
from lib.dedup.keep import Traits
from lib.files.pictures import PictureFile
from lib.images.taken import day_taken
from lib.pages.model import BrokenReason, Card, GroupView, Heading, MemberView
from lib.pages.render import write_page
from lib.pages.reports import GROUP_LIMIT, render_dedup_report
from lib.text import first_lines, path_as_text
from lib.times import utc_now
from lib.workspace import Workspace

COLUMNS = ("group", "path", "keeper", "kind", "distance", "decision", "reason", "width", "height", "bytes", "sha256")
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
FEWEST = 3  # lines of either kind, groups and broken files, that are shown at least
BROKEN = "broken"  # kind and decision, in the CSV result, of a file that could not be compared


@dataclass(frozen=True)
class BrokenFile:
    """A file that could not be compared, and the reason; size in bytes and content only where it could be read."""

    path: Path
    reason: str
    bytes: int | None = None
    sha256: str = ""

    @property
    def name(self) -> str:
        r"""Its absolute path in results: bytes that are no UTF-8 are written as \xff."""
        return path_as_text(os.path.abspath(self.path))


def as_result(
    groups: Sequence[DuplicateGroup], summary: Mapping[str, Any], broken: Sequence[BrokenFile] = ()
) -> dict[str, Any]:
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
        "broken": [{"path": file.name, "reason": file.reason} for file in broken],
        "summary": dict(summary),
    }


def full_path(file: PictureFile) -> str:
    """Returns the name of a file in results: wherever a plan or a decision is read again, it means the same file."""
    return os.path.abspath(file.path)


def as_csv(groups: Sequence[DuplicateGroup], broken: Sequence[BrokenFile] = ()) -> str:
    """Returns one line a member, with its keeper, then one a file that could not be compared."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for group in groups:
        for member in group.members:
            file, traits = member.file, member.traits
            what = (member.kind, _number(member.distance), member.decision, member.reason)
            size = (traits.width, traits.height, file.bytes, file.sha256)
            writer.writerow((group.number, full_path(file), full_path(group.keeper), *what, *size))
    for one in broken:
        writer.writerow(("", one.name, "", BROKEN, "", BROKEN, one.reason, "", "", one.bytes, one.sha256))
    return out.getvalue()


def reported_broken(workspace: Workspace) -> set[tuple[str, str]]:
    """Returns (path, reason) of the broken files that `reports/dedup.csv` names; none where there is no such table."""
    try:
        with (workspace.reports / "dedup.csv").open(encoding="utf-8", newline="") as table:
            return {(row["path"], row["reason"]) for row in csv.DictReader(table) if row["decision"] == BROKEN}
    except (OSError, ValueError, KeyError, csv.Error):
        return set()


def as_lines(
    groups: Sequence[DuplicateGroup],
    workspace: Workspace,
    most: int | None = None,
    broken: Sequence[BrokenFile] = (),
) -> Iterator[str]:
    """Yields one block a group, as a person reads it, and a line a broken file.

    At most `most` lines, whole groups but for a first one that is longer, and how many more there are.
    """
    room = most if most is None else max(most - min(len(broken), FEWEST), FEWEST)
    shown = lines = 0
    for group in groups:
        block = _block(group, workspace)
        if room is not None and lines + len(block) > room:
            if not lines:
                yield from first_lines(block, room, "more of this group (-v prints all)")
                shown, lines = 1, room
            break
        yield from block
        shown, lines = shown + 1, lines + len(block)
    if shown < len(groups):
        yield f"… and {len(groups) - shown:,} groups more (-v prints all; the page shows them)"
    told = (f"not compared  {path_as_text(workspace.to_text(one.path))}  ({one.reason})" for one in broken)
    left = most if most is None else max(most - lines, FEWEST)
    yield from first_lines(told, left, "more that could not be compared (-v prints all)")


def _block(group: DuplicateGroup, workspace: Workspace) -> list[str]:
    lines = [f"{group.number}. keep    {workspace.to_text(group.keeper.path)}  ({_size(group.traits)})"]
    for member in group.members:
        distance = f", {_number(member.distance)} bits" if member.distance else ""
        name = workspace.to_text(member.file.path)
        what = f"{member.kind}: {_size(member.traits)}{distance}, {member.reason}"
        lines.append(f"   {member.decision:<7} {name}  ({what})")
    return lines


@dataclass(frozen=True)
class Shown:
    """The circumstances of a page.

    sources   content -> where it was found
    moved     where a file lies now that has been moved
    proposal  nothing has been moved, though something is to go
    again     the words of the command that follows decisions; none where none can be
    restore   the words of the one that brings single pictures back
    key       under which a browser keeps choices; empty for a new one
    note      a further sentence at its head
    """

    workspace: Workspace
    page: Path
    run: int
    about: str
    sources: Mapping[str, Source]
    moved: Mapping[Path, Path]
    proposal: bool
    again: Sequence[str] = ()
    restore: Sequence[str] = ()
    workers: int = 1
    key: str = ""
    note: str = ""


def write_results(
    folder: Path, groups: Sequence[DuplicateGroup], summary: Mapping[str, Any], broken: Sequence[BrokenFile] = ()
) -> None:
    """Writes `dedup.json` and `dedup.csv` into a folder, which is made."""
    text = json.dumps(as_result(groups, summary, broken), ensure_ascii=False, indent=1)
    write_page(folder / "dedup.json", text)
    write_page(folder / "dedup.csv", as_csv(groups, broken))


def write_dedup_page(
    shown: Shown, groups: Sequence[DuplicateGroup], summary: Mapping[str, Any], broken: Sequence[BrokenFile] = ()
) -> None:
    """Writes the page with each group side by side."""

    def doubt(group: DuplicateGroup) -> tuple[int, float, int]:  # of its weakest pair, as the page itself orders them
        return *max((STRENGTH.index(m.kind), m.distance) for m in group.members), -group.number

    ordered = sorted(groups, key=doubt, reverse=True)
    views = [_group_view(group, shown) for group in ordered[:GROUP_LIMIT]]
    html = render_dedup_report(
        shown.page,
        _heading(groups, summary, shown),
        views,
        run=str(shown.run or ""),
        total_groups=len(groups),
        workers=shown.workers,
        broken=_by_reason(broken),
        again=shown.again,
        restore=shown.restore,
        key=shown.key,
    )
    write_page(shown.page, html)


def _heading(groups: Sequence[DuplicateGroup], summary: Mapping[str, Any], shown: Shown) -> Heading:
    members = [member for group in groups for member in group.members]
    going = [m for m in members if m.decision == "remove" and (not shown.moved or m.file.path in shown.moved)]
    size = f"{sum(m.file.bytes for m in going) / 1e6:,.1f} MB"
    cards = [
        Card("Files", int(summary.get("files", 0)), "looked at"),
        Card("Groups", len(groups)),
        Card("In quarantine" if shown.moved else "To quarantine", len(going), size),
        Card("For review", sum(m.decision == "review" for m in members), "stay until you decide"),
    ]
    title, notes = "Repeated pictures", [shown.note] if shown.note else []
    if shown.proposal:
        title = f"Proposal: {title[0].lower()}{title[1:]}"
        notes.append("This is a proposal: nothing has been moved.")
    if going:
        where = "lie in the quarantine folder" if shown.moved else "go to the quarantine folder with the real run"
        notes.append(f"Pictures marked “remove” {where} and come back with --undo, or one by one with --restore.")
    if left := int(summary.get("not_moved", 0)):
        notes.append(f"{left:,} more were to go and stay: they changed meanwhile, or their folder may not be changed.")
    return Heading(title, shown.about, utc_now(), cards, notes)


def _by_reason(broken: Sequence[BrokenFile]) -> list[BrokenReason]:
    """The broken files as the page shows them: the commonest reason first."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for file in broken:
        paths[file.reason].append(Path(os.path.abspath(file.path)))
    return [BrokenReason(reason, paths[reason]) for reason in sorted(paths, key=lambda r: (-len(paths[r]), r))]


def _group_view(group: DuplicateGroup, shown: Shown) -> GroupView:
    def view(file: PictureFile, traits: Traits, **more: Any) -> MemberView:
        place = shown.moved.get(file.path, file.path)
        source = shown.sources.get(file.sha256, Source())
        return MemberView(
            path=path_as_text(full_path(file)),
            file=place,
            width=traits.width or None,
            height=traits.height or None,
            size_bytes=file.bytes,
            format=traits.format.upper(),
            page_url=source.page_url,
            title=source.title,
            folder=path_as_text(shown.workspace.to_text(file.path.parent)),
            dates=_dates(file, place, source),
            moved=place != file.path,
            **more,
        )

    members = [
        view(m.file, m.traits, kind=m.kind, decision=m.decision, distance=_number(m.distance), reason=m.reason)
        for m in group.members
    ]
    return GroupView(str(group.number), view(group.keeper, group.traits), members)


def _dates(file: PictureFile, place: Path, source: Source) -> str:
    """Returns when a picture was published and taken, as far as that is known, else when its file was written (UTC)."""
    published = source.published[:10] if _ISO_DAY.match(source.published) else source.published
    told = [f"{what} {day}" for what, day in (("published", published), ("taken", day_taken(place))) if day]
    written = datetime.fromtimestamp(file.mtime_ns / 1e9, UTC)
    return ", ".join(told) or f"file of {written:%Y-%m-%d}"


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _size(traits: Traits) -> str:
    return f"{traits.width}x{traits.height} {traits.format}" if traits.pixels else "size unknown"
