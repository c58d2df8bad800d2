"""Sort by real size in megapixels: only the header is read."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.criteria import Label, Measure, OneMeasure, header

STRATEGIES = ("fixed", "coarse", "step", "quantiles")
DEFAULT_EDGES = (0.5, 2.0, 8.0)
# Small is what a page shows, large what a camera of the last fifteen years takes.
COARSE_EDGES, COARSE_NAMES = (1.0, 4.0), ("small", "medium", "large")


@dataclass(frozen=True)
class Megapixels(OneMeasure):
    """`edges` in megapixels, ascending, for `fixed`; `step` in megapixels; `parts` equal parts for `quantiles`."""

    strategy: str = "fixed"
    edges: tuple[float, ...] = DEFAULT_EDGES
    step: float = 1.0
    parts: int = 4

    name = "megapixels"
    metric = header.METRIC
    version = header.VERSION

    @property
    def measure(self) -> Callable[[Path], Measure]:
        return header.measure

    def fitted(self, pool: Iterable[Measure]) -> Megapixels:
        """For `quantiles`: edges between equal parts of these pictures. A size is never split over two parts."""
        if self.strategy != "quantiles":
            return self
        values = sorted(array("d", (measure.value for measure in pool if measure.value is not None)))
        cuts = [values[len(values) * part // self.parts] for part in range(1, self.parts)] if values else []
        return replace(self, edges=tuple(dict.fromkeys(cuts)))

    def label(self, measure: Measure) -> Label:
        value = measure.value or 0.0
        reason = f"{measure.width}x{measure.height}, {value:.2f} megapixels"
        return Label(self._bucket(value), round(value, 4), reason)

    def _bucket(self, value: float) -> str:
        if self.strategy == "coarse":
            return COARSE_NAMES[bisect_right(COARSE_EDGES, value)]
        if self.strategy == "step":
            # Divided and multiplied by whole numbers of steps: adding up 0.1 drifts.
            number = int(value / self.step + 1e-9)
            return f"{number * self.step:g}-{(number + 1) * self.step:g}mp"
        part = bisect_right(self.edges, value)
        return f"part_{part + 1}" if self.strategy == "quantiles" else _span(self.edges, part)

    def buckets(self) -> list[tuple[str, str]]:
        """All buckets but those of `step`, which are as many as the pictures need."""
        if self.strategy == "step":
            return []
        edges = COARSE_EDGES if self.strategy == "coarse" else self.edges
        samples = [0.0, *edges]
        return [(self._bucket(value), _rule(edges, part)) for part, value in enumerate(samples) if value or not part]


def _span(edges: Sequence[float], part: int) -> str:
    low = edges[part - 1] if part else 0
    return f"{low:g}-{edges[part]:g}mp" if part < len(edges) else f"{low:g}mp_and_more"


def _rule(edges: Sequence[float], part: int) -> str:
    if part == len(edges):
        return f"{edges[-1]:g} megapixels and more" if edges else "all sizes"
    return (
        f"from {edges[part - 1]:g} to {edges[part]:g} megapixels"
        if part
        else f"less than {edges[0]:g} megapixel{'' if edges[0] == 1 else 's'}"
    )
