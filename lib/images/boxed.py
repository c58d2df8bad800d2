"""The structure of boxed pictures and their bare codestreams: AVIF and HEIC, JPEG 2000, and the size of JPEG XL.

AVIF and HEIC: items, where their bytes lie, and whether these can be coded pictures. ISO/IEC 14496-12 (boxes), 23008-12
(items and their properties), the AV1 specification and ISO/IEC 14496-15 (what the bytes of an item are made of).

JPEG 2000 is walked through from the first marker and tile-part to the last: ISO/IEC 15444-1, annexes A (the codestream)
and I (the boxes).

Of JPEG XL only the size is read: ISO/IEC 18181-1 (the codestream, whose first field it is) and 18181-2 (the boxes).
Whether the picture is whole is for the decoder to say, which decodes all of it as it opens it. It has to be asked in a
process with limits, and only once the size is known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from lib.images.formats import CUT, Buffer, NotAPicture, TooManyParts, demand, demand_coded, parts_of, u32

_SEQUENCE_HEADER, _FRAME_HEADER, _TILE_GROUP, _FRAME = 1, 3, 4, 6
_OBU_TYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 15})
_LAST_SLICE = 31  # of the types of HEVC's units that hold parts of a picture

Extent = tuple[int, int]  # from, to
ItemPlace = tuple[int, list[Extent]]  # construction method, extents

_SIZ, _COD, _QCD, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF5C, 0xFF90, 0xFF93
_END = b"\xff\xd9"
_MOST_TILES = 65_535

_START = b"\xff\x0a"
_LONGEST_SIZE = 10  # bytes that the size takes at most
# A picture that does not say in a box before its codestream that it is of a higher level has at most these (18181-1 on
# levels; libjxl writes that box by itself). Text in the place of the size gives more.
_USUAL_LEVEL = 5
_MOST_SIDE, _MOST_PIXELS = 1 << 18, 1 << 28
# Bits of a side's length by the two bits before it; what they give is one less than the side.
_SIDE_BITS = (9, 13, 18, 30)
# Width to height, by three bits; 0 means that the width is written out.
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


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


@dataclass
class _Items:
    """The content of the `meta` box, as far as it matters here."""

    primary: int = 0
    handler: bytes = b""
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, ItemPlace] = field(default_factory=dict)
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)
    owned: dict[int, list[int]] = field(default_factory=dict)  # item -> numbers of its properties, from 1
    idat: Extent = (0, 0)


def heif_size(data: Buffer) -> tuple[int, int] | None:
    """(width, height) of the primary picture, after a walk over the whole structure; None where only a film says it.

    Raises NotAPicture for what cannot be one, IndexError or struct.error where bytes are missing.
    """
    parts = parts_of(data)
    meta, payloads, film = None, list[Extent](), False
    try:
        for kind, start, end in boxes(data, 0, len(data), parts):
            if kind == b"meta" and meta is None:
                meta = (start, end)
            elif kind == b"mdat":
                payloads.append((start, end))
            film = film or kind == b"moov"
    except (NotAPicture, *CUT):
        # Rubbish behind the last box does no harm, if everything that is needed came before it.
        if meta is None or not _is_complete(data, meta, payloads, parts):
            raise
    if meta is None:
        demand(film or not payloads, "coded data that nothing describes")
        if not (film and payloads):
            raise IndexError("no description of the picture")
        return None
    items = _read_items(data, *meta, parts)
    _check_places(data, items, payloads)
    _check_coded(data, items, parts)
    at = _property(items, items.primary, b"ispe", 12, "a picture without a size")
    width, height = u32(data, at + 4), u32(data, at + 8)
    demand(width and height, "a picture of no size")
    return width, height


def _is_complete(data: Buffer, meta: Extent, payloads: list[Extent], parts: Iterator[int]) -> bool:
    try:
        _check_places(data, _read_items(data, *meta, parts), payloads)
    except (NotAPicture, *CUT):
        return False
    return True


def _read_items(data: Buffer, start: int, end: int, parts: Iterator[int]) -> _Items:
    items = _Items()
    try:
        for kind, at, stop in boxes(data, start + 4, end, parts):
            if kind == b"hdlr":
                items.handler = bytes(data[at + 8 : at + 12])
            elif kind == b"pitm":
                items.primary = _number(data, at + 4, 2 if data[at] == 0 else 4)
            elif kind == b"iinf":
                for name, inner, _ in boxes(data, at + (6 if data[at] == 0 else 8), stop, parts):
                    if name == b"infe" and data[inner] in (2, 3):
                        width = 2 if data[inner] == 2 else 4
                        item = _number(data, inner + 4, width)
                        items.kinds[item] = bytes(data[inner + 6 + width : inner + 10 + width])
            elif kind == b"iloc":
                items.places = dict(_read_places(data, at, stop, parts))
            elif kind == b"iprp":
                _read_properties(data, at, stop, items, parts)
            elif kind == b"idat":
                items.idat = (at, stop)
    except CUT as error:  # the box itself is whole, so nothing is missing: it is no such box
        raise NotAPicture("a description that does not fit into its box") from error
    return items


def _read_places(data: Buffer, at: int, end: int, parts: Iterator[int]) -> Iterator[tuple[int, ItemPlace]]:
    version, sizes, more = data[at], data[at + 4], data[at + 5]
    offsets, lengths, bases = sizes >> 4, sizes & 15, more >> 4
    indexes = more & 15 if version in (1, 2) else 0
    wide = 2 if version < 2 else 4
    count, at = _number(data, at + 6, wide), at + 6 + wide
    for _ in range(count):
        item, at = _number(data, at, wide), at + wide
        method = 0
        if version in (1, 2):
            method, at = _number(data, at, 2) & 15, at + 2
        base, at = _number(data, at + 2, bases), at + 2 + bases
        extents, at = _number(data, at, 2), at + 2
        found = []
        for _ in range(extents):
            next(parts)
            begin = base + _number(data, at + indexes, offsets)
            length = _number(data, at + indexes + offsets, lengths)
            at += indexes + offsets + lengths
            found.append((begin, begin + length if length else -1))  # no length: as far as the bytes go
        demand(at <= end, "places of items that do not fit into their box")
        yield item, (method, found)


def _read_properties(data: Buffer, start: int, end: int, items: _Items, parts: Iterator[int]) -> None:
    for kind, at, stop in boxes(data, start, end, parts):
        if kind == b"ipco":
            items.properties = list(boxes(data, at, stop, parts))
        elif kind == b"ipma":
            wide, long = (2 if data[at] == 0 else 4), data[at + 3] & 1
            entries, at = u32(data, at + 4), at + 8
            for _ in range(entries):
                next(parts)
                item, number, at = _number(data, at, wide), data[at + wide], at + wide + 1
                step = 2 if long else 1
                mask = 0x7FFF if long else 0x7F
                owned = [_number(data, at + step * n, step) & mask for n in range(number)]
                items.owned.setdefault(item, []).extend(owned)
                at += step * number
                demand(at <= stop, "properties that do not fit into their box")


def _number(data: Buffer, at: int, width: int) -> int:
    if at + width > len(data):
        raise IndexError("a number behind the end")
    return int.from_bytes(data[at : at + width], "big")


def _check_places(data: Buffer, items: _Items, payloads: list[Extent]) -> None:
    """Every item's bytes lie where coded data lie."""
    demand(items.handler == b"pict", "no handler of pictures")
    demand(items.primary in items.kinds, "no primary picture")
    demand(items.primary in items.places, "a primary picture that lies nowhere")
    for item, (method, extents) in items.places.items():
        demand(method in (0, 1, 2), "an item in no known place")
        if method == 2:  # made of another item's bytes, whose place is looked at itself
            continue
        fields, base = ([items.idat], items.idat[0]) if method == 1 else (payloads, 0)
        found = []
        for first, last in extents:
            begin, end = base + first, base + last
            if last < 0:
                end = next((stop for start, stop in fields if start <= begin < stop), -1)
            if method == 0 and (begin >= len(data) or end > len(data)):
                raise IndexError("an item that goes on behind the end")
            demand(any(start <= begin <= end <= stop for start, stop in fields), "an item outside of the coded data")
            found.append((begin, end))
        items.places[item] = (method, found)


