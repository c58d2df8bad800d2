"""Sort by what a detector finds: pictures with so many objects of the wanted classes are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lib.models.weights import WeightsFolder
from lib.quality.measure import Measure
from lib.sort.criteria import Criterion, Label
from lib.work.stream import Parallelism

if TYPE_CHECKING:
    from lib.models.detector import Detector
    from lib.work import Result


@dataclass
class Objects(Criterion):
    """`classes` are the detector's own names, all of them where none is given; `most` None is without bound."""

    detector: str
    place: WeightsFolder
    device: str = "auto"
    classes: Sequence[str] = ()
    least: int = 1
    most: int | None = None
    confidence: float = 0.5
    loaded: list[Detector] = field(default_factory=list)

    name = "objects"

    @property
    def net(self) -> Detector:
        if not self.loaded:
            from lib.models.detector import load_detector, look_for_weights
            from lib.models.device import choose

            look_for_weights(self.detector, self.place)
            self.loaded.append(load_detector(self.detector, self.place, choose(self.device)))
        return self.loaded[0]

    @property
    def metric(self) -> str:
        return f"objects {self.detector}"

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(self.metric, self.net.version)]

    def preflight(self) -> None:
        """Loads the model and knows its classes. Raises MissingWeights, UsageError."""
        from lib.models.detector import check_classes

        check_classes(self.classes, self.net.classes)

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        from lib.models.batches import BatchPipeline, looking
        from lib.models.detector import LONG_SIDE
        from lib.work import Result

        for outcome in BatchPipeline(self.net, looking(LONG_SIDE), spread).outcomes(paths):
            measure = Measure(None, outcome.error)
            if outcome.value is not None:
                seen, found = outcome.value
                detail = {"found": [list(row) for row in found]}
                measure = Measure(float(len(found)), "", seen.width, seen.height, seen.format, detail)
            yield Result(outcome.item, {self.metric: measure}, "")

    def label(self, measure: Measure) -> Label | None:
        rows = [row for row in measure.detail.get("found", ()) if row[1] >= self.confidence]
        counts = Counter(row[0] for row in rows)
        wanted = sum(count for name, count in counts.items() if not self.classes or name in self.classes)
        keep = wanted >= self.least and (self.most is None or wanted <= self.most)
        words = ", ".join(f"{count} {name}" for name, count in counts.most_common(8)) or "nothing found"
        return Label("keep" if keep else "drop", float(wanted), words)

    def buckets(self) -> list[tuple[str, str]]:
        what = " or ".join(self.classes) or "any object"
        bound = "or more" if self.most is None else f"to {self.most}"
        return [("keep", f"{self.least} {bound} of {what}, sure by {self.confidence:g}"), ("drop", "all others")]
