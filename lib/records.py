"""Records that a parser makes of a raw answer: plain values, the same for every engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

OUTCOMES = (
    "ok",
    "end",
    "empty",
    "captcha",
    "blocked",
    "consent",
    "region",
    "wrong_tab",
    "upload_rejected",
    "parse_error",
    "network",
)


# These two are made by the million: a tuple goes into its row as it is, and frozen classes take four times as long to
# make, so that the other is frozen by custom only.
class VariantRecord(NamedTuple):
    """One address of a picture. Sizes are claims of the engine; `kind` is original, preview, dup or thumb."""

    kind: str
    url: str
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    referer: str = ""
    expires_at: str = ""


@dataclass(slots=True)
class ImageRecord:
    """One picture as an engine shows it. `engine_id` is the engine's own; `rank` counts from 0 over all pages."""

    engine_id: str
    rank: int
    page_url: str = ""
    title: str = ""
    snippet: str = ""
    domain: str = ""
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    format: str = ""
    published_at: str = ""
    is_gif: bool = False
    is_censored: bool = False
    is_shop: bool = False
    creator: str = ""
    creator_url: str = ""
    license: str = ""
    license_url: str = ""
    attribution: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    variants: tuple[VariantRecord, ...] = ()


@dataclass(frozen=True)
class ParsedPage:
    """One raw answer as parsed: its pictures in rank order, whether more follow, and how its shape has drifted.

    `next_url` is the engine's own address of the next page, empty at the end or where the engine does not say.
    `skipped` counts entries that are no results (advertisements); `drift` is as `lib.engines.parsing` describes it.
    `page_size` is 0 where ranks count over all pages; otherwise they count within the page, which has so many places.
    """

    images: tuple[ImageRecord, ...]
    next_url: str = ""
    skipped: int = 0
    drift: dict[str, Any] = field(default_factory=dict)
    page_size: int = 0


class ParseError(Exception):
    """The raw answer is not what the parser knows; the message is a short reason."""
