"""Transparent pictures: their pixels with their opacity, and a ground on which they can be seen.

A white logo on a clear ground is nothing at all on white. Whatever judges, embeds, shows or sends a picture lays it on
the ground that `ground_of` chooses; whatever compares pictures keeps to grounds that are always the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
GROUNDS: tuple[Colour, ...] = (WHITE, BLACK, GREY)  # in this order where several do
CONTRAST = 64  # grey levels, a quarter of the scale, between a pixel and a ground on which it is seen
AS_GOOD = 0.1  # of the picture; a ground that shows so much less than the best is as good as that
CLEAR = 0.02  # of the picture; where less is clear, the ground is hardly seen and stays white
BAND = 1 << 20  # pixels that are looked at together, where a whole picture would take too much
SAMPLE = 512  # pixels a side that are looked at, evenly spread


def may_be_clear(image: Image.Image) -> bool:
    """True for an opened picture whose header allows transparent pixels."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def mend_transparency(image: Image.Image) -> None:
    """Scales the transparent colour of a PNG, before it is loaded, to the 8 bits that its pixels get.

    The file names it in its own depth, and Pillow compares the numbers as they are: in greys of 2 and 4 bits and in
    colours of 16 bits it takes the wrong pixels for transparent, or none.
    """
    value = image.info.get("transparency")
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    raw = str(tiles[0].args) if tiles else ""
    if isinstance(value, int) and image.mode == "L" and raw in ("L;2", "L;4"):
        image.info["transparency"] = value * (85 if raw == "L;2" else 17)
    elif isinstance(value, tuple) and raw == "RGB;16B":
        image.info["transparency"] = tuple(part >> 8 for part in value)


def layered(image: Image.Image) -> Image.Image:
    """The picture as RGBA."""
    value = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        return _deep(image, value)
    return image if image.mode == "RGBA" and value is None else image.convert("RGBA")


def _deep(image: Image.Image, clear: object) -> Image.Image:
    """Greys of 16 bits, of which one may be transparent; Pillow would clip them at 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    return Image.merge("RGBA", (grey, grey, grey, alpha))


def from_deep(image: Image.Image) -> Image.Image:
    """16-bit and floating-point grey: scaled to 8 bits by the type's own range, else by the picture's."""
    import numpy as np
    from PIL import Image

    def band(top: int) -> np.ndarray:
        part = image.crop((0, top, image.width, min(image.height, top + rows)))
        return np.nan_to_num(np.asarray(part, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)

    rows = max(1, BAND // image.width)  # as float64 the whole would be four to eight times as large
    image.load()
    tops = range(0, image.height, rows)
    greatest = max(float(np.max(band(top), initial=0)) for top in tops)
    full = 65535.0 if image.mode.startswith("I") and greatest <= 65535 else max(greatest, 1.0)
    grey = np.empty((image.height, image.width), np.uint8)
    for top in tops:
        grey[top : top + rows] = np.clip(band(top) / full * 255.0, 0, 255)
    return Image.fromarray(grey).convert("RGB")


def ground_of(rgba: Image.Image) -> Colour:
    """The colour on which most of an RGBA picture can be seen, by the brightness of its pixels as far as they cover.

    White where it does as well as black, black where it does as well as grey, which is for pictures of both.
    """
    import numpy as np
    from PIL import Image

    small = rgba
    if max(rgba.size) > SAMPLE:  # without averaging: colours of clear pixels would mix in
        size = (min(rgba.width, SAMPLE), min(rgba.height, SAMPLE))
        small = rgba.resize(size, Image.Resampling.NEAREST)
    cover = np.asarray(small.getchannel("A"), dtype=np.float64)
    if cover.mean() > 255 * (1 - CLEAR) or not cover.any():
        return WHITE
    levels = np.bincount(np.asarray(small.convert("L")).ravel(), weights=cover.ravel(), minlength=256) / cover.sum()
    away = np.abs(np.arange(256)[None, :] - np.array([ground[0] for ground in GROUNDS])[:, None]) >= CONTRAST
    shares = (away * levels).sum(axis=1)
    return next(ground for ground, share in zip(GROUNDS, shares, strict=True) if share >= shares.max() - AS_GOOD)


def flat_on(rgba: Image.Image, ground: Colour | None) -> Image.Image:
    """The RGBA picture as RGB on a ground, on the one that `ground_of` chooses where none is given."""
    from PIL import Image

    flat = Image.new("RGB", rgba.size, ground_of(rgba) if ground is None else ground)
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat
