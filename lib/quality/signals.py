"""Closed-form signals of technical quality, measured on pixels that were not resized.

All of them are defect detectors, not opinions. Signals that look for detail, noise and block edges are measured on
square tiles of the original pixels, since any resizing hides what they look for; exposure and contrast come from the
histogram of a thinned copy of the whole picture. Brightness is divided out where a signal is not about brightness, so
that a dark picture is called dark and not also flat, clean and soft. Only grey is looked at: a JPEG gives it without
its colours being decoded, at a quarter of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.quality.spectra import blockiness, fall, resampled

TILE = 192  # pixels; a multiple of 8 (JPEG's grid) and of 2, 3 and 4 (the usual enlargements)
MAX_TILES = 16  # 0.6 megapixels: enough for stable averages, and a quarter of a 2-megapixel picture
THIN_SIDE = 512  # the thinned copy's long side
SCALES = 3  # octaves at which sharpness is measured: 1, 1/2 and 1/4 of the original size
NOISE_BLOCK = 16
# What the calmest tenth of the blocks says of white noise of standard deviation 1, by a block's side.
CALMEST = {16: 0.887, 8: 0.793}
TEXTURE_GAIN = 1.875
MARGIN = 12.0  # grey levels: blocks nearer to black or white are left out, clipping hides their noise


@dataclass(frozen=True)
class Signals:
    """What was measured. Shares are 0..1; `white` and `black` are the 99th and 1st percentile of brightness, 0..1.

    softness      re-blur measure at 1, 1/2 and 1/4 of the size: 0 sharp … 1 without any detail
    fall          at full and at half size: natural logarithm of the amplitude of the finest detail over that of detail
                  three times as coarse; -0.8 to -2 in undamaged photographs, below -2.4 after a blur of 1 pixel
    resampled     how strongly the gradients repeat at an enlargement's period, in spreads above their surroundings
    noise         standard deviation in grey levels, of the picture stretched to full brightness
    blockiness    mean gradient on the strongest 8-pixel grid over that off it; 1 is none
    contrast      standard deviation of brightness over `white`
    entropy       of the brightness histogram, bits, 0..8
    """

    width: int
    height: int
    softness: tuple[float, ...]
    fall: tuple[float, float]
    resampled: float
    noise: float
    blockiness: float
    white: float
    black: float
    clipped_high: float
    clipped_low: float
    contrast: float
    entropy: float


def measure_signals(grey: np.ndarray) -> Signals:
    """All signals of one picture: uint8 of shape (height, width), upright, not resized. At least 1 x 1 pixels."""
    height, width = grey.shape
    histogram = thin_histogram(grey)
    white, black = quantile(histogram, 0.99), quantile(histogram, 0.01)
    tiles = grey_tiles(grey)
    across, down = tiles[:, :, 1:] - tiles[:, :, :-1], tiles[:, 1:] - tiles[:, :-1]
    profile_across, profile_down = np.abs(across).mean(axis=1), np.abs(down).mean(axis=2)
    octaves = [tiles]
    while len(octaves) < SCALES:
        octaves.append(halved(octaves[-1]))
    sigma = noise_sigma(tiles, octaves[1])
    # Below a tenth of full brightness 8 bits leave too few levels to stretch.
    stretch = 1 / max(white, 0.1)
    return Signals(
        width=width,
        height=height,
        softness=softness(octaves, sigma),
        fall=(fall(tiles, sigma), fall(octaves[1], sigma / 2)),
        resampled=resampled(across, down, profile_across, profile_down),
        noise=sigma * stretch,
        blockiness=blockiness(profile_across, profile_down),
        white=white,
        black=black,
        clipped_high=clipped_share(histogram[::-1]),
        clipped_low=clipped_share(histogram),
        contrast=spread(histogram) / 255 * stretch,
        entropy=entropy(histogram),
    )


def thin_histogram(grey: np.ndarray) -> np.ndarray:
    """The shares of the 256 levels in every n-th pixel of every n-th row, the long side about THIN_SIDE: float64."""
    step = max(1, round(max(grey.shape) / THIN_SIDE))
    top, left = (min(step // 2, side // 2) for side in grey.shape)
    counts = np.bincount(grey[top::step, left::step].ravel(), minlength=256)
    return counts / counts.sum()


def grey_tiles(grey: np.ndarray) -> np.ndarray:
    """Up to MAX_TILES square tiles spread evenly over the picture: float32 of shape (n, side, side).

    The side is TILE, or the picture's short side where that is less. Origins lie on multiples of 8.
    """
    height, width = grey.shape
    side = min(TILE, height, width)
    rows, columns = _spread(height, width, side)
    return np.stack([grey[y : y + side, x : x + side] for y in rows for x in columns]).astype(np.float32)


def _spread(height: int, width: int, side: int) -> tuple[list[int], list[int]]:
    down, across = height // side, width // side
    while down * across > MAX_TILES:
        if across == 1 or (down * width >= across * height and down > 1):
            down -= 1
        else:
            across -= 1
    return _origins(height - side, down), _origins(width - side, across)


def _origins(room: int, count: int) -> list[int]:
    if count == 1:
        return [room // 2 // 8 * 8]
    return [int(room * i / (count - 1)) // 8 * 8 for i in range(count)]


def softness(octaves: Sequence[np.ndarray], sigma: float) -> tuple[float, ...]:
    """The re-blur measure at each octave, finest first; `sigma` is the noise of the first, in grey levels.

    Where noise makes up most of an octave's gradients its sharpness cannot be told, and the next octave, whose noise
    is half of it, speaks for both.
    """
    found: list[float] = []
    for scale in reversed(range(len(octaves))):
        tiles, noise = octaves[scale], sigma / 2**scale
        across, share = reblur(tiles, noise)
        down, other_share = reblur(tiles, noise, axis=1)
        unsure = max(share, other_share) ** 2 if found else 0.0
        found.append((1 - unsure) * max(across, down) + unsure * (found[-1] if found else 0.0))
    return tuple(reversed(found))


def reblur(tiles: np.ndarray, sigma: float = 0.0, axis: int = 2) -> tuple[float, float]:
    """(how much of the gradient a 9-tap blur along this axis leaves, which share of the gradient is noise).

    1/3 for a sharp edge, less for texture, 1 for what is blurred or flat. After Crete, Dolmiere, Ladret and Nicolas,
    "The blur effect", SPIE 6492 (2007), with energies in place of absolute values: those let white noise of standard
    deviation `sigma` be taken off exactly (2 sigma^2 a gradient), so that noise does not pass for detail. The gradient
    of the blurred picture is a difference of two pixels nine apart, so the blur itself is never computed.
    """
    if tiles.shape[axis] < 10:
        return 1.0, 0.0
    if axis == 1:
        fine, coarse = tiles[:, 5:-4] - tiles[:, 4:-5], tiles[:, 9:] - tiles[:, :-9]
    else:
        fine, coarse = tiles[:, :, 5:-4] - tiles[:, :, 4:-5], tiles[:, :, 9:] - tiles[:, :, :-9]
    noise = 2 * sigma * sigma * fine.size
    before, after = float(np.vdot(fine, fine)), float(np.vdot(coarse, coarse))
    if before <= 0:
        return 1.0, 0.0
    share = min(1.0, noise / before)
    before, after = max(before - noise, before / 10), max(after - noise, after / 10) / 81
    return min(1.0, float(np.sqrt(after / before))), share


def halved(tiles: np.ndarray) -> np.ndarray:
    """Half the size by 2 x 2 means; an odd last row or column is left out."""
    side = tiles.shape[1] // 2 * 2
    even = tiles[:, :side, :side]
    summed = even[:, ::2, ::2] + even[:, 1::2, ::2]
    summed += even[:, ::2, 1::2]
    summed += even[:, 1::2, 1::2]
    summed *= 0.25
    return summed


def noise_sigma(tiles: np.ndarray, half: np.ndarray) -> float:
    """White noise in grey levels (standard deviation); `half` are the same tiles at half the size.

    Halving by means halves white noise, whereas texture grows a little (by TEXTURE_GAIN in energy), which tells the
    two apart: s0^2 = n^2 + t^2 and s1^2 = n^2 / 4 + g t^2.
    """
    whole, halfway = _calmest(tiles, NOISE_BLOCK), _calmest(half, NOISE_BLOCK // 2)
    energy = (whole * whole - halfway * halfway / TEXTURE_GAIN) / (1 - 1 / (4 * TEXTURE_GAIN))
    return float(np.sqrt(max(0.0, energy)))


def _calmest(tiles: np.ndarray, block: int) -> float:
    """Noise and fine texture together, from the calmest tenth of the blocks; 0 where no block is usable.

    Immerkaer, "Fast noise variance estimation", CVIU 64 (1996): the mean absolute answer of the difference of two
    Laplacians. Edges answer too, hence the calmest blocks rather than the whole picture.
    """
    if tiles.shape[1] < block + 2:
        return 0.0
    answer = np.diff(np.diff(tiles, n=2, axis=1), n=2, axis=2)
    np.abs(answer, out=answer)
    strengths = _block_means(answer, block) * float(np.sqrt(np.pi / 2)) / 6
    means = _block_means(tiles[:, 1:-1, 1:-1], block)
    # Clipping at black or white hides noise.
    usable = strengths[np.minimum(means, 255 - means) > MARGIN + 2 * strengths]
    return float(np.percentile(usable, 10)) / CALMEST[block] if usable.size else 0.0


def _block_means(values: np.ndarray, side: int) -> np.ndarray:
    """The means of whole blocks, of all tiles in one row. Rows are summed first, since those lie side by side."""
    count = values.shape[1] // side
    whole = values[:, : count * side, : count * side]
    bands = whole.reshape(len(values), count, side, count * side).sum(axis=2)
    return (bands.reshape(len(values), count, count, side).sum(axis=3) / side**2).ravel()


def quantile(histogram: np.ndarray, share: float) -> float:
    """The brightness, 0..1, below which this share of the pixels lies; interpolated between levels."""
    below = np.concatenate(([0.0], np.cumsum(histogram)))
    right = min(max(int(np.searchsorted(below, share)), 1), 256)
    inside = (share - below[right - 1]) / max(float(histogram[right - 1]), 1e-9)
    return min(1.0, (right - 1 + min(1.0, float(inside))) / 255)


def clipped_share(histogram: np.ndarray) -> float:
    """The share of pixels in the three levels at this end of the histogram, a thousandth of stray pixels left out.

    Counted from the brightest (or darkest) level that occurs, so that darkening a blown picture does not mend it.
    """
    end = int(np.searchsorted(np.cumsum(histogram), 0.001))
    return float(histogram[: end + 3].sum())


def spread(histogram: np.ndarray) -> float:
    """The standard deviation in grey levels."""
    levels = np.arange(256)
    mean = float(histogram @ levels)
    return float(np.sqrt(histogram @ (levels - mean) ** 2))


def entropy(histogram: np.ndarray) -> float:
    """Shannon entropy in bits of a histogram whose sum is 1."""
    occupied = histogram[histogram > 0]
    return float(-(occupied * np.log2(occupied)).sum())
