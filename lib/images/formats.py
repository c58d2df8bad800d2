"""The format of a body, told from its bytes alone.

A server's Content-Type and a name's suffix are claims; the first bytes decide. Pure: from the bytes (or a memory map of
a large file) to a `Format` or a short reason. With it the limits on walks over the parts of a picture, and what
this build of Pillow has for a format.
"""

from __future__ import annotations

import ctypes
import html
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from mmap import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from PIL import Image

Buffer = bytes | mmap

HEAD_BYTES = 512  # what `sniff` and `refusal` look at
NOT_AN_IMAGE = "not_an_image"
SVG_REFUSED = "svg_refused"

# Blocks, chunks, segments or pages of one picture, on top of one for every so many bytes. Whatever reads a header walks
# over them, at several microseconds each and worse: millions of tiny ones would hold it for minutes. A sound GIF has
# one for every 256 bytes.
MOST_PARTS = 20_000
BYTES_A_PART = 100

# How reading behind the last byte ends: something is missing there.
CUT = (struct.error, IndexError, OverflowError)

# Coded pixels look like chance: among so many bytes, as many different ones, there is one that no text holds.
_LOOKED_AT = 128
_LEAST = 48
_DIFFERENT = 16
_TEXT = frozenset(range(32, 127)) | {9, 10, 13}


@dataclass(frozen=True)
class Format:
    """A picture format by its short name, the extension its files get, and the media types servers may claim."""

    name: str
    extension: str
    mime: tuple[str, ...]


JPEG = Format("jpeg", "jpg", ("image/jpeg", "image/jpg", "image/pjpeg"))
PNG = Format("png", "png", ("image/png", "image/apng", "image/x-png"))
WEBP = Format("webp", "webp", ("image/webp",))
GIF = Format("gif", "gif", ("image/gif",))
BMP = Format("bmp", "bmp", ("image/bmp", "image/x-ms-bmp", "image/x-bmp"))
TIFF = Format("tiff", "tif", ("image/tiff",))
AVIF = Format("avif", "avif", ("image/avif", "image/avif-sequence"))
HEIC = Format("heic", "heic", ("image/heic", "image/heif", "image/heic-sequence"))
JP2 = Format("jpeg2000", "jp2", ("image/jp2", "image/jpx", "image/jpeg2000"))
J2K = Format("jpeg2000", "j2k", ("image/j2k", "image/x-j2k", "image/j2c", "image/jp2"))
JXL = Format("jxl", "jxl", ("image/jxl",))
ICO = Format("ico", "ico", ("image/x-icon", "image/vnd.microsoft.icon"))

_PREFIXES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JP2),
    (b"\xff\x4f\xff\x51", J2K),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JXL),
    (b"\xff\x0a", JXL),
)
_AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths of the headers that follow the file header


def sniff(head: Buffer) -> Format | None:
    """The format that the first bytes show; None where they are no picture that we know."""
    start = bytes(head[:64])
    for prefix, found in _PREFIXES:
        if start.startswith(prefix):
            return found
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return WEBP
    if start[:2] == b"BM" and len(start) >= 18 and struct.unpack_from("<I", start, 14)[0] in _BMP_HEADERS:
        return BMP
    if start[4:8] == b"ftyp":  # films in the same container have other brands
        brands = {start[8:12], *(start[i : i + 4] for i in range(16, min(len(start), u32(start, 0)), 4))}
        if brands & _AVIF_BRANDS:
            return AVIF
        return HEIC if brands & HEIC_BRANDS else None
    return ICO if _is_icon(start) else None


def _is_icon(start: bytes) -> bool:
    # Four bytes are a weak signature, so the first entry has to make sense as well.
    if start[:4] not in (b"\0\0\1\0", b"\0\0\2\0") or len(start) < 22:
        return False
    count, reserved = struct.unpack_from("<H", start, 4)[0], start[9]
    size, offset = struct.unpack_from("<II", start, 14)
    return 0 < count < 256 and reserved == 0 and size > 0 and offset >= 6 + 16 * count


# The plug-in of Pillow's that reads a format, and no other is ever asked: whatever else it registers takes part in no
# decode, least of all what hands a file to another program (EPS) or only names a format (BUFR, GRIB, HDF5, WMF).
_PLUGINS = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "avif": "AVIF",
    "heic": "HEIF", "jpeg2000": "JPEG2000", "jxl": "JXL", "ico": "ICO",
}  # fmt: skip
# What may be decoded in the main process: formats whose codecs are used everywhere and attacked every day. A file in
# any other is left to worker processes, which may die of it.
TRUSTED = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP")

