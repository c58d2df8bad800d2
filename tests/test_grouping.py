"""Keeper first: the invariants of the grouping over random relations, and the chains that other tools fall for."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.dedup.grouping import EXACT_TO_SAME, STRENGTH, Candidates, Decision, Relation, cover
from lib.dedup.near import related


@dataclass
class World:
    """Files 0..n-1 with true ranks, optimistic ranks that are never worse, and relations between pairs of them."""

    ranks: list[int]
    optimism: list[int]
    relations: dict[frozenset[int], Relation]
    protected: set[int]
    cells: list[str]
    judged: set[tuple[int, int]] = field(default_factory=set)
    said_to_go: set[int] = field(default_factory=set)

    def key(self, item: int) -> tuple[bool, int, int]:
        return (item not in self.protected, self.ranks[item], item)

    def run(
        self, order: list[int], removed: frozenset[str], *, optimistic: bool = True
    ) -> dict[int, dict[int, Decision]]:
        first = {i: (self.key(f)[0], self.ranks[f] - self.optimism[f] * optimistic, f) for i, f in enumerate(order)}
        found = cover(Ordered(self, order), first, removed)
        return {order[k]: {order[v.item]: v for v in verdicts} for k, verdicts in found.items()}


@dataclass
class Ordered(Candidates):
    """The same world with its files given in another order."""

    world: World
    order: list[int]

    def refine(self, number: int, goes: Callable[[int], bool]) -> tuple[bool, int, int]:
        self.world.said_to_go |= {self.order[n] for n in range(len(self.order)) if n != number and goes(n)}
        return self.world.key(self.order[number])

    def cells(self, number: int) -> list[Hashable]:
        return [("content", self.order[number]), self.world.cells[self.order[number]]]

    def neighbours(self, number: int) -> list[str]:
        return sorted(set(self.world.cells))

    def relation(self, keeper: int, other: int) -> Relation | None:
        pair = self.order[keeper], self.order[other]
        self.world.judged.add(pair)
        return self.world.relations.get(frozenset(pair))

    def is_protected(self, number: int) -> bool:
        return self.order[number] in self.world.protected


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(2, 14))
    pairs = [frozenset((a, b)) for a in range(count) for b in range(a)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=40))
    relations = {
        pair: Relation(
            draw(st.sampled_from(STRENGTH)), draw(st.integers(0, 64)), blocked=draw(st.sampled_from(["", "", "no"]))
        )
        for pair in chosen
    }
    return World(
        ranks=draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)),
        optimism=draw(st.lists(st.sampled_from([0, 0, 3, 9]), min_size=count, max_size=count)),
        relations=relations,
        protected=draw(st.sets(st.integers(0, count - 1), max_size=4)),
        cells=draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count)),
    )


KINDS = st.sets(st.sampled_from(STRENGTH), max_size=6).map(frozenset)


@settings(max_examples=400, deadline=None)
@given(worlds(), KINDS)
def test_a_file_goes_only_for_one_that_stays_and_was_compared_with_it(world: World, removed: frozenset[str]):
    groups = world.run(list(range(len(world.ranks))), removed)
    going = {item for members in groups.values() for item, v in members.items() if v.decision == "remove"}
    for keeper, members in groups.items():
        assert keeper not in going, "a keeper goes too"
        for item, verdict in members.items():
            assert (keeper, item) in world.judged, "never compared"
            assert verdict.relation == world.relations[frozenset((keeper, item))]
            if verdict.decision == "remove":
                assert verdict.relation.kind in removed and not verdict.relation.blocked
    assert not going & world.protected
    assert world.said_to_go <= going, "taken for gone while an order was found out, and stays"
    assert sum(len(members) for members in groups.values()) == len(set().union(*groups.values()))


@settings(max_examples=200, deadline=None)
@given(worlds(), KINDS, st.randoms(use_true_random=False))
def test_the_order_of_the_input_makes_no_difference(world: World, removed: frozenset[str], shuffler: random.Random):
    order = list(range(len(world.ranks)))
    expected = world.run(order, removed)
    shuffler.shuffle(order)
    found = world.run(order, removed)
    decisions = [
        {(k, i): (v.decision, v.relation) for k, members in groups.items() for i, v in members.items()}
        for groups in (expected, found)
    ]
    assert decisions[0] == decisions[1]


@settings(max_examples=200, deadline=None)
@given(worlds(), KINDS)
def test_late_measuring_removes_what_measuring_everything_first_would(world: World, removed: frozenset[str]):
    order = list(range(len(world.ranks)))
    going = [
        {i for members in world.run(order, removed, optimistic=how).values() for i, v in members.items()
         if v.decision == "remove"}
        for how in (True, False)
    ]  # fmt: skip
    assert going[0] == going[1]


def chain(*ranks: int, protected: set[int] | None = None) -> World:
    """A repeats B and B repeats C, but A and C have nothing to do with each other."""
    same = Relation("same", 30)
    relations = {frozenset((0, 1)): same, frozenset((1, 2)): same}
    return World(list(ranks), [0] * 3, relations, protected or set(), ["a"] * 3)


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (chain(1, 0, 2), {1: {0, 2}}),  # the middle is best: both ends match it
        (chain(0, 1, 2), {0: {1}}),  # an end is best: the other end stays, although it matched the middle
        (chain(2, 1, 0), {2: {1}}),
        (chain(0, 1, 2, protected={2}), {2: {1}}),
        (chain(0, 1, 2, protected={1}), {1: {0, 2}}),
    ],
)
def test_chains_are_cut_where_nothing_was_compared(world: World, expected: dict[int, set[int]]):
    groups = world.run([0, 1, 2], EXACT_TO_SAME)
    assert {k: {i for i, v in members.items() if v.decision == "remove"} for k, members in groups.items()} == expected


def test_what_is_shown_for_review_stays_and_can_be_a_keeper():
    world = World([0, 1, 2], [0] * 3, {}, set(), ["a"] * 3)
    world.relations = {frozenset((0, 1)): Relation("edited", 50), frozenset((1, 2)): Relation("bytes", 0)}
    groups = world.run([0, 1, 2], EXACT_TO_SAME)
    assert groups[0][1].decision == "review"
    assert groups[1][2].decision == "remove"


def test_many_copies_cost_one_comparison_each():
    count = 500
    everything = {frozenset((a, b)): Relation("same", 0) for a in range(count) for b in range(a)}
    world = World(list(range(count)), [0] * count, everything, set(), ["a"] * count)
    assert len(world.run(list(range(count)), EXACT_TO_SAME)[0]) == count - 1
    assert len(world.judged) == count - 1
    world.judged.clear()
    world.run(list(range(count)), frozenset())  # nothing is to be removed: still no square
    assert len(world.judged) == count - 1


@given(st.dictionaries(st.integers(0, 20), st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=3)))
def test_files_that_share_no_cell_are_grouped_apart(cells: dict[int, list[str]]):
    parts = related(cells)
    assert sorted(number for part in parts for number in part) == sorted(cells)
    places = [{cell for number in part for cell in cells[number]} for part in parts]
    assert all(one.isdisjoint(other) for one, other in combinations(places, 2))
    for part in parts:  # and no set could be divided
        reached = set(cells[part[0]])
        for _ in part:
            reached |= {cell for number in part if reached & set(cells[number]) for cell in cells[number]}
        assert all(reached & set(cells[number]) for number in part)
