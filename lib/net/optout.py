"""Whether a server's words say that a picture shall not be collected: headers, and expressions in robots.txt.

Where a line can be read in two ways, the one that its owner is more likely to have meant as a refusal counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TOKEN = "gleaner"  # our name in `X-Robots-Tag: gleaner: noai`
DIRECTIVES = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
# What else stands in such a header. A name before one of these, or before a word in "no", is a crawler's; before
# anything else it is a directive with a value, as in `max-snippet: 20`.
_OTHERS = frozenset({"all", "index", "follow", "archive", "indexifembedded", "unavailable_after"})
_WITH_VALUE = ("max-snippet", "max-image-preview", "max-video-preview")
# A product token, its version and a comment: `gleaner`, `*`, `Gleaner/0.1 (+https://example.org)`.
_NAME = re.compile(r"(\*|[a-z0-9_.-]+)(?:/[^\s:;(]*)? ?(?:\([^)]*\) ?)?:(.*)")
_EXPIRY = re.compile(r"unavailable[_-]after ?: ?(.*)")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d(?:t\d\d)?")  # looks like a name where a date holds a colon
_LONGEST_DATE = 100  # characters
_DATE_PARTS = 3  # commas in one date at most, and one: `Wednesday, June 25, 2025`
# Usages that making a data set is part of, as AIPREF's drafts and Content Signals name them.
USAGES = frozenset({"train-ai", "train-genai", "ai-train", "ai", "genai", "tdm", "bots"})
_REFUSALS = frozenset({"n", "no", "?0", "0", "false"})


def opt_out(
    robots_tags: Iterable[str],
    reservations: Iterable[str] = (),
    usages: Iterable[str] = (),
    token: str = TOKEN,
    now: datetime | None = None,
) -> str:
    """The signal that forbids it (`X-Robots-Tag: noai`, `tdm-reservation: 1`), or an empty string.

    The arguments are the lines of the headers `X-Robots-Tag`, `tdm-reservation` and `Content-Usage`. A tag may be meant
    for one crawler (`otherbot: noai`); a name holds for the rest of its header line.
    """
    if any(word.strip("\"'") == "1" for line in reservations for word in re.split(r"[\s,;]+", line)):
        return "tdm-reservation: 1"
    for line in usages:
        if refused := refused_usage(line):
            return f"Content-Usage: {refused}"
    moment = now or datetime.now(UTC)
    for line in robots_tags:
        if directive := _forbidding(line, token, moment):
            return f"X-Robots-Tag: {directive}"
    return ""


def refused_usage(expression: str) -> str:
    """The part of a usage expression (`train-ai=n, search=y`) that refuses ours, or an empty string."""
    for part in re.split(r"[,; ]", re.sub(r" ?= ?", "=", _plain(expression))):
        usage, _, answer = part.partition("=")
        if usage in USAGES and answer.strip("\"'") in _REFUSALS:
            return f"{usage}={answer}"
    return ""


def _plain(line: str) -> str:
    """A header line in lower case with single spaces, so that no pattern has two ways to match a long run of them."""
    return " ".join(line.lower().split())


def _forbidding(line: str, token: str, now: datetime) -> str:
    """The directive of one header line that forbids it."""
    meant_for_us = True
    parts = re.split(r"[,;]", _plain(line))
    for place, part in enumerate(parts):
        text = part.strip().strip("\"'")
        if (named := _named(text)) is not None:
            name, text = named
            meant_for_us = name in (token, "*")
        if not meant_for_us:
            continue
        if expiry := _EXPIRY.match(text):
            if _is_past([expiry[1], *parts[place + 1 :]], now):
                return "unavailable_after"
            continue
        if text.startswith(_WITH_VALUE):
            continue
        for word in text.split():
            if word.strip("\"'") in DIRECTIVES:
                return word.strip("\"'")
    return ""


def _named(text: str) -> tuple[str, str] | None:
    """(crawler's name, directive) of a part that begins with a name; None for any other, such as half a date."""
    found = _NAME.match(text)
    if found is None or found[1].isdigit() or _STAMP.fullmatch(found[1]):
        return None
    if _EXPIRY.match(text) or text.startswith(_WITH_VALUE):
        return None
    rest = found[2].strip().strip("\"'")
    word = re.split(r"[ :]", rest, maxsplit=1)[0].replace("-", "_")
    is_name = found[1] in ("*", TOKEN) or not rest or word.startswith(("no", "max_")) or word in _OTHERS
    return (found[1], rest) if is_name else None


def _is_past(parts: list[str], now: datetime) -> bool:
    """Whether the date that a list begins with, itself cut at its commas, is over. What is no date is not."""
    for count in range(1, min(_DATE_PARTS, len(parts)) + 1):
        text = ", ".join(part.strip().strip("\"'") for part in parts[:count])
        for moment in _dates(text[:_LONGEST_DATE]):
            return moment < now
    return False


def _dates(text: str) -> Iterator[datetime]:
    """The moment that a text names, in UTC where it does not say; nothing where it names none."""
    for read, written in ((datetime.fromisoformat, re.sub(r"z$", "+00:00", text)), (parsedate_to_datetime, text)):
        try:
            moment = read(written)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        yield moment if moment.tzinfo else moment.replace(tzinfo=UTC)
