"""Keeper first: files are taken best first, and one goes only if it directly repeats a file that stays.

Chains are the trap: A repeats B and B repeats C, but C is another picture than A. Connected components would lose C.
Here C goes only if it was compared with the very file that stays in its place.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# From the strongest kind of repeat to the weakest.
STRENGTH = ("bytes", "pixels", "same", "edited", "semantic", "filename")
EXACT_TO_SAME = frozenset(STRENGTH[:3])
# A cell of thousands of pictures that hash alike and are all different (forms, charts) must not cost its square.
MOST_COMPARISONS = 64


@dataclass(frozen=True)
class Relation:
    """What a file is to a keeper. `blocked` says why the file must stay although it repeats the keeper."""

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


@dataclass
class Candidates:
    """What `cover` asks about the files 0..n-1.

    keys     the keep key of each file, smaller is better; all different. May be too good, never too bad.
    refine   the true key of a file; asked only where its rank could matter
    cells    where each file can be found: files that share a cell are candidates
    near     the cells in which a file looks for what it repeats, nearest first
    judge    what the second file is to the first, a file that stays; None for nothing
    protected  files that stay in any case
    could_be_one  whether two files may be found to be such a repeat that one of them goes; asked before `judge`
    rivals   the cells in which a file's rank could decide who goes
    stands   whether others may be found to repeat a file
    """

    keys: Sequence[tuple[Any, ...]]
    refine: Callable[[int], tuple[Any, ...]]
    cells: Callable[[int], Sequence[Hashable]]
    near: Callable[[int], Iterable[Hashable]]
    judge: Callable[[int, int], Relation | None]
    protected: Callable[[int], bool]
    could_be_one: Callable[[int, int], bool] = lambda keeper, other: True
    rivals: Callable[[int], Iterable[Hashable]] | None = None
    stands: Callable[[int], bool] = lambda number: True


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
    items: Candidates, removed: frozenset[str], stopping: Callable[[], bool] = lambda: False
) -> dict[int, list[Decision]]:
    """Keepers with the files that repeat them. `removed` are the kinds of repeat that are taken away.

    The answer does not depend on the order of the input, only on the keys. For every verdict `remove` its keeper stays
    and was judged against that very file; a protected file is never removed.
    """
    queue = [(key, number, False) for number, key in enumerate(items.keys)]
    heapq.heapify(queue)
    kept, waiting = _Kept(), Counter(cell for number in range(len(items.keys)) for cell in items.cells(number))
    groups: dict[int, list[Decision]] = {}
    while queue and not stopping():
        _, number, refined = heapq.heappop(queue)
        keeper, verdict = _look_up(items, kept, number, removed)
        if verdict is not None and verdict.decision == "remove":
            # Its true place in the order is later still, where at least the same files stay: it would go there too.
            groups.setdefault(keeper, []).append(verdict)
            waiting.subtract(items.cells(number))
            continue
        if not refined and _is_awaited(items, waiting, number):
            heapq.heappush(queue, (items.refine(number), number, True))
            continue
        waiting.subtract(items.cells(number))
        if verdict is not None:
            groups.setdefault(keeper, []).append(verdict)
        if items.stands(number):
            kept.add(number, _cells_as_keeper(items.cells(number), verdict))
    return groups


def _is_awaited(items: Candidates, waiting: Counter[Hashable], number: int) -> bool:
    """Whether a file that is still to come could be compared with this one: else its rank makes no difference."""
    own = set(items.cells(number))
    rivals = items.rivals or items.near
    return any(waiting[cell] > (cell in own) for cell in rivals(number))


def _look_up(items: Candidates, kept: _Kept, number: int, removed: frozenset[str]) -> tuple[int, Decision | None]:
    """The file that stays and that `number` repeats: the first for which it may go, else the strongest relation."""
    protected = items.protected(number)
    best: tuple[tuple[int, float], int, Relation] | None = None
    others: list[int] = []
    for keeper in kept.candidates(items.near(number)):
        if not items.could_be_one(keeper, number):
            others.append(keeper)
            continue
        relation = items.judge(keeper, number)
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
        if (relation := items.judge(keeper, number)) is not None:
            best = ((STRENGTH.index(relation.kind), relation.distance), keeper, relation)
            break
    if best is None:
        return -1, None
    _, keeper, relation = best
    return keeper, _staying(number, relation, protected and relation.kind in removed)


def _staying(number: int, relation: Relation, protected: bool) -> Decision:
    if protected:
        return Decision(number, relation, "keep", "protected")
    if relation.blocked:
        return Decision(number, relation, "keep", relation.blocked)
    return Decision(number, relation, "review", relation.reason)


def _cells_as_keeper(cells: Sequence[Hashable], verdict: Decision | None) -> Sequence[Hashable]:
    """A file that stays for review, although it repeats another in full, stands in only for its own bytes.

    Its copies find the other file as well; without this, k copies that nobody wants removed cost k * k comparisons.
    """
    if verdict is None or verdict.decision == "keep" or verdict.relation.kind not in EXACT_TO_SAME:
        return cells
    return cells[:1] if verdict.relation.kind != "bytes" else ()
