"""Cuts an iterable into lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items, the last one shorter. (`itertools.batched` from Python 3.12 on.)"""
    source = iter(items)
    while block := list(islice(source, size)):
        yield block
