"""Sort by orientation as a viewer shows it: EXIF is honoured, and only the header is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.criteria import Label, Measure, OneMeasure, header

SQUARES = ("separate", "landscape", "portrait")


@dataclass(frozen=True)
class Orientation(OneMeasure):
    """`tolerance`: by which share the longer side may exceed the shorter in a square; `square`: where squares go."""

    square: str = "separate"
    tolerance: float = 0.02

    name = "orientation"
    metric = header.METRIC
    version = header.VERSION

    @property
    def measure(self) -> Callable[[Path], Measure]:
        return header.measure

    def fitted(self, pool: Any) -> Orientation:
        return self

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
