"""Work in portions: cuts it into lists, and shows one bar on the error stream, silent when that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Bar(Protocol):
    """A progress bar as library code sees it."""

    def update(self, n: float = 1) -> Any: ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any: ...


class BarFactory(Protocol):
    """`with bar(total, "Downloading", "file") as b: b.update()`."""

    def __call__(self, total: int | None, description: str, unit: str = "it") -> Any: ...


class _SilentBar:
    def update(self, n: float = 1) -> None:
        return None

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        return None


@contextmanager
def no_bar(total: int | None = None, description: str = "", unit: str = "it") -> Iterator[Bar]:
    """A bar that shows nothing: the default of library functions."""
    yield _SilentBar()


@contextmanager
def terminal_bar(total: int | None, description: str, unit: str = "it") -> Iterator[Bar]:
    """A tqdm bar with rate and time left; nothing at all when the error stream is no terminal."""
    if not sys.stderr.isatty():
        yield _SilentBar()
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=description, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
        yield bar


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items, the last one shorter. (`itertools.batched` from Python 3.12 on.)"""
    source = iter(items)
    while block := list(islice(source, size)):
        yield block
