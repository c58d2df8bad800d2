"""The hashes of what a picture may have become: without its border, turned, mirrored, cropped.

They are taken of the picture that is looked for; what it is compared with keeps its one hash (and that of its inside,
where it has a border), so that the search stays a plain comparison of hashes.
"""

from __future__ import annotations

from dataclasses import dataclass

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
INSIDE = 0  # the first view is the picture without its border; then the turns, then the windows
COUNT = 1 + len(dct.TURNS) + len(WINDOWS)
WITHOUT_WINDOWS = 1 + len(dct.TURNS)


@dataclass(frozen=True)
class View:
    """How one picture was found in another: a turn, or a part of it."""

    turn: str = ""
    box: Box = (0.0, 0.0, 1.0, 1.0)


def view_hashes(greys: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """uint8 of shape (n, 64, 64) and the boxes inside the borders -> uint8 of shape (n, COUNT, 32)."""
    made = np.empty((len(greys), COUNT, dct.BITS // 8), np.uint8)
    plain = dct.low_frequencies(greys)
    made[:, 1:WITHOUT_WINDOWS] = dct.threshold(dct.turned(plain))
    made[:, WITHOUT_WINDOWS:] = dct.threshold(dct.window_frequencies(greys, WINDOWS))
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
    (left, right), (top, bottom) = WINDOWS[number - WITHOUT_WINDOWS]
    return View(box=(left, top, right, bottom))


def as_shares(box: tuple[int, int, int, int]) -> Box:
    left, top, right, bottom = box
    return left / 255, top / 255, right / 255, bottom / 255
