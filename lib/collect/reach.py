"""The reach of a query: its limits, the one that ended it, and the pages that are due, step 1's progress."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.progress import Bar
from lib.text import counted

# What a query may come to its end by.
SOURCE_END, MAX_RESULTS, MAX_PAGES = "source_end", "max_results", "max_pages"
DEFAULT_PAGES, ENGINE_MAXIMUM = "default_pages", "engine_maximum"
NAMED = 3  # queries that a sentence names


@dataclass(frozen=True)
class SearchLimits:
    """The reach of a query: pages, the limit that these come from, and results where a number was asked for."""

    pages: int
    results: int | None = None
    by: str = MAX_PAGES


@dataclass(frozen=True)
class Stop:
    """The limit that ended a query, and its pages and results by then, those of earlier runs included."""

    engine: str
    query: str
    by: str
    pages: int
    results: int
    limits: SearchLimits

    def as_dict(self) -> dict[str, Any]:
        """The entry of `stopped` in `--json`."""
        words = {"engine": self.engine, "query": self.query, "stopped_by": self.by}
        reached = {"pages": self.pages, "results": self.results}
        return words | reached | {"max_pages": self.limits.pages, "max_results": self.limits.results}


def limits_for(
    max_pages: int | None, max_results: int | None, default: int, most: int, *, stored: SearchLimits | None = None
) -> SearchLimits:
    """The limits of a query: the pages follow from the results where only these are given.

    `default` and `most` are the engine's pages, `stored` are the limits that an earlier run had, which hold where
    nothing is given now.
    """
    results = max_results or (stored.results if stored else None)
    if max_pages is not None:
        return SearchLimits(min(max_pages, most), results, MAX_PAGES if max_pages <= most else ENGINE_MAXIMUM)
    if max_results is not None:
        return SearchLimits(most, results, ENGINE_MAXIMUM)
    return stored or SearchLimits(min(default, most), results, DEFAULT_PAGES)


def due_pages(next_page: int, found: int, limits: SearchLimits, page_size: int) -> int:
    """The number of pages that a query is likely to take from here on."""
    left = max(0, limits.pages - next_page)
    if limits.results is None:
        return left
    return min(left, max(0, -(-(limits.results - found) // max(1, page_size))))


class PageProgress:
    """The part of a bar that belongs to one query: as long as its pages are due, and longer or shorter as they come."""

    def __init__(self, bar: Bar, due: int):
        self.bar, self.left = bar, due

    def page(self) -> None:
        """Counts one page."""
        if self.left:
            self.left -= 1
        else:
            self.bar.expect(1)
        self.bar.update()

    def end(self) -> None:
        """Takes back what does not come any more."""
        if self.left:
            self.bar.expect(-self.left)
        self.left = 0


def stop_lines(stops: Sequence[Stop]) -> Iterator[str]:
    """One line an engine: which limit ended how many queries, and with how many results."""
    by_engine: dict[str, dict[str, list[Stop]]] = defaultdict(lambda: defaultdict(list))
    for stop in stops:
        by_engine[stop.engine][_limit(stop)].append(stop)
    for engine, found in by_engine.items():
        yield f"{engine} stopped " + "; ".join(_told(limit, group) for limit, group in found.items())


def why_no_page(counts: Mapping[str, object], failures: Iterable[str]) -> str:
    """A sentence where not one page came although something was searched for; empty where one did."""
    ended = {outcome: int(str(counts[outcome])) for outcome in failures if counts.get(outcome)}
    if counts.get("pages") or not ended:
        return ""
    outcome = max(ended, key=lambda name: ended[name])
    queries = counted(int(str(counts["queries"])), "query")
    return f"no page of results came: {ended[outcome]:,} of {queries} ended as {outcome} (--list shows why)."


def _limit(stop: Stop) -> str:
    """The limit in words, with what goes beyond it."""
    pages = counted(stop.limits.pages, "page")
    return {
        SOURCE_END: "where the source ends",
        MAX_RESULTS: f"at --max-results {stop.limits.results}",
        MAX_PAGES: f"at --max-pages {stop.limits.pages}",
        DEFAULT_PAGES: f"at the default of {pages} (--max-results or --max-pages goes on)",
        ENGINE_MAXIMUM: f"at its own maximum of {pages}",
    }[stop.by]


def _told(limit: str, group: Sequence[Stop]) -> str:
    names = ", ".join(stop.query for stop in group[:NAMED])
    more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
    least, most = min(stop.results for stop in group), max(stop.results for stop in group)
    results = counted(most, "result") if least == most else f"{least:,} to {counted(most, 'result')}"
    return f"{limit}: {names}{more}, {results}{' each' if len(group) > 1 and least == most else ''}"
