"""Pictures that differ in colour alone: thin lines, words, dots, routes, grades; and what sliders do to colours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from support import load_step

from lib.dedup.compare import compare
from lib.dedup.fingerprints import fingerprint
from lib.hashing.buffers import Buffers

PHOTOGRAPHS = Path(str(find_spec("sklearn").submodule_search_locations[0])) / "datasets" / "images"
NAMES = ("china.jpg", "flower.jpg")
RED, BLUE, GREEN, ORANGE, PURPLE = (215, 40, 40), (40, 90, 220), (20, 130, 60), (230, 150, 20), (150, 60, 190)
TEAL, DARK, GREY = (20, 170, 180), (60, 60, 60), (95, 95, 95)
Colour = tuple[int, int, int]


def buffers_of(picture: Image.Image, folder: Path, **options: object) -> Buffers:
    path = folder / "picture"
    picture.save(path, **{"format": "JPEG", "quality": 90, **options})
    return Buffers.from_bytes(fingerprint(str(path)).packed)


def same(one: Image.Image, other: Image.Image, folder: Path, **options: object) -> bool:
    return compare(buffers_of(one, folder), buffers_of(other, folder, **options)).same


def photograph(name: str) -> Image.Image:
    with Image.open(PHOTOGRAPHS / name) as opened:
        return opened.convert("RGB")


def chart(*colours: Colour, width: int = 900) -> Image.Image:
    """Five lines over a grid; what each line shows is always the same."""
    luck = random.Random(4)
    made = Image.new("RGB", (width, width * 3 // 4), "white")
    draw, edge, height = ImageDraw.Draw(made), width // 12, width * 3 // 4
    draw.rectangle([edge, edge, width - edge, height - edge], outline=(0, 0, 0))
    for step in range(1, 5):
        draw.line([edge, height * step // 5, width - edge, height * step // 5], fill=(220, 220, 220))
    for number in range(5):
        level, points = luck.uniform(0.25, 0.75), []
        for step in range(13):
            level = min(0.85, max(0.15, level + luck.uniform(-0.12, 0.12)))
            points.append((edge + (width - 2 * edge) * step / 12, height * level))
        draw.line(points, fill=colours[number % len(colours)], width=max(1, width // 450))
    return made


def page(word: Colour = DARK, marker: Colour | None = None, width: int = 900) -> Image.Image:
    """Lines of words, the fortieth in another colour or marked."""
    luck = random.Random(7)
    made = Image.new("RGB", (width, width), "white")
    draw, size, number = ImageDraw.Draw(made), width / 40, 0
    for line in range(1, 22):
        x = width * 0.06
        while x < width * 0.84:
            text = "".join(luck.choice("aeinorstlm") for _ in range(luck.randint(2, 9)))
            length, y = draw.textlength(text, font_size=size), line * size * 1.7
            if number == 40 and marker:
                draw.rectangle([x, y, x + length, y + size * 1.3], fill=marker)
            draw.text((x, y), text, fill=word if number == 40 else DARK, font_size=size)
            x, number = x + length + size * 0.4, number + 1
    return made


def dots(*colours: Colour) -> Image.Image:
    luck = random.Random(2)
    made = Image.new("RGB", (800, 600), (250, 250, 250))
    draw = ImageDraw.Draw(made)
    for number in range(60):
        x, y = luck.uniform(20, 780), luck.uniform(20, 580)
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colours[number % len(colours)])
    return made


def routes(colour: Colour) -> Image.Image:
    """A map with woods and lakes, streets and one route."""
    luck = random.Random(11)
    made = Image.new("RGB", (800, 640), (240, 236, 226))
    draw = ImageDraw.Draw(made)
    for number in range(14):
        x, y, side = luck.uniform(0, 800), luck.uniform(0, 640), luck.uniform(50, 200)
        draw.ellipse([x, y, x + side, y + side], fill=((200, 225, 190), (170, 205, 230))[number % 2])
    for _ in range(20):
        ends = [(luck.uniform(0, 800), luck.uniform(0, 640)) for _ in range(2)]
        draw.line(ends, fill=(255, 255, 255), width=5)
    draw.line([(luck.uniform(80, 720), luck.uniform(60, 580)) for _ in range(5)], fill=colour, width=4)
    return made


def ruled(colour: Colour) -> Image.Image:
    made = page()
    ImageDraw.Draw(made).line([60, 430, 840, 430], fill=colour, width=2)
    return made


FIVE = (RED, BLUE, GREEN, ORANGE, PURPLE)
APART: dict[str, tuple[Callable[[], Image.Image], Callable[[], Image.Image]]] = {
    "all lines in another colour": (lambda: chart(RED), lambda: chart(BLUE)),
    "red lines or grey ones": (lambda: chart(RED), lambda: chart(GREY)),
    "one line of five": (lambda: chart(*FIVE), lambda: chart(RED, BLUE, TEAL, ORANGE, PURPLE)),
    "one line of five, now grey": (lambda: chart(*FIVE), lambda: chart(RED, BLUE, GREEN, ORANGE, GREY)),
    "the same five colours by turns": (lambda: chart(*FIVE), lambda: chart(*FIVE[2:], *FIVE[:2])),
    "one line of five in colour": (lambda: chart(DARK, DARK, RED, DARK, DARK), lambda: chart(DARK)),
    "one of five, in a large chart": (lambda: chart(*FIVE, width=1700), lambda: chart(*FIVE[:4], TEAL, width=1700)),
    "dots": (lambda: dots(RED, BLUE, GREEN), lambda: dots(BLUE, GREEN, RED)),
    "one dot in six": (lambda: dots(*[DARK] * 5, RED), lambda: dots(DARK)),
    "one dot in six, in colour both": (lambda: dots(*FIVE, RED), lambda: dots(*FIVE, TEAL)),
    "a word": (lambda: page(RED), lambda: page(BLUE)),
    "a red word": (lambda: page((190, 20, 20)), lambda: page()),
    "a marked word": (lambda: page(marker=(255, 240, 90)), lambda: page(marker=(170, 255, 170))),
    "a route": (lambda: routes(RED), lambda: routes(BLUE)),
    "another route": (lambda: routes(PURPLE), lambda: routes(GREEN)),
    "a ruled line": (lambda: ruled(RED), lambda: ruled((84, 84, 84))),
}
SAVED = ({"format": "PNG"}, {"format": "JPEG", "quality": 80})


@pytest.mark.parametrize("options", SAVED, ids=lambda options: options["format"])
@pytest.mark.parametrize("kind", APART)
def test_another_colour_in_thin_places_is_another_picture(tmp_path: Path, kind: str, options: dict[str, object]):
    one, other = (make() for make in APART[kind])
    assert not same(one, other, tmp_path, **options)
    assert not same(other, one, tmp_path, **options)


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "chart": lambda: chart(*FIVE),
    "page": lambda: page(RED, marker=(255, 240, 90)),
    "dots": lambda: dots(RED, BLUE, DARK),
    "map": lambda: routes(RED),
}
COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, object]]] = {
    "JPEG 70": (lambda p: p, {"quality": 70}),
    "WebP": (lambda p: p, {"format": "WEBP", "quality": 80}),
    "smaller": (lambda p: p.resize((p.width * 7 // 10, p.height * 7 // 10), Image.Resampling.LANCZOS), {}),
    "paler": (lambda p: ImageEnhance.Color(p).enhance(0.5), {}),
    "darker": (lambda p: ImageEnhance.Brightness(p).enhance(0.8), {}),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("kind", DRAWN)
def test_a_copy_of_a_drawing_has_the_same_colours(tmp_path: Path, kind: str, copy: str):
    picture = DRAWN[kind]()
    alter, options = COPIES[copy]
    assert same(picture, alter(picture), tmp_path, **options)


def channels(picture: Image.Image, *curves: Callable[[float], float]) -> Image.Image:
    return picture.point([round(255 * min(1.0, max(0.0, curve(v / 255)))) for curve in curves for v in range(256)])


def sepia(picture: Image.Image) -> Image.Image:
    weights = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    return Image.fromarray((np.asarray(picture, np.float32) @ weights.T).clip(0, 255).astype(np.uint8))


def split_toned(picture: Image.Image) -> Image.Image:
    """Orange lights and teal shadows."""
    values, luma = np.asarray(picture, np.float32), np.asarray(picture.convert("L"), np.float32)[..., None] / 255
    tint = 20 * (luma * np.array([1, 0.1, -1]) + (1 - luma) * np.array([-1, 0.2, 1]))
    return Image.fromarray((values + tint).clip(0, 255).astype(np.uint8))


def turned_hues(picture: Image.Image) -> Image.Image:
    hue, *others = picture.convert("HSV").split()
    return Image.merge("HSV", (hue.point([(v + 12) % 256 for v in range(256)]), *others)).convert("RGB")


GRADES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "warmer": lambda p: channels(p, lambda v: 1.09 * v, lambda v: v, lambda v: 0.91 * v),
    "colder": lambda p: channels(p, lambda v: 0.92 * v, lambda v: v, lambda v: 1.08 * v),
    "greener": lambda p: channels(p, lambda v: v, lambda v: 1.07 * v, lambda v: v),
    "sepia": sepia,
    "a little sepia": lambda p: Image.blend(p, sepia(p), 0.4),
    "a curve for each channel": lambda p: channels(p, lambda v: v**0.85, lambda v: v, lambda v: v**1.15),
    "cross-processed": lambda p: channels(p, lambda v: v * v * (3 - 2 * v), lambda v: v, lambda v: 0.1 + 0.8 * v),
    "teal and orange": split_toned,
    "turned hues": turned_hues,
    "sepia, then darker": lambda p: ImageEnhance.Brightness(sepia(p)).enhance(0.8),
}


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("name", NAMES)
def test_a_graded_copy_is_left_for_review(tmp_path: Path, name: str, grade: str):
    picture = photograph(name)
    assert not same(picture, GRADES[grade](picture), tmp_path)


SLIDERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saturation .4": lambda p: ImageEnhance.Color(p).enhance(0.4),
    "saturation 1.6": lambda p: ImageEnhance.Color(p).enhance(1.6),
    "brightness .7": lambda p: ImageEnhance.Brightness(p).enhance(0.7),
    "brightness 1.3": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "contrast .6": lambda p: ImageEnhance.Contrast(p).enhance(0.6),
    "contrast 1.4": lambda p: ImageEnhance.Contrast(p).enhance(1.4),
    "gamma .7": lambda p: channels(p, *[lambda v: v**0.7] * 3),
    "gamma 1.4": lambda p: channels(p, *[lambda v: v**1.4] * 3),
    "grey": lambda p: p.convert("L").convert("RGB"),
    "paler and brighter": lambda p: ImageEnhance.Brightness(ImageEnhance.Color(p).enhance(0.6)).enhance(1.15),
}


@pytest.mark.parametrize("slider", SLIDERS)
@pytest.mark.parametrize("name", NAMES)
def test_sliders_leave_the_same_picture(tmp_path: Path, name: str, slider: str):
    picture = photograph(name)
    assert same(picture, SLIDERS[slider](picture), tmp_path)


def plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What is to become of each file, by name: "stays", "remove", "review" or "keep"."""
    capsys.readouterr()
    words = [str(folder), "--workspace", str(folder.parent / "ws"), "--workers", "1", "--json", "--dry-run"]
    assert load_step("dedup").main(words) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    found = {path.name: "stays" for path in folder.iterdir()}
    found.update({Path(m["path"]).name: m["decision"] for group in groups for m in group["members"]})
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_coloured_photograph_stays_before_its_better_grey_version(tmp_path: Path, capsys, name: str):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = photograph(name)
    picture.save(folder / "coloured.jpg", quality=75)
    picture.convert("L").save(folder / "grey.png")
    assert plan(folder, capsys) == {"coloured.jpg": "stays", "grey.png": "remove"}


@pytest.mark.parametrize("colour", [RED, BLUE])
@pytest.mark.parametrize("side", [600, 1500])
def test_a_page_with_one_thin_coloured_line_is_a_coloured_picture(tmp_path: Path, capsys, colour: Colour, side: int):
    folder = tmp_path / "pages"
    folder.mkdir()
    made = page(width=side)
    ImageDraw.Draw(made).line([side // 15, side * 0.47, side - side // 15, side * 0.47], fill=colour, width=2)
    made.save(folder / "coloured.jpg", quality=85)
    made.convert("L").save(folder / "grey.png")
    assert plan(folder, capsys)["coloured.jpg"] != "remove"
