"""Query pictures: from files of any format that Pillow reads to the bytes that an engine takes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.decode import DecodeError, decode, read_header
from lib.errors import UsageError
from lib.pictures import find_files

LARGEST_FILE = 512 * 2**20  # bytes; read into memory once
PHASH_SIDE = 256  # pixels; a perceptual hash looks at 32x32
# Tried in this order until the file is small enough: (long side in pixels or None, JPEG quality).
REDUCTIONS = ((None, 92), (4096, 90), (2560, 88), (1600, 85), (1024, 80), (512, 75))


@dataclass(frozen=True)
class QueryPicture:
    """A query picture on disk; `phash` is hexadecimal and empty together with a `problem` (a short reason)."""

    path: Path
    sha256: str
    phash: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Upload:
    """The bytes to be sent, and what they are."""

    mime: str
    content: bytes = field(repr=False)


def find_pictures(
    places: Sequence[Path], unreadable: Callable[[Path, OSError], None] = lambda path, error: None
) -> Iterator[Path]:
    """Files as given, and the picture files in folders; a folder below that may not be read goes to `unreadable`.

    Raises UsageError for a place that cannot be read.
    """
    for place in places:
        if not place.exists():
            raise UsageError(f"{place} does not exist; give a picture or a folder of pictures to --images.")
        yield from (path for path, _ in find_files([place], unreadable))


def read_sha256(path: Path) -> str:
    """The content's SHA-256. Raises OSError, also for what is too large to be a picture."""
    return hashlib.sha256(_read(path)).hexdigest()


def examine(path: Path, sha256: str) -> QueryPicture:
    """The perceptual hash of a picture, or why it cannot be decoded."""
    from imagehash import phash
    from PIL import Image

    try:
        picture = decode(path, long_side=PHASH_SIDE)
    except DecodeError as error:
        return QueryPicture(path, sha256, problem=error.reason)
    return QueryPicture(path, sha256, str(phash(Image.fromarray(picture.rgb))))


def prepare_upload(path: Path, formats: frozenset[str], limit: int) -> Upload:
    """The file as it is where the engine takes it, else a JPEG below `limit` bytes.

    Raises DecodeError (also `too_large` where no reduction is enough) and OSError.
    """
    content = _read(path)
    header = read_header(content)
    if header.format in formats and len(content) <= limit:
        return Upload(f"image/{header.format}", content)
    return Upload("image/jpeg", encode_jpeg(content, limit))


def encode_jpeg(content: bytes, limit: int) -> bytes:
    """The picture upright as JPEG, as large and as good as `limit` bytes allow."""
    from PIL import Image

    for side, quality in REDUCTIONS:
        rgb = decode(content, long_side=side).rgb
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= limit:
            return buffer.getvalue()
    raise DecodeError("too_large", f"no JPEG below {limit} bytes")


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_FILE:
        raise OSError(f"{path} is larger than {LARGEST_FILE >> 20} MiB")
    return path.read_bytes()
