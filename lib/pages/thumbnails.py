"""The thumbnails of a page: within it as data URIs, or as files in a folder beside it where there are many.

The folder belongs to one page, `<page>_thumbnails/` with files `<2 hex>/<32 hex>.jpg`: page and folder can be handed on
together, and what one page no longer shows is cleared without a look at any other. The name of a file is a digest of
where the picture lies, seen from the page, and of its size and times, so that a picture which has not changed is not
decoded again. Files are whole under their names. Those that are not shown any more go after the new page is in its
place (`clear_stale`, which `render.write_page` calls): a kill at any instant leaves a page with all of its pictures.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lib.arguments import cpu_count
from lib.errors import is_broken_installation
from lib.images.ground import flat_on, layered, may_be_clear
from lib.temporary import clear_dead, write_whole
from lib.work.stream import stream

if TYPE_CHECKING:
    from PIL import Image

EMBED_LIMIT = 2_000  # pictures: 2,000 thumbnails of about 6 KB make a page of 12 MB, which browsers open at once
SIDE = 192  # pixels of the long side
JPEG_QUALITY = 78  # about 6 KB for a 192-pixel photograph; block edges stay invisible at that size
MOST_THREADS = 8  # that decode at once: each may need the memory of the largest picture that is decoded

VERSION = "1"  # of what a thumbnail looks like: part of its name
MARK = b"Gleaner thumbnail"  # a comment in the file: what lacks it is somebody else's and is never cleared
_HEAD = 256  # bytes of a file that hold its comment
_NAME = re.compile(r"[0-9a-f]{32}\.jpg")
_SHOWN = re.compile(r"_thumbnails/([0-9a-f]{2}/[0-9a-f]{32}\.jpg)")


def thumbnails(
    files: Iterable[Path | None], page: Path, *, limit: int = EMBED_LIMIT, workers: int = 0
) -> dict[Path, str]:
    """The thumbnail of each file as an `src`: a data URI, or beyond `limit` files the link to a file beside the page.

    A file that cannot be decoded has the empty text. `workers` are threads, 0 for one a processor. Raises OSError where
    a thumbnail cannot be written, as on a full disk.
    """
    wanted = list(dict.fromkeys(file for file in files if file is not None))
    threads = min(workers or cpu_count(), MOST_THREADS)
    if len(wanted) > limit:
        return _beside(wanted, page, threads)
    outcomes = stream(thumbnail_data_uri, wanted, executor="threads" if threads > 1 else "local", workers=threads)
    return {outcome.item: outcome.value or "" for outcome in outcomes}


def folder_of(page: Path) -> Path:
    """The folder of a page's thumbnails. `page.htm` has another one than `page.html`."""
    return page.with_name(f"{page.stem if page.suffix == '.html' else page.name}_thumbnails")


def _beside(files: list[Path], page: Path, threads: int) -> dict[Path, str]:
    """Makes the files that are not there yet; gives the links."""
    folder = folder_of(page)
    names = {file: _name(file, page) for file in files}
    there = set(_own_names(folder))
    missing = [file for file in files if names[file] and names[file] not in there]
    for made in stream(thumbnail, missing, executor="threads" if threads > 1 else "local", workers=threads):
        if made.value:
            write_whole(folder / names[made.item], made.value)
        else:
            names[made.item] = ""
    link = "./" + quote(os.fsencode(folder.name))
    return {file: f"{link}/{names[file]}" if names[file] else "" for file in files}