# Pictures that nothing here reads: told apart from what is no picture at all.
_UNREAD: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "Photoshop"), (b"qoif", "QOI"), (b"DDS ", "DirectDraw"), (b"icns", "an icon of macOS"),
    (b"\x01\xda", "SGI"), (b"\x76\x2f\x31\x01", "OpenEXR"), (b"#?RADIANCE", "Radiance"), (b"II\xbc", "JPEG XR"),
    (b"FUJIFILMCCD-RAW", "a raw photograph"), (b"IIU\0", "a raw photograph"), (b"gimp xcf", "GIMP"),
    (b"/* XPM */", "XPM"), (b"FORM", "IFF"), (b"\x59\xa6\x6a\x95", "Sun raster"),
)  # fmt: skip
UNSUPPORTED = "unsupported_format"


def plugin_of(head: Buffer) -> tuple[str, str, str]:
    """(Pillow's name of the format, "", "") by the first bytes, or ("", reason, detail) for what is not decoded here.

    Wider than `sniff`: it also knows formats that nobody sends over the web but that lie on disks.
    """
    if found := sniff(head):
        return "CUR" if found is ICO and head[2] == 2 else _PLUGINS[found.name], "", ""
    start = bytes(head[:32])
    if re.match(rb"P[1-6f]\s", start) or start[:3] in (b"PF\n", b"Pf\n"):
        return "PPM", "", ""
    if _is_pcx(start):
        return "PCX", "", ""
    if len(start) >= 16 and u32le(start, 0) in _BMP_HEADERS and start[12:14] == b"\1\0" and start[14] in _BMP_BITS:
        return "DIB", "", ""
    for prefix, name in _UNREAD:
        if start.startswith(prefix):
            return "", UNSUPPORTED, name
    if start[4:8] == b"ftyp" and start[8:11] == b"crx":
        return "", UNSUPPORTED, "a raw photograph"
    return ("TGA", "", "") if _is_tga(start) else ("", *refusal(head))


_BMP_BITS = (1, 2, 4, 8, 16, 24, 32)


def _is_pcx(start: bytes) -> bool:
    if len(start) < 12 or start[0] != 10:
        return False
    return start[1] in (0, 2, 3, 4, 5) and start[2] == 1 and start[3] in (1, 2, 4, 8)


def _is_tga(start: bytes) -> bool:
    """True for a header that makes sense in every field: the format has no signature at its beginning."""
    if len(start) < 18:
        return False
    table, kind, depth, flags = start[1], start[2], start[16], start[17]
    if table > 1 or kind not in (1, 2, 3, 9, 10, 11) or (kind in (1, 9)) != (table == 1) or flags & 0xC0:
        return False
    described = start[7] in (15, 16, 24, 32) if table else not any(start[3:8])
    return described and depth in (8, 15, 16, 24, 32) and any(start[12:14]) and any(start[14:16])


def refusal(head: Buffer) -> tuple[str, str]:
    """(reason, detail) for a body that does not begin like a picture; ("", "") when it does.

    SVG is a document that can carry scripts and load addresses, so it is refused under a reason of its own.
    """
    if sniff(head) is not None:
        return "", ""
    text = bytes(head[:HEAD_BYTES]).lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = text.lower()
    if lower.startswith(b"<svg") or (lower.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in lower):
        return SVG_REFUSED, "an SVG document"
    return NOT_AN_IMAGE, _kind_of_document(text, lower)


def _kind_of_document(text: bytes, lower: bytes) -> str:
    if lower.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")) or b"<html" in lower:
        title = re.search(rb"<title[^>]*>([^<]{1,80})", text, re.IGNORECASE)
        return f"a web page: {html.unescape(title[1].decode('utf-8', 'replace')).strip()}" if title else "a web page"
    for prefixes, kind in (
        ((b"{", b"["), "JSON"),
        ((b"<?xml",), "XML"),
        ((b"%pdf",), "a PDF document"),
        ((b"\x1f\x8b",), "gzip data"),
        ((b"pk\x03\x04",), "a ZIP archive"),
    ):
        if lower.startswith(prefixes):
            return kind
    if text[4:8] == b"ftyp":
        return "a film"
    return "text" if text and all(31 < byte < 127 or byte in (9, 10, 13) for byte in text[:64]) else "unknown data"


def mime_mismatch(content_type: str, found: Format) -> bool:
    """True where the server claimed another picture format; a general or missing type is no claim."""
    claimed = content_type.partition(";")[0].strip().lower()
    return claimed.startswith("image/") and claimed not in found.mime and claimed != "image/*"


