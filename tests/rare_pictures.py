"""Pictures in the rarer formats, and what only looks like one: HTML, zeros and nothing behind every picture's head."""

from __future__ import annotations

import base64
import io
import struct
import zlib

from PIL import Image

# Made with libjxl 0.11: a bare codestream, one that loses detail, boxes with alpha, sections in another order (as in
# every picture above 2048 pixels), a colour profile, and a JPEG packed so that it can be had back.
JXL: dict[str, tuple[tuple[int, int], bytes]] = {
    "bare": (
        (9, 7),
        base64.b64decode("/wowMBAJCAQBAFwASxiLFQDUF2OM8S7eAUSGYRxVDq2PUwE="),
    ),
    "lossy": (
        (40, 24),
        base64.b64decode(
            "/woFyAAUSAD0ADF1FACACpVRxg1ezvV8+aHDYtrGdYa22rawhLHZXhgkJJwg3kZHmmcEAPYFGICCYwEAGsaSJoUWAACVJAA="
        ),
    ),
    "boxed": (
        (9, 7),
        base64.b64decode(
            "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAwanhsY/8KMDCwEggAEABwAEsYixUA1Igx3jFGHkBdmHkM4LxGUWNxANlI5Q8="
        ),
    ),
    "order": (
        (2100, 8),
        base64.b64decode(
            "/wo4gGbQABSIBpTjkwbCJDTggBs0QANEQANEQAMUQARcQAGwAelfFgCACpVRxg1ezvV8+aHDYtrGdYa22rYQAAAAAAAAAAAAAAAAAAAAAAAAAA"
            "AAAAAAAAAAAAAAiSSRIIGBQxBMkyBhFhIYY9DFYHH0f8Q1wIzijECm+ga1yDgQb/eBG5o5oB4kEEP2HIokEUrBJHDk3d3xeBcj+ZSyA0Awkg5f"
            "0ynWzJupBD8On2sGpgn9UNL2/ACIGP3QoDTpDuII/BgooogBeA30gBkA+MqWj8E60PQBEKhiAqCAgKAqwEB3ATrGe71YZ0WQjUzpfspzgRsAsN"
            "loAiCggICwINDAAbRaB/Y8WizHay0OH3XQEIoBwEpnAiCggICyIMCgAJDXJggA+MAkxAjnh2xV89tHTwGgPwGJJFEsWEjCRJIIpZDEMTJvEoKf"
            "50oGAAEAJgAA4wggoQQ3Rp7WzH0/AwBFcPwDWAqABigRsEZWAhjEhqISMxMHgE1evF79eFukXReg+QEA8LOG1iZ5viNazo0FAmhl0AIAByCyDL"
            "dlBFixVG0e3YIujqp8hFXWlpGgmiU+O5MgQQJlY2NGSf4/"
        ),
    ),
    "profile": (
        (9, 7),
        base64.b64decode("/wowsAEAFEgAxAABeRQAgAqVUcYNXs71fPmhw2LaxnWGttq2sISx2V4YJCScIPNGxd88uGMaMdSBShIA"),
    ),
    "jpeg": (
        (9, 7),
        base64.b64decode(
            "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAASanhscAAAAAD/CjAwEAkAAABMamJyZMBtAwiCILQMCIBQo0ASAAAAAPF/IgAAAA"
            "D4X0kAAAAA1P+LAAAAAOB/gR8AqCwACwiA4AAQSkZJRgABAQAAAQABAAADAAAAxWp4bHCAAAAB4FsCEADIAg5+jH0Ofv7/DgAAGAAIAAEAAAAA"
            "AICAJYkVEHdzPQQAAJTJWtwbQKEwIwWF2UhrJGOMkbExxsjIyBhJMSQyAwCvJRuA+gHcAQNwAojp6n0KQKwCHLfOOhyApRFinnQCZnPsxoC3cE"
            "W8L3L1bSqMTi7VBYnCDKAK9CyDQslpOw5DdHJWXZgU8jilf0W5VwiF7+orEFfL10AQ9wLg85PZjTHcmUP7jswAqsAMAAAAAABASQI="
        ),
    ),
}

PAGE = (
    b"<!doctype html><html><head><title>Gone</title></head><body>404 this picture was removed"
    b"<script>alert(1)</script></body></html>"
)


