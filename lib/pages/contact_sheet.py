"""The page of step 7: every bucket of a criterion with its pictures, scores and reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.pages.model import Bucket, Heading, SheetItem
from lib.pages.render import EMBED_LIMIT, picture_url, render, thumbnails

ITEM_LIMIT = 5_000  # pictures on one page, shared out evenly over the buckets; metadata.jsonl holds all
LEVELS = 6  # tints of the distribution bar


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
    embed_limit: int = EMBED_LIMIT,
    item_limit: int = ITEM_LIMIT,
    workers: int = 1,
) -> str:
    """The page as HTML. Items of a bucket that is not listed get a bucket of their own at the end."""
    listed = {bucket.name for bucket in buckets}
    extra = dict.fromkeys(item.bucket for item in items if item.bucket not in listed)
    ordered = [*buckets, *(Bucket(name) for name in extra)]
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
        heading=heading,
        sections=sections,
        shown=sum(map(len, chosen)),
        total=sum(counts),
        has_scores=any(item.score is not None for item in items),
        score=_score_text([item.score for part in chosen for item in part if item.score is not None]),
    )


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
