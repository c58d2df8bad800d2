"""The pages of steps 3, 6 and 7: plain values in, HTML out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import squarify as layout

from lib.pages.model import (
    DECISIONS,
    KINDS,
    BrokenReason,
    Bucket,
    DomainRow,
    FamilyRow,
    GroupView,
    Heading,
    MemberView,
    SheetItem,
)
from lib.pages.render import percent, picture_url, render, script_json
from lib.pages.thumbnails import EMBED_LIMIT, thumbnails
from lib.text import escape_controls, path_as_text

BARS = 15  # domains drawn as bars; all of them stand in the table
TILES = 40  # domains drawn in the treemap; the rest is one tile
SAMPLES_SHOWN = 12  # domains with a strip of sample pictures
LARGE = 3  # tiles whose label may be large
SHORTEST = 5  # letters of a name that still tell something
TABLE_ROWS = 2_000  # a browser lays out and sorts this many at once without a pause
SHAPES = {"wide": (1000, 420), "tall": (380, 520)}  # for screens and for phones, so that labels stay legible

GLYPH_WIDTH = 0.68  # of the font size; the mean of a wide sans-serif face, half bold
PADDING = 8.0

PAGE_GROUPS = 100  # groups seen at once on the page of step 6: some 300 pictures, laid out in a moment
GROUP_LIMIT = 5_000  # groups on the page of step 6; its JSON and CSV hold all
BROKEN_LIMIT = 2_000  # files that could not be compared on the page of step 6, shared out evenly over the reasons
OPEN_UP_TO = 6  # of them are seen at once; more are folded, so that the groups are not far below
REASONS = {
    "truncated": "The data end before the picture does.",
    "undecodable": "The decoder or a checksum says that the data are damaged.",
    "not_an_image": "The bytes are no picture, whatever the name says.",
    "unsupported_format": "A picture in a format that is not read.",
    "too_many_pixels": "More pixels than are decoded.",
    "too_many_frames": "More frames or pages than are decoded.",
    "too_many_parts": "More beginnings of pictures in one file than there can be.",
    "too_large": "A larger file than is read.",
    "out_of_memory": "There was not enough memory; the next run tries again.",
    "missing_file": "The file went away during the run.",
    "unreadable_file": "The file may not be read, or the disk failed; the next run tries again.",
    "unreadable_folder": "The folder may not be read, and nothing in it was.",
    "name_not_utf8": "The name is no UTF-8 text; rename the file.",
    "worker_killed": "Decoding it ended the process; the next run tries again.",
    "needs_pillow_heif": "HEIC is read with pip install pillow-heif.",
    "needs_pillow_jxl": "JPEG XL is read with pip install pillow-jxl-plugin.",
}
ITEM_LIMIT = 5_000  # pictures on the page of step 7, shared out evenly over the buckets; metadata.jsonl holds all
LEVELS = 6  # tints of the distribution bar


def render_domain_report(
    page: Path,
    heading: Heading,
    domains: Sequence[DomainRow],
    families: Sequence[FamilyRow] = (),
    *,
    noun: str = "domain",
    plural: str = "domains",
    named: int | None = None,
    embed_limit: int = EMBED_LIMIT,
    workers: int = 0,
) -> str:
    """The page of step 3. `domains` come in descending order of count; `page` is where the page will lie.

    `noun` and `plural` say what a row is where it is no domain: a licence, an engine, a search. `named` is how many of
    those there are, where not all of them have a row.
    """
    sampled = [row for row in domains if row.samples][:SAMPLES_SHOWN]
    thumbs = thumbnails((f for row in sampled for f in row.samples), page, limit=embed_limit, workers=workers)
    samples = [
        (row, [(thumbs[file], picture_url(file, page)) for file in row.samples if thumbs[file]]) for row in sampled
    ]
    return render(
        "domains",
        "domains.js",
        page,
        heading=heading,
        noun=noun,
        plural=plural,
        bars=domains[:BARS],
        most=max((row.count for row in domains), default=1) or 1,
        rows=domains[:TABLE_ROWS],
        named=sum(row.named for row in domains) if named is None else named,
        named_rows=sum(row.named for row in domains),
        total_rows=len(domains),
        families=families,
        family_most=max((row.count for row in families), default=1) or 1,
        treemaps={name: treemap(domains, *size, plural) for name, size in SHAPES.items()},
        shapes=SHAPES,
        samples=samples,
        has_services=any(row.family for row in domains),
        has_engines=any(row.engines for row in domains),
        has_unique=any(row.unique is not None for row in domains),
        has_downloads=any(row.downloaded is not None or row.failed is not None for row in domains),
        has_sizes=any(row.median_size for row in domains),
    )


def treemap(domains: Sequence[DomainRow], width: int, height: int, plural: str = "domains") -> list[dict[str, Any]]:
    """Tiles with what to write on them, for the template; labels only where they fit."""
    # Rank decides the tint: the first three strong, the next seven lighter, the rest lightest.
    first = [row for row in domains[:TILES] if row.count > 0]
    levels = [(1 if rank < 3 else 2 if rank < 10 else 3) if row.named else 4 for rank, row in enumerate(first)]
    entries = [(row.domain, level, row.count) for row, level in zip(first, levels, strict=True)]
    rest = [row.count for row in domains[TILES:]]
    if sum(rest):
        entries.append((f"{len(rest)} more {plural}", 4, sum(rest)))
    total = sum(count for _, _, count in entries) or 1
    entries.sort(key=lambda entry: -entry[2])
    tiles = squarify([count for _, _, count in entries], width, height)
    return [_labelled(tile, *entries[tile.index], total) for tile in tiles]


def _labelled(tile: Tile, name: str, level: int, count: int, total: int) -> dict[str, Any]:
    share = percent(count / total)
    # A small tile never shouts louder than a large one.
    sizes = (20, 15, 12, 10) if tile.index < LARGE else (14, 12, 10)
    size, label = next(((size, name) for size in sizes if tile.fits(name, size)), (0, name))
    if not size:
        size, label = _shortened(tile, name)
    return {
        "tile": tile,
        "name": name,
        "label": label,
        "count": count,
        "share": share,
        "size": size,
        "second": bool(size) and tile.fits(share, 13, lines=3),
        "level": level,
    }


def _shortened(tile: Tile, name: str) -> tuple[int, str]:
    """The smallest size with as much of the name as fits; size 0 where too little would be left to tell.

    Names of sites are told by how they begin, paths by how they end.
    """
    for length in range(min(len(name), 60), SHORTEST - 1, -1):
        if tile.fits(label := "…" + name[-length:] if "/" in name else name[:length] + "…", 12):
            return 12, label
    return 0, name


@dataclass(frozen=True)
class Tile:
    """One rectangle in the units of the drawing; `index` is that of its value."""

    index: int
    x: float
    y: float
    width: float
    height: float

    def fits(self, text: str, size: float, lines: int = 1) -> bool:
        """True where `lines` lines of text of this font size have room inside."""
        wide = len(text) * size * GLYPH_WIDTH + 2 * PADDING <= self.width
        return wide and lines * size * 1.3 + PADDING <= self.height


def squarify(values: Sequence[float], width: float, height: float) -> list[Tile]:
    """Tiles for values in descending order, filling `width` x `height`; one that is 0 has none."""
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    areas = layout.normalize_sizes(positive, width, height)
    found = layout.squarify(areas, 0.0, 0.0, width, height)
    return [Tile(index, tile["x"], tile["y"], tile["dx"], tile["dy"]) for index, tile in enumerate(found)]


def render_dedup_report(
    page: Path,
    heading: Heading,
    groups: Sequence[GroupView],
    *,
    run: str = "",
    embed_limit: int = EMBED_LIMIT,
    group_limit: int = GROUP_LIMIT,
    workers: int = 0,
    broken: Sequence[BrokenReason] = (),
    broken_limit: int = BROKEN_LIMIT,
    total_groups: int | None = None,
    again: Sequence[str] = (),
    restore: Sequence[str] = (),
    key: str = "",
) -> str:
    """The page of step 6. `run` names the run in the decisions file that the page can save.

    `again` are the words of the command that follows decisions, `restore` those of the one that brings single pictures
    back. `key` is that of the page which this one replaces: choices that are kept under it stay. `total_groups` is
    their number where not all are given.

    `broken` are the files that could not be compared, at most `broken_limit` of which are shown.

    The decisions file is JSON: {"version": 1, "run": run, "decisions": [{"group", "keeper", "path", "decision"}]}
    with one entry for every file the person decided on; nothing else changes. A decision is `remove`, `review`, `keep`
    (also: bring it back) or `keeper` (it takes the place of the keeper, which goes).
    """
    shown = list(groups[:group_limit])
    files = (member.file for group in shown for member in (group.keeper, *group.members))
    thumbs = thumbnails(files, page, limit=embed_limit, workers=workers)
    members = [member for group in shown for member in group.members]
    kinds, decisions = (Counter(getattr(m, name) for m in members) for name in ("kind", "decision"))
    return render(
        "dedup",
        "dedup.js",
        page,
        heading=heading,
        groups=[_view(group, thumbs, page) for group in shown],
        total_groups=total_groups or len(groups),
        page_size=PAGE_GROUPS,
        kinds=[(kind, kinds[kind]) for kind in KINDS if kinds[kind]],
        decisions=[(decision, decisions[decision]) for decision in DECISIONS if decisions[decision]],
        data=script_json(
            {
                "run": run,
                "about": heading.subtitle,
                "key": key or f"{heading.generated} {run} {len(groups)}",
                "page_size": PAGE_GROUPS,
                "again": list(again),
                "restore": list(restore),
                "windows": os.name == "nt",
            }
        ),
        broken=_broken_views(broken, page, broken_limit),
        total_broken=(total := sum(len(one.files) for one in broken)),
        broken_open=total <= OPEN_UP_TO,
    )


def _broken_views(broken: Sequence[BrokenReason], page: Path, limit: int) -> list[dict[str, Any]]:
    """The reasons with (folder, name, link) of the files shown of each; rare reasons stay whole."""
    room, shown = limit, dict[str, Sequence[Path]]()
    for place, one in enumerate(sorted(broken, key=lambda one: len(one.files))):
        shown[one.reason] = one.files[: room // (len(broken) - place)]
        room -= len(shown[one.reason])

    def text(part: str) -> str:
        return escape_controls(path_as_text(part).replace("\n", "\\x0a").replace("\t", "\\x09"))

    return [
        {
            "reason": one.reason,
            "note": REASONS.get(one.reason, ""),
            "count": len(one.files),
            "files": [(text(f"{f.parent}/"), text(f.name), picture_url(f, page)) for f in shown[one.reason]],
        }
        for one in broken
    ]


def _view(group: GroupView, thumbs: dict[Path, str], page: Path) -> dict[str, Any]:
    pictures = [
        {
            "member": member,
            "thumb": thumbs.get(member.file, "") if member.file else "",
            "large": picture_url(member.file, page),
            "keeper": member is group.keeper,
        }
        for member in (group.keeper, *group.members)
    ]
    return {
        "id": group.id,
        "pictures": pictures,
        "weakest": max(map(_weakness, group.members), default=0.0),
        "freed": sum(member.size_bytes or 0 for member in group.members if member.decision == "remove"),
    }


def _weakness(member: MemberView) -> float:
    """Returns how doubtful a pair is: first by kind (bytes are proof, a name is a hint), then by distance."""
    rank = KINDS.index(member.kind) if member.kind in KINDS else len(KINDS)
    return rank * 1e6 + (member.distance or 0.0)


@dataclass(frozen=True)
class Section:
    """A bucket with the pictures that are shown of it: (item, thumbnail, link)."""

    bucket: Bucket
    count: int
    share: float
    level: int
    items: list[tuple[SheetItem, str, str]]


def render_contact_sheet(
    page: Path,
    heading: Heading,
    buckets: Sequence[Bucket],
    items: Sequence[SheetItem],
    *,
    total: int | None = None,
    rest: str = "metadata.jsonl in each folder lists all",
    embed_limit: int = EMBED_LIMIT,
    item_limit: int = ITEM_LIMIT,
    workers: int = 0,
) -> str:
    """The page of step 7. Items of a bucket that is not listed get a bucket of their own at the end.

    A file is shown once, in the first bucket that has it. `total` is the number of pictures where some are in several
    buckets; `rest` says where those stand that are not shown.
    """
    first = {item.file: item for item in reversed(items)}
    items = [item for item in items if item.file is None or first[item.file] is item]
    ordered = _one_of_each_name([*buckets, *(Bucket(item.bucket) for item in items)])
    given = Counter(item.bucket for item in items)
    counts = [given[bucket.name] if bucket.count is None else bucket.count for bucket in ordered]
    chosen = _share_out(ordered, items, item_limit)
    files = (item.file for part in chosen for item in part)
    thumbs = thumbnails(files, page, limit=embed_limit, workers=workers)
    sections = []
    for place, (bucket, count, part) in enumerate(zip(ordered, counts, chosen, strict=True)):
        shown = [(i, thumbs.get(i.file, "") if i.file else "", picture_url(i.file, page)) for i in part]
        sections.append(Section(bucket, count, count / (sum(counts) or 1), place % LEVELS + 1, shown))
    return render(
        "sheet",
        "sheet.js",
        page,
        heading=heading,
        sections=sections,
        shown=sum(map(len, chosen)),
        total=sum(counts) if total is None else total,
        rest=rest,
        several=sum(count > 0 for count in counts) > 1,
        has_scores=any(item.score is not None for item in items),
        has_dates=any(item.published or item.first_seen for item in items),
        score=_score_text([item.score for part in chosen for item in part if item.score is not None]),
    )


def _one_of_each_name(buckets: Iterable[Bucket]) -> list[Bucket]:
    """Buckets as they come; the first of a name stands for all of that name."""
    found: dict[str, Bucket] = {}
    for bucket in buckets:
        known = found.setdefault(bucket.name, bucket)
        if known is not bucket and bucket.count:
            found[bucket.name] = replace(known, count=(known.count or 0) + bucket.count)
    return list(found.values())


def _score_text(scores: Sequence[float]) -> Callable[[float], str]:
    """Writes the scores of this page: counts as they are, others with as many digits as the largest needs."""
    if all(score == int(score) for score in scores):
        return lambda score: f"{score:,.0f}"
    digits = 1 if max(map(abs, scores), default=0.0) >= 10 else 2
    return lambda score: f"{score:,.{digits}f}"


def _share_out(buckets: Sequence[Bucket], items: Sequence[SheetItem], limit: int) -> list[list[SheetItem]]:
    """The items of each bucket, cut so that all together stay within `limit` and small buckets stay whole."""
    parts: dict[str, list[SheetItem]] = {bucket.name: [] for bucket in buckets}
    for item in items:
        parts[item.bucket].append(item)
    room = limit
    smallest_first = sorted(parts, key=lambda name: len(parts[name]))
    for place, name in enumerate(smallest_first):
        parts[name] = parts[name][: room // (len(parts) - place)]
        room -= len(parts[name])
    return [parts[bucket.name] for bucket in buckets]
