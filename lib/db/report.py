"""The counts behind step 3: pictures by domain, family, engine, query, licence, format or claimed size.

Pictures are counted in one table, or in an index where that suffices; what became of them is counted from the downloads
that are no longer pending. Joined in one statement, a million pending rows would be looked up for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from lib.db.connection import Database
from lib.families import family_by_domain, family_of, host_rules

_TRIED = "state IN ('done', 'failed', 'blocked', 'opted_out')"  # an index knows these; `<> 'pending'` it would not
_RULED = ", ".join(f"'{domain}'" for domain in sorted({*family_by_domain(), *host_rules()}))  # domains with a rule
# What each way of grouping groups by. `images` is `i`, the picture's query (when asked for) is `q`.
KEYS = {
    "domain": "i.registrable_domain",
    "host": "i.domain",
    "engine": "i.engine",
    "licence": "i.license",
    "format": "CASE lower(i.format) WHEN 'jpg' THEN 'jpeg' WHEN 'tif' THEN 'tiff' ELSE lower(i.format) END",
    "size": "CASE WHEN i.width IS NULL OR i.height IS NULL THEN '' WHEN i.width * i.height >= 8e6 THEN '8 MP and more'"
    " WHEN i.width * i.height >= 2e6 THEN '2 to 8 MP' WHEN i.width * i.height >= 5e5 THEN '0.5 to 2 MP'"
    " ELSE 'below 0.5 MP' END",
    # Most domains belong to no family: to ask Python for each picture would take half of the time.
    "family": f"CASE WHEN i.registrable_domain IN ({_RULED}) THEN family(i.registrable_domain, i.domain) ELSE '' END",
    # A search that was restored from its answers knows its picture by the hash only.
    "query": "q.engine || ': ' || CASE q.kind WHEN 'image' THEN iif(q.image_path = '', 'picture ' ||"
    " substr(q.image_sha256, 1, 16), q.image_path) ELSE q.text END",
}


_NAMES_ALIKE = f"SELECT count(*) > count(DISTINCT {KEYS['query']}) FROM queries q"


@dataclass(frozen=True)
class Group:
    """One value of the key. `files` are distinct contents on disk; `failed` counts final and blocked ones too."""

    key: str
    pictures: int
    done: int = 0
    failed: int = 0
    files: int = 0


@dataclass(frozen=True)
class Totals:
    """The whole database in numbers. `as_of` is the time of the newest change, UTC."""

    pictures: int
    addresses: int
    queries: int
    domains: int
    done: int
    as_of: str


def prepare_for_reports(db: Database) -> None:
    """Maps the file instead of copying page by page, and lets statements ask for families."""
    db.execute("PRAGMA mmap_size = 4294967296")
    db.connection.create_function("family", 2, lambda domain, host: family_of(domain or "", host or ""))


def totals(db: Database) -> Totals:
    """What stands at the head of the report."""
    row = db.row(
        "SELECT (SELECT count(*) FROM images) AS pictures, (SELECT count(*) FROM image_variants) AS addresses,"
        " (SELECT count(*) FROM queries) AS queries,"
        " (SELECT count(DISTINCT registrable_domain) FROM images WHERE registrable_domain <> '') AS domains,"
        " (SELECT count(*) FROM downloads WHERE state = 'done') AS done,"
        " max(ifnull((SELECT first_seen_at FROM images ORDER BY id DESC LIMIT 1), ''),"
        f"     ifnull((SELECT max(updated_at) FROM downloads WHERE {_TRIED}), '')) AS as_of"
    )
    assert row is not None
    return Totals(**dict(row))


def groups(db: Database, by: str) -> list[Group]:
    """Pictures by a key of `KEYS`, most first. A picture that several queries found counts once for each query."""
    pictures = _families(db) if by == "family" else dict(map(tuple, db.execute(pictures_sql(by))))
    alike = by == "query" and bool(db.value(_NAMES_ALIKE))
    outcomes = {row[0]: tuple(row)[1:] for row in db.execute(outcomes_sql(by, alike=alike))}
    again = {} if alike else dict(map(tuple, db.execute(repeats_sql(by))))
    found = []
    for key, count in pictures.items():
        done, failed, files = map(int, outcomes.get(key, (0, 0, 0)))
        found.append(Group(key or "", count, done, failed, files - int(again.get(key, 0))))
    return sorted(found, key=lambda group: (-group.pictures, group.key))


def pictures_sql(by: str) -> str:
    """The statement that counts the pictures of each key."""
    if by == "query":
        counted = "(SELECT query_id, count(*) AS found FROM results GROUP BY query_id) c"
        return f"SELECT {KEYS[by]}, sum(c.found) FROM {counted} JOIN queries q ON q.id = c.query_id GROUP BY 1"
    return f"SELECT {KEYS[by]}, count(*) FROM images i GROUP BY 1"


def outcomes_sql(by: str, *, alike: bool = False) -> str:
    """The statement that counts done, failed and contents of each key.

    A content that several pictures have counts several times: `repeats_sql` tells how often too often. Telling contents
    apart here would sort them all, most of the time of a report. With `alike` that is done: where two searches have one
    name, one picture is met twice under it.
    """
    contents = "DISTINCT d.sha256" if alike else "d.sha256"
    return (
        f"SELECT {KEYS[by]}, total(d.state = 'done'), total(d.state <> 'done'), count({contents})"
        f" FROM downloads d CROSS JOIN {_source(by)} WHERE d.{_TRIED} GROUP BY 1"
    )


def repeats_sql(by: str) -> str:
    """The statement that counts, for each key, the pictures whose content an earlier picture of that key has too."""
    many = "SELECT sha256 FROM downloads WHERE sha256 IS NOT NULL GROUP BY sha256 HAVING count(*) > 1"
    return (
        f"SELECT key, total(found - 1) FROM (SELECT {KEYS[by]} AS key, count(*) AS found FROM ({many}) many"
        f" CROSS JOIN downloads d ON d.sha256 = many.sha256 CROSS JOIN {_source(by)} WHERE d.{_TRIED}"
        " GROUP BY 1, d.sha256) GROUP BY 1"
    )


def median_sizes(db: Database, by: str) -> dict[str, str]:
    """The median width and height of the files of each group, as `1280 × 853`."""
    found: dict[str, str] = {}
    rows = db.execute(
        f"SELECT {KEYS[by]} AS key, f.width, f.height FROM downloads d CROSS JOIN files f ON f.sha256 = d.sha256"
        f" CROSS JOIN {_source(by)} WHERE d.state = 'done' AND f.width IS NOT NULL ORDER BY 1"
    )
    for key, sizes in _grouped(rows):
        found[key] = f"{round(median(w for w, _ in sizes))} × {round(median(h for _, h in sizes))}"
    return found


def _source(by: str) -> str:
    """The pictures of the downloads `d`, with their queries where those are the key."""
    images = "images i ON i.id = d.image_id"
    return (
        f"{images} JOIN results r ON r.image_id = i.id JOIN queries q ON q.id = r.query_id" if by == "query" else images
    )


def _families(db: Database) -> dict[str, int]:
    """Pictures by family, those of no family under the empty text."""
    found: dict[str, int] = {}
    for domain, host, count in hosts_of_domains(db):
        family = family_of(domain, host)
        found[family] = found.get(family, 0) + count
    return found


def sample_paths(db: Database, by: str, each: int, wanted: Mapping[str, int]) -> dict[str, list[str]]:
    """The files of the first few pictures of each wanted group, as the database writes their paths.

    `wanted` says how many files a group has: where each has been met as often as it can be, nothing more is read.
    """
    found: dict[str, list[str]] = {key: [] for key in wanted}
    lacking = sum(min(each, files) for files in wanted.values())
    if not lacking:
        return found
    rows = db.execute(
        f"SELECT {KEYS[by]}, f.path FROM downloads d CROSS JOIN files f ON f.sha256 = d.sha256 AND f.state = 'present'"
        f" CROSS JOIN {_source(by)} WHERE d.state = 'done'"
    )
    for key, path in rows:
        paths = found.get(key or "")
        if paths is None or len(paths) >= each or path in paths:
            continue
        paths.append(path)
        lacking -= 1
        if not lacking:
            break
    return found


def hosts_of_domains(db: Database) -> Iterator[tuple[str, str, int]]:
    """(registrable domain, host, pictures): what the families are counted from.

    Hosts are told apart only where a family's rule names one; for all others the index of the domains suffices.
    """
    split = host_rules()
    for domain, count in db.rows("SELECT registrable_domain, count(*) FROM images GROUP BY 1"):
        if domain not in split:
            yield domain, domain, count
            continue
        sql = "SELECT domain, count(*) FROM images WHERE registrable_domain = ? GROUP BY 1"
        yield from ((domain, row[0], row[1]) for row in db.rows(sql, (domain,)))


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
