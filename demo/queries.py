"""Pictures to search with: altered views of the gallery's scenes, none of them a file that it serves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image, ImageEnhance

from demo.alterations import encode
from demo.catalog import Picture
from demo.scenes import PHOTOGRAPHS, Scene, full_size


def write_queries(pictures: list[Picture], folder: Path) -> list[Path]:
    """Write three query pictures (a photograph, a drawing, another photograph as PNG) and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, scene, encoding in query_scenes(pictures):
        path = folder / name
        path.write_bytes(encode(disturbed(full_size(scene)), encoding, 80))
        written.append(path)
    return written


def query_scenes(pictures: list[Picture]) -> list[tuple[str, Scene, str]]:
    """File name, scene and encoding of each query: the scenes with most copies, of different kinds."""
    copies = Counter(picture.scene for picture in pictures)
    ranked = [
        scene for scene, _ in sorted(copies.items(), key=lambda row: (-row[1], row[0].number)) if scene.kind != "blank"
    ]
    photos = [scene for scene in ranked if scene.kind in PHOTOGRAPHS]
    drawings = [scene for scene in ranked if scene.kind not in PHOTOGRAPHS]
    chosen = []
    if photos:
        chosen.append(("query-photo.jpg", photos[0], "jpeg"))
    if drawings:
        chosen.append(("query-drawing.jpg", drawings[0], "jpeg"))
    others = [scene for scene in photos[1:] if scene.kind != photos[0].kind] or photos[1:]
    if others:
        chosen.append(("query-detail.png", others[0], "png"))
    return chosen


def disturbed(image: Image.Image) -> Image.Image:
    """The picture a little cut, shrunk and brightened, as a screenshot of it might be."""
    w, h = image.size
    cut = image.crop((round(0.02 * w), round(0.03 * h), round(0.985 * w), round(0.98 * h)))
    share = min(0.9, 900 / max(cut.size))
    small = cut.resize((round(cut.width * share), round(cut.height * share)), Image.Resampling.LANCZOS)
    return ImageEnhance.Brightness(small).enhance(1.04)
