"""Whether a server's headers say that a picture shall not be collected."""

from __future__ import annotations

from collections.abc import Iterable

TOKEN = "gleaner"  # our name in `X-Robots-Tag: gleaner: noai`
DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# Directives that take a value after a colon: the word before the colon is no crawler's name.
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def opt_out(robots_tags: Iterable[str], tdm_reservation: str = "", token: str = TOKEN) -> str:
    """The signal that forbids it (`X-Robots-Tag: noai`, `tdm-reservation: 1`), or an empty string.

    A tag may be meant for one crawler (`otherbot: noai`); a name holds for the rest of its header line.
    """
    if tdm_reservation.strip() == "1":
        return "tdm-reservation: 1"
    for line in robots_tags:
        meant_for_us = True
        for part in line.lower().split(","):
            name, colon, rest = part.partition(":")
            directive = part.strip()
            if colon and name.strip() not in _WITH_VALUE:
                meant_for_us, directive = name.strip() == token, rest.strip()
            if meant_for_us and directive in DIRECTIVES:
                return f"X-Robots-Tag: {directive}"
    return ""
