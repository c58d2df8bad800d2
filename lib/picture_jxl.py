"""The structure of JPEG XL, boxed and bare: its headers, and the lengths of the sections of every frame.

ISO/IEC 18181-1 (the codestream: bundles of fields, the frame header, the table of contents) and 18181-2 (the boxes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib.jxl_entropy import Bits, Choices, skip_order, skip_profile
from lib.media import Buffer, u32
from lib.picture_parts import CUT, TooManyParts, boxes, demand, demand_coded, parts_of

MOST_SECTIONS = 200_000  # of one frame

_REGULAR, _LF, _REFERENCE, _SKIP_PROGRESSIVE = range(4)
_USE_LF_FRAME = 32
_XYB, _GREY = 2, 1
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

_SIDE: Choices = ((1, 9), (1, 13), (1, 18), (1, 30))
_ENUM: Choices = ((0, 0), (1, 0), (2, 4), (18, 6))
_NAME: Choices = ((0, 0), (0, 4), (16, 5), (48, 10))
_UPSAMPLING: Choices = ((1, 0), (2, 0), (4, 0), (8, 0))
_XY: Choices = ((0, 19), (524_288, 19), (1_048_576, 20), (2_097_152, 21))
_CROP: Choices = ((0, 8), (256, 11), (2304, 14), (18_688, 30))
_SECTION: Choices = ((0, 10), (1024, 14), (17_408, 22), (4_211_712, 30))


@dataclass
class _Picture:
    """What the headers before the frames say."""

    width: int
    height: int
    extra: int = 0  # channels beside the colours
    xyb: bool = True
    animated: bool = False
    timecodes: bool = False
    icc: bool = False
    preview: tuple[int, int] | None = None


def jxl_size(data: Buffer) -> tuple[int, int]:
    """(width, height) of a picture, after a walk to the end of its last frame.

    Raises NotAPicture for what cannot be one, IndexError or struct.error where bytes are missing.
    """
    if bytes(data[:2]) == b"\xff\x0a":
        return _walk(data, 0, len(data), parts_of(data))
    return _boxed_size(data)


def _boxed_size(data: Buffer) -> tuple[int, int]:
    parts, pieces, ended = parts_of(data), list[bytes](), False
    try:
        for kind, at, end in boxes(data, 0, len(data), parts):
            if kind == b"jxlc" and not pieces:
                return _walk(data, at, end, parts)
            if kind == b"jxlp":
                demand(not ended, "a part of the codestream behind its last")
                number = u32(data, at)
                demand(number & 0x7FFF_FFFF == len(pieces), "parts of the codestream out of order")
                pieces.append(bytes(data[at + 4 : end]))
                ended = bool(number >> 31)
                if ended:
                    break
    except CUT:
        if pieces:
            _walk_start(b"".join(pieces), parts)
        raise
    if not ended:
        raise IndexError("no end of the codestream")
    whole = b"".join(pieces)
    return _walk(whole, 0, len(whole), parts)


def _walk_start(data: bytes, parts: Iterator[int]) -> None:
    """Raises NotAPicture where not even the beginning of a codestream is one."""
    try:
        _walk(data, 0, len(data), parts)
    except CUT:
        return


def _walk(data: Buffer, start: int, end: int, parts: Iterator[int]) -> tuple[int, int]:
    demand(bytes(data[start : start + 2]) == b"\xff\x0a", "no start of a codestream")
    bits = Bits(data, start + 2, end)
    picture = _read_headers(bits, parts)
    size = picture.width, picture.height
    if picture.icc:
        skip_profile(bits)
    bits.align()
    if picture.preview:
        _walk_frame(bits, picture, picture.preview, parts)
    while not _walk_frame(bits, picture, size, parts):
        next(parts)
    return size


def _read_headers(bits: Bits, parts: Iterator[int]) -> _Picture:
    picture = _Picture(*_read_size(bits))
    if not bits.flag():
        _read_metadata(bits, picture, parts)
    if not bits.flag():  # constants of the transforms
        if picture.xyb and not bits.flag():
            bits.skip(16 * 16)
        own = bits.take(3)
        bits.skip(16 * sum(count for bit, count in enumerate((15, 55, 210)) if own >> bit & 1))
    return picture


def _read_size(bits: Bits) -> tuple[int, int]:
    small = bits.flag()
    height = 8 * (bits.take(5) + 1) if small else bits.choose(_SIDE)
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        width = height * across // down
    else:
        width = 8 * (bits.take(5) + 1) if small else bits.choose(_SIDE)
    demand(width and height, "a picture of no size")
    return width, height


def _read_metadata(bits: Bits, picture: _Picture, parts: Iterator[int]) -> None:
    more = bits.flag()
    if more:
        bits.skip(3)  # orientation
        if bits.flag():
            _read_size(bits)
        if bits.flag():
            picture.preview = _read_preview(bits)
        if bits.flag():
            picture.animated = True
            bits.choose(((100, 0), (1000, 0), (1, 10), (1, 30)))
            bits.choose(((1, 0), (1001, 0), (1, 8), (1, 10)))
            bits.choose(((0, 0), (0, 3), (0, 16), (0, 32)))
            picture.timecodes = bits.flag()
    _read_depth(bits)
    bits.flag()
    picture.extra = bits.choose(((0, 0), (1, 0), (2, 4), (1, 12)))
    for _ in range(picture.extra):
        next(parts)
        _read_channel(bits)
    picture.xyb = bits.flag()
    if not bits.flag():
        picture.icc = _read_colours(bits)
    if more and not bits.flag():  # tone mapping
        bits.skip(16 + 16 + 1 + 16)
    _skip_extensions(bits)


def _read_preview(bits: Bits) -> tuple[int, int]:
    eighths = bits.flag()
    choices: Choices = ((16, 0), (32, 0), (1, 5), (33, 9)) if eighths else ((1, 6), (65, 8), (321, 10), (1345, 12))
    factor = 8 if eighths else 1
    height = factor * bits.choose(choices)
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return factor * bits.choose(choices), height


def _read_depth(bits: Bits) -> None:
    if bits.flag():
        depth, exponent = bits.choose(((32, 0), (16, 0), (24, 0), (1, 6))), bits.take(4) + 1
        demand(2 <= exponent <= 8 and 2 <= depth - exponent - 1 <= 23, "samples of no known kind")
    else:
        demand(bits.choose(((8, 0), (10, 0), (12, 0), (1, 6))) <= 31, "samples of no known kind")


def _read_channel(bits: Bits) -> None:
    if bits.flag():
        return
    kind = bits.choose(_ENUM)
    demand(kind <= 6 or kind in (15, 16), "a channel of no known kind")
    _read_depth(bits)
    bits.choose(((0, 0), (3, 0), (4, 0), (1, 3)))
    bits.skip(8 * bits.choose(_NAME))
    if kind == 0:
        bits.flag()
    elif kind == 2:
        bits.skip(4 * 16)
    elif kind == 5:
        bits.choose(((1, 0), (0, 2), (3, 4), (19, 8)))


def _read_colours(bits: Bits) -> bool:
    """Whether a colour profile follows the headers."""
    profile, space = bits.flag(), bits.choose(_ENUM)
    demand(space <= 3, "a colour space that there is not")
    if profile:
        return True
    if space != _XYB:
        white = bits.choose(_ENUM)
        demand(white in (1, 2, 10, 11), "a white that there is not")
        for _ in range(2 if white == 2 else 0):
            bits.choose(_XY)
        if space != _GREY:
            primaries = bits.choose(_ENUM)
            demand(primaries in (1, 2, 9, 11), "primaries that there are not")
            for _ in range(6 if primaries == 2 else 0):
                bits.choose(_XY)
        if bits.flag():
            bits.skip(24)
        else:
            demand(bits.choose(_ENUM) in (1, 2, 8, 13, 16, 17, 18), "a transfer that there is not")
    demand(bits.choose(_ENUM) <= 3, "an intent that there is not")
    return False


def _skip_extensions(bits: Bits) -> None:
    present = bits.u64()
    bits.skip(sum(bits.u64() for _ in range(present.bit_count())))


@dataclass
class _Frame:
    """The fields of a frame's header that say how it is cut into sections. What is not written is as here."""

    width: int
    height: int
    kind: int = _REGULAR
    modular: bool = False
    flags: int = 0
    upsampling: int = 1
    group_shift: int = 1
    passes: int = 1
    level: int = 0
    last: bool = True

    @property
    def sections(self) -> int:
        scale = self.upsampling << (3 * self.level)
        width, height, side = -(-self.width // scale), -(-self.height // scale), 128 << self.group_shift
        groups = -(-width // side) * -(-height // side)
        if groups == self.passes == 1:
            return 1
        return 2 + -(-width // (8 * side)) * -(-height // (8 * side)) + groups * self.passes


def _walk_frame(bits: Bits, picture: _Picture, size: tuple[int, int], parts: Iterator[int]) -> bool:
    """Goes over one frame; gives whether it is the last."""
    frame = _Frame(*size)
    if not bits.flag():
        _read_frame(bits, picture, frame)
    sections = frame.sections
    if sections > MOST_SECTIONS:
        raise TooManyParts
    if bits.at + 12 * sections > bits.end:  # the shortest way to write so many lengths
        raise IndexError("a table of contents that breaks off")
    if bits.flag():
        skip_order(bits, sections)
    bits.align()
    length = sum(bits.choose(_SECTION) for _, _ in zip(range(sections), parts, strict=False))
    bits.align()
    demand(length, "a frame of no bytes")
    demand_coded(bits.data, bits.at >> 3, (bits.at >> 3) + length)
    bits.skip(8 * length)
    return frame.last


def _read_frame(bits: Bits, picture: _Picture, frame: _Frame) -> None:
    frame.kind, frame.modular, frame.flags = bits.take(2), bits.flag(), bits.u64()
    demand(not frame.flags & ~0xB3, "a frame of no known kind")
    ycbcr = not picture.xyb and bits.flag()
    if not frame.flags & _USE_LF_FRAME:
        if ycbcr:
            bits.skip(3 * 2)
        frame.upsampling = bits.choose(_UPSAMPLING)
        for _ in range(picture.extra):
            bits.choose(_UPSAMPLING)
    if frame.modular:
        frame.group_shift = bits.take(2)
    elif picture.xyb:
        bits.skip(3 + 3)
    if frame.kind != _REFERENCE:
        _read_passes(bits, frame)
    if frame.kind == _LF:
        frame.level = bits.choose(((1, 0), (2, 0), (3, 0), (4, 0)))
    partial = frame.kind != _LF and bits.flag() and _read_crop(bits, frame, (picture.width, picture.height))
    replaces, duration, frame.last = True, 0, False
    if frame.kind in (_REGULAR, _SKIP_PROGRESSIVE):
        replaces = _read_blending(bits, picture, partial)
        for _ in range(picture.extra):
            _read_blending(bits, picture, partial)
        if picture.animated:
            duration = bits.choose(((0, 0), (1, 0), (0, 8), (0, 32)))
            bits.skip(32 if picture.timecodes else 0)
        frame.last = bits.flag()
    saved = bits.take(2) if frame.kind != _LF and not frame.last else 0
    referable = not frame.last and frame.kind != _LF and (duration == 0 or saved != 0)
    if frame.kind == _REFERENCE or (replaces and not partial and referable):
        bits.flag()
    bits.skip(8 * bits.choose(_NAME))
    if not bits.flag():
        _skip_filters(bits, frame)
    _skip_extensions(bits)


def _read_passes(bits: Bits, frame: _Frame) -> None:
    frame.passes = bits.choose(((1, 0), (2, 0), (3, 0), (4, 3)))
    if frame.passes != 1:
        steps = bits.choose(((0, 0), (1, 0), (2, 0), (3, 1)))
        demand(steps < frame.passes, "more steps than passes")
        bits.skip(2 * (frame.passes - 1))
        for _ in range(steps):
            bits.choose(_UPSAMPLING)
        for _ in range(steps):
            bits.choose(((0, 0), (1, 0), (2, 0), (0, 3)))


def _read_crop(bits: Bits, frame: _Frame, size: tuple[int, int]) -> bool:
    """Whether the frame leaves a part of the picture alone."""
    left = top = 0
    if frame.kind != _REFERENCE:
        left, top = _signed(bits.choose(_CROP)), _signed(bits.choose(_CROP))
    frame.width, frame.height = bits.choose(_CROP), bits.choose(_CROP)
    demand(frame.width and frame.height, "a frame of no size")
    return left > 0 or top > 0 or left + frame.width < size[0] or top + frame.height < size[1]


def _signed(value: int) -> int:
    return -(value >> 1) - 1 if value & 1 else value >> 1


def _read_blending(bits: Bits, picture: _Picture, partial: bool) -> bool:
    """Whether the frame simply takes the place of what was there."""
    mode = bits.choose(((0, 0), (1, 0), (2, 0), (3, 2)))
    demand(mode <= 4, "a blending that there is not")
    alpha = picture.extra and mode in (2, 3)
    if alpha:
        bits.choose(((0, 0), (1, 0), (2, 0), (3, 3)))
    if alpha or mode == 4:
        bits.flag()
    if mode or partial:
        bits.skip(2)
    return mode == 0


def _skip_filters(bits: Bits, frame: _Frame) -> None:
    if bits.flag() and bits.flag():
        bits.skip(6 * 16)
    if bits.take(2):
        if not frame.modular and bits.flag():
            bits.skip(8 * 16)
        if bits.flag():
            bits.skip(5 * 16)
        if bits.flag():
            bits.skip((3 if frame.modular else 4) * 16)
        if frame.modular:
            bits.skip(16)
    _skip_extensions(bits)
