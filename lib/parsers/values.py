"""Reading values that an engine sent: any of them may be null, missing, of another type, or hostile."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import unescape
from typing import Any

from lib.text import storable

TEXT_LIMIT = 20_000  # characters; a title or snippet longer than this is no title
URL_LIMIT = 8_192  # characters; servers refuse longer addresses
LARGEST = 2**53 - 1  # the largest whole number that JSON carries safely, far below SQLite's limit
_DIGITS = 16  # of LARGEST; int() of a million digits would take minutes
_TAG = re.compile(r"<[^<>]*>")
_NO: Mapping[str, Any] = {}
_FALSE_WORDS = frozenset({"", "0", "false", "no", "off", "none", "null"})


def mapping(value: Any) -> Mapping[str, Any]:
    """The object, or an empty one for anything else."""
    return value if isinstance(value, dict) else _NO


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; what is no object is left out."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """Text without outer blanks, NULs and half characters; numbers as written; empty for anything else."""
    if isinstance(value, str):
        value = value[:TEXT_LIMIT].strip() if len(value) > TEXT_LIMIT else value.strip()
        return value if value.isascii() and "\x00" not in value else storable(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    return str(value)[:TEXT_LIMIT]


def plain(value: Any) -> str:
    """Text without markup, character references and runs of blanks."""
    found = value if type(value) is str and len(value) <= TEXT_LIMIT and "\x00" not in value else text(value)
    if "<" in found:
        found = found.replace("<b>", " ").replace("</b>", " ")  # the only ones that engines send as a rule
        if "<" in found:
            found = _TAG.sub(" ", found)
    if "&" in found:
        found = unescape(found).replace("\x00", "")
    # What is printable has no blank but the space, so that there is nothing to fold: a third of the time.
    if "  " not in found and found.isprintable():
        return found.strip()
    return storable(" ".join(found.split()))


def whole(value: Any) -> int | None:
    """A positive whole number from a number or its text; None for zero, nonsense and what no picture can have."""
    if type(value) is int:
        return value if 0 < value <= LARGEST else None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        value = value.strip()
        if not value or len(value) > _DIGITS + 4:
            return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and 1 <= number <= LARGEST else None


def position(value: Any) -> int | None:
    """A whole number from 0, as ranks are."""
    if type(value) is int and value == 0:
        return 0
    if isinstance(value, str) and value.strip() == "0":
        return 0
    return whole(value)


def flag(value: Any) -> bool:
    """A truth value, also when written as text or number. An object or a list (a badge's data) counts as true."""
    if isinstance(value, str):
        return value.strip().lower() not in _FALSE_WORDS
    return bool(value)


def address(value: Any) -> str:
    """A URL as sent, scheme-less `//` completed to https; empty for what is no text or is absurdly long."""
    if type(value) is str and len(value) <= URL_LIMIT and "\x00" not in value:
        found = value.strip()
    elif not value:
        return ""
    else:
        found = text(value)
        if len(found) > URL_LIMIT:
            return ""
    if not found.isascii():
        found = storable(found)
    return "https:" + found if found.startswith("//") else found
