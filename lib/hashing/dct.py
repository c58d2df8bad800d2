"""The 256-bit DCT hash: the sixteen by sixteen lowest frequencies of a 64x64 grey picture, against their median.

256 bits rather than the usual 64: over 1.4 million pairs of distinct photographs the nearest pair lies at 80 of 256
bits, whereas the 64-bit hash brings distinct photographs as near as 10 of 64 and text pages as near as 2. The median
(not the mean) is what keeps half of the bits set, and so keeps unlike pictures apart.

Mirrors and quarter turns of a picture are signs and transposes of its coefficients, and a window of it is another pair
of matrices over the same pixels: all their hashes come from one grey picture.

Arithmetic on small pictures as fields of numbers: slopes, curvature, block means, medians.

NumPy's own `gradient`, `pad`, `mean` and `median` spend more time on getting ready than on 4,096 numbers, and a folder
asks for them by the ten thousand.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

KIND = "phash"
BITS = 256
SIDE = 64  # the grey picture that is transformed
KEPT = 16  # frequencies kept along each axis
# Solid colours, empty pages and gradients all hash alike; below this spread of grey levels there is no hash.
FLAT_BELOW = 3.0

Span = tuple[float, float]  # from, to along one axis, 0 to 1

TURNS = ("mirrored", "upside down mirrored", "upside down", "transposed", "turned right", "turned left", "transversed")


@lru_cache(maxsize=4)
def basis(side: int = SIDE, kept: int = KEPT) -> np.ndarray:
    """The first `kept` rows of the unnormalised DCT-II matrix: float32 of shape (kept, side).

    y[k] = 2 * sum over n of x[n] * cos(pi * k * (2n + 1) / (2 * side)), as SciPy's `dct(type=2, norm=None)`.
    """
    k = np.arange(kept, dtype=np.float64)[:, None]
    n = np.arange(side, dtype=np.float64)[None, :]
    made = (2.0 * np.cos(np.pi * k * (2.0 * n + 1.0) / (2.0 * side))).astype(np.float32)
    made.setflags(write=False)
    return made


@lru_cache(maxsize=1024)
def window_basis(start: float, end: float) -> np.ndarray:
    """The cosines of `basis` stretched over a part of the axis: float32 of shape (16, 64).

    Each entry is the integral of the cosine over the part of the pixel that lies in the window, so that the window
    needs no pixel borders and the picture is not resampled.
    """
    edges = np.clip(np.arange(SIDE + 1) / SIDE, start, end)
    length = end - start
    k = np.arange(1, KEPT, dtype=np.float64)[:, None]
    waves = np.sin(np.pi * k * (edges[None, :] - start) / length) / (np.pi * k)
    # Scaled as `basis`: twice the sum over 64 samples.
    rows = np.vstack([np.diff(edges)[None, :] / length, np.diff(waves, axis=1)]) * 2.0 * SIDE
    made = rows.astype(np.float32)
    made.setflags(write=False)
    return made


def low_frequencies(greys: np.ndarray) -> np.ndarray:
    """uint8 or float of shape (n, 64, 64) -> float32 of shape (n, 16, 16): rows are vertical frequencies."""
    rows = basis()
    return np.matmul(np.matmul(rows, greys.astype(np.float32)), rows.T)


def window_frequencies(greys: np.ndarray, windows: list[tuple[Span, Span]]) -> np.ndarray:
    """uint8 or float of shape (n, 64, 64), windows as (across, down) -> float32 of shape (n, windows, 16, 16)."""
    values = greys.astype(np.float32)
    down = {span: np.matmul(window_basis(*span), values) for span in {window[1] for window in windows}}
    return np.stack([np.matmul(down[y], window_basis(*x).T) for x, y in windows], axis=1)


def turned(coefficients: np.ndarray) -> np.ndarray:
    """The coefficients of the picture turned and mirrored: float of shape (n, 16, 16) -> (n, 7, 16, 16).

    In the order of TURNS: a mirror image has the odd frequencies of its axis negated, a reflection at the diagonal has
    rows and columns exchanged.
    """
    odd = np.where(np.arange(KEPT) % 2, -1.0, 1.0).astype(np.float32)
    across, down = odd[None, :], odd[:, None]
    over = coefficients.swapaxes(1, 2)
    plain = [coefficients * across, coefficients * down, coefficients * across * down]
    return np.stack([*plain, over, over * across, over * down, over * across * down], axis=1)


def turn(grey: np.ndarray, name: str) -> np.ndarray:
    """A grey picture of shape (64, 64) as one of TURNS."""
    number = TURNS.index(name)
    made = grey.T if number >= 3 else grey
    if number in (0, 2, 4, 6):
        made = made[:, ::-1]
    if number in (1, 2, 5, 6):
        made = made[::-1]
    return made


def threshold(coefficients: np.ndarray) -> np.ndarray:
    """float of shape (…, 16, 16) -> uint8 of shape (…, 32): a bit is set where a coefficient is above the median."""
    flat = coefficients.reshape(*coefficients.shape[:-2], BITS)
    # Above the lower of the two middle values is above their mean: nothing lies between them.
    lower = BITS // 2 - 1
    return np.packbits(flat > np.partition(flat, lower, axis=-1)[..., lower : lower + 1], axis=-1)


def hash_greys(greys: np.ndarray) -> np.ndarray:
    """uint8 of shape (n, 64, 64) -> uint8 of shape (n, 32): 256 bits each, most significant bit first."""
    return threshold(low_frequencies(greys))


def flat_pictures(greys: np.ndarray) -> np.ndarray:
    """bool of shape (n,): pictures whose grey levels spread too little for a hash to mean anything."""
    return greys.reshape(len(greys), -1).std(axis=1) < FLAT_BELOW


def gradient(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slopes (down, across) of float32 of shape (n, m), as NumPy's `gradient` gives them."""
    half = np.float32(0.5)
    down, across = np.empty_like(values), np.empty_like(values)
    np.subtract(values[2:], values[:-2], out=down[1:-1])
    np.subtract(values[:, 2:], values[:, :-2], out=across[:, 1:-1])
    down[1:-1] *= half
    across[:, 1:-1] *= half
    down[0], down[-1] = values[1] - values[0], values[-1] - values[-2]
    across[:, 0], across[:, -1] = values[:, 1] - values[:, 0], values[:, -1] - values[:, -2]
    return down, across


