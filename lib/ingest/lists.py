"""Pictures as others have listed them: text, CSV, TSV, JSON, Parquet, and the reference pipeline's database.

All formats have one set of rules (`columns`): the column with the address is called `url` or one of its other names, or
is named on the command line; captions, sizes, pages, creators and licences are taken where a column is named like that,
and every other column is kept as it is (`extra`). A picture's id is made from its address: the ids of two lists would
name different pictures alike. Rows of the reference pipeline's database get back the shape they were taken from and are
parsed.

Columns that are kept have the names and the values of their list: numbers, truth values, texts, lists, objects and
nothing. A table of text holds texts alone: what is a number exactly as a number is written becomes one. What is in the
record already (the address, title, page, licence, creator, sizes) is not kept a second time.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from lib.db.reference import iter_pictures, open_reference
from lib.engines.parsing import LARGEST, Drift, position, text
from lib.engines.yandex import ENTITY_KEYS, read_entity
from lib.errors import UsageError
from lib.ingest.columns import FACTS, URL_NAMES, WANTED, NamedRow, named, normal, record_of
from lib.ingest.parquet import parquet_columns, parquet_rows
from lib.ingest.tables import READERS, Layout, Rows, column_of, text_encoding, text_layout
from lib.records import ImageRecord
from lib.text import storable

log = logging.getLogger("gleaner")

LIST_ENGINE = "list"
KEY = "columns"  # of `extra` in `images`
# Bytes of JSON that a row's columns may take: an embedding of 1,024 numbers has 20 KB, what img2dataset adds has one.
MOST_BYTES = 64 * 1024
DEEPEST = 8  # lists and objects within each other
TOO_LARGE = "values_too_large"

_NAMED = tuple(name for fact in ("width", "height", "bytes") for name in FACTS[fact])
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,15})")
_TRUTH = {"true": True, "True": True, "false": False, "False": False}

Others = tuple[tuple[str, str], ...]  # (normal name, name in the list)
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


@lru_cache(maxsize=256)
def _others(names: Others, column: str) -> Others:
    """Returns the columns that may be kept, by their names alone."""
    held = [short for short, _ in names]
    link = column if column in held else next((name for name in URL_NAMES if name in held), "")
    title = next((name for name in FACTS["title"] if name in held), "")
    taken = {link, title, *_NAMED}
    return tuple((short, name) for short, name in names if short and short not in taken)


class OtherColumns:
    """Takes out of rows what is kept of them. `column` is the normal name of the column with the address.

    `are_texts` is for rows of a table of text. `left_out` counts the values that are too large to be kept.
    """

    def __init__(self, column: str, left_out: Counter[str], *, are_texts: bool = False) -> None:
        self.column = column
        self.left_out = left_out
        self.are_texts = are_texts
        self._names: Others = ()
        self._others: Others = ()

    def of(self, row: NamedRow, record: ImageRecord) -> dict[str, Any]:
        """Returns the columns of a row by their names in the list, without what its record says already."""
        if row.names is not self._names:  # those of a table are the same object in every row
            self._names, self._others = row.names, _others(row.names, self.column)
        if not self._others:
            return {}
        said = (record.page_url, record.creator, record.license, record.license_url, record.attribution)
        kept: dict[str, Any] = {}
        for short, name in self._others:
            value = row[short]
            if type(value) is str:
                if value and value in said:
                    continue
                value = _typed(value) if self.are_texts else storable(value)
            elif value is not None and type(value) not in (bool, int):
                value = _clean(value, 0)
            elif type(value) is int and not -LARGEST <= value <= LARGEST:
                value = str(value)
            kept[storable(name)] = value
        return self._bounded(kept)

    def _bounded(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Returns the columns without the largest values where all of them are too large."""
        try:
            if len(orjson.dumps(kept)) <= MOST_BYTES:
                return kept
        except (TypeError, RecursionError):  # nothing that `_clean` has left in; measured one by one
            pass
        sizes = {name: _size(value) for name, value in kept.items()}
        for name in sorted(sizes, key=lambda one: -sizes[one]):
            if sum(sizes.values()) <= MOST_BYTES:
                break
            del kept[name], sizes[name]
            self.left_out[TOO_LARGE] += 1
        return kept


def _size(value: Any) -> int:
    try:
        return len(orjson.dumps(value)) + 100  # a name of usual length comes with it
    except (TypeError, RecursionError):
        return MOST_BYTES + 1


def _typed(text: str) -> Any:
    """Returns the number or truth value that a text is exactly as one is written, else the text."""
    if len(text) > 25 or not text:
        return storable(text)
    if text in _TRUTH:
        return _TRUTH[text]
    if text[0] not in "-0123456789":
        return storable(text)
    if _INTEGER.fullmatch(text) and text != "-0":
        number = int(text)
        return number if -LARGEST <= number <= LARGEST else text
    try:
        real = float(text)
    except ValueError:
        return storable(text)
    return real if math.isfinite(real) and repr(real) == text else storable(text)


def _clean(value: Any, depth: int) -> Any:
    """Returns a value as JSON has it: text that can be stored, no number that is none, nothing deeper than is usual."""
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -LARGEST <= value <= LARGEST else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= DEEPEST:
        return storable(str(value)[:MOST_BYTES])
    if isinstance(value, (list, tuple)):
        return [_clean(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {storable(str(name)): _clean(one, depth + 1) for name, one in value.items()}
    return storable(str(value))
