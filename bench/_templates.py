"""Pictures that share a template and differ in content: forms, boards, captions, scans, each a kind of its own.

`KINDS` maps a name to a function that draws the content of one number on the kind's template: (number, side) -> an RGB
picture whose short side is `side` pixels. Two numbers give two different pictures that nobody would take for one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Draw = Callable[[int, int], Image.Image]
KINDS: dict[str, Draw] = {}
BASE = 1200  # pixels of the short side as drawn; every size is reduced from it
INK, PAPER = (25, 25, 30), (252, 252, 250)


def kind(across: float) -> Callable[[Callable[[random.Random, Any, int, int], None]], Draw]:
    """Registers a function that draws on white paper of `across` times the height (or of its inverse below 1)."""

    def register(draw_on: Callable[[random.Random, Any, int, int], None]) -> Draw:
        name = draw_on.__name__.replace("_", "-")

        @lru_cache(maxsize=4)
        def whole(number: int) -> Image.Image:
            width, height = (round(BASE * across), BASE) if across >= 1 else (BASE, round(BASE / across))
            made = Image.new("RGB", (width, height), PAPER)
            draw_on(random.Random(f"{name} {number}"), ImageDraw.Draw(made), width, height)
            return made

        def draw(number: int, side: int) -> Image.Image:
            made = whole(number)
            factor = side / BASE
            if factor == 1:
                return made.copy()
            return made.resize([round(s * factor) for s in made.size], Image.Resampling.LANCZOS)

        KINDS[name] = draw
        return draw

    return register


def shared(what: str) -> random.Random:
    """Returns the chance that all pictures of a kind share: it draws the template."""
    return random.Random(what)


def put(
    draw: Any, x: float, y: float, text: Any, size: float, fill: Any = INK, anchor: str = "mm", edge: int = 0
) -> None:
    """Draws words of so many pixels, with a white edge if asked."""
    draw.text((x, y), str(text), fill=fill, font_size=size, anchor=anchor, stroke_width=edge, stroke_fill="white")


def words(luck: random.Random, count: int) -> str:
    made = ("".join(luck.choice("aeioubcdfglmnprstvy") for _ in range(luck.randint(3, 9))) for _ in range(count))
    return " ".join(made)


def digits(luck: random.Random, count: int) -> str:
    return "".join(luck.choice("0123456789") for _ in range(count))


@kind(1)
def sudoku(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """Givens in the same cells, other digits."""
    edge, cell = width * 0.04, width * 0.92 / 9
    for i in range(10):
        at, line = edge + i * cell, 8 if i % 3 == 0 else 2
        draw.line([edge, at, width - edge, at], fill=INK, width=line)
        draw.line([at, edge, at, width - edge], fill=INK, width=line)
    for place in shared("sudoku").sample(range(81), 30):
        put(draw, edge + (place % 9 + 0.5) * cell, edge + (place // 9 + 0.5) * cell, luck.randint(1, 9), cell * 0.62)


@kind(1)
def sudoku_solved(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """One board; of its 81 digits two are exchanged."""
    sudoku_board = [(3 * (row % 3) + row // 3 + column) % 9 + 1 for row in range(9) for column in range(9)]
    one, other = luck.sample(range(81), 2)
    sudoku_board[one] = sudoku_board[one] % 9 + 1
    sudoku_board[other] = sudoku_board[other] % 9 + 1
    cell = width / 9
    for place, digit in enumerate(sudoku_board):
        x, y = place % 9 * cell, place // 9 * cell
        draw.rectangle([x, y, x + cell, y + cell], outline=INK, width=3)
        put(draw, x + cell / 2, y + cell / 2, digit, cell * 0.6)


@kind(0.7)
def form(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """Lines and labels; three of fourteen fields were filled in otherwise."""
    template = shared("form")
    put(draw, width * 0.08, height * 0.04, "Application for registration", width * 0.045, anchor="la")
    for row in range(14):
        y = height * (0.12 + row * 0.06)
        put(draw, width * 0.08, y, words(template, 2), width * 0.02, fill=(90, 90, 90), anchor="la")
        draw.rectangle([width * 0.4, y, width * 0.92, y + height * 0.035], outline=INK, width=2)
        who = luck if row in (2, 7, 12) else template
        filled = words(who, 2) if row % 3 else digits(who, 8)
        put(draw, width * 0.42, y + height * 0.006, filled, width * 0.032, fill=(20, 30, 120), anchor="la")


@kind(0.7)
def letter(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """A page of words with a number at its top."""
    template = shared("letter")
    for row in range(30):
        y = height * (0.08 + row * 0.028)
        put(draw, width * 0.1, y, words(template, 8)[:62], width * 0.024, anchor="la")
    draw.rectangle([width * 0.55, height * 0.02, width * 0.9, height * 0.065], fill=PAPER)
    put(draw, width * 0.56, height * 0.02, f"No. {digits(luck, 4)}", width * 0.05, anchor="la")


@kind(0.5)
def receipt(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """The same things, another sum."""
    template = shared("receipt")
    put(draw, width / 2, height * 0.05, "CORNER SHOP", width * 0.09)
    for row in range(16):
        y = height * (0.12 + row * 0.045)
        put(draw, width * 0.08, y, words(template, 1).upper(), width * 0.05, anchor="la")
        put(draw, width * 0.92, y, f"{template.randint(1, 99)}.{digits(template, 2)}", width * 0.05, anchor="ra")
    put(draw, width * 0.08, height * 0.88, "TOTAL", width * 0.08, anchor="la")
    put(draw, width * 0.92, height * 0.88, f"{luck.randint(100, 999)}.{digits(luck, 2)}", width * 0.08, anchor="ra")


@kind(1.3)
def calendar(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """The days of a month; another day is marked."""
    draw.rectangle([0, 0, width, height * 0.16], fill=(180, 40, 40))
    put(draw, width / 2, height * 0.08, "August 2026", height * 0.09, fill="white")
    marked = luck.randint(1, 31)
    for place in range(42):
        x, y = width * (place % 7) / 7, height * (0.16 + 0.14 * (place // 7))
        draw.rectangle([x, y, x + width / 7, y + height * 0.14], outline=(150, 150, 150), width=2)
        if 0 <= (day := place - 5) < 31:
            if day + 1 == marked:
                draw.ellipse([x + width * 0.045, y + 25, x + width * 0.1, y + height * 0.12], outline=INK, width=6)
            put(draw, x + width / 14, y + height * 0.07, day + 1, height * 0.06)


@kind(1.7)
def score_board(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """One team's score is another."""
    draw.rectangle([0, 0, width, height], fill=(15, 40, 25))
    put(draw, width * 0.25, height * 0.2, "HOME", height * 0.12, fill=(240, 240, 240))
    put(draw, width * 0.75, height * 0.2, "GUEST", height * 0.12, fill=(240, 240, 240))
    put(draw, width * 0.25, height * 0.5, f"8{luck.randint(0, 9)}", height * 0.16, fill=(250, 180, 40))
    put(draw, width * 0.75, height * 0.5, "73", height * 0.16, fill=(250, 180, 40))
    put(draw, width / 2, height * 0.88, f"41:{luck.randint(10, 59)}", height * 0.08, fill=(230, 60, 50))


