"""One reduced, upright decode of a picture, from which everything that judges or hashes it is computed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from lib.images.exif import exif_of, orientation_of, turned
from lib.images.formats import HEIC_BRANDS

if TYPE_CHECKING:
    import numpy as np

# numpy is loaded by what decodes: whoever reads headers alone, as step 5 does, starts without it.

# Pillow refuses pictures above twice its own limit (179 MP) and warns above it; we refuse at one documented size.
MAX_PIXELS = 200_000_000
MAX_FRAMES = 10_000
BACKGROUND = (255, 255, 255)  # what shows through transparent pictures, always the same


class DecodeError(Exception):
    """The picture cannot be decoded. `reason` is short and stable: not_an_image, truncated, too_many_pixels, …"""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """The header of a picture. `width` and `height` are as stored, before orientation."""

    format: str
    width: int
    height: int
    frames: int
    orientation: int
    mode: str

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as a viewer shows it."""
        return turned((self.width, self.height), self.orientation)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    `rgb` is uint8 of shape (height, width, 3), upright, transparent parts on white; it may be reduced.
    """

    rgb: np.ndarray
    header: Header


def read_header(source: Path | bytes) -> Header:
    """Format, size, frames and orientation without decoding. Raises DecodeError."""
    with opened(source) as image:
        return header_of(image)


def decode(
    source: Path | bytes,
    *,
    long_side: int | None = None,
    at_least: int | None = None,
    frame: int = 0,
    background: tuple[int, int, int] = BACKGROUND,
) -> Picture:
    """Decodes one frame to upright RGB, reduced so that the long side is at most `long_side` pixels.

    A JPEG is decoded at a reduced scale of at least twice the wanted size, which costs a fraction of the full decode
    and differs from it by well under one grey level. With `at_least` instead, a JPEG comes at the smallest of its
    scales whose long side is no less, anything else as it is: for a caller that resizes by itself. Raises DecodeError;
    never anything else for a bad file.
    """
    with opened(source) as image:
        header = header_of(image)
        with codec_boundary():
            if (long_side or at_least) and header.frames == 1:
                _draft(image, header, long_side or (at_least or 0) / 2)
            if frame:
                image.seek(min(frame, header.frames - 1))
            upright = _upright(flattened(image, background), header.orientation)
            return Picture(_reduced(upright, long_side), header)


def decode_grey(source: Path | bytes, *, long_side: int | None = None) -> tuple[np.ndarray, Header]:
    """The first frame's brightness as uint8 of shape (height, width), upright, transparent parts on white; its header.

    A JPEG gives its brightness without its colours being decoded, at a quarter of the cost. Raises DecodeError only.
    """
    import numpy as np

    with opened(source) as image:
        header = header_of(image)
        with codec_boundary():
            if image.format in ("JPEG", "MPO") and isinstance(image, ImageFile.ImageFile):
                size = _draft_size(header, long_side) if long_side else None
                image.draft("L", size or image.size)
            grey = image if image.mode == "L" and "transparency" not in image.info else flattened(image, BACKGROUND)
            reduced = _reduced(_upright(grey, header.orientation), long_side)
            # Reduced before it is made grey, so that it is the grey of `decode`'s colours to the last bit.
            return np.asarray(Image.fromarray(reduced).convert("L")), header


@contextmanager
def codec_boundary() -> Iterator[None]:
    """Turns whatever a codec raises inside the block into DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, MemoryError, ZeroDivisionError) as e:
        raise DecodeError(_reason(e), str(e)[:200]) from e
    except Exception as e:  # Pillow's plugins raise whatever their parser met: struct.error, KeyError, …
        raise DecodeError("undecodable", f"{type(e).__name__}: {e}"[:200]) from e


