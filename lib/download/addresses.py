"""The order in which a picture's addresses are tried, and the Referer that each one is asked with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lib.db.download_queue import KINDS, StoredVariant


@dataclass(frozen=True)
class Address:
    """One address to try. The first Referer is sent; the second, if any, after the server has answered 403."""

    variant_id: int
    kind: str
    url: str
    referers: tuple[str, ...] = ("",)


def address_order(
    variants: Iterable[StoredVariant], *, page_url: str = "", kinds: Sequence[str] = KINDS, now: str = ""
) -> tuple[Address, ...]:
    """The addresses in the order in which they are tried, each URL once.

    Kind comes first (original, preview, dup, thumb), then the claimed area downward, since the engines' sizes are
    claims but mostly right; an address that has expired by `now` goes to the end of its kind.
    """

    def order(variant: StoredVariant) -> tuple[int, bool, int, int, int]:
        expired = bool(variant.expires_at and now and variant.expires_at <= now)
        area = (variant.width or 0) * (variant.height or 0)
        return kinds.index(variant.kind), expired, -area, -(variant.bytes or 0), variant.id

    found: dict[str, Address] = {}
    for variant in sorted((variant for variant in variants if variant.kind in kinds), key=order):
        if variant.url not in found:
            found[variant.url] = Address(variant.id, variant.kind, variant.url, referers(variant.referer, page_url))
    return tuple(found.values())


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
