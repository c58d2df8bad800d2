"""A picture's header and EXIF, read without decoding, and one reduced, upright decode for all that judges it."""

from __future__ import annotations

import io
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from lib.errors import is_broken_installation
from lib.images.boxed import jxl_size
from lib.images.formats import (
    HEAD_BYTES,
    Buffer,
    TooManyParts,
    bytes_a_pixel,
    decoded_size,
    has_scans,
    is_built_in,
    plugin_of,
    silence_libtiff,
    slow_samples,
    spare_deep_colours,
)
from lib.images.ground import Colour, flat_on, from_deep, ground_of, layered, may_be_clear, mend_transparency
from lib.images.structure import (
    PNG_PROFILE,
    PNG_XMP,
    check_jpeg_head,
    check_jpeg_scans,
    check_png_pixels,
    gif_extent,
    png_notes,
)

if TYPE_CHECKING:
    import numpy as np

# Pillow warns of broken metadata, thousands of times where there are thousands of tags, and names no file. What matters
# becomes a reason. For the process: `catch_warnings` changes what all threads see, so that theirs get through.
warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif|pillow_jxl")

# numpy is loaded by what decodes: whoever reads headers alone, as step 5 does, starts without it.

# Pillow's own bound is below ours, and it warns of what lies between.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Pillow refuses pictures above twice its own limit (179 MP) and warns above it; we refuse at one documented size.
MAX_PIXELS = 200_000_000
# Bytes of a picture while it is decoded and made RGB: with the interpreter and what reduces it (a quarter of a GB at
# most), a process stays below 1 GB.
MOST_BYTES = 640_000_000
MAX_FRAMES = 10_000
# Pixels of all frames together, where every one is decoded: to compare them takes 10 to 25 nanoseconds a pixel, and a
# few hundred bytes can hold thousands of frames on a large canvas. It is 500 frames of a megapixel.
MOST_FRAME_PIXELS = 500_000_000
OTHER_FORMAT = "other_format"  # the reason where only some formats were asked for
NO_DECODER = "needs_"  # how the reasons begin of what a package would mend
BACKGROUND = (255, 255, 255)  # what shows through transparent pictures where they are compared, always the same

# The module of each plug-in: of Pillow's forty, what is not named here is not so much as loaded.
_MODULES = {
    "JPEG": "JpegImagePlugin", "PNG": "PngImagePlugin", "GIF": "GifImagePlugin", "BMP": "BmpImagePlugin",
    "DIB": "BmpImagePlugin", "PPM": "PpmImagePlugin", "WEBP": "WebPImagePlugin", "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin", "JPEG2000": "Jpeg2KImagePlugin", "ICO": "IcoImagePlugin", "CUR": "CurImagePlugin",
    "TGA": "TgaImagePlugin", "PCX": "PcxImagePlugin",
}  # fmt: skip
HEADERS = (*_MODULES, "HEIF")  # formats whose header is read without decoding

JXL_BYTES = 16  # a pixel, while one is decoded
ORIENTATION = 0x0112


Read = Callable[[int, int], bytes]  # (bytes from a place, how many)


class DecodeError(Exception):
    """The picture cannot be decoded. `reason` is short and stable: not_an_image, truncated, too_many_pixels, …"""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


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
    try:
        with opened(source, HEADERS) as image:
            return header_of(image)
    except DecodeError as error:
        if error.reason != OTHER_FORMAT:
            raise
        return _jxl_header(source)


def _jxl_header(source: Path | bytes) -> Header:
    """The header of a JPEG XL, from its structure: its plug-in decodes all of a picture as it opens it."""
    with file_of(source) as file:
        width, height = _demand_small_jxl(file)
    return Header("jxl", width, height, 1, 1, "RGB")


def _demand_small_jxl(file: Any) -> tuple[int, int]:
    """(width, height) of a JPEG XL that is small enough to be decoded. Raises DecodeError."""
    with codec_boundary(), _all_of(file) as data:
        width, height = jxl_size(data)
    if width * height * JXL_BYTES > MOST_BYTES:
        raise DecodeError("too_many_pixels", f"{width}x{height}")
    return width, height


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
            return Picture(_reduced(flattened(image, background), header.orientation, long_side), header)


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
            reduced = _reduced(grey, header.orientation, long_side)
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
    except DecodeError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parser met: struct.error, KeyError, …
        if is_broken_installation(error):  # no fault of the picture
            raise
        raise _as_decode_error(error) from error


