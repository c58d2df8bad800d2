"""One small grey and one small colour buffer of a picture: everything that is hashed or compared comes from them.

With them the box that tells where a uniform border ends and the picture begins.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow_version

from lib.hashing.dct import SIDE, mean
from lib.images.colours import ColourSpace, in_srgb
from lib.images.decode import codec_boundary, flattened, turned
from lib.images.frames import Frame, Frames
from lib.images.ground import ALPHA_MODES

LONG_SIDE = 256  # four times the hash's input: hashes then differ from those of a full decode by two bits at most
COARSE = 16  # places along a side of the colours that explain greys
_CHROMA_BYTES = 2 * SIDE * SIDE
# Width, height; length of the packed colours; the box inside the borders; the number of frames; the colour space.
_HEAD = struct.Struct("<III4sI8s")
_BLACK = (0, 0, 0)
_WHITE = (255, 255, 255)
OPAQUE = 255
NO_COLOUR = 128  # of Cb and Cr

# Another decoder gives slightly other pixels, so a cache made with it must not be mixed with a new one.
VERSION = f"5 pillow {'.'.join(pillow_version.split('.')[:2])} jpeg {features.version('jpg')}"
ALGORITHM = f"dct {VERSION}"  # of step 6's values of a picture that was decoded, or could not be

UNTRIMMED = (0, 0, 255, 255)
MOST = 0.3  # of a side: what is uniform beyond that is part of the picture
# A line belongs to the border while its levels spread and differ from the outermost line by no more than this (JPEG
# leaves ripples of a few levels in a plain border).
TOLERANCE = 14
LEAST = 2  # lines; the reduced picture has 256 of them and more on its long side


@dataclass(frozen=True)
class Buffers:
    """The small pictures by which two pictures are compared.

    greys   uint8 of shape (k, 64, 64), upright. The first is the picture on white; then the same on black where it has
            transparent parts, and the middle frame where it is animated, so that nothing hides behind a white ground or
            in a later frame. Pictures with different k are different kinds of thing.
    chroma  uint8 of shape (2, 64, 64): Cb and Cr of the first view, 128 for grey. As fine as the greys, because thin
            lines in another colour are lost in the mean of larger places.
    box     left, top, right, bottom of what lies inside uniform borders, in 1/255 of the upright picture.
    width, height  upright, pixels of the stored picture.
    frames  how many frames or pages there are; all but the first and the middle one are looked at elsewhere.
    space   the eight bytes that tell the colour space of the stored picture; the buffers are in sRGB.
    """

    greys: np.ndarray
    chroma: np.ndarray
    width: int
    height: int
    box: tuple[int, int, int, int] = UNTRIMMED
    frames: int = 1
    space: bytes = bytes(8)

    @cached_property
    def colour(self) -> float:
        """Mean distance of Cb and Cr from 128."""
        return mean(np.abs(self.chroma.astype(np.float32) - NO_COLOUR))

    @cached_property
    def coarse(self) -> np.ndarray:
        """Means of four by four places of `chroma`: uint8 of shape (2, 16, 16)."""
        step = SIDE // COARSE
        means = self.chroma.reshape(2, COARSE, step, COARSE, step).mean(axis=(2, 4), dtype=np.float32)
        return (means + np.float32(0.5)).astype(np.uint8)

    @cached_property
    def outline(self) -> np.ndarray:
        """The first grey picture about its mean and of length 1, float32 of shape (4096,): 0 where it is flat."""
        away = self.greys[0].astype(np.float32).ravel()
        away -= np.float32(mean(away))
        return away / max(float(np.sqrt(away @ away)), 1e-6)

    def to_bytes(self) -> bytes:
        colours = zlib.compress(self.chroma.tobytes(), 1)  # to half, in a tenth of a millisecond
        head = _HEAD.pack(self.width, self.height, len(colours), bytes(self.box), self.frames, self.space)
        return head + colours + self.greys.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> Buffers:
        width, height, packed, box, frames, space = _HEAD.unpack_from(data)
        left, top, right, bottom = box
        colours = zlib.decompress(data[_HEAD.size : _HEAD.size + packed])
        chroma = np.frombuffer(colours, np.uint8, _CHROMA_BYTES).reshape(2, SIDE, SIDE)
        greys = np.frombuffer(data, np.uint8, offset=_HEAD.size + packed).reshape(-1, SIDE, SIDE)
        return Buffers(greys, chroma, width, height, (left, top, right, bottom), frames, space)


def packed_buffers(frames: Frames) -> bytes:
    """Returns the buffers of an opened picture, packed. Raises lib.images.decode.DecodeError."""
    with frames.at(0) as frame:
        first = frame_buffers(frame)
    views = list(first.greys)
    if frames.count > 1:
        with frames.at(frames.count // 2) as middle:
            views.append(frame_buffers(middle).greys[0])
    return replace(first, greys=np.stack(views), frames=frames.count).to_bytes()


def frame_buffers(frame: Frame) -> Buffers:
    """Returns the buffers of one frame by itself. Raises lib.images.decode.DecodeError."""
    image, orientation, space = frame
    size = turned(image.size, orientation)  # before the decoder is told to reduce
    with codec_boundary():
        grey, chroma, box = _measured(_reduced(image, _WHITE, space), orientation)
        views = [grey]
        clear = image.mode in ALPHA_MODES and image.getchannel(image.getbands()[-1]).getextrema()[0] != OPAQUE
        if clear or "transparency" in image.info:  # its background is seen
            on_black = _measured(_reduced(image, _BLACK, space), orientation)[0]
            views += [] if np.array_equal(on_black, grey) else [on_black]
    return Buffers(np.stack(views), chroma, *size, box, space=space.digest)


def _reduced(image: Image.Image, background: tuple[int, int, int], space: ColourSpace) -> Image.Image:
    """Returns the picture in YCbCr or L as stored (not yet upright), its long side 256 to 511 pixels if it can.

    A JPEG is decoded at the smallest scale that leaves these, without the way to RGB and back. The colours are those
    of sRGB.
    """
    if image.format in ("JPEG", "MPO"):
        width, height = image.size
        scale = min(1.0, LONG_SIDE / max(width, height))
        mode = {"RGB": "RGB" if _is_stored_as_rgb(image) else "YCbCr", "YCbCr": "YCbCr", "L": "L"}.get(image.mode)
        if mode:
            image.draft(mode, (max(1, int(width * scale)), max(1, int(height * scale))))
    plain = image.mode in ("YCbCr", "L", "RGB") and "transparency" not in image.info
    by_profile = image.mode == "CMYK" and bool(space.profile)
    ready = image if plain or by_profile else flattened(image, background)
    factor = max(ready.size) // LONG_SIDE
    if factor > 1:
        ready = ready.reduce(min(factor, *ready.size))
    ready = in_srgb(ready, space)
    return ready if ready.mode in ("YCbCr", "L") else ready.convert("YCbCr")


def _is_stored_as_rgb(image: Image.Image) -> bool:
    """True for a JPEG that is not coded in YCbCr, which libjpeg gives in no other colours than grey and RGB.

    By the marker that counts: JFIF, else Adobe's, else the names of the components, as libjpeg has it.
    """
    if "jfif" in image.info:
        return False
    if "adobe_transform" in image.info:
        return image.info["adobe_transform"] == 0
    return bytes(layer[0] for layer in getattr(image, "layer", ())) == b"RGB"


def _measured(small: Image.Image, orientation: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Returns (grey, chroma, box) of a reduced picture, turned upright."""
    plain = small.mode == "L"
    box = trimmed_box(np.asarray(small if plain else small.getchannel(0)))
    square = small.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=1.5)
    grey = np.asarray(square if plain else square.getchannel(0))
    if plain:
        chroma = np.full((2, SIDE, SIDE), NO_COLOUR, np.uint8)
    else:
        chroma = np.ascontiguousarray(upright(np.asarray(square), orientation)[:, :, 1:].transpose(2, 0, 1))
    return np.ascontiguousarray(upright(grey, orientation)), chroma, _upright_box(box, orientation)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """A square array of shape (n, n, …) turned as the EXIF orientation says."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return turned


def _upright_box(box: tuple[int, int, int, int], orientation: int) -> tuple[int, int, int, int]:
    if orientation == 1 or box == UNTRIMMED:
        return box
    mask = np.zeros((256, 256), bool)
    left, top, right, bottom = box
    mask[top : bottom + 1, left : right + 1] = True
    rows, columns = (np.nonzero(upright(mask, orientation).any(axis=axis))[0] for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def trimmed_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """uint8 of shape (h, w), grey -> left, top, right, bottom of what is inside uniform borders, in 1/255 of the size.

    A picture that would be all border, or has hardly any, is whole.
    """
    top, bottom = _edges(pixels)
    left, right = _edges(pixels.T)
    height, width = pixels.shape
    if max(top, bottom, left, right) < LEAST:
        return UNTRIMMED
    return (
        round(255 * left / width),
        round(255 * top / height),
        round(255 * (width - right) / width),
        round(255 * (height - bottom) / height),
    )


def _edges(pixels: np.ndarray) -> tuple[int, int]:
    """Counts the uniform lines at either end of the first axis; none at both where it is more than can be."""
    most = int(len(pixels) * MOST)
    first, last = _run(pixels[: most + 1]), _run(pixels[::-1][: most + 1])
    return (first if first <= most else 0), (last if last <= most else 0)


def _run(lines: np.ndarray) -> int:
    """Counts the lines in a row that are of the first one's grey."""
    first = lines[0]
    low, high = int(first.min()), int(first.max())
    if high - low > TOLERANCE:
        return 0  # where most pictures end
    level = (low + high) / 2
    apart = (lines.max(axis=1) > level + TOLERANCE) | (lines.min(axis=1) < level - TOLERANCE)
    return int(apart.argmax()) if apart.any() else len(lines)
