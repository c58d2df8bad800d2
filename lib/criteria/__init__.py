"""What pictures can be sorted by: one module a criterion.

A criterion measures a picture once (a module-level function for `lib.stream`, its result kept by content and version)
and then labels the measure as often as thresholds change: `label` is pure and takes values only.

    header        what several criteria measure: format and upright size, without decoding
    orientation   landscape, portrait or square
    megapixels    by size, in fixed, coarse, stepped or equally filled buckets
    quality       high, medium or low, by a metric
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Measure:
    """What was measured of one content. `value` is None where it could not be, and `reason` says why.

    `width` and `height` are real and upright; 0 where the header could not be read. `detail` goes into the database as
    JSON and comes back as it was.
    """

    value: float | None
    reason: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Label:
    """The bucket (a folder's name) that a picture belongs in, with the number and the words that put it there."""

    bucket: str
    score: float | None
    reason: str


class Criterion(Protocol):
    """How step 7 sorts. `metric` and `version` name the measure in the cache."""

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def measure(self) -> Callable[[Path], Measure]:
        """A module-level function; it never raises for a bad picture."""
        ...

    def fitted(self, measures: Sequence[Measure]) -> Criterion:
        """The criterion with thresholds that depend on all pictures (quantiles) put in; itself where none do."""
        ...

    def label(self, measure: Measure) -> Label | None:
        """The bucket of a readable picture; None leaves it where it is."""
        ...

    def buckets(self) -> list[tuple[str, str]]:
        """(bucket, its rule in words), in the order in which they are shown."""
        ...
