"""Finds what step 4 takes out, takes rows out of their tables, and puts them back.

The searches give keys only. What a row was is read before it leaves, for the journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lib.db.connection import Database
from lib.db.journal import Action
from lib.domains import is_possible
from lib.progress import chunked

Key = tuple[Any, ...]
Address = tuple[int, int, str]  # variant, image, URL

# Tables that rows are taken out of, parents first, with their keys.
KEYS: dict[str, tuple[str, ...]] = {
    "queries": ("id",),
    "responses": ("id",),
    "images": ("id",),
    "image_variants": ("id",),
    "results": ("query_id", "image_id"),
    "downloads": ("image_id",),
    "superseded": ("image_id", "sha256"),
}
CHILDREN = ("image_variants", "results", "downloads")  # each has a column image_id
BELONGINGS = (*CHILDREN, "superseded")  # what goes with a picture
_GIVEN = "(SELECT value FROM json_each(?))"
LACKING = "lacking"  # no column's name: what an archived row's columns referred to in vain
BLOCK = 500

_KIND_RANK = "CASE kind WHEN 'original' THEN 0 WHEN 'preview' THEN 1 WHEN 'dup' THEN 2 ELSE 3 END"
_WON = "EXISTS (SELECT 1 FROM downloads WHERE downloads.variant_id = image_variants.id)"
NO_FILE = "NOT EXISTS (SELECT 1 FROM downloads WHERE downloads.image_id = images.id AND downloads.state = 'done')"
# JSON escapes control characters, NUL among them (and quotes, which are judged afterwards). A GLOB with a class of
# characters finds the same in three times the time.
_BLANKS = """(json_quote(url) <> '"' || url || '"' OR url LIKE '% %' OR url LIKE '%' || char(127) || '%')"""
_ORDINARY = "(url GLOB 'https://[0-9A-Za-z]*' OR url GLOB 'http://[0-9A-Za-z]*')"

# Pictures that have an address several times, told in one walk through the index that keeps addresses unique.
_DISTINCT_IDS = "SELECT DISTINCT image_id FROM {} ORDER BY image_id"
REPEATED = "SELECT image_id FROM image_variants GROUP BY image_id HAVING count(*) <> count(DISTINCT url)"
_WALK = 8_192  # rows of an index read at once

_OWNERS = {
    "image_variants": {"image_id": "images"},
    "results": {"image_id": "images", "query_id": "queries"},
    "downloads": {"image_id": "images"},
    "superseded": {"image_id": "images"},
    "responses": {"query_id": "queries"},
}
_USED_BY_WHAT_STAYS = {
    "image_variants": " AND id NOT IN (SELECT variant_id FROM downloads JOIN images ON images.id = image_id"
    " WHERE variant_id IS NOT NULL)",
    "responses": " AND id NOT IN (SELECT response_id FROM results JOIN images ON images.id = image_id"
    " JOIN queries ON queries.id = results.query_id WHERE response_id IS NOT NULL)",
}


def doubtful_addresses(db: Database) -> Iterator[Address]:
    """Every address that is not plainly right and that no download was won with."""
    db.connection.create_function("is_possible", 1, is_possible, deterministic=True)
    return _addresses(db, f"(NOT {_ORDINARY} OR {_BLANKS} OR NOT is_possible(url)) AND NOT {_WON} ORDER BY +id")


def all_addresses(db: Database) -> Iterator[Address]:
    """Every address that no download was won with."""
    return _addresses(db, f"NOT {_WON} ORDER BY id")


def expired_addresses(db: Database, now: str) -> Iterator[Address]:
    return _addresses(db, f"expires_at <> '' AND expires_at < ? AND NOT {_WON} ORDER BY id", (now,))


def _addresses(db: Database, where: str, values: Sequence[Any] = ()) -> Iterator[Address]:
    yield from map(tuple, db.execute(f"SELECT id, image_id, url FROM image_variants WHERE {where}", values))


def repeated_addresses(db: Database) -> Iterator[Address]:
    """The mentions beyond the best of every address that a picture has several times."""
    rows = db.execute(
        f"WITH repeated AS ({REPEATED}),"
        f" mentions AS (SELECT id, image_variants.image_id AS image_id, url, {_WON} AS won, row_number() OVER"
        f" (PARTITION BY image_variants.image_id, url ORDER BY {_WON} DESC, {_KIND_RANK}, id) AS place"
        " FROM repeated CROSS JOIN image_variants ON image_variants.image_id = repeated.image_id)"
        " SELECT id, image_id, url FROM mentions WHERE place > 1 AND NOT won ORDER BY id"
    )
    yield from map(tuple, rows)


def has_address(db: Database, image_id: int, url: str) -> bool:
    return bool(db.value("SELECT 1 FROM image_variants WHERE url = ? AND image_id = ?", (url, image_id)))


def prepare_for_plans(db: Database) -> None:
    """Maps the file instead of copying page by page: a plan walks through every index once."""
    db.execute("PRAGMA mmap_size = 4294967296")


def mismatched_tables(db: Database) -> set[str]:
    """The tables whose pictures are not exactly those of `images`: only there can be orphans, or lacking rows.

    All four indexes are walked through side by side, which takes a fifth of the time of looking up every parent.
    """
    prepare_for_plans(db)
    images = _walk(db, "SELECT id FROM images ORDER BY id")
    others = {table: _walk(db, _DISTINCT_IDS.format(table)) for table in CHILDREN}
    found: set[str] = set()
    while True:
        ids = images.fetchmany(_WALK)
        for table, cursor in others.items():
            if table not in found and ids != cursor.fetchmany(_WALK if ids else 1):
                found.add(table)
        if not ids or len(found) == len(others):
            return found | ({"results"} if _names_lost_query(db) else set())


def _walk(db: Database, sql: str) -> sqlite3.Cursor:
    """A cursor that gives plain tuples: they are compared as they are."""
    cursor = db.connection.cursor()
    cursor.row_factory = None
    return cursor.execute(sql)


def _names_lost_query(db: Database) -> bool:
    """True where results name a search that is not there; one look a search, however many results it has."""
    sql = (
        "WITH RECURSIVE named (id) AS (SELECT min(query_id) FROM results UNION ALL"
        " SELECT (SELECT min(query_id) FROM results WHERE query_id > named.id) FROM named WHERE id IS NOT NULL)"
        " SELECT 1 FROM named WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM queries) LIMIT 1"
    )
    return bool(db.value(sql))


def images_without_address(db: Database) -> list[int]:
    """Pictures that have no address and no file."""
    return _ids_where(db, f"NOT EXISTS (SELECT 1 FROM image_variants WHERE image_id = images.id) AND {NO_FILE}")


def images_without_result(db: Database) -> list[int]:
    """Pictures that no search shows, and that have no file. A search that has gone shows nothing."""
    shown = "SELECT 1 FROM results JOIN queries ON queries.id = query_id WHERE image_id = images.id"
    return _ids_where(db, f"NOT EXISTS ({shown}) AND {NO_FILE}")


def address_counts(db: Database, image_ids: Sequence[int]) -> dict[int, int]:
    """The number of addresses of each picture that has no file."""
    sql = (
        "SELECT images.id, count(*) FROM images JOIN image_variants ON image_id = images.id"
        f" WHERE images.id IN {_GIVEN} AND {NO_FILE} GROUP BY images.id"
    )
    return db.mapping(sql, (_json(image_ids),))


def downloaded(db: Database, image_ids: Sequence[int]) -> set[int]:
    """Those of the pictures that have a file."""
    sql = f"SELECT image_id FROM downloads WHERE state = 'done' AND image_id IN {_GIVEN}"
    return set(db.column(sql, (_json(image_ids),)))


def children_of(db: Database, image_ids: Sequence[int]) -> Iterator[tuple[str, Key]]:
    """(table, key) of every row that would go with the pictures, those of some pictures after the other."""
    for block in map(_json, chunked(image_ids, BLOCK)):
        for table in BELONGINGS:
            rows = db.execute(f"SELECT {', '.join(KEYS[table])} FROM {table} WHERE image_id IN {_GIVEN}", (block,))
            yield from ((table, tuple(row)) for row in rows)


def orphans(db: Database, tables: Iterable[str] = (*BELONGINGS, "responses")) -> Iterator[tuple[str, Key, str]]:
    """(table, key, missing parent) of rows whose picture or search is not there.

    What a row that stays refers to stays with it, or its reference would be emptied.
    """
    for table in tables:
        columns = ", ".join(KEYS[table])
        for column, parent in _OWNERS[table].items():
            rows = db.execute(
                f"SELECT {columns} FROM {table} WHERE NOT EXISTS (SELECT 1 FROM {parent} WHERE id = {table}.{column})"
                + _USED_BY_WHAT_STAYS.get(table, "")
            )
            yield from ((table, tuple(row), parent) for row in rows)


def read_rows(db: Database, table: str, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """The rows with these keys as dictionaries, in the order of the keys; a key without a row is left out."""
    where = " AND ".join(f"{column} = ?" for column in KEYS[table])
    found = (db.row(f"SELECT * FROM {table} WHERE {where}", key) for key in keys)
    return [dict(row) for row in found if row is not None]


def delete_rows(db: Database, table: str, keys: Iterable[Key]) -> None:
    where = " AND ".join(f"{column} = ?" for column in KEYS[table])
    db.executemany(f"DELETE FROM {table} WHERE {where}", keys)


def set_url(db: Database, variant_id: int, url: str) -> None:
    db.execute("UPDATE image_variants SET url = ? WHERE id = ?", (url, variant_id))


def picture_keys(db: Database, image_ids: Iterable[int]) -> dict[int, str]:
    """{number: key} of those of the pictures that are there."""
    return db.mapping(f"SELECT id, key FROM images WHERE id IN {_GIVEN}", (_json(image_ids),))


def name_of(table: str, key: Key, keys: dict[int, str]) -> str:
    """The words by which a person knows a row: its picture where its key names one, else its own number."""
    return keys.get(key[-1], str(key[-1])) if KEYS[table][-1] == "image_id" else str(key[-1])


def won_by_now(db: Database, variant_ids: Sequence[int]) -> set[int]:
    """Those of the addresses that the download of a picture that is there was won with."""
    sql = f"SELECT variant_id FROM downloads JOIN images ON images.id = image_id WHERE variant_id IN {_GIVEN}"
    return set(db.column(sql, (_json(variant_ids),)))


def as_archived(db: Database, table: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the journal keeps them: a picture's key in place of its number, which a later one may be given.

    A row that lacks a parent as it leaves, whichever rule takes it, has the names of those columns under `LACKING`.
    """
    keys = picture_keys(db, {row["image_id"] for row in rows if "image_id" in row})
    lost = {column: _not_there(db, parent, [row[column] for row in rows]) for column, parent in _parents(db, table)}
    archived = []
    for row in rows:
        named = {**row, "image_id": keys.get(row["image_id"], row["image_id"])} if "image_id" in row else row
        lacking = [column for column, numbers in lost.items() if row[column] in numbers]
        archived.append(named | {LACKING: lacking} if lacking else named)
    return archived


