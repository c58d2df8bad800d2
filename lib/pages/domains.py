"""The page of step 3: where the pictures come from, with a squarified treemap of the largest domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import squarify as layout

from lib.pages.model import DomainRow, FamilyRow, Heading
from lib.pages.render import EMBED_LIMIT, percent, picture_url, render, thumbnails

BARS = 15  # domains drawn as bars; all of them stand in the table
TILES = 40  # domains drawn in the treemap; the rest is one tile
SAMPLES_SHOWN = 12  # domains with a strip of sample pictures
LARGE = 3  # tiles whose label may be large
SHORTEST = 5  # letters of a name that still tell something
TABLE_ROWS = 2_000  # a browser lays out and sorts this many at once without a pause
SHAPES = {"wide": (1000, 420), "tall": (380, 520)}  # for screens and for phones, so that labels stay legible

GLYPH_WIDTH = 0.68  # of the font size; the mean of a wide sans-serif face, half bold
PADDING = 8.0


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
    workers: int = 1,
) -> str:
    """The page as HTML. `domains` come in descending order of count; `page` is where the page will lie.

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
