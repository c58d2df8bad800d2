"""The names that step 5 gives: several files of one picture can be told by name alone, and by no other names."""

from __future__ import annotations

import re
from dataclasses import dataclass

RUNGS = ("original", "preview", "dup", "thumb")
_NAME = re.compile(
    rf"(?P<image>.+)_(?P<rung>{'|'.join(RUNGS)})_(?P<width>\d+)x(?P<height>\d+)_(?P<hash>[0-9a-f]{{8}}|[0-9a-f]{{12}}|[0-9a-f]{{16}}|[0-9a-f]{{64}})(?:_\d+)?\.\w+",
    re.ASCII,
)


@dataclass(frozen=True)
class OwnName:
    """`<image-id>_<kind>_<W>x<H>_<hex of sha256>.<ext>`, read: 8 digits, or more where two contents share these."""

    image: str
    rung: str
    width: int
    height: int


def read_name(name: str) -> OwnName | None:
    """What a file name of our own scheme says; None for every other name, so that `IMG_0001.jpg` says nothing."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return OwnName(match["image"], match["rung"], int(match["width"]), int(match["height"]))
