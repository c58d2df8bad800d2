"""The `images`, `image_variants` and `results` tables as ingest fills them, and the pending rows of `downloads`.

Rows come as tuples in the order of the column lists below, built by worker processes. A picture is named by its place
among the pictures of its batch until the writer gives it a number: numbers are handed out in order, so that new rows
are appended to every table and index but the one that keeps the engines' ids unique. A picture that is met again keeps
what is known of it and gains what was empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from lib.db.connection import Database
from lib.db.misread import Reread

Row = tuple[Any, ...]

IMAGE_COLUMNS = (
    "key", "engine", "page_url", "title", "snippet", "domain", "registrable_domain", "width", "height", "bytes",
    "format", "published_at", "is_gif", "is_censored", "is_shop", "creator", "creator_url", "license",
    "license_url", "attribution", "extra", "first_seen_at",
)  # fmt: skip
VARIANT_COLUMNS = ("image_id", "kind", "url", "width", "height", "bytes", "referer", "expires_at")
RESULT_COLUMNS = ("query_id", "image_id", "response_id", "rank")

# Columns that say one thing together and are therefore taken together, led by the one that tells whether it is known.
_GROUPS = {"page_url": ("page_url", "domain", "registrable_domain"), "license": ("license", "license_url")}
_TEXTS = ("title", "snippet", "domain", "registrable_domain", "format", "published_at", "creator", "creator_url")
_FLAGS = ("is_gif", "is_censored", "is_shop")


@dataclass
class PictureRows:
    """What some raw answers hold, as rows; `results` is empty for what no query showed.

    Where a column is called `image_id`, the row has the picture's place in `images`.
    """

    images: list[Row] = field(default_factory=list)
    variants: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)

    def add(self, images: list[Row], variants: list[Row], results: list[Row]) -> None:
        """Appends the rows of a further answer, whose places begin at 0."""
        first = len(self.images)
        self.images += images
        self.variants += [(first + place, *rest) for place, *rest in variants] if first else variants
        self.results += [(query, first + place, *rest) for query, place, *rest in results] if first else results


@dataclass
class Saved:
    """How many pictures were new, how many were met again, and how many addresses and results were new."""

    new: int = 0
    known: int = 0
    variants: int = 0
    results: int = 0


def known_images(db: Database, keys: Sequence[str]) -> dict[str, int]:
    """The numbers of those of the pictures that the database has."""
    rows = db.execute(
        "SELECT key, id FROM images WHERE key IN (SELECT value FROM json_each(?))", (orjson.dumps(keys).decode(),)
    )
    return {row[0]: row[1] for row in rows}


def save_pictures(db: Database, rows: PictureRows, now: str, reread: Reread | None = None) -> Saved:
    """Writes pictures with their addresses, results and pending downloads; inside the caller's transaction.

    New pictures go in with plain inserts. Only those met again, in the database or earlier in these rows, pay for the
    comparison with what is known. Given `reread`, the first meeting of a picture takes the place of what is known; it
    remembers which pictures, addresses and results have been met, by their numbers.
    """
    first = _next(db, "images")
    variant = _next(db, "image_variants")
    fresh = db.executemany(_INSERT_IMAGE, [(number, *row) for number, row in enumerate(rows.images, first)]).rowcount
    again = _met_again(db, rows.images, first) if fresh < len(rows.images) else {}
    if reread is not None:
        _replace(db, rows.images, first, again, reread.pictures)
        numbers = [again.get(number, number) for number in range(first, first + len(rows.images))]
        reread.note(numbers, rows.variants, rows.results)
    db.execute(_ADD_DOWNLOADS, (now, first))
    db.executemany(_INSERT_VARIANT, [(at, *row[1:]) for row in rows.variants if (at := first + row[0]) not in again])
    if again:
        db.executemany(_MERGE_IMAGE, [rows.images[number - first] for number in again])
        db.executemany(_ADD_DOWNLOAD, [(number, now) for number in again.values()])
        db.executemany(
            _MERGE_VARIANT, [(again[at], *row[1:]) for row in rows.variants if (at := first + row[0]) in again]
        )
    results = [(query, again.get(first + at, first + at), *rest) for query, at, *rest in rows.results]
    return Saved(max(fresh, 0), len(again), _next(db, "image_variants") - variant, _save_results(db, results))


def _next(db: Database, table: str) -> int:
    """The number that the next row is given. Only the transaction that asks can give it away."""
    return int(db.value(f"SELECT ifnull(max(id), 0) + 1 FROM {table}"))


def _met_again(db: Database, images: Sequence[Row], first: int) -> dict[int, int]:
    """Of pictures that were to be numbered from `first` on those that had a number: {not given: had before}."""
    given = {row[0] for row in db.execute("SELECT id FROM images WHERE id >= ?", (first,))}
    left = [number for number in range(first, first + len(images)) if number not in given]
    known = known_images(db, [images[number - first][0] for number in left])
    return {number: known[images[number - first][0]] for number in left}


def _replace(db: Database, images: Sequence[Row], first: int, again: dict[int, int], replaced: set[int]) -> None:
    """Lets the first meeting of a picture in this run take the place of what is known of it."""
    replaced.update(set(range(first, first + len(images))) - again.keys())
    met: dict[int, Row] = {}
    for number, known in again.items():
        if known not in replaced:
            met.setdefault(known, images[number - first])
    db.executemany(_REPLACE_IMAGE, [(*row[1:-1], row[0], *row[1:-1]) for row in met.values()])
    replaced.update(met)


def _save_results(db: Database, results: list[Row]) -> int:
    """Adds results; where a query shows a picture twice, the better rank stays. Gives the number of new ones."""
    added = db.executemany(_INSERT_RESULT, results).rowcount
    if added < len(results):
        db.executemany(_BETTER_RANK, [(rank, response, query, image, rank) for query, image, response, rank in results])
    return max(0, added)


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"


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
    sets["attribution"] = "iif(images.attribution = '', excluded.attribution, images.attribution)"
    gains.append("(images.attribution = '' AND excluded.attribution <> '')")
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
    sets["extra"] = "json_patch(excluded.extra, images.extra)"
    gains.append("(excluded.extra <> images.extra AND json_patch(excluded.extra, images.extra) <> json(images.extra))")
    changes = ", ".join(f"{column} = {value}" for column, value in sets.items())
    return _insert("images", IMAGE_COLUMNS).replace(
        "ON CONFLICT DO NOTHING", f"ON CONFLICT (key) DO UPDATE SET {changes} WHERE {' OR '.join(gains)}"
    )


def _replace_image_sql() -> str:
    """Everything but the time of the first meeting; a row that would stay as it is is not written."""
    columns = IMAGE_COLUMNS[1:-1]
    sets = ", ".join(f"{column} = ?" for column in columns)
    changes = " OR ".join(f"{column} IS NOT ?" for column in columns)
    return f"UPDATE images SET {sets} WHERE key = ? AND ({changes})"


_REPLACE_IMAGE = _replace_image_sql()
_INSERT_IMAGE = _insert("images", ("id", *IMAGE_COLUMNS))
_MERGE_IMAGE = _merge_image_sql()
_INSERT_VARIANT = _insert("image_variants", VARIANT_COLUMNS)
# Claims are filled in one by one; a newer expiry replaces an older one, since it came with a newer signature.
_MERGE_VARIANT = _INSERT_VARIANT.replace(
    "ON CONFLICT DO NOTHING",
    "ON CONFLICT (image_id, kind, url) DO UPDATE SET width = coalesce(width, excluded.width),"
    " height = coalesce(height, excluded.height), bytes = coalesce(bytes, excluded.bytes),"
    " referer = iif(referer = '', excluded.referer, referer), expires_at = max(expires_at, excluded.expires_at)"
    " WHERE (width IS NULL AND excluded.width IS NOT NULL) OR (height IS NULL AND excluded.height IS NOT NULL)"
    " OR (bytes IS NULL AND excluded.bytes IS NOT NULL) OR (referer = '' AND excluded.referer <> '')"
    " OR expires_at < excluded.expires_at",
)
_ADD_DOWNLOADS = "INSERT INTO downloads (image_id, updated_at) SELECT id, ? FROM images WHERE id >= ?"
_ADD_DOWNLOAD = "INSERT INTO downloads (image_id, updated_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
_INSERT_RESULT = _insert("results", RESULT_COLUMNS)
_BETTER_RANK = "UPDATE results SET rank = ?, response_id = ? WHERE query_id = ? AND image_id = ? AND rank > ?"
