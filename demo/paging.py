"""Reading whole numbers off a query, and cutting a ranking by offset."""

from __future__ import annotations

import re
from collections.abc import Mapping

from demo.catalog import Picture


def whole(asked: Mapping[str, str], name: str, default: int, low: int = 0, high: int = 10**6) -> int:
    """A parameter as a number brought between `low` and `high`; the default if it is absent or nonsense."""
    number = number_in(asked, name, default)
    return min(high, max(low, default if number is None else number))


def number_in(asked: Mapping[str, str], name: str, default: int) -> int | None:
    """A parameter as a number, the default if it is absent, None if it is nonsense."""
    text = asked.get(name, "")
    if not text:
        return default
    return int(text) if re.fullmatch(r"-?\d{1,9}", text, re.ASCII) else None


def window(found: list[Picture], offset: int, count: int) -> list[Picture]:
    return found[max(0, offset) : max(0, offset) + count]
