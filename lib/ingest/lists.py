"""Pictures as others have listed them: text, CSV, TSV, JSON, Parquet, and the reference pipeline's database.

All formats have one set of rules (`columns`): the column with the address is called `url` or one of its other names, or
is named on the command line; captions, sizes, pages, creators and licences are taken where a column is named like that,
and every other column is kept as it is (`extra`). A picture's id is made from its address: the ids of two lists would
name different pictures alike. Rows of the reference pipeline's database get back the shape they were taken from and are
parsed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.db.reference import iter_pictures, open_reference
from lib.engines.parsing import Drift, position, text
from lib.engines.yandex import ENTITY_KEYS, read_entity
from lib.errors import UsageError
from lib.ingest.columns import WANTED, named, normal, record_of
from lib.ingest.extra import KEY, OtherColumns
from lib.ingest.parquet import parquet_columns, parquet_rows
from lib.ingest.tables import READERS, Layout, Rows, column_of, text_encoding, text_layout
from lib.records import ImageRecord

log = logging.getLogger("gleaner")

LIST_ENGINE = "list"
_PACKED = {
    b"\x1f\x8b": "gzip", b"PK\x03\x04": "ZIP, or a workbook: save that as CSV", b"BZh": "bzip2", b"\xfd7zX": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard", b"7z\xbc\xaf": "7-Zip",
}  # fmt: skip
_REFERENCE = {"id", "title", "domain", "snippet_url", "image_url", "is_gif", "ecom_shield", "freshness_counter"}
_SIZES = {"width", "height", "origin_width", "origin_height", "file_size_bytes"}
_ADDRESSES = {"url", "origin_url", "variant_type", "is_mixed_image"}
_REFERENCE_COLUMNS = tuple(sorted(_REFERENCE | _SIZES | _ADDRESSES | ENTITY_KEYS))


def list_layout(path: Path, encoding: str = "", column: str = "") -> Layout | None:
    """Returns the way a list is to be read, told by its content; None where it is none.

    `encoding` and `column` are what a person has named. Raises UsageError for a list whose letters or whose column of
    addresses cannot be told.
    """
    with path.open("rb") as handle:
        head = handle.read(4)
    if packing := next((name for mark, name in _PACKED.items() if head.startswith(mark)), ""):
        raise UsageError(f"--import: {path} is packed ({packing}); unpack it and give what is inside.")
    if head == b"PAR1":
        return Layout("parquet", encoding or "utf-8", column=column_of(parquet_columns(path), column, path))
    found = text_encoding(path, encoding)
    return text_layout(path, found, column) if found else None


def list_records(
    path: Path, layout: Layout, reasons: Counter[str], left_out: Counter[str] | None = None
) -> Iterator[ImageRecord]:
    """Yields the pictures of a list in its order, each with the other columns of its row.

    What has no address, or is no row, is counted by its reason, in `left_out` what is too large to be kept.
    """
    left_out = Counter() if left_out is None else left_out
    others = OtherColumns(layout.column, left_out, are_texts=bool(layout.separator))
    for number, row in enumerate(_rows(path, layout, reasons, left_out)):
        if row is None:
            reasons["broken_line"] += 1
            continue
        for made in record_of(number, row, layout.column):
            if isinstance(made, str):
                reasons[made] += 1
                continue
            if kept := others.of(row, made):
                made.extra = {**made.extra, KEY: kept}
            yield made


def _rows(path: Path, layout: Layout, reasons: Counter[str], left_out: Counter[str]) -> Rows:
    if layout.kind != "parquet":
        yield from READERS[layout.kind](path, layout, reasons)
        return

    def is_fact(name: str) -> bool:
        return normal(name) in WANTED or normal(name) == layout.column

    for row in parquet_rows(path, is_fact, reasons, layout.encoding, left_out):
        yield named(row)


def reference_records(path: Path, reasons: Counter[str]) -> Iterator[ImageRecord]:
    """Every picture of a `yandex_images.db`. Raises UsageError or GleanerError for what is none.

    A row whose id is no text is counted by its reason, as is a value that is left out.
    """
    drift = Drift()
    with open_reference(path) as reference:
        for number, (image, variants) in enumerate(iter_pictures(reference, _REFERENCE_COLUMNS, reasons)):
            rank = position(image.get("pos"))
            if engine_id := text(image.get("id")):
                entity = _entity_of(image, variants)
                yield read_entity(engine_id, number if rank is None else rank, entity, drift)
            else:
                reasons["no_id"] += 1


def _entity_of(image: dict[str, Any], variants: list[dict[str, Any]]) -> dict[str, Any]:
    """A picture's rows in the shape of the engine's entity."""
    snippet = {"title": image.get("title"), "domain": image.get("domain"), "url": image.get("snippet_url")}
    by_kind: dict[str, list[dict[str, Any]]] = {"preview": [], "dups": [], "thumb": []}
    for variant in variants:
        kind = text(variant.get("variant_type"))
        by_kind.get({"dup": "dups"}.get(kind, kind), by_kind["dups"]).append(_variant_of(variant))
    thumb = by_kind["thumb"][0] if by_kind["thumb"] else None
    return {
        **image,
        "gifLabel": image.get("is_gif"),
        "ecomShield": image.get("ecom_shield"),
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
