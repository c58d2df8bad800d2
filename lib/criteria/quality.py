"""Sort by quality: high, medium or low by a metric's score of 0..100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lib.criteria import Label, Measure
from lib.quality import TECHNICAL_VERSION

# Above this size a picture is judged on a decode of at most LONG_SIDE: 24 megapixels as RGB take 72 MB in each worker.
WHOLE_PIXELS = 24_000_000
LONG_SIDE = 4096


@dataclass(frozen=True)
class Metric:
    """A metric by name. `high` and `medium` are its own default thresholds, on 0..100."""

    name: str
    version: str
    measure: Callable[[Path], Measure]
    high: float
    medium: float


@dataclass(frozen=True)
class Quality:
    """Thresholds on a metric's score; `quantiles` fills three buckets equally instead; below `min_score` none."""

    metric_used: Metric
    high: float
    medium: float
    min_score: float | None = None
    quantiles: bool = False

    name = "quality"

    @property
    def metric(self) -> str:
        return self.metric_used.name

    @property
    def version(self) -> str:
        return self.metric_used.version

    @property
    def measure(self) -> Callable[[Path], Measure]:
        return self.metric_used.measure

    def fitted(self, measures: Sequence[Measure]) -> Quality:
        """With `quantiles`: thresholds between three equal parts of these pictures."""
        if not self.quantiles:
            return self
        values = sorted(measure.value for measure in measures if measure.value is not None)
        if not values:
            return self
        return replace(self, medium=values[len(values) // 3], high=values[len(values) * 2 // 3])

    def label(self, measure: Measure) -> Label | None:
        score = measure.value or 0.0
        if self.min_score is not None and score < self.min_score:
            return None
        bucket = "high" if score >= self.high else "medium" if score >= self.medium else "low"
        return Label(bucket, score, measure.reason)

    def buckets(self) -> list[tuple[str, str]]:
        return [
            ("high", f"score of at least {self.high:g}"),
            ("medium", f"score from {self.medium:g} to {self.high:g}"),
            ("low", f"score below {self.medium:g}"),
        ]


def measure_technical(path: Path) -> Measure:
    """The weight-free score of one picture, from one decode of its original pixels (of its first frame)."""
    from lib.decode import DecodeError, decode, read_header
    from lib.quality.jpeg_tables import quality_of_file
    from lib.quality.score import judge
    from lib.quality.signals import measure_signals

    try:
        header = read_header(path)
        long_side = LONG_SIDE if header.width * header.height > WHOLE_PIXELS else None
        picture = decode(path, long_side=long_side)
    except DecodeError as error:
        return Measure(None, error.reason)
    jpeg = quality_of_file(path) if header.format == "jpeg" else None
    signals = measure_signals(picture.rgb)
    verdict = judge(signals, jpeg)
    width, height = header.upright_size
    detail = {
        "worst": verdict.worst,
        "traits": dict(verdict.traits),
        "jpeg_quality": None if jpeg is None else round(jpeg, 1),
        "signals": {name: _short(value) for name, value in asdict(signals).items()},
    }
    return Measure(verdict.score, verdict.reason, width, height, header.format, detail)


def _short(value: float | Sequence[float]) -> float | list[float]:
    return round(value, 4) if isinstance(value, (int, float)) else [round(part, 4) for part in value]


# Undamaged photographs score 80 and more (median 90). JPEG quality 75 costs about 15 points, 40 about 45; a blur or
# noise that shows at a glance (standard deviation 2 pixels; 20 grey levels) leaves about 40.
METRICS = {"technical": Metric("technical", TECHNICAL_VERSION, measure_technical, high=70, medium=45)}


def metric_named(name: str) -> Metric | None:
    """The metric; None where there is none of that name."""
    return METRICS.get(name)
