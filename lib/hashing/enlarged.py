"""Tells whether the larger of two copies of one picture is only the smaller one enlarged.

What an enlargement shows beyond the smaller copy is the encoder's noise and nothing else. So the smaller copy is
enlarged as others would, what an encoder with the larger file's own quantisation table would do to that is measured,
and the larger copy counts as enlarged where no more than that is left to explain.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib.images.decode import codec_boundary, flattened, header_of, opened, upright

VERSION = "5"
CROP = 192  # pixels of the larger picture's middle; the cost does not grow with the picture
_MARGIN = 32  # pixels more of the smaller one, for the reach of the filters
_LEAST = 48  # pixels; below, there are too few frequencies to tell
WEBP_QUALITY = 85  # its files do not tell theirs; a usual one
LEAST_STEP = 1.1  # of the sides: less is no enlargement worth the name
_KERNELS = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
# What is left unexplained, as a share of what the smaller copy holds in the upper 40 % of its frequencies. Over 130
# photographs, enlarged 1.3 to 4 times by three filters and saved as JPEGs of quality 75 to 95, 96 of 100 meet these
# limits (WebP, whose files do not tell how they were made: 63). Of 1,560 larger originals against their own copies,
# reduced by six filters, some then sharpened, brightened or made noisy: none; the nearest left .09, half of them 1.9.
UNEXPLAINED = 0.08
_HOPELESS = 1.5  # no other filter brings that down to the limit
# The highest frequencies that both can hold are as strong in an enlargement as in what was made here (.96 to 1.03 in 90
# of 100); in a larger original mostly stronger.
WEAKEST, STRONGEST = 0.85, 1.12
# Where the encoder's noise drowns what the smaller copy holds there, or more is taken off than there was, nothing can
# be said, and the larger copy is taken for honest.
MOST_NOISE, LEAST_LEFT = 1.5, -0.5
_LOW, _NEAR, _TOP = 0.15, 0.6, 0.97  # of the smaller copy's highest frequency


@dataclass(frozen=True)
class Middle:
    """The middle of a picture at full size, upright.

    grey    uint8 of shape (h, w)
    left, top      where it lies in the picture, pixels
    width, height  of the whole picture, pixels
    save    how Pillow writes such a file: with the JPEG's own table, as WebP; nothing for other formats
    """

    grey: np.ndarray
    left: int
    top: int
    width: int
    height: int
    save: Mapping[str, Any]

    @property
    def side(self) -> int:
        """Of the square that is looked at, pixels; a multiple of 8."""
        return min(CROP, *self.grey.shape) // 8 * 8

    @property
    def corner(self) -> tuple[int, int]:
        """Returns where that square begins in `grey`: left, top."""
        height, width = self.grey.shape
        return (width - self.side) // 2, (height - self.side) // 2

    @property
    def seen(self) -> np.ndarray:
        """The square, float32."""
        left, top = self.corner
        return self.grey[top : top + self.side, left : left + self.side].astype(np.float32)

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Of the square: complex64 of shape (side, side / 2 + 1). One picture is compared with several smaller ones."""
        return _spectrum(self.seen)


def read_middle(path: Path | str) -> Middle:
    """Returns the middle of a picture file. Decodes the whole picture. Raises lib.images.decode.DecodeError."""
    with opened(Path(path)) as image, codec_boundary():
        save: dict[str, Any] = {"format": "WEBP", "quality": WEBP_QUALITY} if image.format == "WEBP" else {}
        if tables := getattr(image, "quantization", None):
            save = {"format": "JPEG", "qtables": [list(tables[min(tables)])]}
        orientation = header_of(image).orientation
        if image.mode == "RGB":
            image.draft("L", image.size)  # a JPEG then spares the colours
        whole = upright(image, orientation)
        width, height = whole.size
        across, down = min(CROP + 2 * _MARGIN, width), min(CROP + 2 * _MARGIN, height)
        left, top = (width - across) // 2, (height - down) // 2
        part = whole.crop((left, top, left + across, top + down))
        part.info.update({key: whole.info[key] for key in ("transparency",) if key in whole.info})
        grey = part if part.mode == "L" else flattened(part, (255, 255, 255)).convert("L")
        return Middle(np.asarray(grey), left, top, width, height, save)


