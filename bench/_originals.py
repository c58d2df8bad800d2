"""Originals beside copies that could take their place: enlarged, graded, greyed, marked, or only better saved.

`PAIRS` maps the name of a kind to a function that makes an original and its copy of one photograph. The original must
stay, whatever becomes of the copy. `charts` draws line charts that differ in the colour of their lines alone.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _templates
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Saved = tuple[Image.Image, str, dict[str, Any]]  # a picture, the ending of its file, and how it is saved
KERNELS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
ENLARGED = [f"enlarged-{way}" for way in (*KERNELS, "twice", "sharpened", "png")]
OF_ANOTHER = "enlarged-other"  # made from a better copy than the one that is there
GRADED = [f"graded-{way}" for way in ("warm", "cold", "sepia", "split", "curves")]
COLOURS = ((210, 30, 30), (30, 60, 200), (20, 140, 50), (210, 120, 0), (120, 20, 150), (0, 140, 150))


def jpeg(picture: Image.Image, luck: random.Random, low: int = 80, high: int = 95) -> Saved:
    return picture, "jpg", {"quality": luck.randint(low, high)}


def resaved(picture: Image.Image, quality: int) -> Image.Image:
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=quality)
    return Image.open(held).convert("RGB")


def scaled(picture: Image.Image, factor: float, kernel: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    return picture.resize([max(1, round(side * factor)) for side in picture.size], kernel)


def enlarged(picture: Image.Image, luck: random.Random, what: str, most: float = 3.0) -> Saved:
    """Returns a copy of 1.2 to `most` times the sides; "twice" was saved as a bad JPEG before, "png" as a fair one."""
    way = what.removeprefix("enlarged-")
    kernel = KERNELS[way] if way in KERNELS else luck.choice(list(KERNELS.values())[:3])
    made = scaled(picture, luck.uniform(1.2, most), kernel)
    if way == "twice":
        return jpeg(resaved(made, luck.randint(30, 70)), luck)
    if way == "sharpened":
        return jpeg(made.filter(ImageFilter.UnsharpMask(luck.uniform(1, 2), luck.randint(60, 150), 2)), luck)
    if way == "png":
        return resaved(made, luck.randint(30, 90)), "png", {}
    return jpeg(made, luck)


def graded(picture: Image.Image, what: str) -> Image.Image:
    """Returns a copy in other colours, as filters of cameras and programs make them."""
    values = np.asarray(picture, np.float32)
    grey = values.mean(2, keepdims=True)
    light = grey / 255
    made = {
        "warm": lambda: values * [1.12, 1, 0.85],
        "cold": lambda: values * [0.88, 1, 1.14],
        "sepia": lambda: values * 0.6 + 0.4 * grey * [1.1, 0.95, 0.75],
        "split": lambda: values + (1 - light) * [-15, 5, 20] + light * [18, 6, -15],
        "curves": lambda: 255 * (values / 255) ** np.array([0.85, 1, 1.2], np.float32),
    }[what.removeprefix("graded-")]()
    return Image.fromarray(made.clip(0, 255).astype(np.uint8))


def page(luck: random.Random, what: str) -> Image.Image:
    """Returns a page of black words with one thin line or one word in a colour."""
    made = Image.new("RGB", (900, 1200), _templates.PAPER)
    draw, colour = ImageDraw.Draw(made), luck.choice(COLOURS)
    for row in range(30):
        text = _templates.words(luck, 9)[:70]
        _templates.put(draw, 60, 60 + 36 * row, text, 21, fill=(20, 20, 20), anchor="la")
    if what == "thin-line":
        y = luck.randint(100, 1100)
        draw.line([60, y, 60 + luck.randint(300, 700), y], fill=colour, width=2)
    else:
        _templates.put(draw, 640, 18, _templates.words(luck, 1).title(), 24, fill=colour, anchor="la")
    return made


def pair(photo: Image.Image, luck: random.Random, what: str) -> tuple[Saved, Saved]:
    """Returns (original, copy) of one kind; the originals were saved as photographs and pages are, at 75 to 95."""
    if what in ("thin-line", "thin-word"):
        coloured = page(luck, what)
        grey = coloured.convert("L").convert("RGB")
        return jpeg(coloured, luck, 75), jpeg(scaled(grey, luck.uniform(1, 1.6)), luck)
    if what in ENLARGED or what == OF_ANOTHER:
        picture, ending, options = jpeg(photo, luck, 75)
        source = photo if what == OF_ANOTHER else resaved(photo, **options)
        return (picture, ending, options), enlarged(source, luck, what)
    if what in GRADED:
        return jpeg(scaled(photo, luck.choice((1, 0.8))), luck, 75), jpeg(graded(photo, what), luck)
    if what == "grey-larger":
        return jpeg(scaled(photo, luck.uniform(0.5, 0.9)), luck, 75), jpeg(photo.convert("L"), luck)
    if what == "tiled-larger":
        return jpeg(photo, luck, 75), jpeg(_templates.tiled(photo, luck), luck)
    soft = photo.filter(ImageFilter.GaussianBlur(luck.uniform(0.5, 1))) if what == "reduced-soft" else photo
    small = scaled(soft, luck.uniform(0.35, 0.8))
    if what == "reduced-sharpened":
        small = small.filter(ImageFilter.UnsharpMask(1.5, 120, 2))
    better: Saved = (small, "png", {}) if what == "reduced-png" else jpeg(small, luck, 90)
    return jpeg(soft, luck, 60, 85), better  # the larger one is the original, and worse saved


PAIRS: list[str] = [
    *(*ENLARGED, OF_ANOTHER),
    *("reduced", "reduced-png", "reduced-soft", "reduced-sharpened"),
    *GRADED,
    *("grey-larger", "tiled-larger", "thin-line", "thin-word"),
]


def charts(count: int, seed: int) -> Iterator[tuple[str, Image.Image]]:
    """Yields (name, picture): line charts of two courses each, alike but for the colours of the lines."""
    across: Callable[[int], float] = lambda place: 0.1 + 0.85 * place / 39  # noqa: E731
    for chart in range(2 * (count > 0)):
        width, height, line = ((900, 600, 2), (1500, 1000, 5))[chart]
        for number in range(min(count, len(COLOURS))):
            luck = random.Random(f"{seed} chart {chart}")
            made = Image.new("RGB", (width, height), _templates.PAPER)
            draw = ImageDraw.Draw(made)
            axes = [(width * 0.1, height * 0.05), (width * 0.1, height * 0.9), (width * 0.95, height * 0.9)]
            draw.line(axes, fill=_templates.INK, width=3)
            for which in range(2):
                level, points = luck.uniform(0.3, 0.7), []
                for place in range(40):
                    level = min(0.85, max(0.15, level + luck.uniform(-0.06, 0.06)))
                    points.append((width * across(place), height * (0.95 - level)))
                draw.line(points, fill=COLOURS[(number + 2 * which) % len(COLOURS)], width=line, joint="curve")
            yield f"chart{chart}-{number}", made


def write(photos: list[Path], folder: Path, count: int, seed: int) -> dict[str, dict[str, str]]:
    """Writes one pair of each photograph, the kinds by turns, and charts; gives file name -> family, what."""
    truth = {}

    def put(family: str, what: str, saved: Saved) -> None:
        picture, ending, options = saved
        name = f"{family}__{what}.{ending}"
        picture.save(folder / name, **options)
        truth[name] = {"family": family, "what": what}

    for number, path in enumerate(photos):
        what = PAIRS[number % len(PAIRS)]
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        original, copy = pair(photo, random.Random(f"{seed} {number} {what}"), what)
        put(f"pair{number:04d}", "original", original)
        put(f"pair{number:04d}", what, copy)
    for name, picture in charts(count, seed):
        put(name, "original", jpeg(picture, random.Random(f"{seed} {name}"), 60))
    return truth
