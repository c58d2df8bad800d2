"""Which addresses of a picture are tried, in which order, and which Referer each one is asked with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

KINDS = ("original", "preview", "dup", "thumb")


@dataclass(frozen=True)
class StoredVariant:
    """One address as the database knows it. Sizes are claims; `expires_at` is UTC text or empty."""

    id: int
    kind: str
    url: str
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    referer: str = ""
    expires_at: str = ""


@dataclass(frozen=True)
class Address:
    """One address to try. The first Referer is sent; the second, if any, after the server has answered 403."""

    variant_id: int
    kind: str
    url: str
    referers: tuple[str, ...] = ("",)


def ladder(
    variants: Iterable[StoredVariant], *, page_url: str = "", kinds: Sequence[str] = KINDS, now: str = ""
) -> tuple[Address, ...]:
    """The addresses in the order in which they are tried, each address once.

    Kind comes first (original, preview, dup, thumb), then the claimed area downward, since the engines' sizes are
    claims but mostly right; an address that has expired by `now` goes to the end of its kind.
    """
    wanted = [variant for variant in variants if variant.kind in kinds]
    wanted.sort(key=lambda variant: _order(variant, kinds, now))
    rungs: dict[str, Address] = {}
    for variant in wanted:
        if variant.url not in rungs:
            rungs[variant.url] = Address(variant.id, variant.kind, variant.url, referers(variant.referer, page_url))
    return tuple(rungs.values())


def _order(variant: StoredVariant, kinds: Sequence[str], now: str) -> tuple[int, bool, int, int, int]:
    expired = bool(variant.expires_at and now and variant.expires_at <= now)
    area = (variant.width or 0) * (variant.height or 0)
    return kinds.index(variant.kind), expired, -area, -(variant.bytes or 0), variant.id


def referers(stored: str, page_url: str) -> tuple[str, ...]:
    """What to say one comes from: the stored Referer as it is, else the page's origin; then the other way round.

    A full page address is sent only where the origin was refused: it tells the picture's host more than it needs.
    """
    if stored:
        return (stored, "")
    origin = _origin(page_url)
    return (origin, page_url) if origin and origin != page_url else ("",)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/" if parts.scheme in ("http", "https") else ""
