"""The second kind of evidence: whether two pictures with near hashes are one picture, an altered one, or two.

The limits were measured on 165 photographs (24 Kodak, 41 CID22, 100 found on the web) with 18 harmless alterations
(JPEG down to quality 10, WebP, half and quarter size, brightness, contrast, gamma, saturation, grey, blur, sharpening,
noise) and 11 real ones (captions, logos, a watermark, montages, crops, turned hues, a mirror).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from lib.hashing.buffers import Buffers

BLOCK = 8  # the edit map has 8x8 blocks of 8x8 pixels

# Distinct photographs correlate at .926 at most (1.4 million pairs), text pages at .908, harmless alterations at .987
# and more once the tone is evened out.
LEAST_CORRELATION = 0.95
# Largest block difference, in grey levels, after evening out the tone: harmless 10.9 at most (sharpening), crops of 2 %
# from 13.7, captions from 32, montages from 14.
GREATEST_BLOCK = 12.0
# A change in one place: its block stands out from the median block. Harmless: never above both of these (brightness
# that clips reaches 8.8 and, elsewhere, 7.9); a logo of 8 % of the short side 6.5 and 8.2, a watermark 6.7 and 6.8.
LOCAL_BLOCK = 6.0
LOCAL_RATIO = 6.5
MEDIAN_FLOOR = 0.5  # grey levels; what rounding alone leaves
# Colour left over after evening out the saturation, in levels of Cb and Cr: harmless 5.1 in the mean and 26.8 in the
# worst of 256 places (brightness that clips); a hue turned by a quarter 10 and 43, a coloured logo 0.6 and 37.
GREATEST_COLOUR = 6.0
GREATEST_COLOUR_SPOT = 32.0
COLOURLESS_BELOW = 1.0  # mean distance of Cb and Cr from 128
# Rounding a small copy's sides to whole pixels changes the proportions by less than this; a stretched copy by more.
GREATEST_STRETCH = 0.03


@dataclass(frozen=True)
class Finding:
    """`same` tells whether it is one picture; `reason` says why, or what is different."""

    same: bool
    correlation: float
    reason: str


def compare(one: Buffers, other: Buffers) -> Finding:
    """Whether two pictures are the same one, re-encoded, resized or retoned, by their grey and colour buffers."""
    if len(one.greys) != len(other.greys):
        return Finding(False, 0.0, "one is animated or transparent")
    if _stretched(one, other):
        return Finding(False, 0.0, "other proportions")
    lowest = 1.0
    for a, b in zip(one.greys, other.greys, strict=True):
        correlation, blocks = toned_difference(a, b)
        lowest = min(lowest, correlation)
        if correlation < LEAST_CORRELATION:
            return Finding(False, correlation, "cropped or changed")
        if reason := _difference(blocks):
            return Finding(False, correlation, reason)
    mean, worst = colour_difference(one.chroma, other.chroma)
    if mean > GREATEST_COLOUR or worst > GREATEST_COLOUR_SPOT:
        return Finding(False, lowest, "other colours")
    if colourless(one) != colourless(other):
        return Finding(True, lowest, "grey version")
    return Finding(True, lowest, "re-encoded or resized")


def colourless(buffers: Buffers) -> bool:
    """Whether a picture shows no colour at all."""
    return float(np.abs(buffers.chroma.astype(np.float32) - 128).mean()) < COLOURLESS_BELOW


def toned_difference(one: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """(correlation, float of shape (8, 8): mean difference of each block in grey levels), the tone evened out.

    Clipping loses grey levels, so that the darker picture may be made from the brighter one but not the reverse: the
    curve is fitted both ways and the better fit counts.
    """
    fits = []
    for source, target in ((one, other), (other, one)):
        fitted = toned(source, target)
        fits.append((correlate(fitted, target), block_means(np.abs(fitted - target))))
    return min(fits, key=lambda fit: float(fit[1].max()))


def toned(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` (uint8) under the rising tone curve that brings it nearest to `target` (uint8): float32, same shape.

    Brightness, contrast, gamma and clipping map a grey level to another one wherever it stands; a caption, a logo or a
    montage does not, and is left over as a difference.
    """
    levels = np.bincount(source.ravel(), minlength=256)
    sums = np.bincount(source.ravel(), weights=target.ravel(), minlength=256)
    used = levels > 0
    curve = np.zeros(256, np.float32)
    curve[used] = isotonic_regression(sums[used] / levels[used], weights=levels[used]).x
    return curve[source]


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised cross-correlation of two grey pictures of equal shape, -1 to 1; 0 where one of them is flat."""
    a = one.astype(np.float32) - one.mean(dtype=np.float32)
    b = other.astype(np.float32) - other.mean(dtype=np.float32)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def block_means(values: np.ndarray) -> np.ndarray:
    """float of shape (64, 64) -> (8, 8): the mean of each block."""
    side = values.shape[0] // BLOCK
    return values.reshape(side, BLOCK, side, BLOCK).mean(axis=(1, 3))


def colour_difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """(mean, worst) difference of two chroma buffers, uint8 of shape (2, 16, 16), the saturation evened out."""
    strong, weak = (c.astype(np.float32).ravel() - 128 for c in (one, other))
    if np.abs(strong).mean() < np.abs(weak).mean():
        strong, weak = weak, strong
    scale = float(strong @ weak) / max(1.0, float(strong @ strong))
    apart = np.abs(weak - np.clip(scale, 0.0, 1.0) * strong)
    return float(apart.mean()), float(apart.max())


def _difference(blocks: np.ndarray) -> str:
    worst, median = float(blocks.max()), float(np.median(blocks))
    if worst > GREATEST_BLOCK:
        return "changed in places"
    if worst > LOCAL_BLOCK and worst / (median + MEDIAN_FLOOR) > LOCAL_RATIO:
        return "changed in one place"
    return ""


def _stretched(one: Buffers, other: Buffers) -> bool:
    ratio = (one.width * other.height) / max(1, one.height * other.width)
    # Half a pixel of rounding on the shortest side is no stretch either.
    rounding = 1.0 / max(1, min(one.width, one.height, other.width, other.height))
    return abs(float(np.log(ratio))) > GREATEST_STRETCH + rounding
