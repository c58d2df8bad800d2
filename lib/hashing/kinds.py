"""The kinds of perceptual hash that can be chosen, and how near two hashes of each must be to mean anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.decode import codec_boundary, flattened, header_of, opened
from lib.hashing import dct

# Share of the bits that may differ for "same picture" and for "look at it". Ours: of 256 bits the nearest pair among
# 1.4 million pairs of distinct photographs lies at 80, text pages at 60. The others, of 64 bits: the perceptual hash
# brings distinct photographs to 10 bits (text pages to 2), the difference hash to 7, the average and wavelet hashes to
# 0, so that near ones of these say little and only the confirmation by pixels decides.
LIMITS = {
    "dct": (40 / 256, 64 / 256),
    "phash": (4 / 64, 8 / 64),
    "dhash": (2 / 64, 4 / 64),
    "ahash": (1 / 64, 2 / 64),
    "whash": (1 / 64, 2 / 64),
}
KINDS = tuple(LIMITS)
DEFAULT_SIZE = {"dct": dct.KEPT, "phash": 8, "dhash": 8, "ahash": 8, "whash": 8}


@dataclass(frozen=True)
class HashChoice:
    """`size` bits along a side; the hash has its square (dct: always 16)."""

    kind: str = "dct"
    size: int = 16

    @property
    def bits(self) -> int:
        return self.size * self.size

    @property
    def is_ours(self) -> bool:
        return self.kind == "dct"

    @property
    def same_bits(self) -> int:
        return round(LIMITS[self.kind][0] * self.bits)

    @property
    def review_bits(self) -> int:
        return round(LIMITS[self.kind][1] * self.bits)

    @property
    def pixel_bits(self) -> int:
        """Pictures with the same pixels lie no further apart: another decoder's scale moves a hash by a few bits."""
        return max(1, self.bits // 32)


def imagehash_of(path: Path | str, kind: str, size: int) -> bytes:
    """The hash as the imagehash package computes it, of the whole picture turned upright.

    Raises lib.decode.DecodeError.
    """
    import imagehash
    import numpy as np
    from PIL import ImageOps

    compute = {
        "phash": imagehash.phash,
        "dhash": imagehash.dhash,
        "ahash": imagehash.average_hash,
        "whash": imagehash.whash,
    }[kind]
    with opened(Path(path)) as image:
        orientation = header_of(image).orientation
        with codec_boundary():
            upright = ImageOps.exif_transpose(image) if orientation != 1 else image
            value = compute(flattened(upright, (255, 255, 255)), hash_size=size)
    return bytes(np.packbits(value.hash.ravel()))


def is_flat(value: bytes) -> bool:
    """Whether a hash says nothing: all bits alike."""
    return len(set(value)) == 1 and value[0] in (0, 255)
