"""Closed-form signals of technical quality, measured on pixels that were not resized.

All of them are defect detectors, not opinions. Signals that look for detail, noise and block edges are measured on
square tiles of the original pixels, since any resizing hides what they look for; exposure and contrast come from the
histogram of a thinned copy of the whole picture. Brightness is divided out where a signal is not about brightness, so
that a dark picture is called dark and not also flat, clean and soft. Only grey is looked at: a JPEG gives it without
its colours being decoded, at a quarter of the cost. A blur's cut, an enlargement's period and JPEG's grid show in the
frequencies of the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TILE = 192  # pixels; a multiple of 8 (JPEG's grid) and of 2, 3 and 4 (the usual enlargements)
MAX_TILES = 16  # 0.6 megapixels: enough for stable averages, and a quarter of a 2-megapixel picture
THIN_SIDE = 512  # the thinned copy's long side
SCALES = 3  # octaves at which sharpness is measured: 1, 1/2 and 1/4 of the original size
NOISE_BLOCK = 16
# What the calmest tenth of the blocks says of white noise of standard deviation 1, by a block's side.
CALMEST = {16: 0.887, 8: 0.793}
TEXTURE_GAIN = 1.875
MARGIN = 12.0  # grey levels: blocks nearer to black or white are left out, clipping hides their noise

PERIODS = 24  # profiles are cut to a multiple, so that 1/2, 1/3, 1/4 and 1/8 fall on whole frequencies
LOWEST_FREQUENCY = 0.22  # cycles a pixel: enlargements by up to 4.5
PAIRED = 2.5  # blurred JPEGs reach 2.2 times their grid at a period of 2, enlargements by 2 commonly more
GRID_SHOWS = 1.8  # natural pictures stay below 1.3
# Bands of the gradient's fall, cycles a pixel. A Gaussian blur of 1 pixel leaves 0.9 of the amplitudes in the middle of
# the first and 0.06 in the middle of the second.
COARSE_BAND, FINE_BAND = (0.08, 0.16), (0.3, 0.45)
EVERY = 4  # rows and columns from one that is transformed to the next
ROUNDING = 1 / 12  # variance of what rounding to whole grey levels adds


@dataclass(frozen=True)
class Signals:
    """The measured signals. Shares are 0..1; `white` and `black` are the 99th and 1st percentile of brightness, 0..1.

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


def fall(tiles: np.ndarray, sigma: float) -> float:
    """The fall of the spectrum at its end: ln(amplitude in FINE_BAND / that in COARSE_BAND), noise taken off.

    Photographs fall alike at all scales; a blur cuts the end off however soft or sharp the subject is, so that a slight
    one shows here before it shows in any gradient.
    """
    side = tiles.shape[1]
    if side < 2 * PERIODS:
        return 0.0
    window = np.hanning(side).astype(np.float32)
    rows, columns = tiles[:, ::EVERY], tiles[:, :, ::EVERY].transpose(0, 2, 1)
    power = (_power(rows, window) + _power(columns, window)) / (2 * float(np.vdot(window, window)))
    fine, coarse = (power[round(low * side) : round(high * side)].mean() for low, high in (FINE_BAND, COARSE_BAND))
    noise = sigma * sigma
    fine, coarse = (max(float(band) - noise, float(band) / 10) for band in (fine, coarse))
    return float(0.5 * np.log((fine + ROUNDING / 100) / (coarse + ROUNDING / 100)))


