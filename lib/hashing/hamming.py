"""Every pair of hashes within a distance: exact, streamed, and never a full matrix.

Two kernels find the same pairs. The one in NumPy needs nothing and is ready at once. The compiled one (Numba) is some
ten times as fast, but takes a second to load; it is used from LARGE pairs on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lib.hashing.blocked import COLUMNS, Pairs, gathered, numpy_kernel
from lib.threads import in_threads

LARGE = 300_000_000  # pairs; NumPy takes a second for these, which is what loading the compiled kernel costs
STRIP = 1 << 16  # rows of one task of a thread
GATHER_FROM = 4  # rows a column: from then on it is worth knowing which columns lie together

log = logging.getLogger("gleaner.dedup")


def to_words(hashes: np.ndarray) -> np.ndarray:
    """uint8 of shape (n, bytes), bytes a multiple of 8 -> uint64 of shape (n, bytes / 8), in whatever byte order."""
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(len(hashes), hashes.shape[1] // 8)


def collapse(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal hashes become one: (distinct hashes sorted, index of each input row among them).

    A thousand copies of one picture are then one node instead of half a million pairs.
    """
    packed = np.ascontiguousarray(hashes).view(np.dtype((np.void, hashes.shape[1]))).reshape(-1)
    distinct, inverse = np.unique(packed, return_inverse=True)
    return distinct.view(np.uint8).reshape(-1, hashes.shape[1]), inverse.reshape(-1)


def distance(one: bytes, other: bytes) -> int:
    """How many bits differ between two hashes of equal length."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def self_join(words: np.ndarray, radius: int, workers: int = 1) -> Iterator[Pairs]:
    """Pairs of rows of a uint64 array of shape (n, w) that differ in at most `radius` bits.

    Yields blocks (i, j, distance) of equal length with i < j: int64, int64 and uint16. Every pair comes once.
    """
    kernel = _kernel(len(words) ** 2 // 2)
    columns = np.ascontiguousarray(words.T)
    spans = _spans(len(words), COLUMNS)
    for found in in_threads(lambda span: _below(kernel, words, columns, *span, radius), spans, workers):
        yield from found


def cross_join(rows: np.ndarray, others: np.ndarray, radius: int, workers: int = 1) -> Iterator[Pairs]:
    """Pairs of a row of one uint64 array and a row of the other, both of shape (…, w), within `radius` bits."""
    kernel = _kernel(len(rows) * len(others))
    columns = np.ascontiguousarray(others.T)
    parts = [(left, np.ascontiguousarray(columns[:, left:right])) for left, right in _spans(len(others), COLUMNS)]
    gather = kernel is numpy_kernel and len(rows) >= GATHER_FROM * len(others)
    heads = [gathered(part) if gather else None for _, part in parts]

    def one(task: tuple[int, int, int]) -> list[Pairs]:
        top, bottom, number = task
        (left, part), head, strip = parts[number], heads[number], rows[top:bottom]
        i, j, apart = head.join(strip, radius) if head else kernel(strip, part, radius)
        return [(i + top, j + left, apart)] if len(i) else []

    strips = ((*strip, number) for strip in _spans(len(rows), STRIP) for number in range(len(parts)))
    for found in in_threads(one, strips, workers):
        yield from found


def _below(kernel: Any, words: np.ndarray, columns: np.ndarray, left: int, right: int, radius: int) -> list[Pairs]:
    """All rows before `right` against the columns left..right, each pair once."""
    found: list[Pairs] = []
    for top, bottom in _spans(right, STRIP):
        i, j, apart = kernel(words[top:bottom], columns[:, left:right], radius)
        ahead = i + top < j + left
        if ahead.any():
            found.append((i[ahead] + top, j[ahead] + left, apart[ahead]))
    return found


def _spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(count, start + size)) for start in range(0, count, size))


def _kernel(pairs: int) -> Callable[[np.ndarray, np.ndarray, int], Pairs]:
    """The faster kernel for so many pairs. GLEANER_KERNEL=numpy does without the compiled one."""
    if pairs < LARGE or os.environ.get("GLEANER_KERNEL") == "numpy":
        return numpy_kernel
    try:
        from lib.hashing.compiled import compiled_kernel
    except ImportError as error:  # a Python that is too new for it; the answer is the same, only later
        log.warning("numba cannot be used (%s): the search takes some twenty times as long", error)
        return numpy_kernel
    return compiled_kernel
