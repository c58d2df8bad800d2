"""From files to groups of repeats: fingerprints, candidates, keeper first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.db.hashes import remember_relations
from lib.dedup.colours import colourless
from lib.dedup.fingerprints import ALGORITHM, BATCH, FingerprintStore
from lib.dedup.grouping import Candidates, Decision, Relation, cover
from lib.dedup.judge import Judge, MatchOptions, RealSizes
from lib.dedup.keep import Traits, is_below, keep_order, read_traits, with_sidecar
from lib.dedup.near import HashCells, Likeness, cells_with_views, crowded, flat_cell, plain_cells, related
from lib.files.names import read_any_name
from lib.files.pictures import PictureFile
from lib.hashing.enlarged import LEAST_STEP, Verdict
from lib.work.stream import in_threads

UNCLEAR = "the larger one may be an enlargement of it"


@dataclass(frozen=True)
class KeepPolicy:
    """The rules by which a file stays or goes. `protected` are real paths; `roots` are folders in the order given.

    `chosen` are the files that a person has made keepers.
    """

    match: MatchOptions
    removed: frozenset[str]
    keep: str = "best"
    protected: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    references: frozenset[Path] = frozenset()  # files that are compared against and never touched
    chosen: frozenset[Path] = frozenset()
    only_references: bool = False  # nothing but these is asked what repeats it
    likeness: Likeness | None = None


@dataclass(frozen=True)
class Member:
    """A file of a group that is not its keeper. `distance` is in bits of 256."""

    file: PictureFile
    traits: Traits
    kind: str
    distance: float
    decision: str
    reason: str


@dataclass(frozen=True)
class DuplicateGroup:
    """A keeper and the files that repeat it."""

    number: int
    keeper: PictureFile
    traits: Traits
    members: tuple[Member, ...]


def find_groups(
    files: Sequence[PictureFile], fingerprints: FingerprintStore, policy: KeepPolicy, workers: int
) -> list[DuplicateGroup]:
    """Returns the groups among readable files, in the order of their keepers' paths. Broken pictures are in none."""
    whole = [file for file in files if file.sha256 not in fingerprints.broken]
    search = GroupSearch(whole, fingerprints, policy, workers)
    busy = search.busy()
    if not busy:
        return []
    search.prepare(busy)
    groups = search.cover(busy)
    search.remember()
    return search.as_groups(groups)


