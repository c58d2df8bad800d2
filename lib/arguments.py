"""Converters from the text of an option to its value, for `type=` in a parser.

A wrong text is refused with what would be right.
"""

from __future__ import annotations

import argparse
import codecs
import os
from collections.abc import Callable
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any

from lib.errors import UsageError

LARGEST = 2**63 - 1  # what the database can hold
_NO_LETTERS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf-7", "undefined"})


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return at_least(1)(text)


def whole(text: str) -> int:
    """A whole number of at least 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 0")
    if value > LARGEST:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is too large")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """A converter to whole numbers from `least` on."""

    def convert(text: str) -> int:
        value = whole(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not {least} or more")
        return value

    return convert


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not finite")
    return value


def between(low: float, high: float) -> Callable[[str], float]:
    """A converter to numbers from `low` to `high`, both included."""

    def convert(text: str) -> float:
        value = number(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {low:g} and {high:g}")
        return value

    return convert


def share(text: str) -> float:
    """A share, written as 0.5 or 50%."""
    try:
        value = number(text[:-1]) / 100 if text.endswith("%") else number(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 0.5 or 50%") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1 (0% and 100%)")
    return value


def run_reference(text: str) -> str:
    """`last`, or the number of a run."""
    if text == "last" or (text.isascii() and text.isdigit() and int(text) <= LARGEST):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither a run's number nor 'last'")


def html_file(text: str) -> Path:
    """The path of a page: another ending is a slip, such as a picture that would be written over."""
    if text.casefold().endswith((".html", ".htm")):
        return Path(text)
    raise argparse.ArgumentTypeError(f"{text!r} does not end in .html; a page is an HTML file")


def cpu_count() -> int:
    """The processors that this process may use; where the system does not tell (macOS, Windows), all there are."""
    look = getattr(os, "sched_getaffinity", None)
    return len(look(0)) if look else os.cpu_count() or 1


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 and less than a million")
    return value


def size(text: str) -> int:
    """Bytes, written as 800, 20K, 50M or 2G."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    digits, unit = (text[:-1], units[text[-1:].upper()]) if text[-1:].upper() in units else (text, 1)
    return whole(digits) * unit


def shard(text: str) -> tuple[int, int]:
    """`i/n`: part i of n, counted from 1."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 1/4")
    return int(part) - 1, int(parts)


def encoding_name(text: str) -> str:
    """The name of an encoding of texts, as Python writes it."""
    try:
        found = codecs.lookup(text).name
        if "https://a.example/1.jpg\n".encode(found).decode(found) and found not in _NO_LETTERS:
            return found
    except (LookupError, UnicodeError, TypeError, ValueError, AttributeError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no known encoding such as cp1251, latin-1, gb18030 or utf-16")


def values_of(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """The parsed arguments that a dataclass of options has fields for, by name."""
    return {field.name: getattr(args, field.name) for field in fields(options) if field.name in args}


def require_folder_of(path: Path | None, flag: str) -> None:
    """Raises UsageError where a file cannot be written to, as its folder is not there or it is one: a typing error."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UsageError(f"{flag}: the folder {path.parent} does not exist; make it, or give another path.")
    if path.is_dir():
        raise UsageError(f"{flag}: {path} is a folder; give the path of a file.")
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:  # too long a name
        raise UsageError(f"{flag}: {error.strerror}; give another path.") from error
