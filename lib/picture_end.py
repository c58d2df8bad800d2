"""Where a picture ends, told from the structure of its bytes: whether its end is there, and what follows it.

Everything here is pure: it takes the bytes (or a memory map of a large file) and gives a short reason or a number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from lib.media import JPEG, Buffer, Format, u32

TRUNCATED = "truncated"
TOO_MANY_PARTS = "too_many_parts"

# Blocks, chunks, segments or pages of one picture, on top of one for every so many bytes. Whatever reads a header walks
# over them, at several microseconds each and worse: millions of tiny ones would hold it for minutes. A sound GIF has
# one for every 256 bytes.
MOST_PARTS = 20_000
BYTES_A_PART = 100
MOST_PAGES = 5000  # of a TIFF; twice as many take four times as long


class TooManyParts(Exception):
    """The picture is made of more parts than one of its size needs."""


def check_end(data: Buffer, found: Format) -> str:
    """`truncated` when the structure shows that bytes are missing at the end, else an empty string.

    Content-Length says what was sent, not that it was all: a connection that closes without a length cannot be told
    from a finished one. Bytes after the end are harmless and common. `too_many_parts` where only an attack looks so.
    """
    check = _END_CHECKS.get(found.extension)
    try:
        whole = check is None or check(data)
    except TooManyParts:
        return TOO_MANY_PARTS
    except (struct.error, IndexError):
        whole = False
    return "" if whole else TRUNCATED


def _parts(data: Buffer) -> Iterator[int]:
    """A number for every part that the picture may have; raises TooManyParts after the last."""
    yield from range(MOST_PARTS + len(data) // BYTES_A_PART)
    raise TooManyParts


def _jpeg_is_whole(data: Buffer) -> bool:
    """An end-of-image marker after the start of the scan: an embedded thumbnail's own marker does not count."""
    scan = _jpeg_scan_offset(data)
    if scan < 0:
        return False
    return data[-2:] == b"\xff\xd9" or data.find(b"\xff\xd9", scan) >= 0


def _jpeg_scan_offset(data: Buffer) -> int:
    """Where the first scan begins; -1 when the data ends before it."""
    at, size = 2, len(data)
    parts = _parts(data)
    while at + 4 <= size:
        next(parts)
        if data[at] != 0xFF:
            return -1
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        elif marker == 0xDA:
            return at + 2
        else:
            at += 2 + max(2, (data[at + 2] << 8) | data[at + 3])
    return -1


_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def _png_is_whole(data: Buffer) -> bool:
    _png_end(data)  # counts its chunks
    return data[-12:] == _PNG_END or data.find(_PNG_END) >= 0


def _gif_is_whole(data: Buffer) -> bool:
    return _gif_trailer(data) >= 0


def _gif_trailer(data: Buffer) -> int:
    """Where the trailer stands; -1 where something that is no block comes before it. Raises IndexError without one."""
    at, parts = 13 + _gif_table(data[10]), _parts(data)
    while True:
        next(parts)
        block = data[at]
        if block == 0x3B:
            return at
        if block == 0x21:
            at = _after_sub_blocks(data, at + 2, parts)
        elif block == 0x2C:
            at = _after_sub_blocks(data, at + 11 + _gif_table(data[at + 9]), parts)
        elif block == 0:  # padding that some writers leave between blocks
            at += 1
        else:
            return -1


def _gif_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: Buffer, at: int, parts: Iterator[int]) -> int:
    while length := data[at]:
        at += length + 1
        next(parts)
    return at + 1


def _webp_is_whole(data: Buffer) -> bool:
    return 8 + struct.unpack_from("<I", data, 4)[0] <= len(data) + 1  # the last pad byte is often left out


def _bmp_is_whole(data: Buffer) -> bool:
    # The file header's size may be 0 or wrong in old writers; the pixel data's own start and size are not.
    start, header = struct.unpack_from("<II", data, 10)
    if header < 40:
        return len(data) > start
    width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
    if compression in (0, 3):
        size = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    return start + size <= len(data)


