"""Pictures written anew for a dataset: in another format, and on wish in another size, as img2dataset resizes.

`keep-ratio` makes the shorter side N, `center-crop` cuts the middle square out of that, `border` makes the longer side
N and pads to a square with white. The result stands upright. Resized pictures are in sRGB, without a profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lib.files.pictures import sha256_of
from lib.images.colours import ColourSpace, in_srgb
from lib.images.frames import opened_frames
from lib.images.ground import flat_on, layered, may_be_clear
from lib.sort.export.formats import Look
from lib.sort.export.options import Encoding
from lib.sort.export.shards import exif_of

# What each format is written with, and the longest side that it can have: the limits of libjpeg and of libwebp.
SAVED: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "jpeg": (65_500, {"quality": 95, "subsampling": 0}),
    "png": (2**31 - 1, {}),
    "webp": (16_383, {"quality": 95}),
}
MOST_PIXELS = 64_000_000  # of a resized picture: a strip of a pixel's height would grow without end
DRAFTED = 2  # a JPEG is decoded at no less than so many times its new size: the rest is resampled


def is_too_large(encoding: Encoding, width: int, height: int) -> bool:
    """True where a picture of that size cannot be written so."""
    if encoding.side:
        width, height = target_size(encoding, width, height)
        if width * height > MOST_PIXELS:
            return True
    return max(width, height) > SAVED[encoding.form][0]


def target_size(encoding: Encoding, width: int, height: int) -> tuple[int, int]:
    """The size that a picture gets, in pixels; its own where no side is asked for, or it is small enough already."""
    side = encoding.side
    measured = max(width, height) if encoding.mode == "border" else min(width, height)
    if not side or (encoding.only_if_bigger and measured <= side):
        return width, height
    if encoding.mode in ("center-crop", "border"):
        return side, side
    return max(1, round(width * side / measured)), max(1, round(height * side / measured))


def convert(task: tuple[str, str, Encoding]) -> Look:
    """Writes the first frame of (path, to, encoding) upright, with its transparency where the format has any.

    On a ground where it has none. Without a new size the picture keeps its profile. Raises nothing for a picture that
    cannot be read or written so.
    """
    from lib.images.decode import DecodeError, codec_boundary, upright

    path, target, encoding = Path(task[0]), Path(task[1]), task[2]
    how = dict(SAVED[encoding.form][1])
    if encoding.quality is not None:
        how["compress_level" if encoding.form == "png" else "quality"] = encoding.quality
    try:
        with opened_frames(path) as frames:
            if is_too_large(encoding, frames.header.width, frames.header.height):
                return Look("too_large")
            count = 1 if frames.parts else frames.count
            with frames.at(0) as frame, codec_boundary():
                if encoding.side and frames.header.format == "jpeg":
                    _draft(frame.image, encoding)
                frame.image.load()
                made, profile = _as_saved(frame.image, frame.colours, encoding.form, as_srgb=bool(encoding.side))
                made = upright(made, frame.orientation)
                made.info.clear()  # what it says of turns and colours has been carried out
                if encoding.side:
                    whole = frames.header.upright_size
                    made = resized(made, encoding, *whole)
                more = {"icc_profile": profile} if profile else {}
                made.save(target, encoding.form, **how, **more)
        return Look("", *made.size, encoding.form, count, sha256_of(target), exif_of(path))
    except DecodeError as error:
        return Look(error.reason)


def _draft(image: Image.Image, encoding: Encoding) -> None:
    """Lets a JPEG be decoded smaller where it will be much smaller: a part of the work, and of the memory."""
    assert encoding.side
    measured = max(image.size) if encoding.mode == "border" else min(image.size)
    factor = DRAFTED * encoding.side / measured
    if factor < 1:
        image.draft(image.mode, (int(image.width * factor) + 1, int(image.height * factor) + 1))


def resized(image: Image.Image, encoding: Encoding, width: int, height: int) -> Image.Image:
    """The picture at its new size; `width` and `height` are those of the whole one, which may have been drafted."""
    size = target_size(encoding, width, height)
    if size == (width, height) and image.size == size:
        return image
    if encoding.mode == "center-crop" and size != (width, height):
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        return _resample(image, size, (left, top, left + edge, top + edge))
    if encoding.mode == "border" and size != (width, height):
        assert encoding.side
        measured = max(width, height)
        inner = max(1, round(width * encoding.side / measured)), max(1, round(height * encoding.side / measured))
        ground = Image.new(image.mode, size, "white")
        ground.paste(_resample(image, inner), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        return ground
    return _resample(image, size)


def _resample(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box)


def _as_saved(image: Image.Image, space: ColourSpace, form: str, *, as_srgb: bool = False) -> tuple[Image.Image, bytes]:
    """A loaded picture in a mode that the format has, and the profile of its numbers; without one they are sRGB's.

    `as_srgb` gives no profile, and 8 bits.
    """
    from lib.images.decode import flattened

    profile = image.info.get("icc_profile") or b""
    channels = profile[16:20]
    clear = layered(image) if may_be_clear(image) else None
    if image.mode.startswith("I;16") and form == "png" and clear is None and not as_srgb:
        return image, profile if channels == b"GRAY" else b""
    if clear is not None:
        plain = clear.convert("RGB")
    elif image.mode == "CMYK":
        plain, channels = in_srgb(image, space).convert("RGB"), b""
        space = ColourSpace()
    else:
        is_grey = image.mode == "L" and form != "webp"
        plain = image if is_grey else flattened(image, None)
        if image.mode == "L" and not is_grey and channels == b"GRAY":  # numbers of greys, which WebP does not have
            plain, space = in_srgb(image, space).convert("RGB"), ColourSpace()
    if as_srgb or channels != {"L": b"GRAY", "RGB": b"RGB "}[plain.mode]:
        plain, profile = in_srgb(plain, space), b""
    if clear is None:
        return plain, profile
    plain.putalpha(clear.getchannel("A"))
    return (flat_on(plain, None) if form == "jpeg" else plain), profile
