"""The counts behind step 3: pictures by domain, engine, query, licence, format or claimed size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from lib.db.connection import Database

# What each way of grouping groups by. `images` is `i`, the picture's query (when asked for) is `q`.
KEYS = {
    "domain": "i.registrable_domain",
    "host": "i.domain",
    "engine": "i.engine",
    "licence": "i.license",
    "format": "lower(i.format)",
    "size": "CASE WHEN i.width IS NULL OR i.height IS NULL THEN '' WHEN i.width * i.height >= 8e6 THEN '8 MP and more'"
    " WHEN i.width * i.height >= 2e6 THEN '2 to 8 MP' WHEN i.width * i.height >= 5e5 THEN '0.5 to 2 MP'"
    " ELSE 'below 0.5 MP' END",
    "query": "q.engine || ': ' || CASE q.kind WHEN 'image' THEN q.image_path ELSE q.text END",
}


@dataclass(frozen=True)
class Group:
    """One value of the key. `files` are distinct contents on disk; `failed` counts final and blocked ones too."""

    key: str
    pictures: int
    done: int
    failed: int
    files: int


@dataclass(frozen=True)
class Totals:
    """The whole database in numbers. `as_of` is the time of the newest change, UTC."""

    pictures: int
    addresses: int
    queries: int
    domains: int
    done: int
    as_of: str


def totals(db: Database) -> Totals:
    """What stands at the head of the report."""
    row = db.row(
        "SELECT (SELECT count(*) FROM images) AS pictures, (SELECT count(*) FROM image_variants) AS addresses,"
        " (SELECT count(*) FROM queries) AS queries,"
        " (SELECT count(DISTINCT registrable_domain) FROM images WHERE registrable_domain <> '') AS domains,"
        " (SELECT count(*) FROM downloads WHERE state = 'done') AS done,"
        " max(ifnull((SELECT max(first_seen_at) FROM images), ''),"
        "     ifnull((SELECT max(updated_at) FROM downloads WHERE state <> 'pending'), '')) AS as_of"
    )
    assert row is not None
    return Totals(**dict(row))


def groups(db: Database, by: str) -> list[Group]:
    """Pictures by a key of `KEYS`, most first. A picture that several queries found counts once for each query."""
    join = " JOIN results r ON r.image_id = i.id JOIN queries q ON q.id = r.query_id" if by == "query" else ""
    rows = db.rows(
        f"SELECT {KEYS[by]} AS key, count(*) AS pictures, total(d.state = 'done') AS done,"
        " total(d.state IN ('failed', 'blocked', 'opted_out')) AS failed, count(DISTINCT d.sha256) AS files"
        f" FROM images i{join} LEFT JOIN downloads d ON d.image_id = i.id GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return [Group(r["key"] or "", r["pictures"], int(r["done"]), int(r["failed"]), r["files"]) for r in rows]


def median_sizes(db: Database, by: str) -> dict[str, str]:
    """The median width and height of the files of each group, as `1280 × 853`."""
    join = " JOIN results r ON r.image_id = i.id JOIN queries q ON q.id = r.query_id" if by == "query" else ""
    found: dict[str, str] = {}
    rows = db.execute(
        f"SELECT {KEYS[by]} AS key, f.width, f.height FROM files f JOIN downloads d ON d.sha256 = f.sha256"
        f" JOIN images i ON i.id = d.image_id{join} WHERE f.width IS NOT NULL AND d.state = 'done' ORDER BY 1"
    )
    for key, sizes in _grouped(rows):
        found[key] = f"{round(median(w for w, _ in sizes))} × {round(median(h for _, h in sizes))}"
    return found


def sample_paths(db: Database, by: str, each: int) -> dict[str, list[str]]:
    """A few present files of each group, as the database writes their paths."""
    join = " JOIN results r ON r.image_id = i.id JOIN queries q ON q.id = r.query_id" if by == "query" else ""
    found: dict[str, list[str]] = {}
    rows = db.execute(
        "SELECT key, path FROM (SELECT key, path, row_number() OVER (PARTITION BY key ORDER BY path) AS n FROM"
        f" (SELECT DISTINCT {KEYS[by]} AS key, f.path AS path FROM files f JOIN downloads d ON d.sha256 = f.sha256"
        f" JOIN images i ON i.id = d.image_id{join} WHERE f.state = 'present')) WHERE n <= ?",
        (each,),
    )
    for key, path in rows:
        found.setdefault(key or "", []).append(path)
    return found


def hosts_of_domains(db: Database) -> Iterator[tuple[str, str, int]]:
    """(registrable domain, host, pictures) for every host: what the families are counted from."""
    rows = db.execute("SELECT registrable_domain, domain, count(*) FROM images GROUP BY 1, 2")
    yield from ((row[0], row[1], row[2]) for row in rows)


def _grouped(rows: Iterator[tuple[str, int, int]]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    current, sizes = None, list[tuple[int, int]]()
    for key, width, height in rows:
        if key != current:
            if sizes:
                yield current or "", sizes
            current, sizes = key, []
        sizes.append((width, height))
    if sizes:
        yield current or "", sizes
