"""The structure of AVIF and HEIC files: items, where their bytes lie, and whether these can be coded pictures.

ISO/IEC 14496-12 (boxes), 23008-12 (items and their properties), the AV1 specification and ISO/IEC 14496-15 (what the
bytes of an item are made of).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lib.images.formats import Buffer, u32
from lib.images.parts import CUT, NotAPicture, TooManyParts, boxes, demand, parts_of

_SEQUENCE_HEADER, _FRAME_HEADER, _TILE_GROUP, _FRAME = 1, 3, 4, 6
_OBU_TYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 15})
_LAST_SLICE = 31  # of the types of HEVC's units that hold parts of a picture

Extent = tuple[int, int]  # from, to
ItemPlace = tuple[int, list[Extent]]  # construction method, extents


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
    return _size(data, items)


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
                _walk_hevc(content, begin, end, parts, _length_size(data, items, item))
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


def _length_size(data: Buffer, items: _Items, item: int) -> int:
    for number in items.owned.get(item, ()):
        if 0 < number <= len(items.properties):
            kind, at, end = items.properties[number - 1]
            if kind == b"hvcC" and end - at >= 23:
                return (data[at + 21] & 3) + 1
    raise NotAPicture("an HEVC picture without its configuration")


def _size(data: Buffer, items: _Items) -> tuple[int, int]:
    for number in items.owned.get(items.primary, ()):
        if 0 < number <= len(items.properties):
            kind, at, end = items.properties[number - 1]
            if kind == b"ispe" and end - at >= 12:
                width, height = u32(data, at + 4), u32(data, at + 8)
                demand(width and height, "a picture of no size")
                return width, height
    raise NotAPicture("a picture without a size")
