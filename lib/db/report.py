"""The counts behind step 3: pictures by domain, family, engine, query, licence, format or claimed size.

Pictures are counted in one table, or in an index where that suffices; what became of them is counted from the downloads
that are no longer pending. Joined in one statement, a million pending rows would be looked up for nothing.

The comparison of two searches or runs and the extract of some domains stand here too.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median

from lib.db.connection import Database, open_database
from lib.db.soundness import only_reading, tables_of
from lib.domains import family_by_domain, family_of, host_rules
from lib.errors import GleanerError, UsageError
from lib.temporary import becoming, clear_dead

_TRIED = "state IN ('done', 'failed', 'blocked', 'opted_out')"  # an index knows these; `<> 'pending'` it would not
_RULED = ", ".join(f"'{domain}'" for domain in sorted({*family_by_domain(), *host_rules()}))  # domains with a rule
# What each way of grouping groups by. `images` is `i`, the picture's query (when asked for) is `q`.
KEYS = {
    "domain": "i.registrable_domain",
    "host": "i.domain",
    "engine": "i.engine",
    # Most pictures of search engines have none: to ask Python for each of them would take as long as the rest.
    "licence": "CASE WHEN i.license = '' AND i.license_url = '' THEN '' ELSE license_id(i.license, i.license_url) END",
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

# Tables in the order in which they are filled, each with the rows that the chosen pictures need.
_PARTS = {
    "queries": "id IN (SELECT query_id FROM src.results WHERE image_id IN (SELECT id FROM chosen))",
    "responses": "id IN (SELECT response_id FROM src.results WHERE image_id IN (SELECT id FROM chosen))",
    "images": "id IN (SELECT id FROM chosen)",
    "results": "image_id IN (SELECT id FROM chosen)",
    "image_variants": "image_id IN (SELECT id FROM chosen)",
    "files": "sha256 IN (SELECT sha256 FROM src.downloads WHERE image_id IN (SELECT id FROM chosen))",
    "downloads": "image_id IN (SELECT id FROM chosen)",
    "hashes": "sha256 IN (SELECT sha256 FROM main.files)",
    "scores": "sha256 IN (SELECT sha256 FROM main.files)",
    "labels": "sha256 IN (SELECT sha256 FROM main.files)",
}
_WITHOUT_RUN = ("queries", "responses", "downloads", "labels")  # runs stay behind

_CHOOSES = "registrable_domain = ? AND (? = '' OR domain = ? OR domain LIKE '%.' || ?)"


@dataclass(frozen=True)
class ReportGroup:
    """One value of the key. `files` are distinct contents on disk; `failed` counts final and blocked ones too."""

    key: str
    pictures: int
    done: int = 0
    failed: int = 0
    files: int = 0


@dataclass(frozen=True)
class ReportTotals:
    """The whole database in numbers. `as_of` is the time of the newest change, UTC.

    A picture that several engines found, by its content or its address, counts once: `shared` have been left out.
    """

    pictures: int
    addresses: int
    queries: int
    domains: int
    done: int
    as_of: str
    shared: int = 0


def prepare_for_reports(db: Database) -> None:
    """Maps the file instead of copying page by page, and lets statements ask for families."""
    db.execute("PRAGMA mmap_size = 4294967296")
    db.connection.create_function("family", 2, lambda domain, host: family_of(domain or "", host or ""))


def totals(db: Database) -> ReportTotals:
    row = db.row(
        "SELECT (SELECT count(*) FROM images) AS pictures, (SELECT count(*) FROM image_variants) AS addresses,"
        " (SELECT count(*) FROM queries) AS queries,"
        " (SELECT count(DISTINCT registrable_domain) FROM images WHERE registrable_domain <> '') AS domains,"
        " (SELECT count(*) FROM downloads WHERE state = 'done') AS done,"
        " max(ifnull((SELECT first_seen_at FROM images ORDER BY id DESC LIMIT 1), ''),"
        f"     ifnull((SELECT max(updated_at) FROM downloads WHERE {_TRIED}), '')) AS as_of"
    )
    assert row is not None
    found = ReportTotals(**dict(row))
    shared = shared_pictures(db) if has_engines(db) else 0
    return replace(found, pictures=found.pictures - shared, shared=shared)


def has_engines(db: Database) -> bool:
    """True where more than one engine has been searched."""
    return int(db.value("SELECT count(DISTINCT engine) FROM queries")) > 1


def engines_by_key(db: Database, by: str) -> dict[str, str]:
    """The engines whose pictures stand under each key, by their names; the key of a search names its engine itself."""
    if by in ("engine", "query") or not has_engines(db):
        return {}
    found: dict[str, list[str]] = {}
    for key, engine in db.execute(f"SELECT DISTINCT {KEYS[by]} AS key, i.engine FROM images i ORDER BY 1, 2"):
        found.setdefault(key or "", []).append(engine)
    return {key: ", ".join(names) for key, names in found.items()}


_OF_ONE_CONTENT = (
    "SELECT many.sha256 AS mark, i.id, i.engine FROM (SELECT sha256 FROM downloads WHERE sha256 IS NOT NULL"
    " GROUP BY sha256 HAVING count(*) > 1) many CROSS JOIN downloads d ON d.sha256 = many.sha256 AND d.state = 'done'"
    " CROSS JOIN images i ON i.id = d.image_id"
)
_OF_ONE_ADDRESS = (
    "SELECT v.url AS mark, i.id, i.engine FROM (SELECT url, image_id FROM image_variants WHERE kind = 'original'"
    " AND url IN (SELECT url FROM image_variants WHERE kind = 'original' GROUP BY url HAVING count(*) > 1)) v"
    " CROSS JOIN images i ON i.id = v.image_id"
)


def shared_pictures(db: Database) -> int:
    """Counts how often a picture is one that another engine has found too: same content, or same original address."""
    first: dict[str, int] = {}  # the picture that had a content or an address first
    parent: dict[int, int] = {}
    engines: dict[int, str] = {}

    def root(image: int) -> int:
        while parent[image] != image:
            parent[image] = image = parent[parent[image]]
        return image

    for statement in (_OF_ONE_CONTENT, _OF_ONE_ADDRESS):
        for mark, image, engine in db.execute(statement):
            parent.setdefault(image, image)
            engines[image] = engine
            parent[root(image)] = root(first.setdefault(mark, image))
    groups: dict[int, set[str]] = {}
    for image, engine in engines.items():
        groups.setdefault(root(image), set()).add(engine)
    return sum(len(names) - 1 for names in groups.values())


def groups(db: Database, by: str) -> list[ReportGroup]:
    """Pictures by a key of `KEYS`, most first. A picture that several queries found counts once for each query."""
    pictures = _families(db) if by == "family" else db.mapping(pictures_sql(by))
    alike = by == "query" and bool(db.value(_NAMES_ALIKE))
    outcomes = {row[0]: tuple(row)[1:] for row in db.execute(outcomes_sql(by, alike=alike))}
    again = {} if alike else db.mapping(repeats_sql(by))
    found = []
    for key, count in pictures.items():
        done, failed, files = map(int, outcomes.get(key, (0, 0, 0)))
        found.append(ReportGroup(key or "", count, done, failed, files - int(again.get(key, 0))))
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
    rows = db.execute(
        f"SELECT {KEYS[by]} AS key, f.width, f.height FROM downloads d CROSS JOIN files f ON f.sha256 = d.sha256"
        f" CROSS JOIN {_source(by)} WHERE d.state = 'done' AND f.width IS NOT NULL ORDER BY 1"
    )
    found: dict[str, str] = {}
    for key, group in groupby(rows, key=lambda row: row[0] or ""):
        _, widths, heights = zip(*group, strict=True)
        found[key] = f"{round(median(widths))} × {round(median(heights))}"
    return found


def _source(by: str) -> str:
    """The pictures of the downloads `d`, with their queries where those are the key."""
    images = "images i ON i.id = d.image_id"
    return (
        f"{images} JOIN results r ON r.image_id = i.id JOIN queries q ON q.id = r.query_id" if by == "query" else images
    )


def _families(db: Database) -> dict[str, int]:
    """Pictures by family, those of no family under the empty text."""
    found: Counter[str] = Counter()
    for domain, host, count in hosts_of_domains(db):
        found[family_of(domain, host)] += count
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
    """(registrable domain, host, pictures), from which the families are counted.

    Hosts are told apart only where a family's rule names one; for all others the index of the domains suffices.
    """
    split = host_rules()
    for domain, count in db.rows("SELECT registrable_domain, count(*) FROM images GROUP BY 1"):
        if domain not in split:
            yield domain, domain, count
            continue
        sql = "SELECT domain, count(*) FROM images WHERE registrable_domain = ? GROUP BY 1"
        yield from ((domain, row[0], row[1]) for row in db.rows(sql, (domain,)))


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what it is called and which results belong to it."""

    name: str
    condition: str
    value: int


