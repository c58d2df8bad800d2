"""The reference pipeline's database as pictures: its rows get back the shape they were taken from and are parsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.db.reference import iter_pictures, open_reference
from lib.engines.parsing import Drift, position, text
from lib.engines.yandex import ENTITY_KEYS, read_entity
from lib.records import ImageRecord

_COLUMNS = {"id", "title", "domain", "snippet_url", "image_url", "is_gif", "ecom_shield", "freshness_counter"}
_SIZES = {"width", "height", "origin_width", "origin_height", "file_size_bytes"}
_ADDRESSES = {"url", "origin_url", "variant_type", "is_mixed_image"}
WANTED = tuple(sorted(_COLUMNS | _SIZES | _ADDRESSES | ENTITY_KEYS))


def reference_records(path: Path, reasons: Counter[str]) -> Iterator[ImageRecord]:
    """Every picture of a `yandex_images.db`. Raises UsageError or GleanerError for what is none.

    A row whose id is no text is counted by its reason, as is a value that is left out.
    """
    drift = Drift()
    with open_reference(path) as reference:
        for number, (image, variants) in enumerate(iter_pictures(reference, WANTED, reasons)):
            rank = position(image.get("pos"))
            if engine_id := text(image.get("id")):
                entity = entity_of(image, variants)
                yield read_entity(engine_id, number if rank is None else rank, entity, drift)
            else:
                reasons["no_id"] += 1


def entity_of(image: dict[str, Any], variants: list[dict[str, Any]]) -> dict[str, Any]:
    """A picture's rows in the shape of the engine's entity."""
    snippet = {"title": image.get("title"), "domain": image.get("domain"), "url": image.get("snippet_url")}
    by_kind: dict[str, list[dict[str, Any]]] = {"preview": [], "dups": [], "thumb": []}
    for variant in variants:
        kind = text(variant.get("variant_type"))
        by_kind.get({"dup": "dups"}.get(kind, kind), by_kind["dups"]).append(_variant_of(variant))
    thumb = by_kind["thumb"][0] if by_kind["thumb"] else None
    traits = {"gifLabel": image.get("is_gif"), "ecomShield": image.get("ecom_shield")}
    return {
        **image,
        **traits,
        "image": image.get("image_url"),
        "freshnessCounter": image.get("freshness_counter"),
        "snippet": snippet,
        "viewerData": {"preview": by_kind["preview"], "dups": by_kind["dups"], "thumb": thumb},
    }


def _variant_of(row: dict[str, Any]) -> dict[str, Any]:
    origin = {"url": row.get("origin_url"), "w": row.get("origin_width"), "h": row.get("origin_height")}
    return {
        "url": row.get("url"),
        "w": row.get("width"),
        "h": row.get("height"),
        "fileSizeInBytes": row.get("file_size_bytes"),
        "isMixedImage": row.get("is_mixed_image"),
        "origin": origin,
    }
