"""Sort by quality: high, medium or low by a score of 0..100.

The technical score needs no weights. A learned score is that of one or several metrics of pyiqa, from one decode of
each picture.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lib.models.device import batched
from lib.models.weights import WeightsFolder
from lib.quality import TECHNICAL_VERSION
from lib.quality.measure import Measure, measure_technical
from lib.sort.criteria import Criterion, Label, SingleMetric
from lib.work import Result
from lib.work.memory import prepare_decoder
from lib.work.stream import Parallelism

if TYPE_CHECKING:
    from lib.models.batches import Seen
    from lib.models.iqa import Learned

# Undamaged photographs score 80 and more (median 90). JPEG quality 75 costs about 15 points, 40 about 45; a blur or
# noise that shows at a glance (standard deviation 2 pixels; 20 grey levels) leaves about 40.
TECHNICAL_HIGH, TECHNICAL_MEDIUM = 70.0, 45.0

# What a learned score means differs from metric to metric; these two are where other pipelines cut MUSIQ.
LEARNED_HIGH, LEARNED_MEDIUM = 65.0, 50.0
COMBINE: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda scores: sum(scores) / len(scores),
    "min": min,
    "max": max,
}
TECHNICAL = "technical"


@dataclass(frozen=True)
class Thresholds:
    """The bounds of high, medium and low, on 0..100; `quantiles` fills the three equally; below `min_score` none."""

    high: float
    medium: float
    min_score: float | None = None
    quantiles: bool = False

    def fit(self, scores: Iterable[float]) -> Thresholds:
        """With `quantiles`: cut between three equal parts of these scores."""
        if not self.quantiles:
            return self
        values = sorted(array("d", scores))
        if not values:
            return self
        return replace(self, medium=values[len(values) // 3], high=values[len(values) * 2 // 3])

    def bucket(self, score: float) -> str | None:
        if self.min_score is not None and score < self.min_score:
            return None
        return "high" if score >= self.high else "medium" if score >= self.medium else "low"

    def rules(self) -> list[tuple[str, str]]:
        return [
            ("high", f"score of at least {self.high:g}"),
            ("medium", f"score from {self.medium:g} to {self.high:g}"),
            ("low", f"score below {self.medium:g}"),
        ]


@dataclass
class ByScore(Criterion):
    """A criterion that cuts a score at thresholds."""

    thresholds: Thresholds

    name = "quality"

    def fit(self, measures: Iterable[Measure]) -> Self:
        scores = (measure.value for measure in measures if measure.value is not None)
        return replace(self, thresholds=self.thresholds.fit(scores))

    def label(self, measure: Measure) -> Label | None:
        score = measure.value or 0.0
        bucket = self.thresholds.bucket(score)
        return Label(bucket, score, measure.reason) if bucket else None

    def buckets(self) -> list[tuple[str, str]]:
        return self.thresholds.rules()


@dataclass
class Quality(ByScore, SingleMetric):
    """By the technical score."""

    metric = TECHNICAL
    version = TECHNICAL_VERSION
    prepare = staticmethod(prepare_decoder)
    decodes = True

    @property
    def measure(self) -> Callable[[Path], Measure]:
        return measure_technical


@dataclass
class LearnedQuality(ByScore):
    """`metrics` by pyiqa's names, `technical` among them if wanted. Loading happens when a picture has to be scored,
    and at once for metrics whose weights only pyiqa knows."""

    metrics: Sequence[str]
    place: WeightsFolder
    device: str = "auto"
    long_side: int = 1024
    combine: str = "mean"
    loaded: dict[str, Learned] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(metric, self._version(metric)) for metric in self.metrics]

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        from lib.models.batches import BatchPipeline, looking

        models = _Several([self._load(metric) for metric in missing if metric != TECHNICAL], self.long_side)
        feed = BatchPipeline(models, looking(self.long_side, technical=TECHNICAL in missing), spread)
        for outcome in feed.outcomes(paths):
            if outcome.value is None:
                yield Result(outcome.item, dict.fromkeys(missing, Measure(None, outcome.error)), "")
                continue
            seen, scores = outcome.value
            found = {metric: _measure(seen, scores.get(metric)) for metric in missing if metric != TECHNICAL}
            if seen.technical is not None:
                found[TECHNICAL] = seen.technical
            yield Result(outcome.item, found, "")

    def join(self, parts: Mapping[str, Measure]) -> Measure:
        for metric in self.metrics:
            if metric not in parts or parts[metric].value is None:
                return replace(parts[metric]) if metric in parts else Measure(None, "not_scored")
        scores = [float(parts[metric].value or 0.0) for metric in self.metrics]
        first = parts[self.metrics[0]]
        words = ", ".join(_in_words(metric, parts[metric]) for metric in self.metrics)
        value = round(COMBINE[self.combine](scores), 3)
        return replace(first, value=value, reason=words, detail={"parts": dict(zip(self.metrics, scores, strict=True))})

    def preflight(self) -> None:
        """Finds all weights. Raises MissingWeights, which says which file to put where."""
        for metric in self.metrics:
            self._version(metric)

    def _version(self, metric: str) -> str:
        if metric == TECHNICAL:
            return TECHNICAL_VERSION
        if metric not in self.versions:
            from lib.models.iqa import known_version

            known = known_version(metric, self.place, self.long_side)
            self.versions[metric] = known or self._load(metric).version
        return self.versions[metric]

    def _load(self, metric: str) -> Learned:
        if metric not in self.loaded:
            from lib.models.iqa import load

            self.loaded[metric] = load(metric, self.place, self.device, self.long_side)
        return self.loaded[metric]


class _Several:
    """Several metrics over the same batch; one that fails for a picture costs the picture that metric only."""

    def __init__(self, models: Sequence[Learned], long_side: int):
        self.models = models
        self.pixels = max((model.pixels for model in models), default=1)

    def key(self, rgb: Any) -> Any:
        return tuple(model.key(rgb) for model in self.models)

    def run(self, pictures: Sequence[Any]) -> list[dict[str, Any]]:
        from lib.models.batches import shrunk
        from lib.models.iqa import LONG_SIDES

        found: list[dict[str, Any]] = [{} for _ in pictures]
        for model in self.models:
            own = [shrunk(rgb, LONG_SIDES.get(model.name)) for rgb in pictures]
            size = len(own) if model.pixels > 1 else 1
            for start in range(0, len(own), size):
                answers = batched(model.run, own[start : start + size])
                for place, answer in enumerate(answers, start):
                    found[place][model.name] = answer if isinstance(answer, Exception) else (answer, model.scale)
        return found


def _measure(seen: Seen, answer: Any) -> Measure:
    if not isinstance(answer, tuple):
        return Measure(None, f"model_failed: {type(answer).__name__}: {answer}"[:300])
    raw, scale = answer
    size = (seen.width, seen.height, seen.format)
    return Measure(round(scale.on_100(raw), 3), "", *size, {"raw": round(raw, 6)})


def _in_words(metric: str, measure: Measure) -> str:
    words = f"{metric} {measure.value:.1f}"
    return f"{words} ({measure.reason})" if metric == TECHNICAL and measure.reason else words
