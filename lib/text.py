"""Text from outside on its way into the database, JSON and pages, which hold nothing but whole characters."""

from __future__ import annotations

import argparse
import os
from typing import Any

from lib.errors import UsageError


def storable(text: str) -> str:
    """The text with half an emoji or a byte that is no UTF-8 as U+FFFD, and without NULs."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    return text if is_storable(text) else "".join("\ufffd" if _is_half(letter) else letter for letter in text)


def is_storable(text: str) -> bool:
    """Whether it can be written as UTF-8. Arguments and file names carry bytes that are none as half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_as_text(path: os.PathLike[str] | str) -> str:
    r"""A path for a person and the database: bytes that are no UTF-8 are written as \xff."""
    return os.fsencode(path).decode(errors="backslashreplace")


def require_text(args: argparse.Namespace) -> None:
    """Raises UsageError where an argument is no text. Paths may be named by any bytes."""
    for name, value in vars(args).items():
        if any(isinstance(word, str) and not is_storable(word) for word in _words(value)):
            raise UsageError(f"--{name.replace('_', '-')} is no UTF-8 text; write it in UTF-8.")


def _words(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_half(letter: str) -> bool:
    return "\ud800" <= letter <= "\udfff"
