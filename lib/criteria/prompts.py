"""Sort by prompts: what to keep and what to drop in words, labels of one's own, and likeness to the query picture.

A picture's distance to words is the cosine of two embeddings of one model; only differences of such cosines mean
something, so that a prompt is always held against another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.criteria import Label, Measure
from lib.criteria.embedded import Embedded
from lib.errors import UsageError

if TYPE_CHECKING:
    from lib.models.place import Place

# What everything is compared with where nothing is to be dropped by name.
NEUTRAL = ("a photo", "an image", "a picture of something else")
TEMPLATES = ("{}", "a photo of {}")


@dataclass
class Prompts(Embedded):
    """`keep` and `drop` are prompts; or `labels` maps a bucket to its prompts. `near` is the least cosine to the query
    picture; `seeds` are further pictures for it. Below `margin` a label is unsure, and a kept picture dropped."""

    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    margin: float = 0.0
    near: float | None = None
    # Filled by `fitted`: the queries that found a content, and the embeddings of their pictures.
    queries: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seeds: Mapping[int, np.ndarray] = field(default_factory=dict)

    name = "filter"

    def prompts(self) -> Sequence[str]:
        return [*self.keep, *self.drop, *(prompt for prompts in self.labels.values() for prompt in prompts)]

    def fitted(self, pool: Any) -> Prompts:
        """With `near`: the query pictures of what is sorted."""
        if self.near is None:
            return self
        from lib.db.scores import queries_of

        queries: dict[str, list[int]] = {}
        block: list[str] = []
        for measure in pool:
            block.append(measure.sha256)
            if len(block) == 500:
                queries |= queries_of(pool.db, block)
                block = []
        queries |= queries_of(pool.db, block)
        seeds = self.query_pictures(pool.db, pool.workspace, {number for own in queries.values() for number in own})
        if not seeds:
            raise UsageError("--near-query needs pictures that a search by picture found; none of these was.")
        return replace(self, queries=queries, seeds=seeds)

    def label(self, measure: Measure) -> Label | None:
        from lib.models.clip import vector_of

        if measure.vector is None:
            return None
        vector = vector_of(measure.vector)
        verdict = self._by_labels(vector) if self.labels else self._by_prompts(vector)
        return self._by_likeness(vector, measure.sha256, verdict) if self.near is not None else verdict

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

    def _by_likeness(self, vector: np.ndarray, sha256: str, verdict: Label) -> Label:
        near = [float(self.seeds[number] @ vector) for number in self.queries.get(sha256, ()) if number in self.seeds]
        if not near:
            return replace(verdict, bucket="drop", reason=_joined(verdict.reason, "found by no query picture"))
        likeness = round(max(near), 4)
        words = _joined(verdict.reason, f"{likeness:.3f} like the query picture")
        bucket = verdict.bucket if likeness >= (self.near or 0.0) else "drop"
        return Label(bucket, likeness if verdict.score is None else verdict.score, words)

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


def make_prompts(options: Mapping[str, Any], place: Place) -> Prompts:
    """The criterion that step 7's flags describe. Raises UsageError where they are not enough."""
    keep, drop = list(options["keep"] or ()), list(options["drop"] or ())
    for name, into in (("keep_file", keep), ("drop_file", drop)):
        if options[name]:
            into += read_prompts(options[name])
    labels = read_labels(options["labels"]) if options["labels"] else {}
    if labels and (keep or drop):
        raise UsageError("--labels sorts by labels and --keep and --drop by two sides; use one of them.")
    if not labels and not keep and not drop and options["near_query"] is None:
        raise UsageError("say what to filter by: --keep and --drop, --labels or --near-query.")
    return Prompts(
        options["clip_model"],
        place,
        options["device"],
        [],
        keep,
        drop,
        labels,
        options["margin"],
        options["near_query"],
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _quoted(prompts: Sequence[str]) -> str:
    shown = ", ".join(repr(prompt) for prompt in (prompts or NEUTRAL)[:3])
    return f"{shown}, …" if len(prompts) > 3 else shown