def made(form: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: object) -> bytes:
    """A noisy picture that Pillow writes."""
    file = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(file, form, **options)
    return file.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))


_AVIF = box(b"ftyp", b"avif\0\0\0\0avifmif1")
_ISPE = box(b"ispe", bytes(4) + struct.pack(">II", 640, 480))
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
_IHDR = struct.pack(">IIHBBBB", 48, 64, 3, 7, 7, 0, 0)
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")
_SIZ = struct.pack(">HHH8IH", 0xFF51, 41, 0, 64, 48, 0, 0, 64, 48, 0, 0, 1) + b"\x07\1\1"
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))

# Each head is what makes a body pass for a picture at first sight.
HEADS: dict[str, bytes] = {
    "jpeg": b"\xff\xd8\xff",
    "jpeg with a segment": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    "png": _PNG,
    "png with a header": _PNG + _HEADER,
    "gif87": b"GIF87a",
    "gif89 with a screen": b"GIF89a\x40\0\x30\0\0\0\0",
    "tiff": b"II*\0",
    "tiff of the other order": b"MM\0*",
    "big tiff": b"II+\0",
    "webp": b"RIFF\xff\0\0\0WEBP",
    "bmp": b"BM" + struct.pack("<IHHII", 0, 0, 0, 54, 40),
    "ico": struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 48, 0, 0, 1, 32, 90, 22),
    "avif": _AVIF,
    "avif, cut in a box": _AVIF + b"\0\0\1\0meta",
    "heic": box(b"ftyp", b"heic\0\0\0\0heicmif1"),
    "mif1": box(b"ftyp", b"mif1\0\0\0\0heicmif1"),
    "jp2": _JP2,
    "j2k": b"\xff\x4f\xff\x51",
    "j2k with a size": b"\xff\x4f" + _SIZ,
    "bare jxl": b"\xff\x0a",
    "jxl": _JXL,
}


def _avif(payload: bytes, *, at: int = 0, length: int = 0, primary: bytes = b"av01") -> bytes:
    """An AVIF whose description is in order, with anything at all as its picture."""

    def described(begin: int) -> bytes:
        entry = struct.pack(">HHHII", 1, 0, 1, max(0, begin + at), length or len(payload))
        item = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, primary) + b"\0")
        return box(
            b"meta",
            bytes(4)
            + box(b"hdlr", bytes(8) + b"pict" + bytes(13))
            + box(b"pitm", bytes(4) + b"\0\1")
            + box(b"iloc", bytes(4) + b"\x44\0\0\1" + entry)
            + box(b"iinf", bytes(4) + b"\0\1" + item)
            + box(b"iprp", box(b"ipco", _ISPE) + box(b"ipma", bytes(4) + struct.pack(">IHBB", 1, 1, 1, 1))),
        )

    begin = len(_AVIF) + len(described(0)) + 8
    return _AVIF + described(begin) + box(b"mdat", payload)


def _tiled(data: bytes, length: int | None = None) -> bytes:
    """A codestream whose headers are in order, with anything at all as its tile."""
    head = b"\xff\x4f" + _SIZ + bytes.fromhex("ff52000c00000001000104040001ff5c000740404848")
    tile = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(data) if length is None else length, 0, 1)
    return head + tile + b"\xff\x93" + data + b"\xff\xd9"


_VP8 = b"\x10\x20\0\x9d\x01\x2a\x40\0\x30\0"

