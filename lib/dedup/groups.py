"""From files to groups of repeats: fingerprints, candidates, keeper first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.db.hashes import known_apart, known_relations, remember_relations
from lib.dedup.compare import colourless
from lib.dedup.fingerprints import ALGORITHM, BATCH, FingerprintStore
from lib.dedup.grouping import Candidates, Decision, cover
from lib.dedup.judge import Judge, MatchOptions, RealSizes
from lib.dedup.keep import Facts, is_below, keep_key, read_facts, with_sidecar
from lib.dedup.near import (
    HashCells,
    cells_with_views,
    content_cell,
    crowded,
    flat_cell,
    name_cell,
    plain_cells,
    related,
)
from lib.dedup.semantic import Likeness
from lib.files.names import read_any_name
from lib.files.pictures import PictureFile
from lib.progress import BarFactory, no_bar
from lib.work.stream import in_threads


@dataclass(frozen=True)
class KeepPolicy:
    """What stays and what goes. `protected` are real paths; `roots` are the folders in the order given."""

    looking: MatchOptions
    removed: frozenset[str]
    keep: str = "best"
    protected: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    references: frozenset[Path] = frozenset()  # files that are compared against and never touched
    only_references: bool = False  # whether nothing but these is asked what repeats it
    likeness: Likeness | None = None


@dataclass(frozen=True)
class Member:
    """A file of a group that is not its keeper. `distance` is in bits of 256."""

    file: PictureFile
    facts: Facts
    kind: str
    distance: float
    decision: str
    reason: str


@dataclass(frozen=True)
class DuplicateGroup:
    """A keeper and the files that repeat it."""

    number: int
    keeper: PictureFile
    facts: Facts
    members: tuple[Member, ...]


def find_groups(
    files: Sequence[PictureFile],
    prints: FingerprintStore,
    policy: KeepPolicy,
    *,
    workers: int = 1,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> list[DuplicateGroup]:
    """The groups among readable files, in the order of their keepers' paths. Broken pictures are in none."""
    whole = [file for file in files if file.sha256 not in prints.broken]
    search = GroupSearch(whole, prints, policy, workers, bar)
    busy = search.busy()
    if not busy:
        return []
    search.prepare(busy)
    groups = search.cover(busy, stopping, workers)
    search.remember()
    return search.as_groups(groups)


