"""Finds pictures: by likeness to an uploaded one, or by words in titles and tags."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image, ImageOps

from demo.catalog import Picture, shrunk

SKETCH_SIDE = 192  # pixels; a perceptual hash looks at 32x32, so a sketch tells as much as the picture
GRID = 4  # the colour of a picture is told by GRID x GRID mean colours

FILTERS = ("isize", "iorient", "itype", "type")
SIZE_LIMITS = {
    "large": (1_000_000, 10**9),
    "medium": (150_000, 1_000_000),
    "small": (0, 150_000),
    "wallpaper": (700_000, 10**9),
    "enormous": (1_920_000, 10**9),
    "tiny": (0, 22_500),
}
ENCODINGS = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp", "gif": "gif", "gifan": "gif-animated"}


@dataclass(frozen=True)
class Likeness:
    """What is compared: phash bits, shape (64,) bool; mean colours, shape (GRID, GRID, 3) float32 in 0..1."""

    bits: np.ndarray
    colours: np.ndarray


def likeness(image: Image.Image) -> Likeness:
    """The features of an upright RGB picture."""
    grid = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX), np.float32) / 255
    return Likeness(imagehash.phash(image).hash.ravel(), grid)


def read_upload(body: bytes) -> Image.Image:
    """An uploaded file as an upright RGB picture of sketch size; raises ValueError if it is no picture."""
    try:
        with Image.open(io.BytesIO(body)) as opened:
            opened.draft("RGB", (SKETCH_SIDE * 2, SKETCH_SIDE * 2))
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture: {error}") from error
    return image.resize(shrunk(image.size, SKETCH_SIDE), Image.Resampling.BOX)


class Index:
    """The gallery's pictures with their features; every answer is a full ranking, best first, always the same."""

    def __init__(self, pictures: list[Picture], results: int) -> None:
        self.pictures = pictures
        self.results = results  # the most a search lists
        features = [likeness(sketch(picture)) for picture in pictures]
        self._bits = np.array([feature.bits for feature in features])
        self._colours = np.array([feature.colours for feature in features])
        self._scenes = np.array([picture.scene.number for picture in pictures])

    def by_image(self, image: Image.Image) -> list[Picture]:
        """Pictures by likeness; copies of one scene stand together, as an engine knows them for copies."""
        own = self._distances(image)
        best: dict[int, float] = {}
        for scene, distance in zip(self._scenes.tolist(), own.tolist(), strict=True):
            best[scene] = min(distance, best.get(scene, 9.0))
        order = sorted(range(len(own)), key=lambda i: (best[int(self._scenes[i])], int(self._scenes[i]), own[i], i))
        return [self.pictures[i] for i in order[: self.results]]

    def by_text(self, text: str) -> list[Picture]:
        """Pictures whose title or tags have any of the words, those with most of them first."""
        words = [_stem(word) for word in re.findall(r"\w+", text.lower())]
        scored = []
        for picture in self.pictures:
            stems = {_stem(word) for word in re.findall(r"\w+", " ".join((picture.title, *picture.tags)).lower())}
            hits = sum(word in stems for word in words)
            if hits:
                scored.append((-hits, picture.id, picture))
        return [picture for _, _, picture in sorted(scored, key=lambda row: row[:2])[: self.results]]

    def _distances(self, image: Image.Image) -> np.ndarray:
        """Distance of every picture, shape (N,), from 0 (the same) to about 1; a mirrored twin is near."""
        straight, turned = likeness(image), likeness(ImageOps.mirror(image))
        return np.minimum(self._distance(straight), self._distance(turned) + 0.02)

    def _distance(self, query: Likeness) -> np.ndarray:
        shape = (self._bits != query.bits).mean(axis=1) * 2  # unrelated pictures differ in half of the bits
        colour = np.abs(self._colours - query.colours).mean(axis=(1, 2, 3)) * 3
        return 0.6 * shape + 0.4 * np.minimum(colour, 1)


def sketch(picture: Picture) -> Image.Image:
    """A picture drawn small, alterations included; recompression does not show at this size."""
    scene = picture.scene
    return picture.alteration.apply(scene.draw(shrunk(scene.size, SKETCH_SIDE)))


def _stem(word: str) -> str:
    """Cuts the endings that Russian and English words change: five letters tell the titles of the gallery apart."""
    return word[:5]


def filtered(found: list[Picture], wanted: Mapping[str, str]) -> list[Picture]:
    """The pictures that pass every filter; a value nobody knows lets all pass."""
    return [picture for picture in found if all(_passes(picture, name, value) for name, value in wanted.items())]


def _passes(picture: Picture, name: str, value: str) -> bool:
    w, h = picture.size
    if name == "isize":
        low, high = SIZE_LIMITS.get(value, (0, 10**9))
        return low <= w * h < high
    if name == "iorient":
        return value == ("square" if abs(w - h) < 0.1 * max(w, h) else "horizontal" if w > h else "vertical")
    if name == "itype":
        return picture.alteration.encoding.startswith(ENCODINGS.get(value, ""))
    return {"photo": "photo" in picture.tags, "clipart": "drawing" in picture.tags}.get(value, True)