FAKES: dict[str, bytes] = {
    "bare jxl of two bytes": b"\xff\x0a",
    "j2k that ends at once": b"\xff\x4f\xff\x51" + PAGE + b"\xff\xd9",
    "jp2 around a page": _JP2 + box(b"jp2h", b"") + box(b"jp2c", PAGE),
    "jp2 with a header around a page": _JP2 + box(b"jp2h", box(b"ihdr", _IHDR)) + box(b"jp2c", PAGE),
    "jp2 with a header around zeros": _JP2 + box(b"jp2h", box(b"ihdr", _IHDR)) + box(b"jp2c", bytes(500)),
    "j2k, its tile a lie": _tiled(PAGE, 10_000),
    "j2k, its tile too short": _tiled(PAGE, 12),
    "j2k without a tile": _tiled(b"")[: -2 - 14] + b"\xff\xd9",
    "j2k of an empty tile": _tiled(b""),
    "jxl around a page": _JXL + box(b"jxlc", PAGE),
    "jxl around a page that begins well": _JXL + box(b"jxlc", b"\xff\x0a" + PAGE),
    "jxl in parts around a page": _JXL + box(b"jxlp", b"\x80\0\0\0\xff\x0a" + PAGE),
    "jxl without a codestream": _JXL + box(b"xml ", PAGE),
    "jxl of zeros": b"\xff\x0a" + bytes(4000),
    "a page behind a jxl's headers": JXL["order"][1][:64] + 4 * PAGE,
    "a page in a jpeg's scan": made("JPEG", (16, 16))[:-200] + PAGE + PAGE + b"\xff\xd9",
    "a page in a gif's pixels": b"GIF89a\x40\0\x30\0\0\0\0,\0\0\0\0\x40\0\x30\0\0\x08"
    + bytes([len(PAGE)])
    + PAGE
    + b"\0;",
    "a page in a webp's pixels": b"RIFF"
    + struct.pack("<I", 22 + len(PAGE))
    + b"WEBPVP8L"
    + struct.pack("<I", 6 + len(PAGE))
    + b"\x2f\x3f\xc0\x0b\0"
    + PAGE
    + b" ",
    "j2k, a page in its tile": _tiled(PAGE),
    "avif around a page": _AVIF + box(b"meta", bytes(4)) + box(b"mdat", PAGE),
    "avif with a size around a page": _AVIF
    + box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", _ISPE)))
    + box(b"mdat", PAGE),
    "avif in order around a page": _avif(PAGE),
    "avif in order around zeros": _avif(bytes(5000)),
    "avif, its picture outside": _avif(PAGE, at=-200),
    "avif, its picture behind the end": _avif(PAGE, length=100_000),
    "avif, its picture no bytes": _avif(b""),
    "heic in order around a page": _avif(PAGE, primary=b"hvc1").replace(b"avif", b"heic"),
    "avif, its picture of no codec": _avif(PAGE, primary=b"mime"),
    "png around a page": _PNG + _HEADER + chunk(b"IDAT", PAGE) + chunk(b"IEND", b""),
    "png around a packed page": _PNG + _HEADER + chunk(b"IDAT", zlib.compress(PAGE)) + chunk(b"IEND", b""),
    "png around zeros": _PNG + _HEADER + chunk(b"IDAT", bytes(500)) + chunk(b"IEND", b""),
    "png without pixels": _PNG + _HEADER + chunk(b"IEND", b""),
    "png with far too few pixels": _PNG
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 4000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(99)))
    + chunk(b"IEND", b""),
    "png of a page between": _PNG + _HEADER + PAGE + chunk(b"IEND", b""),
    "gif without a picture": b"GIF89a\x40\0\x30\0\0\0\0;",
    "gif with a comment only": b"GIF89a\x40\0\x30\0\0\0\0!\xfe\x05hello\0;",
    "jpeg that ends at once": b"\xff\xd8\xff\xd9",
    "jpeg of a scan without a frame": b"\xff\xd8\xff\xda\0\x08\1\1\0\0\x3f\0" + PAGE + b"\xff\xd9",
    "jpeg of too few bits": made("JPEG", (640, 480))[:700] + PAGE + b"\xff\xd9",
    "webp around a page": b"RIFF"
    + struct.pack("<I", 12 + len(PAGE))
    + b"WEBPVP8 "
    + struct.pack("<I", len(PAGE))
    + PAGE,
    "webp of a page between": b"RIFF" + struct.pack("<I", 4 + len(PAGE)) + b"WEBP" + PAGE,
    "webp, its partition a lie": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8 " + struct.pack("<I", 10) + _VP8,
    "ico around a page": struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 48, 0, 0, 1, 32, len(PAGE), 22) + PAGE,
    "bmp of no size": b"BM" + struct.pack("<IHHIIiiHHII", 54, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0) + bytes(16),
    **{f"{name}, then a page": head + PAGE for name, head in HEADS.items()},
    **{f"{name}, then zeros": head + bytes(3000) for name, head in HEADS.items() if name != "bmp"},
    **{f"{name} alone": head for name, head in HEADS.items()},
}
