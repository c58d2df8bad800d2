"""Keeper first: files are taken best first, and one goes only if it directly repeats a file that stays.

Chains are the trap: A repeats B and B repeats C, but C is another picture than A. Connected components would lose C.
Here C goes only if it was compared with the very file that stays in its place.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# From the strongest kind of repeat to the weakest.
PROTECTED = "protected"  # why a file stays
STRENGTH = ("bytes", "pixels", "same", "edited", "semantic", "filename")
EXACT_TO_SAME = frozenset(STRENGTH[:3])
# A cell of thousands of pictures that hash alike and are all different (forms, charts) must not cost its square.
MOST_COMPARISONS = 64

Key = tuple[Any, ...]  # the place of a file in the order in which files are kept


@dataclass(frozen=True)
class Relation:
    """The relation of a file to a keeper. `blocked` says why the file must stay although it repeats the keeper."""

    kind: str
    distance: float
    reason: str = ""
    blocked: str = ""

    @property
    def known(self) -> tuple[str, float, str, str]:
        """As it is remembered."""
        return self.kind, self.distance, self.reason, self.blocked


@dataclass(frozen=True)
class Decision:
    """A file that is not its group's keeper, by number, with what is to become of it."""

    item: int
    relation: Relation
    decision: str  # remove, review or keep
    reason: str


class Candidates(ABC):
    """The files that `cover` groups, by their numbers. A file lies in cells: files that share one are candidates."""

    @abstractmethod
    def refine(self, number: int, goes: Callable[[int], bool]) -> Key:
        """Returns the true keep key of a file; asked only where its rank could matter.

        `goes` tells of another file whether it has gone or goes in any case, for one that stays already.
        """

    @abstractmethod
    def cells(self, number: int) -> Sequence[Hashable]:
        """Returns the cells in which a file can be found."""

    @abstractmethod
    def neighbours(self, number: int) -> Iterable[Hashable]:
        """Returns the cells in which a file looks for what it repeats, nearest first."""

    @abstractmethod
    def relation(self, keeper: int, other: int) -> Relation | None:
        """Returns what the second file is to the first, a file that stays; None for nothing."""

    @abstractmethod
    def is_protected(self, number: int) -> bool:
        """Says of a file that it stays in any case."""

    def may_match(self, keeper: int, other: int) -> bool:
        """Says whether one of two files may go for the other; asked before `relation`."""
        return True

    def size_rivals(self, number: int) -> Iterable[Hashable]:
        """Returns the cells in which a file's rank could decide who goes."""
        return self.neighbours(number)

    def can_be_keeper(self, number: int) -> bool:
        """Says whether others may be found to repeat a file."""
        return True


@dataclass
class _Kept:
    """The files that stay, by cell, in the order in which they were taken."""

    by_cell: dict[Hashable, list[int]] = field(default_factory=dict)
    place: dict[int, int] = field(default_factory=dict)

    def add(self, item: int, cells: Iterable[Hashable]) -> None:
        self.place[item] = len(self.place)
        for cell in cells:
            self.by_cell.setdefault(cell, []).append(item)

    def candidates(self, cells: Iterable[Hashable]) -> Iterable[int]:
        seen: set[int] = set()
        for cell in cells:
            for item in self.by_cell.get(cell, ()):
                if item not in seen:
                    seen.add(item)
                    yield item
                    if len(seen) >= MOST_COMPARISONS:
                        return


def cover(
    candidates: Candidates,
    keys: Mapping[int, Key],
    removed: frozenset[str],
    stopping: Callable[[], bool] = lambda: False,
) -> dict[int, list[Decision]]:
    """Returns keepers with the files that repeat them. `removed` are the kinds of repeat that are taken away.

    `keys` holds the keep key of each file, smaller is better; all different. A key may be too good, never too bad.
    The answer does not depend on the order of the input, only on the keys. For every decision `remove` its keeper stays
    and was judged against that very file; a protected file is never removed.
    """
    queue = [(key, number, False) for number, key in keys.items()]
    heapq.heapify(queue)
    kept, waiting = _Kept(), Counter(cell for number in keys for cell in candidates.cells(number))
    groups: dict[int, list[Decision]] = {}
    to_come, going = set(keys), set[int]()

    def goes(number: int) -> bool:
        if number in to_come and number not in going:
            decision = _look_up(candidates, kept, number, removed)[1]
            if decision is not None and decision.decision == "remove":
                going.add(number)  # and for good: what stays already does so to the end
        return number in going

    while queue and not stopping():
        _, number, refined = heapq.heappop(queue)
        keeper, decision = _look_up(candidates, kept, number, removed)
        if decision is not None and decision.decision == "remove":
            # Its true place in the order is later still, where at least the same files stay: it would go there too.
            going.add(number)
            groups.setdefault(keeper, []).append(decision)
            waiting.subtract(candidates.cells(number))
            continue
        # Where no file that is still to come can be compared with this one, its rank changes nothing.
        own, rivals = set(candidates.cells(number)), candidates.size_rivals
        if not refined and any(waiting[cell] > (cell in own) for cell in rivals(number)):
            heapq.heappush(queue, (candidates.refine(number, goes), number, True))
            continue
        waiting.subtract(candidates.cells(number))
        to_come.discard(number)
        if decision is not None:
            groups.setdefault(keeper, []).append(decision)
        if candidates.can_be_keeper(number):
            cells = candidates.cells(number)
            if decision and decision.decision == "review" and decision.relation.kind in EXACT_TO_SAME:
                # It repeats another file in full, so that it stands in only for its own bytes: its copies find the
                # other file as well. Without this, k copies that nobody wants removed cost k * k comparisons.
                cells = cells[:1] if decision.relation.kind != "bytes" else ()
            kept.add(number, cells)
    return groups


def _look_up(candidates: Candidates, kept: _Kept, number: int, removed: frozenset[str]) -> tuple[int, Decision | None]:
    """Returns the file that stays and that `number` repeats: the first for which it may go, else the nearest one."""
    protected = candidates.is_protected(number)
    best: tuple[tuple[int, float], int, Relation] | None = None
    others: list[int] = []
    for keeper in kept.candidates(candidates.neighbours(number)):
        if not candidates.may_match(keeper, number):
            others.append(keeper)
            continue
        relation = candidates.relation(keeper, number)
        if relation is None:
            continue
        if relation.kind in removed and not relation.blocked and not protected:
            return keeper, Decision(number, relation, "remove", relation.reason)
        rank = (STRENGTH.index(relation.kind), relation.distance)
        if best is None or rank < best[0]:
            best = (rank, keeper, relation)
    # What can only be shown is shown with the best file that it has to do with: to compare many edited copies of one
    # picture with one another would cost their square.
    for keeper in sorted(others, key=kept.place.__getitem__) if best is None else ():
        if (relation := candidates.relation(keeper, number)) is not None:
            return keeper, _staying(number, relation, protected and relation.kind in removed)
    if best is None:
        return -1, None
    _, keeper, relation = best
    return keeper, _staying(number, relation, protected and relation.kind in removed)


def _staying(number: int, relation: Relation, protected: bool) -> Decision:
    if protected:
        return Decision(number, relation, "keep", PROTECTED)
    if relation.blocked:
        return Decision(number, relation, "keep", relation.blocked)
    return Decision(number, relation, "review", relation.reason)
