"""The size of a JPEG XL picture, boxed or bare, read without decoding it.

ISO/IEC 18181-1 (the codestream, whose first field is the size) and 18181-2 (the boxes). Whether the picture is whole is
for the decoder to say, which decodes all of it as it opens it: it has to be asked in a process with limits, and only
once the size is known.
"""

from __future__ import annotations

from lib.media import Buffer, u32
from lib.picture_parts import boxes, demand, parts_of

_START = b"\xff\x0a"
_LONGEST_SIZE = 10  # bytes that the size takes at most
# Bits of a side's length by the two bits before it; what they give is one less than the side.
_SIDE_BITS = (9, 13, 18, 30)
# Width to height, by three bits; 0 means that the width is written out.
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


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
