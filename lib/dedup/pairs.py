"""Which contents are near enough to be looked at together: cells that files share, and cells that lie close by."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from lib.db.near import NearPair

Cell = Hashable
PLAIN = -1  # the number of the view that is none


def content_cell(sha256: str) -> Cell:
    return ("content", sha256)


def flat_cell(buffers: bytes) -> Cell:
    """Flat pictures have no hash: only those whose buffers are equal are looked at together."""
    return ("flat", hashlib.blake2b(buffers, digest_size=16).digest())


def name_cell(image: str) -> Cell:
    return ("name", image)


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
        """To be called once all pairs are there."""
        for near in self.around.values():
            near.sort()
        return self

    def cell(self, content: str) -> Cell | None:
        value = self.hashes.get(content)
        return None if value is None else ("hash", value)

    def near(self, content: str, radius: int | None = None) -> list[Cell]:
        """The content's own cell and those around it, nearest first; ties in the order of the hashes.

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
        """How two contents were found near each other, where it is not as they are."""
        a, b = self.hashes.get(one), self.hashes.get(other)
        return self.seen_as.get((min(a, b), max(a, b))) if a and b else None


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


def related(cells: Mapping[int, Sequence[Cell]]) -> list[list[int]]:
    """Files in sets that share no cell, in the order of the numbers, by the cells that each lies in or near to."""
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
