"""Sort by what a picture's header says: orientation, as a viewer shows it (EXIF is honoured), and size in megapixels.

Reading a header costs a tenth of a millisecond; nothing is decoded.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.quality.measure import Measure
from lib.sort.criteria import Label, SingleMetric

SQUARES = ("separate", "landscape", "portrait")

STRATEGIES = ("fixed", "coarse", "step", "quantiles")
DEFAULT_EDGES = (0.5, 2.0, 8.0)
# Small is what a page shows, large what a camera of the last fifteen years takes.
COARSE_EDGES, COARSE_NAMES = (1.0, 4.0), ("small", "medium", "large")


def measure(path: Path) -> Measure:
    """The upright size in pixels; `value` is the size in megapixels."""
    from lib.images.decode import DecodeError, read_header

    try:
        header = read_header(path)
    except DecodeError as error:
        return Measure(None, error.reason)
    width, height = header.upright_size
    detail = {"frames": header.frames, "orientation": header.orientation, "mode": header.mode}
    return Measure(width * height / 1e6, "", width, height, header.format, detail)


class _Header(SingleMetric):
    metric = "header"
    version = "header-1"

    @property
    def measure(self) -> Callable[[Path], Measure]:
        return measure


@dataclass(frozen=True)
class Orientation(_Header):
    """`tolerance`: by which share the longer side may exceed the shorter in a square; `square`: where squares go."""

    square: str = "separate"
    tolerance: float = 0.02

    name = "orientation"

    def label(self, measure: Measure) -> Label:
        ratio = measure.width / measure.height
        if max(ratio, 1 / ratio) <= 1 + self.tolerance:
            bucket = "square" if self.square == "separate" else self.square
        else:
            bucket = "landscape" if ratio > 1 else "portrait"
        return Label(bucket, round(ratio, 4), f"{measure.width}x{measure.height}, ratio {ratio:.2f}")

    def buckets(self) -> list[tuple[str, str]]:
        square = ("square", f"sides equal within {100 * self.tolerance:g} %")
        named = [("landscape", "wider than high"), ("portrait", "higher than wide")]
        return [*named, square] if self.square == "separate" else named


@dataclass(frozen=True)
class Megapixels(_Header):
    """`edges` in megapixels, ascending, for `fixed`; `step` in megapixels; `parts` equal parts for `quantiles`."""

    strategy: str = "fixed"
    edges: tuple[float, ...] = DEFAULT_EDGES
    step: float = 1.0
    parts: int = 4

    name = "megapixels"

    def fit(self, measures: Iterable[Measure]) -> Megapixels:
        """For `quantiles`: edges between equal parts of these pictures. A size is never split over two parts."""
        if self.strategy != "quantiles":
            return self
        values = sorted(array("d", (measure.value for measure in measures if measure.value is not None)))
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
