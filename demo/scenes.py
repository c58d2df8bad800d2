"""The scenes of the gallery: what is to be seen, before anyone resized or recompressed it.

A scene is a window on one of the two photographs that ship with scikit-learn, or a drawing made in code. Everything
about it follows from the gallery's seed and its number.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from demo.figures import ON_PAPER
from demo.landscapes import OUTDOORS
from demo.words import TITLES

DRAWINGS = {**OUTDOORS, **ON_PAPER}
PHOTOGRAPHS = ("china", "flower")

# Width and height in pixels. Few are large, because drawing and encoding time grows with the area.
SIZES = (
    (640, 480),
    (800, 600),
    (480, 640),
    (720, 720),
    (1024, 768),
    (400, 300),
    (600, 800),
    (1280, 720),
    (300, 420),
    (960, 640),
    (500, 500),
    (640, 960),
    (240, 200),
    (1080, 810),
    (768, 1024),
    (1920, 1280),
    (700, 400),
    (360, 540),
    (1500, 2000),
    (900, 900),
)
WINDOWS = 13  # windows a photograph gives: the whole, four of about a half, eight of about a third


@dataclass(frozen=True)
class Scene:
    """One subject; `window` is (left, top, right, bottom) in fractions of a photograph, None for a drawing."""

    number: int
    kind: str
    seed: str
    title: str
    tags: tuple[str, ...]
    size: tuple[int, int]
    window: tuple[float, float, float, float] | None = None

    def draw(self, size: tuple[int, int]) -> Image.Image:
        """The scene as an RGB image of exactly `size` pixels."""
        if self.window is not None:
            photo = photograph(self.kind)
            w, h = photo.size
            left, top, right, bottom = self.window
            box = (left * w, top * h, right * w, bottom * h)
            return photo.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
        # Pillow's shapes have jagged edges; drawing at twice the size and halving it smooths them.
        factor = 2 if size[0] * size[1] < 1_000_000 and self.kind != "ripple" else 1
        image = Image.new("RGB", (size[0] * factor, size[1] * factor))
        DRAWINGS[self.kind](image, random.Random(self.seed))
        return image.reduce(factor) if factor > 1 else image


@functools.lru_cache(maxsize=2)
def photograph(name: str) -> Image.Image:
    """A 640x427 RGB photograph out of scikit-learn's own files."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(np.asarray(load_sample_image(f"{name}.jpg")))


@functools.lru_cache(maxsize=6)
def full_size(scene: Scene) -> Image.Image:
    """The scene at its own size; kept for a moment, since its altered copies are asked for together."""
    return scene.draw(scene.size)


def plan_scenes(seed: int, count: int) -> list[Scene]:
    """`count` scenes: every third a window on a photograph while there are any, the rest drawings."""
    rng = random.Random(f"scenes {seed}")
    windows = [(name, place) for name in PHOTOGRAPHS for place in range(WINDOWS)]
    rng.shuffle(windows)
    kinds = [kind for kind in DRAWINGS if kind != "blank"]
    scenes: list[Scene] = []
    drawn = 0
    for number in range(count):
        if number % 3 == 0 and windows:
            scenes.append(_photo_scene(seed, number, *windows.pop()))
        elif number % 29 == 13:
            scenes.append(_drawn_scene(seed, number, "blank"))
        else:
            scenes.append(_drawn_scene(seed, number, kinds[(drawn + seed) % len(kinds)]))
            drawn += 1
    return scenes


def _photo_scene(seed: int, number: int, kind: str, place: int) -> Scene:
    rng = random.Random(f"scene {seed} {number}")
    window = _window(place, rng)
    w, h = (window[2] - window[0]) * 640, (window[3] - window[1]) * 427
    enlarge = rng.choice((1.0, 1.5, 2.0)) if place < 5 else rng.choice((1.2, 2.0, 2.5, 4.0))
    size = max(200, round(w * enlarge)), max(200, round(h * enlarge))
    return _named(seed, number, kind, size, rng, window)


def _window(place: int, rng: random.Random) -> tuple[float, float, float, float]:
    """Window number `place`: whole, a quarter of the frame, or a cell of a 4x2 grid in a format of its own."""
    if place == 0:
        return 0.0, 0.0, 1.0, 1.0
    if place < 5:
        left, top = ((place - 1) % 2) * 0.47, ((place - 1) // 2) * 0.45
        return left, top, left + 0.53, top + 0.55
    column, row = (place - 5) % 4, (place - 5) // 4
    wide, tall = rng.choice(((0.25, 0.37), (0.22, 0.5), (0.3, 0.3), (0.2, 0.3)))
    left, top = min(column * 0.25, 1 - wide), min(row * 0.5, 1 - tall)
    return left, top, left + wide, top + tall


def _drawn_scene(seed: int, number: int, kind: str) -> Scene:
    rng = random.Random(f"scene {seed} {number}")
    portrait_first = kind in ("page", "face")
    sizes = [size for size in SIZES if not portrait_first or size[1] >= size[0]]
    return _named(seed, number, kind, sizes[rng.randrange(len(sizes))], rng, None)


def _named(
    seed: int,
    number: int,
    kind: str,
    size: tuple[int, int],
    rng: random.Random,
    window: tuple[float, float, float, float] | None,
) -> Scene:
    titles, tags = TITLES[kind]
    return Scene(number, kind, f"draw {seed} {number}", rng.choice(titles), (kind, *tags), size, window)
