"""Times as the database keeps them (UTC, ISO 8601, text that sorts), and the wait that a server asks for."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta


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
    """Seconds from `now` (Unix time) that a Retry-After header names in digits or as an HTTP date, cut to `most`.

    Negative for a date that has passed; None where the header says nothing usable.
    """
    from email.utils import parsedate_to_datetime  # slow to load, and seldom needed

    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), most)
    try:
        moment = parsedate_to_datetime(text)
        # An HTTP date is in UTC, also where it does not say so.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(moment.timestamp() - (time.time() if now is None else now), most)
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None
