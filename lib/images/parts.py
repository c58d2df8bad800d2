"""The limits on walks over the parts of a picture: the number of parts, and a way to end a walk early."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lib.images.formats import Buffer, u32

# Blocks, chunks, segments or pages of one picture, on top of one for every so many bytes. Whatever reads a header walks
# over them, at several microseconds each and worse: millions of tiny ones would hold it for minutes. A sound GIF has
# one for every 256 bytes.
MOST_PARTS = 20_000
BYTES_A_PART = 100

# How reading behind the last byte ends: something is missing there.
CUT = (struct.error, IndexError, OverflowError)

# Coded pixels look like chance: among so many bytes, as many different ones, there is one that no text holds.
_LOOKED_AT = 128
_LEAST = 48
_DIFFERENT = 16
_TEXT = frozenset(range(32, 127)) | {9, 10, 13}


class TooManyParts(Exception):
    """The picture is made of more parts than one of its size needs."""


class NotAPicture(Exception):
    """Behind the first bytes stands what no picture of this format holds; the text says what."""


def parts_of(data: Buffer) -> Iterator[int]:
    """A number for every part that the picture may have; raises TooManyParts after the last."""
    yield from range(MOST_PARTS + len(data) // BYTES_A_PART)
    raise TooManyParts


def demand(condition: object, what: str) -> None:
    """Raises NotAPicture where a condition does not hold."""
    if not condition:
        raise NotAPicture(what)


def demand_coded(data: Buffer, at: int, end: int) -> None:
    """Raises NotAPicture where text stands in the place of coded pixels."""
    for begin in (at, at + 32):  # a few bytes of a header may come before it
        found = bytes(data[begin : min(end, begin + _LOOKED_AT)])
        values = set(found)
        text = len(found) >= _LEAST and len(values) >= _DIFFERENT and values <= _TEXT
        demand(not text, "text in the place of pixels")


def boxes(data: Buffer, at: int, end: int, parts: Iterator[int]) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the content, end) of every box between two places of an ISO base media file.

    Raises IndexError for one that goes on behind the end, NotAPicture for what is no box.
    """
    while at < end:
        next(parts)
        if at + 8 > end:
            raise IndexError("half a box")
        length, kind, head = u32(data, at), bytes(data[at + 4 : at + 8]), 8
        demand(all(32 <= letter < 127 or letter == 0xA9 for letter in kind), "a box without a name")
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        stop = end if length == 0 else at + length
        demand(length == 0 or length >= head, "a box shorter than its head")
        if stop > end:
            raise IndexError("a box that goes on behind the end")
        yield kind, at + head, stop
        at = stop
