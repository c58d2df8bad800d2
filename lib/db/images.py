"""The `images`, `image_variants` and `results` tables as ingest fills them, and the pending rows of `downloads`.

Rows come as tuples in the order of the column lists below, built by worker processes. A picture is named by its place
among the pictures of its batch until the writer gives it a number: numbers are handed out in order, so that new rows
are appended to every table and index but the one that keeps the engines' ids unique. A picture that is met again keeps
what is known of it and gains what was empty. `ReparseIndex` remembers what a reading of all answers yields: all other
rows are those of an older parser.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from json import dumps
from typing import Any

import orjson

from lib.db.connection import Database

Row = tuple[Any, ...]

IMAGE_COLUMNS = (
    "key", "engine", "page_url", "title", "snippet", "domain", "registrable_domain", "width", "height", "bytes",
    "format", "published_at", "is_gif", "is_censored", "is_shop", "creator", "creator_url", "license",
    "license_url", "attribution", "extra", "first_seen_at",
)  # fmt: skip
VARIANT_COLUMNS = ("image_id", "kind", "url", "width", "height", "bytes", "referer", "expires_at")
RESULT_COLUMNS = ("image_id", "query_id", "response_id", "rank")
_AT_ONCE = 64  # rows of one statement: every statement costs as much as two narrow rows

# Columns that say one thing together and are therefore taken together, led by the one that tells whether it is known.
_GROUPS = {"page_url": ("page_url", "domain", "registrable_domain"), "license": ("license", "license_url")}
_TEXTS = (
    *("title", "snippet", "domain", "registrable_domain", "format", "published_at"),
    *("creator", "creator_url", "attribution"),
)
_FLAGS = ("is_gif", "is_censored", "is_shop")
EMPTY = dict.fromkeys(IMAGE_COLUMNS, "") | dict.fromkeys(_FLAGS, 0) | dict.fromkeys(("width", "height", "bytes"))

# Claims are filled in one by one; a newer expiry replaces an older one, since it came with a newer signature.
_MERGE_VARIANT = (
    "(image_id, kind, url) DO UPDATE SET width = coalesce(width, excluded.width),"
    " height = coalesce(height, excluded.height), bytes = coalesce(bytes, excluded.bytes),"
    " referer = iif(referer = '', excluded.referer, referer), expires_at = max(expires_at, excluded.expires_at)"
    " WHERE (width IS NULL AND excluded.width IS NOT NULL) OR (height IS NULL AND excluded.height IS NOT NULL)"
    " OR (bytes IS NULL AND excluded.bytes IS NOT NULL) OR (referer = '' AND excluded.referer <> '')"
    " OR expires_at < excluded.expires_at"
)
_ADD_DOWNLOADS = "INSERT INTO downloads (image_id, updated_at) SELECT id, ? FROM images WHERE id >= ?"
_ADD_DOWNLOAD = "INSERT INTO downloads (image_id, updated_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
_SET_RANK = "UPDATE results SET rank = ?1, response_id = ?2 WHERE query_id = ?3 AND image_id = ?4 AND rank <> ?1"
_BETTER_RANK = "UPDATE results SET rank = ?, response_id = ? WHERE query_id = ? AND image_id = ? AND rank > ?"

WALK = 8_192  # rows read at once


@dataclass
class PictureRows:
    """The content of some raw answers, column by column: a list is cheaper to send and to bind than a tuple a row.

    A column of pictures in which nothing is known is left out. Every picture is one result, so that those of `results`
    stand beside the pictures; a variant has its picture's place under `image_id`.
    """

    count: int = 0
    images: dict[str, list[Any]] = field(default_factory=dict)
    variants: list[list[Any]] = field(default_factory=lambda: [[] for _ in VARIANT_COLUMNS])
    results: list[list[Any]] = field(default_factory=lambda: [[] for _ in RESULT_COLUMNS[1:]])

    def add(self, other: PictureRows) -> None:
        """Appends the rows of a further answer, whose places begin at 0."""
        for name in other.images:
            if name not in self.images:
                self.images[name] = [EMPTY[name]] * self.count
        for name, values in self.images.items():
            values += other.images.get(name) or [EMPTY[name]] * other.count
        places, *rest = other.variants
        self.variants[0] += [self.count + place for place in places] if self.count else places
        for mine, values in zip(self.variants[1:], rest, strict=True):
            mine += values
        for mine, values in zip(self.results, other.results, strict=True):
            mine += values
        self.count += other.count

    def image(self, place: int) -> Row:
        """A picture's row, whole."""
        return tuple(self.images[name][place] if name in self.images else EMPTY[name] for name in IMAGE_COLUMNS)


