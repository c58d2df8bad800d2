"""Opt-outs in headers: every spelling that an owner may use, and what is meant for others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lib.net.robots import opt_out, refused_usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TAG = "X-Robots-Tag: "


@pytest.mark.parametrize(
    ("line", "signal"),
    [
        # A date holds commas and colons, and what follows it counts.
        ("unavailable_after: Wednesday, 25 Jun 2031 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: 25 Jun 2031 15:00:00 PST, noimageai", "noimageai"),
        ("unavailable_after: 2031-06-25T15:00:00+02:00, noindex", "noindex"),
        ("unavailable_after: June 25, 2031 15:00:00 GMT, none", "none"),
        ('unavailable_after: "Wed, 25 Jun 2031 15:00:00 GMT", noai', "noai"),
        ("unavailable_after: Wednesday, 25-Jun-31 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: when it suits me: at 12:00, noai", "noai"),
        ("noai, unavailable_after: Wednesday, 25 Jun 2031 15:00:00 GMT", "noai"),
        # One that is over: the picture should be gone.
        ("unavailable_after: 25 Jun 2025 15:00:00 PST", "unavailable_after"),
        ("unavailable_after: Wednesday, 25 Jun 2025 15:00:00 GMT", "unavailable_after"),
        ("Unavailable_After: 2025-06-25", "unavailable_after"),
        ("unavailable_after: 2025-06-25T15:00:00Z", "unavailable_after"),
        ("unavailable_after: Wednesday, 25-Jun-25 15:00:00 GMT", "unavailable_after"),
        ("nofollow, unavailable-after: June 25, 2025 15:00:00 GMT", "unavailable_after"),
        ('unavailable_after: "Wed, 25 Jun 2025 15:00:00 GMT"', "unavailable_after"),
        ("gleaner: unavailable_after: 25 Jun 2025 15:00:00 GMT", "unavailable_after"),
        ("*: unavailable_after: Wed, 25 Jun 2025 15:00:00 GMT", "unavailable_after"),
        ("unavailable_after: 25 Jun 2031 15:00:00 GMT", ""),
        ("unavailable_after: 2031-06-25", ""),
        ("unavailable_after: some day", ""),
        ("unavailable_after:", ""),
        ("otherbot: unavailable_after: 25 Jun 2025 15:00:00 GMT", ""),
        # Names: ours with a version or a comment, everybody's, another's.
        ("gleaner/0.1: noai", "noai"),
        ("Gleaner/1.2.3-rc1 : NoAI", "noai"),
        ("gleaner (+https://example.org): noai", "noai"),
        ("Gleaner/0.1 (+https://example.org): noai", "noai"),
        ("*: noai", "noai"),
        ("* : nofollow, noimageai", "noimageai"),
        ("otherbot: nofollow, *: noai", "noai"),
        ("otherbot: noai, gleaner/9: noindex", "noindex"),
        ("otherbot/2.1: noai", ""),
        ("otherbot: noai", ""),
        ("otherbot: noindex, noai", ""),
        ("360spider: noai", ""),
        ("gleanerbot: noai", ""),
        ("not-gleaner: noai", ""),
        ("gleaner: nofollow, otherbot: noai", ""),
        ("otherbot: max-snippet: 20, noai", ""),
        # A directive with a value is no crawler's name.
        ("max-snippet: 20, noai", "noai"),
        ("max-image-preview: none, nofollow", ""),
        ("max-image-preview: none, noai", "noai"),
        ("max-image-preview: standard, otherbot: noai", ""),
        ("max-image-preview: large, noimageai", "noimageai"),
        ("max-video-preview:-1,noai", "noai"),
        ("some-new-thing: 7, noai", "noai"),
        # Case, spaces, quotes, other separators.
        ("NOAI", "noai"),
        ("  noAI  ,", "noai"),
        (",, noimageai", "noimageai"),
        ('"noai"', "noai"),
        ("nofollow; noai", "noai"),
        ("nofollow noai", "noai"),
        ("nofollow,noml", "noml"),
        ("none", "none"),
        ("nofollow, NoImageAI", "noimageai"),
        ("noarchive, none", "none"),
        ("all", ""),
        ("nofollow, noarchive, nosnippet, notranslate, noaid, nonetheless", ""),
        ("", ""),
    ],
)
def test_what_a_robots_tag_says(line: str, signal: str) -> None:
    assert opt_out([line], now=NOW) == (TAG + signal if signal else "")


def test_every_line_of_a_header_counts() -> None:
    assert opt_out(["otherbot: noai", "nofollow", "noai"], now=NOW) == TAG + "noai"
    assert opt_out(["otherbot: noai", "nofollow"], now=NOW) == ""
    assert opt_out(["all"], ["0", "1"]) == "tdm-reservation: 1"
    assert opt_out([], [], ["search=n", "train-ai=n"]) == "Content-Usage: train-ai=n"


@pytest.mark.parametrize("lines", [["1"], ["0", "1"], ["0, 1"], [" 1 "], ['"1"'], ["1;policy=x"], ["1", "0"]])
def test_any_reservation_of_several_holds(lines: list[str]) -> None:
    assert opt_out([], lines) == "tdm-reservation: 1"


@pytest.mark.parametrize("lines", [[], ["0"], [""], ["10"], ["no"]])
def test_what_is_no_reservation(lines: list[str]) -> None:
    assert opt_out([], lines) == ""


@pytest.mark.parametrize(
    ("expression", "refused"),
    [
        ("train-ai=n", "train-ai=n"),
        ("Train-AI = N", "train-ai=n"),
        ("search=y, train-ai=n", "train-ai=n"),
        ("train-ai=y,train-ai=n", "train-ai=n"),
        ("train-ai=n;exceptions=none", "train-ai=n"),
        ('train-ai="n"', 'train-ai="n"'),
        ("train-genai=n", "train-genai=n"),
        ("tdm=n", "tdm=n"),
        ("bots=n", "bots=n"),
        ("search=yes,ai-train=no", "ai-train=no"),
        ("train-ai=?0", "train-ai=?0"),
        ("train-ai=y", ""),
        ("search=n", ""),
        ("ai-input=no, search=no", ""),
        ("train-ai", ""),
        ("not-train-ai=n", ""),
        ("", ""),
    ],
)
def test_what_a_usage_expression_refuses(expression: str, refused: str) -> None:
    assert refused_usage(expression) == refused


def test_long_headers_are_read_in_one_go() -> None:
    """Patterns with two ways to match a run of spaces or letters would take a second for each of these."""
    for part in (" ", "a", "a.", "(", "1:", "a:", "unavailable_after:", "a (", "=", " ="):
        line = part * (8000 // len(part))
        assert opt_out([line] * 50, [line] * 50, [line] * 50, now=NOW) == ""
        assert opt_out([line + ", noai"], now=NOW) in ("", TAG + "noai")
    assert opt_out([" " * 8000 + "noai"], now=NOW) == TAG + "noai"
