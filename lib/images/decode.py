"""A picture's header and EXIF, read without decoding, and one reduced, upright decode for all that judges it."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from lib.images.formats import HEIC_BRANDS
from lib.images.ground import Colour, flat_on, ground_of, layered, may_be_clear, mend_transparency

if TYPE_CHECKING:
    import numpy as np

# numpy is loaded by what decodes: whoever reads headers alone, as step 5 does, starts without it.

# Pillow refuses pictures above twice its own limit (179 MP) and warns above it; we refuse at one documented size.
MAX_PIXELS = 200_000_000
MAX_FRAMES = 10_000
BACKGROUND = (255, 255, 255)  # what shows through transparent pictures where they are compared, always the same

ORIENTATION = 0x0112
# Bounds of a walk over a PNG: one chunk costs a microsecond, and encoders write 8 kB and more into each.
MOST_CHUNKS = 20_000
BYTES_A_CHUNK = 1000
LONGEST = 1 << 20  # bytes of one block, packed or not; EXIF of cameras has 64 kB at most

_PROFILE = "Raw profile type exif"
_XMP = "XML:com.adobe.xmp"

Read = Callable[[int, int], bytes]  # (bytes from a place, how many)


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

    `rgb` is uint8 of shape (height, width, 3), upright, transparent parts on a ground; it may be reduced.
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
    background: Colour | None = BACKGROUND,
) -> Picture:
    """Decodes one frame to upright RGB, reduced so that the long side is at most `long_side` pixels.

    Without a `background` a transparent picture lies on a ground on which it can be seen, see `lib.images.ground`.

    A JPEG is decoded at a reduced scale of at least twice the wanted size, which costs a fraction of the full decode
    and differs from it by well under one grey level. With `at_least` instead, a JPEG comes at the smallest of its
    scales whose long side is no less, anything else as it is: for a caller that resizes by itself. Raises DecodeError;
    never anything else for a bad file.
    """
    with opened(source) as image:
        header = header_of(image)
        with codec_boundary():
            if (long_side or at_least) and header.frames == 1:
                _draft(image, header, "L" if image.mode == "L" else "RGB", long_side or (at_least or 0) / 2)
            if frame:
                image.seek(min(frame, header.frames - 1))
            return Picture(_reduced(upright(flattened(image, background), header.orientation), long_side), header)


def decode_grey(source: Path | bytes, *, long_side: int | None = None) -> tuple[np.ndarray, Header]:
    """The first frame's brightness as uint8 of shape (height, width), upright; its header.

    Transparent parts lie on a ground on which the picture can be seen. A JPEG gives its brightness without its colours
    being decoded, at a quarter of the cost. Raises DecodeError only.
    """
    import numpy as np

    with opened(source) as image:
        header = header_of(image)
        with codec_boundary():
            _draft(image, header, "L", long_side or max(image.size))
            grey = image if image.mode == "L" and not may_be_clear(image) else flattened(image, None)
            reduced = _reduced(upright(grey, header.orientation), long_side)
            # Reduced before it is made grey, so that it is the grey of `decode`'s colours to the last bit.
            return np.asarray(Image.fromarray(reduced).convert("L")), header


def needs_ground(path: Path) -> bool:
    """True for a picture that cannot be seen on white well enough; False also for one that cannot be decoded."""
    try:
        with opened(path) as image, codec_boundary():
            return may_be_clear(image) and ground_of(layered(image)) != BACKGROUND
    except DecodeError:
        return False


@contextmanager
def codec_boundary() -> Iterator[None]:
    """Turns whatever a codec raises inside the block into DecodeError."""
    try:
        yield
    except (DecodeError, ImportError):  # a broken installation is no fault of the picture
        raise
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, MemoryError, ZeroDivisionError) as e:
        raise DecodeError(_reason(e), str(e)[:200]) from e
    except Exception as e:  # Pillow's plugins raise whatever their parser met: struct.error, KeyError, …
        raise DecodeError("undecodable", f"{type(e).__name__}: {e}"[:200]) from e


@contextmanager
def opened(source: Path | bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Opens a picture lazily, refuses bombs by their header, and closes it.

    With `formats` (Pillow's names) no other codec is so much as asked.
    """
    # The size is checked here against our own limit, so Pillow's warning would only be noise.
    Image.MAX_IMAGE_PIXELS = None
    file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        image = _identified(file, formats)
    except UnidentifiedImageError as error:
        raise DecodeError("needs_pillow_heif" if not formats and _is_heif(file) else "not_an_image") from error
    except FileNotFoundError as error:
        raise DecodeError("missing_file") from error
    except PermissionError as error:
        raise DecodeError("unreadable_file") from error
    except Exception as error:
        raise DecodeError("undecodable", f"{type(error).__name__}: {error}"[:200]) from error
    try:
        if image.width * image.height > MAX_PIXELS:
            raise DecodeError("too_many_pixels", f"{image.width}x{image.height}")
        mend_transparency(image)
        yield image
    finally:
        image.close()


