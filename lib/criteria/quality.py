"""Sort by quality: high, medium or low by a score of 0..100. Here the one that needs no weights; see `learned` too."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.criteria import Label, Measure, OneMeasure
from lib.quality import TECHNICAL_VERSION

if TYPE_CHECKING:
    import numpy as np

    from lib.decode import Header, Picture

# Above this size a picture is judged on a decode of at most LONG_SIDE: 24 megapixels as RGB take 72 MB in each worker.
WHOLE_PIXELS = 24_000_000
LONG_SIDE = 4096
# Undamaged photographs score 80 and more (median 90). JPEG quality 75 costs about 15 points, 40 about 45; a blur or
# noise that shows at a glance (standard deviation 2 pixels; 20 grey levels) leaves about 40.
TECHNICAL_HIGH, TECHNICAL_MEDIUM = 70.0, 45.0


@dataclass(frozen=True)
class Thresholds:
    """Where high, medium and low are cut, on 0..100; `quantiles` fills the three equally; below `min_score` none."""

    high: float
    medium: float
    min_score: float | None = None
    quantiles: bool = False

    def fitted(self, scores: Iterable[float]) -> Thresholds:
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


@dataclass(frozen=True)
class Quality(OneMeasure):
    """By the technical score."""

    thresholds: Thresholds

    name = "quality"
    metric = "technical"
    version = TECHNICAL_VERSION

    @property
    def measure(self) -> Callable[[Path], Measure]:
        return measure_technical

    def fitted(self, pool: Any) -> Quality:
        scores = (measure.value for measure in pool if measure.value is not None)
        return replace(self, thresholds=self.thresholds.fitted(scores))

    def label(self, measure: Measure) -> Label | None:
        score = measure.value or 0.0
        bucket = self.thresholds.bucket(score)
        return Label(bucket, score, measure.reason) if bucket else None

    def buckets(self) -> list[tuple[str, str]]:
        return self.thresholds.rules()


def measure_technical(path: Path) -> Measure:
    """The weight-free score of one picture, from one decode of its original pixels (of its first frame)."""
    from lib.decode import DecodeError, decode_grey

    try:
        return _judged(path, *decode_grey(path, long_side=_bound(path)))
    except DecodeError as error:
        return Measure(None, error.reason)


def technical_of(path: Path) -> tuple[Picture, Measure]:
    """The decoded picture in colour with its technical score, for what needs both. Raises DecodeError.

    The score is the very one of `measure_technical`: a JPEG's brightness comes from the file, as its colours differ by
    rounding; of other formats it is made of the decoded colours.
    """
    import numpy as np
    from PIL import Image

    from lib.decode import decode, decode_grey

    long_side = _bound(path)
    picture = decode(path, long_side=long_side)
    if picture.header.format == "jpeg":
        grey = decode_grey(path, long_side=long_side)[0]
    else:
        grey = np.asarray(Image.fromarray(picture.rgb).convert("L"))
    return picture, _judged(path, grey, picture.header)


def _bound(path: Path) -> int | None:
    from lib.decode import read_header

    header = read_header(path)
    return LONG_SIDE if header.width * header.height > WHOLE_PIXELS else None


def _judged(path: Path, grey: np.ndarray, header: Header) -> Measure:
    """The score of a picture's brightness, uint8 (height, width)."""
    from lib.quality.jpeg_tables import quality_of_file
    from lib.quality.score import judge
    from lib.quality.signals import measure_signals

    jpeg = quality_of_file(path) if header.format == "jpeg" else None
    signals = measure_signals(grey)
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
