"""Finding the part of one small grey picture that shows what another one shows: windows refined by least squares."""

from __future__ import annotations

import numpy as np

from lib.hashing.dct import SIDE
from lib.hashing.fields import gradient, mean

ROUNDS = 8  # of refinement; it ends earlier once a round moves no edge by more than SETTLED
SETTLED = 0.002  # of the side
MOST_OUTSIDE = 0.02  # of the side; beyond the picture there is nothing to compare with
LEAST_SIDE = 0.5  # of the side: a smaller part is another picture

Box = tuple[float, float, float, float]  # left, top, right, bottom, each 0 to 1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_STEPS = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
_COLUMNS = np.arange(SIDE, dtype=np.float32)
_FLOOR = 1e-3 * np.eye(4)  # where an edge shows nothing, it stays


def sample(grey: np.ndarray, box: Box) -> np.ndarray:
    """The window of a grey picture of shape (64, 64), stretched to (64, 64): float32, linear between the pixels."""
    if box == WHOLE:
        return grey.astype(np.float32)
    across, down = _weights(box[0], box[2]), _weights(box[1], box[3])
    return down @ grey.astype(np.float32) @ across.T


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised cross-correlation of two grey pictures of equal shape, -1 to 1; 0 where one of them is flat."""
    a, b = _centred(one), _centred(other)
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale else 0.0


def refine(grey: np.ndarray, target: np.ndarray, box: Box) -> tuple[Box, float]:
    """The window of `grey` near `box` that looks most like `target`, and their correlation.

    Gauss-Newton over the four edges (Lucas and Kanade's method), brightness and contrast evened out. Both pictures are
    of shape (64, 64).
    """
    values = grey.astype(np.float32)
    slopes = gradient(values)
    goal = _centred(target)
    goal /= max(_spread(goal), 1e-3)
    edges = np.array(box, np.float64)
    across, down = _weights(edges[0], edges[2]), _weights(edges[1], edges[3])
    seen = _centred(down @ values @ across.T)
    spread = _spread(seen)
    best, best_box = _match(seen, goal, spread), box
    for _ in range(ROUNDS):
        if spread < 1e-3:
            break
        change = _step(down @ slopes[1] @ across.T, down @ slopes[0] @ across.T, goal - seen / spread, spread)
        edges = edges + change
        if not _sensible(edges):
            break
        across, down = _weights(edges[0], edges[2]), _weights(edges[1], edges[3])
        seen = _centred(down @ values @ across.T)
        spread = _spread(seen)
        if (value := _match(seen, goal, spread)) > best:
            best, best_box = value, tuple(float(edge) for edge in edges)  # type: ignore[assignment]
        if np.abs(change).max() < SETTLED:
            break
    return best_box, best


def _match(seen: np.ndarray, goal: np.ndarray, spread: float) -> float:
    """The correlation of centred numbers with such as have a spread of 1; 0 where they are flat."""
    return float(np.vdot(seen, goal)) / (seen.size * spread) if spread else 0.0


def _step(across: np.ndarray, down: np.ndarray, residual: np.ndarray, spread: float) -> np.ndarray:
    """How far left, top, right and bottom should move: the least-squares answer to the residual."""
    made = np.empty((4, SIDE, SIDE), np.float32)
    np.multiply(across, _STEPS[None, :], out=made[2])
    np.multiply(down, _STEPS[:, None], out=made[3])
    np.subtract(across, made[2], out=made[0])
    np.subtract(down, made[3], out=made[1])
    effects = made.reshape(4, -1)
    effects -= np.add.reduce(effects, axis=1, keepdims=True) / np.float32(effects.shape[1])
    scale = SIDE / spread
    normal = (effects @ effects.T) * scale**2 + _FLOOR
    return np.asarray(np.linalg.solve(normal, (effects @ residual.ravel()) * scale)).clip(-0.1, 0.1)


def _sensible(edges: np.ndarray) -> bool:
    left, top, right, bottom = edges
    inside = min(left, top) >= -MOST_OUTSIDE and max(right, bottom) <= 1 + MOST_OUTSIDE
    return bool(inside and right - left >= LEAST_SIDE and bottom - top >= LEAST_SIDE)


def _centred(values: np.ndarray) -> np.ndarray:
    made = values.astype(np.float32)
    made -= np.float32(mean(made))
    return made


def _spread(centred: np.ndarray) -> float:
    """The standard deviation of numbers whose mean is 0."""
    return float(np.sqrt(np.vdot(centred, centred) / centred.size))


def _weights(start: float, end: float) -> np.ndarray:
    """float32 of shape (64, 64): row i holds how much each pixel counts at the i-th place of the window."""
    places = ((start + (end - start) * _STEPS) * SIDE - 0.5).astype(np.float32)
    away = np.clip(places, 0, SIDE - 1)[:, None] - _COLUMNS
    np.abs(away, out=away)
    np.subtract(1.0, away, out=away)
    return np.asarray(np.maximum(away, 0.0, out=away))
