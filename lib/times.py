"""Times as the database keeps them (UTC, ISO 8601, text that sorts), and the wait that a server asks for."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta

LONGEST = 1000  # characters of a number of seconds that are looked at
_SECONDS = re.compile(r"\+?((?:[0-9]+\.?[0-9]*)|(?:\.[0-9]+))[ \t]*(?:s|sec|secs|seconds?)?", re.IGNORECASE)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]")


def utc_now() -> str:
    """The present moment as `2026-11-20T09:30:00.123Z`."""
    return to_text(datetime.now(UTC))


def utc_in(seconds: float) -> str:
    """The moment that lies `seconds` ahead of now, as text."""
    return to_text(datetime.now(UTC) + timedelta(seconds=seconds))


def to_text(moment: datetime) -> str:
    """Milliseconds are enough, and a fixed width makes comparison of texts a comparison of times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def retry_after(value: str | None, *, most: float = math.inf, now: float | None = None) -> float | None:
    """Seconds from `now` (Unix time) that a Retry-After header names as a number or as a date, cut to `most`.

    Negative for a date that has passed; None where the header says nothing usable. Of several numbers, which come of
    several headers, the largest counts.
    """
    text = (value or "").strip(" \t\"';")
    numbers = [_SECONDS.fullmatch(part.strip()) for part in text[:LONGEST].split(",")]
    if found := [float(number[1]) for number in numbers if number]:
        return min(max(found), most) if len(found) == len(numbers) else None
    try:
        moment = _moment(text)
        # An HTTP date is in UTC, also where it does not say so.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(moment.timestamp() - (time.time() if now is None else now), most)
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None


def _moment(text: str) -> datetime:
    """The moment of an HTTP date in any of its three forms, or of an ISO one. Raises ValueError and its like."""
    from email.utils import parsedate_to_datetime  # slow to load, and seldom needed

    return datetime.fromisoformat(text) if _ISO.match(text) else parsedate_to_datetime(text)
