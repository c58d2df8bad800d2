"""Pictures on their way to a model: decoded once, in worker processes, while the model runs on the batch before.

The queue between the two is bounded by the stream's chunks in flight, so that memory stays flat; a picture that kills
its worker comes out of the stream as a reason.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lib.models.device import batched
from lib.quality.measure import Measure, technical_of
from lib.work import Result
from lib.work.memory import prepare_decoder
from lib.work.stream import Parallelism, stream

CHUNK = 4  # pictures sent to a decoding worker at once: a megapixel picture is 3 MB on the way back
MOST_IN_BATCH = 256
LEAST_WORKERS = 2  # with one the stream would decode in this process


@dataclass(frozen=True)
class Seen:
    """A decoded picture: `rgb` uint8 (height, width, 3), upright, reduced; the size and format are the file's.

    `technical` is the weight-free measure of the same decode, where that was asked for.
    """

    rgb: np.ndarray
    width: int
    height: int
    format: str
    technical: Measure | None = None


Group = list[tuple[Path, Seen]]  # pictures of one key that wait for the model


class Model(Protocol):
    """A model that a pipeline runs. Pictures of different keys are never in one batch."""

    @property
    def pixels(self) -> int:
        """The number of pixels that make a batch."""
        ...

    def key(self, rgb: np.ndarray) -> Hashable: ...

    def run(self, pictures: Sequence[np.ndarray]) -> Sequence[Any]: ...


@dataclass
class BatchPipeline:
    """Runs a model over files; afterwards it knows how long the model ran and how long it waited, in seconds."""

    model: Model
    look: Callable[[Path], Seen | Measure]
    parallelism: Parallelism = field(default_factory=Parallelism)
    running: float = 0.0
    waiting: float = 0.0

    def outcomes(self, paths: Iterable[Path]) -> Iterator[Result[Path, tuple[Seen, Any]]]:
        """One result a path, in no order: the picture with the model's answer, or why there is none."""
        groups: dict[Hashable, Group] = defaultdict(list)
        held = 0
        with closing(self._decoded(paths)) as source:
            for result in source:
                seen = result.value
                if not isinstance(seen, Seen):
                    yield Result(result.item, None, result.error if seen is None else seen.reason)
                    continue
                group = groups[key := self.model.key(seen.rgb)]
                group.append((result.item, seen))
                held += _pixels(seen)
                if many := held > 4 * self.model.pixels:  # many sizes: the fullest group goes, to bound the memory
                    key = max(groups, key=lambda k: _total(groups[k]))
                if many or len(group) >= MOST_IN_BATCH or _total(group) >= self.model.pixels:
                    ready = groups.pop(key)
                    held -= _total(ready)
                    yield from self._run(ready)
            for group in groups.values():
                yield from self._run(group)

    def _decoded(self, paths: Iterable[Path]) -> Any:
        # Never in this process: decoding overlaps with the model, and a file that kills its decoder must not take the
        # model and what it has judged along.
        workers = max(LEAST_WORKERS, self.parallelism.workers)
        with closing(
            stream(
                self.look, paths, executor=self.parallelism.executor, workers=workers, chunk=CHUNK, init=prepare_decoder
            )
        ) as results:
            while True:
                started = time.perf_counter()
                result = next(results, None)
                self.waiting += time.perf_counter() - started
                if result is None:
                    return
                yield result

    def _run(self, group: Group) -> Iterator[Result[Path, tuple[Seen, Any]]]:
        started = time.perf_counter()
        answers: list[Any] = []
        while len(answers) < len(group):  # a group may have outgrown a batch while others were filled
            part = group[len(answers) : len(answers) + self._fitting(group[len(answers) :])]
            answers += batched(self.model.run, [seen.rgb for _, seen in part])
        self.running += time.perf_counter() - started
        for (path, seen), answer in zip(group, answers, strict=True):
            if isinstance(answer, Exception):
                yield Result(path, None, f"model_failed: {type(answer).__name__}: {answer}"[:300])
            else:
                yield Result(path, (seen, answer), "")

    def _fitting(self, group: Group) -> int:
        """The number of pictures from the beginning of the group that make a batch, one at least."""
        room = self.model.pixels
        for count, (_, seen) in enumerate(group[:MOST_IN_BATCH]):
            room -= _pixels(seen)
            if room < 0:
                return max(1, count)
        return min(len(group), MOST_IN_BATCH)


def looking(long_side: int | None, *, technical: bool = False) -> Callable[[Path], Seen | Measure]:
    """The function that a decoding worker runs for a path; it can be sent to another process."""
    return partial(look, long_side=long_side, technical=technical)


def look(path: Path, long_side: int | None, technical: bool) -> Seen | Measure:
    """One decode of a picture, reduced to the long side; the reason why not, as a measure without value.

    With `technical` the signals are measured on the original pixels of the same decode before it is reduced.
    """
    from lib.images.decode import DecodeError, decode

    try:
        if technical:
            picture, measure = technical_of(path)
            rgb = shrunk(picture.rgb, long_side)
        else:
            picture, measure = decode(path, long_side=long_side, background=None), None
            rgb = picture.rgb
    except DecodeError as error:
        return Measure(None, error.reason)
    width, height = picture.header.upright_size
    return Seen(rgb, width, height, picture.header.format, measure)


def shrunk(rgb: np.ndarray, long_side: int | None) -> np.ndarray:
    """The picture with at most this long side, as `lib.images.decode` reduces it; uint8 (height, width, 3)."""
    if not long_side or max(rgb.shape[:2]) <= long_side:
        return rgb
    from PIL import Image, ImageOps

    small = ImageOps.contain(Image.fromarray(rgb), (long_side, long_side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def _pixels(seen: Seen) -> int:
    return seen.rgb.shape[0] * seen.rgb.shape[1]


def _total(group: Group) -> int:
    return sum(_pixels(seen) for _, seen in group)
