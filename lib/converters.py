"""What turns the text of an option into its value; a wrong text is refused with what would be right."""

from __future__ import annotations

import argparse
import os

LARGEST = 2**63 - 1  # what the database can hold


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return value


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


def share(text: str) -> float:
    """A share, written as 0.5 or 50%."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 0.5 or 50%") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1 (0% and 100%)")
    return value


def run_reference(text: str) -> str:
    """`last`, or the number of a run."""
    if text == "last" or (text.isascii() and text.isdigit() and int(text) <= LARGEST):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither a run's number nor 'last'")


def cpu_count() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