@contextmanager
def opened(source: Path | bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Opens a picture lazily, refuses bombs by their header, and closes it: the one door for every decode.

    Its first bytes name the one plug-in that is asked, whatever the name of the file says. An error of the codec is an
    error for good: Pillow gives a second caller what it has of a broken picture without a word, so that whoever
    swallowed the error the first time would turn it into a sound picture. With `formats` (Pillow's names) any other
    format is `other_format`. Raises DecodeError.
    """
    # Above twice this limit Pillow refuses by itself, also what grows behind the header, such as the frames of a GIF.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # pyiqa switches it on for the whole process
    with file_of(source) as file:
        image = _identified(file, formats)
        try:
            spare_deep_colours(image)
            _demand_room(image, has_scans(image, reader_of(file)[0], file.tell()))
            if "progression" in image.info:
                with codec_boundary(), _all_of(file) as data:
                    check_jpeg_scans(data, image.width * image.height)
            if image.format == "GIF":
                _demand_small_extent(file)
            mend_transparency(image)
            failures = _fail_for_good(image)
            try:
                yield image
            except Exception as error:
                if failures and not isinstance(error, DecodeError):
                    raise failures[0] from error
                raise
            if failures:
                raise failures[0]
        finally:
            image.close()


@contextmanager
def file_of(source: Path | bytes) -> Iterator[Any]:
    """Opens what a picture is read from. Raises DecodeError where it cannot be."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below, outside what turns errors of opening into reasons
    except FileNotFoundError as error:
        raise DecodeError("missing_file") from error
    except OSError as error:
        raise DecodeError("unreadable_file", str(error.strerror or error)) from error
    with file:
        yield file


def _identified(file: Any, formats: tuple[str, ...] | None) -> Image.Image:
    """Opens a file with the plug-in of its first bytes. Raises DecodeError."""
    try:
        head = file.read(HEAD_BYTES)
    except OSError as error:
        raise DecodeError("unreadable_file", str(error.strerror or error)) from error
    plugin, reason, detail = plugin_of(head)
    if reason:
        raise DecodeError(reason, detail)
    if formats and plugin not in formats:
        raise DecodeError(OTHER_FORMAT, plugin)
    if plugin == "JXL":  # decodes as it opens
        _demand_small_jxl(file)
    elif plugin == "JPEG":
        with codec_boundary():
            check_jpeg_head(reader_of(file)[0])
    _demand_plugin(plugin)
    try:
        return Image.open(file, formats=(plugin,))
    except UnidentifiedImageError as error:
        raise DecodeError("not_an_image", f"begins like {plugin}, but has no header of one") from error
    except Image.DecompressionBombError as error:
        raise DecodeError("too_many_pixels", str(error)[:200]) from error
    except MemoryError as error:
        raise DecodeError("out_of_memory", str(error)[:200]) from error
    except Exception as error:  # Pillow's plugins raise whatever their parser met
        if is_broken_installation(error):
            raise
        raise DecodeError("undecodable", f"{type(error).__name__}: {error}"[:200]) from error


def _demand_room(image: Image.Image, scans: bool = False) -> None:
    """Raises DecodeError for a picture that would take too much memory."""
    width, height = decoded_size(image)
    size = f"{width}x{height}"
    if width * height > MAX_PIXELS:
        raise DecodeError("too_many_pixels", size)
    if width * height * slow_samples(image) > MOST_SLOW:
        raise DecodeError("too_many_pixels", f"{size}, and Pillow decodes a {image.format} like this one by one")
    animated = image.format == "PNG" and bool(getattr(image, "is_animated", False))
    each = bytes_a_pixel(image, clear=may_be_clear(image), animated=animated, scans=scans)
    if width * height * each > MOST_BYTES:
        detail = f"{size}, and {each:.0f} bytes a pixel while a {image.format} like this is decoded"
        raise DecodeError("too_many_pixels", detail)


MOST_SLOW = 8_000_000  # samples that Pillow decodes in a loop of Python's, at half a microsecond each

# Pixels of an animation's canvas: Pillow holds up to five copies of four bytes a pixel, together below 1 GB.
MOST_CANVAS = 40_000_000


def _demand_small_extent(file: Any) -> None:
    """Raises DecodeError for a GIF whose pictures reach further than memory does."""
    read, size = reader_of(file)
    with codec_boundary():
        width, height, pictures = gif_extent(read(0, size))
    if pictures > 1 and width * height > MOST_CANVAS:
        raise DecodeError("too_many_pixels", f"{width}x{height} with all frames")


def _fail_for_good(image: Image.Image) -> list[DecodeError]:
    """Has every later attempt to load a picture fail once one has failed; gives the list that then holds the error."""
    failures: list[DecodeError] = []
    plain, weak = type(image).load, weakref.ref(image)  # a cycle would keep the pixels of every picture for a while

    def load() -> Any:
        owner = weak()
        if owner is None:
            raise DecodeError("undecodable", "the picture is closed")
        if failures:
            raise DecodeError(failures[0].reason, failures[0].detail)
        try:
            if getattr(owner, "tile", None):
                _demand_room(owner)  # a later page may be larger than the first
            file = getattr(owner, "fp", None)
            if owner.format == "PNG" and file is not None and getattr(owner, "tile", None):
                check_png_pixels(*reader_of(file))
            return plain(owner)
        except Exception as error:
            if is_broken_installation(error):
                raise
            failures.append(_as_decode_error(error))
            raise

    image.load = load  # type: ignore[method-assign]
    return failures


_OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # parts that a build of Pillow may lack


def _demand_plugin(plugin: str) -> None:
    """Loads a plug-in. Raises DecodeError: `needs_pillow_heif`, `needs_pillow_jxl`, `needs_avif`, …"""
    if plugin == "HEIF":
        there = learn_heif()
    elif plugin == "JXL":
        there = learn_jxl()
    else:
        import_module(f"PIL.{_MODULES[plugin]}")
        if plugin == "TIFF":
            silence_libtiff()
        there = plugin not in _OPTIONAL or is_built_in(_OPTIONAL[plugin])
    if not there:
        raise DecodeError(f"needs_{_PACKAGES.get(plugin) or _OPTIONAL[plugin]}")


_PACKAGES = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}


@lru_cache(maxsize=1)
def learn_heif() -> bool:
    """Teaches Pillow HEIC where its plugin is installed; elsewhere such a file ends as `needs_pillow_heif`."""
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError as error:
        if error.name != "pillow_heif":  # it is there and broken
            raise
        return False
    register_heif_opener()
    return True


@lru_cache(maxsize=1)
def learn_jxl() -> bool:
    """Teaches Pillow JPEG XL where its plugin is installed; elsewhere such a file ends as `needs_pillow_jxl`."""
    try:
        from pillow_jxl import JpegXLImagePlugin
    except ModuleNotFoundError as error:
        if error.name != "pillow_jxl":  # it is there and broken
            raise
        return False
    JpegXLImagePlugin.DECODE_THREADS = 0  # whoever decodes has one core
    return True


def header_of(image: Image.Image) -> Header:
    """The header of an opened picture."""
    frames = orientation = 1
    # Each by itself: broken metadata is no reason to lose a picture whose pixels may be fine, nor its frames.
    with suppress(Exception):
        frames = int(getattr(image, "n_frames", 1))
    with suppress(Exception):
        orientation = orientation_of(image)
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
        return from_deep(image)
    if may_be_clear(image):
        return flat_on(layered(image), background)
    if image.mode == "RGB":
        image.load()
        return image  # a conversion to what it is would copy it
    return image.convert("RGB")


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    turn = Image.Transpose
    across, down = turn.FLIP_LEFT_RIGHT, turn.FLIP_TOP_BOTTOM
    turns = (across, turn.ROTATE_180, down, turn.TRANSPOSE, turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90)
    each = 2 if image.mode in ("L", "P", "1") else 8  # the turned one lies beside it
    if orientation > 1 and image.width * image.height * each > MOST_BYTES:
        raise DecodeError("too_many_pixels", f"{image.width}x{image.height}, to be turned")
    return image.transpose(turns[orientation - 2]) if orientation > 1 else image


def _reduced(image: Image.Image, orientation: int, long_side: int | None) -> np.ndarray:
    import numpy as np

    side = long_side if long_side and long_side < max(image.size) else 0
    if side and image.width * image.height * 8 > MOST_BYTES:  # no room for a turned copy beside it
        image = ImageOps.contain(image, (side, side), Image.Resampling.BOX)
    image = upright(image, orientation)
    if side and side < max(image.size):
        image = ImageOps.contain(image, (side, side), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.uint8)


def _as_decode_error(error: Exception) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    text = str(error)
    if isinstance(error, TooManyParts):
        reason = "too_many_parts"
    elif isinstance(error, MemoryError | ImportError):  # of a library that finds no room
        reason = "out_of_memory"
    elif isinstance(error, Image.DecompressionBombError):
        reason = "too_many_pixels"
    elif isinstance(error, EOFError) or "truncated" in text.lower() or "broken data stream" in text.lower():
        reason = "truncated"
    else:
        reason = "undecodable"
    known = isinstance(error, (OSError, SyntaxError, ValueError))  # their text says it; that of a KeyError does not
    return DecodeError(reason, (text if known else f"{type(error).__name__}: {text}")[:200])


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF block of an opened picture, with the orientation that its XMP names where EXIF has none.

    An empty one where it is broken: that is no reason to lose a picture whose pixels may be fine. Pillow decodes a
    whole PNG in search of what may stand behind its pixels; here the chunks are passed over.
    """
    try:
        if image.format != "PNG" or "exif" in image.info:
            return image.getexif()
        bearer = Image.new("1", (1, 1))
        bearer.info.update({name: image.info[name] for name in (PNG_PROFILE, PNG_XMP, "xmp") if name in image.info})
        if (file := getattr(image, "fp", None)) is not None:
            bearer.info.update(png_notes(*reader_of(file)))
        return bearer.getexif()
    except Exception as error:  # Pillow raises whatever its parser met
        if is_broken_installation(error):
            raise
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


def reader_of(file: Any) -> tuple[Read, int]:
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


@contextmanager
def _all_of(file: Any) -> Iterator[Buffer]:
    """The bytes of an open file, of which only those that are looked at are read."""
    read, size = reader_of(file)
    try:
        held: mmap | None = mmap(file.fileno(), 0, access=ACCESS_READ)
    except (OSError, ValueError):  # bytes in memory, or a file system that maps none
        held = None
    if held is None:
        yield read(0, size)
        return
    with held:
        yield held
