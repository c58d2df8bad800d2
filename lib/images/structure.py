"""The end of a picture, told from the structure of its bytes: whether it is there, and what follows it.

Everything here is pure: it takes the bytes (or a memory map of a large file) and gives a short reason or a number.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from lib.images.boxed import heif_size, j2k_size, jp2_size, jxl_size
from lib.images.formats import (
    BYTES_A_PART,
    CUT,
    JPEG,
    MOST_PARTS,
    NOT_AN_IMAGE,
    Buffer,
    Format,
    NotAPicture,
    TooManyParts,
    demand,
    demand_coded,
    parts_of,
)

TRUNCATED = "truncated"
TOO_MANY_PARTS = "too_many_parts"

USUAL_SCANS = 20  # of a progressive JPEG; encoders write ten, and jpegrescan up to fifteen
MOST_SCANNED = 2_000_000_000  # pixels of all scans together, where there are more
MOST_PAGES = 5000  # of a TIFF; twice as many take four times as long
# Pictures of more pixels are refused by their size, which says more than that their data are too few.
_MOST_PIXELS = 1 << 28
_LARGEST_ICON = 4096  # pixels a side; 256 are usual
_DEFLATE_RATIO = 1032  # bytes that one byte of zlib's can unpack to, at most


def find_fault(data: Buffer, found: Format) -> tuple[str, str]:
    """(reason, detail) of what the structure shows to be wrong; ("", "") for a picture that is whole.

    `truncated` when bytes are missing at the end: Content-Length says what was sent, not that it was all, and a
    connection that closes without a length cannot be told from a finished one. `not_an_image` where something else
    stands behind a picture's first bytes, `too_many_parts` where only an attack looks so. Bytes after the end are
    harmless and common.
    """
    check, size = _END_CHECKS.get(found.extension), _SIZES.get(found.extension)
    try:
        whole = check is None or check(data)
        if size:
            size(data)
    except TooManyParts:
        return TOO_MANY_PARTS, ""
    except NotAPicture as error:
        return NOT_AN_IMAGE, f"begins like {found.name}, then {error}"
    except CUT:
        whole = False
    return ("", "") if whole else (TRUNCATED, "the end of the picture is missing")


def size_of_structure(data: Buffer, found: Format) -> tuple[int, int] | None:
    """(width, height) in pixels of a whole picture in a format that the decoder at hand may be unable to open."""
    size = _SIZES.get(found.extension)
    return size(data) if size else None


def is_damaged_copy(one: Buffer, other: Buffer) -> bool:
    """True where the coded pixels of two files are the same bytes but for some: one of them is damaged.

    Bit rot, a lost block of a disk and bytes that went missing leave most bytes as they were, and no second encoding
    does, however near its pixels are. What stands before the pixels of a JPEG may differ altogether. Only formats whose
    coded bytes depend on all that stand before them are judged: False for all others.
    """
    coded = [_coded(data) for data in (one, other)]
    if not coded[0] or not coded[1] or coded[0] == coded[1]:
        return False
    first, second = sorted(coded, key=len)
    least = SAME_BYTES * len(second)
    ahead, behind = _common_start(first, second), _common_start(first[::-1], second[::-1])
    if min(ahead + behind, len(first)) >= least:
        return True
    apart = int.from_bytes(first, "big") ^ int.from_bytes(second[: len(first)], "big")
    return apart.to_bytes(len(first), "big").count(0) >= least


SAME_BYTES = 0.5  # of the coded ones; of two encodings of one photograph one in 100 is the same


def _coded(data: Buffer) -> bytes:
    """The bytes of a JPEG from its first scan, of WebP, AVIF, HEIC and JPEG 2000 all; none of others."""
    if data[:3] == b"\xff\xd8\xff":
        with suppress(TooManyParts, *CUT):
            if (scan := _jpeg_scan_offset(data)) > 0:
                return bytes(data[scan:])
        return b""
    boxed = data[4:8] in (b"ftyp", b"jP  ") or data[:4] == b"\xff\x4f\xff\x51"
    return bytes(data[:]) if boxed or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") else b""


def _common_start(one: bytes, other: bytes) -> int:
    """Counts the bytes at the beginning that are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def check_jpeg_head(read: Callable[[int, int], bytes]) -> None:
    """Walks over what stands before a JPEG's first scan, through a reader of (place, count).

    Pillow reads it in a loop of Python's, byte by byte what is no segment. Raises TooManyParts.
    """
    at = 2
    for _ in range(MOST_PARTS):
        head = read(at, 4)
        if len(head) < 4 or (head[0] == 0xFF and head[1] in (0xD9, 0xDA)):
            return
        if head[0] != 0xFF or head[1] in (0x00, 0xFF):
            at += 1
        elif head[1] == 0x01 or 0xD0 <= head[1] <= 0xD8:
            at += 2
        else:
            at += 2 + max(2, head[2] << 8 | head[3])
    raise TooManyParts


