"""The page of step 6: groups of repeated pictures, keeper and repeats side by side, to look at and to decide on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.pages.model import DECISIONS, KINDS, GroupView, Heading, MemberView
from lib.pages.render import EMBED_LIMIT, picture_url, render, script_json, thumbnails

GROUP_LIMIT = 5_000  # groups on one page; the JSON and CSV results hold all


@dataclass(frozen=True)
class Shown:
    """A member with what the template needs besides."""

    member: MemberView
    thumb: str
    large: str
    keeper: bool


def render_dedup_report(
    page: Path,
    heading: Heading,
    groups: Sequence[GroupView],
    *,
    run: str = "",
    embed_limit: int = EMBED_LIMIT,
    group_limit: int = GROUP_LIMIT,
    workers: int = 1,
) -> str:
    """The page as HTML. `run` names the run in the decisions file that the page can save.

    The decisions file is JSON: {"version": 1, "run": run, "decisions": [{"group", "keeper", "path", "decision"}]}
    with one entry for every file the person decided on; nothing else changes.
    """
    shown = list(groups[:group_limit])
    files = (member.file for group in shown for member in (group.keeper, *group.members))
    thumbs = thumbnails(files, page, limit=embed_limit, workers=workers)
    views = [_view(group, thumbs, page) for group in shown]
    members = [member for group in shown for member in group.members]
    kinds, decisions = (Counter(getattr(m, name) for m in members) for name in ("kind", "decision"))
    return render(
        "dedup",
        "dedup.js",
        heading=heading,
        groups=views,
        total_groups=len(groups),
        kinds=[(kind, kinds[kind]) for kind in KINDS if kinds[kind]],
        decisions=[(decision, decisions[decision]) for decision in DECISIONS if decisions[decision]],
        data=script_json({"run": run, "key": f"{heading.generated} {run} {len(groups)}"}),
    )


def _view(group: GroupView, thumbs: dict[Path, str], page: Path) -> dict[str, Any]:
    def show(member: MemberView, keeper: bool) -> Shown:
        thumb = thumbs.get(member.file, "") if member.file else ""
        return Shown(member, thumb, picture_url(member.file, page), keeper)

    return {
        "id": group.id,
        "pictures": [show(group.keeper, True), *(show(member, False) for member in group.members)],
        "weakest": max(map(_weakness, group.members), default=0.0),
        "freed": sum(member.size_bytes or 0 for member in group.members if member.decision == "remove"),
    }


def _weakness(member: MemberView) -> float:
    """Returns how doubtful a pair is: first by kind (bytes are proof, a name is a hint), then by distance."""
    rank = KINDS.index(member.kind) if member.kind in KINDS else len(KINDS)
    return rank * 1e6 + (member.distance or 0.0)
