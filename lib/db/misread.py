"""What a reading of all answers yields, and what the database holds beside it: rows that an older parser misread."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from lib.db.connection import Database

WALK = 8_192  # rows read at once


def mark(*values: Any) -> int:
    """A row's key as eight bytes. That two of some millions share one is a chance of one in a million, and then a
    misread row stays."""
    return hash(values)


@dataclass
class Reread:
    """What has been read in this run: answers and pictures by number, addresses and results by their marks."""

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
class Held:
    """What the database holds of a picture: addresses as (number, kind, URL, whether a download was won with it),
    results as (search, answer or None)."""

    addresses: list[tuple[int, str, str, bool]]
    results: list[tuple[int, int | None]]


def iter_addresses(db: Database) -> Iterator[list[tuple[int, str, str]]]:
    """(picture, kind, URL) of every address, in blocks."""
    yield from _blocks(db, "SELECT image_id, kind, url FROM image_variants")


def iter_results(db: Database) -> Iterator[list[tuple[int, int]]]:
    """(search, picture) of every result, in blocks."""
    yield from _blocks(db, "SELECT query_id, image_id FROM results")


def unsure_queries(db: Database, read: set[int], readable: Sequence[str]) -> set[int]:
    """Searches with an answer that this run has not read although it may hold pictures."""
    rows = db.execute("SELECT id, query_id, ingest_state, outcome FROM responses")
    return {
        query
        for number, query, state, outcome in rows
        if number not in read and (state != "done" or outcome in readable)
    }


def without_file(db: Database, image_ids: Sequence[int]) -> set[int]:
    """Those of the pictures that have no file and that nobody is fetching."""
    rows = db.execute(
        "SELECT image_id FROM downloads WHERE state <> 'done' AND lease = ''"
        " AND image_id IN (SELECT value FROM json_each(?))",
        (dumps(list(image_ids)),),
    )
    return {row[0] for row in rows}


def held(db: Database, image_id: int) -> Held:
    addresses = db.execute(
        "SELECT id, kind, url, EXISTS (SELECT 1 FROM downloads WHERE variant_id = image_variants.id)"
        " FROM image_variants WHERE image_id = ?",
        (image_id,),
    )
    results = db.execute("SELECT query_id, response_id FROM results WHERE image_id = ?", (image_id,))
    return Held([(row[0], row[1], row[2], bool(row[3])) for row in addresses], [(row[0], row[1]) for row in results])


def _blocks(db: Database, sql: str) -> Iterator[list[Any]]:
    cursor = db.connection.cursor()
    cursor.row_factory = None  # plain tuples: the walk hashes millions of them
    cursor.execute(sql)
    while rows := cursor.fetchmany(WALK):
        yield rows
