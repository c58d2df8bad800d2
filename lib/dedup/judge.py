"""What two files are to each other: the strongest relation that can be proved, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.dedup.confirm import Finding, colourless, compare
from lib.dedup.filenames import read_name
from lib.dedup.fingerprints import Fingerprints
from lib.dedup.grouping import Relation
from lib.hashing.buffers import LONG_SIDE, Buffers
from lib.hashing.hamming import distance
from lib.pictures import PictureFile

# Of 256 bits. The nearest pair among 1.4 million pairs of distinct photographs lies at 80, text pages at 60; harmless
# alterations lie within 26. Up to SAME a pair that is confirmed by its pixels is one picture, up to REVIEW it is shown.
SAME_BITS = 40
REVIEW_BITS = 64
# Decoding at a reduced scale moves a hash by a few bits; pictures with the same pixels lie no further apart.
PIXEL_BITS = 8
PIXEL_LEVELS = 0.5  # mean difference of their grey buffers, in grey levels
REDUCED_FROM = 4 * LONG_SIDE  # pixels on the long side; below, the decoder finds no scale to reduce to


@dataclass(frozen=True)
class Looking:
    """What a run looks for."""

    exact: bool  # equal bytes, equal pixels
    similar: bool  # the same picture by its hash, and edited ones
    names: bool  # our own file names
    same_bits: int = SAME_BITS

    @property
    def radius(self) -> int:
        """How far apart the hashes of two files may lie for them to be looked at together."""
        return max(REVIEW_BITS, self.same_bits) if self.similar else PIXEL_BITS

    @property
    def pictures(self) -> bool:
        return self.exact or self.similar


class Judge:
    """Compares files by number. Keeps nothing but what `Fingerprints` keeps."""

    def __init__(self, files: Sequence[PictureFile], prints: Fingerprints, looking: Looking):
        self.files, self.prints, self.looking = files, prints, looking

    def __call__(self, keeper: int, other: int) -> Relation | None:
        one, two = self.files[keeper], self.files[other]
        if self.looking.pictures:
            if one.sha256 == two.sha256:
                return Relation("bytes", 0.0, "same bytes", _one_file(one, two))
            if (relation := self._by_picture(one, two)) is not None:
                return relation
        if self.looking.names:
            return _by_name(one, two)
        return None

    def _by_picture(self, one: PictureFile, two: PictureFile) -> Relation | None:
        first, second = self.prints.hashes.get(one.sha256), self.prints.hashes.get(two.sha256)
        apart = distance(first, second) if first and second else 0
        if (first is None) != (second is None) or apart > self.looking.radius:
            return None
        packed = self.prints.packed(one.sha256), self.prints.packed(two.sha256)
        if packed[0] is None or packed[1] is None:
            return None
        a, b = Buffers.from_bytes(packed[0]), Buffers.from_bytes(packed[1])
        if apart <= PIXEL_BITS and self._same_pixels(one, two, a, b):
            return Relation("pixels", 0.0, "same pixels, other bytes")
        if not self.looking.similar or first is None:
            return None
        return self._similar(apart, a, b)

    def _same_pixels(self, one: PictureFile, two: PictureFile, a: Buffers, b: Buffers) -> bool:
        if (a.width, a.height) != (b.width, b.height) or a.greys.shape != b.greys.shape:
            return False
        apart = np.abs(a.greys.astype(np.int16) - b.greys).mean()
        # Only a large JPEG is decoded at a reduced scale; else equal pixels have equal buffers.
        reduced = _is_jpeg(one) != _is_jpeg(two) and max(a.width, a.height) >= REDUCED_FROM
        if apart > (PIXEL_LEVELS if reduced else 0.0):
            return False
        digest = self.prints.pixel_digest(one.sha256)
        return digest is not None and digest == self.prints.pixel_digest(two.sha256)

    def _similar(self, apart: int, a: Buffers, b: Buffers) -> Relation:
        finding: Finding = compare(a, b)
        reason = f"{finding.reason}, correlation {finding.correlation:.3f}"
        if not finding.same or apart > self.looking.same_bits:
            return Relation("edited", float(apart), reason)
        only_colour = colourless(a) and not colourless(b)
        return Relation("same", float(apart), reason, "the keeper has no colour" if only_colour else "")


def _by_name(one: PictureFile, two: PictureFile) -> Relation | None:
    first, second = read_name(one.path.name), read_name(two.path.name)
    if first is None or second is None or first.image != second.image:
        return None
    return Relation("filename", 0.0, f"{second.rung} and {first.rung} of {first.image}")


def _one_file(one: PictureFile, two: PictureFile) -> str:
    """Two names of one file on disk: taking one away frees nothing."""
    try:
        return "a hard link of the keeper" if os.path.samefile(one.path, two.path) else ""
    except OSError:
        return ""


def _is_jpeg(file: PictureFile) -> bool:
    return file.path.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