class GroupSearch:
    """The candidates among a set of files, and what the grouping asks about them."""

    def __init__(
        self, files: Sequence[PictureFile], prints: FingerprintStore, policy: KeepPolicy, workers: int, bar: BarFactory
    ):
        self.files, self.prints, self.policy = files, prints, policy
        self.references = frozenset(n for n, file in enumerate(files) if file.path in policy.references)
        self.hash_cells = self._hash_cells(workers, bar)
        self.flat = self._flat_cells() if policy.looking.pictures else {}
        self.real_pixels: dict[str, int] = {}
        self.facts: dict[int, Facts] = {}
        self.protected: dict[int, bool] = {}
        self._cells: dict[int, list[Hashable]] = {}  # of the busy files

    def _hash_cells(self, workers: int, bar: BarFactory) -> HashCells:
        looking, prints = self.policy.looking, self.prints
        if not looking.pictures:
            return HashCells({})
        hashes = {f.sha256: h for f in self.files if (h := prints.hashes.get(f.sha256))}
        if not (looking.similar and looking.hash.is_ours):
            return plain_cells(hashes, looking.review_bits, workers, bar)
        return cells_with_views(
            hashes, prints.buffers, prints.db, ALGORITHM, remember=prints.remember, workers=workers, bar=bar
        )

    def _flat_cells(self) -> dict[str, Hashable]:
        flat = {f.sha256 for f in self.files if f.sha256 in self.prints.hashes and not self.prints.hashes[f.sha256]}
        if len(flat) < 2:
            return {}
        self.prints.load(flat)
        return {c: flat_cell(data) for c in sorted(flat) if (data := self.prints.packed(c))}

    def cells(self, number: int) -> list[Hashable]:
        """The content's cell first."""
        if number in self._cells:
            return self._cells[number]
        found: list[Hashable] = []
        file = self.files[number]
        if self.policy.looking.pictures:
            found.append(content_cell(file.sha256))
            found += [c for c in (self.hash_cells.cell(file.sha256), self.flat.get(file.sha256)) if c]
        if self.policy.looking.names and (name := read_any_name(file.path.name)):
            found.append(name_cell(name.image))
        return found

    def near(self, number: int) -> list[Hashable]:
        return list(dict.fromkeys([*self.cells(number)[:1], *self._beyond(number)]))

    def _beyond(self, number: int) -> list[Hashable]:
        likeness = self.policy.likeness
        alike = likeness.near.get(self.files[number].sha256, ()) if likeness else ()
        return [*self._near_hashes(number), *(content_cell(content) for _, content in alike)]

    def _near_hashes(self, number: int) -> list[Hashable]:
        return [*self.hash_cells.near(self.files[number].sha256), *self.cells(number)]

    def rivals(self, number: int) -> list[Hashable]:
        """Where the files are that may turn out to be the same picture in another size.

        Only between these the share of the size that is real decides anything.
        """
        if "edited" in self.policy.removed:
            return self.near(number)
        own = {self.facts[number].pixels}
        return [cell for cell in self.same(number) if self.sizes.get(cell, own) != own]

    def same(self, number: int) -> list[Hashable]:
        """The cells in which the same picture may be found."""
        return [*self.hash_cells.near(self.files[number].sha256, self.policy.looking.same_bits), *self.cells(number)]

    def busy(self) -> list[int]:
        """The files that have a candidate at all: only these are looked at more closely."""
        return crowded([self.cells(n) for n in range(len(self.files))], self.near)

    def prepare(self, busy: Sequence[int]) -> None:
        roots = {root: place for place, root in reversed(list(enumerate(self.policy.roots)))}
        self._cells = {n: self.cells(n) for n in busy}
        self.judge = self._judge()
        self.priority = {n: roots.get(self.files[n].root, len(roots)) for n in busy}
        self.facts = {n: self._facts(self.files[n]) for n in busy}
        self.sizes: dict[Hashable, set[int]] = defaultdict(set)
        for n in busy:
            for cell in self.cells(n):
                self.sizes[cell].add(self.facts[n].pixels)
        self.protected = {n: n in self.references or is_below(self.files[n].path, self.policy.protected) for n in busy}
        self.inhabitants: dict[Hashable, list[int]] = defaultdict(list)
        for n in busy:
            for cell in self.cells(n):
                self.inhabitants[cell].append(n)
        if self.policy.looking.pictures:
            self.prints.load({self.files[n].sha256 for n in busy})
            self.real_sizes = RealSizes(self.prints, {self.files[n].sha256 for n in busy})
        self.best_keys = {n: self.key(n) for n in busy}

    def _facts(self, file: PictureFile) -> Facts:
        known = self.prints.facts(file.sha256)
        return with_sidecar(file.path, known) if known else read_facts(file.path)

    def key(self, number: int, real_pixels: int | None = None) -> tuple[Any, ...]:
        """The file's place in the order; without the size that is real as good as it may be."""
        return keep_key(
            self.files[number],
            self.facts[number],
            keep=self.policy.keep,
            protected=self.protected[number],
            priority=-1 if number in self.references else self.priority[number],
            colourless=self._colourless(number),
            real_pixels=real_pixels,
        )

    def _colourless(self, number: int) -> bool:
        picture = self.prints.picture(self.files[number].sha256) if self.policy.looking.pictures else None
        return picture is not None and colourless(picture)

    def _refined(self, number: int) -> tuple[Any, ...]:
        """The key with the size that is real, which takes a full decode of the file and of its best smaller copies."""
        if self.policy.keep != "best" or not self.policy.looking.similar:
            return self.key(number)
        return self.key(number, self._real_pixels(number))

    def _real_pixels(self, number: int) -> int:
        content = self.files[number].sha256
        if content not in self.real_pixels:
            own = self.facts[number].pixels
            # By hash alone: names may differ between files of one content, and this is the content's.
            cells = self.hash_cells.near(content, self.policy.looking.same_bits)
            near = (n for cell in cells for n in self.inhabitants.get(cell, ()) if self.facts[n].pixels < own)
            at: dict[str, int] = {}
            for n in sorted(near, key=self.best_keys.__getitem__):
                at.setdefault(self.files[n].sha256, n)
            # Of each size by turns what looks most like it (whatever its tone) and what is encoded best.
            alike = {c: rank for rank, c in enumerate(sorted(at, key=lambda c: -self._alike(content, c)))}
            best = {c: rank for rank, c in enumerate(at)}
            at = dict(sorted(at.items(), key=lambda i: (-self.facts[i[1]].pixels, min(alike[i[0]], best[i[0]]))))
            copies = [(copy, self.facts[at[copy]].pixels) for copy in at]
            self.real_pixels[content] = self.real_sizes.pixels(
                content,
                own,
                copies,
                lambda copy: self._real_pixels(at[copy]),
                lambda copy: self.judge.same(at[copy], number),
            )
        return self.real_pixels[content]

    def _alike(self, one: str, other: str) -> float:
        a, b = self.prints.picture(one), self.prints.picture(other)
        return -1.0 if a is None or b is None else float(a.outline @ b.outline)

    def cover(self, busy: Sequence[int], stopping: Callable[[], bool], workers: int) -> dict[int, list[Decision]]:
        """Keepers with the files that repeat them, by number; each set of files that may repeat one another by itself.

        What one set needs then lies together: its pictures are decoded once and forgotten.
        """

        def covered(part: list[int]) -> dict[int, list[Decision]]:
            found = cover(self.items(part), self.policy.removed, stopping).items()
            return {part[keeper]: [replace(v, item=part[v.item]) for v in verdicts] for keeper, verdicts in found}

        groups: dict[int, list[Decision]] = {}
        parts = related({n: self.near(n) for n in busy})
        for found in in_threads(covered, parts, workers):
            groups.update(found)
            self.prints.write_noted(BATCH)
        self.prints.write_noted()
        return groups

    def items(self, busy: Sequence[int]) -> Candidates:
        edited, judge = "edited" in self.policy.removed, self.judge
        return Candidates(
            keys=[self.best_keys[n] for n in busy],
            refine=lambda i: self._refined(busy[i]),
            cells=lambda i: self.cells(busy[i]),
            near=lambda i: self.near(busy[i]),
            judge=lambda keeper, other: judge(busy[keeper], busy[other]),
            protected=lambda i: self.protected[busy[i]],
            could_be_one=lambda keeper, other: edited or judge.could_be_one(busy[keeper], busy[other]),
            rivals=lambda i: self.rivals(busy[i]),
            stands=lambda i: not self.policy.only_references or busy[i] in self.references,
        )

    def _judge(self) -> Judge:
        """A judge that knows what earlier runs found and what a person said."""
        policy = self.policy
        made = Judge(self.files, self.prints, policy.looking, self.hash_cells, self.references, policy.likeness)
        made.apart = known_apart(self.prints.db)
        made.known = known_relations(self.prints.db, self.policy.looking.algorithm)
        return made

    def remember(self) -> None:
        """Writes down what was judged now."""
        if self.prints.remember:
            remember_relations(self.prints.db, self.policy.looking.algorithm, self.judge.fresh)

    def as_groups(self, found: dict[int, list[Decision]]) -> list[DuplicateGroup]:
        keepers = sorted(found, key=lambda n: str(self.files[n].path))
        return [
            DuplicateGroup(
                number,
                self.files[n],
                self.facts[n],
                tuple(sorted((self._member(v) for v in found[n]), key=lambda m: str(m.file.path))),
            )
            for number, n in enumerate(keepers, 1)
        ]

    def _member(self, verdict: Decision) -> Member:
        number, relation = verdict.item, verdict.relation
        return Member(
            self.files[number],
            self.facts[number],
            relation.kind,
            relation.distance,
            verdict.decision,
            verdict.reason,
        )