@kind(1.4)
def town_map(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """Streets and a river; the name of one place differs."""
    template = shared("map")
    draw.rectangle([0, 0, width, height], fill=(238, 234, 222))
    for _ in range(12):
        x, y = template.random() * width, template.random() * height
        draw.ellipse([x, y, x + width * 0.12, y + height * 0.13], fill=(198, 224, 180))
    river = [(width * i / 12, height * (0.5 + 0.2 * template.uniform(-1, 1))) for i in range(13)]
    draw.line(river, fill=(150, 190, 230), width=40, joint="curve")
    for _ in range(40):
        draw.line([template.random() * side for side in (width, height, width, height)], fill="white", width=9)
    for _ in range(25):
        x, y = template.random() * width * 0.85, template.random() * height * 0.9
        put(draw, x, y, words(template, 1).title(), height * 0.028, fill=(80, 80, 80), anchor="la")
    put(draw, width * 0.4, height * 0.35, words(luck, 1).title()[:7], height * 0.05, edge=6)


@kind(1.6)
def screenshot(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """A page of a program with one balance in it."""
    template = shared("screen")
    draw.rectangle([0, 0, width, height * 0.07], fill=(40, 70, 130))
    draw.rectangle([0, height * 0.07, width * 0.2, height], fill=(230, 233, 240))
    for row in range(10):
        word = words(template, 1).title()
        put(draw, width * 0.02, height * (0.11 + row * 0.06), word, height * 0.03, fill=(70, 70, 90), anchor="la")
    for row in range(9):
        y = height * (0.4 + row * 0.06)
        draw.line([width * 0.24, y, width * 0.97, y], fill=(215, 215, 220), width=2)
        put(draw, width * 0.25, y + 12, words(template, 4), height * 0.028, fill=(70, 70, 70), anchor="la")
    put(draw, width * 0.25, height * 0.12, "Your balance", height * 0.04, fill=(90, 90, 90), anchor="la")
    put(draw, width * 0.25, height * 0.2, f"4,{digits(luck, 3)}.{digits(luck, 2)}", height * 0.06, anchor="la")


@kind(1.5)
def licence_plate(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """A car's back; on its plate two digits differ."""
    draw.rectangle([0, 0, width, height], fill=(120, 125, 130))
    draw.rounded_rectangle([width * 0.05, height * 0.15, width * 0.95, height * 0.95], 90, fill=(70, 90, 140))
    for side in (0.12, 0.8):
        draw.ellipse([width * side, height * 0.4, width * (side + 0.08), height * 0.55], fill=(190, 30, 30))
    box = [width * 0.33, height * 0.68, width * 0.67, height * 0.8]
    draw.rounded_rectangle(box, 16, fill=(245, 245, 240), outline=INK, width=5)
    put(draw, width * 0.5, height * 0.74, f"KLM 40{digits(luck, 2)}", height * 0.09)


@kind(1)
def chess_board(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """One piece stands on another square."""
    cell = width / 8
    for place in range(64):
        x, y = place % 8 * cell, place // 8 * cell
        fill = (240, 217, 181) if (place + place // 8) % 2 == 0 else (181, 136, 99)
        draw.rectangle([x, y, x + cell, y + cell], fill=fill)
    template = shared("chess")
    squares = template.sample(range(64), 21)
    squares.remove(luck.choice(squares[:6]))
    for place in squares:
        x, y = (place % 8 + 0.5) * cell, (place // 8 + 0.5) * cell
        ink, line = (INK, PAPER) if place % 3 else (PAPER, INK)
        body = [(x, y - cell * 0.35), (x - cell * 0.22, y + cell * 0.35), (x + cell * 0.22, y + cell * 0.35)]
        draw.polygon(body, fill=ink, outline=line)


@kind(0.75)
def sheet_music(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """The same rhythm; four notes lie elsewhere."""
    template, others = shared("music"), luck.sample(range(96), 4)
    for stave in range(6):
        top, gap = height * (0.08 + stave * 0.15), height * 0.012
        for line in range(5):
            draw.line([width * 0.06, top + line * gap, width * 0.94, top + line * gap], fill=INK, width=3)
        for note in range(16):
            step = template.randint(0, 8)
            step = (step + luck.randint(2, 7)) % 9 if stave * 16 + note in others else step
            x, y = width * (0.12 + note * 0.05), top + step * gap / 2
            draw.ellipse([x, y - gap * 0.5, x + gap * 1.3, y + gap * 0.5], fill=INK)
            draw.line([x + gap * 1.3, y, x + gap * 1.3, y - gap * 3.2], fill=INK, width=4)


@kind(1.5)
def bar_chart(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """One bar is higher or lower."""
    template, odd = shared("bars"), luck.randrange(8)
    axes = [width * 0.1, height * 0.05, width * 0.1, height * 0.9, width * 0.95, height * 0.9]
    draw.line(axes, fill=INK, width=4)
    for i in range(8):
        put(draw, width * 0.08, height * (0.9 - i * 0.1), str(i * 10), height * 0.03, anchor="rm")
        tall = template.uniform(0.3, 0.7) * (luck.choice((0.88, 1.12)) if i == odd else 1)
        x = width * (0.13 + i * 0.1)
        draw.rectangle([x, height * (0.9 - tall), x + width * 0.07, height * 0.9], fill=(60, 110, 180))


@kind(1.5)
def line_chart(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """One course, another by a little from half of it on."""
    template, level, points = shared("line"), 0.5, []
    axes = [width * 0.1, height * 0.05, width * 0.1, height * 0.9, width * 0.95, height * 0.9]
    draw.line(axes, fill=INK, width=4)
    for i in range(8):
        y = height * (0.9 - i * 0.1)
        draw.line([width * 0.1, y, width * 0.95, y], fill=(210, 210, 210), width=2)
    for i in range(40):
        level += template.uniform(-0.05, 0.05) + (luck.uniform(-0.03, 0.03) if i > 20 else 0)
        level = min(0.85, max(0.15, level))
        points.append((width * (0.1 + 0.85 * i / 39), height * (0.95 - level)))
    draw.line(points, fill=(40, 90, 170), width=6, joint="curve")


@kind(1)
def square_code(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """The dots of a QR-like code; one in twelve is another."""
    cell, template = width / 33, shared("code")
    for place in range(25 * 25):
        x, y = (place % 25 + 4) * cell, (place // 25 + 4) * cell
        if (template.random() < 0.5) != (luck.random() < 1 / 12):
            draw.rectangle([x, y, x + cell - 1, y + cell - 1], fill=INK)
    for x, y in ((4, 4), (22, 4), (4, 22)):
        for inset, fill in ((0, INK), (1, PAPER), (2, INK)):
            box = [(x + inset) * cell, (y + inset) * cell, (x + 7 - inset) * cell, (y + 7 - inset) * cell]
            draw.rectangle(box, fill=fill)


@kind(1)
def clock_face(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """Another minute of the same hour."""
    middle, reach = width / 2, width * 0.46
    draw.ellipse([middle - reach, middle - reach, middle + reach, middle + reach], outline=INK, width=14)
    for hour in range(1, 13):
        turn = np.pi * hour / 6
        at = middle + np.sin(turn) * reach * 0.84, middle - np.cos(turn) * reach * 0.84
        put(draw, *at, str(hour), width * 0.08)
    for turn, length, line in ((3.5 / 12, 0.5, 18), (luck.randrange(20) / 20, 0.62, 8)):
        across, down = np.sin(2 * np.pi * turn) * reach * length, np.cos(2 * np.pi * turn) * reach * length
        draw.line([middle, middle, middle + across, middle - down], fill=INK, width=line)


@kind(1.4)
def table(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """Rows of figures, one of which differs."""
    template, other = shared("table"), digits(luck, 4)
    for place in range(72):
        x, y = width * (0.05 + place % 6 * 0.155), height * (0.05 + place // 6 * 0.078)
        draw.rectangle([x, y, x + width * 0.155, y + height * 0.078], outline=(120, 120, 120), width=2)
        text = digits(template, 4)
        put(draw, x + width * 0.02, y + height * 0.015, other if place == 37 else text, height * 0.048, anchor="la")


@kind(1)
def identity_card(luck: random.Random, draw: Any, width: int, height: int) -> None:
    """Another number."""
    template = shared("card")
    draw.rectangle([0, 0, width, height], fill=(210, 225, 235))
    draw.rectangle([width * 0.06, height * 0.25, width * 0.36, height * 0.7], fill=(160, 170, 180))
    draw.ellipse([width * 0.13, height * 0.3, width * 0.29, height * 0.5], fill=(225, 190, 160))
    draw.pieslice([width * 0.08, height * 0.5, width * 0.34, height * 0.9], 180, 360, fill=(60, 70, 110))
    put(draw, width * 0.06, height * 0.1, "MEMBER", height * 0.1, fill=(20, 40, 90), anchor="la")
    for row in range(4):
        text = words(template, 1).title() if row < 2 else digits(luck if row == 3 else template, 8)
        put(draw, width * 0.42, height * (0.28 + row * 0.11), text, height * 0.055, anchor="la")


def scan(number: int, side: int) -> Image.Image:
    """Draws a slice of a smooth body inside one outline: neighbours differ in what is inside, softly."""
    return _slice(number).resize((side, side), Image.Resampling.LANCZOS)


@lru_cache(maxsize=8)
def _slice(number: int, side: int = 640) -> Image.Image:
    places = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(places, places)
    chance = np.random.default_rng(11)
    inside = np.zeros((side, side), np.float32)
    for _ in range(70):  # lumps at depths; a slice shows those that are near it
        cx, cy, depth = chance.uniform(-0.6, 0.6), chance.uniform(-0.75, 0.75), chance.uniform(-2, 14)
        size, strength = chance.uniform(0.05, 0.2), chance.uniform(-70, 90)
        near = np.exp(-(((depth - number) / 1.2) ** 2))
        inside += (strength * near * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / size**2)).astype(np.float32)
    radius = np.hypot(x / 0.74, y / 0.92)
    body = np.where(radius < 0.9, 95 + inside, np.where(radius < 1, 225, 6))
    grains = np.random.default_rng(number).normal(0, 3, body.shape)
    made = Image.fromarray((body + grains).clip(0, 255).astype(np.uint8))
    return made.filter(ImageFilter.GaussianBlur(1)).convert("RGB")


KINDS["scan"] = scan


def captioned(photo: Image.Image, number: int, share: float, place: tuple[float, float] = (0.06, 0.86)) -> Image.Image:
    """Returns a photograph with a number and words; `share` of the short side is the height of the letters."""
    made = photo.convert("RGB")
    size = min(made.size) * share
    at = made.width * place[0], made.height * place[1]
    line = max(1, round(size * 0.07))
    ImageDraw.Draw(made).text(
        at, f"{number} reasons to stay", fill="white", font_size=size / 0.72, stroke_width=line, stroke_fill="black"
    )
    return made


def contents(photos: list[Path], count: int, seed: int) -> Iterator[tuple[str, Image.Image]]:
    """Yields (name, picture) of `count` contents of every template, and of captions at two sizes over photographs.

    Short sides of 500 to 1224 pixels, up to 2 megapixels; two contents of a kind are never the same picture.
    Photographs are as they are: enlarged, they would be no originals.
    """
    for name, draw in KINDS.items():
        known: set[bytes] = set()
        for number in range(count):
            side = random.Random(f"{seed} {name} {number}").choice((500, 900, 1224))
            if (look := draw(number, 200).tobytes()) not in known:
                known.add(look)
                yield f"{name}-{number}", draw(number, side)
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        for share in (0.05, 0.075):
            for digit in (3, 8, 1)[:count]:
                yield f"caption{share:.1%}-{number}-{digit}", captioned(photo, digit, share)


def tiled(picture: Image.Image, luck: random.Random) -> Image.Image:
    """Returns a larger copy with pale words all over it, straight or slanting, at an opacity of 8 to 40 %."""
    large = picture.resize([round(side * 1.25) for side in picture.size], Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", large.size, (0, 0, 0, 0))
    draw, size = ImageDraw.Draw(layer), large.width // luck.randint(10, 18)
    word, opacity = luck.choice(("stockphoto", "SAMPLE", "preview")), round(255 * luck.uniform(0.08, 0.4))
    for row, y in enumerate(range(-size, large.height, round(size * luck.uniform(1.6, 2.4)))):
        for x in range(-size * (1 + row % 3), large.width, size * 6):
            draw.text((x, y), word, fill=(255, 255, 255, opacity), font_size=size)
    layer = layer.rotate(luck.choice((0, 0, 20, 30)))
    return Image.alpha_composite(large.convert("RGBA"), layer).convert("RGB")


def hidden(picture: Image.Image, luck: random.Random, how: str) -> Image.Image:
    """Returns the picture with an area covered, pixelated or blurred, 20 to 40 % a side."""
    made, (width, height) = picture.copy(), picture.size
    share = luck.uniform(0.2, 0.4)
    left, top = round(width * luck.uniform(0, 1 - share)), round(height * luck.uniform(0, 1 - share))
    part = picture.crop((left, top, left + round(width * share), top + round(height * share)))
    coarse = 1 if how == "covered" else luck.choice((8, 12, 16))
    if how == "blurred-area":
        part = part.filter(ImageFilter.GaussianBlur(width * share / 14))
    else:
        small = part.resize((coarse, coarse), Image.Resampling.BOX)
        part = small.resize(part.size, Image.Resampling.NEAREST)
    made.paste(part, (left, top))
    return made
