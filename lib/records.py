"""Records that a parser makes of a raw answer: plain values, the same for every engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
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

ID_LENGTH = 200  # characters of an engine's id


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
    """One picture as an engine shows it; `rank` counts from 0 over all pages.

    `engine_id` is the engine's own where that is known to name one picture only, else `identity` of its addresses.
    """

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


# Baidu serves one thumbnail from many hosts; the pair of numbers names its content.
_BAIDU_THUMB = re.compile(r"https?://[\w.-]+\.(?:baidu|bdstatic|bdimg)\.com/\S*[?&/]u=(\d+,\d+)")


def identity(variants: Sequence[VariantRecord], engine_id: str = "") -> str:
    """Returns the id of a picture of an engine that names none, or one that it uses again: made of its address.

    The original's address counts, else that of another copy, else the thumbnail's. Only a picture without any address
    has to be known by the engine's id; empty where it has none either.
    """
    if variants and (first := variants[0])[0] == "original" and first[1]:  # as a rule; names take longer than places
        return address_digest(first[1])
    named = [variant for variant in variants if variant.url]
    for kinds in (("original",), ("preview", "dup"), ("thumb",)):
        if found := next((variant.url for variant in named if variant.kind in kinds), ""):
            return address_digest(found)
    return engine_id[:ID_LENGTH]


def address_digest(url: str) -> str:
    """Returns 32 hexadecimal digits of an address's SHA-256; addresses of one thumbnail of Baidu's have the same."""
    if "u=" in url and (pair := _BAIDU_THUMB.match(url)):
        url = f"u={pair[1]}"
    return sha256(url.encode("utf-8", "replace")).hexdigest()[:32]


class ParseError(Exception):
    """The raw answer is not what the parser knows; the message is a short reason."""