def _power(lines: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The mean power spectrum of lines (n, m, side)."""
    spectrum = np.fft.rfft((lines - lines.mean(axis=2, keepdims=True)) * window, axis=2)
    return (spectrum.real**2 + spectrum.imag**2).mean(axis=(0, 1))


def blockiness(across: np.ndarray, down: np.ndarray) -> float:
    """Gradient on the strongest 8-pixel grid over that on the second strongest; 1 is none.

    All eight phases are tried, since a rotated or cropped copy of a JPEG has its grid elsewhere; the second strongest
    rather than the median, since an enlargement by 2 or 4 is strong on several phases and a grid on one.
    """
    ratios = []
    for profile in (across, down):
        length = profile.shape[1] // 8 * 8
        if length < 32:
            continue
        phases = np.sort(profile[:, :length].reshape(len(profile), -1, 8).mean(axis=(0, 1)))
        ratios.append(float(phases[-1]) / max(float(phases[-2]), 0.05))
    return float(np.mean(ratios)) if ratios else 1.0


def resampled(across: np.ndarray, down: np.ndarray, profile_across: np.ndarray, profile_down: np.ndarray) -> float:
    """The strongest period of the gradients over the spectrum around it; about 1 where there is none.

    `across` and `down` are the tiles' differences, the profiles their mean absolute values at each position.

    Interpolation by a factor k leaves first and second differences that repeat with 1/k cycles a pixel (Gallagher,
    "Detection of linear and cubic interpolation in JPEG compressed images", CRV 2005). JPEG's grid repeats at all
    multiples of 1/8. Where that grid shows, a period of 2 proves nothing, and one of 4 only what exceeds the grid.
    """
    curved_across = np.abs(np.diff(across[:, ::2], axis=2)).mean(axis=1)
    curved_down = np.abs(np.diff(down[:, :, ::2], axis=1)).mean(axis=2)
    width = profile_across.shape[1]
    length = width // PERIODS * PERIODS - PERIODS * (width % PERIODS == 0)
    if length < 2 * PERIODS:
        return 1.0
    first = (_peaks(profile_across, length) + _peaks(profile_down, length)) / 2
    second = (_peaks(curved_across, length) + _peaks(curved_down, length)) / 2
    eighth = length // 8
    grid = float(max(first[eighth], first[3 * eighth], second[eighth], second[3 * eighth]))
    if grid > GRID_SHOWS:
        first[2 * eighth - 1 : 2 * eighth + 2] -= max(first[eighth], second[eighth]) - 1
        first[4 * eighth - 1 :] -= PAIRED * grid
        second[2 * eighth - 1 : 2 * eighth + 2] = 0
        for peaks in (first, second):
            peaks[3 * eighth - 1 : 3 * eighth + 2] = 0
    lowest = int(length * LOWEST_FREQUENCY)
    return float(max(first[lowest:].max(), second[lowest:].max()))


def _peaks(profile: np.ndarray, length: int) -> np.ndarray:
    """The amplitude spectrum of profiles (n, >= length), each frequency over the median of its surroundings."""
    part = profile[:, :length]
    part = part / (part.mean(axis=1, keepdims=True) + 0.5)
    part = (part - part.mean(axis=1, keepdims=True)) * np.hanning(length).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(part, axis=1)).mean(axis=0)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(spectrum, 8, mode="reflect"), 17)
    return spectrum / np.maximum(np.median(around, axis=1), 1e-6)


FILLED_LEAST = 0.02  # of the picture; less is hardly missed
_UNIT = 8  # pixels; where a JPEG breaks off, the edge of a block is


def filled_share(grey: np.ndarray) -> float:
    """Returns the share of a picture that is the filling behind the place where its data broke off; 0 for most.

    uint8 of shape (height, width), as it is stored. A decoder that runs out of data fills the rest in reading order
    with one grey: whole rows of blocks at the bottom, and above them the right part of one row of blocks. That step, on
    the grid of blocks and sharp on all of its sides, is looked for; a sky, a page or a border has none.
    """
    height, width = grey.shape
    level = grey[-1, -1]
    if height < 4 * _UNIT or width < 4 * _UNIT or (grey[-1] != level).any():
        return 0.0
    other = (grey != level).any(axis=1)
    full = height - (int(np.flatnonzero(other)[-1]) + 1 if other.any() else 0)
    top = height - full  # the first row that is filled from edge to edge
    if not other.any() or top % _UNIT:
        return 0.0
    for unit in (2 * _UNIT, _UNIT):  # the height of a row of blocks
        if top < unit + 1 or top % unit:
            continue
        band = grey[top - unit : top] == level
        columns = band.all(axis=0)
        left = width if not columns[-1] else width - int(np.argmin(columns[::-1])) if not columns.all() else 0
        above = float((grey[top - unit - 1, left:] == level).mean()) if left < width else 0.0
        beside = float(band[:, left - 1].mean()) if left else 0.0
        below = float(band[-1, :left].mean()) if left else 0.0
        if 0 < left < width and left % _UNIT == 0 and max(above, beside, below) < 0.25:
            share = (full * width + unit * (width - left)) / (height * width)
            return share if share >= FILLED_LEAST else 0.0
    return 0.0