def _name(file: Path, page: Path) -> str:
    """The place of a picture's thumbnail in the folder; '' where there is no picture."""
    try:
        status = os.stat(file)
        where = os.path.abspath(file)
        with suppress(ValueError):  # another drive on Windows
            where = os.path.relpath(where, os.path.abspath(page.parent))
    except (OSError, ValueError):
        return ""
    # The time of change too: a tool that keeps the time of modification cannot leave an old thumbnail behind.
    known = (VERSION, where, str(status.st_size), str(status.st_mtime_ns), str(status.st_ctime_ns))
    digest = hashlib.sha256("\0".join(known).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{digest[:2]}/{digest}.jpg"


def _own_names(folder: Path) -> Iterator[str]:
    """The thumbnails in a folder, as `<2 hex>/<32 hex>.jpg`; links are none, and what is empty is none."""
    for part in _entries(folder):
        if not part.is_dir(follow_symlinks=False):
            continue
        for entry in _entries(part.path):
            with suppress(OSError):
                if _NAME.fullmatch(entry.name) and entry.name[:2] == part.name and _is_filled(entry):
                    yield f"{part.name}/{entry.name}"


def _is_filled(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size > 0


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # it is not there, or may not be read
        return []


def are_all_there(page: Path) -> bool:
    """True where the page is there with every thumbnail file that it shows."""
    try:
        shown = set(_SHOWN.findall(page.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False
    return not shown or shown <= set(_own_names(folder_of(page)))


def clear_stale(page: Path, html: str = "") -> None:
    """Removes the thumbnails beside a page that its text does not show, and what killed runs left half written.

    A file that is not by this program stays, and so does its folder.
    """
    folder = folder_of(page)
    if folder.is_symlink() or not folder.is_dir():
        return
    clear_dead(folder, deep=True)
    shown = set(_SHOWN.findall(html))
    for name in _own_names(folder):
        if name not in shown:
            with suppress(OSError):  # a browser on Windows may have it open
                if _is_marked(folder / name):
                    (folder / name).unlink()
    for emptied in (*(Path(part.path) for part in _entries(folder)), folder):
        with suppress(OSError):  # it holds something, or is a file
            emptied.rmdir()


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK in file.read(_HEAD)


def thumbnail_data_uri(path: str | Path, size: int = SIDE) -> str:
    """A thumbnail as a data URI; the empty text for anything that cannot be decoded."""
    made = thumbnail(path, size)
    return "data:image/jpeg;base64," + base64.b64encode(made).decode("ascii") if made else ""


def thumbnail(path: str | Path, size: int = SIDE) -> bytes:
    """A JPEG of the picture, upright, at most `size` pixels on its long side.

    Nothing for anything that cannot be decoded; never raises for a bad file. Small pictures are not enlarged.
    """
    try:
        from lib.images.decode import opened

        with opened(Path(path)) as picture:
            picture.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a fraction of the size, a cheap first step
            # Within the block: what needs no shrinking is decoded only when it is converted or written.
            buffer, small = io.BytesIO(), _opaque(_upright(picture, size))
            small.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True, comment=MARK)
    except Exception as error:  # the codec boundary: Pillow's plugins raise whatever their formats make them raise
        if is_broken_installation(error):
            raise
        return b""
    return buffer.getvalue()


def _upright(picture: Image.Image, size: int) -> Image.Image:
    from PIL import ImageOps

    orientation = picture.getexif().get(0x0112, 1)
    if may_be_clear(picture) or picture.mode == "P":
        picture = layered(picture)  # palette indices and the one transparent colour must not be averaged
    elif picture.mode.startswith("I") or picture.mode == "F":  # grey of 16 or 32 bits, integer or float
        grey = picture.convert("F")
        _, high = grey.getextrema()
        scale = 1 / 257 if isinstance(high, float) and high > 255 else 1.0  # values above 255: a 16-bit scale
        picture = grey.point(lambda value: value * scale + 0.0).convert("L")
    picture.thumbnail((size, size), reducing_gap=2.0)
    if orientation == 1:
        return picture
    picture.getexif()[0x0112] = orientation  # conversions drop it
    return ImageOps.exif_transpose(picture)


def _opaque(picture: Image.Image) -> Image.Image:
    return flat_on(layered(picture), None) if may_be_clear(picture) else picture.convert("RGB")