def _parents(db: Database, table: str) -> list[tuple[str, tuple[str, str]]]:
    """(column, (table, column) that it refers to) of every foreign key."""
    return [(row["from"], (row["table"], row["to"])) for row in db.rows(f"PRAGMA foreign_key_list({table})")]


def _not_there(db: Database, parent: tuple[str, str], values: Sequence[Any]) -> set[Any]:
    table, column = parent
    there = f"SELECT 1 FROM {table} WHERE {table}.{column} = value"
    sql = f"SELECT DISTINCT value FROM json_each(?) WHERE value IS NOT NULL AND NOT EXISTS ({there})"
    return set(db.column(sql, (_json(values),)))


def put_back(db: Database, table: str, row: dict[str, Any]) -> bool:
    """Inserts an archived row; False where it is there again. Raises sqlite3.IntegrityError without its parent."""
    lacked = set(row.get(LACKING, ()))
    row = _with_number(db, table, row)
    if lacked:  # foreign keys are off for it, and what it did have has to be there all the same
        for column, parent in _parents(db, table):
            if column not in lacked and _not_there(db, parent, [row[column]]):
                raise sqlite3.IntegrityError(f"{table}.{column} {row[column]} is not in {parent[0]}")
    there = {found["name"] for found in db.rows(f"PRAGMA table_info({table})")}
    columns = [column for column in row if column in there]
    if _insert(db, table, columns, row):
        return True
    if table not in ("image_variants", "images") or _is_there(db, table, row):
        return False
    # Another row was given this number in the meantime; numbers mean nothing outside.
    return _insert(db, table, [column for column in columns if column != "id"], row)


