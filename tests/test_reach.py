"""The reach of a query: which limit counts, how many pages are due, and how a person is told of it."""

from __future__ import annotations

import pytest

from lib.collect.reach import PageProgress, SearchLimits, Stop, due_pages, limits_for, stop_lines, why_no_page


@pytest.mark.parametrize(
    ("pages", "results", "stored", "limits"),
    [
        (None, None, None, SearchLimits(5, None, "default_pages")),
        (None, 200, None, SearchLimits(20, 200, "engine_maximum")),
        (3, 200, None, SearchLimits(3, 200, "max_pages")),
        (20, None, None, SearchLimits(20, None, "max_pages")),
        (90, None, None, SearchLimits(20, None, "engine_maximum")),
        (None, None, SearchLimits(2, 30, "max_pages"), SearchLimits(2, 30, "max_pages")),
        (None, 200, SearchLimits(5, None, "default_pages"), SearchLimits(20, 200, "engine_maximum")),
        (8, None, SearchLimits(20, 200, "engine_maximum"), SearchLimits(8, 200, "max_pages")),
    ],
)
def test_the_limits_follow_from_what_was_given(pages, results, stored, limits) -> None:
    assert limits_for(pages, results, 5, 20, stored=stored) == limits


@pytest.mark.parametrize(
    ("next_page", "found", "limits", "due"),
    [
        (0, 0, SearchLimits(5), 5),
        (3, 60, SearchLimits(5), 2),
        (7, 60, SearchLimits(5), 0),
        (0, 0, SearchLimits(100, 200), 10),
        (1, 20, SearchLimits(100, 201), 10),
        (1, 20, SearchLimits(4, 200), 3),
        (9, 300, SearchLimits(100, 200), 0),
    ],
)
def test_the_pages_that_are_due(next_page: int, found: int, limits: SearchLimits, due: int) -> None:
    assert due_pages(next_page, found, limits, 20) == due


class Bar:
    def __init__(self, total: int):
        self.total, self.n = total, 0

    def update(self, n: float = 1) -> None:
        self.n += int(n)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        raise AssertionError

    def expect(self, more: int) -> None:
        self.total += more


@pytest.mark.parametrize("taken", [0, 2, 3, 5])
def test_a_bar_ends_full_however_many_pages_come(taken: int) -> None:
    bar = Bar(10)
    progress = PageProgress(bar, 3)
    for _ in range(taken):
        progress.page()
        assert bar.n <= bar.total
    progress.end()
    progress.end()
    assert (bar.n, bar.total) == (taken, 7 + taken)


def test_the_limits_are_told_one_line_an_engine() -> None:
    far, few = SearchLimits(100, 200, "engine_maximum"), SearchLimits(5, None, "default_pages")
    stops = [
        Stop("bing", "'boat'", "max_results", 6, 210, far),
        Stop("yandex", "a.jpg", "default_pages", 5, 150, few),
        *(Stop("bing", f"'{n}'", "source_end", 2, 40 + n, far) for n in range(5)),
        Stop("bing", "'sea'", "engine_maximum", 100, 1, far),
    ]
    assert list(stop_lines(stops)) == [
        "bing stopped at --max-results 200: 'boat', 210 results; where the source ends: '0', '1', '2' and 2 more,"
        " 40 to 44 results; at its own maximum of 100 pages: 'sea', 1 result",
        "yandex stopped at the default of 5 pages (--max-results or --max-pages goes on): a.jpg, 150 results",
    ]


def test_a_search_without_a_page_says_why() -> None:
    failures = ("parse_error", "region")
    counts = {"queries": 4, "pages": 0, "results": 0, "parse_error": 3, "region": 1}
    assert "3 of 4 queries ended as parse_error" in why_no_page(counts, failures)
    assert why_no_page(counts | {"pages": 1}, failures) == "" == why_no_page({"queries": 1, "empty": 1}, failures)
