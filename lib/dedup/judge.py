"""The judgement of two files: the strongest relation that can be proved, or none.

Also the real size of a picture among its copies: an enlargement counts for no more than what it was made from.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from lib.db.hashes import HashRow, NearPair, known_answers, known_apart, known_relations
from lib.dedup import detail
from lib.dedup.colours import colourless
from lib.dedup.compare import compare, look
from lib.dedup.detail import left_over, read_closeup
from lib.dedup.fingerprints import ALGORITHM, FingerprintStore
from lib.dedup.grouping import Relation
from lib.dedup.near import HashCells, Likeness
from lib.files.names import read_any_name
from lib.files.pictures import PictureFile
from lib.hashing import buffers, enlarged
from lib.hashing.buffers import LONG_SIDE, Buffers
from lib.hashing.enlarged import LEAST_STEP, Verdict, read_details, verdict
from lib.hashing.hamming import distance
from lib.hashing.kinds import HashChoice
from lib.hashing.views import view
from lib.images.decode import DecodeError
from lib.images.structure import is_damaged_copy

VERSION = 8  # of the judgement: what an earlier one said is not used
Known = tuple[str, float, str, str]
T = TypeVar("T")
DAMAGED = "one of the two is damaged: their coded pixels are the same bytes but for some"
ONE_FILE = "a hard link of the keeper"
PIXEL_LEVELS = 0.5  # mean difference of their grey buffers, in grey levels
REDUCED_FROM = 4 * LONG_SIDE  # pixels on the long side; below, the decoder finds no scale to reduce to

SIZES_ALGORITHM = f"enlarged {enlarged.VERSION} {buffers.VERSION}"
KIND = "enlarged from "  # and the smaller copy's content
PER_SIZE = 4  # copies of one size that a larger one is compared with
MOST = 8  # copies that one picture is compared with
LOOKED_AT = 64  # smaller pictures that may turn out to be such copies
HELD = 64  # details in memory, up to 330 KB each; closeups, up to 150 KB each


@dataclass(frozen=True)
class MatchOptions:
    """The kinds of repeat that a run looks for."""

    exact: bool  # equal bytes, equal pixels
    similar: bool  # the same picture by its hash, and edited ones
    names: bool  # our own file names
    likeness: bool = False  # the same subject by embedding
    same_bits: int = 40
    hash: HashChoice = field(default_factory=HashChoice)

    @property
    def pictures(self) -> bool:
        return self.exact or self.similar or self.likeness

    @property
    def algorithm(self) -> str:
        """Returns the name of what a remembered judgement holds for."""
        what = "similar" if self.similar else "exact"
        return f"{VERSION} {detail.VERSION} {ALGORITHM} {self.hash.kind} {self.hash.size} {what} {self.same_bits}"

    @property
    def review_bits(self) -> int:
        """Returns how far apart the hashes of two files may lie for them to be shown together."""
        return max(self.hash.review_bits, self.same_bits) if self.similar else self.hash.pixel_bits


class Recent(Generic[T]):
    """Decodes contents and keeps the last of them in memory; None stands for one that cannot be decoded.

    Threads may ask at once.
    """

    def __init__(self, fingerprints: FingerprintStore, read: Callable[[str], T]):
        self.fingerprints, self.read = fingerprints, read
        self._held: OrderedDict[str, T | None] = OrderedDict()
        self._lock = Lock()

    def __call__(self, content: str) -> T | None:
        with self._lock:
            if content in self._held:
                self._held.move_to_end(content)
                return self._held[content]
        try:
            made = self.fingerprints.decoding(self.read, content)[0]
        except DecodeError:
            made = None
        with self._lock:
            self._held[content] = made
            if len(self._held) > HELD:
                self._held.popitem(last=False)
        return made


class Judge:
    """Compares files by number; what is known of two contents from an earlier run is not computed again."""

    def __init__(
        self,
        files: Sequence[PictureFile],
        fingerprints: FingerprintStore,
        match: MatchOptions,
        cells: HashCells,
        references: frozenset[int] = frozenset(),
        likeness: Likeness | None = None,
    ):
        self.files, self.fingerprints, self.match, self.cells = files, fingerprints, match, cells
        self.references, self.likeness = references, likeness
        self.apart = known_apart(fingerprints.db)  # by a person's word
        self.known = known_relations(fingerprints.db, match.algorithm)  # by earlier runs
        self.fresh: dict[tuple[str, str], Known] = {}
        self._closeup = Recent(fingerprints, read_closeup)

    def __call__(self, keeper: int, other: int) -> Relation | None:
        one, two = self.files[keeper], self.files[other]
        if keeper in self.references and other in self.references:
            return None  # what is only compared against is no concern of ours among itself
        if self.match.pictures:
            if one.sha256 == two.sha256:
                is_one = False
                with suppress(OSError):  # two names of one file on disk: taking one away frees nothing
                    is_one = os.path.samefile(one.path, two.path)
                return Relation("bytes", 0.0, "same bytes", ONE_FILE if is_one else "")
            if self.apart and frozenset((one.sha256, two.sha256)) in self.apart:
                return None
            if (relation := self._remembered(one, two)) is not None:
                return relation
            if self.likeness and (apart := self.likeness.distance(one.sha256, two.sha256)) is not None:
                return Relation("semantic", apart, f"the same subject, cosine {1 - apart:.3f}")
        if self.match.names:
            first, second = read_any_name(one.path.name), read_any_name(two.path.name)
            if first and second and first.image == second.image:
                return Relation("filename", 0.0, f"{second.kind} and {first.kind} of {first.image}")
        return None

    def may_match(self, keeper: int, other: int) -> bool:
        """Says whether two files may turn out to be one picture, before their pixels are looked at."""
        one, two = self.files[keeper].sha256, self.files[other].sha256
        first, second = self.cells.hashes.get(one), self.cells.hashes.get(two)
        if one == two or not first or not second or self.likeness:
            return True
        return self.cells.how(one, two) is None and distance(first, second) <= self.match.same_bits

    def same(self, keeper: int, other: int) -> bool:
        """Says whether the pixels of two files show the same picture, whatever a person said of them."""
        relation = self._remembered(self.files[keeper], self.files[other])
        return relation is not None and relation.kind in ("pixels", "same")

    def _remembered(self, one: PictureFile, two: PictureFile) -> Relation | None:
        key = (one.sha256, two.sha256)
        known = self.known.get(key)
        if known is None:
            relation = self._by_picture(one, two)
            known = relation.known if relation else ("", 0.0, "", "")
            self.known[key] = self.fresh[key] = known
        return Relation(*known) if known[0] else None

    def _by_picture(self, one: PictureFile, two: PictureFile) -> Relation | None:
        contents = one.sha256, two.sha256
        first, second = map(self.cells.hashes.get, contents)
        if (first is None) != (second is None):
            return None
        how = self.cells.how(one.sha256, two.sha256)
        apart = distance(first, second) if first and second else 0
        if how is None and apart > self.match.review_bits:
            return None
        a, b = self.fingerprints.picture(one.sha256), self.fingerprints.picture(two.sha256)
        if a is None or b is None:
            return None
        if how is not None:
            return self._under_a_view(how, first == how.one, a, b)
        if apart <= self.match.hash.pixel_bits and self._same_pixels(one, two, a, b):
            return Relation("pixels", 0.0, "same pixels, other bytes")
        if not self.match.similar or first is None:
            return None
        relation = self._similar(apart, one, two, a, b)
        if relation.kind == "same" and a.frames > 1 and (differs := self.fingerprints.frames_differ(*contents)):
            relation = Relation("edited", float(apart), differs)
        # Not by what can be seen: a damaged part may be as small as one block. Frames that two files share are no sign
        # of it: where the others differ, both files are shown.
        shares_frames = relation.kind != "same" and max(a.frames, b.frames) > 1
        if (a.width, a.height) == (b.width, b.height) and not shares_frames and _damaged(one, two):
            return replace(relation, blocked=DAMAGED)
        return relation

    def _under_a_view(self, how: NearPair, in_order: bool, a: Buffers, b: Buffers) -> Relation | None:
        """Two pictures of which one shows a part of the other, or the other turned."""
        one, other = (a, b) if in_order else (b, a)
        pair = (one.box, other.box)
        shown, met = (other, one) if how.flipped else (one, other)
        seen = look(shown, met, view(how.view, pair[how.flipped]), how.inside)
        return Relation("edited", float(how.distance), seen) if seen else None

    def _same_pixels(self, one: PictureFile, two: PictureFile, a: Buffers, b: Buffers) -> bool:
        if (a.width, a.height) != (b.width, b.height) or a.greys.shape != b.greys.shape:
            return False
        apart = np.abs(a.greys.astype(np.int16) - b.greys).mean()
        # Only a large JPEG is decoded at a reduced scale; else equal pixels have equal buffers.
        reduced = _is_jpeg(one) != _is_jpeg(two) and max(a.width, a.height) >= REDUCED_FROM
        if apart > (PIXEL_LEVELS if reduced else 0.0):
            return False
        digest = self.fingerprints.pixel_digest(one.sha256)
        return digest is not None and digest == self.fingerprints.pixel_digest(two.sha256)

    def _similar(self, apart: int, one: PictureFile, two: PictureFile, a: Buffers, b: Buffers) -> Relation:
        finding = compare(a, b)
        if apart <= self.match.same_bits and (finding.same or finding.doubtful):
            colours = float(np.abs(a.chroma.astype(np.int16) - b.chroma).mean())
            seen = self._looked_closer(one.sha256, two.sha256, colours, doubted=finding.doubtful)
            if finding.same and seen:
                finding = replace(finding, same=False, reason=seen)
            elif finding.doubtful and not seen:
                finding = replace(finding, same=True, reason="re-encoded or resized")
        reason = finding.reason + (f", correlation {finding.correlation:.3f}" if finding.correlation else "")
        if not finding.same or apart > self.match.same_bits:
            return Relation("edited", float(apart), reason if not finding.same else f"{reason}, but a distant hash")
        blocked = "the keeper has no colour" if colourless(a) and not colourless(b) else ""
        if any(b.space) and not any(a.space):
            blocked = blocked or "the keeper has lost the colour profile"
        return Relation("same", float(apart), reason, blocked)

    def _looked_closer(self, one: str, two: str, colours: float, *, doubted: bool) -> str:
        """Says what a second look sees between two contents that would go as one; empty where that is nothing."""
        closeups = [self._closeup(content) for content in (one, two)]
        if closeups[0] is None or closeups[1] is None:
            return "cannot be looked at more closely"
        return left_over(closeups[0], closeups[1], colours, doubted=doubted)


def _damaged(one: PictureFile, two: PictureFile) -> bool:
    """Says whether one of two files is a damaged copy of the other, whichever."""
    try:
        return is_damaged_copy(one.path.read_bytes(), two.path.read_bytes())
    except OSError:
        return False  # what is gone is not removed either


def _is_jpeg(file: PictureFile) -> bool:
    return file.path.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")


class RealSizes:
    """Finds out which contents are enlargements of which; asked for pairs, each compared once and remembered.

    Threads may ask at once.
    """

    def __init__(self, fingerprints: FingerprintStore, contents: Iterable[str]):
        self.fingerprints = fingerprints
        self._answers = known_answers(fingerprints.db, sorted(contents), KIND, SIZES_ALGORITHM)
        self._details_of = Recent(fingerprints, read_details)

    def pixels(
        self,
        content: str,
        pixels: int,
        copies: Iterable[tuple[str, int]],
        real: Callable[[str], int],
        same: Callable[[str], bool],
    ) -> int:
        """Returns the pixels of a content, or of the copy that it was made from.

        `copies` are (content, pixels) of what may be the same picture, likeliest first. `real` gives the same of one of
        these: an enlargement of an enlargement counts for what the first was made from. `same` tells whether one shows
        the same picture at all; an edited one is no enlargement of another, and that is known without a full decode.
        Only smaller copies matter, so the answer depends on which files there are and on nothing else.
        """
        tried: Counter[int] = Counter()
        smaller = ((copy, size) for copy, size in copies if size * LEAST_STEP**2 <= pixels)
        for copy, size in islice(smaller, LOOKED_AT):
            if tried[size] >= PER_SIZE or tried.total() >= MOST or not same(copy):
                continue
            tried[size] += 1
            if self.verdict(copy, content) == Verdict.ENLARGED:
                return min(size, real(copy))
        return pixels

    def verdict(self, small: str, large: str) -> Verdict:
        """Judges `large` beside `small`; an original where one of them cannot be decoded."""
        question = large, f"{KIND}{small}"
        if question not in self._answers:
            one, other = self._details_of(small), self._details_of(large)
            answer = Verdict.ORIGINAL if one is None or other is None else verdict(one, other)
            self._answers[question] = answer
            self.fingerprints.note(HashRow(*question, 1, bytes([answer]), SIZES_ALGORITHM))
        return Verdict(self._answers[question])
