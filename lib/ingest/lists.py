"""Pictures as others have listed them: text, CSV, TSV, JSON Lines, Parquet, and the reference pipeline's database.

The column with the address is called `url` (or one of a few other names); captions, sizes, pages, creators and licences
are taken where a column is named like that, and everything else is left out. A picture's id is made from its address:
the ids of two lists would name different pictures alike. Rows of the reference pipeline's database get back the shape
they were taken from and are parsed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lib.db.reference import iter_pictures, open_reference
from lib.domains import host_of
from lib.engines.parsing import Drift, address, load_json, plain, position, text, whole
from lib.engines.yandex import ENTITY_KEYS, read_entity
from lib.errors import GleanerError
from lib.ingest.parquet import parquet_rows
from lib.records import ImageRecord, ParseError, VariantRecord

LIST_ENGINE = "list"
_HEAD = 64 * 1024  # bytes that a format is told by
_URL_NAMES = ("url", "image_url", "img_url", "imageurl", "contenturl", "link", "src")
_COLUMNS = {
    "title": ("caption", "title", "text", "alt", "top_caption"),
    "page_url": ("page_url", "foreign_landing_url", "source_url", "referer", "webpage_url"),
    "creator": ("creator", "author", "artist"),
    "creator_url": ("creator_url", "author_url"),
    "license": ("license", "licence"),
    "license_url": ("license_url", "licence_url"),
    "attribution": ("attribution", "credit"),
    "width": ("width", "original_width", "w"),
    "height": ("height", "original_height", "h"),
    "id": ("id", "uid", "key", "image_id"),
}
_WANTED = frozenset(name for names in (_URL_NAMES, *_COLUMNS.values()) for name in names)
LONGEST_LINE = 4 * 2**20  # characters; of what people keep in lists the longest are embeddings, some 100 KB
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_SEPARATORS = {"tsv": "\t", "csv": ",", "csv with semicolons": ";"}
_REFERENCE = {"id", "title", "domain", "snippet_url", "image_url", "is_gif", "ecom_shield", "freshness_counter"}
_SIZES = {"width", "height", "origin_width", "origin_height", "file_size_bytes"}
_ADDRESSES = {"url", "origin_url", "variant_type", "is_mixed_image"}
_REFERENCE_COLUMNS = tuple(sorted(_REFERENCE | _SIZES | _ADDRESSES | ENTITY_KEYS))

Rows = Iterator[Mapping[str, Any] | None]  # None for a line that is no row


def list_format(path: Path) -> str:
    """The kind of a list (parquet, jsonl, text or a table), told by the content; empty where it is none."""
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    if head.startswith(b"PAR1"):
        return "parquet"
    lines = [line for line in head.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if not lines or "\x00" in lines[0]:
        return ""
    if lines[0].lstrip().startswith("{"):
        return "jsonl" if _url_column(map(str, _json_row(lines[0]) or ())) else ""
    for name, separator in () if _is_link(lines[0].strip()) else _SEPARATORS.items():
        if separator in lines[0] and _url_column(next(csv.reader([lines[0]], delimiter=separator))):
            return name
    if _url_column([lines[0]]):
        return "text"
    shown = [line for line in lines[:50] if not line.startswith("#")]
    links = sum(_is_link(line.strip()) for line in shown)
    return "text" if links and links * 2 >= len(shown) else ""  # lists made by hand have a stray line here and there


def list_records(path: Path, kind: str, reasons: Counter[str]) -> Iterator[ImageRecord]:
    """The pictures of a list in its order; a row without an address, or no row at all, is counted by its reason."""
    for number, row in enumerate(_READERS[kind](path, reasons)):
        if row is None:
            reasons["broken_line"] += 1
            continue
        named = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
        if record := _record(number, named):
            yield record
        else:
            reasons["no_address"] += 1


def _record(number: int, row: Mapping[str, Any]) -> ImageRecord | None:
    link = address(next((row[name] for name in _URL_NAMES if row.get(name)), None))
    if not _SCHEME.match(link):
        return None
    found = {
        name: next((row[c] for c in names if row.get(c) not in (None, "")), None) for name, names in _COLUMNS.items()
    }
    page, width, height = address(found["page_url"]), whole(found["width"]), whole(found["height"])
    return ImageRecord(
        engine_id=hashlib.sha256(link.encode("utf-8", "replace")).hexdigest()[:32],
        rank=number,
        page_url=page,
        title=plain(found["title"]),
        domain=host_of(page) or host_of(link),
        width=width,
        height=height,
        creator=plain(found["creator"]),
        creator_url=address(found["creator_url"]),
        license=plain(found["license"]),
        license_url=address(found["license_url"]),
        attribution=plain(found["attribution"]),
        extra={"list_id": text(found["id"])} if text(found["id"]) else {},
        variants=(VariantRecord("original", link, width, height, referer=page),),
    )


class _Lines:
    """The lines of a text, none longer than what fits: one that is raises csv.Error; the next call goes on behind it.

    A class, because a generator would have ended with the first error.
    """

    def __init__(self, handle: io.TextIOWrapper):
        self._handle = handle

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._handle.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        if len(line) < LONGEST_LINE or line[-1] in "\r\n":
            return line
        while (rest := self._handle.readline(LONGEST_LINE)) and rest[-1] not in "\r\n":
            pass
        raise csv.Error("a line without end")


def _whole_lines(path: Path) -> Iterator[str | None]:
    """The lines of a text; None for one without end."""
    with _open(path) as handle:
        lines = _Lines(handle)
        while True:
            try:
                yield next(lines)
            except StopIteration:
                return
            except csv.Error:
                yield None


def _read_text(path: Path, reasons: Counter[str]) -> Rows:
    """One address a line, whatever it contains: commas belong to it."""
    for number, line in enumerate(_whole_lines(path)):
        if line is None:
            yield None
        elif line.strip() and not line.startswith("#") and not (number == 0 and _url_column([line])):
            yield {"url": line.strip()}


def _read_table(separator: str) -> Callable[[Path, Counter[str]], Rows]:
    def read(path: Path, reasons: Counter[str]) -> Rows:
        with _open(path) as handle:
            table = csv.DictReader(_Lines(handle), delimiter=separator)
            try:
                assert table.fieldnames  # the list was told by them
            except csv.Error as error:
                raise GleanerError(f"the first line of {path} cannot be read ({error}); shorten it.") from error
            while True:
                try:
                    yield _with_all_fields(next(table), separator)
                except StopIteration:
                    return
                except csv.Error:  # such as a field without end; the table goes on behind it
                    yield None

    return read


def _with_all_fields(row: dict[Any, Any], separator: str) -> Mapping[str, Any] | None:
    """A row without quotes around its commas: they are the address's where that stands last. Elsewhere nobody can tell
    whose they are, and it is no row: half an address would be taken for the whole."""
    surplus = row.pop(None, None)
    if not any(surplus or ()):
        return row
    last = list(row)[-1]
    if not _url_column([last]):
        return None
    return row | {last: separator.join([row[last], *surplus])}


def _read_jsonl(path: Path, reasons: Counter[str]) -> Rows:
    yield from (_json_row(line or "") for line in _whole_lines(path) if line is None or line.strip())


def _json_row(line: str) -> Mapping[str, Any] | None:
    """The object in a line; None where there is none, or more in it than a list has a use for."""
    try:
        row, _ = load_json(line.encode("utf-8", "replace"))
    except ParseError:
        return None
    return row if isinstance(row, dict) else None


_READERS: dict[str, Callable[[Path, Counter[str]], Rows]] = {
    "text": _read_text,
    **{name: _read_table(separator) for name, separator in _SEPARATORS.items()},
    "jsonl": _read_jsonl,
    "parquet": lambda path, reasons: parquet_rows(path, _WANTED, reasons),
}


def _open(path: Path) -> io.TextIOWrapper:
    csv.field_size_limit(2**20)
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _url_column(names: Iterable[str]) -> str:
    """The column that holds the address, by its name."""
    found = {name.strip().strip('"').lower() for name in islice(names, 500)}
    return next((name for name in _URL_NAMES if name in found), "")


def _is_link(line: str) -> bool:
    return "://" in line[:12] and " " not in line


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