class opened:
    """Opens a picture lazily, refuses bombs by their header, and closes it.

    With `formats` (Pillow's names) no other codec is so much as asked.
    """

    def __init__(self, source: Path | bytes, formats: tuple[str, ...] | None = None):
        self.source, self.formats = source, formats

    def __enter__(self) -> Image.Image:
        # The size is checked here against our own limit, so Pillow's warning would only be noise.
        Image.MAX_IMAGE_PIXELS = None
        source: Any = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source
        try:
            self.image = self._identified(source)
        except UnidentifiedImageError as error:
            without = not self.formats and _is_heif(source)
            raise DecodeError("needs_pillow_heif" if without else "not_an_image") from error
        except FileNotFoundError as error:
            raise DecodeError("missing_file") from error
        except PermissionError as error:
            raise DecodeError("unreadable_file") from error
        except Exception as error:
            raise DecodeError("undecodable", f"{type(error).__name__}: {error}"[:200]) from error
        if self.image.width * self.image.height > MAX_PIXELS:
            self.image.close()
            raise DecodeError("too_many_pixels", f"{self.image.width}x{self.image.height}")
        return self.image

    def _identified(self, source: Any) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return Image.open(source, formats=self.formats)
            except UnidentifiedImageError:
                if self.formats or not _is_heif(source) or not learn_heif():
                    raise
                return Image.open(source)

    def __exit__(self, *_: object) -> None:
        self.image.close()


def _is_heif(source: Path | io.BytesIO) -> bool:
    """True for a file that is HEIC by its first bytes; phones also send it under the name of a JPEG."""
    if isinstance(source, io.BytesIO):
        start = source.getvalue()[:12]
    else:
        with open(source, "rb") as file:
            start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:] in HEIC_BRANDS


@lru_cache(maxsize=1)
def learn_heif() -> bool:
    """Teaches Pillow HEIC where its plugin is installed; elsewhere such a file ends as `needs_pillow_heif`."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def header_of(image: Image.Image) -> Header:
    """The header of an opened picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken metadata can give thousands of them
            frames = int(getattr(image, "n_frames", 1))
            orientation = 1 if image.format == "TIFF" else orientation_of(image, exif_of(image))
    except Exception:  # broken metadata is no reason to lose a picture whose pixels may be fine
        frames, orientation = 1, 1
    if frames > MAX_FRAMES:
        raise DecodeError("too_many_frames", str(frames))
    name = (image.format or "").lower()
    name = {"mpo": "jpeg"}.get(name, name)
    return Header(name, image.width, image.height, frames, orientation, image.mode)


def _draft(image: Image.Image, header: Header, long_side: float) -> None:
    """Lets the JPEG decoder scale down by 2, 4 or 8, never below twice the wanted long side."""
    size = _draft_size(header, long_side)
    if image.format in ("JPEG", "MPO") and isinstance(image, ImageFile.ImageFile) and size:
        image.draft("L" if image.mode == "L" else "RGB", size)


def _draft_size(header: Header, long_side: float) -> tuple[int, int] | None:
    scale = 2 * long_side / max(header.width, header.height)
    return (max(1, int(header.width * scale)), max(1, int(header.height * scale))) if scale < 1 else None


def flattened(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The picture as RGB, what is transparent on the background; deep greys scaled to 8 bits."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, background)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit and floating-point grey: scaled to 8 bits by the type's own range, else by the picture's."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    sixteen_bits = image.mode.startswith("I") and np.max(values, initial=0) <= 65535
    top = 65535.0 if sixteen_bits else float(np.max(values, initial=1)) or 1.0
    grey = np.clip(values / top * 255.0, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _reduced(image: Image.Image, long_side: int | None) -> np.ndarray:
    import numpy as np

    if long_side and max(image.size) > long_side:
        image = ImageOps.contain(image, (long_side, long_side), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.uint8)


def _reason(error: BaseException) -> str:
    text = str(error).lower()
    if "truncated" in text or "broken data stream" in text or isinstance(error, EOFError):
        return "truncated"
    if isinstance(error, MemoryError):
        return "too_large"
    return "undecodable"
