"""What the rules of step 4 look for that are applied only when named, and what belongs to a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from json import dumps
from typing import Any

from lib.db.cleanup import KEYS, NO_FILE, Key, ids_where
from lib.db.connection import Database


def tried_addresses(db: Database) -> Iterator[tuple[str, str, int]]:
    """(URL, reason of the last failure, whether it was won in the end) of every address that step 5 has tried."""
    rows = db.execute(
        "SELECT v.url, tried.value ->> 'reason', d.state = 'done' AND d.variant_id = v.id"
        " FROM downloads d, json_each(d.log) tried JOIN image_variants v ON v.id = tried.value ->> 'variant'"
        " WHERE d.state IN ('done', 'failed', 'blocked', 'opted_out') OR d.attempts > 0"
    )
    yield from ((row[0], row[1] or "", int(row[2])) for row in rows)


def won_addresses(db: Database) -> Iterator[str]:
    """The addresses that a download was won with."""
    rows = db.execute("SELECT url FROM downloads d JOIN image_variants v ON v.id = d.variant_id WHERE d.state = 'done'")
    yield from (row[0] for row in rows)


def hosts_of_images(db: Database) -> list[str]:
    """Every host that a picture's page has."""
    return [row[0] for row in db.execute("SELECT DISTINCT domain FROM images WHERE domain <> ''")]


def images_of_hosts(db: Database, hosts: Sequence[str]) -> list[int]:
    """Pictures without a file whose page is on one of the hosts."""
    return [
        row[0]
        for row in db.execute(
            f"SELECT id FROM images WHERE domain IN (SELECT value FROM json_each(?)) AND {NO_FILE} ORDER BY id",
            (dumps(hosts),),
        )
    ]


def count_kept(db: Database, hosts: Sequence[str]) -> int:
    """How many pictures whose page is on one of the hosts stay, because they are downloaded."""
    return int(
        db.value(
            "SELECT count(*) FROM images WHERE domain IN (SELECT value FROM json_each(?)) AND EXISTS"
            " (SELECT 1 FROM downloads WHERE downloads.image_id = images.id AND downloads.state = 'done')",
            (dumps(hosts),),
        )
    )


def small_images(db: Database, side: int) -> list[int]:
    """Pictures without a file whose claimed short side is known and below `side` pixels."""
    return ids_where(db, f"min(width, height) < {int(side)} AND {NO_FILE}")


def shop_images(db: Database) -> list[int]:
    return ids_where(db, f"is_shop = 1 AND {NO_FILE}")


def titles(db: Database) -> Iterator[tuple[int, str]]:
    """(picture, title and snippet) of every picture without a file."""
    rows = db.execute(f"SELECT id, title || ' ' || snippet FROM images WHERE title <> '' AND {NO_FILE}")
    yield from ((row[0], row[1]) for row in rows)


def describe_pictures(db: Database, image_ids: Sequence[int]) -> dict[int, str]:
    """What a person knows a picture by: title, claimed size, page."""
    rows = db.execute(
        "SELECT id, title, width || ' × ' || height, iif(page_url <> '', page_url, domain) FROM images"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (dumps(list(image_ids)),),
    )
    return {row[0]: ", ".join(part for part in row[1:] if part) for row in map(tuple, rows)}


def query_name(db: Database, query_id: int) -> str | None:
    """What a search is called; None where there is none."""
    row = db.row("SELECT engine, kind, text, image_path FROM queries WHERE id = ?", (query_id,))
    return None if row is None else f"{row['engine']} {row['text'] or row['image_path']}"


def rows_of_query(db: Database, query_id: int) -> Iterator[tuple[str, Key]]:
    """(table, key) of a search, its answers and its results."""
    for table, column in (("queries", "id"), ("responses", "query_id"), ("results", "query_id")):
        columns = ", ".join(KEYS[table])
        rows = db.execute(f"SELECT {columns} FROM {table} WHERE {column} = ?", (query_id,))
        yield from ((table, tuple(row)) for row in rows)


def images_only_of(db: Database, query_id: int) -> list[int]:
    """Pictures without a file that only this search shows."""
    rows = db.execute(
        "SELECT r.image_id FROM results r JOIN images ON images.id = r.image_id WHERE r.query_id = ? AND NOT EXISTS"
        f" (SELECT 1 FROM results o WHERE o.image_id = r.image_id AND o.query_id <> r.query_id) AND {NO_FILE}",
        (query_id,),
    )
    return [row[0] for row in rows]


def taken_numbers(db: Database, rows: Iterable[dict[str, Any]]) -> set[int]:
    """The numbers of archived searches that another search has been given since."""
    same = "SELECT 1 FROM queries WHERE id = ? AND NOT (engine = ? AND kind = ? AND text = ? AND image_sha256 = ?)"
    return {
        row["id"] for row in rows
        if db.value(same, (row["id"], row["engine"], row["kind"], row["text"], row["image_sha256"]))
    }  # fmt: skip