def laplacian(values: np.ndarray) -> np.ndarray:
    """float32 of shape (n, m): by how much its four neighbours exceed each pixel; an edge goes on as it is."""
    made = values * np.float32(-4.0)
    made[1:] += values[:-1]
    made[:-1] += values[1:]
    made[:, 1:] += values[:, :-1]
    made[:, :-1] += values[:, 1:]
    made[0] += values[0]
    made[-1] += values[-1]
    made[:, 0] += values[:, 0]
    made[:, -1] += values[:, -1]
    return made


def block_means(values: np.ndarray, blocks: int) -> np.ndarray:
    """float32 of shape (n, n), n a multiple of `blocks` -> (blocks, blocks): the mean of each block."""
    rows = _averaging(len(values), blocks)
    return np.asarray(rows @ values @ rows.T)


def mean(values: np.ndarray) -> float:
    """The mean of all numbers of an array."""
    return float(np.add.reduce(values, axis=None)) / values.size


def median(values: np.ndarray) -> float:
    """The median of an even number of numbers without NaN; of shape (n,)."""
    upper = values.size // 2
    middle = np.partition(values, (upper - 1, upper))
    return (float(middle[upper - 1]) + float(middle[upper])) / 2


@lru_cache(maxsize=8)
def _averaging(side: int, blocks: int) -> np.ndarray:
    """float32 of shape (blocks, side): each row averages one block of a column."""
    made = np.repeat(np.eye(blocks, dtype=np.float32), side // blocks, axis=1) / np.float32(side // blocks)
    made.setflags(write=False)
    return made


@lru_cache(maxsize=512)
def quantisation_noise(table: bytes, scale: float, octaves: int) -> np.ndarray:
    """Returns a JPEG table's noise in each octave of a picture reduced by `scale`, then what is coarser.

    Mean squares, float64 of shape (octaves + 1,); the table as the bytes of 64 float32. A step of q leaves q * q / 12
    in its frequency; what lies beyond what the reduced picture can hold is gone.
    """
    steps = np.frombuffer(table, np.float32).reshape(8, 8)
    frequencies = np.arange(8) / 16 * scale  # cycles a pixel
    down, across = np.meshgrid(frequencies, frequencies, indexing="ij")
    variance = steps**2 / 12 / 64 * ((down <= 0.5) & (across <= 0.5))
    held, found = np.ones((8, 8)), []
    for octave in range(octaves):
        halved = held * np.square(np.cos(np.pi * across * 2**octave) * np.cos(np.pi * down * 2**octave))
        found.append(float((variance * (held - halved)).sum()))
        held = halved
    return np.array([*found, float((variance * held).sum())])