class GroupSearch(Candidates):
    """The candidates among a set of files, by their numbers, and what the grouping asks about them."""

    def __init__(self, files: Sequence[PictureFile], fingerprints: FingerprintStore, policy: KeepPolicy, workers: int):
        self.files, self.fingerprints, self.policy, self.workers = files, fingerprints, policy, workers
        self.references = frozenset(n for n, file in enumerate(files) if file.path in policy.references)
        self.hash_cells = self._hash_cells()
        self.flat = self._flat_cells() if policy.match.pictures else {}
        self.real_pixels: dict[str, int] = {}
        self._cells: dict[int, list[Hashable]] = {}  # of the busy files

    def _hash_cells(self) -> HashCells:
        match, known = self.policy.match, self.fingerprints.hashes
        if not match.pictures:
            return HashCells({})
        hashes = {file.sha256: value for file in self.files if (value := known.get(file.sha256))}
        if not (match.similar and match.hash.is_ours):
            return plain_cells(hashes, match.review_bits, self.workers)
        return cells_with_views(
            self.fingerprints.context, hashes, self.fingerprints.buffers, ALGORITHM, workers=self.workers
        )

    def _flat_cells(self) -> dict[str, Hashable]:
        hashes = self.fingerprints.hashes
        flat = {file.sha256 for file in self.files if file.sha256 in hashes and not hashes[file.sha256]}
        if len(flat) < 2:
            return {}
        self.fingerprints.load(flat)
        return {c: flat_cell(data) for c in sorted(flat) if (data := self.fingerprints.packed(c))}

    def busy(self) -> list[int]:
        """Returns the files that have a candidate at all: only these are looked at more closely."""
        return crowded([self.cells(n) for n in range(len(self.files))], self.neighbours)

    def cells(self, number: int) -> list[Hashable]:
        """Returns the cells that a file lies in, the content's first."""
        if number in self._cells:
            return self._cells[number]
        found: list[Hashable] = []
        file = self.files[number]
        if self.policy.match.pictures:
            found.append(("content", file.sha256))
            found += [c for c in (self.hash_cells.cell(file.sha256), self.flat.get(file.sha256)) if c]
        if self.policy.match.names and (name := read_any_name(file.path.name)):
            found.append(("name", name.image))
        return found

    def neighbours(self, number: int) -> list[Hashable]:
        content, likeness = self.files[number].sha256, self.policy.likeness
        alike = likeness.near.get(content, ()) if likeness else ()
        own = self.cells(number)
        found = [*own[:1], *self.hash_cells.near(content), *own, *(("content", other) for _, other in alike)]
        return list(dict.fromkeys(found))

    def size_rivals(self, number: int) -> list[Hashable]:
        """Returns the cells of files that may turn out to be the same picture in another size.

        Only between these the share of the size that is real decides anything.
        """
        if "edited" in self.policy.removed:
            return self.neighbours(number)
        own = {self.traits[number].pixels}
        near = self.hash_cells.near(self.files[number].sha256, self.policy.match.same_bits)
        return [cell for cell in (*near, *self.cells(number)) if self.sizes.get(cell, own) != own]

    def prepare(self, busy: Sequence[int]) -> None:
        """Reads what the grouping asks about the busy files."""
        policy, contents = self.policy, {self.files[n].sha256 for n in busy}
        roots = {root: place for place, root in reversed(list(enumerate(policy.roots)))}
        self._cells = {n: self.cells(n) for n in busy}
        shared = self.hash_cells, self.references, policy.likeness
        self.judge = Judge(self.files, self.fingerprints, policy.match, *shared)
        self.priority = {n: roots.get(self.files[n].root, len(roots)) for n in busy}
        self.traits = {n: self._traits(self.files[n]) for n in busy}
        self.protected = {n: n in self.references or is_below(self.files[n].path, policy.protected) for n in busy}
        self.sizes: dict[Hashable, set[int]] = defaultdict(set)
        self.files_in: dict[Hashable, list[int]] = defaultdict(list)
        for n in busy:
            for cell in self.cells(n):
                self.sizes[cell].add(self.traits[n].pixels)
                self.files_in[cell].append(n)
        if policy.match.pictures:
            self.fingerprints.load(contents)
            self.real_sizes = RealSizes(self.fingerprints, contents)
        self.best_keys = {n: self._key(n) for n in busy}

    def _traits(self, file: PictureFile) -> Traits:
        known = self.fingerprints.traits(file.sha256)
        return with_sidecar(file.path, known) if known else read_traits(file.path)

    def _key(self, number: int, real_pixels: int | None = None) -> tuple[Any, ...]:
        """Returns the file's place in the order; without the size that is real as good as it may be."""
        picture = self.fingerprints.picture(self.files[number].sha256) if self.policy.match.pictures else None
        return keep_order(
            self.files[number],
            self.traits[number],
            keep=self.policy.keep,
            protected=self.protected[number],
            chosen=self.files[number].path in self.policy.chosen,
            priority=-1 if number in self.references else self.priority[number],
            colourless=picture is not None and colourless(picture),
            real_pixels=real_pixels,
        )

    def refine(self, number: int, goes: Callable[[int], bool]) -> tuple[Any, ...]:
        """Returns the key with the size that is real: by a full decode of the file and of its best smaller copies."""
        if self.policy.keep != "best" or not self.policy.match.similar:
            return self._key(number)
        return self._key(number, self._real_pixels(number, goes))

    def _real_pixels(self, number: int, goes: Callable[[int], bool]) -> int:
        content = self.files[number].sha256
        if content not in self.real_pixels:
            at = self._smaller_copies(number)
            self.real_pixels[content] = self.real_sizes.pixels(
                content,
                self.traits[number].pixels,
                [(copy, self.traits[at[copy]].pixels) for copy in at],
                lambda copy: self._real_pixels(at[copy], goes),
                lambda copy: not goes(at[copy]) and self.judge.same(at[copy], number),
            )
        return self.real_pixels[content]

    def _smaller_copies(self, number: int) -> dict[str, int]:
        """Returns content -> file of what may be smaller copies of a file's content, likeliest first."""
        content, own = self.files[number].sha256, self.traits[number].pixels
        # By hash alone: names may differ between files of one content, and this is the content's.
        cells = self.hash_cells.near(content, self.policy.match.same_bits)
        near = (n for cell in cells for n in self.files_in.get(cell, ()) if self.traits[n].pixels < own)
        at: dict[str, int] = {}
        for n in sorted(near, key=self.best_keys.__getitem__):
            at.setdefault(self.files[n].sha256, n)
        # Of each size by turns what looks most like it (whatever its tone) and what is encoded best.
        pictures, own_picture = self.fingerprints.picture, self.fingerprints.picture(content)

        def apart(copy: str) -> float:
            other = pictures(copy)
            return 1.0 if own_picture is None or other is None else -float(own_picture.outline @ other.outline)

        alike = {c: rank for rank, c in enumerate(sorted(at, key=apart))}
        best = {c: rank for rank, c in enumerate(at)}
        # An enlargement was made from the size that most copies have, rather than from another enlargement.
        sizes = {c: self.traits[n].pixels for c, n in at.items()}
        many = Counter(sizes.values())
        order = sorted(at, key=lambda c: (-many[sizes[c]], -sizes[c], min(alike[c], best[c])))
        return {content: at[content] for content in order}

    def relation(self, keeper: int, other: int) -> Relation | None:
        found = self.judge(keeper, other)
        return replace(found, blocked=UNCLEAR) if found and self._may_be_original(found, keeper, other) else found

    def _may_be_original(self, found: Relation, keeper: int, other: int) -> bool:
        """Says whether a smaller copy would go for one that was enlarged from it, or of which nobody can tell.

        The order of keeping asks that of a few of many copies, so an enlargement may stand first all the same.
        """
        if found.kind != "same" or found.blocked or self.policy.keep != "best" or keeper in self.references:
            return False
        if self.traits[keeper].pixels < self.traits[other].pixels * LEAST_STEP**2:
            return False
        small, large = self.files[other].sha256, self.files[keeper].sha256
        return self.real_sizes.verdict(small, large) != Verdict.ORIGINAL

    def is_protected(self, number: int) -> bool:
        return self.protected[number]

    def may_match(self, keeper: int, other: int) -> bool:
        return "edited" in self.policy.removed or self.judge.may_match(keeper, other)

    def can_be_keeper(self, number: int) -> bool:
        return not self.policy.only_references or number in self.references

    def cover(self, busy: Sequence[int]) -> dict[int, list[Decision]]:
        """Returns keepers with the files that repeat them; each set of files that may repeat one another by itself.

        What one set needs then lies together: its pictures are decoded once and forgotten.
        """
        stopping = self.fingerprints.context.stopping

        def covered(part: list[int]) -> dict[int, list[Decision]]:
            return cover(self, {n: self.best_keys[n] for n in part}, self.policy.removed, stopping)

        groups: dict[int, list[Decision]] = {}
        for found in in_threads(covered, related({n: self.neighbours(n) for n in busy}), self.workers):
            groups.update(found)
            self.fingerprints.write_noted(BATCH)
        self.fingerprints.write_noted()
        return groups

    def remember(self) -> None:
        """Writes down what was judged now."""
        if not self.fingerprints.context.dry_run:
            remember_relations(self.fingerprints.db, self.policy.match.algorithm, self.judge.fresh)

    def as_groups(self, found: dict[int, list[Decision]]) -> list[DuplicateGroup]:
        keepers = sorted(found, key=lambda n: str(self.files[n].path))

        def member(decided: Decision) -> Member:
            file, traits, relation = self.files[decided.item], self.traits[decided.item], decided.relation
            return Member(file, traits, relation.kind, relation.distance, decided.decision, decided.reason)

        members = [sorted(map(member, found[n]), key=lambda m: str(m.file.path)) for n in keepers]
        return [
            DuplicateGroup(number, self.files[n], self.traits[n], tuple(own))
            for number, (n, own) in enumerate(zip(keepers, members, strict=True), 1)
        ]