def check_jpeg_scans(data: Buffer, pixels: int) -> None:
    """Counts the scans of a progressive JPEG, each of which the decoder carries into all of its pixels.

    Raises TooManyParts.
    """
    at = -1
    for _ in range(max(USUAL_SCANS, MOST_SCANNED // pixels)):
        at = data.find(b"\xff\xda", at + 1)
        if at < 0:
            return
    raise TooManyParts


def _jpeg_is_whole(data: Buffer) -> bool:
    """An end-of-image marker after the start of the scan: an embedded thumbnail's own marker does not count."""
    scan = _jpeg_scan_offset(data, judge=True)
    return scan >= 0 and (data[-2:] == b"\xff\xd9" or data.find(b"\xff\xd9", scan) >= 0)


def _jpeg_scan_offset(data: Buffer, *, judge: bool = False) -> int:
    """The place where the first scan begins; -1 when the data ends before it.

    With `judge` it raises NotAPicture where no frame comes before it, IndexError where it is too short for that frame.
    """
    at, size, frame = 2, len(data), -1
    parts = parts_of(data)
    while at + 4 <= size:
        next(parts)
        marker = data[at + 1]
        if data[at] != 0xFF or (marker < 0xC0 and marker != 0x01):
            demand(not judge or frame >= 0, "no marker of one")
            return -1
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        elif marker == 0xDA:
            if judge:
                demand(frame >= 0, "a scan without a frame")
                _demand_jpeg_blocks(data, frame, size - at - 2)
                demand_coded(data, at + 2 + (data[at + 2] << 8 | data[at + 3]), size)
            return at + 2
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                frame = at
            at += 2 + max(2, (data[at + 2] << 8) | data[at + 3])
    return -1


def _demand_jpeg_blocks(data: Buffer, frame: int, length: int) -> None:
    """Every block of eight by eight samples takes a bit at least, two where it comes at once. Raises IndexError."""
    kind, height, width = data[frame + 1], *struct.unpack_from(">HH", data, frame + 5)
    if kind not in (0xC0, 0xC1, 0xC2) or width * height > _MOST_PIXELS:
        return
    factors = [data[frame + 11 + 3 * channel] for channel in range(data[frame + 9])]
    across, down = max((f >> 4 for f in factors), default=0), max((f & 15 for f in factors), default=0)
    demand(across and down, "a frame without channels")
    blocks = sum(-(-width * (f >> 4) // (8 * across)) * -(-height * (f & 15) // (8 * down)) for f in factors)
    if 8 * length < blocks * (1 if kind == 0xC2 else 2):
        raise IndexError("fewer bits than blocks")


_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour


def _png_is_whole(data: Buffer) -> bool:
    """Every chunk up to the last, and pixels that begin like packed rows and can be as many as the header says."""
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    demand(kind == b"IHDR" and length == 13 and width and height, "no header")
    demand(depth in (1, 2, 4, 8, 16) and colour in _PNG_CHANNELS, "colours that there are not")
    packed, start, at, parts = 0, b"", 8, parts_of(data)
    while True:
        next(parts)
        length, kind = struct.unpack_from(">I4s", data, at)
        demand(kind.isalpha(), "a chunk without a name")
        if at + 12 + length > len(data):
            raise IndexError("a chunk that goes on behind the end")
        if kind == b"IDAT":
            packed += length
            if len(start) < 64:
                start += bytes(data[at + 8 : at + 8 + min(length, 64)])
        elif kind == b"IEND":
            break
        at += 12 + length
    demand(packed, "no pixels")
    # They begin as zlib's data do, and what they unpack to begins with one of the five filters.
    demand(len(start) > 1 and start[0] & 15 == 8 and (start[0] << 8 | start[1]) % 31 == 0, "pixels that are not packed")
    with suppress(zlib.error):  # whether they unpack to the end, only a decoder says
        first = zlib.decompressobj().decompress(start, 1)
        demand(not first or first[0] <= 4, "pixels without a filter")
    if width * height <= _MOST_PIXELS and packed * _DEFLATE_RATIO < width * height * depth * _PNG_CHANNELS[colour] // 8:
        raise IndexError("fewer bytes than pixels need")
    return True


class BrokenPixels(OSError):
    """A checksum of a picture's pixels is not the one that was written with them."""


_PIECE = 1 << 20  # bytes read at once


def check_png_pixels(read: Callable[[int, int], bytes], size: int) -> None:
    """Compares the checksums of the chunks that hold pixels, through a reader of (place, count).

    libpng gives such a picture up; Pillow passes over these sums, and shows what is broken only where the packing
    itself no longer holds. Raises BrokenPixels, or TooManyParts.
    """
    at, head = 8, read(8, 8)
    for _ in range(MOST_PARTS + size // BYTES_A_PART):
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        place, at = at + 8, at + 12 + length
        if kind == b"IEND":
            return
        if kind not in (b"IDAT", b"fdAT"):
            head = read(at, 8)
            continue
        total = zlib.crc32(kind)
        while (left := at - 4 - place) > _PIECE:
            piece = read(place, _PIECE)
            total, place = zlib.crc32(piece, total), place + _PIECE
        last = read(place, left + 12)  # with the sum, and the head of the next chunk
        if len(last) < left + 4:
            return  # what is missing, the decoder tells
        total = zlib.crc32(memoryview(last)[:left], total)
        if int.from_bytes(last[left : left + 4]) != total:
            raise BrokenPixels(f"broken pixels: the checksum at byte {at - 4} is another one")
        head = last[left + 4 :]
    raise TooManyParts


def _gif_trailer(data: Buffer) -> int:
    """The place of the trailer; -1 where something that is no block comes before it. Raises IndexError without one."""
    at, parts, pictures = 13 + _gif_table(data[10]), parts_of(data), 0
    while True:
        next(parts)
        block = data[at]
        if block == 0x3B:
            demand(pictures, "no picture")
            return at
        if block == 0x21:
            at = _after_sub_blocks(data, at + 2, parts)
        elif block == 0x2C:
            at += 11 + _gif_table(data[at + 9])
            demand(1 <= data[at - 1] <= 11, "no code of pixels")
            demand_coded(data, at + 1, min(len(data), at + 1 + data[at]))
            pictures += data[at] > 0
            at = _after_sub_blocks(data, at, parts)
        elif block == 0:  # padding that some writers leave between blocks
            at += 1
        else:
            demand(pictures, "no block of one")
            return -1


def gif_extent(data: Buffer) -> tuple[int, int, int]:
    """(width, height) of the canvas with every picture of a GIF, which decoders let grow as far as they reach, and the
    number of pictures.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    at, parts, pictures = 13 + _gif_table(data[10]), parts_of(data), 0
    try:
        while (block := data[at]) != 0x3B:
            next(parts)
            if block == 0x21:
                at = _after_sub_blocks(data, at + 2, parts)
            elif block == 0x2C:
                pictures += 1
                left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
                width, height = max(width, left + across), max(height, top + down)
                at = _after_sub_blocks(data, at + 11 + _gif_table(data[at + 9]), parts)
            else:
                at += 1
    except CUT:  # what is missing, the decoder tells
        pass
    return width, height, pictures


def _gif_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: Buffer, at: int, parts: Iterator[int]) -> int:
    while length := data[at]:
        at += length + 1
        next(parts)
    return at + 1


def _webp_is_whole(data: Buffer) -> bool:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data) + 1:  # the last pad byte is often left out
        return False
    demand(_webp_pictures(data, 12, min(end, len(data)), parts_of(data)), "no picture")
    return True


def _webp_pictures(data: Buffer, at: int, end: int, parts: Iterator[int]) -> int:
    """Number of coded pictures in the chunks between two places."""
    pictures = 0
    while at + 8 <= end:
        next(parts)
        kind, length = struct.unpack_from("<4sI", data, at)
        body, at = at + 8, at + 8 + length + length % 2
        demand(body + length <= end, "a chunk that goes on behind the end")
        if kind == b"VP8 ":
            start = bytes(data[body : body + 10])
            demand(len(start) == 10 and not start[0] & 1 and start[3:6] == b"\x9d\x01\x2a", "no key frame")
            demand((start[0] | start[1] << 8 | start[2] << 16) >> 5 <= length - 10, "a partition behind the end")
            demand_coded(data, body + 10, body + length)
            pictures += 1
        elif kind == b"VP8L":
            demand(length > 5 and data[body] == 0x2F and not data[body + 4] >> 5, "no lossless frame")
            demand_coded(data, body + 5, body + length)
            pictures += 1
        elif kind == b"ANMF":
            pictures += _webp_pictures(data, body + 16, body + length, parts)
    return pictures


def _bmp_is_whole(data: Buffer) -> bool:
    # The file header's size may be 0 or wrong in old writers; the pixel data's own start and size are not.
    start, header = struct.unpack_from("<II", data, 10)
    width, height, _, bits = struct.unpack_from("<HHHH" if header == 12 else "<iiHH", data, 18)
    compression, size = struct.unpack_from("<II", data, 30) if header >= 40 else (0, 0)
    demand(width and height and bits in (0, 1, 2, 4, 8, 16, 24, 32), "a picture of no size")
    if compression in (0, 3):
        size = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    return start + max(1, size) <= len(data)


@dataclass(frozen=True)
class _Tiff:
    """The form of a TIFF's numbers: of directories, of entries in one, and how long an entry is."""

    order: str
    start: int
    number: str
    count: str
    entry: int


def _tiff_is_whole(data: Buffer) -> bool:
    """The first directory and the strips or tiles that it points to lie inside the data."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] != 42
    form = _Tiff(order, 8, "Q", "Q", 20) if big else _Tiff(order, 4, "I", "H", 12)
    _count_pages(data, form)
    directory = struct.unpack_from(order + form.number, data, form.start)[0]
    demand(directory, "no directory")
    count = struct.unpack_from(order + form.count, data, directory)[0]
    at = directory + struct.calcsize("=" + form.count)
    demand(count <= 0xFFFF, "a directory of too many entries")
    found: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        tag, kind, length = struct.unpack_from(order + "HH" + form.number, data, at + form.entry * index)
        if tag in (273, 279, 324, 325) and kind in _TIFF_NUMBERS:
            value = at + form.entry * index + 4 + struct.calcsize("=" + form.number)
            found[tag] = _tiff_values(data, form, _TIFF_NUMBERS[kind], length, value)
    offsets, sizes = found.get(273) or found.get(324, ()), found.get(279) or found.get(325, ())
    return all(offset + size <= len(data) for offset, size in zip(offsets, sizes, strict=False))


def _count_pages(data: Buffer, form: _Tiff) -> None:
    """Follows the chain of directories. Raises TooManyParts: Pillow compares every page with all before it."""
    directory, seen = struct.unpack_from(form.order + form.number, data, form.start)[0], set[int]()
    with suppress(struct.error):  # a broken chain ends there for everybody
        while 0 < directory < len(data) and directory not in seen:
            seen.add(directory)
            if len(seen) > MOST_PAGES:
                raise TooManyParts
            entries = struct.unpack_from(form.order + form.count, data, directory)[0]
            after = directory + struct.calcsize(form.order + form.count) + form.entry * entries
            directory = struct.unpack_from(form.order + form.number, data, after)[0] if after < len(data) else 0


_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # by the kind of an entry


def _tiff_values(data: Buffer, form: _Tiff, letter: str, length: int, at: int) -> tuple[int, ...]:
    size = length * struct.calcsize("=" + letter)
    if size > struct.calcsize("=" + form.number):
        at = struct.unpack_from(form.order + form.number, data, at)[0]
    if size > len(data):
        raise IndexError("more values than bytes")
    if length > MOST_PARTS + len(data) // BYTES_A_PART:
        raise TooManyParts
    return struct.unpack_from(f"{form.order}{length}{letter}", data, at)


def _icon_is_whole(data: Buffer) -> bool:
    count = struct.unpack_from("<H", data, 4)[0]
    entries = [struct.unpack_from("<II", data, 14 + 16 * index) for index in range(count)]
    for _, offset in entries:
        start = bytes(data[offset : offset + 8])
        known = start == b"\x89PNG\r\n\x1a\n" or int.from_bytes(start[:4], "little") in (12, 40, 64, 108, 124)
        demand(known or len(start) < 8, "no picture where one should lie")
        if start[:1] == b"\x89":  # whoever opens an icon decodes it at once
            width, height = struct.unpack_from(">II", data, offset + 16)
            demand(0 < width <= _LARGEST_ICON and 0 < height <= _LARGEST_ICON, "a picture too large for one")
    return all(offset + size <= len(data) for size, offset in entries)


def trailing_bytes(data: Buffer, found: Format, *, exact: bool = False) -> int:
    """The number of bytes behind the picture's end: 0 for most, and for formats whose end does not show.

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
    at, parts = 8, parts_of(data)
    while at + 12 <= len(data):
        next(parts)
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return at
    return 0


_END_CHECKS: dict[str, Callable[[Buffer], bool]] = {
    "jpg": _jpeg_is_whole,
    "png": _png_is_whole,
    "gif": lambda data: _gif_trailer(data) >= 0,
    "webp": _webp_is_whole,
    "bmp": _bmp_is_whole,
    "tif": _tiff_is_whole,
    "ico": _icon_is_whole,
}

# A walk that gives the size has been to the end, but for JPEG XL, whose decoder says whether it is whole.
_SIZES: dict[str, Callable[[Buffer], tuple[int, int] | None]] = {
    "avif": heif_size,
    "heic": heif_size,
    "jp2": jp2_size,
    "j2k": j2k_size,
    "jxl": jxl_size,
}

_ENDS: dict[str, Callable[[Buffer], int]] = {
    "jpg": _jpeg_end,
    "png": _png_end,
    "gif": lambda data: _gif_trailer(data) + 1,
    "webp": lambda data: int(8 + struct.unpack_from("<I", data, 4)[0] + struct.unpack_from("<I", data, 4)[0] % 2),
}


# Bounds of a walk over a PNG: one chunk costs a microsecond, and encoders write 8 kB and more into each.
MOST_CHUNKS = 20_000
BYTES_A_CHUNK = 1000
LONGEST = 1 << 20  # bytes of one block, packed or not; EXIF of cameras has 64 kB at most
PNG_PROFILE = "Raw profile type exif"
PNG_XMP = "XML:com.adobe.xmp"


def most_chunks(size: int) -> int:
    """The number of chunks that a PNG of so many bytes may have."""
    return MOST_CHUNKS + size // BYTES_A_CHUNK


def png_chunks(read: Callable[[int, int], bytes], most: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, place of the content, its length) of every chunk of a PNG up to the last.

    `read` takes a place and a number of bytes. What lies behind the first `most` chunks is not looked at.
    """
    at = 8
    for _ in range(most):
        head = read(at, 8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length


def png_notes(read: Callable[[int, int], bytes], size: int) -> Iterator[tuple[str, str | bytes]]:
    """EXIF, a profile of it in text, and XMP, under the names that Pillow gives them."""
    for kind, at, length in png_chunks(read, most_chunks(size)):
        if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and length <= LONGEST:
            content = read(at, length)
            if kind == b"eXIf":
                yield "exif", b"Exif\0\0" + content
            elif note := _text(kind, content):
                yield note


def _text(kind: bytes, content: bytes) -> tuple[str, str] | None:
    """(keyword, text) of a chunk that may tell an orientation."""
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if name not in (PNG_PROFILE, PNG_XMP):
        return None
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]  # the method: there is one
    elif kind == b"iTXt":
        packed, fields = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
        rest = fields[2] if len(fields) == 3 else b""
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, LONGEST)
        except zlib.error:
            return None
    return name, rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
