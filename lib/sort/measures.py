"""The measures of a run: known ones from the cache, missing ones from the criterion, given back page by page."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from lib.db import Context
from lib.db import scores as store
from lib.db.scores import ScoreRow
from lib.db.worklist import Worklist
from lib.quality.measure import Measure
from lib.sort.criteria import CHUNK, Criterion
from lib.text import counted
from lib.work.memory import prepare_decoder
from lib.work.stream import Parallelism, stream

# Measures in one transaction; a kill loses at most as many, or those of some seconds, and they are measured again.
SAVE_EVERY, SAVE_SECONDS = 200, 5.0
UNANSWERED = "no_answer"
# How reasons begin that are never kept, so that the next run tries again.
PASSING = (
    "missing_file", "unreadable_file", "worker_killed", "MemoryError", "out_of_memory", "needs_", "OSError",
    "PermissionError", "model_failed", "not_asked", UNANSWERED,
)  # fmt: skip


@dataclass
class Measures:
    """Reads and writes the cache; iterating gives every readable measure."""

    context: Context
    files: Worklist
    criterion: Criterion

    def fill(self, spread: Parallelism) -> int:
        """Measures what is missing and gives the number of pictures measured."""
        self._find_missing(spread)
        done = 0
        for missing, count in self.files.missing_sets():
            # A worker process takes half a second to start: not for a handful of pictures.
            own = replace(spread, workers=min(spread.workers, max(1, count // CHUNK)))
            done += self._measure(missing.split(","), count, own)
            if self.context.stopping():
                break
        return done

    def pages(self) -> Iterator[dict[str, Measure]]:
        """The joined measures of all contents, by content, some hundreds at a time."""
        for page in self.files.contents():
            contents = [sha256 for sha256, _ in page if sha256]
            parts: dict[str, dict[str, Measure]] = defaultdict(dict)
            for metric, version in self.criterion.keys:
                for sha256, measure in self._known(metric, version, contents).items():
                    parts[sha256][metric] = measure
            yield {sha256: replace(self.criterion.join(found), sha256=sha256) for sha256, found in parts.items()}

    def vectors(self, metric: str, version: str, contents: list[str]) -> dict[str, bytes]:
        """The embeddings of contents: float16, little-endian."""
        kept = {sha256: vector for sha256, (_, vector) in self.files.kept(metric, contents).items() if vector}
        return store.known_vectors(self.context.db, metric, version, contents) | kept

    def __iter__(self) -> Iterator[Measure]:
        for page in self.pages():
            yield from (measure for measure in page.values() if measure.value is not None)

    def _find_missing(self, spread: Parallelism) -> None:
        db = self.context.db
        for page in self.files.contents():
            contents = [sha256 for sha256, _ in page if sha256]
            places = {sha256: place for sha256, place in page if sha256}
            lacking: dict[str, list[str]] = defaultdict(list)
            runs: Counter[str] = Counter()
            for metric, version in self.criterion.keys:
                tried = store.unanswered(db, metric, version, contents)
                done = store.known_contents(db, metric, version, contents) | self._given_up(metric, tried)
                if doubtful := store.unchecked_grounds(db, metric, version, contents):
                    paths = {sha256: str(self.context.workspace.to_path(places[sha256])) for sha256 in doubtful}
                    done -= self._measured_unseen(metric, version, paths, spread)
                for sha256 in contents:
                    if sha256 not in done:
                        lacking[sha256].append(metric)
                runs.update({sha256: count for sha256, (count, _, _) in tried.items()})
            self.files.add_todo(
                (str(self.context.workspace.to_path(place)), sha256, ",".join(lacking[sha256]), runs[sha256])
                for sha256, place in places.items()
                if lacking.get(sha256)
            )

    def _measured_unseen(self, metric: str, version: str, paths: Mapping[str, str], spread: Parallelism) -> set[str]:
        """The contents that were measured on a ground on which they cannot be seen; the others are noted as checked."""
        from lib.images.decode import needs_ground

        contents = {Path(path): sha256 for sha256, path in paths.items()}
        needing: set[str] = set()
        workers = min(spread.workers, max(1, len(contents) // CHUNK))
        outcomes = stream(
            needs_ground, contents, executor=spread.executor, workers=workers, chunk=CHUNK, init=prepare_decoder
        )
        with closing(outcomes):
            needing.update(contents[outcome.item] for outcome in outcomes if outcome.value)
        if not self.context.dry_run:
            store.note_checked_grounds(self.context.db, metric, version, set(contents.values()) - needing)
        return needing

    def _given_up(self, metric: str, tried: Mapping[str, tuple[int, int, str]]) -> set[str]:
        """The contents that were asked about in vain often enough; their reason stays."""
        enough = {sha256: found for sha256, found in tried.items() if found[1] >= self.criterion.tries}
        said = [(sha256, f"{reason}, in {counted(tries, 'run')}") for sha256, (_, tries, reason) in enough.items()]
        unsized = {"width": 0, "height": 0, "format": ""}
        self.files.keep(metric, [(ScoreRow(sha256, None, reason, unsized), None) for sha256, reason in said])
        return set(enough)

    def _measure(self, missing: list[str], count: int, spread: Parallelism) -> int:
        done = 0
        fresh: list[tuple[str, Mapping[str, Measure]]] = []
        paths = (Path(path) for path in self.files.todo(",".join(missing)))
        outcomes = self.criterion.measure_all(paths, missing, spread)
        saved = time.monotonic()
        try:
            with self.context.bar(count, "Measuring", "picture") as progress:
                for outcome in outcomes:
                    found = outcome.value or {metric: Measure(None, outcome.error) for metric in missing}
                    fresh.append((self.files.content_at(str(outcome.item)), found))
                    done += 1
                    progress.update()
                    if len(fresh) >= SAVE_EVERY or time.monotonic() - saved > SAVE_SECONDS:
                        self._save(fresh)
                        saved = time.monotonic()
                    if self.context.stopping():
                        break
        finally:
            self._save(fresh)  # also when a server ended the run: what was answered was paid for
            if close := getattr(outcomes, "close", None):
                close()
        return done

    def _save(self, fresh: list[tuple[str, Mapping[str, Measure]]]) -> None:
        for metric, version in self.criterion.keys:
            lasting: list[tuple[ScoreRow, bytes | None]] = []
            passing: list[tuple[ScoreRow, bytes | None]] = []
            unanswered: list[tuple[str, str, int]] = []
            for sha256, measures in fresh:
                if (one := measures.get(metric)) is None:
                    continue
                size = {"width": one.width, "height": one.height, "format": one.format}
                row = ScoreRow(sha256, one.value, one.reason, {**size, **one.detail})
                is_short_lived = self.context.dry_run or (one.value is None and is_passing(one.reason))
                (passing if is_short_lived else lasting).append((row, one.vector))
                if one.value is None and one.reason.startswith(UNANSWERED):
                    unanswered.append((sha256, one.reason, one.tries))
            if lasting:
                store.save_measures(self.context.db, metric, version, lasting)
            if unanswered and not self.context.dry_run:
                store.note_unanswered(self.context.db, metric, version, unanswered)
            self.files.keep(metric, passing)
        fresh.clear()

    def _known(self, metric: str, version: str, contents: list[str]) -> dict[str, Measure]:
        rows = store.known_scores(self.context.db, metric, version, contents)
        vectors = store.known_vectors(self.context.db, metric, version, contents)
        found = {sha256: _from_row(row, vectors.get(sha256)) for sha256, row in rows.items()}
        kept = self.files.kept(metric, contents).items()
        return found | {sha256: _from_row(row, vector) for sha256, (row, vector) in kept}


def why_unanswered(reason: str) -> str:
    """The short reason of a picture that a model gave no answer about, such as `http_400`; empty for any other."""
    kind, _, words = reason.partition(": ")
    if kind != UNANSWERED:
        return ""
    first = words.split(",")[0]
    return first.split()[0] if first.startswith("http_") else first.strip().replace(" ", "_") or "no_reason"


def is_passing(reason: str) -> bool:
    """True for a reason that lies in the moment and not in the content."""
    return reason.startswith(PASSING)


def _from_row(row: ScoreRow, vector: bytes | None) -> Measure:
    detail = dict(row.detail)
    width, height = int(detail.pop("width", 0)), int(detail.pop("height", 0))
    return Measure(row.value, row.reason, width, height, str(detail.pop("format", "")), detail, vector)
