"""The structure of JPEG 2000, boxed (JP2) and bare: its markers and tile-parts from the first to the last.

ISO/IEC 15444-1, annexes A (the codestream) and I (the boxes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lib.media import Buffer, u32
from lib.picture_parts import CUT, NotAPicture, boxes, demand, demand_coded, parts_of

_SIZ, _COD, _QCD, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF5C, 0xFF90, 0xFF93
_END = b"\xff\xd9"
_MOST_TILES = 65_535


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