def _identified(source: Any, formats: tuple[str, ...] | None) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(source, formats=formats)
        except UnidentifiedImageError:
            if formats or not _is_heif(source) or not learn_heif():
                raise
            return Image.open(source)


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
            orientation = orientation_of(image)
    except Exception:  # broken metadata is no reason to lose a picture whose pixels may be fine
        frames, orientation = 1, 1
    if frames > MAX_FRAMES:
        raise DecodeError("too_many_frames", str(frames))
    return Header(format_of(image), image.width, image.height, frames, orientation, image.mode)


def format_of(image: Image.Image) -> str:
    """The short name of an opened picture's format; a JPEG with more pictures behind it (MPO) is a JPEG."""
    name = (image.format or "").lower()
    return "jpeg" if name == "mpo" else name


def _draft(image: Image.Image, header: Header, mode: str, long_side: float) -> None:
    """Lets the JPEG decoder scale down by 2, 4 or 8, never below twice the wanted long side."""
    if header.format == "jpeg":
        scale = min(1.0, 2 * long_side / max(header.width, header.height))
        image.draft(mode, (max(1, int(header.width * scale)), max(1, int(header.height * scale))))


def flattened(image: Image.Image, background: Colour | None) -> Image.Image:
    """The picture as RGB, what is transparent on the background, or without one on a ground on which the picture can
    be seen; deep greys scaled to 8 bits."""
    if image.mode in ("I", "F") or (image.mode.startswith("I;16") and not may_be_clear(image)):
        return _from_deep(image)
    if may_be_clear(image):
        return flat_on(layered(image), background)
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit and floating-point grey: scaled to 8 bits by the type's own range, else by the picture's."""
    import numpy as np

    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    sixteen_bits = image.mode.startswith("I") and np.max(values, initial=0) <= 65535
    top = 65535.0 if sixteen_bits else float(np.max(values, initial=1)) or 1.0
    grey = np.clip(values / top * 255.0, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    turn = Image.Transpose
    across, down = turn.FLIP_LEFT_RIGHT, turn.FLIP_TOP_BOTTOM
    turns = (across, turn.ROTATE_180, down, turn.TRANSPOSE, turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90)
    return image.transpose(turns[orientation - 2]) if orientation > 1 else image


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


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF block of an opened picture, with the orientation that its XMP names where EXIF has none.

    An empty one where it is broken: that is no reason to lose a picture whose pixels may be fine. Pillow decodes a
    whole PNG in search of what may stand behind its pixels; here the chunks are passed over.
    """
    try:
        if image.format != "PNG" or "exif" in image.info:
            return image.getexif()
        bearer = Image.new("1", (1, 1))
        bearer.info.update({name: image.info[name] for name in (_PROFILE, _XMP, "xmp") if name in image.info})
        if (file := getattr(image, "fp", None)) is not None:
            bearer.info.update(_png_notes(*_reader(file)))
        return bearer.getexif()
    except Exception:  # Pillow raises whatever its parser met
        return Image.Exif()


def orientation_of(image: Image.Image, exif: Image.Exif | None = None) -> int:
    """The turn that makes a picture upright, 1 to 8 as EXIF counts. `exif` is its block, if already read."""
    if image.format == "TIFF":  # Pillow turns it by itself, the size that it reports included
        return 1
    found = (exif_of(image) if exif is None else exif).get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) as a viewer shows a picture of this size."""
    return (size[1], size[0]) if orientation >= 5 else size


def _reader(file: Any) -> tuple[Read, int]:
    """Reads anywhere in an open file and leaves its own place as it is; the file's size."""
    try:
        number = file.fileno()
    except (AttributeError, OSError):
        number = -1
    if number >= 0 and hasattr(os, "pread"):
        return lambda at, count: os.pread(number, count, at), os.fstat(number).st_size
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        found: bytes = file.read(count)
        file.seek(place)
        return found

    return read, size


def _png_notes(read: Read, size: int) -> Iterator[tuple[str, Any]]:
    """EXIF, a profile of it in text, and XMP, under the names that Pillow gives them."""
    at = 8
    for _ in range(MOST_CHUNKS + size // BYTES_A_CHUNK):
        head = read(at, 8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and length <= LONGEST:
            content = read(at + 8, length)
            if kind == b"eXIf":
                yield "exif", b"Exif\0\0" + content
            elif note := _text(kind, content):
                yield note
        at += 12 + length


def _text(kind: bytes, content: bytes) -> tuple[str, str] | None:
    """(keyword, text) of a chunk that may tell an orientation."""
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if name not in (_PROFILE, _XMP):
        return None
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]  # the method: there is one
    elif kind == b"iTXt":
        packed, fields = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
        rest = fields[2] if len(fields) == 3 else b""
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, LONGEST)
        except zlib.error:
            return None
    return name, rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
