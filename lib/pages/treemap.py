"""A squarified treemap: rectangles with areas in proportion to values, as close to squares as a greedy pass gets.

The method is that of Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000): rows are filled along the shorter
side for as long as the worst aspect ratio in the row improves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GLYPH_WIDTH = 0.68  # of the font size; the mean of a wide sans-serif face, half bold
PADDING = 8.0


@dataclass(frozen=True)
class Tile:
    """One rectangle in the units of the drawing; `index` is that of its value."""

    index: int
    x: float
    y: float
    width: float
    height: float

    def fits(self, text: str, size: float, lines: int = 1) -> bool:
        """Whether `lines` lines of text of this font size have room inside."""
        wide = len(text) * size * GLYPH_WIDTH + 2 * PADDING <= self.width
        return wide and lines * size * 1.3 + PADDING <= self.height


def squarify(values: Sequence[float], width: float, height: float) -> list[Tile]:
    """Tiles for positive values in descending order, filling `width` x `height`; [] for none."""
    total = sum(values)
    if total <= 0:
        return []
    areas = [value * width * height / total for value in values]
    tiles: list[Tile] = []
    x = y = 0.0
    start = 0
    while start < len(areas):
        side = min(width, height)
        end = _row_end(areas, start, side)
        row = areas[start:end]
        thickness = sum(row) / side if side else 0.0
        along = 0.0
        for offset, area in enumerate(row):
            length = area / thickness if thickness else 0.0
            if width >= height:
                tiles.append(Tile(start + offset, x, y + along, thickness, length))
            else:
                tiles.append(Tile(start + offset, x + along, y, length, thickness))
            along += length
        if width >= height:
            x, width = x + thickness, max(0.0, width - thickness)
        else:
            y, height = y + thickness, max(0.0, height - thickness)
        start = end
    return tiles


def _row_end(areas: Sequence[float], start: int, side: float) -> int:
    """The first index that no longer belongs in the row that starts at `start`."""
    best = float("inf")
    total, high, low = 0.0, 0.0, float("inf")
    for end in range(start, len(areas)):
        total, high, low = total + areas[end], max(high, areas[end]), min(low, areas[end])
        square = total * total
        worst = max(side * side * high / square, square / (side * side * low)) if square and side and low else best
        if worst > best:
            return end
        best = worst
    return len(areas)
