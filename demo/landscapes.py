"""Drawn scenes seen out of doors: hills, towns, sea, gardens.

Every function takes an RGB image to paint on and its own random generator, and works in fractions of the image's size.
It asks the generator the same questions whatever that size is, so one scene drawn small and drawn large is one scene.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((94, 156, 214), (232, 240, 244)),
    ((244, 150, 92), (252, 226, 168)),
    ((24, 30, 66), (92, 76, 128)),
    ((150, 176, 190), (222, 222, 214)),
    ((216, 110, 130), (250, 206, 186)),
    ((60, 140, 150), (206, 232, 206)),
)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from a to b."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def any_colour(rng: random.Random, low: int = 30, high: int = 225) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def fill_gradient(image: Image.Image, top: Colour, bottom: Colour) -> None:
    """Paint a vertical gradient over the whole image."""
    column = np.linspace(top, bottom, 64)[:, None, :].astype(np.uint8)
    image.paste(Image.fromarray(column).resize(image.size, Image.Resampling.BILINEAR))


def ball(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: Colour, light: float = 0.55) -> None:
    """A sphere lit from the upper left, as shrinking discs of rising brightness."""
    for step in range(14):
        share = step / 13
        rr = r * (1 - share)
        cx, cy = x - r * 0.35 * share, y - r * 0.35 * share
        draw.ellipse((cx - rr, cy - rr, cx + rr, cy + rr), mix(colour, (255, 255, 255), light * share))


def hills(image: Image.Image, rng: random.Random) -> None:
    """Layered hills under a sun or moon, firs on the nearest slope."""
    w, h = image.size
    top, bottom = rng.choice(SKIES)
    fill_gradient(image, top, bottom)
    draw = ImageDraw.Draw(image)
    ball(
        draw,
        w * rng.uniform(0.15, 0.85),
        h * rng.uniform(0.1, 0.35),
        h * rng.uniform(0.04, 0.1),
        (250, 232, 170),
    )
    near, layers = any_colour(rng, 20, 90), rng.randint(3, 5)
    for layer in range(layers):
        share = (layer + 1) / layers
        base, swing = 0.35 + 0.5 * share * 0.8, rng.uniform(0.05, 0.16)
        phase, waves = rng.uniform(0, 6), rng.uniform(1.0, 3.5)
        ridge = [
            (x, base - swing * math.sin(phase + waves * x * 3) * 0.6 - swing * 0.3 * math.sin(9 * x + phase))
            for x in (i / 60 for i in range(61))
        ]
        colour = mix(bottom, near, 0.25 + 0.7 * share)
        draw.polygon([(x * w, y * h) for x, y in ridge] + [(w, h), (0, h)], colour)
        if layer == layers - 1:
            for _ in range(rng.randint(6, 22)):
                x, y = rng.choice(ridge)
                fir(draw, x * w, y * h + 0.02 * h, h * rng.uniform(0.06, 0.16), mix(colour, (0, 30, 10), 0.5))


def fir(draw: ImageDraw.ImageDraw, x: float, y: float, tall: float, colour: Colour) -> None:
    for tier in range(3):
        low, wide = y - tall * 0.27 * tier, tall * (0.28 - 0.07 * tier)
        draw.polygon([(x - wide, low), (x + wide, low), (x, low - tall * 0.45)], colour)


def town(image: Image.Image, rng: random.Random) -> None:
    """A skyline in two rows, with some of the windows lit."""
    w, h = image.size
    top, bottom = rng.choice(SKIES)
    fill_gradient(image, top, bottom)
    draw = ImageDraw.Draw(image)
    wall, lamp = any_colour(rng, 30, 120), (250, 224, 140)
    for row in range(2):
        x = -0.02
        while x < 1:
            wide, tall = rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.62) * (1 - 0.25 * row)
            colour = mix(mix(wall, bottom, 0.45 * (1 - row)), any_colour(rng), 0.15)
            draw.rectangle((x * w, (1 - tall) * h, (x + wide) * w, h), colour)
            columns, floors = rng.randint(2, 4), int(tall * 22)
            for floor in range(floors):
                for column in range(columns):
                    lit = rng.random() < 0.45
                    wx, wy = x + wide * (column + 0.25) / columns, 1 - tall + tall * (floor + 0.3) / floors
                    pane = (wx * w, wy * h, (wx + wide * 0.5 / columns) * w, (wy + 0.02) * h)
                    draw.rectangle(pane, lamp if lit else mix(colour, (0, 0, 0), 0.35))
            x += wide + rng.uniform(0.0, 0.02)


def sea(image: Image.Image, rng: random.Random) -> None:
    """Water with rows of waves, and boats whose size tells the distance."""
    w, h = image.size
    top, bottom = rng.choice(SKIES)
    fill_gradient(image, top, bottom)
    draw = ImageDraw.Draw(image)
    horizon, water = rng.uniform(0.38, 0.58), mix((20, 80, 120), any_colour(rng), 0.25)
    for step in range(24):
        y = horizon + (1 - horizon) * step / 24
        draw.rectangle((0, y * h, w, h), mix(mix(water, bottom, 0.5), water, step / 24))
    for _ in range(90):
        depth, x = rng.random() ** 1.5, rng.random()
        y, long = horizon + (1 - horizon) * depth, 0.02 + 0.08 * depth
        draw.arc(
            (x * w, y * h, (x + long) * w, (y + 0.02) * h),
            200,
            340,
            mix(water, (255, 255, 255), 0.5),
            max(1, round(h * 0.003)),
        )
    for depth in sorted(rng.random() for _ in range(rng.randint(2, 5))):
        boat(
            draw,
            w * rng.uniform(0.1, 0.9),
            h * (horizon + (0.9 - horizon) * depth),
            h * (0.05 + 0.14 * depth),
            rng,
        )


def boat(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: random.Random) -> None:
    hull, sail = any_colour(rng, 40, 160), mix((250, 248, 240), any_colour(rng), 0.3)
    draw.polygon(
        [(x - size, y), (x + size, y), (x + size * 0.6, y + size * 0.4), (x - size * 0.7, y + size * 0.4)],
        hull,
    )
    draw.polygon([(x, y - size * 0.08), (x, y - size * 1.7), (x + size * 0.8, y - size * 0.08)], sail)
    draw.polygon(
        [
            (x - size * 0.08, y - size * 0.08),
            (x - size * 0.08, y - size * 1.3),
            (x - size * 0.6, y - size * 0.08),
        ],
        mix(sail, hull, 0.4),
    )


def garden(image: Image.Image, rng: random.Random) -> None:
    """Flowers of two or three kinds over grass."""
    w, h = image.size
    green = mix((70, 130, 60), any_colour(rng), 0.2)
    fill_gradient(image, mix(green, (230, 240, 210), 0.7), mix(green, (0, 30, 0), 0.4))
    draw = ImageDraw.Draw(image)
    for _ in range(160):
        x, y, lean = rng.random(), rng.uniform(0.35, 1.1), rng.uniform(-0.04, 0.04)
        draw.line(
            (x * w, y * h, (x + lean) * w, (y - rng.uniform(0.1, 0.3)) * h),
            mix(green, any_colour(rng, 0, 90), 0.4),
            max(1, round(w * 0.004)),
        )
    kinds = [(any_colour(rng, 120, 255), rng.randint(5, 12)) for _ in range(rng.randint(2, 3))]
    for y in sorted(rng.uniform(0.2, 0.95) for _ in range(rng.randint(9, 20))):
        colour, petals = rng.choice(kinds)
        x, size = rng.uniform(0.03, 0.97) * w, (0.03 + 0.07 * y) * min(w, h) * 1.3
        for petal in range(petals):
            angle = 2 * math.pi * petal / petals
            px, py, pr = (
                x + size * math.cos(angle) * 0.7,
                y * h + size * math.sin(angle) * 0.7,
                size * 2 / petals + size * 0.2,
            )
            draw.ellipse((px - pr, py - pr, px + pr, py + pr), mix(colour, (255, 255, 255), 0.25 * (petal % 3) / 2))
        ball(draw, x, y * h, size * 0.4, (230, 180, 60))


def fruit(image: Image.Image, rng: random.Random) -> None:
    """A still life: fruit on a table against a wall."""
    w, h = image.size
    wall, cloth = any_colour(rng, 60, 190), any_colour(rng, 120, 230)
    fill_gradient(image, mix(wall, (255, 255, 255), 0.25), mix(wall, (0, 0, 0), 0.3))
    draw = ImageDraw.Draw(image)
    edge = rng.uniform(0.52, 0.68)
    draw.rectangle((0, edge * h, w, h), cloth)
    for stripe in range(rng.randint(3, 8)):
        x = stripe * 0.17 + rng.uniform(-0.03, 0.03)
        draw.polygon(
            [
                (x * w, edge * h),
                ((x + 0.04) * w, edge * h),
                ((x * 1.4 - 0.15) * w, h),
                ((x * 1.4 - 0.22) * w, h),
            ],
            mix(cloth, wall, 0.4),
        )
    for y in sorted(rng.uniform(edge - 0.03, edge + 0.2) for _ in range(rng.randint(3, 8))):
        x, r = rng.uniform(0.12, 0.88) * w, rng.uniform(0.07, 0.15) * min(w, h) * 1.3
        draw.ellipse((x - r * 0.9, y * h + r * 0.55, x + r * 1.3, y * h + r * 1.05), mix(cloth, (0, 0, 0), 0.45))
        ball(
            draw,
            x,
            y * h,
            r,
            rng.choice([(190, 40, 40), (226, 150, 30), (120, 160, 50), (110, 50, 110), (220, 200, 60)]),
        )


OUTDOORS = {"hills": hills, "town": town, "sea": sea, "garden": garden, "fruit": fruit}
