"""How much of a picture's size is real: an upscaled picture has many pixels and an empty upper spectrum."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from lib.decode import codec_boundary, flattened, opened

VERSION = "4"
CROP = 256  # pixels from the middle; enough rings, and the cost does not grow with the picture
# Over 13 photographs the spectral power at half of the highest frequency lies 0.8 to 2.0 powers of ten below that at a
# tenth of it; enlarged to twice their size, 2.2 to 3.1 below (as a JPEG of quality 30: 2.1 to 2.8).
EMPTY_BELOW = -2.2
# Originals are softer than their size allows, too: only an end below this share is held against a picture.
SHARP_FROM = 0.6
# Noise is as strong at the highest frequencies as anywhere; what stands there is taken off before the fall is read. Of
# 55 photographs a noisier copy of equal size then passes for sharper in 5 to 14 of 100 cases; one enlarged to twice its
# size passes for larger in 18, by 1.7 in 38, by 1.3 in 73 (so little is hard to tell from a sharp picture).
NOISE = 0.9
MARGIN = 0.9  # the fall is read at its foot; enlarged by s, a sharp picture then measures below 1 / s
_RINGS = np.arange(0.1, 0.95, 0.1)


def real_share(path: Path | str) -> float:
    """Share of the pixels that carry detail, a power of two up to 1: 1/4 or 1/8 for one enlarged to twice its size.

    The measure is no finer than that, and copies of one picture must not be ranked by its noise. Decodes the whole
    picture. Raises lib.decode.DecodeError.
    """
    edge = spectrum_edge(_middle(Path(path)))
    return 1.0 if edge >= SHARP_FROM else 2.0 ** round(2.0 * math.log2(MARGIN * edge))


def spectrum_edge(grey: np.ndarray) -> float:
    """Where the spectrum of a grey picture of shape (h, w) ends, as a share of the highest frequency: 0.1 to 1."""
    side = min(grey.shape)
    if side < 48:  # too few frequencies to tell
        return 1.0
    power = _power(grey[:side, :side]).ravel()
    levels = np.array([power[ring].mean() for ring in _rings(side)])
    levels = levels - NOISE * levels[-2:].min()
    fall = np.log10(np.maximum(levels, 1e-12)) - np.log10(max(float(levels[0]), 1e-12))
    below = np.nonzero(fall < EMPTY_BELOW)[0]
    if len(below) == 0:
        return 1.0
    k = int(below[0])
    return float(np.interp(-EMPTY_BELOW, [-fall[k - 1], -fall[k]], [_RINGS[k - 1], _RINGS[k]]))


@lru_cache(maxsize=8)
def _rings(side: int) -> list[np.ndarray]:
    """The places in a flattened half spectrum of `side` rows where each ring's frequencies are: int64 each."""
    steps = np.minimum(np.arange(side), side - np.arange(side))[:, None] * 2.0 / side
    radius = np.maximum(steps, np.arange(side // 2 + 1)[None, :] * 2.0 / side).ravel()
    return [np.nonzero((radius >= r) & (radius < r + 0.1))[0] for r in _RINGS]


def _power(grey: np.ndarray) -> np.ndarray:
    window = _window(len(grey))
    values = grey.astype(np.float32)
    values = (values - values.mean()) * window
    return np.abs(np.fft.rfft2(values)) ** 2


@lru_cache(maxsize=8)
def _window(side: int) -> np.ndarray:
    window = np.hanning(side).astype(np.float32)
    return window[:, None] * window[None, :]


def _middle(path: Path) -> np.ndarray:
    """uint8 of shape (n, n): the grey middle of a picture at full size; which way is up makes no difference."""
    with opened(path) as image, codec_boundary():
        if image.mode == "RGB":
            image.draft("L", image.size)  # a JPEG then spares the colours
        width, height = image.size
        side = min(CROP, height, width)
        left, top = (width - side) // 2, (height - side) // 2
        plain = image.crop((left, top, left + side, top + side))
        plain.info.update({key: image.info[key] for key in ("transparency",) if key in image.info})
        return np.asarray((plain if plain.mode == "L" else flattened(plain, (255, 255, 255))).convert("L"))
