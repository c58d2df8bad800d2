"""What the flags of step 5 measure in: seconds, bytes with a unit, and parts of a whole. For `type=` in a parser."""

from __future__ import annotations

import argparse

from lib.converters import whole


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