@dataclass
class Saved:
    """Counts of pictures that were new or met again, and of new addresses and results."""

    new: int = 0
    known: int = 0
    variants: int = 0
    results: int = 0

    def add(self, other: Saved) -> None:
        self.new += other.new
        self.known += other.known
        self.variants += other.variants
        self.results += other.results


def known_images(db: Database, keys: Sequence[str]) -> dict[str, int]:
    """The numbers of those of the pictures that the database has."""
    sql = "SELECT key, id FROM images WHERE key IN (SELECT value FROM json_each(?))"
    return db.mapping(sql, (orjson.dumps(keys).decode(),))


def save_pictures(db: Database, rows: PictureRows, now: str, reparse: ReparseIndex | None = None) -> Saved:
    """Writes pictures with their addresses, results and pending downloads; inside the caller's transaction.

    New pictures go in with plain inserts. Only those met again, in the database or earlier in these rows, pay for the
    comparison with what is known. Given `reparse`, the first meeting of a picture takes the place of what is known; it
    remembers which pictures, addresses and results have been met, by their numbers.
    """
    first = _next(db, "images")
    variant = _next(db, "image_variants")
    numbers = range(first, first + rows.count)
    columns = [rows.images[name] for name in rows.images]
    fresh = max(
        0, db.executemany(_insert("images", ("id", *rows.images)), zip(numbers, *columns, strict=True)).rowcount
    )
    again = _met_again(db, rows.images["key"], first) if fresh < rows.count else {}
    renewed: set[int] = set()
    if reparse is not None:
        renewed = _replace(db, rows, first, again, reparse.pictures)
        reparse.note([again.get(number, number) for number in numbers], rows.variants, rows.results)
    db.execute(_ADD_DOWNLOADS, (now, first))
    if not again:
        _insert_variants(db, [[first + at for at in rows.variants[0]], *rows.variants[1:]])
    else:
        _save_variants(db, rows.variants, first, again)
        db.connection.create_function("merged_extra", 2, merged_extra, deterministic=True)
        db.executemany(_MERGE_IMAGE, [rows.image(number - first) for number in again])
        db.executemany(_ADD_DOWNLOAD, [(number, now) for number in again.values()])
    added = _save_results(db, rows.results, list(numbers), again, renewed)
    return Saved(fresh, len(again), _next(db, "image_variants") - variant, added)


def _save_variants(db: Database, columns: list[list[Any]], first: int, again: dict[int, int]) -> None:
    """Writes the addresses of new pictures, then merges those of pictures met again with what they have."""
    numbers = [first + at for at in columns[0]]
    new = [number not in again for number in numbers]
    _insert_variants(db, [list(compress(values, new)) for values in (numbers, *columns[1:])])
    known = [again.get(number, 0) for number in numbers]
    _insert_variants(db, [list(compress(values, known)) for values in (known, *columns[1:])], _MERGE_VARIANT)


def _insert_variants(db: Database, columns: list[list[Any]], conflict: str = "DO NOTHING") -> None:
    # Few engines sign their addresses; a column that is empty throughout need not be bound.
    width = len(VARIANT_COLUMNS) if any(columns[-1]) else len(VARIANT_COLUMNS) - 1
    _insert_many(db, "image_variants", VARIANT_COLUMNS[:width], columns[:width], conflict)


def _next(db: Database, table: str) -> int:
    """The number that the next row is given. Only the transaction that asks can give it away."""
    return int(db.value(f"SELECT ifnull(max(id), 0) + 1 FROM {table}"))


def _met_again(db: Database, keys: Sequence[str], first: int) -> dict[int, int]:
    """Of pictures that were to be numbered from `first` on those that had a number: {not given: had before}."""
    given = set(db.column("SELECT id FROM images WHERE id >= ?", (first,)))
    left = [number for number in range(first, first + len(keys)) if number not in given]
    known = known_images(db, [keys[number - first] for number in left])
    return {number: known[keys[number - first]] for number in left}