@dataclass(frozen=True)
class SharedPictures:
    """Pictures of one key: of the first side alone, of both, of the second alone."""

    key: str
    only_a: int
    both: int
    only_b: int


def side(db: Database, text: str) -> Side:
    """`run:12` for what a run of step 1 found; else a search, by its number or its words. Raises UsageError."""
    kind, _, number = text.partition(":")
    if kind == "run" and number.isdigit():
        if db.value("SELECT 1 FROM responses WHERE run_id = ? LIMIT 1", (int(number),)):
            condition = "r.response_id IN (SELECT id FROM responses WHERE run_id = ?)"
            return Side(text, condition, int(number))
        raise UsageError(f"--compare: run {number} stored no answers; see the table runs for those that did.")
    name = number if kind == "query" and number else text
    rows = db.rows(
        "SELECT id, engine, CASE kind WHEN 'image' THEN image_path ELSE text END AS words FROM queries"
        " WHERE id = ? OR text = ? OR (kind = 'image' AND image_path = ?) ORDER BY id",
        (int(name) if name.isdigit() else -1, name, name),
    )
    if len(rows) != 1:
        found = ", ".join(f"{row['id']} ({row['engine']})" for row in rows[:8])
        hint = f"several searches are called {text!r}: give one number of {found}" if rows else f"no search is {text!r}"
        raise UsageError(f"--compare: {hint}.")
    return Side(f"{rows[0]['engine']}: {rows[0]['words']}", "r.query_id = ?", rows[0]["id"])


