"""What pictures can be sorted by: one module a criterion.

A criterion measures a picture once (its result is kept by content and version) and then labels the measure as often as
thresholds change: `label` is pure and takes values only.

    header        what several criteria measure: format and upright size, without decoding
    orientation   landscape, portrait or square
    megapixels    by size, in fixed, coarse, stepped or equally filled buckets
    quality       high, medium or low, by the technical score
    learned       high, medium or low, by metrics of pyiqa, alone or combined
    embedded      what criteria on CLIP's embeddings share
    prompts       keep or drop by prompts, labels of one's own, likeness to the query picture
    topic         clusters of each query, and which of them are the query's subject
    objects       what a detector finds
    vlm           what a vision model answers
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib.quality.measure import Measure
from lib.work.stream import Parallelism

if TYPE_CHECKING:
    from lib.db import Database
    from lib.work.outcome import Result
    from lib.workspace import Workspace

CHUNK = 8  # pictures sent to a worker at once


@dataclass(frozen=True)
class Label:
    """The bucket (a folder's name) that a picture belongs in, with the number and the words that put it there."""

    bucket: str
    score: float | None
    reason: str


class Measures(Protocol):
    """All readable measures of a run, for thresholds that depend on all pictures; read page by page, any number of
    times. The topic also asks the database which query found what."""

    @property
    def db(self) -> Database: ...

    @property
    def workspace(self) -> Workspace: ...

    def __iter__(self) -> Iterator[Measure]: ...


class Criterion(Protocol):
    """How step 7 sorts. `keys` are (metric, version) of the measures it needs, the names they have in the cache."""

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> Sequence[tuple[str, str]]: ...

    def measured(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        """The missing measures by metric, of one decode of each picture; a bad picture is a measure without value."""
        ...

    def join(self, parts: Mapping[str, Measure]) -> Measure:
        """One measure of those of all keys."""
        ...

    def fitted(self, pool: Any) -> Criterion:
        """The criterion with what depends on all pictures (`Measures`) put in; itself where nothing does."""
        ...

    def label(self, measure: Measure) -> Label | None:
        """The bucket of a readable picture; None leaves it where it is."""
        ...

    def buckets(self) -> list[tuple[str, str]]:
        """(bucket, its rule in words), in the order in which they are shown."""
        ...


class SingleMetric:
    """What criteria share that need one measure: `measure` is a module-level function of lib and never raises."""

    metric: str
    version: str

    @property
    def measure(self) -> Callable[[Path], Measure]:
        raise NotImplementedError

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(self.metric, self.version)]

    def measured(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        from lib.work.outcome import Result
        from lib.work.stream import stream

        outcomes = stream(self.measure, paths, executor=spread.executor, workers=spread.workers, chunk=CHUNK)
        try:
            for outcome in outcomes:
                measure = outcome.value or Measure(None, outcome.error)
                yield Result(outcome.item, {self.metric: measure}, "")
        finally:
            outcomes.close()

    def join(self, parts: Mapping[str, Measure]) -> Measure:
        return parts[self.metric]
