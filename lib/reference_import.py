"""The reference pipeline's database as pictures: its rows get back the shape they were taken from and are parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db.images import PictureRows, Saved, save_pictures
from lib.db.ingest import Answer, ensure_query
from lib.db.reference import count_images, iter_pictures, open_reference
from lib.ingest import Totals, picture_rows, preview_rows
from lib.parsers.drift import Drift
from lib.parsers.values import position, text
from lib.parsers.yandex import read_entity
from lib.progress import BarFactory, no_bar
from lib.records import ParsedPage
from lib.times import utc_now

BATCH = 2_000
Picture = tuple[dict[str, Any], list[dict[str, Any]]]


def import_reference(
    db: Database,
    path: Path,
    run_id: int,
    *,
    preview: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> Totals:
    """Takes in every picture of a `yandex_images.db` as the results of one imported query, named after the file."""
    totals = Totals()
    query = Answer(0, 0, "yandex", 0, "xhr", str(path), "")
    with open_reference(path) as reference, bar(count_images(reference), "Importing", "picture") as progress:
        if not preview:
            with db.transaction():
                number = ensure_query(db, "yandex", "import", path.name, run_id=run_id)
            query = Answer(0, number, "yandex", 0, "xhr", str(path), "")
        seen: set[str] = set()
        for rows in _batches(iter_pictures(reference), query):
            totals.results += len(rows.images)
            totals.add(preview_rows(db, rows, seen) if preview else _save(db, rows))
            progress.update(len(rows.images))
            if stopping():
                break
    return totals


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


def _batches(pictures: Iterator[Picture], query: Answer) -> Iterator[PictureRows]:
    records, drift = [], Drift()
    for number, (image, variants) in enumerate(pictures):
        rank = position(image.get("pos"))
        rank = number if rank is None else rank
        if engine_id := text(image.get("id")):
            records.append(read_entity(engine_id, rank, entity_of(image, variants), drift))
        if len(records) >= BATCH:
            yield picture_rows(query, ParsedPage(tuple(records)), utc_now())
            records = []
    if records:
        yield picture_rows(query, ParsedPage(tuple(records)), utc_now())


def _save(db: Database, rows: PictureRows) -> Saved:
    with db.transaction():
        return save_pictures(db, rows, utc_now())
