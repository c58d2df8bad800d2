"""Rows of one JSON value of any size, read a piece at a time: an array of objects, of addresses, or of both in a table.

The array may stand inside objects (`data`, `rows`, `results`, `images`: under whatever name), a list may be spread over
several, and an object that has an address is a row as well. So memory holds a row, whatever the file's size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from io import StringIO, TextIOBase
from itertools import islice
from typing import Any

from lib.engines.parsing import MOST_CONTAINERS, lenient_decoder
from lib.ingest.columns import normal, url_column

LONGEST = 16 * 2**20  # characters of a row
DEEPEST = 6  # objects and arrays around a row
MOST_WAITING = 50  # rows of an array that may come before its first address
MOST_NAMES = 500
_BLOCK = 2**18
_BLANK = re.compile(r"[\s,:\x1e\ufeff]*")


class _Broken(Exception):
    """The text is no JSON from here on."""


class _JsonReader:
    """A text of which no more is held than the value that is read."""

    def __init__(self, handle: TextIOBase):
        self.handle = handle
        self.held = ""
        self.place = 0
        self.decoder = lenient_decoder()
        self.header: list[str] = []  # names of columns that stand apart from their rows, as pandas writes them

    def _more(self) -> bool:
        block = self.handle.read(max(_BLOCK, len(self.held) - self.place))  # twice as much: no value is tried often
        self.held = self.held[self.place :] + block
        self.place = 0
        return bool(block)

    def peek(self) -> str:
        """Returns the next character that is no blank and no comma, empty at the end."""
        while True:
            match = _BLANK.match(self.held, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.held):
                return self.held[self.place]
            if not self._more():
                return ""

    def skip(self) -> None:
        self.place += 1

    def value(self) -> Any:
        """Returns the next value. Raises _Broken where there is none, or one of more than memory should hold."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.held, self.place)
                length = end - self.place
                if end < len(self.held) or not self._more():  # a number may go on behind the text that is held
                    self.place += length
                    return value
            except (json.JSONDecodeError, RecursionError) as error:
                size = len(self.held) - self.place
                large = size > LONGEST or (
                    size > 4 * _BLOCK and self.held.count("{") + self.held.count("[") > MOST_CONTAINERS
                )
                if isinstance(error, RecursionError) or large or not self._more():
                    raise _Broken from None


def json_rows(handle: TextIOBase, wanted: str, seen: list[str]) -> Iterator[Mapping[str, Any] | None]:
    """Yields the rows of a JSON text; None where it breaks off. Names of what is no row are added to `seen`.

    `wanted` is the name of the column with the address, where somebody has given one.
    """
    text = _JsonReader(handle)
    try:
        while text.peek():  # several files put together are one value after the other
            yield from _walk(text, wanted, seen, 0)
    except _Broken:
        yield None


def is_row_alone(row: Mapping[str, Any], wanted: str) -> bool:
    """True for an object that is the only row in itself: no list inside it has addresses."""
    found = list(islice(json_rows(StringIO(json.dumps(row)), wanted, []), 2))
    return len(found) == 1 and found[0] is not None and found[0].keys() <= row.keys()


def _walk(text: _JsonReader, wanted: str, seen: list[str], depth: int) -> Iterator[Mapping[str, Any] | None]:
    first = text.peek()
    if first in ("}", "]"):
        raise _Broken
    if first == "{" and depth < DEEPEST:
        text.skip()
        yield from _object(text, wanted, seen, depth)
    elif first == "[" and depth < DEEPEST:
        text.skip()
        yield from _array(text, wanted, seen)
    else:
        text.value()


def _object(text: _JsonReader, wanted: str, seen: list[str], depth: int) -> Iterator[Mapping[str, Any] | None]:
    """Goes through an object: what stands inside it, then the object itself where it has an address."""
    row: dict[str, Any] = {}
    is_around = False  # a list: an address beside one is that of an answer or a page
    while (first := text.peek()) != "}":
        if not first:
            raise _Broken
        name = text.value()
        if not isinstance(name, str):
            raise _Broken
        if text.peek() in ("{", "["):
            for inner in _walk(text, wanted, seen, depth + 1):
                is_around = True
                yield inner
        elif len(row) < MOST_NAMES:
            row[name] = text.value()
        else:
            text.value()
    text.skip()
    if not is_around and _is_row(row, wanted):
        yield row
    else:
        _note(seen, row)


def _array(text: _JsonReader, wanted: str, seen: list[str]) -> Iterator[Mapping[str, Any] | None]:
    """Goes through an array: a list where one of its first elements has an address."""
    waiting: list[Mapping[str, Any]] = []
    names = text.header  # of a table whose rows are arrays
    words: list[str] = []
    is_list = False
    while (first := text.peek()) != "]":
        if not first:
            raise _Broken
        element = text.value()
        if isinstance(element, list):
            if not names and _is_row(dict.fromkeys(filter(_is_text, element)), wanted):
                names = [str(name) for name in element]
                continue
            element = dict(zip(names, element, strict=False)) if names else {}
        elif isinstance(element, str) and len(words) < MOST_NAMES:
            words.append(element)
        row = _row_of(element)
        if not is_list and _is_row(row, wanted):
            is_list = True
            yield from waiting
        if is_list:
            yield row
        elif len(waiting) < MOST_WAITING:
            waiting.append(row)
            _note(seen, row)
    text.skip()
    if not is_list and _is_row(dict.fromkeys(words), wanted):
        text.header = words


def _row_of(element: Any) -> Mapping[str, Any]:
    if isinstance(element, str):
        return {"url": element} if "://" in element[:12] or element.startswith("//") else {}
    if not isinstance(element, dict):
        return {}
    inner = element.get("row")  # as Hugging Face's dataset server wraps each
    return inner if isinstance(inner, dict) else element


def _is_row(row: Mapping[str, Any], wanted: str) -> bool:
    names = [*row, *(f"{name}.{inner}" for name, held in row.items() if isinstance(held, dict) for inner in held)]
    if wanted:
        return any(normal(str(name)) == normal(wanted) for name in names)
    return bool(url_column(names))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _note(seen: list[str], row: Mapping[str, Any]) -> None:
    seen += [name for name in list(row)[:MOST_NAMES] if name not in seen][: max(0, MOST_NAMES - len(seen))]
