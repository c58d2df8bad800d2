"""The frames and pages of a picture, one at a time: all that its bytes hold, whatever its metadata say of their number.

A JPEG may have further ones behind it (MPO, gain maps, previews), whose list is often stale after an edit: they are
found by their markers. An animated PNG holds as many frames as it has control chunks, and an AVIF file with a track is
a sequence under whatever brand. The others are counted by their decoder, which walks over them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lib.images.colours import ColourSpace, colours_of
from lib.images.decode import (
    MAX_FRAMES,
    MOST_FRAME_PIXELS,
    DecodeError,
    Header,
    Read,
    codec_boundary,
    file_of,
    header_of,
    opened,
    reader_of,
)
from lib.images.formats import MOST_PARTS
from lib.images.structure import gif_extent, most_chunks, png_chunks

_BLOCK = 1 << 20  # bytes searched at once
_START = b"\xff\xd8\xff"
_MOST_SEGMENTS = 5_000  # before the first scan of a JPEG; a profile of 4 MB takes 64
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of frames
_MOST_BOXES = 1000  # of the outermost of an AVIF file; there are three to six
_LARGEST_REPAIRED = 256 << 20  # bytes of a file that is read into memory to set its number of frames right
_SHORTEST, _USUAL = 10, 100  # milliseconds: a frame that asks for no more than the one is shown for the other

Extent = tuple[int, int]


class Frame(NamedTuple):
    """One frame or page: the picture at it, valid until the next one is asked for, its EXIF turn and its colours."""

    image: Image.Image
    orientation: int
    colours: ColourSpace

    @property
    def duration(self) -> float:
        """Milliseconds for which a loaded frame is shown, as browsers count them; 0 where it is no animation."""
        given = self.image.info.get("duration")
        if not isinstance(given, int | float):
            return 0.0
        return float(given) if given > _SHORTEST else float(_USUAL)


@dataclass
class Frames:
    """An opened picture with all its frames.

    image    at its first frame, not decoded yet
    colours  what the numbers of its first frame stand for
    count    how many frames there are
    pages    the pixels of each page of a TIFF that was asked for
    parts    where in the file the pictures lie, from and to, where it is a JPEG with others behind it
    """

    image: Image.Image
    header: Header
    colours: ColourSpace
    count: int
    read: Read
    parts: tuple[Extent, ...] = ()
    pages: dict[int, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Frame]:
        """Gives every frame in its order, one at a time. Raises DecodeError."""
        for number in range(self.count):
            with self.at(number) as frame:
                yield frame

    @contextmanager
    def at(self, number: int) -> Iterator[Frame]:
        """Opens one frame; a picture of several JPEGs anew each time. Raises DecodeError."""
        if self.parts:
            start, end = self.parts[number]
            with opened(self.read(start, end - start), ("JPEG", "MPO")) as image:
                yield Frame(image, header_of(image).orientation, colours_of(image, self.read, 0))
            return
        colours = self.colours
        if number:
            with codec_boundary():
                self.image.seek(number)
            if self.header.format == "tiff":  # each page has a header of its own
                self._count_page(number)
                colours = colours_of(self.image, self.read, 0)
        yield Frame(self.image, self.header.orientation, colours)

    def _count_page(self, number: int) -> None:
        """Raises DecodeError where the pages asked for so far are too many pixels: the first may be a small one."""
        self.pages[number] = self.image.width * self.image.height
        if sum(self.pages.values()) > MOST_FRAME_PIXELS:
            raise DecodeError("too_many_frames", f"{number + 1} pages are already too many pixels")


@contextmanager
def opened_frames(source: Path | bytes, formats: tuple[str, ...] | None = None) -> Iterator[Frames]:
    """Opens a picture with all its frames; `formats` as in `opened`. Raises DecodeError."""
    with _reading(source) as (read, size):
        repaired = _repaired(read, size)
        with opened(source if repaired is None else repaired, formats) as image:
            header = header_of(image)
            if header.format == "jpeg":
                parts = tuple(_jpegs(read, size))
                count = max(1, len(parts))
            else:
                parts, count = (), _counted(image)
            if count > MAX_FRAMES:
                raise DecodeError("too_many_frames", str(count))
            if count > 1:
                _demand_little_work(image, count, parts, read, size)
            yield Frames(image, header, colours_of(image, read, size), count, read, parts)


def _demand_little_work(image: Image.Image, count: int, parts: tuple[Extent, ...], read: Read, size: int) -> None:
    """Raises DecodeError for frames that are together too many pixels: each may cost as much as all of the canvas."""
    width, height = image.size
    if image.format == "GIF":  # its canvas grows with what is drawn
        with codec_boundary():
            width, height, _ = gif_extent(read(0, size))
    # What lies behind a JPEG, a gain map or a preview, is mostly smaller.
    pixels = sum(_pixels_of_jpeg(read, start) for start, _ in parts) if parts else width * height * count
    if pixels > MOST_FRAME_PIXELS:
        raise DecodeError("too_many_frames", f"{count} of {width}x{height}")


def _pixels_of_jpeg(read: Read, start: int) -> int:
    """The number of pixels that the JPEG which begins there has by its header."""
    for at, marker in _segments(read, start):
        if marker in _FRAMES:
            sides = read(at + 5, 4)
            return int.from_bytes(sides[:2]) * int.from_bytes(sides[2:])
    return 0


def _counted(image: Image.Image) -> int:
    with codec_boundary():
        return max(1, int(getattr(image, "n_frames", 1)))


@contextmanager
def _reading(source: Path | bytes) -> Iterator[tuple[Read, int]]:
    """Opens what is read beside the decoder, and gives its size too. Raises DecodeError."""
    with file_of(source) as file:
        anywhere, size = reader_of(file)

        def read(at: int, count: int) -> bytes:
            with codec_boundary():
                return anywhere(at, count)

        yield read, size


def _repaired(read: Read, size: int) -> bytes | None:
    """The bytes of a picture whose number of frames is not the one that it names, set right; None for all others."""
    head = read(0, 12)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _repaired_png(read, size)
    if head[4:8] == b"ftyp" and head[8:12] == b"avif" and _has_track(read, size):
        return head[:8] + b"avis" + _rest(read, 12, size)
    return None


def _rest(read: Read, at: int, size: int) -> bytes:
    if size > _LARGEST_REPAIRED:
        raise DecodeError("too_large", f"{size} bytes, and a number of frames that is not the one it names")
    return read(at, size - at)


def _repaired_png(read: Read, size: int) -> bytes | None:
    """An animation names the number of its frames, and whoever trusts a wrong one passes over frames that are there."""
    told, held, place, kind = -1, 0, 0, b""
    for kind, at, _ in png_chunks(read, most_chunks(size)):
        if kind == b"fcTL":
            held += 1
        elif kind == b"acTL" and told < 0:
            place, told = at - 8, int.from_bytes(read(at, 4))
    if kind != b"IEND" or not held or told == held:
        return None
    control = b"acTL" + struct.pack(">II", held, 0)
    control = struct.pack(">I", 8) + control + struct.pack(">I", zlib.crc32(control))
    data, first = _rest(read, 0, size), 8 + 25  # behind the signature and the header
    rest = data[first:place] + data[place + 20 :] if told >= 0 else data[first:]
    return data[:first] + control + rest


def _has_track(read: Read, size: int) -> bool:
    at = 0
    for _ in range(_MOST_BOXES):
        head = read(at, 16)
        if len(head) < 8 or head[4:8] == b"moov":
            return len(head) >= 8
        length = int.from_bytes(head[:4])
        length = int.from_bytes(head[8:16]) if length == 1 else length
        if length < 8:
            return False
        at += length
    return False


def _jpegs(read: Read, size: int) -> Iterator[Extent]:
    """Gives the places of a JPEG and of those behind it; none where it is alone."""
    starts = [0]
    scan = _scan_of_jpeg(read, 0)
    if scan < 0:
        return
    for place in _places(read, scan, size):
        if place > scan and (found := _scan_of_jpeg(read, place)) > 0:
            starts.append(place)
            scan = found
            if len(starts) > MAX_FRAMES:
                raise DecodeError("too_many_frames", f"more than {MAX_FRAMES}")
    if len(starts) > 1:
        yield from pairwise([*starts, size])


def _places(read: Read, start: int, size: int) -> Iterator[int]:
    """Places behind a JPEG's first scan that begin like another JPEG: coded pixels hold none, a film may by chance."""
    candidates = 0
    for begin in range(start, size, _BLOCK):
        block = read(begin, _BLOCK + len(_START) - 1)
        at = block.find(_START)
        while at >= 0:
            candidates += 1
            if candidates > MOST_PARTS:
                raise DecodeError("too_many_parts", "more beginnings of pictures than there can be")
            yield begin + at
            at = block.find(_START, at + 1)


def _scan_of_jpeg(read: Read, start: int) -> int:
    """The place of the first scan of the JPEG that begins there; -1 where none does."""
    has_frame = False
    for at, marker in _segments(read, start):
        if marker == 0xDA:
            return at if has_frame else -1
        has_frame |= marker in _FRAMES
    return -1


def _segments(read: Read, start: int) -> Iterator[tuple[int, int]]:
    """Gives (place, marker) of the segments of the JPEG that begins there, to its first scan or what is none."""
    at = start + 2
    for _ in range(_MOST_SEGMENTS):
        head = read(at, 4)
        if len(head) < 4 or head[0] != 0xFF or (head[1] < 0xC0 and head[1] != 0x01):
            return
        marker = head[1]
        yield at, marker
        if marker == 0xDA:
            return
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(head[2:4]))