def _tiff_is_whole(data: Buffer) -> bool:
    """The first directory and the strips or tiles that it points to lie inside the data (classic TIFF only)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] != 42
    _count_pages(data, order, big)
    if big:
        return True
    directory = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, directory)[0]
    found: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        tag, kind, length = struct.unpack_from(order + "HHI", data, directory + 2 + 12 * index)
        if tag in (273, 279, 324, 325) and kind in (3, 4):
            found[tag] = _tiff_values(data, order, kind, length, directory + 10 + 12 * index)
    offsets, sizes = found.get(273) or found.get(324, ()), found.get(279) or found.get(325, ())
    return all(offset + size <= len(data) for offset, size in zip(offsets, sizes, strict=False))


def _count_pages(data: Buffer, order: str, big: bool) -> None:
    """Follows the chain of directories. Raises TooManyParts: Pillow compares every page with all before it."""
    start, number, count, entry = (8, "Q", "Q", 20) if big else (4, "I", "H", 12)
    directory, seen = struct.unpack_from(order + number, data, start)[0], set[int]()
    with suppress(struct.error):  # a broken chain ends there for everybody
        while 0 < directory < len(data) and directory not in seen:
            seen.add(directory)
            if len(seen) > MOST_PAGES:
                raise TooManyParts
            entries = struct.unpack_from(order + count, data, directory)[0]
            after = directory + struct.calcsize(order + count) + entry * entries
            directory = struct.unpack_from(order + number, data, after)[0] if after < len(data) else 0


def _tiff_values(data: Buffer, order: str, kind: int, length: int, at: int) -> tuple[int, ...]:
    width, letter = (2, "H") if kind == 3 else (4, "I")
    if length * width > 4:
        at = struct.unpack_from(order + "I", data, at)[0]
    if length * width > len(data):
        raise IndexError("more values than bytes")
    if length > MOST_PARTS + len(data) // BYTES_A_PART:
        raise TooManyParts
    return struct.unpack_from(f"{order}{length}{letter}", data, at)


_PAYLOADS = frozenset({b"mdat", b"jp2c", b"jxlc", b"jxlp"})  # the boxes that hold the picture itself


def _boxes_are_whole(data: Buffer) -> bool:
    """AVIF, HEIC, JP2 and boxed JPEG XL: the box with the picture is there, and the boxes end inside the data."""
    at, size, seen, parts = 0, len(data), False, _parts(data)
    while at + 8 <= size:
        next(parts)
        length, kind = u32(data, at), bytes(data[at + 4 : at + 8])
        if length == 1:
            length = struct.unpack_from(">Q", data, at + 8)[0]
        if length == 0:  # up to the end of the file, so nothing can be missing by this measure
            return seen or kind in _PAYLOADS
        if length < 8 or at + length > size:
            return seen and kind not in _PAYLOADS  # rubbish after the last box
        seen = seen or kind in _PAYLOADS
        at += length
    return seen or data.find(b"idat", 0, 1 << 16) > 0  # tiny pictures may lie in the box of their description


def _icon_is_whole(data: Buffer) -> bool:
    count = struct.unpack_from("<H", data, 4)[0]
    entries = (struct.unpack_from("<II", data, 14 + 16 * index) for index in range(count))
    return all(offset + size <= len(data) for size, offset in entries)


def trailing_bytes(data: Buffer, found: Format, *, exact: bool = False) -> int:
    """How many bytes follow the picture's end: 0 for most, and for formats whose end does not show.

    A JPEG whose last bytes are an end marker is searched for an earlier one only if it has to be `exact`: that takes
    longer than hashing it, and phones put a second picture there.

    Some are meant (a phone's second picture, a film), some hide a script or an archive.
    """
    if found is JPEG and not exact and data[-2:] == b"\xff\xd9":
        return 0
    try:
        end = _ENDS[found.extension](data) if found.extension in _ENDS else len(data)
    except (struct.error, IndexError):
        return 0
    return max(0, len(data) - end) if end > 0 else 0


def _jpeg_end(data: Buffer) -> int:
    # Within a scan 0xFF is always followed by 0 or a restart marker, so the first end marker after it is the real one.
    scan = _jpeg_scan_offset(data)
    return data.find(b"\xff\xd9", scan) + 2 if scan > 0 else 0


def _png_end(data: Buffer) -> int:
    at, parts = 8, _parts(data)
    while at + 12 <= len(data):
        next(parts)
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return at
    return 0


def _gif_end(data: Buffer) -> int:
    return _gif_trailer(data) + 1


_END_CHECKS: dict[str, Callable[[Buffer], bool]] = {
    "jpg": _jpeg_is_whole,
    "png": _png_is_whole,
    "gif": _gif_is_whole,
    "webp": _webp_is_whole,
    "bmp": _bmp_is_whole,
    "tif": _tiff_is_whole,
    "avif": _boxes_are_whole,
    "heic": _boxes_are_whole,
    "jp2": _boxes_are_whole,
    "j2k": lambda data: data.find(b"\xff\xd9", max(0, len(data) - 64)) >= 0,
    "jxl": lambda data: data[:2] == b"\xff\x0a" or _boxes_are_whole(data),
    "ico": _icon_is_whole,
}

_ENDS: dict[str, Callable[[Buffer], int]] = {
    "jpg": _jpeg_end,
    "png": _png_end,
    "gif": _gif_end,
    "webp": lambda data: int(8 + struct.unpack_from("<I", data, 4)[0] + struct.unpack_from("<I", data, 4)[0] % 2),
}
