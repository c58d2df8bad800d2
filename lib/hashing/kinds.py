"""The kinds of perceptual hash that can be chosen, and how near two hashes of each must be to mean anything.

One digest of a picture's own pixels: equal only where nothing a viewer shows differs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lib.hashing import dct
from lib.images.decode import BACKGROUND, codec_boundary, flattened, header_of, opened, upright
from lib.images.frames import Frame, opened_frames
from lib.images.ground import BAND

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

KIND = "pixels"


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

    Raises lib.images.decode.DecodeError.
    """
    import imagehash
    import numpy as np

    compute = {
        "phash": imagehash.phash,
        "dhash": imagehash.dhash,
        "ahash": imagehash.average_hash,
        "whash": imagehash.whash,
    }[kind]
    with opened(Path(path)) as image:
        orientation = header_of(image).orientation
        with codec_boundary():
            value = compute(flattened(upright(image, orientation), BACKGROUND), hash_size=size)
    return bytes(np.packbits(value.hash.ravel()))


def is_flat(value: bytes) -> bool:
    """Says whether a hash says nothing: all bits alike."""
    return len(set(value)) == 1 and value[0] in (0, 255)


def pixel_digest(path: Path | str) -> bytes:
    """SHA-256 over every frame's mode, upright size, palette, pixels and colour space, and for how long it is shown.

    The bytes alone would not do: 300x200 and 200x300 pixels can have the same bytes, equal palette indices can stand
    for other colours, and so can equal colours under another profile. Raises lib.images.decode.DecodeError.
    """
    digest = hashlib.sha256()
    with opened_frames(Path(path)) as frames:
        for frame in frames:
            with codec_boundary():
                _add_frame(digest, frame)
    return digest.digest()


def _add_frame(digest: hashlib._Hash, frame: Frame) -> None:
    image = frame.image
    image.load()  # only then some formats know how long a frame is shown
    mode = image.mode
    clear = image.info.get("transparency")
    # As the colours that it shows: the order of a palette is the encoder's business.
    coloured = image.convert("RGBA") if mode in ("P", "PA") or clear is not None else image
    turned = upright(coloured, frame.orientation)
    size = image.size if turned is coloured else turned.size
    digest.update(f"{mode} {turned.mode} {size} {image.info.get('duration', 0)};".encode())
    digest.update(frame.colours.digest)
    rows = max(1, BAND // turned.width)  # its bytes as a whole would lie beside the picture
    for top in range(0, turned.height, rows):
        digest.update(turned.crop((0, top, turned.width, min(turned.height, top + rows))).tobytes())
