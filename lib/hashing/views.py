"""The hashes of what a picture may have become: without its border, turned, mirrored, cropped.

They are taken of the picture that is looked for; what it is compared with keeps its one hash (and that of its inside,
where it has a border), so that the search stays a plain comparison of hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib.hashing import dct
from lib.hashing.align import Box
from lib.hashing.trim import WHOLE

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


@dataclass(frozen=True)
class View:
    """How one picture was found in another: a turn, or a part of it."""

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
        if box != WHOLE:
            left, top, right, bottom = as_shares(box)
            inside = dct.window_frequencies(greys[place : place + 1], [((left, right), (top, bottom))])
            made[place, INSIDE] = dct.threshold(inside)[0, 0]
    return made


def view(number: int, box: tuple[int, int, int, int]) -> View:
    """What the view of that number shows of a picture with this box inside its borders."""
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
    """Where each pixel of a turned picture comes from: the number of the pixel above and left of it, int64 of shape
    (4096,), and how far right and below of that one it lies, float32 of shape (4096, 1)."""
    angle = np.deg2rad(degrees)
    middle = (dct.SIDE - 1) / 2
    rows, columns = np.mgrid[: dct.SIDE, : dct.SIDE] - middle
    across = np.clip(np.cos(angle) * columns - np.sin(angle) * rows + middle, 0, dct.SIDE - 1.001)
    down = np.clip(np.sin(angle) * columns + np.cos(angle) * rows + middle, 0, dct.SIDE - 1.001)
    x, y = across.astype(np.int64), down.astype(np.int64)
    return (y * dct.SIDE + x).ravel(), _as_column(across - x), _as_column(down - y)


def _as_column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(-1, 1)


def as_shares(box: tuple[int, int, int, int]) -> Box:
    left, top, right, bottom = box
    return left / 255, top / 255, right / 255, bottom / 255
