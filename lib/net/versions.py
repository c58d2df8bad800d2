"""Which version of a file a server is sending, told surely enough to put two halves together."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST = 200  # characters of a tag; what is cut would never match again
SURE_AFTER = 60.0  # seconds between the change and the answer, from which on a date is a strong validator (RFC 9110)


def validator_of(headers: Mapping[str, str]) -> str:
    """What `If-Range` may be asked with: a strong entity tag, else a date of change that is old enough, else nothing.

    A weak tag does not promise the same bytes, and within a minute a file may change twice under one date.
    """
    tag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "").strip()
    if tag.startswith('"'):
        return tag if len(tag) <= LONGEST else ""
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(changed)
        return changed if age.total_seconds() >= SURE_AFTER else ""
    except (TypeError, ValueError, IndexError, OverflowError):
        return ""
