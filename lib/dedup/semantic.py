"""The same subject by embedding: other photographs of it, found by open_clip's vectors. Always for review first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.db.context import Context
from lib.db.scores import ScoreRow, known_vectors, save_measures
from lib.dedup.options import DedupOptions

BLOCK = 2_048  # vectors compared at once: 16 MB of cosines
BATCH = 256  # embeddings written in one transaction


@dataclass
class Likeness:
    """The contents that show the same subject as each one, nearest first, with the distance (1 - cosine)."""

    near: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def distance(self, one: str, other: str) -> float | None:
        return next((distance for distance, content in self.near.get(one, ()) if content == other), None)


def find_likeness(context: Context, options: DedupOptions, places: Mapping[str, Path]) -> Likeness:
    """Returns the pairs of contents whose embeddings lie near each other; embeddings are kept in the database.

    Raises UsageError for a model that is not there, naming the file to put where, and GleanerError without open_clip.
    """
    vectors = _vectors(context, options, places)
    contents = sorted(vectors)
    found = Likeness({content: [] for content in contents})
    if not contents:
        return found
    matrix = np.stack([vectors[content] for content in contents])
    for one, other, distance in _near(matrix, options.least_cosine):
        found.near[contents[one]].append((distance, contents[other]))
        found.near[contents[other]].append((distance, contents[one]))
    for near in found.near.values():
        near.sort()
    return found


def _near(matrix: np.ndarray, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows of a float32 array of unit vectors whose cosine is at least `least`; never a full matrix."""
    for top in range(0, len(matrix), BLOCK):
        for left in range(top, len(matrix), BLOCK):
            cosines = matrix[top : top + BLOCK] @ matrix[left : left + BLOCK].T
            for i, j in zip(*np.nonzero(cosines >= least), strict=True):
                if i + top < j + left:
                    yield int(i + top), int(j + left), round(max(0.0, 1.0 - float(cosines[i, j])), 4)


def _vectors(context: Context, options: DedupOptions, places: Mapping[str, Path]) -> dict[str, np.ndarray]:
    from lib.models.batches import BatchPipeline
    from lib.models.clip import load_clip, vector_of
    from lib.models.weights import require, weights_folder
    from lib.work.stream import Parallelism

    require("open_clip")
    clip = load_clip(options.clip_model, weights_folder(options.models_dir), options.device)
    metric = f"clip {clip.name}"
    found = {c: vector_of(v) for c, v in known_vectors(context.db, metric, clip.version, sorted(places)).items()}
    missing = {places[content]: content for content in sorted(places) if content not in found}
    fresh: list[tuple[ScoreRow, bytes | None]] = []
    with context.bar(len(missing), "Embedding", "picture") as progress:
        for outcome in BatchPipeline(clip, clip.looking(), Parallelism(workers=options.workers)).outcomes(missing):
            progress.update()
            if outcome.value is None:
                continue  # the reason is told where its hash was computed
            seen, vector = outcome.value
            content = missing[outcome.item]
            found[content] = vector_of(vector)
            detail = {"width": seen.width, "height": seen.height, "format": seen.format}
            fresh.append((ScoreRow(content, 1.0, "", detail), vector))
            if not context.dry_run and len(fresh) >= BATCH:
                save_measures(context.db, metric, clip.version, fresh)
                fresh.clear()
            if context.stopping():
                break
    if not context.dry_run and fresh:
        save_measures(context.db, metric, clip.version, fresh)
    return found
