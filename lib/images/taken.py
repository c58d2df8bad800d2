"""The day on which a photograph says that it was taken."""

from __future__ import annotations

import re
from pathlib import Path

from lib.errors import is_broken_installation
from lib.images.decode import exif_of, opened

_EXIF_FOLDER = 0x8769
_TAKEN, _DIGITISED = 0x9003, 0x9004  # not 0x0132: programs that save a picture again write that one
_DAY = re.compile(r"((?!0000)\d{4})[:-](0[1-9]|1[0-2])[:-](0[1-9]|[12]\d|3[01])(?!\d)")


def day_taken(path: Path) -> str:
    """Returns the day as `2019-05-01`, by the camera's clock, from the EXIF data; empty where they tell none.

    Reads the header only, and never raises for a bad file.
    """
    try:
        with opened(path) as picture:
            told = exif_of(picture).get_ifd(_EXIF_FOLDER)
    except Exception as error:  # the codec boundary: Pillow's plugins raise whatever their formats make them raise
        if is_broken_installation(error):
            raise
        return ""
    found = (_DAY.match(str(told.get(tag, ""))) for tag in (_TAKEN, _DIGITISED))
    return next(("-".join(day.groups()) for day in found if day), "")
