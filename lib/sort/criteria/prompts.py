"""Sort by prompts: what to keep and what to drop in words, labels of one's own, and likeness to the query picture.

A picture's distance to words is the cosine of two embeddings of one model. Only differences of such cosines mean
something, so a prompt is always held against another. `ClipCriterion` is shared with the topic: an embedding is made
once, and judged as often as prompts change.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.db import Context
from lib.db import scores as store
from lib.db.scores import ScoreRow
from lib.db.where import FILTER, criterion_of
from lib.errors import UsageError
from lib.models.weights import WeightsFolder
from lib.quality.measure import Measure
from lib.sort.criteria import AllMeasures, Criterion, Label
from lib.work import Result
from lib.work.stream import Parallelism

if TYPE_CHECKING:
    from lib.models.clip import Clip

# What everything is compared with where nothing is to be dropped by name.
NEUTRAL = ("a photo", "an image", "a picture of something else")
TEMPLATES = ("{}", "a photo of {}")

log = logging.getLogger("gleaner.models")


@dataclass
class ClipCriterion(Criterion):
    """`model` by name; it is loaded at the preflight, since prompts need it even where all pictures are known."""

    model: str
    place: WeightsFolder
    device: str = "auto"
    loaded: list[Clip] = field(default_factory=list)

    @property
    def clip(self) -> Clip:
        if not self.loaded:
            from lib.models.clip import load_clip

            self.loaded.append(load_clip(self.model, self.place, self.device))
        return self.loaded[0]

    @property
    def metric(self) -> str:
        return f"clip {self.clip.name}"

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(self.metric, self.clip.version)]

    def preflight(self) -> None:
        """Loads the model. Raises MissingWeights, which says which file to put where."""
        self.suggest(self.prompts())

    def prompts(self) -> Sequence[str]:
        """All texts that will be compared with pictures."""
        return ()

    def suggest(self, prompts: Iterable[str]) -> None:
        """An English model does not understand other languages, and says so by no error at all."""
        foreign = next((prompt for prompt in prompts if not _is_latin(prompt)), None)
        if foreign and not self.clip.multilingual:
            log.warning(
                "%r is not in Latin script, and %s knows English; use --clip-model multilingual", foreign, self.model
            )

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        from lib.models.batches import BatchPipeline

        for outcome in BatchPipeline(self.clip, self.clip.looking(), spread).outcomes(paths):
            measure = Measure(None, outcome.error)
            if outcome.value is not None:
                seen, vector = outcome.value
                measure = Measure(1.0, "", seen.width, seen.height, seen.format, {}, vector)
            yield Result(outcome.item, {self.metric: measure}, "")

    def query_pictures(self, context: Context, queries: Iterable[int]) -> dict[int, np.ndarray]:
        """The embeddings of the pictures that these queries were made with: float32, by the query's number.

        They are kept like any other; a query picture that is gone or broken has none.
        """
        from lib.models.batches import BatchPipeline
        from lib.models.clip import vector_of

        found: dict[int, np.ndarray] = {}
        fresh: dict[Path, list[tuple[int, str]]] = defaultdict(list)
        for number, sha256, text in store.query_pictures(context.db, list(queries)):
            key = (self.metric, self.clip.version, [sha256])
            if (known := store.known_vectors(context.db, *key)) and not store.unchecked_grounds(context.db, *key):
                found[number] = vector_of(known[sha256])
            else:
                fresh[context.workspace.to_path(text)].append((number, sha256))
        for outcome in BatchPipeline(self.clip, self.clip.looking()).outcomes(fresh) if fresh else ():
            if outcome.value is None:
                log.warning("the query picture %s cannot be read: %s", outcome.item, outcome.error)
                continue
            seen, vector = outcome.value
            for number, sha256 in fresh[outcome.item]:
                if not context.dry_run:
                    self._keep(context, sha256, seen, vector)
                found[number] = vector_of(vector)
        return found

    def _keep(self, context: Context, sha256: str, seen: Any, vector: bytes) -> None:
        detail = {"width": seen.width, "height": seen.height, "format": seen.format}
        store.save_measures(context.db, self.metric, self.clip.version, [(ScoreRow(sha256, 1.0, "", detail), vector)])


@dataclass
class PromptFilter(ClipCriterion):
    """`keep` and `drop` are prompts; or `labels` maps a bucket to its prompts. `near` is the least cosine to the query
    picture; `seeds` are further pictures for it. Below `margin` a label is unsure, and a kept picture dropped. `name`
    is the criterion that labels, folder and page belong to: filters of several names stand side by side."""

    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    margin: float = 0.0
    near: float | None = None
    name: str = FILTER
    # Filled by `fit`: the queries that found a content, and the embeddings of their pictures.
    queries: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seeds: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], place: WeightsFolder) -> PromptFilter:
        """The filter that step 7's flags describe. Raises UsageError where they are not enough."""
        keep, drop = list(options["keep"] or ()), list(options["drop"] or ())
        for name, into in (("keep_file", keep), ("drop_file", drop)):
            if options[name]:
                into += read_prompts(options[name])
        labels = read_labels(options["labels"]) if options["labels"] else {}
        near = options["near_query"]
        if labels and (keep or drop):
            raise UsageError("--labels sorts by labels and --keep and --drop by two sides; use one of them.")
        if not labels and not keep and not drop and near is None:
            raise UsageError("say what to filter by: --keep and --drop, --labels or --near-query.")
        model, device, margin = options["clip_model"], options["device"], options["margin"]
        name = criterion_of(f"{FILTER}:{options['name']}") if options.get("name") else FILTER
        return cls(model, place, device, keep=keep, drop=drop, labels=labels, margin=margin, near=near, name=name)

    def prompts(self) -> Sequence[str]:
        return [*self.keep, *self.drop, *(prompt for prompts in self.labels.values() for prompt in prompts)]

    def fit(self, measures: AllMeasures) -> PromptFilter:
        """With `near`: the query pictures of what is sorted."""
        if self.near is None:
            return self
        queries: dict[str, list[int]] = {}
        for page in measures.pages():
            readable = [sha256 for sha256, measure in page.items() if measure.value is not None]
            queries |= store.queries_of(measures.context.db, readable)
        seeds = self.query_pictures(measures.context, {number for own in queries.values() for number in own})
        if not seeds:
            raise UsageError("--near-query needs pictures that a search by picture found; none of these was.")
        return replace(self, queries=queries, seeds=seeds)

    def label(self, measure: Measure) -> Label | None:
        from lib.models.clip import vector_of

        if measure.vector is None:
            return None
        vector = vector_of(measure.vector)
        by_words = self._by_labels(vector) if self.labels else self._by_prompts(vector)
        return self._by_likeness(vector, measure.sha256, by_words) if self.near is not None else by_words

    def buckets(self) -> list[tuple[str, str]]:
        if self.labels:
            named = [(name, f"nearest to {_quoted(prompts)}") for name, prompts in self.labels.items()]
            return [*named, ("unsure", f"two labels within {self.margin:g}")] if self.margin else named
        rules = [f"nearer to {_quoted(self.keep)} by {self.margin:g} or more"] if self.keep or self.drop else []
        if self.near is not None:
            rules.append(f"at least {self.near:g} like the query picture")
        return [("keep", "; ".join(rules)), ("drop", "all others")]

    def _by_prompts(self, vector: np.ndarray) -> Label:
        if not self.keep and not self.drop:
            return Label("keep", None, "")
        good, good_name = self._nearest(vector, self.keep or NEUTRAL)
        bad, bad_name = self._nearest(vector, self.drop or NEUTRAL)
        margin = round(good - bad, 4)
        words = f"{good_name!r} {good:.3f}, {bad_name!r} {bad:.3f}, margin {margin:+.3f}"
        return Label("keep" if margin >= self.margin else "drop", margin, words)

    def _by_labels(self, vector: np.ndarray) -> Label:
        ranked = sorted(
            ((self._nearest(vector, prompts)[0], name) for name, prompts in self.labels.items()), reverse=True
        )
        (best, name), (second, other) = ranked[0], ranked[1]
        margin = round(best - second, 4)
        words = f"{name} {best:.3f}, {other} {second:.3f}, margin {margin:.3f}"
        return Label(name if margin >= self.margin else "unsure", margin, words)

    def _by_likeness(self, vector: np.ndarray, sha256: str, by_words: Label) -> Label:
        near = [float(self.seeds[number] @ vector) for number in self.queries.get(sha256, ()) if number in self.seeds]
        if not near:
            return replace(by_words, bucket="drop", reason=_joined(by_words.reason, "found by no query picture"))
        likeness = round(max(near), 4)
        words = _joined(by_words.reason, f"{likeness:.3f} like the query picture")
        bucket = by_words.bucket if likeness >= (self.near or 0.0) else "drop"
        return Label(bucket, likeness if by_words.score is None else by_words.score, words)

    def _nearest(self, vector: np.ndarray, prompts: Sequence[str]) -> tuple[float, str]:
        """The cosine to the nearest prompt, each the mean over the templates, and that prompt."""
        written = [template.format(prompt) for prompt in prompts for template in TEMPLATES]
        means = self.clip.text(written).reshape(len(prompts), len(TEMPLATES), -1).mean(axis=1)
        cosines = means @ vector / np.linalg.norm(means, axis=1)
        best = int(np.argmax(cosines))
        return float(cosines[best]), prompts[best]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line; empty lines and those that start with # are left out."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text ({error}); give a file with one prompt a line.") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise UsageError(f"{path} holds no prompt; write one a line.")
    return found


def read_labels(path: Path) -> dict[str, list[str]]:
    """Labels of a file: `name`, or `name: prompt | prompt`, one a line. A name becomes a folder's name."""
    found: dict[str, list[str]] = {}
    for line in read_prompts(path):
        name, _, prompts = line.partition(":")
        folder = re.sub(r"[^\w.-]+", "_", name.strip()).strip("._-")[:80]
        if not folder or folder.lower() in {known.lower() for known in found} or folder == "unsure":
            raise UsageError(f"{path} names {name.strip()!r} twice, or by no usable name; correct the line.")
        found[folder] = [prompt.strip() for prompt in (prompts or name).split("|") if prompt.strip()]
    if len(found) < 2:
        raise UsageError(f"{path} needs at least two labels, one a line.")
    return found


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _quoted(prompts: Sequence[str]) -> str:
    shown = ", ".join(repr(prompt) for prompt in (prompts or NEUTRAL)[:3])
    return f"{shown}, …" if len(prompts) > 3 else shown


def _is_latin(text: str) -> bool:
    return all("LATIN" in unicodedata.name(letter, "LATIN") for letter in text if letter.isalpha())
