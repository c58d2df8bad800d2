"""Work in portions: cuts it into lists, and shows one bar on the error stream, silent when that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
ALWAYS = {"always": True}  # `extra` of a log line that is told however many of its kind there were
# Bars for narrow terminals, the widest first: without time passed and rate, then without description.
NARROW = ("{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining}]", "{percentage:3.0f}%|{bar}| {remaining}")


class Bar(Protocol):
    """A progress bar as library code sees it."""

    def update(self, n: float = 1) -> Any: ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any: ...

    def expect(self, more: int) -> Any:
        """Makes the total larger, or smaller by a negative number."""


class BarFactory(Protocol):
    """`with bar(total, "Downloading", "file") as b: b.update()`."""

    def __call__(self, total: int | None, description: str, unit: str = "it") -> Any: ...


class _SilentBar:
    def update(self, n: float = 1) -> None:
        return None

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        return None

    def expect(self, more: int) -> None:
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
    kind = _terminal_bar()
    with kind(total=total, desc=description, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
        yield bar


def _terminal_bar() -> Any:
    """The class of a bar that stays a bar: what stands beside it is left out, the last words first, to make room."""
    from tqdm import tqdm

    class TerminalBar(tqdm):  # type: ignore[type-arg]
        def expect(self, more: int) -> None:
            self.total = (self.total or 0) + more
            self.refresh()

        @staticmethod
        def format_meter(  # type: ignore[override]
            *args: Any, ncols: int | None = None, postfix: str | None = None, **more: Any
        ) -> str:
            parts = (postfix or "").removeprefix(", ").split(", ")
            tries: list[dict[str, Any]] = [{"postfix": ", ".join(parts[:count])} for count in range(len(parts), 0, -1)]
            tries += [{"postfix": ""}, *({"postfix": "", "bar_format": form} for form in NARROW)]
            for shorter in tries:
                # Without a number of columns the bar has ten.
                if not ncols or len(tqdm.format_meter(*args, **more | shorter)) <= ncols:
                    break
            return tqdm.format_meter(*args, **more | shorter | {"ncols": ncols})

    return TerminalBar


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items, the last one shorter. (`itertools.batched` from Python 3.12 on.)"""
    source = iter(items)
    while block := list(islice(source, size)):
        yield block
