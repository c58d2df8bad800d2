"""What is left over between two pictures that look alike: a slight move of the whole, a change in a small place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib.hashing.fields import block_means, gradient, laplacian, median

BLOCKS = 16  # along a side
RANKS = (1, 3, 5, 8, 12)  # of the blocks, the worst first
_GROUPS = 16  # of blocks of like detail
FLOOR = 0.7  # grey levels; what rounding and a good encoder leave anywhere
QUIET = 2.0  # grey levels; where no block leaves more, none stands out by three times the floor: 4 of 10 copies
_RIDGE = 1e-5  # well above what single precision leaves of a sum of 4,096 products
_DOUBT = 3.0  # times the usual residual; what lies further off has half the say or less in the fit


@dataclass(frozen=True)
class LeftOver:
    """`moved`: how far the corner that moved most has gone, as a share of the side.

    `standing_out`: by what factor the worst blocks exceed what blocks of like detail leave over, at each of `RANKS`; 0
    where too little is left over to look for any.
    """

    moved: float
    standing_out: tuple[float, ...]


def left_over(fitted: np.ndarray, target: np.ndarray, chromas: np.ndarray) -> LeftOver:
    """Of two grey pictures whose tone was evened out, float32 of shape (n, n), and k buffers of colour, (k, 16, 16).

    One least-squares fit explains what a slight shift, turn, stretch or cut of the whole picture does, what blur or
    sharpening does, and that colours turn into greys in more than one way. A place that was changed is not explained.
    """
    side = len(fitted)
    down, across = gradient((fitted + target) * np.float32(0.5))
    effects = _effects(fitted, down, across, chromas)
    wanted = (target - fitted).ravel()
    shares, rest = _fit(effects, wanted, None)
    if block_means((rest * rest).reshape(side, side), BLOCKS).max() < QUIET**2:
        return LeftOver(_farthest_corner(shares[:6]) / side, (0.0,) * len(RANKS))
    usual = 1.5 * median(np.abs(rest)) + 0.5
    shares, rest = _fit(effects, wanted, 1.0 / (1.0 + (rest / (_DOUBT * usual)) ** 2))
    residual = np.sqrt(block_means((rest * rest).reshape(side, side), BLOCKS))
    # The detail that both have: what was put into one of them must not excuse itself.
    detail = np.minimum(*(block_means(_steepness(values), BLOCKS) for values in (fitted, target)))
    return LeftOver(_farthest_corner(shares[:6]) / side, _standing_out(residual.ravel(), detail.ravel()))


def _effects(fitted: np.ndarray, down: np.ndarray, across: np.ndarray, chromas: np.ndarray) -> np.ndarray:
    """float32 of shape (8 + k, n * n): what each cause would add to the picture."""
    side = len(fitted)
    x, y = _places(side)
    made = np.empty((8 + len(chromas), side, side), np.float32)
    made[0], made[3] = across, down
    np.multiply(across, x, out=made[1])
    np.multiply(across, y, out=made[2])
    np.multiply(down, x, out=made[4])
    np.multiply(down, y, out=made[5])
    made[6] = laplacian(fitted)
    made[7] = 1.0
    coarse = chromas.shape[-1]
    spread = made[8:].reshape(len(chromas), coarse, side // coarse, coarse, side // coarse)
    spread[:] = (chromas.astype(np.float32) - 128)[:, :, None, :, None]
    return made.reshape(len(made), -1)


def _fit(effects: np.ndarray, wanted: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(share of each effect, what no effect explains) by weighted least squares."""
    weighed = effects if weights is None else effects * weights
    normal = (weighed @ effects.T).astype(np.float64)
    # Two buffers of the same colours, or of none, explain the same thing twice: neither may grow at the other's cost.
    diagonal = normal.reshape(-1)[:: len(normal) + 1]
    diagonal *= 1.0 + _RIDGE
    diagonal += 1.0
    shares = np.linalg.solve(normal, weighed @ wanted).astype(np.float32)
    return shares, wanted - shares @ effects


def _farthest_corner(shares: np.ndarray) -> float:
    """Pixels that the corner moves which moves most."""
    corners = np.array([[1, x, y] for x in (-1, 1) for y in (-1, 1)], np.float32)
    return float(np.hypot(corners @ shares[:3], corners @ shares[3:6]).max())


def _standing_out(residual: np.ndarray, detail: np.ndarray) -> tuple[float, ...]:
    """Residuals are as large as the detail around them; the usual size for so much detail is their median."""
    order = np.argsort(detail, kind="stable")
    usual = np.median(residual[order].reshape(_GROUPS, -1), axis=1)
    middles = (np.arange(_GROUPS) + 0.5) * (len(order) / _GROUPS)
    expected = np.interp(np.arange(len(order)), middles, np.maximum.accumulate(usual))
    factors = np.sort(residual[order] / (expected + FLOOR))[::-1]
    return tuple(float(factors[rank - 1]) for rank in RANKS)


def _steepness(values: np.ndarray) -> np.ndarray:
    """Square of the steepest step to a neighbour; only its order matters."""
    down, across = gradient(values)
    return np.asarray(down * down + across * across)


@lru_cache(maxsize=4)
def _places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Across and down, -1 to 1 at the outer edges, float32 of shape (n, n) each."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(steps, steps)
    return x, y
