"""The hashes of what a picture may have become: without its border, turned, mirrored, cropped.

They are taken of the picture that is looked for; what it is compared with keeps its one hash (and that of its inside,
where it has a border), so that the search stays a plain comparison of hashes.

Where a pair is found, the part of one picture that shows what the other one shows is refined by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib.hashing import dct
from lib.hashing.buffers import UNTRIMMED
from lib.hashing.dct import SIDE, gradient, mean

# Crops are met within three or four per cent a side at a distance of 64 bits. Windows in the middle of each quarter of
# the crops of up to 12 % a side, and cuts at one side alone (captions added, banners cut off).
_BOTH = ((0.03, 0.97), (0.09, 0.97), (0.03, 0.91), (0.09, 0.91))
_CUTS = (0.06, 0.115, 0.17)
_FULL = (0.0, 1.0)
WINDOWS: list[tuple[dct.Span, dct.Span]] = [
    *((x, y) for x in _BOTH for y in _BOTH),
    *(window for cut in _CUTS for span in ((cut, 1.0), (0.0, 1 - cut)) for window in ((span, _FULL), (_FULL, span))),
]
# A hash as it is meets tilts of up to two or three degrees; these meet the rest of those up to four and more.
TILTS = (-3.0, 3.0)  # degrees
INSIDE = 0  # the first view is the picture without its border; then the turns, the windows and the tilts
WITHOUT_WINDOWS = 1 + len(dct.TURNS)
WITHOUT_TILTS = WITHOUT_WINDOWS + len(WINDOWS)
COUNT = WITHOUT_TILTS + len(TILTS)
# Where a caption covers a part, neither picture is a part of the other: both are met without their foot, or their head.
# Such pairs have the number of the view plus BOTH.
BOTH = 100
CUT_IN_BOTH = tuple(
    WITHOUT_WINDOWS + number
    for number, window in enumerate(WINDOWS)
    if window in ((_FULL, (0.0, 1 - _CUTS[-1])), (_FULL, (_CUTS[-1], 1.0)))
)

ROUNDS = 8  # of refinement; it ends earlier once a round moves no edge by more than SETTLED
SETTLED = 0.002  # of the side
MOST_OUTSIDE = 0.02  # of the side; beyond the picture there is nothing to compare with
LEAST_SIDE = 0.5  # of the side: a smaller part is another picture

Box = tuple[float, float, float, float]  # left, top, right, bottom, each 0 to 1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_STEPS = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
_COLUMNS = np.arange(SIDE, dtype=np.float32)
_FLOOR = 1e-3 * np.eye(4)  # where an edge shows nothing, it stays


@dataclass(frozen=True)
class View:
    """The way in which one picture was found in another: a turn, or a part of it."""

    turn: str = ""
    tilt: float = 0.0
    box: Box = (0.0, 0.0, 1.0, 1.0)
    both: bool = False  # the other picture is looked at through the same box


def view_hashes(greys: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """uint8 of shape (n, 64, 64) and the boxes inside the borders -> uint8 of shape (n, COUNT, 32)."""
    made = np.empty((len(greys), COUNT, dct.BITS // 8), np.uint8)
    plain = dct.low_frequencies(greys)
    made[:, 1:WITHOUT_WINDOWS] = dct.threshold(dct.turned(plain))
    made[:, WITHOUT_WINDOWS:WITHOUT_TILTS] = dct.threshold(dct.window_frequencies(greys, WINDOWS))
    for place, degrees in enumerate(TILTS, WITHOUT_TILTS):
        made[:, place] = dct.threshold(dct.low_frequencies(tilted(greys, degrees)))
    made[:, INSIDE] = dct.threshold(plain)
    for place, box in enumerate(boxes):
        if box != UNTRIMMED:
            left, top, right, bottom = as_shares(box)
            inside = dct.window_frequencies(greys[place : place + 1], [((left, right), (top, bottom))])
            made[place, INSIDE] = dct.threshold(inside)[0, 0]
    return made


def view(number: int, box: tuple[int, int, int, int]) -> View:
    """Returns what the view of that number shows of a picture with this box inside its borders."""
    if number == INSIDE:
        return View(box=as_shares(box))
    if number < WITHOUT_WINDOWS:
        return View(turn=dct.TURNS[number - 1])
    if WITHOUT_TILTS <= number < COUNT:
        return View(tilt=TILTS[number - WITHOUT_TILTS])
    (left, right), (top, bottom) = WINDOWS[number % BOTH - WITHOUT_WINDOWS]
    return View(box=(left, top, right, bottom), both=number >= BOTH)


def tilted(greys: np.ndarray, degrees: float) -> np.ndarray:
    """uint8 or float of shape (…, 64, 64) -> float32, turned about the middle; beyond the edge its pixels go on."""
    corner, right, low = _turned_places(degrees)
    # Pictures along the last axis: a pixel of all of them is then one piece of memory.
    values = np.ascontiguousarray(greys.reshape(-1, dct.SIDE**2).T, np.float32)
    upper = values[corner] * (1 - right) + values[corner + 1] * right
    lower = values[corner + dct.SIDE] * (1 - right) + values[corner + dct.SIDE + 1] * right
    return np.ascontiguousarray((upper * (1 - low) + lower * low).T).reshape(greys.shape)


@lru_cache(maxsize=len(TILTS))
def _turned_places(degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns where each pixel of a turned picture comes from: the number of the pixel above and left, int64 of shape
    (4096,), and how far right and below of that one it lies, float32 of shape (4096, 1)."""
    angle = np.deg2rad(degrees)
    middle = (dct.SIDE - 1) / 2
    rows, columns = np.mgrid[: dct.SIDE, : dct.SIDE] - middle
    across = np.clip(np.cos(angle) * columns - np.sin(angle) * rows + middle, 0, dct.SIDE - 1.001)
    down = np.clip(np.sin(angle) * columns + np.cos(angle) * rows + middle, 0, dct.SIDE - 1.001)
    x, y = across.astype(np.int64), down.astype(np.int64)
    right, low = ((exact - whole).astype(np.float32).reshape(-1, 1) for exact, whole in ((across, x), (down, y)))
    return (y * dct.SIDE + x).ravel(), right, low


def as_shares(box: tuple[int, int, int, int]) -> Box:
    left, top, right, bottom = box
    return left / 255, top / 255, right / 255, bottom / 255


def sample(grey: np.ndarray, box: Box) -> np.ndarray:
    """Returns the window of a grey picture of shape (64, 64), stretched to (64, 64): float32, linear between pixels."""
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
    """Returns the window of `grey` near `box` that looks most like `target`, and their correlation.

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
    """Returns how far left, top, right and bottom should move: the least-squares answer to the residual."""
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
