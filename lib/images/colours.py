"""The colours that a picture's numbers stand for: a profile, or primaries and a curve; sRGB where nothing is said.

Equal numbers under another profile are another picture. A profile of sRGB, of which there are many, says no more than
none: two spaces are one where the same numbers give the same colours of sRGB to within rounding.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from lib.errors import is_broken_installation
from lib.images.structure import png_chunks

if TYPE_CHECKING:
    import numpy as np

Read = Callable[[int, int], bytes]

LARGEST_PROFILE = 4 << 20  # bytes; those for printing have 0.5 to 3 MB
_LOOKED_AT = 1 << 16  # bytes at the beginning of an AVIF file, where its properties stand
_MOST_CHUNKS = 1000  # of a PNG before its pixels
_SAME_LEVELS = 2  # that two profiles of sRGB may differ by: the grid below, through another's tables
_SIDE = 9  # levels of each channel in that grid

# White and the three primaries (x, y), by their number in ITU-T H.273; 2 is "unspecified".
_BT709 = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES = {
    1: _BT709,
    2: _BT709,
    4: (0.310, 0.316, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080),
    5: (0.3127, 0.3290, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# Curves by their number there, as an exponent; 0 is the curve of sRGB, by which still pictures that name one of video's
# are shown as well. Those of high dynamic range (16, 18) have no single rendering here.
_GAMMAS = {1: 0.0, 2: 0.0, 4: 2.2, 5: 2.8, 6: 0.0, 8: 1.0, 13: 0.0, 14: 0.0, 15: 0.0}
_USUAL_GAMMA = 1 / 2.2  # in a PNG: written for the curve of sRGB, and shown so


@dataclass(frozen=True)
class ColourSpace:
    """The space of a picture's numbers.

    profile    an ICC profile; the rest counts where there is none
    primaries  x and y of white, red, green and blue
    gamma      exponent of the curve; 0 for that of sRGB
    name       of a space that is told apart but not converted
    tagged     True where the file says it at all
    """

    profile: bytes = b""
    primaries: tuple[float, ...] = _BT709
    gamma: float = 0.0
    name: str = ""
    tagged: bool = False

    @property
    def digest(self) -> bytes:
        """Eight bytes that tell the space; all zero for sRGB."""
        return _digest(self)

    @property
    def is_srgb(self) -> bool:
        return not any(self.digest)


SRGB = ColourSpace()


def colours_of(image: Image.Image, read: Read, size: int) -> ColourSpace:
    """The space of an opened picture, from its header and its file; a broken one counts as named, not as sRGB."""
    info = image.info
    code = _png_code(read) if image.format == "PNG" else _avif_code(read, size) if image.format == "AVIF" else None
    if code and image.format == "PNG":  # cICP comes before all others there, and behind a profile elsewhere
        return _coded(*code)
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profiled(profile)
    if isinstance(named := info.get("nclx_profile"), dict):  # of HEIC
        code = int(named.get("color_primaries", 2)), int(named.get("transfer_characteristics", 2))
    if code:
        return _coded(*code)
    if "srgb" in info:
        return ColourSpace(tagged=True)
    return _of_png_numbers(info.get("gamma"), info.get("chromaticity"))


def profiled(profile: bytes) -> ColourSpace:
    """The space of an ICC profile."""
    if len(profile) > LARGEST_PROFILE:
        return ColourSpace(name=f"profile {hashlib.sha256(profile).hexdigest()}", tagged=True)
    return ColourSpace(profile=profile, tagged=True)


def _coded(primaries: int, curve: int) -> ColourSpace:
    if primaries not in _PRIMARIES or curve not in _GAMMAS:
        return ColourSpace(name=f"H.273 {primaries} {curve}", tagged=True)
    return ColourSpace(primaries=_PRIMARIES[primaries], gamma=_GAMMAS[curve], tagged=(primaries, curve) != (2, 2))


def _of_png_numbers(gamma: object, chromaticity: object) -> ColourSpace:
    """From the chunks gAMA and cHRM; what they cannot mean is left out."""
    exponent, primaries = 0.0, _BT709
    if isinstance(gamma, float) and 0.05 < gamma < 20 and abs(gamma - _USUAL_GAMMA) > 0.002:
        exponent = 1 / gamma
    if isinstance(chromaticity, tuple) and len(chromaticity) == 8 and all(chromaticity[1::2]):
        primaries = chromaticity
    told = isinstance(gamma, float) or primaries is not _BT709
    return ColourSpace(primaries=primaries, gamma=exponent, tagged=told)


def _png_code(read: Read) -> tuple[int, int] | None:
    """(primaries, curve) of the chunk cICP, which stands before the pixels."""
    for kind, at, _ in png_chunks(read, _MOST_CHUNKS):
        if kind == b"IDAT":
            return None
        if kind == b"cICP":
            code = read(at, 4)
            return (code[0], code[1]) if len(code) == 4 else None
    return None


def _avif_code(read: Read, size: int) -> tuple[int, int] | None:
    head = read(0, min(size, _LOOKED_AT))
    at = head.find(b"colrnclx")
    return struct.unpack_from(">HH", head, at + 8) if 0 <= at <= len(head) - 12 else None


def in_srgb(image: Image.Image, space: ColourSpace) -> Image.Image:
    """A picture in L, RGB, YCbCr or CMYK with its numbers turned into those of sRGB: RGB, or L from L.

    As it is where its space is sRGB, is unknown here, or is one of other channels than the picture has.
    """
    if space.is_srgb or space.name:
        return image
    made = _by_profile(image, space) if space.profile else _by_numbers(image, space)
    return image if made is None else made.convert("L") if image.mode == "L" else made


@lru_cache(maxsize=32)
def _digest(space: ColourSpace) -> bytes:
    if space.name:
        return hashlib.sha256(space.name.encode()).digest()[:8]
    if space.profile:
        told = hashlib.sha256(space.profile).digest()[:8]
        mode = _CHANNELS.get(space.profile[16:20])
    else:
        told = hashlib.sha256(repr((space.primaries, round(space.gamma, 3))).encode()).digest()[:8]
        mode = "RGB"
    if mode is None or mode == "CMYK":
        return told
    grid = _grid(mode)
    made = _by_profile(grid, space) if space.profile else _by_numbers(grid, space)
    return bytes(8) if made is not None and _farthest(made, grid.convert("RGB")) <= _SAME_LEVELS else told


_CHANNELS = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


def _grid(mode: str) -> Image.Image:
    import numpy as np

    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None, :])
    steps = np.linspace(0, 255, _SIDE).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(_SIDE, -1, 3)
    return Image.fromarray(cube)


def _farthest(one: Image.Image, other: Image.Image) -> int:
    import numpy as np

    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def _by_profile(image: Image.Image, space: ColourSpace) -> Image.Image | None:
    channels = _CHANNELS.get(space.profile[16:20], "")
    plain = image.convert("RGB") if image.mode == "YCbCr" or (image.mode, channels) == ("L", "RGB") else image
    if plain.mode != channels:
        return None
    transform = _transform(space.profile, channels)
    return transform.apply(plain) if transform else None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """Relative colorimetric with black points matched, as browsers do; None for a profile that cannot be read."""
    try:
        from PIL import ImageCms

        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        # Without a cache of its own the transform may be used by several threads.
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        return ImageCms.buildTransform(source, target, mode, "RGB", intent, flags)
    except Exception as error:  # littlecms says of a broken profile no more than that it is one
        if is_broken_installation(error):
            raise
        return None


def _by_numbers(image: Image.Image, space: ColourSpace) -> Image.Image | None:
    import numpy as np

    values = np.asarray(image.convert("RGB"), np.float32) / 255
    linear = values**space.gamma if space.gamma else _linear(values)
    try:
        matrix = np.linalg.solve(_to_xyz(_BT709), _adapted(space.primaries) @ _to_xyz(space.primaries))
    except np.linalg.LinAlgError:  # primaries on a line, or one of them nowhere
        return None
    mixed = np.clip(linear @ matrix.T.astype(np.float32), 0, 1)
    curved = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)
    return Image.fromarray((curved * 255 + 0.5).astype(np.uint8))


def _linear(values: np.ndarray) -> np.ndarray:
    """Light from the numbers of sRGB, IEC 61966-2-1: float of any shape, 0 to 1."""
    import numpy as np

    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_xyz(primaries: tuple[float, ...]) -> np.ndarray:
    """float64 of shape (3, 3): light of three primaries to XYZ, white at its own brightness 1."""
    import numpy as np

    columns = [_xyz(*primaries[at : at + 2]) for at in (2, 4, 6)]
    made = np.stack(columns, axis=1)
    return made * np.linalg.solve(made, _xyz(*primaries[:2]))


def _adapted(primaries: tuple[float, ...]) -> np.ndarray:
    """float64 of shape (3, 3): from this white to that of sRGB, by Bradford's cones."""
    import numpy as np

    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gain = (cones @ _xyz(*_BT709[:2])) / (cones @ _xyz(*primaries[:2]))
    return np.asarray(np.linalg.solve(cones, gain[:, None] * cones))


def _xyz(x: float, y: float) -> np.ndarray:
    import numpy as np

    return np.array([x / y, 1.0, (1 - x - y) / y])
