"""Names of files. Those of downloads are ASCII, from our own ids and hashes only, never from what a server says.

Several files of one picture can be told by these names alone, and by no others. A file that a person has named keeps
its name where every reader and file system takes it, and gets the nearest one elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from lib.temporary import fitting, machine_mark

KEPT = "kept-"  # begins the name of an unfinished file that a later run may go on with
PARTS = ".part"  # the folder of temporary files: on the same file system as the final names
LONGEST_ID = 80  # characters; leaves room under the 255 bytes that file systems allow

LONGEST = 255  # bytes of a name: ext4, XFS, APFS and NTFS allow no more
LONGEST_SUFFIX = 32  # bytes behind the last dot that are kept when a name is cut; a longer one is no suffix
# Windows refuses these, and Hugging Face's readers take `::` for a chain of addresses.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
# Devices of Windows, whatever stands behind the first dot.
_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])[ ]*(?:\.|$)", re.IGNORECASE
)

# Digits of a content's hash in a name, as few as tell it from what lies there: 8 are found again by trying, 64 never.
DIGITS = (8, 12, 16, 64)

_PLAIN_ID = re.compile(r"[a-z0-9]+:[a-z0-9-]+")
_MARK = "--"  # before the hash of an id that is not plain, and in no plain one
_REST = (
    r"_(?P<kind>original|preview|dup|thumb)_(?P<width>\d+)x(?P<height>\d+)"
    r"_(?P<sha>[0-9a-f]{8}|[0-9a-f]{12}|[0-9a-f]{16}|[0-9a-f]{64})"
)
_NAME = re.compile(rf"(?P<id>[a-z0-9-]+){_REST}\.[a-z0-9]+")
_ANY_NAME = re.compile(rf"(?P<id>.+){_REST}(?:_\d+)?\.\w+", re.ASCII)


def safe_id(image_id: str) -> str:
    """An image's id in `[a-z0-9-]`: `yandex:ab12` becomes `yandex-ab12`.

    Where anything else had to be replaced or cut, a hash of the whole id is added, so that ids that differ only there
    keep different names, also on file systems that do not tell upper from lower case. No id can be made that gives
    another's name: a plain one holds no `--`, and nobody finds two ids whose hashes share 32 digits.
    """
    if _PLAIN_ID.fullmatch(image_id) and len(image_id) <= LONGEST_ID and _MARK not in image_id.replace(":", "-"):
        return image_id.replace(":", "-", 1)
    kept = re.sub(r"[^a-z0-9]+", "-", image_id.lower()).strip("-")[: LONGEST_ID - 40]
    return f"{kept or 'id'}{_MARK}{hashlib.sha256(image_id.encode()).hexdigest()[:32]}"


def shelf(image_id: str) -> str:
    """The folder, two hexadecimal digits, that keeps the files of an image: 256 folders of about equal size."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:2]


def file_name(
    image_id: str,
    kind: str,
    width: int | None,
    height: int | None,
    sha256: str,
    extension: str,
    digits: int = DIGITS[0],
) -> str:
    """`<id>_<kind>_<W>x<H>_<8 hex>.<ext>`, with more digits where that name is another content's.

    An unknown size is written 0.
    """
    return f"{safe_id(image_id)}_{kind}_{width or 0}x{height or 0}_{sha256[:digits]}.{extension}"


def read_name(name: str) -> tuple[str, str, str] | None:
    """(safe id, kind, first digits of the content's hash) of a name that `file_name` made; None for any other."""
    found = _NAME.fullmatch(name)
    return (found["id"], found["kind"], found["sha"]) if found else None


def part_owner() -> str:
    """This process as a temporary file's name tells it: machine and process number."""
    return f"{machine_mark()}-{os.getpid()}"


@dataclass(frozen=True)
class OwnName:
    """`<image-id>_<kind>_<W>x<H>_<hex of sha256>.<ext>`, read: 8 digits, or more where two contents share these."""

    image: str
    kind: str
    width: int
    height: int


def read_any_name(name: str) -> OwnName | None:
    """Reads a file name of our own scheme; None for every other name, so that `IMG_0001.jpg` says nothing."""
    match = _ANY_NAME.fullmatch(name)
    return OwnName(match["id"], match["kind"], int(match["width"]), int(match["height"])) if match else None


def portable_name(name: str) -> str:
    """Returns the name under which every file system and reader takes a file: the same one where it is such a name.

    What Windows forbids becomes `_`; so do a leading dot, since readers of data sets leave out hidden files, and blanks
    at the ends. A name of a device gets one before it.
    """
    made = _FORBIDDEN.sub("_", name)
    body = made.lstrip(" .\u00a0")
    made = f"_{body}" if body != made else made
    kept = made.rstrip(" .\u00a0")
    made = kept if kept == made else f"{kept}_"
    return fitting_name(f"_{made}" if _DEVICES.match(made) else made)


def fitting_name(name: str, number: str = "") -> str:
    """Returns a name with a number before its suffix, cut where it is longer than file systems allow, in bytes."""
    stem, suffix = os.path.splitext(name)
    if len(os.fsencode(suffix)) > LONGEST_SUFFIX:
        stem, suffix = name, ""
    room = LONGEST - len(os.fsencode(number + suffix))
    if len(os.fsencode(stem)) > room:
        stem = fitting(stem, room)
    return f"{stem}{number}{suffix}"
