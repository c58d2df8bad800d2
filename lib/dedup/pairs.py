"""Which contents are near enough to be looked at together: cells that files share, and cells that lie close by."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from lib.hashing import dct
from lib.hashing.hamming import collapse, self_join, to_words
from lib.progress import BarFactory, no_bar

Cell = Hashable


def content_cell(sha256: str) -> Cell:
    return ("content", sha256)


def flat_cell(buffers: bytes) -> Cell:
    """Flat pictures have no hash: only those whose buffers are equal are looked at together."""
    return ("flat", hashlib.blake2b(buffers, digest_size=16).digest())


def name_cell(image: str) -> Cell:
    return ("name", image)


class HashCells:
    """The cell of every hash and the cells within a radius, nearest first."""

    def __init__(self, hashes: Mapping[str, bytes], radius: int, bar: BarFactory = no_bar):
        """`hashes`: content -> 32 bytes. Runs the whole search; memory grows with the pairs found, not with n * n."""
        self.radius = radius
        contents = list(hashes)
        packed = np.frombuffer(b"".join(hashes[c] for c in contents), np.uint8).reshape(-1, dct.BITS // 8)
        distinct, where = collapse(packed) if contents else (packed, np.empty(0, np.int64))
        self.cell_of = {content: ("hash", int(number)) for content, number in zip(contents, where, strict=True)}
        self.around: dict[int, list[tuple[int, int]]] = defaultdict(list)
        with bar(len(distinct), "Comparing", "hash") as progress:
            seen = 0
            for rows, columns, distances in self_join(to_words(distinct), radius):
                self._note(rows, columns, distances)
                if (newest := int(columns.max())) > seen:
                    progress.update(newest - seen)
                    seen = newest
        for near in self.around.values():
            near.sort()

    def _note(self, rows: np.ndarray, columns: np.ndarray, distances: np.ndarray) -> None:
        for row, column, distance in zip(rows.tolist(), columns.tolist(), distances.tolist(), strict=True):
            self.around[row].append((distance, column))
            self.around[column].append((distance, row))

    def near(self, content: str) -> list[Cell]:
        """The content's own cell and those around it, nearest first; ties in the order of the hashes."""
        own = self.cell_of.get(content)
        if own is None:
            return []
        return [own, *(("hash", number) for _, number in self.around.get(own[1], ()))]


def crowded(cells: Sequence[Sequence[Cell]], near: Callable[[int], Sequence[Cell]]) -> list[int]:
    """The numbers of the files that share a cell with another file or lie near an occupied one."""
    count: dict[Cell, int] = defaultdict(int)
    for own in cells:
        for cell in own:
            count[cell] += 1
    return [
        number
        for number, own in enumerate(cells)
        if any(count[cell] > 1 for cell in own) or any(cell not in own and cell in count for cell in near(number))
    ]
