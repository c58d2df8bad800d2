"""Drawn scenes on paper: charts, text pages, maps, patterns, faces, colour fields.

The contract is that of `demo.landscapes`: fractions of the image's size, the same questions to the generator at any.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo.landscapes import any_colour, ball, fill_gradient, mix

WORDS = (
    *("survey", "northern", "light", "begun", "early", "spring", "carried", "along", "coast", "until", "first", "snow"),
    *("the", "of", "and", "by", "with", "each", "station", "record", "wind", "rain", "visible", "stars", "boats"),
    *("brought", "paper", "lamps", "bread", "harbour", "while", "returned", "a", "in"),
)


def font(pixels: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(6, round(pixels)))


def chart(image: Image.Image, rng: random.Random) -> None:
    """A bar, line or pie chart with a title and an axis."""
    w, h = image.size
    image.paste(mix((255, 255, 255), any_colour(rng), rng.choice([0.02, 0.08, 0.75])), (0, 0, w, h))
    draw = ImageDraw.Draw(image)
    ink = (40, 44, 52) if sum(image.getpixel((0, 0))) > 380 else (236, 238, 240)  # type: ignore[arg-type]
    draw.text(
        (w * 0.08, h * 0.04),
        f"{rng.choice(WORDS).title()} by {rng.choice(WORDS)}, {rng.randint(1990, 2025)}",
        ink,
        font(h * 0.055),
    )
    {"bars": _bars, "lines": _lines, "pie": _pie}[rng.choice(["bars", "lines", "pie"])](draw, w, h, rng, ink)


def _axes(draw: ImageDraw.ImageDraw, w: int, h: int, ink: tuple[int, int, int]) -> None:
    thick = max(1, round(h * 0.004))
    for line in range(6):
        y = h * (0.88 - 0.13 * line)
        draw.line((w * 0.1, y, w * 0.95, y), ink if line == 0 else mix(ink, (150, 150, 150), 0.75), thick)
        draw.text((w * 0.03, y - h * 0.02), str(line * 20), ink, font(h * 0.035))


def _bars(draw: ImageDraw.ImageDraw, w: int, h: int, rng: random.Random, ink: tuple[int, int, int]) -> None:
    _axes(draw, w, h, ink)
    count, colour, other = rng.randint(5, 14), any_colour(rng), any_colour(rng)
    for bar in range(count):
        x, tall = 0.12 + 0.82 * bar / count, rng.uniform(0.08, 0.66)
        draw.rectangle((x * w, (0.88 - tall) * h, (x + 0.6 / count) * w, 0.88 * h), mix(colour, other, bar / count))


def _lines(draw: ImageDraw.ImageDraw, w: int, h: int, rng: random.Random, ink: tuple[int, int, int]) -> None:
    _axes(draw, w, h, ink)
    for _ in range(rng.randint(2, 4)):
        level, colour, points = rng.uniform(0.2, 0.5), any_colour(rng), []
        for step in range(12):
            level = min(0.66, max(0.03, level + rng.uniform(-0.12, 0.13)))
            points.append((w * (0.12 + 0.07 * step), h * (0.88 - level)))
        draw.line(points, colour, max(2, round(h * 0.01)), joint="curve")
        for x, y in points:
            draw.ellipse((x - h * 0.012, y - h * 0.012, x + h * 0.012, y + h * 0.012), colour)


def _pie(draw: ImageDraw.ImageDraw, w: int, h: int, rng: random.Random, ink: tuple[int, int, int]) -> None:
    parts = [rng.uniform(1, 5) for _ in range(rng.randint(3, 7))]
    angle, r = rng.uniform(0, 360), min(w, h) * 0.34
    for row, part in enumerate(parts):
        sweep, colour = 360 * part / sum(parts), any_colour(rng)
        draw.pieslice((w * 0.36 - r, h * 0.56 - r, w * 0.36 + r, h * 0.56 + r), angle, angle + sweep, colour)
        draw.rectangle((w * 0.76, h * (0.25 + 0.09 * row), w * 0.8, h * (0.3 + 0.09 * row)), colour)
        draw.text((w * 0.82, h * (0.25 + 0.09 * row)), rng.choice(WORDS), ink, font(h * 0.04))
        angle += sweep


def page(image: Image.Image, rng: random.Random) -> None:
    """A page of text with a heading, paragraphs and sometimes a plate."""
    w, h = image.size
    paper = mix((255, 255, 252), (222, 202, 160), rng.random() * 0.7)
    image.paste(paper, (0, 0, w, h))
    draw = ImageDraw.Draw(image)
    line, ink = rng.uniform(0.028, 0.05), (44, 40, 36)
    draw.text((w * 0.1, h * 0.06), " ".join(rng.sample(WORDS, 3)).title(), ink, font(h * line * 1.7))
    plate, y = rng.random() < 0.5, 0.06 + line * 3
    if plate:
        left, deep = rng.choice([0.1, 0.5]), rng.uniform(0.15, 0.3)
        draw.rectangle((left * w, y * h, (left + 0.4) * w, (y + deep) * h), any_colour(rng))
        ball(draw, (left + 0.2) * w, (y + deep / 2) * h, h * deep * 0.35, any_colour(rng))
        y += deep + line
    while y < 0.92:
        words = " ".join(rng.choice(WORDS) for _ in range(16))
        if rng.random() > 0.12:  # Now and then a paragraph ends.
            draw.text((w * 0.1, y * h), words[: round(0.8 * w / (h * line * 0.38))], ink, font(h * line * 0.8))
        y += line * 1.15


def town_map(image: Image.Image, rng: random.Random) -> None:
    """Streets, parks and a river from above."""
    w, h = image.size
    image.paste(mix((240, 236, 226), any_colour(rng), 0.12), (0, 0, w, h))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(4, 9)):
        x, y = rng.random(), rng.random()
        draw.rectangle(
            (x * w, y * h, (x + rng.uniform(0.08, 0.25)) * w, (y + rng.uniform(0.08, 0.22)) * h),
            rng.choice([(186, 214, 160), (212, 222, 190), (226, 204, 190)]),
        )
    start, phase, wide = rng.uniform(0.15, 0.85), rng.uniform(0, 6), rng.uniform(0.03, 0.08)
    river = [(w * i / 40, h * (start + 0.14 * math.sin(phase + i / 6))) for i in range(41)]
    draw.line(river, (146, 190, 222), max(3, round(h * wide)), joint="curve")
    for _ in range(rng.randint(14, 26)):
        across, a, b = rng.random() < 0.5, rng.uniform(-0.1, 1.1), rng.uniform(-0.12, 0.12)
        ends = (0, a * h, w, (a + b) * h) if across else (a * w, 0, (a + b) * w, h)
        main = rng.random() < 0.25
        draw.line(ends, (244, 206, 120) if main else (255, 255, 255), max(1, round(h * (0.02 if main else 0.009))))
    for _ in range(rng.randint(3, 7)):
        draw.text(
            (rng.uniform(0, 0.8) * w, rng.uniform(0, 0.95) * h),
            rng.choice(WORDS).title(),
            (90, 84, 78),
            font(h * 0.04),
        )


def tiles(image: Image.Image, rng: random.Random) -> None:
    """A woven or tiled pattern: arcs, triangles or diamonds on a grid."""
    w, h = image.size
    colours, rows, motif = (
        [any_colour(rng, 20, 245) for _ in range(4)],
        rng.randint(4, 9),
        rng.choice(["arc", "half", "gem"]),
    )
    draw, size = ImageDraw.Draw(image), h / rows
    image.paste(colours[0], (0, 0, w, h))
    for row in range(rows):
        for column in range(20):  # Wide enough for any format; what lies outside is clipped.
            x, y, turn, colour = column * size, row * size, rng.randint(0, 3), colours[1 + rng.randint(0, 2)]
            if motif == "arc":
                cx, cy = x + size * (turn % 2), y + size * (turn // 2)
                draw.ellipse((cx - size * 0.5, cy - size * 0.5, cx + size * 0.5, cy + size * 0.5), colour)
            elif motif == "half":
                corners = [(x, y), (x + size, y), (x + size, y + size), (x, y + size)]
                draw.polygon([corner for i, corner in enumerate(corners) if i != turn], colour)
            else:
                draw.polygon(
                    [
                        (x + size / 2, y),
                        (x + size, y + size / 2),
                        (x + size / 2, y + size),
                        (x, y + size / 2),
                    ],
                    colour,
                )


def face(image: Image.Image, rng: random.Random) -> None:
    """A cartoon portrait."""
    w, h = image.size
    ground = any_colour(rng, 90, 230)
    fill_gradient(image, mix(ground, (255, 255, 255), 0.3), ground)
    draw, unit = ImageDraw.Draw(image), min(w, h)
    x, y, r = w * rng.uniform(0.42, 0.58), h * rng.uniform(0.44, 0.52), unit * rng.uniform(0.2, 0.27)
    skin = rng.choice([(246, 214, 186), (224, 172, 132), (150, 100, 70), (96, 62, 44)])
    hair, shirt = any_colour(rng, 15, 170), any_colour(rng, 40, 220)
    draw.ellipse((x - r * 2, y + r * 1.2, x + r * 2, y + r * 5), shirt)
    draw.ellipse((x - r * 1.2, y - r * 1.5, x + r * 1.2, y + r * rng.uniform(0.4, 1.6)), hair)
    draw.rectangle((x - r * 0.35, y + r * 0.7, x + r * 0.35, y + r * 1.5), mix(skin, (0, 0, 0), 0.15))
    draw.ellipse((x - r * 0.92, y - r * 1.05, x + r * 0.92, y + r * 1.15), skin)
    draw.pieslice((x - r, y - r * 1.3, x + r, y + r * 0.4), 180, 360, hair)
    eye = any_colour(rng, 30, 140)
    for side in (-1, 1):
        draw.ellipse(
            (x + side * r * 0.4 - r * 0.17, y - r * 0.02, x + side * r * 0.4 + r * 0.17, y + r * 0.22),
            (252, 252, 250),
        )
        draw.ellipse((x + side * r * 0.4 - r * 0.08, y + r * 0.02, x + side * r * 0.4 + r * 0.08, y + r * 0.2), eye)
    smile = rng.uniform(0.1, 0.4)
    draw.arc(
        (x - r * smile, y + r * 0.4, x + r * smile, y + r * 0.8),
        10,
        170,
        (150, 50, 50),
        max(2, round(r * 0.06)),
    )


def rings(image: Image.Image, rng: random.Random) -> None:
    """Overlapping translucent discs and bars, in the manner of an abstract poster."""
    w, h = image.size
    image.paste(any_colour(rng, 10, 245), (0, 0, w, h))
    draw, unit = ImageDraw.Draw(image, "RGBA"), min(w, h)
    for _ in range(rng.randint(8, 18)):
        x, y, r, colour = (
            rng.random() * w,
            rng.random() * h,
            rng.uniform(0.05, 0.32) * unit,
            any_colour(rng, 0, 255),
        )
        draw.ellipse((x - r, y - r, x + r, y + r), (*colour, rng.randint(90, 220)))
        if rng.random() < 0.5:
            draw.ellipse((x - r * 0.6, y - r * 0.6, x + r * 0.6, y + r * 0.6), (*any_colour(rng, 0, 255), 200))
        else:
            turn = rng.uniform(0, math.pi)
            dx, dy = 1.8 * r * math.cos(turn), 1.8 * r * math.sin(turn)
            draw.line((x - dx, y - dy, x + dx, y + dy), (*colour, 230), max(2, round(unit * 0.012)))


def ripple(image: Image.Image, rng: random.Random) -> None:
    """A smooth field of colour from a few interfering waves."""
    w, h = image.size
    y, x = np.mgrid[0:h, 0:w].astype(np.float32) / np.float32(max(w, h))
    low, high = (np.array(any_colour(rng, *ends), np.float32) for ends in ((0, 120), (120, 255)))
    field = np.zeros((h, w), np.float32)
    for _ in range(3):
        cx, cy, fine = rng.random(), rng.random(), rng.uniform(6, 26)
        field += np.sin(fine * np.hypot(x - cx, y - cy) + rng.uniform(0, 6))
    share = ((field + 3) / 6)[..., None]
    image.paste(Image.fromarray((low + (high - low) * share).clip(0, 255).astype(np.uint8)))


def blank(image: Image.Image, rng: random.Random) -> None:
    """Almost nothing: a light sheet with one faint line."""
    w, h = image.size
    shade = rng.randint(238, 252)
    image.paste((shade, shade, shade - 3), (0, 0, w, h))
    y = rng.uniform(0.3, 0.7) * h
    ImageDraw.Draw(image).line((w * 0.3, y, w * 0.7, y), (shade - 9,) * 3, max(1, round(h * 0.004)))


ON_PAPER = {
    "chart": chart,
    "page": page,
    "map": town_map,
    "tiles": tiles,
    "face": face,
    "rings": rings,
    "ripple": ripple,
    "blank": blank,
}