def _replace(db: Database, rows: PictureRows, first: int, again: dict[int, int], replaced: set[int]) -> set[int]:
    """Lets the first meeting of a picture in this run take the place of what is known of it; gives their numbers."""
    replaced.update(number for number in range(first, first + rows.count) if number not in again)
    met: dict[int, Row] = {}
    for number, known in again.items():
        if known not in replaced:
            met.setdefault(known, rows.image(number - first))
    db.executemany(_REPLACE_IMAGE, [(*row[1:-1], row[0], *row[1:-1]) for row in met.values()])
    replaced.update(met)
    return set(met)


def _save_results(
    db: Database, columns: list[list[Any]], numbers: list[int], again: dict[int, int], renewed: set[int]
) -> int:
    """Adds results; where a query shows a picture twice, the better rank stays. Gives the number of new ones.

    The rank of a picture in `renewed`, which has just been read anew, is that of its first meeting there.
    """
    if again:
        numbers = [again.get(number, number) for number in numbers]
    if renewed:
        places = {number: place for place, number in reversed(list(enumerate(numbers))) if number in renewed}
        query, answer, rank = columns
        db.executemany(_SET_RANK, [(rank[at], answer[at], query[at], number) for number, at in places.items()])
    added = _insert_many(db, "results", RESULT_COLUMNS, [numbers, *columns])
    if added < len(numbers):
        met = set(again.values())
        db.executemany(
            _BETTER_RANK,
            [
                (rank, answer, query, number, rank)
                for number, query, answer, rank in zip(numbers, *columns, strict=True) if number in met
            ],
        )  # fmt: skip
    return added


def _insert_many(
    db: Database, table: str, names: Sequence[str], columns: list[list[Any]], conflict: str = "DO NOTHING"
) -> int:
    """Inserts what is not there, many rows a statement; gives the number of rows that are new or changed."""
    count, width, added = len(columns[0]), len(names), 0
    for start in range(0, count, _AT_ONCE):
        rows = min(_AT_ONCE, count - start)
        values: list[Any] = [None] * (rows * width)
        for place, column in enumerate(columns):
            values[place::width] = column[start : start + rows]
        added += max(0, db.execute(_insert(table, names, rows, conflict), values).rowcount)
    return added


@lru_cache(maxsize=256)
def _insert(table: str, columns: Sequence[str], rows: int = 1, conflict: str = "DO NOTHING") -> str:
    marks = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)} ON CONFLICT {conflict}"


def merged_extra(newer: str, known: str) -> str:
    """Returns what two readings of a picture keep as JSON: what was known first, and what else the newer one has.

    Unlike `json_patch` it keeps a null, which a column of a list may hold.
    """
    return orjson.dumps(_united(orjson.loads(known), orjson.loads(newer))).decode()


def _united(known: Any, newer: Any) -> Any:
    if not isinstance(known, dict) or not isinstance(newer, dict):
        return known
    fresh = {name: value for name, value in newer.items() if name not in known}
    return {name: _united(value, newer[name]) if name in newer else value for name, value in known.items()} | fresh


def _merge_image_sql() -> str:
    """Insert, or fill what is still empty; a row that gains nothing is not written."""
    sets: dict[str, str] = {}
    gains: list[str] = []
    for column in _TEXTS:
        sets[column] = f"iif(images.{column} = '', excluded.{column}, images.{column})"
        gains.append(f"(images.{column} = '' AND excluded.{column} <> '')")
    for leader, columns in _GROUPS.items():
        wins = f"(images.{leader} = '' AND excluded.{leader} <> '')"
        for column in columns:
            otherwise = sets.get(column, f"images.{column}")
            sets[column] = f"iif({wins}, excluded.{column}, {otherwise})"
        gains.append(wins)
    half = (
        "(images.width IS NULL OR images.height IS NULL) AND excluded.width IS NOT NULL AND excluded.height IS NOT NULL"
    )
    for column in ("width", "height"):
        sets[column] = f"iif({half}, excluded.{column}, coalesce(images.{column}, excluded.{column}))"
        gains.append(f"(images.{column} IS NULL AND excluded.{column} IS NOT NULL)")
    sets["bytes"] = "coalesce(images.bytes, excluded.bytes)"
    gains.append("(images.bytes IS NULL AND excluded.bytes IS NOT NULL)")
    for column in _FLAGS:
        sets[column] = f"max(images.{column}, excluded.{column})"
        gains.append(f"excluded.{column} > images.{column}")
    sets["extra"] = "merged_extra(excluded.extra, images.extra)"
    gains.append(
        "(excluded.extra <> images.extra AND merged_extra(excluded.extra, images.extra) <> json(images.extra))"
    )
    changes = ", ".join(f"{column} = {value}" for column, value in sets.items())
    return _insert("images", IMAGE_COLUMNS, 1, f"(key) DO UPDATE SET {changes} WHERE {' OR '.join(gains)}")


