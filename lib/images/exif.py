"""A picture's EXIF block, read without decoding the picture."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
# Bounds of a walk over a PNG: one chunk costs a microsecond, and encoders write 8 kB and more into each.
MOST_CHUNKS = 20_000
BYTES_A_CHUNK = 1000
LONGEST = 1 << 20  # bytes of one block, packed or not; EXIF of cameras has 64 kB at most

_PROFILE = "Raw profile type exif"
_XMP = "XML:com.adobe.xmp"

Read = Callable[[int, int], bytes]  # (bytes from a place, how many)


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF block of an opened picture, with the orientation that its XMP names where EXIF has none.

    An empty one where it is broken: that is no reason to lose a picture whose pixels may be fine. Pillow decodes a
    whole PNG in search of what may stand behind its pixels; here the chunks are passed over.
    """
    try:
        return image.getexif() if image.format != "PNG" or "exif" in image.info else _exif_of_png(image)
    except Exception:  # Pillow raises whatever its parser met
        return Image.Exif()


def _exif_of_png(image: Image.Image) -> Image.Exif:
    bearer = Image.new("1", (1, 1))
    bearer.info.update({name: image.info[name] for name in (_PROFILE, _XMP, "xmp") if name in image.info})
    file = getattr(image, "fp", None)
    if file is not None:
        for name, value in _png_notes(*_reader(file)):
            bearer.info[name] = value
    return bearer.getexif()


def orientation_of(image: Image.Image, exif: Image.Exif) -> int:
    """The turn that makes a picture upright, 1 to 8 as EXIF counts."""
    if image.format == "TIFF":  # Pillow turns it by itself, the size that it reports included
        return 1
    found = exif.get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) as a viewer shows a picture of this size."""
    return (size[1], size[0]) if orientation >= 5 else size


def _reader(file: Any) -> tuple[Read, int]:
    """Reads anywhere in an open file and leaves its own place as it is; the file's size."""
    try:
        number = file.fileno()
    except (AttributeError, OSError):
        number = -1
    if number >= 0 and hasattr(os, "pread"):
        return lambda at, count: os.pread(number, count, at), os.fstat(number).st_size
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        found: bytes = file.read(count)
        file.seek(place)
        return found

    return read, size


def _png_notes(read: Read, size: int) -> Iterator[tuple[str, Any]]:
    """EXIF, a profile of it in text, and XMP, under the names that Pillow gives them."""
    at = 8
    for _ in range(MOST_CHUNKS + size // BYTES_A_CHUNK):
        head = read(at, 8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and length <= LONGEST:
            content = read(at + 8, length)
            if kind == b"eXIf":
                yield "exif", b"Exif\0\0" + content
            elif note := _text(kind, content):
                yield note
        at += 12 + length


def _text(kind: bytes, content: bytes) -> tuple[str, str] | None:
    """(keyword, text) of a chunk that may tell an orientation."""
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if name not in (_PROFILE, _XMP):
        return None
    packed = kind == b"zTXt"
    if kind == b"zTXt":
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
