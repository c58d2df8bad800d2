"""The structure of JPEG 2000 and the size of JPEG XL, both boxed or bare.

JPEG 2000 is walked through from the first marker and tile-part to the last: ISO/IEC 15444-1, annexes A (the codestream)
and I (the boxes).

Of JPEG XL only the size is read: ISO/IEC 18181-1 (the codestream, whose first field it is) and 18181-2 (the boxes).
Whether the picture is whole is for the decoder to say, which decodes all of it as it opens it. It has to be asked in a
process with limits, and only once the size is known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lib.images.formats import Buffer, u32
from lib.images.parts import CUT, NotAPicture, boxes, demand, demand_coded, parts_of

_SIZ, _COD, _QCD, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF5C, 0xFF90, 0xFF93
_END = b"\xff\xd9"
_MOST_TILES = 65_535

_START = b"\xff\x0a"
_LONGEST_SIZE = 10  # bytes that the size takes at most
# Bits of a side's length by the two bits before it; what they give is one less than the side.
_SIDE_BITS = (9, 13, 18, 30)
# Width to height, by three bits; 0 means that the width is written out.
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jp2_size(data: Buffer) -> tuple[int, int]:
    """(width, height) of a boxed picture. Raises as `j2k_size` does."""
    parts, described, size = parts_of(data), None, None
    try:
        for kind, at, end in boxes(data, 0, len(data), parts):
            if kind == b"jp2h" and described is None:
                described = _described(data, at, end, parts)
            elif kind == b"jp2c" and size is None:
                demand(described, "a codestream without a header")
                size = _walk(data, at, end, parts)
    except (NotAPicture, *CUT):  # rubbish behind the picture does no harm
        if size is None:
            raise
    if size is None:
        raise IndexError("no codestream")
    demand(size == described, "a header with another size than the codestream's")
    return size


def j2k_size(data: Buffer) -> tuple[int, int]:
    """(width, height) of a bare codestream.

    Raises NotAPicture for what cannot be one, IndexError or struct.error where bytes are missing.
    """
    return _walk(data, 0, len(data), parts_of(data))


def _described(data: Buffer, start: int, stop: int, parts: Iterator[int]) -> tuple[int, int] | None:
    try:
        for kind, at, end in boxes(data, start, stop, parts):
            if kind == b"ihdr" and end - at >= 14:
                return u32(data, at + 4), u32(data, at)
    except CUT as error:
        raise NotAPicture("a header that does not fit into its box") from error
    return None


def _walk(data: Buffer, start: int, end: int, parts: Iterator[int]) -> tuple[int, int]:
    demand(bytes(data[start : start + 2]) == b"\xff\x4f", "no start of a codestream")
    size, tiles, at = _sizes(data, start + 2, end)
    seen, at = _skip_markers(data, at, end, _SOT, parts)
    demand({_COD, _QCD} <= seen, "a codestream that does not say how it is coded")
    found, bytes_of_tiles = set[int](), 0
    while bytes(data[at : at + 2]) != _END:
        next(parts)
        if at + 12 > end:
            raise IndexError("no end of the codestream")
        marker, length, tile, part = struct.unpack_from(">HHHI", data, at)
        demand(marker == _SOT and length == 10 and tile < tiles, "something else where a tile should begin")
        _, body = _skip_markers(data, at + 12, end, _SOD, parts)
        # Nothing in a tile looks like the end of the codestream.
        after = at + part if part else data.find(_END, body + 2, end)
        if after < 0 or after > end:
            raise IndexError("a tile that goes on behind the end")
        demand(after >= body + 2, "a tile shorter than its head")
        demand_coded(data, body + 2, after)
        bytes_of_tiles += after - body - 2
        found.add(tile)
        at = after
    if at + 2 > end or len(found) < tiles:
        raise IndexError("tiles are missing")
    demand(bytes_of_tiles, "tiles without content")
    return size


def _sizes(data: Buffer, at: int, end: int) -> tuple[tuple[int, int], int, int]:
    """((width, height), number of tiles, where the next marker stands)."""
    if at + 40 > end:
        raise IndexError("no size")
    marker, length, _, *grid, channels = struct.unpack_from(">HHH8IH", data, at)
    right, bottom, left, top, across, down, first, row = grid
    demand(marker == _SIZ and 1 <= channels <= 16_384 and length == 38 + 3 * channels, "no size of a picture")
    demand(left < right and top < bottom, "a picture of no size")
    demand(across and down and first <= left < first + across and row <= top < row + down, "tiles off the picture")
    tiles = -(-(right - first) // across) * -(-(bottom - row) // down)
    demand(0 < tiles <= _MOST_TILES, "more tiles than a codestream can number")
    return (right - left, bottom - top), tiles, at + 2 + length


def _skip_markers(data: Buffer, at: int, end: int, until: int, parts: Iterator[int]) -> tuple[set[int], int]:
    """The markers before a given one, and where that stands."""
    seen = set[int]()
    while True:
        next(parts)
        if at + 4 > end:
            raise IndexError("a header that breaks off")
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == until:
            return seen, at
        demand(0xFF50 <= marker <= 0xFF7F and length >= 2, "something else where a marker should stand")
        seen.add(marker)
        at += 2 + length


class _Bits:
    """Reads numbers of some bits, the lowest first. Raises IndexError behind the end."""

    def __init__(self, data: bytes):
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise IndexError("no size")
        found = self.value & ((1 << count) - 1)
        self.value >>= count
        return found


def jxl_size(data: Buffer) -> tuple[int, int]:
    """(width, height) in pixels, as stored.

    Raises NotAPicture for what cannot be JPEG XL, IndexError or struct.error where bytes are missing.
    """
    start = bytes(data[: 2 + _LONGEST_SIZE])
    if start[:2] != _START:
        start = _start_of_codestream(data)
        demand(start[:2] == _START, "no start of a codestream")
    bits = _Bits(start[2:])
    small = bits.take(1)
    height = _side(bits, small)
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        width = height * across // down
    else:
        width = _side(bits, small)
    demand(width and height, "a picture of no size")
    return width, height


def _side(bits: _Bits, small: int) -> int:
    return 8 * (bits.take(5) + 1) if small else 1 + bits.take(_SIDE_BITS[bits.take(2)])


def _start_of_codestream(data: Buffer) -> bytes:
    """The first bytes of the codestream in the boxes, once all of its boxes are seen to be there."""
    pieces: list[tuple[int, int]] = []
    for kind, at, end in boxes(data, 0, len(data), parts_of(data)):
        if kind == b"jxlc" and not pieces:
            return bytes(data[at : min(end, at + 2 + _LONGEST_SIZE)])
        if kind == b"jxlp":
            number = u32(data, at)
            demand(number & 0x7FFF_FFFF == len(pieces), "parts of the codestream out of order")
            pieces.append((at + 4, end))
            if number >> 31:  # the last part
                starts = (bytes(data[at : min(end, at + 2 + _LONGEST_SIZE)]) for at, end in pieces)
                return b"".join(starts)[: 2 + _LONGEST_SIZE]
    raise IndexError("no end of the codestream")