_REPLACED = IMAGE_COLUMNS[1:-1]  # everything but the time of the first meeting; a row that stays is not written
_REPLACE_IMAGE = (
    f"UPDATE images SET {', '.join(f'{column} = ?' for column in _REPLACED)}"
    f" WHERE key = ? AND ({' OR '.join(f'{column} IS NOT ?' for column in _REPLACED)})"
)
_MERGE_IMAGE = _merge_image_sql()


def mark(*values: Any) -> int:
    """A row's key as eight bytes. That two of some millions share one is a chance of one in a million, and then a
    misread row stays."""
    return hash(values)


@dataclass
class ReparseIndex:
    """Everything that this run has read: answers and pictures by number, addresses and results by their marks."""

    answers: set[int] = field(default_factory=set)
    pictures: set[int] = field(default_factory=set)
    addresses: array[int] = field(default_factory=lambda: array("q"))
    results: array[int] = field(default_factory=lambda: array("q"))

    def note(self, numbers: Sequence[int], variants: Sequence[list[Any]], results: Sequence[list[Any]]) -> None:
        """Remembers columns of `PictureRows`, whose pictures have these numbers (0 for one that has none yet)."""
        places, kinds, urls = variants[:3]
        self.addresses.extend(map(mark, map(numbers.__getitem__, places), kinds, urls))
        self.results.extend(map(mark, results[0], numbers))


@dataclass(frozen=True)
class StoredRows:
    """The rows of a picture in the database: addresses as (number, kind, URL, whether a download was won with it),
    results as (search, answer or None)."""

    addresses: list[tuple[int, str, str, bool]]
    results: list[tuple[int, int | None]]


def iter_addresses(db: Database) -> Iterator[list[tuple[int, str, str]]]:
    """(picture, kind, URL) of every address, in blocks."""
    return _blocks(db, "SELECT image_id, kind, url FROM image_variants")


def iter_results(db: Database) -> Iterator[list[tuple[int, int]]]:
    """(search, picture) of every result, in blocks."""
    return _blocks(db, "SELECT query_id, image_id FROM results")


def pictures_of(db: Database, queries: Sequence[int]) -> set[int]:
    """The pictures that some searches have shown."""
    sql = "SELECT DISTINCT image_id FROM results WHERE query_id IN (SELECT value FROM json_each(?))"
    return set(db.column(sql, (dumps(list(queries)),)))


def unsure_queries(db: Database, read: set[int], readable: Sequence[str]) -> set[int]:
    """Searches with an answer that this run has not read although it may hold pictures."""
    unsure = "ingest_state <> 'done' OR outcome IN (SELECT value FROM json_each(?))"
    rows = db.execute(f"SELECT id, query_id FROM responses WHERE {unsure}", (dumps(list(readable)),))
    return {query for number, query in rows if number not in read}


def without_file(db: Database, image_ids: Sequence[int]) -> set[int]:
    """Those of the pictures that have no file and that nobody is fetching."""
    among = "image_id IN (SELECT value FROM json_each(?))"
    sql = f"SELECT image_id FROM downloads WHERE state <> 'done' AND lease = '' AND {among}"
    return set(db.column(sql, (dumps(list(image_ids)),)))


def stored_rows(db: Database, image_id: int) -> StoredRows:
    addresses = db.execute(
        "SELECT id, kind, url, EXISTS (SELECT 1 FROM downloads WHERE variant_id = image_variants.id)"
        " FROM image_variants WHERE image_id = ?",
        (image_id,),
    )
    results = db.execute("SELECT query_id, response_id FROM results WHERE image_id = ?", (image_id,))
    return StoredRows([(row[0], row[1], row[2], bool(row[3])) for row in addresses], [tuple(row) for row in results])


def _blocks(db: Database, sql: str) -> Iterator[list[Any]]:
    cursor = db.connection.cursor()
    cursor.row_factory = None  # plain tuples: the walk hashes millions of them
    cursor.execute(sql)
    while rows := cursor.fetchmany(WALK):
        yield rows
