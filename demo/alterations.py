"""What happens to a picture on its way through the web: cut, shrunk, filtered, recompressed, converted."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from demo.figures import font

Op = Callable[[Image.Image], Image.Image]
ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Alteration:
    """One way to change a picture: cut to a window, scale, filter, then encode. All lengths are fractions."""

    name: str
    encoding: str = "jpeg"
    quality: int = 90
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    scale: float = 1.0
    op: Op | None = None

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size in pixels that `apply` makes of a picture of `size`."""
        left, top, right, bottom = self._box(size)
        return max(1, round((right - left) * self.scale)), max(1, round((bottom - top) * self.scale))

    def apply(self, image: Image.Image) -> Image.Image:
        """The altered picture, as it is meant to be seen (upright)."""
        if self.crop != (0.0, 0.0, 1.0, 1.0):
            image = image.crop(self._box(image.size))
        if self.scale != 1.0:
            size = max(1, round(image.width * self.scale)), max(1, round(image.height * self.scale))
            image = image.resize(size, Image.Resampling.LANCZOS)
        return self.op(image) if self.op else image

    def _box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        w, h = size
        left, top, right, bottom = self.crop
        return round(left * w), round(top * h), round(right * w), round(bottom * h)


def _blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(1.0, min(image.size) / 110)))


def _sharpen(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(max(1.0, min(image.size) / 300), 180, 2))


def _watermark(image: Image.Image) -> Image.Image:
    image = image.copy()
    w, h = image.size
    draw = ImageDraw.Draw(image, "RGBA")
    draw.text((w * 0.05, h * 0.9), "harbour.example", (255, 255, 255, 190), font(min(w, h) * 0.06))
    return image


def _grey(image: Image.Image) -> Image.Image:
    return ImageOps.grayscale(image).convert("RGB")


ORIGINAL = Alteration("original", quality=92)
# In the order they are handed out; every one is used before any comes again, so a small gallery has them all.
ALTERATIONS = (
    Alteration("jpeg30", quality=30),
    Alteration("half", scale=0.5),
    Alteration("copy", quality=92),  # the very bytes of the original, at another address
    Alteration("crop", crop=(0.06, 0.05, 0.95, 0.96)),
    Alteration("png", "png"),
    Alteration("exif6", "jpeg-exif6"),
    Alteration("dark", op=lambda image: ImageEnhance.Brightness(image).enhance(0.55)),
    Alteration("mirror", op=ImageOps.mirror),
    Alteration("webp", "webp", 80),
    Alteration("grey", op=_grey),
    Alteration("blur", op=_blur),
    Alteration("jpeg60", quality=60),
    Alteration("quarter", scale=0.25),
    Alteration("gif", "gif", scale=0.6),
    Alteration("watermark", op=_watermark),
    Alteration("upscaled", quality=88, scale=1.6),
    Alteration("palette", "png-palette"),
    Alteration("bright", op=lambda image: ImageEnhance.Brightness(image).enhance(1.3)),
    Alteration("exif3", "jpeg-exif3"),
    Alteration("hard-crop", crop=(0.2, 0.15, 0.85, 0.9)),
    Alteration("vivid", op=lambda image: ImageEnhance.Color(image).enhance(1.6)),
    Alteration("sharpened", op=_sharpen),
    Alteration("jpeg12", quality=12, scale=0.7),
)
# Handed out once in the whole gallery.
CMYK = Alteration("cmyk", "jpeg-cmyk")
ANIMATED = Alteration("animated", "gif-animated", scale=0.5)

EXTENSIONS = {"png": "png", "png-palette": "png", "webp": "webp", "gif": "gif", "gif-animated": "gif"}
MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}


def extension(encoding: str) -> str:
    """The honest file name ending of an encoding."""
    return EXTENSIONS.get(encoding, "jpg")


def encode(image: Image.Image, encoding: str, quality: int = 90) -> bytes:
    """An RGB picture as the bytes of a file; the same picture always gives the same bytes."""
    out = io.BytesIO()
    if encoding == "gif-animated":
        frames = [_shifted(image, step / 8) for step in range(8)]
        palettes = [frame.quantize(64) for frame in frames]
        palettes[0].save(out, "GIF", save_all=True, append_images=palettes[1:], duration=120, loop=0)
    elif encoding == "gif":
        image.quantize(128).save(out, "GIF")
    elif encoding == "png-palette":
        image.quantize(48).save(out, "PNG")
    elif encoding == "png":
        image.save(out, "PNG", compress_level=3)
    elif encoding == "webp":
        image.save(out, "WEBP", quality=quality, method=2)
    else:
        _save_jpeg(image, out, encoding, quality)
    return out.getvalue()


def _save_jpeg(image: Image.Image, out: io.BytesIO, encoding: str, quality: int) -> None:
    exif = Image.Exif()
    if encoding == "jpeg-exif6":  # stored lying on its side; a viewer turns it clockwise by a quarter
        image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_90), 6
    elif encoding == "jpeg-exif3":
        image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_180), 3
    elif encoding == "jpeg-cmyk":
        image = image.convert("CMYK")
    image.save(out, "JPEG", quality=quality, exif=exif)


def _shifted(image: Image.Image, share: float) -> Image.Image:
    """The picture moved sideways round its own edge, which makes a simple pan."""
    return ImageChops.offset(image, round(image.width * share * 0.25), 0)