def _check_coded(data: Buffer, items: _Items, parts: Iterator[int]) -> None:
    """The bytes of each coded picture are made of units of its codec, from the first to the last byte."""
    coded, room = 0, 2 * len(data)
    for item, kind in items.kinds.items():
        if kind not in (b"av01", b"hvc1") or item not in items.places:
            continue
        method, extents = items.places[item]
        if method == 2:
            continue
        room -= sum(end - begin for begin, end in extents)
        if room < 0:  # items that share their bytes, again and again
            raise TooManyParts
        if len(extents) == 1:
            content, (begin, end) = data, extents[0]
        else:
            content = b"".join(bytes(data[begin:end]) for begin, end in extents)
            begin, end = 0, len(content)
        try:
            if kind == b"av01":
                _walk_av1(content, begin, end, parts, has_header=items.primary != item)
            else:
                at = _property(items, item, b"hvcC", 23, "an HEVC picture without its configuration")
                _walk_hevc(content, begin, end, parts, (data[at + 21] & 3) + 1)
        except CUT as error:
            raise NotAPicture("coded data that break off") from error
        coded += 1
    demand(coded, "no coded picture")
    demand(any(end > begin for begin, end in items.places[items.primary][1]), "a picture of no bytes")


def _walk_av1(data: Buffer, at: int, end: int, parts: Iterator[int], *, has_header: bool) -> None:
    seen = set[int]()
    while at < end:
        next(parts)
        head = data[at]
        kind = head >> 3 & 15
        demand(not head & 0x81 and kind in _OBU_TYPES, "coded data that are not AV1")
        at += 2 if head & 4 else 1
        size, at = _leb128(data, at) if head & 2 else (end - at, at)
        at += size
        demand(at <= end, "a unit of AV1 that goes on behind its item")
        if size:
            seen.add(kind)
    demand(has_header or _SEQUENCE_HEADER in seen, "coded data without a sequence header")
    demand(_FRAME in seen or {_FRAME_HEADER, _TILE_GROUP} <= seen, "coded data without a frame")


