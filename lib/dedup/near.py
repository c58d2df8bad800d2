"""The contents near enough to be looked at together: cells that files share, and cells that lie close by.

The search finds every pair of hashes within a radius, as they are or under a view. Only new hashes are searched for.
Other photographs of the same subject are found by open_clip's vectors; they are always for review first.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from lib.db import Context, Database
from lib.db.hashes import NearPair, compared_hashes, iter_views, near_pairs, remember_near
from lib.db.scores import ScoreRow, known_vectors, save_measures, unchecked_grounds
from lib.dedup.options import DedupOptions
from lib.hashing import dct, views
from lib.hashing.buffers import Buffers
from lib.hashing.hamming import cross_join, self_join, to_words
from lib.models.weights import require, weights_folder
from lib.progress import BarFactory
from lib.work.stream import Parallelism

RADIUS = 64
VIEWS_VERSION = 2
# Thirty-six views of each picture against all others: beyond this many pictures only the turns are searched for.
WINDOWS_UP_TO = 200_000
BLOCK = 4_096  # pictures whose views are compared at once
VECTORS = 2_048  # embeddings compared at once: 16 MB of cosines
BATCH = 256  # embeddings written in one transaction
AT_ONCE = 64  # pictures whose views are computed together: what is in between stays in the processor's cache
_WIDTH = dct.BITS // 8

Cell = Hashable
PLAIN = -1  # the number of the view that is none


def plain_cells(hashes: Mapping[str, bytes], radius: int, workers: int) -> HashCells:
    """Returns the pairs of hashes that lie near each other as they are; nothing is remembered. Hashes of any length."""
    cells = HashCells(hashes)
    distinct = sorted(set(hashes.values()))
    if distinct:
        width = len(distinct[0])
        padded = np.zeros((len(distinct), -(-width // 8) * 8), np.uint8)
        padded[:, :width] = np.frombuffer(b"".join(distinct), np.uint8).reshape(-1, width)
        for one, other, distance in self_join(to_words(padded), radius, workers):
            for i, j, bits in zip(one.tolist(), other.tolist(), distance.tolist(), strict=True):
                cells.add(NearPair(distinct[i], distinct[j], bits, PLAIN, False, False))
    return cells.ready()


def cells_with_views(
    context: Context,
    hashes: Mapping[str, bytes],
    load: Callable[[Sequence[str]], list[Buffers]],
    algorithm: str,
    *,
    workers: int = 1,
) -> HashCells:
    """Returns the pairs of 256-bit hashes within RADIUS, under views as well; what the database knows is not searched.

    `load` gives the buffers of contents that are new. Unless the run is a dry one, what was found is written down.
    """
    db = context.db
    by_hash: dict[bytes, str] = {}
    for content in sorted(hashes):
        by_hash.setdefault(hashes[content], content)
    windows = len(by_hash) <= WINDOWS_UP_TO
    algorithm = f"{algorithm} views {VIEWS_VERSION} {'windows' if windows else 'turns'} {RADIUS}"
    old = compared_hashes(db, algorithm)
    fresh = sorted(value for value in by_hash if value not in old)
    found: dict[tuple[bytes, bytes], NearPair] = {}
    if fresh:
        with tempfile.TemporaryFile() as spool:
            search = _Search(db, algorithm, sorted(old), fresh, spool, windows, workers)
            search.measure([by_hash[value] for value in fresh], load)
            found = search.run(context.bar)
            if not context.dry_run:
                compared = ((value, search.views[n].tobytes()) for n, value in enumerate(fresh))
                remember_near(db, algorithm, compared, list(found.values()))
    cells = HashCells(hashes)
    for pair in near_pairs(db) if old else ():
        if pair.one in by_hash and pair.other in by_hash:
            found.setdefault((pair.one, pair.other), pair)
    for pair in found.values():
        if pair.one in by_hash and pair.other in by_hash:
            cells.add(pair)
    return cells.ready()


class _Search:
    """New hashes against one another and against those that were compared before."""

    def __init__(
        self, db: Database, algorithm: str, old: list[bytes], fresh: list[bytes], spool: object, windows: bool, w: int
    ):
        self.db, self.algorithm, self.old, self.fresh, self.workers = db, algorithm, old, fresh, w
        self.used = views.COUNT if windows else views.WITHOUT_WINDOWS
        shape = (len(fresh), views.COUNT, _WIDTH)
        # In a file beyond a few thousand pictures: 1.2 KB each is more than the hashes of a million may take.
        self.views = np.memmap(spool, np.uint8, "w+", shape=shape) if len(fresh) > BLOCK else np.empty(shape, np.uint8)  # type: ignore[call-overload]
        self.found: dict[tuple[bytes, bytes], NearPair] = {}
        self.values = fresh + old
        self.ordered = sorted(self.values)
        self.rank = np.empty(len(self.values), np.int64)
        self.rank[sorted(range(len(self.values)), key=self.values.__getitem__)] = np.arange(len(self.values))
        self.words = to_words(np.frombuffer(b"".join(self.values), np.uint8).reshape(-1, _WIDTH))

    def measure(self, contents: list[str], load: Callable[[Sequence[str]], list[Buffers]]) -> None:
        """Computes the views of the new pictures."""
        for start in range(0, len(contents), AT_ONCE):
            read = load(contents[start : start + AT_ONCE])
            greys = np.stack([buffers.greys[0] for buffers in read])
            self.views[start : start + len(read)] = views.view_hashes(greys, [buffers.box for buffers in read])

    def run(self, bar: BarFactory) -> dict[tuple[bytes, bytes], NearPair]:
        new = len(self.fresh)
        for one, other, distance in self_join(self.words[:new], RADIUS, self.workers):
            self._note(one, other, distance, PLAIN)
        if self.old:
            for one, other, distance in cross_join(self.words[:new], self.words[new:], RADIUS, self.workers):
                self._note(one, other + new, distance, PLAIN)
        if self.used == views.COUNT:
            self._join_cuts()
        insides = self._insides()
        with bar(len(self.values), "Comparing", "picture") as progress:
            for start in range(0, new, BLOCK):
                self._join_views(self.views[start : start + BLOCK], start, self.words, insides)
                progress.update(min(BLOCK, new - start))
            fresh = {owner: value for owner, value in insides.items() if owner < new}
            for place, seen in self._old_views():
                self._join_views(seen, place, self.words[:new], fresh)
                progress.update(len(seen))
        return self.found

    def _old_views(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the views of pictures that were compared before, with the number of the first, in blocks."""
        place = len(self.fresh)
        for _, packed in iter_views(self.db, self.algorithm) if self.old else ():
            yield place, np.frombuffer(b"".join(packed), np.uint8).reshape(-1, views.COUNT, _WIDTH)
            place += len(packed)

    def _join_cuts(self) -> None:
        """Pictures without their foot or head against others without it: captions that cover a part."""
        for number in views.CUT_IN_BOTH:
            cut = to_words(np.ascontiguousarray(self.views[:, number]))
            for one, other, distance in self_join(cut, RADIUS, self.workers):
                self._note(one, other, distance, number + views.BOTH)
            for place, seen in self._old_views():
                old = to_words(np.ascontiguousarray(seen[:, number]))
                for one, other, distance in cross_join(cut, old, RADIUS, self.workers):
                    self._note(one, other + place, distance, number + views.BOTH)

    def _insides(self) -> dict[int, bytes]:
        """Returns number -> hash of what is inside the border, for the pictures that have one."""
        found = {}
        for place, seen in chain([(0, self.views)], self._old_views()):
            for number, inside in enumerate(seen[:, views.INSIDE], place):
                if (value := inside.tobytes()) != self.values[number]:
                    found[number] = value
        return found

    def _join_views(self, seen: np.ndarray, start: int, words: np.ndarray, insides: dict[int, bytes]) -> None:
        """Views of the pictures numbered from `start` against hashes, and against what is inside borders."""
        used = np.ascontiguousarray(seen[:, : self.used]).reshape(-1, _WIDTH)
        queries = to_words(used)
        owners, numbers = np.divmod(np.arange(len(queries)), self.used)
        for row, column, distance in cross_join(queries, words, RADIUS, self.workers):
            self._note(owners[row] + start, column, distance, numbers[row])
        if insides:
            owner = np.array(list(insides))
            packed = to_words(np.frombuffer(b"".join(insides.values()), np.uint8).reshape(-1, _WIDTH))
            for row, column, distance in cross_join(queries, packed, RADIUS, self.workers):
                self._note(owners[row] + start, owner[column], distance, numbers[row], inside=True)

    def _note(
        self, one: np.ndarray, other: np.ndarray, distance: np.ndarray, view: np.ndarray | int, inside: bool = False
    ) -> None:
        """Keeps the best way in which two pictures are near: as they are, else the view with the smallest distance."""
        numbers = np.broadcast_to(view, len(one))
        first, second = self.rank[one], self.rank[other]
        pairs = np.minimum(first, second) * len(self.ordered) + np.maximum(first, second)
        flipped = first > second
        order = np.lexsort((flipped, numbers, distance, pairs))
        order = order[np.diff(pairs[order], prepend=-1) != 0]
        order = order[first[order] != second[order]]
        columns = (*np.divmod(pairs[order], len(self.ordered)), distance[order], numbers[order], flipped[order])
        for low, high, bits, number, turned in zip(*(values.tolist() for values in columns), strict=True):
            key = (self.ordered[low], self.ordered[high])
            known = self.found.get(key)
            way = (bits, number, turned)
            if not known or (known.view != PLAIN and (known.distance, known.view, known.flipped) > way):
                self.found[key] = NearPair(*key, *way, inside)


