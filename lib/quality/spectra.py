"""Signals that show in frequencies: a blur's cut, an enlargement's period, JPEG's grid. Measured on grey tiles."""

from __future__ import annotations

import numpy as np

PERIODS = 24  # profiles are cut to a multiple, so that 1/2, 1/3, 1/4 and 1/8 fall on whole frequencies
LOWEST_FREQUENCY = 0.22  # cycles a pixel: enlargements by up to 4.5
PAIRED = 2.5  # blurred JPEGs reach 2.2 times their grid at a period of 2, enlargements by 2 commonly more
GRID_SHOWS = 1.8  # natural pictures stay below 1.3
# Bands of the gradient's fall, cycles a pixel. A Gaussian blur of 1 pixel leaves 0.9 of the amplitudes in the middle of
# the first and 0.06 in the middle of the second.
COARSE_BAND, FINE_BAND = (0.08, 0.16), (0.3, 0.45)
EVERY = 4  # rows and columns from one that is transformed to the next
ROUNDING = 1 / 12  # variance of what rounding to whole grey levels adds


def fall(tiles: np.ndarray, sigma: float) -> float:
    """How steeply the spectrum falls at its end: ln(amplitude in FINE_BAND / that in COARSE_BAND), noise taken off.

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
    """How far the strongest period of the gradients stands above the spectrum around it; about 1 where there is none.

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
    return spectrum / np.maximum(_moving_median(spectrum, 8), 1e-6)


def _moving_median(values: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(values, reach, mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)