def is_enlarged(small: Middle, large: Middle) -> bool:
    """Says whether `large` holds nothing that `small` does not hold, enlarged."""
    ratio = float(np.sqrt(large.width * large.height / max(1, small.width * small.height)))
    if ratio < LEAST_STEP or large.side < _LEAST:
        return False
    seen, bands = large.seen, _bands(large.side, 0.5 / ratio)
    for kernel in _KERNELS:
        shown = _enlarged(small, large, kernel)
        if shown is None:
            return False
        away = shown - shown.mean()  # then with the brightness and contrast of `seen`
        share = float(np.vdot(away, seen - seen.mean())) / max(1.0, float(np.vdot(away, away)))
        toned = away * np.float32(max(0.05, share)) + seen.mean()
        rest, noise, strength = _unexplained(large.spectrum, toned, bands, large.save)
        fits = LEAST_LEFT <= rest - noise <= UNEXPLAINED and noise <= MOST_NOISE
        if fits and WEAKEST <= strength <= STRONGEST:
            return True
        if rest - noise > _HOPELESS:
            return False
    return False


def _unexplained(
    spectrum: np.ndarray, shown: np.ndarray, bands: tuple[np.ndarray, np.ndarray], save: Mapping[str, Any]
) -> tuple[float, float, float]:
    """Returns (what `shown` leaves unexplained, the encoder's noise, strength of the upper frequencies both can hold).

    The first two are shares of what `shown` holds in its upper frequencies, the third of what is left of that once it
    is encoded. `bands` are the places in a flattened spectrum of all frequencies that count, and of the upper ones.
    """
    every, near = bands
    own = _spectrum(shown)
    held = max(_energy(own.take(near)), 1e-6)
    own_every = own.take(every)
    rest = _energy(spectrum.take(every) - own_every) / held
    if rest > MOST_NOISE + _HOPELESS:
        return rest, 0.0, 0.0  # no noise that is allowed for explains so much: encoding it would be wasted
    coded = _spectrum(_encoded(shown, save)) if save else own
    strength = _energy(spectrum.take(near)) / max(_energy(coded.take(near)), 1e-6)
    return rest, _energy(coded.take(every) - own_every) / held, strength


def _energy(values: np.ndarray) -> float:
    return float(np.vdot(values, values).real)


def _enlarged(small: Middle, large: Middle, kernel: Image.Resampling) -> np.ndarray | None:
    """Returns what `small` shows of the square of `large`, float32, of its shape; None where that lies outside."""
    side, place = large.side, (large.left + large.corner[0], large.top + large.corner[1])
    across, down = small.width / large.width, small.height / large.height
    box = (
        place[0] * across - small.left,
        place[1] * down - small.top,
        (place[0] + side) * across - small.left,
        (place[1] + side) * down - small.top,
    )
    height, width = small.grey.shape
    if min(box[:2]) < -0.01 or box[2] > width + 0.01 or box[3] > height + 0.01:
        return None  # other proportions
    inside = (max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3]))
    grey = Image.fromarray(small.grey.astype(np.float32))
    return np.asarray(grey.resize((side, side), kernel, box=inside), np.float32)


def _encoded(grey: np.ndarray, save: Mapping[str, Any]) -> np.ndarray:
    """Returns what an encoder makes of it."""
    held = io.BytesIO()
    Image.fromarray((grey.clip(0, 255) + 0.5).astype(np.uint8)).save(held, **save)
    with Image.open(held) as image:
        return np.asarray(image.convert("L"), np.float32)


def _spectrum(grey: np.ndarray) -> np.ndarray:
    from scipy.fft import rfft2  # of single numbers as such: seven times as fast as NumPy's; 0.1 s to import

    return np.asarray(rfft2((grey - grey.mean()) * _window(len(grey))))


@lru_cache(maxsize=4)
def _window(side: int) -> np.ndarray:
    window = np.hanning(side).astype(np.float32)
    return window[:, None] * window[None, :]


@lru_cache(maxsize=16)
def _bands(side: int, highest: float) -> tuple[np.ndarray, np.ndarray]:
    down, across = np.abs(np.fft.fftfreq(side))[:, None], np.fft.rfftfreq(side)[None, :]
    radius = np.maximum(down, across)
    near = (radius >= _NEAR * highest) & (radius < _TOP * highest)
    return np.flatnonzero(radius >= _LOW * highest), np.flatnonzero(near)
