"""Columns of a list that have no place of their own in a record: they are kept with the picture and exported again.

Names stay as the list writes them, and so do the values: numbers, truth values, texts, lists, objects, nothing. A table
of text holds texts alone: what is a number exactly as a number is written becomes one. What is in the record already
(the address, title, page, licence, creator, sizes) is not kept a second time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache
from typing import Any

import orjson

from lib.engines.parsing import LARGEST
from lib.ingest.columns import FACTS, URL_NAMES, NamedRow
from lib.records import ImageRecord
from lib.text import storable

KEY = "columns"  # of `extra` in `images`
# Bytes of JSON that a row's columns may take: an embedding of 1,024 numbers has 20 KB, what img2dataset adds has one.
MOST_BYTES = 64 * 1024
DEEPEST = 8  # lists and objects within each other
TOO_LARGE = "values_too_large"

_NAMED = tuple(name for fact in ("width", "height", "bytes") for name in FACTS[fact])
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,15})")
_TRUTH = {"true": True, "True": True, "false": False, "False": False}

Others = tuple[tuple[str, str], ...]  # (normal name, name in the list)


@lru_cache(maxsize=256)
def _others(names: Others, column: str) -> Others:
    """Returns the columns that may be kept, by their names alone."""
    held = [normal for normal, _ in names]
    link = column if column in held else next((name for name in URL_NAMES if name in held), "")
    title = next((name for name in FACTS["title"] if name in held), "")
    taken = {link, title, *_NAMED}
    return tuple((normal, name) for normal, name in names if normal and normal not in taken)


class OtherColumns:
    """Takes out of rows what is kept of them. `column` is the normal name of the column with the address.

    `are_texts` is for rows of a table of text. `left_out` counts the values that are too large to be kept.
    """

    def __init__(self, column: str, left_out: Counter[str], *, are_texts: bool = False) -> None:
        self.column = column
        self.left_out = left_out
        self.are_texts = are_texts
        self._names: Others = ()
        self._others: Others = ()

    def of(self, row: NamedRow, record: ImageRecord) -> dict[str, Any]:
        """Returns the columns of a row by their names in the list, without what its record says already."""
        if row.names is not self._names:  # those of a table are the same object in every row
            self._names, self._others = row.names, _others(row.names, self.column)
        if not self._others:
            return {}
        said = (record.page_url, record.creator, record.license, record.license_url, record.attribution)
        kept: dict[str, Any] = {}
        for normal, name in self._others:
            value = row[normal]
            if type(value) is str:
                if value and value in said:
                    continue
                value = _typed(value) if self.are_texts else storable(value)
            elif value is not None and type(value) not in (bool, int):
                value = _clean(value, 0)
            elif type(value) is int and not -LARGEST <= value <= LARGEST:
                value = str(value)
            kept[storable(name)] = value
        return self._bounded(kept)

    def _bounded(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Returns the columns without the largest values where all of them are too large."""
        try:
            if len(orjson.dumps(kept)) <= MOST_BYTES:
                return kept
        except (TypeError, RecursionError):  # nothing that `_clean` has left in; measured one by one
            pass
        sizes = {name: _size(value) for name, value in kept.items()}
        for name in sorted(sizes, key=lambda one: -sizes[one]):
            if sum(sizes.values()) <= MOST_BYTES:
                break
            del kept[name], sizes[name]
            self.left_out[TOO_LARGE] += 1
        return kept


def _size(value: Any) -> int:
    try:
        return len(orjson.dumps(value)) + 100  # a name of usual length comes with it
    except (TypeError, RecursionError):
        return MOST_BYTES + 1


def _typed(text: str) -> Any:
    """Returns the number or truth value that a text is exactly as one is written, else the text."""
    if len(text) > 25 or not text:
        return storable(text)
    if text in _TRUTH:
        return _TRUTH[text]
    if text[0] not in "-0123456789":
        return storable(text)
    if _INTEGER.fullmatch(text) and text != "-0":
        number = int(text)
        return number if -LARGEST <= number <= LARGEST else text
    try:
        real = float(text)
    except ValueError:
        return storable(text)
    return real if math.isfinite(real) and repr(real) == text else storable(text)


def _clean(value: Any, depth: int) -> Any:
    """Returns a value as JSON has it: text that can be stored, no number that is none, nothing deeper than is usual."""
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -LARGEST <= value <= LARGEST else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= DEEPEST:
        return storable(str(value)[:MOST_BYTES])
    if isinstance(value, (list, tuple)):
        return [_clean(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {storable(str(name)): _clean(one, depth + 1) for name, one in value.items()}
    return storable(str(value))