def compare(db: Database, a: Side, b: Side, by: str) -> list[SharedPictures]:
    """The pictures of both sides by a key of `KEYS`, most first. By query, one that both found stands under both."""
    values = [a.value, b.value]
    source = "images i ON i.id = met.id"
    if by == "query":
        source += f" JOIN results r ON r.image_id = met.id AND ({a.condition} OR {b.condition})"
        source += " JOIN queries q ON q.id = r.query_id"
        values *= 2
    rows = db.execute(
        "WITH a AS (SELECT DISTINCT r.image_id AS id FROM results r WHERE "
        f"{a.condition}), b AS (SELECT DISTINCT r.image_id AS id FROM results r WHERE {b.condition}),"
        " met AS (SELECT id, max(side) AS most, min(side) AS least FROM"
        " (SELECT id, 1 AS side FROM a UNION ALL SELECT id, 2 FROM b) GROUP BY id)"
        f" SELECT {KEYS[by]}, total(most = 1), total(most <> least), total(least = 2)"
        f" FROM met JOIN {source} GROUP BY 1 ORDER BY count(*) DESC, 1",
        values,
    )
    return [SharedPictures(row[0] or "", int(row[1]), int(row[2]), int(row[3])) for row in rows]


def count_pictures(db: Database, names: Iterable[tuple[str, str]]) -> int:
    """The number of pictures that the names choose."""
    return sum(
        int(db.value(f"SELECT count(*) FROM images WHERE {_CHOOSES}", (domain, host, host, host)))
        for domain, host in names
    )


def extract(db: Database, names: Iterable[tuple[str, str]], target: Path) -> int:
    """Writes the pictures of the named (registrable domain, host or empty) into a new database; gives their number.

    Raises UsageError where another program's file stands in the way.
    """
    if db.path is None:
        raise GleanerError("there is no database to extract from; run 2_ingest_db.py first.")
    _check_target(target)
    clear_dead(target.parent, target=target.name)  # it may lie anywhere: nobody else looks there
    with becoming(target) as part, open_database(part) as made:
        found = _fill(made, db.path, list(names))
        made.execute("PRAGMA journal_mode = DELETE")
    return found


def _check_target(target: Path) -> None:
    """Raises UsageError for a file that no earlier extract has made: one has all our tables, and runs stay behind."""
    if not target.exists():
        return
    try:
        with only_reading(target) as connection:
            shared = tables_of(connection).keys() >= {"images", "results", "runs"}
            ours = shared and not connection.execute("SELECT 1 FROM runs").fetchone()
    except (sqlite3.Error, OSError):
        ours = False
    if not ours:
        raise UsageError(f"--to: {target} is there and no earlier extract; give another name.")


def _fill(made: Database, source: Path, names: list[tuple[str, str]]) -> int:
    made.execute("ATTACH ? AS src", (source.resolve().as_posix(),))
    made.execute("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")
    with made.transaction():
        for domain, host in names:
            made.execute(
                f"INSERT OR IGNORE INTO chosen SELECT id FROM src.images WHERE {_CHOOSES}", (domain, host, host, host)
            )
        for table, condition in _PARTS.items():
            columns = [row["name"] for row in made.rows(f"PRAGMA main.table_info({table})")]
            shown = ["NULL" if c == "run_id" and table in _WITHOUT_RUN else c for c in columns]
            made.execute(
                f"INSERT INTO main.{table} ({', '.join(columns)})"
                f" SELECT {', '.join(shown)} FROM src.{table} WHERE {condition}"
            )
    found = int(made.value("SELECT count(*) FROM chosen"))
    made.execute("DETACH src")
    if made.value("PRAGMA integrity_check(1)") != "ok" or made.row("PRAGMA foreign_key_check"):
        raise GleanerError("the extracted database is not whole; run 4_db_cleanup.py --rule orphan and try again.")
    return found