def flat_cell(buffers: bytes) -> Cell:
    """Flat pictures have no hash: only those whose buffers are equal are looked at together."""
    return ("flat", hashlib.blake2b(buffers, digest_size=16).digest())


@dataclass
class HashCells:
    """The cell of every hash and the cells within a radius, nearest first.

    hashes  content -> hash
    """

    hashes: Mapping[str, bytes]
    around: dict[bytes, list[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(list))
    seen_as: dict[tuple[bytes, bytes], NearPair] = field(default_factory=dict)

    def add(self, pair: NearPair) -> None:
        self.around[pair.one].append((pair.distance, pair.other))
        self.around[pair.other].append((pair.distance, pair.one))
        if pair.view != PLAIN:
            self.seen_as[pair.one, pair.other] = pair

    def ready(self) -> HashCells:
        """Sorts the pairs once all are there."""
        for near in self.around.values():
            near.sort()
        return self

    def cell(self, content: str) -> Cell | None:
        value = self.hashes.get(content)
        return None if value is None else ("hash", value)

    def near(self, content: str, radius: int | None = None) -> list[Cell]:
        """Returns the content's own cell and those around it, nearest first; ties in the order of the hashes.

        With a radius only those that lie within it as they are.
        """
        own = self.hashes.get(content)
        if own is None:
            return []
        found = self.around.get(own, ())
        if radius is not None:
            found = [(d, v) for d, v in found if d <= radius and (min(own, v), max(own, v)) not in self.seen_as]
        return [("hash", own), *(("hash", value) for _, value in found)]

    def how(self, one: str, other: str) -> NearPair | None:
        """Returns how two contents were found near each other, where it is not as they are."""
        a, b = self.hashes.get(one), self.hashes.get(other)
        return self.seen_as.get((min(a, b), max(a, b))) if a and b else None


def crowded(cells: Sequence[Sequence[Cell]], near: Callable[[int], Sequence[Cell]]) -> list[int]:
    """Returns the numbers of the files that share a cell with another file or lie near an occupied one."""
    count: dict[Cell, int] = defaultdict(int)
    for own in cells:
        for cell in own:
            count[cell] += 1
    return [
        number
        for number, own in enumerate(cells)
        if any(count[cell] > 1 for cell in own) or any(cell not in own and cell in count for cell in near(number))
    ]


def related(cells: Mapping[int, Sequence[Cell]]) -> list[list[int]]:
    """Returns files in sets that share no cell, in the order of the numbers, by the cells each lies in or near."""
    leader: dict[Cell, Cell] = {}

    def find(cell: Cell) -> Cell:
        while (above := leader.setdefault(cell, cell)) != cell:
            leader[cell] = leader[above]
            cell = above
        return cell

    for own in cells.values():
        first = find(own[0])
        for cell in own[1:]:
            leader[find(cell)] = first
    parts: dict[Cell, list[int]] = defaultdict(list)
    for number, own in cells.items():
        parts[find(own[0])].append(number)
    return list(parts.values())


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
    vectors = _embeddings(context, options, places)
    contents = sorted(vectors)
    found = Likeness({content: [] for content in contents})
    if not contents:
        return found
    matrix = np.stack([vectors[content] for content in contents])
    for one, other, distance in _near_rows(matrix, options.least_cosine):
        found.near[contents[one]].append((distance, contents[other]))
        found.near[contents[other]].append((distance, contents[one]))
    for near in found.near.values():
        near.sort()
    return found


def _near_rows(matrix: np.ndarray, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows of a float32 array of unit vectors whose cosine is at least `least`; never a full matrix."""
    for top in range(0, len(matrix), VECTORS):
        for left in range(top, len(matrix), VECTORS):
            cosines = matrix[top : top + VECTORS] @ matrix[left : left + VECTORS].T
            for i, j in zip(*np.nonzero(cosines >= least), strict=True):
                if i + top < j + left:
                    yield int(i + top), int(j + left), round(max(0.0, 1.0 - float(cosines[i, j])), 4)


def _embeddings(context: Context, options: DedupOptions, places: Mapping[str, Path]) -> dict[str, np.ndarray]:
    from lib.models.batches import BatchPipeline
    from lib.models.clip import load_clip, vector_of

    require("open_clip")
    clip = load_clip(options.clip_model, weights_folder(options.models_dir), options.device)
    metric = f"clip {clip.name}"
    key = (metric, clip.version, sorted(places))
    unseen = unchecked_grounds(context.db, *key)
    found = {c: vector_of(v) for c, v in known_vectors(context.db, *key).items() if c not in unseen}
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