def _with_number(db: Database, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """An archived row as its table has it. Journals have a picture's key, or its former one, in place of its number."""
    if table == "images":
        return row if "key" in row else {"key": row["id"]} | {name: row[name] for name in row if name != "id"}
    named = row.get("image_id")
    if isinstance(named, str):
        former = "SELECT image_id FROM former_keys WHERE key = ?1"
        number = db.value(f"SELECT id FROM images WHERE key = ?1 UNION ALL {former} LIMIT 1", (named,))
        if number is None:
            raise sqlite3.IntegrityError(f"there is no picture {named}")
        return row | {"image_id": number}
    if named is not None and db.value("SELECT 1 FROM images WHERE id = ?", (named,)):
        raise sqlite3.IntegrityError(f"another picture has been given the number {named}")
    return row


def restore_url(db: Database, row: dict[str, Any]) -> bool:
    """Gives an address back the URL it had; False where the row has gone or the URL is taken."""
    return db.execute("UPDATE OR IGNORE image_variants SET url = ? WHERE id = ?", (row["url"], row["id"])).rowcount > 0


def may_lack_a_parent(db: Database, action: Action, row: dict[str, Any]) -> bool:
    """True where a row lacked a parent as it left, or is a result whose picture is there and whose search is not."""
    # Journals without `LACKING` have a number for a picture that was not there, where all others have its key.
    if LACKING in row or action.reason == "orphan" or isinstance(row.get("image_id"), int):
        return True
    if action.table_name != "results":
        return False
    sql = "SELECT EXISTS (SELECT 1 FROM images WHERE key = ?) AND NOT EXISTS (SELECT 1 FROM queries WHERE id = ?)"
    return bool(db.value(sql, (row["image_id"], row["query_id"])))


def without_foreign_keys(db: Database, off: bool) -> None:
    """Switches the checking of parents, which rows that were orphans before cannot pass; outside transactions only."""
    db.execute(f"PRAGMA foreign_keys = {'OFF' if off else 'ON'}")


def _insert(db: Database, table: str, columns: Sequence[str], row: dict[str, Any]) -> bool:
    marks = ", ".join("?" * len(columns))
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
    return db.execute(sql, [row[column] for column in columns]).rowcount > 0


def _is_there(db: Database, table: str, row: dict[str, Any]) -> bool:
    if table == "images":
        return bool(db.value("SELECT 1 FROM images WHERE key = ?", (row["key"],)))
    key = (row["image_id"], row["kind"], row["url"])
    return bool(db.value("SELECT 1 FROM image_variants WHERE image_id = ? AND kind = ? AND url = ?", key))


def _ids_where(db: Database, where: str, values: Sequence[Any] = ()) -> list[int]:
    return db.column(f"SELECT id FROM images WHERE {where} ORDER BY id", values)


def _json(values: Iterable[Any]) -> str:
    return orjson.dumps(list(values)).decode()


def tried_addresses(db: Database) -> Iterator[tuple[str, str, int]]:
    """(URL, reason of the last failure, whether it was won in the end) of every address that step 5 has tried."""
    sql = (
        "SELECT v.url, tried.value ->> 'reason', d.state = 'done' AND d.variant_id = v.id"
        " FROM downloads d, json_each(d.log) tried JOIN image_variants v ON v.id = tried.value ->> 'variant'"
        " WHERE d.state IN ('done', 'failed', 'blocked', 'opted_out') OR d.attempts > 0"
    )
    yield from ((row[0], row[1] or "", int(row[2])) for row in db.execute(sql))


def won_addresses(db: Database) -> Iterator[str]:
    sql = "SELECT url FROM downloads d JOIN image_variants v ON v.id = d.variant_id WHERE d.state = 'done'"
    yield from (row[0] for row in db.execute(sql))


def hosts_of_images(db: Database) -> list[str]:
    return db.column("SELECT DISTINCT domain FROM images WHERE domain <> ''")


def images_of_hosts(db: Database, hosts: Sequence[str]) -> list[int]:
    """Pictures without a file whose page is on one of the hosts."""
    return _ids_where(db, f"domain IN {_GIVEN} AND {NO_FILE}", (_json(hosts),))


def count_kept(db: Database, hosts: Sequence[str]) -> int:
    """The number of pictures whose page is on one of the hosts and that stay, because they are downloaded."""
    return int(db.value(f"SELECT count(*) FROM images WHERE domain IN {_GIVEN} AND NOT {NO_FILE}", (_json(hosts),)))


def small_images(db: Database, side: int) -> list[int]:
    """Pictures without a file whose claimed short side is known and below `side` pixels."""
    return _ids_where(db, f"min(width, height) < {int(side)} AND {NO_FILE}")


def shop_images(db: Database) -> list[int]:
    return _ids_where(db, f"is_shop = 1 AND {NO_FILE}")


def titles(db: Database) -> Iterator[tuple[int, str]]:
    """(picture, title and snippet) of every picture without a file."""
    yield from map(tuple, db.execute(f"SELECT id, title || ' ' || snippet FROM images WHERE title <> '' AND {NO_FILE}"))


def describe_pictures(db: Database, image_ids: Sequence[int]) -> dict[int, str]:
    """The words by which a person knows pictures: title, claimed size, page."""
    rows = db.execute(
        "SELECT id, title, width || ' × ' || height, iif(page_url <> '', page_url, domain) FROM images"
        f" WHERE id IN {_GIVEN}",
        (_json(image_ids),),
    )
    return {row[0]: ", ".join(part for part in row[1:] if part) for row in map(tuple, rows)}


@dataclass(frozen=True)
class KnownPicture:
    """Facts of a picture that a person is told; `path` is that of its file, empty where it has none."""

    title: str = ""
    page_url: str = ""
    path: str = ""


def owners_of(db: Database, rows: Sequence[tuple[str, Key]]) -> dict[tuple[str, Key], int]:
    """The number of the picture that each (table, key) belongs to; searches and answers belong to none."""
    variants = _json([key[0] for table, key in rows if table == "image_variants"])
    images = db.mapping(f"SELECT id, image_id FROM image_variants WHERE id IN {_GIVEN}", (variants,))
    found = {}
    for table, key in rows:
        if table == "image_variants":
            found[table, key] = images.get(key[0], 0)
        elif table not in ("queries", "responses"):
            found[table, key] = key[1] if table == "results" else key[0]
    return found


def known_pictures(db: Database, image_ids: Sequence[int]) -> dict[int, KnownPicture]:
    """The pictures of these numbers, with the file of each that has been downloaded and is there."""
    rows = db.execute(
        "SELECT images.id, title, page_url, coalesce(files.path, '') FROM images"
        " LEFT JOIN downloads ON downloads.image_id = images.id AND downloads.state = 'done'"
        " LEFT JOIN files ON files.sha256 = downloads.sha256 AND files.state = 'present'"
        f" WHERE images.id IN {_GIVEN}",
        (_json(image_ids),),
    )
    return {row[0]: KnownPicture(*row[1:]) for row in map(tuple, rows)}


def belongings(db: Database, image_ids: Sequence[int]) -> Iterator[tuple[int, str, Key]]:
    """(picture, table, key) of every row that would go with the pictures."""
    for table in BELONGINGS:
        columns = ", ".join(KEYS[table])
        rows = db.execute(f"SELECT image_id, {columns} FROM {table} WHERE image_id IN {_GIVEN}", (_json(image_ids),))
        yield from ((row[0], table, tuple(row)[1:]) for row in rows)


def query_name(db: Database, query_id: int) -> str | None:
    """The name of a search; None where there is none."""
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
    return db.column(
        "SELECT r.image_id FROM results r JOIN images ON images.id = r.image_id WHERE r.query_id = ? AND NOT EXISTS"
        f" (SELECT 1 FROM results o WHERE o.image_id = r.image_id AND o.query_id <> r.query_id) AND {NO_FILE}",
        (query_id,),
    )


def taken_numbers(db: Database, rows: Iterable[dict[str, Any]]) -> set[int]:
    """The numbers of archived searches that another search has been given since."""
    same = "SELECT 1 FROM queries WHERE id = ? AND NOT (engine = ? AND kind = ? AND text = ? AND image_sha256 = ?)"
    return {
        row["id"] for row in rows
        if db.value(same, (row["id"], row["engine"], row["kind"], row["text"], row["image_sha256"]))
    }  # fmt: skip
