"""Arithmetic on small pictures as fields of numbers: slopes, curvature, block means, medians.

NumPy's own `gradient`, `pad`, `mean` and `median` spend more time on getting ready than on 4,096 numbers, and a folder
asks for them by the ten thousand.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


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
