"""One small grey and one small colour buffer of a picture: everything that is hashed or compared comes from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, features
from PIL import __version__ as pillow_version

from lib.decode import Header, codec_boundary, flattened, header_of, opened
from lib.hashing.dct import SIDE
from lib.hashing.trim import WHOLE, trimmed_box

LONG_SIDE = 256  # four times the hash's input: hashes then differ from those of a full decode by two bits at most
CHROMA_SIDE = 16
_CHROMA_BYTES = 2 * CHROMA_SIDE * CHROMA_SIDE
_HEAD_BYTES = 8 + 4  # width, height; the box inside the borders
_BLACK = (0, 0, 0)
_WHITE = (255, 255, 255)
TRANSPARENT_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La", "P"})

# Another decoder gives slightly other pixels, so a cache made with it must not be mixed with a new one.
VERSION = f"2 pillow {'.'.join(pillow_version.split('.')[:2])} jpeg {features.version('jpg')}"


@dataclass(frozen=True)
class Buffers:
    """What two pictures are compared by.

    greys   uint8 of shape (k, 64, 64), upright. The first is the picture on white; then the same on black where it has
            transparent parts, and the middle frame where it is animated, so that nothing hides behind a white ground or
            in a later frame. Pictures with different k are different kinds of thing.
    chroma  uint8 of shape (2, 16, 16): Cb and Cr of the first view, 128 for grey.
    box     left, top, right, bottom of what lies inside uniform borders, in 1/255 of the upright picture.
    width, height  upright, pixels of the stored picture.
    """

    greys: np.ndarray
    chroma: np.ndarray
    width: int
    height: int
    box: tuple[int, int, int, int] = WHOLE

    def to_bytes(self) -> bytes:
        size = np.array([self.width, self.height], "<u4").tobytes()
        return size + bytes(self.box) + self.chroma.tobytes() + self.greys.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> Buffers:
        width, height = (int(v) for v in np.frombuffer(data[:8], "<u4"))
        left, top, right, bottom = data[8:_HEAD_BYTES]
        chroma = np.frombuffer(data, np.uint8, _CHROMA_BYTES, _HEAD_BYTES).reshape(2, CHROMA_SIDE, CHROMA_SIDE)
        greys = np.frombuffer(data, np.uint8, offset=_HEAD_BYTES + _CHROMA_BYTES).reshape(-1, SIDE, SIDE)
        return Buffers(greys, chroma, width, height, (left, top, right, bottom))


def read_buffers(path: Path | str) -> bytes:
    """The buffers of a picture file, packed; a module-level function so that workers can run it.

    Raises lib.decode.DecodeError.
    """
    path = Path(path)
    with opened(path) as image:
        header = header_of(image)
        with codec_boundary():
            grey, chroma, box = _measured(_reduced(image, header, _WHITE), header.orientation)
    views = [grey]
    if header.mode in TRANSPARENT_MODES:
        on_black = _view(path, _BLACK, 0)
        views += [] if np.array_equal(on_black, grey) else [on_black]
    if header.frames > 1:
        views.append(_view(path, _WHITE, header.frames // 2))
    width, height = header.upright_size
    return Buffers(np.stack(views), chroma, width, height, box).to_bytes()


def _reduced(image: Image.Image, header: Header, background: tuple[int, int, int]) -> Image.Image:
    """The picture in YCbCr as stored (not yet upright), its long side 256 to 511 pixels where it has so many.

    A JPEG is decoded at the smallest scale that leaves these, without the way to RGB and back.
    """
    longest = max(header.width, header.height)
    if header.frames == 1 and image.format in ("JPEG", "MPO") and isinstance(image, ImageFile.ImageFile):
        scale = min(1.0, LONG_SIDE / longest)
        mode = {"RGB": "YCbCr", "YCbCr": "YCbCr", "L": "L"}.get(image.mode)
        if mode:
            image.draft(mode, (max(1, int(header.width * scale)), max(1, int(header.height * scale))))
    ready = image if image.mode in ("YCbCr", "L") and "transparency" not in image.info else flattened(image, background)
    factor = max(ready.size) // LONG_SIDE
    if factor > 1:
        ready = ready.reduce(min(factor, *ready.size))
    return ready if ready.mode == "YCbCr" else ready.convert("RGB").convert("YCbCr")


def _measured(small: Image.Image, orientation: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """(grey, chroma, box) of a reduced YCbCr picture, turned upright."""
    box = trimmed_box(np.asarray(small.getchannel(0)))
    square = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=1.5))
    square = upright(square, orientation)
    step = SIDE // CHROMA_SIDE
    coarse = square[:, :, 1:].reshape(CHROMA_SIDE, step, CHROMA_SIDE, step, 2).mean(axis=(1, 3))
    chroma = np.ascontiguousarray((coarse + 0.5).astype(np.uint8).transpose(2, 0, 1))
    return np.ascontiguousarray(square[:, :, 0]), chroma, _upright_box(box, orientation)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """A square array of shape (n, n, …) turned as the EXIF orientation says."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return turned


def _upright_box(box: tuple[int, int, int, int], orientation: int) -> tuple[int, int, int, int]:
    if orientation == 1 or box == WHOLE:
        return box
    mask = np.zeros((256, 256), bool)
    left, top, right, bottom = box
    mask[top : bottom + 1, left : right + 1] = True
    rows, columns = (np.nonzero(upright(mask, orientation).any(axis=axis))[0] for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _view(path: Path, background: tuple[int, int, int], frame: int) -> np.ndarray:
    """The grey buffer on another background, or of another frame."""
    with opened(path) as image:
        header = header_of(image)
        with codec_boundary():
            if frame:
                image.seek(frame)
            return _measured(_reduced(image, header, background), header.orientation)[0]
