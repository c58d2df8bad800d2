"""Small pictures as data URIs, for pages that must open without a network and without other files."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

JPEG_QUALITY = 78  # about 6 KB for a 192-pixel photograph; block edges stay invisible at that size
BACKGROUND = (255, 255, 255)  # under transparent pixels; white, as most viewers show them


def thumbnail_data_uri(path: str | Path, size: int = 192) -> str:
    """A JPEG data URI of the picture, upright, at most `size` pixels on its long side.

    The empty text for anything that cannot be decoded; never raises for a bad file. Small pictures are not enlarged.
    """
    try:
        from lib.decode import opened

        with opened(Path(path)) as picture:
            picture.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a fraction of the size, a cheap first step
            # Within the block: what needs no shrinking is decoded only when it is converted or written.
            buffer = io.BytesIO()
            _opaque(_upright(picture, size)).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    except Exception:  # the codec boundary: Pillow's plugins raise whatever their formats make them raise
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _upright(picture: Image.Image, size: int) -> Image.Image:
    from PIL import ImageOps

    orientation = picture.getexif().get(0x0112, 1)
    if picture.mode == "P" or picture.mode == "PA":
        picture = picture.convert("RGBA")  # palette indices must not be averaged
    elif picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    picture.thumbnail((size, size), reducing_gap=2.0)
    if orientation == 1:
        return picture
    picture.getexif()[0x0112] = orientation  # conversions drop it
    return ImageOps.exif_transpose(picture)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits (integer or float) to 8: values above 255 are taken for a 16-bit scale."""
    _, high = picture.convert("F").getextrema()
    scale = 1 / 257 if isinstance(high, float) and high > 255 else 1.0
    return picture.convert("F").point(lambda value: value * scale + 0.0).convert("L")


def _opaque(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "La", "RGBa") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return picture.convert("RGB")
