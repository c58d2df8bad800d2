"""Where a picture ends and a uniform border begins."""

from __future__ import annotations

import numpy as np

WHOLE = (0, 0, 255, 255)
MOST = 0.3  # of a side: what is uniform beyond that is part of the picture
# A line belongs to the border while its levels spread and differ from the outermost line by no more than this (JPEG
# leaves ripples of a few levels in a plain border).
TOLERANCE = 14
LEAST = 2  # lines; the reduced picture has 256 of them and more on its long side


def trimmed_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """uint8 of shape (h, w), grey -> left, top, right, bottom of what is inside uniform borders, in 1/255 of the size.

    A picture that would be all border, or has hardly any, is whole.
    """
    top, bottom = _edges(pixels)
    left, right = _edges(pixels.T)
    height, width = pixels.shape
    if max(top, bottom, left, right) < LEAST:
        return WHOLE
    return (
        round(255 * left / width),
        round(255 * top / height),
        round(255 * (width - right) / width),
        round(255 * (height - bottom) / height),
    )


def _edges(pixels: np.ndarray) -> tuple[int, int]:
    """How many uniform lines lie at either end of the first axis; none at both where it is more than can be."""
    most = int(len(pixels) * MOST)
    first, last = _run(pixels[: most + 1]), _run(pixels[::-1][: most + 1])
    return (first if first <= most else 0), (last if last <= most else 0)


def _run(lines: np.ndarray) -> int:
    """Lines in a row that are of the first one's grey."""
    first = lines[0]
    low, high = int(first.min()), int(first.max())
    if high - low > TOLERANCE:
        return 0  # where most pictures end
    level = (low + high) / 2
    apart = (lines.max(axis=1) > level + TOLERANCE) | (lines.min(axis=1) < level - TOLERANCE)
    return int(apart.argmax()) if apart.any() else len(lines)
