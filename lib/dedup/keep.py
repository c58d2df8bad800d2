"""The order in which files are kept: documented, total and deterministic."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lib.errors import is_broken_installation
from lib.files.pictures import PictureFile
from lib.images.colours import SRGB, ColourSpace
from lib.images.decode import ORIENTATION, exif_of, format_of, orientation_of, turned
from lib.images.frames import opened_frames
from lib.quality.score import jpeg_quality

SIDECARS = (".json", ".txt", ".xmp", ".caption")
# Photographs are squeezed into a palette, drawings fit into a small one: a larger one is no lossless copy.
SMALL_PALETTE = 128  # colours
LOSSLESS = frozenset({"png", "bmp", "tiff", "ppm", "tga", "pcx", "dib"})
# Formats whose files do not tell their quality stand between a good and a fair JPEG; GIF has 256 colours.
QUALITY_UNKNOWN, QUALITY_GIF, QUALITY_LOSSLESS = 80, 60, 100
_PACKED = struct.Struct("<IIB?B12s")  # Pillow's names of formats have 8 letters at most
TRAITS_BYTES = _PACKED.size


@dataclass(frozen=True)
class Traits:
    """The traits of a file by its header and its surroundings. Sizes are in pixels, upright; `quality` is 1 to 100.

    `tag` says how much the file tells of its colours: 0 nothing, 1 that they are those of sRGB, 2 that they are others.
    """

    width: int = 0
    height: int = 0
    format: str = ""
    quality: int = 0
    has_metadata: bool = False
    tag: int = 0

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def to_bytes(self) -> bytes:
        name = self.format.encode()
        return _PACKED.pack(self.width, self.height, self.quality, self.has_metadata, self.tag, name)

    @staticmethod
    def from_bytes(data: bytes) -> Traits:
        width, height, quality, has_metadata, tag, name = _PACKED.unpack(data)
        return Traits(width, height, name.rstrip(b"\0").decode(), quality, has_metadata, tag)


def read_traits(path: Path) -> Traits:
    """Reads the header only; a file that cannot be read has no size and so comes last."""
    try:
        with opened_frames(path) as frames:
            return with_sidecar(path, traits_of(frames.image, frames.colours))
    except Exception as error:  # the codec boundary; the decode that came before has told the reason
        if is_broken_installation(error):
            raise
        return with_sidecar(path, Traits())


def traits_of(image: Image.Image, colours: ColourSpace = SRGB) -> Traits:
    """Reads the header of an opened picture that was not decoded yet; no traits where it is broken."""
    try:
        exif = exif_of(image)
        width, height = turned(image.size, orientation_of(image, exif))
        name = format_of(image)
        has_metadata = any(key != ORIENTATION for key in exif)
        tag = colours.tagged + (not colours.is_srgb)
        return Traits(width, height, name, _quality(image, name), has_metadata, tag)
    except Exception as error:  # the codec boundary; what the pixels are worth, their decoder will tell
        if is_broken_installation(error):
            raise
        return Traits()


def with_sidecar(path: Path, traits: Traits) -> Traits:
    """Returns the traits of a picture's content together with what lies beside its file."""
    folder = os.path.dirname(path)
    has_sidecar = not traits.has_metadata and any(os.path.exists(os.path.join(folder, n)) for n in sidecar_names(path))
    return replace(traits, has_metadata=True) if has_sidecar else traits


def keep_order(
    file: PictureFile,
    traits: Traits,
    *,
    keep: str,
    protected: bool,
    priority: int,
    chosen: bool = False,
    colourless: bool = False,
    real_pixels: int | None = None,
) -> tuple[Any, ...]:
    """Returns a file's place in the order, smaller is better.

    The path ends every key, so no two files are alike and no order is left to chance.

    A file that a person has chosen as the keeper comes before all others that may go.

    `real_pixels` are those of the copy from which the file was enlarged, where it was.
    """
    real = traits.pixels if real_pixels is None else real_pixels
    per_pixel = file.bytes / traits.pixels if traits.pixels else 0.0
    best = (
        priority,
        -real,
        real < traits.pixels,
        colourless,
        -traits.quality,
        -traits.tag,
        -per_pixel,
        not traits.has_metadata,
        file.mtime_ns,
        len(str(file.path)),
        str(file.path),
    )
    first: dict[str, tuple[Any, ...]] = {
        "best": (),
        "largest": (-traits.pixels,),
        "oldest": (file.mtime_ns,),
        "newest": (-file.mtime_ns,),
        "first": (priority, str(file.path)),
    }
    # What is only compared against (priority -1) stays in any case, so that it comes before all others.
    return (priority >= 0, not protected, not chosen, *first[keep], *best)


def sidecar_names(path: Path) -> list[str]:
    """Returns the names under which notes about a picture may lie beside it."""
    stem, name = path.stem, path.name
    return [start + end for start in (stem, name) for end in SIDECARS]


def is_below(path: Path, folders: Sequence[Path]) -> bool:
    """Says whether a file lies in one of the folders or below, links resolved."""
    real = path.resolve()
    return any(folder == real or folder in real.parents for folder in folders)


def _quality(image: Image.Image, name: str) -> int:
    """Returns libjpeg's quality setting, from the first quantisation table."""
    if name in LOSSLESS:
        colours = len(image.palette.getdata()[1]) // 3 if image.palette else 0  # entries, as the header holds them
        return QUALITY_GIF if image.mode == "P" and colours > SMALL_PALETTE else QUALITY_LOSSLESS
    if (quality := jpeg_quality(getattr(image, "quantization", None) or {})) is not None:
        return round(quality)
    return QUALITY_GIF if name == "gif" else QUALITY_UNKNOWN