def _leb128(data: Buffer, at: int) -> tuple[int, int]:
    """A number of AV1's own length, and where it ends."""
    value = 0
    for index in range(8):
        value |= (data[at + index] & 0x7F) << (7 * index)
        if not data[at + index] & 0x80:
            return value, at + index + 1
    raise NotAPicture("coded data that are not AV1")


def _walk_hevc(data: Buffer, at: int, end: int, parts: Iterator[int], width: int) -> None:
    slices = 0
    while at < end:
        next(parts)
        size, at = _number(data, at, width), at + width
        demand(size > 2 and at + size <= end, "a unit of HEVC that goes on behind its item")
        demand(not data[at] & 0x80, "coded data that are not HEVC")
        slices += data[at] >> 1 <= _LAST_SLICE
        at += size
    demand(slices, "coded data without a part of a picture")


def _property(items: _Items, item: int, wanted: bytes, least: int, missing: str) -> int:
    """Returns the place of an item's first property of a kind, `least` bytes long. Raises NotAPicture without one."""
    for number in items.owned.get(item, ()):
        if 0 < number <= len(items.properties):
            kind, at, end = items.properties[number - 1]
            if kind == wanted and end - at >= least:
                return at
    raise NotAPicture(missing)


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
    start, level = bytes(data[: 2 + _LONGEST_SIZE]), _USUAL_LEVEL
    if start[:2] != _START:
        start, level = _start_of_codestream(data)
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
    is_usual = max(width, height) <= _MOST_SIDE and width * height <= _MOST_PIXELS
    demand(is_usual or level > _USUAL_LEVEL, "a larger picture than its level has")
    return width, height


def _side(bits: _Bits, small: int) -> int:
    return 8 * (bits.take(5) + 1) if small else 1 + bits.take(_SIDE_BITS[bits.take(2)])


def _start_of_codestream(data: Buffer) -> tuple[bytes, int]:
    """The first bytes of the codestream in the boxes, once all of its boxes are seen to be there, and its level."""
    pieces: list[tuple[int, int]] = []
    level = _USUAL_LEVEL
    for kind, at, end in boxes(data, 0, len(data), parts_of(data)):
        if kind == b"jxll" and end > at:
            level = data[at]
        if kind == b"jxlc" and not pieces:
            return bytes(data[at : min(end, at + 2 + _LONGEST_SIZE)]), level
        if kind == b"jxlp":
            number = u32(data, at)
            demand(number & 0x7FFF_FFFF == len(pieces), "parts of the codestream out of order")
            pieces.append((at + 4, end))
            if number >> 31:  # the last part
                starts = (bytes(data[at : min(end, at + 2 + _LONGEST_SIZE)]) for at, end in pieces)
                return b"".join(starts)[: 2 + _LONGEST_SIZE], level
    raise IndexError("no end of the codestream")
