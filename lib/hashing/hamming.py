"""Every pair of hashes within a distance: exact, streamed, and never a full matrix.

Two kernels find the same pairs. The one in NumPy needs nothing and is ready at once. The compiled one (Numba) is some
ten times as fast, but takes a second to load; it is used from LARGE pairs on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.work.stream import in_threads

LARGE = 300_000_000  # pairs; NumPy takes a second for these, which is what loading the compiled kernel costs
STRIP = 1 << 16  # rows of one task of a thread
GATHER_FROM = 4  # rows a column: from then on it is worth knowing which columns lie together

log = logging.getLogger("gleaner.dedup")

# Blocks of 16 by 4096 distances stay in the processor's second-level cache; that is worth a factor of three over
# whole rows.
ROWS = 16
COLUMNS = 4096
# Two unlike hashes differ in 32 of 64 bits, give or take 4: so many bits a word are beyond chance for the words so far.
CHANCE_BITS = 22
AT_ONCE = 1 << 18  # possible pairs that are looked at more closely together
REACH = 40  # bits round a head; beyond, too many strangers come as near to a head as its members may lie
WORTHWHILE = 0.6  # heads a hash: with more it is quicker to count three words of every hash than four of every head

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def to_words(hashes: np.ndarray) -> np.ndarray:
    """uint8 of shape (n, bytes), bytes a multiple of 8 -> uint64 of shape (n, bytes / 8), in whatever byte order."""
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(len(hashes), hashes.shape[1] // 8)


def distance(one: bytes, other: bytes) -> int:
    """Counts the bits that differ between two hashes of equal length."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def self_join(words: np.ndarray, radius: int, workers: int = 1) -> Iterator[Pairs]:
    """Finds pairs of rows of a uint64 array of shape (n, w) that differ in at most `radius` bits.

    Yields blocks (i, j, distance) of equal length with i < j: int64, int64 and uint16. Every pair comes once.
    """
    kernel = _kernel(len(words) ** 2 // 2)
    columns = np.ascontiguousarray(words.T)
    spans = _spans(len(words), COLUMNS)
    for found in in_threads(lambda span: _below(kernel, words, columns, *span, radius), spans, workers):
        yield from found


def cross_join(rows: np.ndarray, others: np.ndarray, radius: int, workers: int = 1) -> Iterator[Pairs]:
    """Finds pairs of a row of one uint64 array and a row of the other, both of shape (…, w), within `radius` bits."""
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
    """Searches all rows before `right` against the columns left..right, each pair once."""
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
    """Returns the faster kernel for so many pairs. GLEANER_KERNEL=numpy does without the compiled one."""
    if pairs < LARGE or os.environ.get("GLEANER_KERNEL") == "numpy":
        return numpy_kernel
    try:
        from lib.hashing.hamming_numba import compiled_kernel
    except ImportError as error:  # a Python that is too new for it; the answer is the same, only later
        log.warning("numba cannot be used (%s): the search takes some twenty times as long", error)
        return numpy_kernel
    return compiled_kernel


def numpy_kernel(rows: np.ndarray, columns: np.ndarray, radius: int) -> Pairs:
    """uint64 of shapes (n, w) and (w, m) -> (i, j, distance) of the pairs within the radius."""
    limits = np.full(columns.shape[1], radius)
    return merged(_near(rows, columns, *block, radius) for block in possible_pairs(rows, columns, limits))


def merged(blocks: Iterator[Pairs]) -> Pairs:
    """Returns blocks of pairs as one."""
    found = list(blocks)
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16)
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def possible_pairs(
    rows: np.ndarray, columns: np.ndarray, limits: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (row, column), among them every pair within the limit of its column, integers of shape (m,).

    As many words are counted as nearly always decide: three of four for a limit of 64. Counts of up to four words are
    held in bytes; that 256 is written as 0 there lets an impossible pair through and loses none.
    """
    width = columns.shape[1]
    words = min(len(columns), max(1, -(-int(limits.max(initial=0)) // CHANCE_BITS)))
    counts = np.uint8 if words <= 4 else np.uint16
    limits = np.minimum(limits, np.iinfo(counts).max).astype(counts)
    mixed, ones = np.empty((ROWS, width), np.uint64), np.empty((ROWS, width), np.uint8)
    total = np.empty((ROWS, width), counts)
    found: list[np.ndarray] = []
    waiting = 0
    for top in range(0, len(rows), ROWS):
        height = min(ROWS, len(rows) - top)
        _count_bits(rows[top : top + height, :words], columns, mixed[:height], ones[:height], total[:height])
        hits = np.flatnonzero(total[:height] <= limits)
        if len(hits):
            found.append(hits + top * width)
            waiting += len(hits)
        if waiting >= AT_ONCE:
            yield np.divmod(np.concatenate(found), width)
            found, waiting = [], 0
    if found:
        yield np.divmod(np.concatenate(found), width)


def _count_bits(rows: np.ndarray, columns: np.ndarray, mixed: np.ndarray, ones: np.ndarray, total: np.ndarray) -> None:
    for word in range(rows.shape[1]):
        np.bitwise_xor(rows[:, word, None], columns[word], out=mixed)
        np.bitwise_count(mixed, out=ones)
        if word == 0:
            np.copyto(total, ones)
        else:
            np.add(total, ones, out=total)


def _near(rows: np.ndarray, columns: np.ndarray, row: np.ndarray, column: np.ndarray, radius: int) -> Pairs:
    apart = np.bitwise_count(rows[row] ^ columns[:, column].T).sum(axis=1, dtype=np.uint16)
    near = apart <= radius
    return row[near], column[near], apart[near]


@dataclass(frozen=True)
class Gathered:
    """Hashes gathered round heads: where a query is too far from a head, it is too far from all that lie round it.

    Exact by the triangle inequality. In a folder of many copies a query meets one hash a picture and not one a copy.

    columns  uint64 of shape (w, m), the hashes
    heads    int64 of shape (k,): their numbers
    reach    int64 of shape (k,): the distance of the farthest member of each
    members  int64 of shape (m,): the numbers of all hashes, those of one head together, the head among them
    starts   int64 of shape (k + 1,): where each head's members begin
    """

    columns: np.ndarray
    heads: np.ndarray
    reach: np.ndarray
    members: np.ndarray
    starts: np.ndarray

    def join(self, rows: np.ndarray, radius: int) -> Pairs:
        """(i, j, distance) of the pairs of a row and a gathered hash within the radius."""
        heads = np.ascontiguousarray(self.columns[:, self.heads])
        return merged(
            _near(rows, self.columns, *self._spread(*block), radius)
            for block in possible_pairs(rows, heads, self.reach + radius)
        )

    def _spread(self, row: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns pairs of a row and a head as pairs of the row and each of the head's members."""
        counts = self.starts[head + 1] - self.starts[head]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(row, counts), self.members[np.repeat(self.starts[head], counts) + within]


def gathered(columns: np.ndarray) -> Gathered | None:
    """uint64 of shape (w, m) gathered round those with the most others near; None where too few lie together."""
    count = columns.shape[1]
    one, other, apart = numpy_kernel(np.ascontiguousarray(columns.T), columns, REACH)  # both ways, and itself
    starts = np.searchsorted(one, np.arange(count + 1))
    head_of, distance = np.full(count, -1), np.zeros(count, np.int64)
    for number in np.argsort(starts[:-1] - starts[1:], kind="stable").tolist():
        if head_of[number] < 0:
            near = slice(starts[number], starts[number + 1])
            free = head_of[other[near]] < 0
            head_of[other[near][free]] = number
            distance[other[near][free]] = apart[near][free]
    members = np.argsort(head_of, kind="stable")
    heads, first = np.unique(head_of[members], return_index=True)
    if len(heads) > WORTHWHILE * count:
        return None
    reach = np.maximum.reduceat(distance[members], first)
    return Gathered(columns, heads, reach, members, np.append(first, count))
