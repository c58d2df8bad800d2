"""Times as the database keeps them: UTC, ISO 8601, text that sorts."""

from __future__ import annotations

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
