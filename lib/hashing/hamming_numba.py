"""The compiled kernel of the search for near hashes. Importing it costs a second; `hamming` decides whether to.

A block of rows is first counted over the words that nearly always decide (two of four at a radius of 40), without a
branch, so that the compiler can count eight words at once; only a block with a hit is looked at pair by pair.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

logging.getLogger("numba").setLevel(logging.WARNING)

BLOCK = 512  # columns: what is looked at again for one hit
# Two unlike hashes differ in 32 of 64 bits, give or take 4: so many bits a word are beyond chance for the words so far.
CHANCE_BITS = 22


def _count_of_ones(context: Any, value: Any) -> Any:
    """The processor's own count of bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_ones: Any = intrinsic(_count_of_ones)


# One loop over plain vectors each: with a branch or a second index inside, the compiler counts one word at a time.
@njit(nogil=True, cache=True)
def _hits_2(a, b, first, second, radius):  # type: ignore[no-untyped-def]
    found = 0
    for j in range(len(first)):
        found += (_ones(a ^ first[j]) + _ones(b ^ second[j])) <= radius
    return found


@njit(nogil=True, cache=True)
def _hits_3(a, b, c, first, second, third, radius):  # type: ignore[no-untyped-def]
    found = 0
    for j in range(len(first)):
        found += (_ones(a ^ first[j]) + _ones(b ^ second[j]) + _ones(c ^ third[j])) <= radius
    return found


@njit(nogil=True, cache=True)
def _possible(value, columns, words, radius, left, right):  # type: ignore[no-untyped-def]
    """Says whether any of the columns can be within the radius, by the first words."""
    if words == 2:
        return _hits_2(value[0], value[1], columns[0, left:right], columns[1, left:right], radius) > 0
    if words == 3:
        first, second, third = columns[0, left:right], columns[1, left:right], columns[2, left:right]
        return _hits_3(value[0], value[1], value[2], first, second, third, radius) > 0
    return True


@njit(nogil=True, cache=True)
def _collect(rows, columns, words, radius, start, i, j, distance):  # type: ignore[no-untyped-def]
    """Fills i, j and distance from row `start` on; gives (pairs, the row to go on with when they are full)."""
    count, width, filled = len(rows), columns.shape[1], 0
    for row in range(start, count):
        if filled + width > len(i):
            return filled, row
        for left in range(0, width, BLOCK):
            right = min(width, left + BLOCK)
            if not _possible(rows[row], columns, words, radius, left, right):
                continue
            for column in range(left, right):
                apart = np.uint64(0)
                for word in range(columns.shape[0]):
                    apart += _ones(rows[row, word] ^ columns[word, column])
                if apart <= radius:
                    i[filled], j[filled], distance[filled] = row, column, apart
                    filled += 1
    return filled, count


def compiled_kernel(rows: np.ndarray, columns: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint64 of shapes (n, w) and (w, m) -> (i, j, distance) of the pairs within the radius."""
    rows, columns = np.ascontiguousarray(rows), np.ascontiguousarray(columns)
    words = max(2, -(-radius // CHANCE_BITS))
    words = words if words < min(4, len(columns)) else 0  # 0: count them all, pair by pair
    room = max(2 * columns.shape[1], 1 << 14)
    found, start = [], 0
    while start < len(rows):
        i, j, apart = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint16)
        filled, start = _collect(rows, columns, words, np.uint64(radius), start, i, j, apart)
        found.append((i[:filled].copy(), j[:filled].copy(), apart[:filled].copy()))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16)
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]
