"""One small grey and one small colour buffer of a picture: everything that is hashed or compared comes from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow_version

from lib.decode import Picture, decode
from lib.hashing.dct import SIDE

LONG_SIDE = 256  # four times the hash's input: hashes then differ from those of a full decode by two bits at most
CHROMA_SIDE = 16
_CHROMA_BYTES = 2 * CHROMA_SIDE * CHROMA_SIDE
_GREY_BYTES = SIDE * SIDE
_BLACK = (0, 0, 0)
TRANSPARENT_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La", "P"})

# Another decoder gives slightly other pixels, so a cache made with it must not be mixed with a new one.
VERSION = f"1 pillow {'.'.join(pillow_version.split('.')[:2])} jpeg {features.version('jpg')}"


@dataclass(frozen=True)
class Buffers:
    """What two pictures are compared by.

    greys   uint8 of shape (k, 64, 64), upright. The first is the picture on white; then the same on black where it has
            transparent parts, and the middle frame where it is animated, so that nothing hides behind a white ground or
            in a later frame. Pictures with different k are different kinds of thing.
    chroma  uint8 of shape (2, 16, 16): Cb and Cr of the first view, 128 for grey.
    width, height  upright, pixels of the stored picture.
    """

    greys: np.ndarray
    chroma: np.ndarray
    width: int
    height: int

    def to_bytes(self) -> bytes:
        size = np.array([self.width, self.height], "<u4").tobytes()
        return size + self.chroma.tobytes() + self.greys.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> Buffers:
        width, height = (int(v) for v in np.frombuffer(data[:8], "<u4"))
        chroma = np.frombuffer(data, np.uint8, _CHROMA_BYTES, 8).reshape(2, CHROMA_SIDE, CHROMA_SIDE)
        greys = np.frombuffer(data, np.uint8, offset=8 + _CHROMA_BYTES).reshape(-1, SIDE, SIDE)
        return Buffers(greys, chroma, width, height)


def read_buffers(path: Path | str) -> bytes:
    """The buffers of a picture file, packed; a module-level function so that worker processes can run it.

    Raises lib.decode.DecodeError.
    """
    path = Path(path)
    first = decode(path, long_side=LONG_SIDE)
    views = [first]
    if first.header.mode in TRANSPARENT_MODES:
        on_black = decode(path, long_side=LONG_SIDE, background=_BLACK)
        views += [on_black] if not np.array_equal(on_black.rgb, first.rgb) else []
    if first.header.frames > 1:
        views.append(decode(path, long_side=LONG_SIDE, frame=first.header.frames // 2))
    width, height = first.header.upright_size
    greys = np.stack([grey(view) for view in views])
    return Buffers(greys, chroma(first), width, height).to_bytes()


def grey(picture: Picture) -> np.ndarray:
    """uint8 of shape (64, 64): the picture's luma (ITU-R 601), squeezed to a square."""
    small = Image.fromarray(picture.rgb).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small)


def chroma(picture: Picture) -> np.ndarray:
    """uint8 of shape (2, 16, 16): Cb and Cr."""
    side = (CHROMA_SIDE, CHROMA_SIDE)
    small = Image.fromarray(picture.rgb).resize(side, Image.Resampling.BOX).convert("YCbCr")
    return np.ascontiguousarray(np.asarray(small)[:, :, 1:].transpose(2, 0, 1))
