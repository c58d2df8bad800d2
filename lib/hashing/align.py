"""Finding the part of one small grey picture that shows what another one shows: windows refined by least squares."""

from __future__ import annotations

import numpy as np

from lib.hashing.dct import SIDE

ROUNDS = 8  # of refinement; it ends earlier once a round moves no edge by more than SETTLED
SETTLED = 0.002  # of the side
MOST_OUTSIDE = 0.02  # of the side; beyond the picture there is nothing to compare with
LEAST_SIDE = 0.5  # of the side: a smaller part is another picture

Box = tuple[float, float, float, float]  # left, top, right, bottom, each 0 to 1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_STEPS = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE


def sample(grey: np.ndarray, box: Box) -> np.ndarray:
    """The window of a grey picture of shape (64, 64), stretched to (64, 64): float32, linear between the pixels."""
    if box == WHOLE:
        return grey.astype(np.float32)
    across, down = _weights(box[0], box[2]), _weights(box[1], box[3])
    return down @ grey.astype(np.float32) @ across.T


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised cross-correlation of two grey pictures of equal shape, -1 to 1; 0 where one of them is flat."""
    a = one.astype(np.float32) - one.mean(dtype=np.float32)
    b = other.astype(np.float32) - other.mean(dtype=np.float32)
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale else 0.0


def refine(grey: np.ndarray, target: np.ndarray, box: Box) -> tuple[Box, float]:
    """The window of `grey` near `box` that looks most like `target`, and their correlation.

    Gauss-Newton over the four edges (Lucas and Kanade's method), brightness and contrast evened out. Both pictures are
    of shape (64, 64).
    """
    values = grey.astype(np.float32)
    slopes = np.gradient(values)
    goal = _normal(target.astype(np.float32))
    edges = np.array(box, np.float64)
    across, down = _weights(edges[0], edges[2]), _weights(edges[1], edges[3])
    seen = down @ values @ across.T
    best, best_box = correlate(seen, target), box
    for _ in range(ROUNDS):
        spread = float(seen.std())
        if spread < 1e-3:
            break
        change = _step(down @ slopes[1] @ across.T, down @ slopes[0] @ across.T, goal - _normal(seen), spread)
        edges = edges + change
        if not _sensible(edges):
            break
        across, down = _weights(edges[0], edges[2]), _weights(edges[1], edges[3])
        seen = down @ values @ across.T
        if (value := correlate(seen, target)) > best:
            best, best_box = value, tuple(float(edge) for edge in edges)  # type: ignore[assignment]
        if np.abs(change).max() < SETTLED:
            break
    return best_box, best


def _step(across: np.ndarray, down: np.ndarray, residual: np.ndarray, spread: float) -> np.ndarray:
    """How far left, top, right and bottom should move: the least-squares answer to the residual."""
    columns, rows = _STEPS[None, :], _STEPS[:, None]
    effects = np.stack([across * (1 - columns), down * (1 - rows), across * columns, down * rows]).reshape(4, -1)
    effects = effects * (SIDE / spread)
    effects -= effects.mean(axis=1, keepdims=True)
    normal = effects @ effects.T + 1e-3 * np.eye(4)
    return np.asarray(np.linalg.solve(normal, effects @ residual.ravel())).clip(-0.1, 0.1)


def _sensible(edges: np.ndarray) -> bool:
    left, top, right, bottom = edges
    inside = min(left, top) >= -MOST_OUTSIDE and max(right, bottom) <= 1 + MOST_OUTSIDE
    return bool(inside and right - left >= LEAST_SIDE and bottom - top >= LEAST_SIDE)


def _normal(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-3)


def _weights(start: float, end: float) -> np.ndarray:
    """float32 of shape (64, 64): row i holds how much each pixel counts at the i-th place of the window."""
    places = (start + (end - start) * _STEPS) * SIDE - 0.5
    places = np.clip(places, 0, SIDE - 1)
    lower = np.minimum(places.astype(np.int64), SIDE - 2)
    share = (places - lower).astype(np.float32)
    made = np.zeros((SIDE, SIDE), np.float32)
    rows = np.arange(SIDE)
    made[rows, lower] = 1 - share
    made[rows, lower + 1] += share
    return made
