"""The criteria that pictures are sorted by; criteria that share their measures share a module.

A criterion measures a picture once; its result is kept by content and version. It then labels the measure as often as
thresholds change: `label` is pure and takes values only.

    sizes      orientation (landscape, portrait or square) and megapixels: format and upright size, without decoding
    quality    high, medium or low, by the technical score or by metrics of pyiqa, alone or combined
    prompts    what criteria on CLIP's embeddings share, and filter: keep or drop by prompts, labels of one's own
    topic      clusters of each query, and which of them are the query's subject
    judges     what a detector finds, and what a vision model answers
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lib.db import Context
from lib.images.formats import HEAD_BYTES, TRUSTED, plugin_of
from lib.quality.measure import Measure
from lib.work import Result
from lib.work.stream import Parallelism, stream

CHUNK = 8  # pictures sent to a worker at once


@dataclass(frozen=True)
class Label:
    """The bucket (a folder's name) that a picture belongs in, with the number and the words that put it there."""

    bucket: str
    score: float | None
    reason: str


class AllMeasures(Protocol):
    """All readable measures of a run, for thresholds that depend on all pictures. They are read page by page, any
    number of times. The topic also asks the database which query found what."""

    @property
    def context(self) -> Context: ...

    def __iter__(self) -> Iterator[Measure]: ...

    def pages(self) -> Iterator[dict[str, Measure]]: ...

    def vectors(self, metric: str, version: str, contents: Sequence[str]) -> dict[str, bytes]: ...


class Criterion:
    """A way to sort. `keys` are (metric, version) of the measures it needs, the names they have in the cache.

    `clusters` is filled by a criterion that shows its pictures in clusters on a page of their own. `tries` bounds the
    runs in which an answer is asked for that others get.
    """

    name: str
    tries: int = 1
    clusters: Sequence[Any] = ()

    @property
    def clustered(self) -> int:
        """Pictures in any cluster; one that lies in several counts once."""
        return 0

    @property
    def keys(self) -> Sequence[tuple[str, str]]:
        raise NotImplementedError

    def preflight(self) -> None:
        """Finds what measuring needs, such as weights, before anything is done."""

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        """The missing measures by metric, of one decode of each picture; a bad picture is a measure without value."""
        raise NotImplementedError

    def join(self, parts: Mapping[str, Measure]) -> Measure:
        """One measure of those of all keys."""
        return parts[self.keys[0][0]]

    def fit(self, measures: Any) -> Criterion:
        """The criterion with what depends on all pictures (`AllMeasures`) put in; itself where nothing does."""
        return self

    def label(self, measure: Measure) -> Label | None:
        """The bucket of a readable picture; None leaves it where it is."""
        raise NotImplementedError

    def buckets(self) -> list[tuple[str, str]]:
        """(bucket, its rule in words), in the order in which they are shown."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Further lines for stdout."""
        return []

    def report(self) -> dict[str, Any]:
        """Further entries of the JSON and the page, besides the pictures."""
        return {}


class SingleMetric(Criterion):
    """A criterion that needs one measure: `measure` is a module-level function of lib and never raises."""

    metric: str
    version: str
    prepare: Callable[[], None] | None = None  # called once in every worker process
    decodes: bool = False  # more than the header: a codec may then end the process that it works in

    @property
    def measure(self) -> Callable[[Path], Measure]:
        raise NotImplementedError

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(self.metric, self.version)]

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        apart: list[Path] = []
        if self.decodes and spread.executor == "local" and spread.workers <= 1:
            paths = _trusted(paths, apart)
        yield from self._measured(paths, spread.executor, spread.workers)
        if apart:
            yield from self._measured(apart, "processes", 1)

    def _measured(
        self, paths: Iterable[Path], executor: str, workers: int
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        outcomes = stream(self.measure, paths, executor=executor, workers=workers, chunk=CHUNK, init=self.prepare)
        with closing(outcomes):
            for outcome in outcomes:
                measure = outcome.value or Measure(None, outcome.error)
                yield Result(outcome.item, {self.metric: measure}, "")


def _trusted(paths: Iterable[Path], apart: list[Path]) -> Iterator[Path]:
    """The files that this process may decode itself; `apart` gets the others."""
    for path in paths:
        try:
            with path.open("rb") as file:
                plugin = plugin_of(file.read(HEAD_BYTES))[0]
        except OSError:  # measuring it tells the reason
            plugin = ""
        if plugin and plugin not in TRUSTED:
            apart.append(path)
        else:
            yield path
