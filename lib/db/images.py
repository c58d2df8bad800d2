"""The `images`, `image_variants` and `results` tables as ingest fills them, and the pending rows of `downloads`.

Rows come as tuples in the order of the column lists below, built by worker processes; the one writer hands them to
`executemany` as they are. A picture that is met again keeps what is known of it and gains what was empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from lib.db.connection import Database

Row = tuple[Any, ...]

IMAGE_COLUMNS = (
    "id", "engine", "page_url", "title", "snippet", "domain", "registrable_domain", "width", "height", "bytes",
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
    """What some raw answers hold, as rows; `results` is empty for what no query showed."""

    images: list[Row] = field(default_factory=list)
    variants: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)

    def add(self, other: PictureRows) -> None:
        self.images += other.images
        self.variants += other.variants
        self.results += other.results


@dataclass
class Saved:
    """How many pictures were new, how many were met again, and how many addresses and results were new."""

    new: int = 0
    known: int = 0
    variants: int = 0
    results: int = 0


def known_images(db: Database, ids: Sequence[str]) -> set[str]:
    """Those of the ids that the database has."""
    rows = db.execute(
        "SELECT id FROM images WHERE id IN (SELECT value FROM json_each(?))", (orjson.dumps(ids).decode(),)
    )
    return {row[0] for row in rows}


def save_pictures(db: Database, rows: PictureRows, now: str, replaced: set[int] | None = None) -> Saved:
    """Writes pictures with their addresses, results and pending downloads; inside the caller's transaction.

    New pictures go in with plain inserts. Only those met again, in the database or earlier in these rows, pay for the
    comparison with what is known. Given `replaced`, the first meeting of a picture takes the place of what is known;
    the set remembers (by their hash) which pictures have been met.
    """
    known = known_images(db, [row[0] for row in rows.images])
    fresh, again = _split(rows.images, known)
    fresh_ids = {row[0] for row in fresh}
    db.executemany(_INSERT_IMAGE, fresh)
    if replaced is not None:
        replaced.update(hash(row[0]) for row in fresh)
        first = {row[0]: row for row in reversed(again) if hash(row[0]) not in replaced}
        db.executemany(_REPLACE_IMAGE, [(*row[1:-1], row[0], *row[1:-1]) for row in first.values()])
        replaced.update(map(hash, first))
    db.executemany(_MERGE_IMAGE, again)
    variants = db.executemany(_INSERT_VARIANT, rows.variants).rowcount
    met_again = {row[0] for row in again}
    db.executemany(
        _MERGE_VARIANT,
        [(*row[3:], *row[:3], *row[3:]) for row in rows.variants if row[0] in met_again],
    )
    db.executemany(_INSERT_DOWNLOAD, [(row[0], now) for row in fresh])
    db.executemany(_INSERT_DOWNLOAD, [(row[0], now) for row in again if row[0] not in fresh_ids])
    return Saved(len(fresh), len(again), max(0, variants), _save_results(db, rows.results))


def _save_results(db: Database, results: list[Row]) -> int:
    """Adds results; where a query shows a picture twice, the better rank stays. Gives the number of new ones."""
    added = db.executemany(_INSERT_RESULT, results).rowcount
    if added < len(results):
        db.executemany(_BETTER_RANK, [(rank, response, query, image, rank) for query, image, response, rank in results])
    return max(0, added)


def _split(images: Iterable[Row], known: set[str]) -> tuple[list[Row], list[Row]]:
    """(first meetings, repeats), each in the order given."""
    seen = set(known)
    fresh: list[Row] = []
    again: list[Row] = []
    for row in images:
        if row[0] in seen:
            again.append(row)
        else:
            seen.add(row[0])
            fresh.append(row)
    return fresh, again


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
    gains.append("json_patch(excluded.extra, images.extra) <> json(images.extra)")
    changes = ", ".join(f"{column} = {value}" for column, value in sets.items())
    return _insert("images", IMAGE_COLUMNS).replace(
        "ON CONFLICT DO NOTHING", f"ON CONFLICT (id) DO UPDATE SET {changes} WHERE {' OR '.join(gains)}"
    )


def _replace_image_sql() -> str:
    """Everything but the time of the first meeting; a row that would stay as it is is not written."""
    columns = IMAGE_COLUMNS[1:-1]
    sets = ", ".join(f"{column} = ?" for column in columns)
    changes = " OR ".join(f"{column} IS NOT ?" for column in columns)
    return f"UPDATE images SET {sets} WHERE id = ? AND ({changes})"


_REPLACE_IMAGE = _replace_image_sql()
_INSERT_IMAGE = _insert("images", IMAGE_COLUMNS)
_MERGE_IMAGE = _merge_image_sql()
_INSERT_VARIANT = _insert("image_variants", VARIANT_COLUMNS)
# Claims are filled in one by one; a newer expiry replaces an older one, since it came with a newer signature.
_MERGE_VARIANT = (
    "UPDATE image_variants SET width = coalesce(width, ?), height = coalesce(height, ?), bytes = coalesce(bytes, ?),"
    " referer = iif(referer = '', ?, referer), expires_at = max(expires_at, ?)"
    " WHERE image_id = ? AND kind = ? AND url = ? AND ((width IS NULL AND ? IS NOT NULL)"
    " OR (height IS NULL AND ? IS NOT NULL) OR (bytes IS NULL AND ? IS NOT NULL)"
    " OR (referer = '' AND ? <> '') OR expires_at < ?)"
)
_INSERT_DOWNLOAD = "INSERT INTO downloads (image_id, updated_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
_INSERT_RESULT = _insert("results", RESULT_COLUMNS)
_BETTER_RANK = "UPDATE results SET rank = ?, response_id = ? WHERE query_id = ? AND image_id = ? AND rank > ?"