def u32(data: Buffer, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def u32le(data: Buffer, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


class TooManyParts(Exception):
    """The picture is made of more parts than one of its size needs."""


class NotAPicture(Exception):
    """Behind the first bytes stands what no picture of this format holds; the text says what."""


def parts_of(data: Buffer) -> Iterator[int]:
    """A number for every part that the picture may have; raises TooManyParts after the last."""
    yield from range(MOST_PARTS + len(data) // BYTES_A_PART)
    raise TooManyParts


def demand(condition: object, what: str) -> None:
    """Raises NotAPicture where a condition does not hold."""
    if not condition:
        raise NotAPicture(what)


def demand_coded(data: Buffer, at: int, end: int) -> None:
    """Raises NotAPicture where text stands in the place of coded pixels."""
    for begin in (at, at + 32):  # a few bytes of a header may come before it
        found = bytes(data[begin : min(end, begin + _LOOKED_AT)])
        values = set(found)
        text = len(found) >= _LEAST and len(values) >= _DIFFERENT and values <= _TEXT
        demand(not text, "text in the place of pixels")


# Bytes a pixel that Pillow keeps; all other modes take four, three colours too.
_KEPT = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Bytes a pixel that the decoder holds beside Pillow's own, as measured: planes, canvases, what it hands over.
_HELD = {"WEBP": 12.0, "AVIF": 8.0, "HEIF": 8.0, "JXL": 12.0, "JPEG2000": 18.0, "TIFF": 4.0}
_HELD_ANIMATED = 12.0  # of a PNG: the canvas, the one before and the part that is drawn


def bytes_a_pixel(image: Image.Image, *, clear: bool, animated: bool, scans: bool) -> float:
    """The bytes a pixel that a picture takes while it is decoded and made RGB, by what its header says.

    A conversion lies beside what it is made from: RGB is four bytes a pixel in memory, and what is transparent
    becomes RGBA, RGB and a mask; a palette too becomes RGBA, twice. Greys are reduced before they become RGB. A JPEG is
    decoded at a reduced scale wherever more than its pixels is made of it; one of several `scans` holds every
    coefficient, of two bytes.
    """
    kept = _KEPT.get(image.mode, 4)
    if image.format in ("JPEG", "MPO"):
        layers = [across * down for _, across, down, _ in getattr(image, "layer", ())] or [1]
        coefficients = 2 * sum(layers) / max(1, *layers) if scans else 0
        return coefficients + (8 if image.mode == "CMYK" else kept if scans else 0.75 * kept)
    if image.mode in ("L", "RGB") and not clear:
        made = 0
    elif clear:
        made = 5 if image.mode == "RGBA" else 9
    else:
        made = 9 if kept == 2 or image.mode in ("I", "F") else 8 if image.mode == "P" else 4
    return kept + made + _HELD.get(image.format or "", 0.0) + _HELD_ANIMATED * animated


_TILE_SIDES = (322, 323)  # tags of a TIFF


def decoded_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of what is decoded of an opened picture: whole tiles, however little of one it shows."""
    if image.format != "TIFF":
        return image.size
    width, height = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE_SIDES)
    across, down = (side if isinstance(side, int) else 0 for side in (width, height))
    return max(image.width, across), max(image.height, down)


# Greys and colours in plain text or of an unusual depth (PPM), and run-length BMP.
_SLOW = frozenset({"ppm", "ppm_plain", "bmp_rle"})


def slow_samples(image: Image.Image) -> int:
    """Samples a pixel that Pillow decodes one by one in a loop of Python's; 0 where a codec does all at once."""
    slow = any(tile.codec_name in _SLOW for tile in getattr(image, "tile", ()))
    return len(image.getbands()) if slow else 0


def spare_deep_colours(image: Any) -> None:
    """Lets a PPM of 16 bits be read at once: Pillow has a decoder for such rows and scales each sample in a loop."""
    tiles: list[Any] = getattr(image, "tile", [])
    if image.format == "PPM" and len(tiles) == 1 and tiles[0].codec_name == "ppm" and tiles[0].args == ("RGB", 65535):
        image.tile = [tiles[0]._replace(codec_name="raw", args="RGB;16B")]


@lru_cache(maxsize=1)
def silence_libtiff() -> None:
    """Keeps libtiff from writing to the terminal, which it does by itself, a line for each tag and naming no file."""
    with suppress(OSError, AttributeError):  # a build that holds libtiff within has no name for it
        library = ctypes.CDLL(import_module("PIL._imaging").__file__)
        library.TIFFSetWarningHandler(None)
        library.TIFFSetErrorHandler(None)


def has_scans(image: Image.Image, read: Callable[[int, int], bytes], place: int) -> bool:
    """True for a JPEG whose colours do not come in one scan; `place` is where Pillow stops, behind the first's head."""
    if image.format != "JPEG" or "progression" in image.info:
        return image.format in ("JPEG", "MPO") and "progression" in image.info
    layers = len(getattr(image, "layer", ()))
    head = read(max(0, place - 6 - 2 * layers), 3)
    return layers > 1 and head != struct.pack(">HB", 6 + 2 * layers, layers)


def is_built_in(part: str) -> bool:
    """True where Pillow was built with a part. Raises ImportError where it was, and the part does not load."""
    from PIL import features

    if module := features.modules.get(part):
        try:
            import_module(module[0])
        except ModuleNotFoundError:
            return False
    return bool(features.check(part))
