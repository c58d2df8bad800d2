"""The `scores` and `labels` tables, and where a content came from: what step 7 keeps and what its metadata says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.db.connection import Database
from lib.db.journal import runs_beside
from lib.progress import chunked
from lib.times import utc_now

BLOCK = 500
_GIVEN = "sha256 IN (SELECT value FROM json_each(?))"
_PROVENANCE = """
    SELECT downloads.sha256 AS sha256,
        CASE queries.kind WHEN 'keyword' THEN queries.text
            ELSE file_name_of(coalesce(nullif(queries.text, ''), queries.image_path)) END AS query,
        queries.image_sha256 AS query_sha256,
        images.engine AS engine,
        coalesce(nullif(downloads.final_url, ''), image_variants.url) AS image_url,
        images.page_url AS page_url, images.title AS title, license_id(images.license, images.license_url) AS license,
        images.license_url AS license_url, images.creator AS creator, images.attribution AS attribution
    FROM downloads
        JOIN images ON images.id = downloads.image_id
        LEFT JOIN image_variants ON image_variants.id = downloads.variant_id
        LEFT JOIN results ON results.image_id = images.id
        LEFT JOIN queries ON queries.id = results.query_id
    WHERE downloads.state = 'done' AND downloads.sha256 IN (SELECT value FROM json_each(?))
    ORDER BY downloads.sha256, images.key, results.query_id
"""


@dataclass(frozen=True)
class ScoreRow:
    """The score that a metric gave a content. `value` is None where there is none; `detail` is kept as JSON."""

    sha256: str
    value: float | None
    reason: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelRow:
    """The bucket that a criterion put a content in."""

    sha256: str
    label: str
    score: float | None
    reason: str
    version: str


def known_scores(db: Database, metric: str, version: str, contents: Sequence[str]) -> dict[str, ScoreRow]:
    """The kept scores of this metric in this version, by content."""
    sql = f"SELECT sha256, value, reason, detail FROM scores WHERE metric = ? AND version = ? AND {_GIVEN}"
    rows = db.rows(sql, (metric, version, json.dumps(contents)))
    return {
        row["sha256"]: ScoreRow(row["sha256"], row["value"], row["reason"], json.loads(row["detail"])) for row in rows
    }


def known_contents(db: Database, metric: str, version: str, contents: Sequence[str]) -> set[str]:
    """Those of the contents that this metric in this version has a score of."""
    sql = f"SELECT sha256 FROM scores WHERE metric = ? AND version = ? AND {_GIVEN}"
    return set(db.column(sql, (metric, version, json.dumps(contents))))


def unanswered(db: Database, metric: str, version: str, contents: Sequence[str]) -> dict[str, tuple[int, int, str]]:
    """(runs, tries, reason) of contents that got no answer from this metric in this version, as the table counts."""
    sql = f"SELECT sha256, runs, tries, reason FROM unanswered WHERE metric = ? AND version = ? AND {_GIVEN}"
    rows = db.execute(sql, (metric, version, json.dumps(contents)))
    return {row["sha256"]: (row["runs"], row["tries"], row["reason"]) for row in rows}


def note_unanswered(db: Database, metric: str, version: str, rows: Sequence[tuple[str, str, int]]) -> None:
    """Counts one more run for each (content, reason, tries) that got no answer, in one transaction."""
    now = utc_now()
    with db.transaction():
        db.executemany(
            "INSERT INTO unanswered (metric, version, sha256, runs, tries, reason, updated_at)"
            " VALUES (?, ?, ?, 1, ?, ?, ?) ON CONFLICT (metric, version, sha256) DO UPDATE SET runs = runs + 1,"
            " tries = tries + excluded.tries, reason = excluded.reason, updated_at = excluded.updated_at",
            [(metric, version, sha256, tries, reason, now) for sha256, reason, tries in rows],
        )


def unchecked_grounds(db: Database, metric: str, version: str, contents: Sequence[str]) -> set[str]:
    """Those of the contents that may have been measured on a ground on which they cannot be seen."""
    sql = f"SELECT sha256 FROM unchecked_grounds WHERE metric = ? AND version = ? AND {_GIVEN}"
    return set(db.column(sql, (metric, version, json.dumps(contents))))


def note_checked_grounds(db: Database, metric: str, version: str, contents: Iterable[str]) -> None:
    """Forgets the doubt about contents, in one transaction."""
    with db.transaction():
        sql = "DELETE FROM unchecked_grounds WHERE metric = ? AND version = ? AND sha256 = ?"
        db.executemany(sql, [(metric, version, sha256) for sha256 in contents])


def known_vectors(db: Database, model: str, version: str, contents: Sequence[str]) -> dict[str, bytes]:
    """The embeddings that are kept of contents: float16, little-endian, of unit length."""
    sql = f"SELECT sha256, vector FROM embeddings WHERE model = ? AND version = ? AND {_GIVEN}"
    return db.mapping(sql, (model, version, json.dumps(contents)))


def known_sizes(db: Database, contents: Sequence[str]) -> dict[str, tuple[int, int, str]]:
    """(width, height, format) of contents as any metric read them: real, upright, in pixels."""
    found: dict[str, tuple[int, int, str]] = {}
    sql = f"SELECT sha256, detail FROM scores WHERE {_GIVEN} AND value IS NOT NULL"
    for row in db.execute(sql, (json.dumps(contents),)):
        detail = json.loads(row["detail"])
        if detail.get("width"):
            found[row["sha256"]] = (detail["width"], detail["height"], detail["format"])
    return found


def save_measures(db: Database, metric: str, version: str, rows: Sequence[tuple[ScoreRow, bytes | None]]) -> None:
    """Writes scores, and the embeddings that come with them, in one transaction; nothing is open about them then."""
    with db.transaction():
        save_scores(db, metric, version, [row for row, _ in rows])
        for table in ("unanswered", "unchecked_grounds"):
            sql = f"DELETE FROM {table} WHERE metric = ? AND version = ? AND sha256 = ?"
            db.executemany(sql, [(metric, version, row.sha256) for row, _ in rows])
        db.executemany(
            "INSERT INTO embeddings (sha256, model, version, dimensions, vector) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256, model, version) DO UPDATE SET vector = excluded.vector",
            [(row.sha256, metric, version, len(vector) // 2, vector) for row, vector in rows if vector is not None],
        )


def save_scores(db: Database, metric: str, version: str, rows: Iterable[ScoreRow]) -> None:
    """Writes scores in one transaction; one that is there already is replaced."""
    now = utc_now()
    with db.transaction():
        db.executemany(
            "INSERT INTO scores (sha256, metric, version, value, reason, detail, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256, metric, version) DO UPDATE SET value = excluded.value, reason = excluded.reason,"
            " detail = excluded.detail, created_at = excluded.created_at",
            [(row.sha256, metric, version, row.value, row.reason, _compact(row.detail), now) for row in rows],
        )


def _compact(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, ensure_ascii=False, separators=(",", ":"))


def known_labels(db: Database, criterion: str, contents: Sequence[str]) -> dict[str, LabelRow]:
    sql = f"SELECT sha256, label, score, reason, version FROM labels WHERE criterion = ? AND {_GIVEN}"
    return {row["sha256"]: LabelRow(**dict(row)) for row in db.rows(sql, (criterion, json.dumps(contents)))}


def save_labels(db: Database, run_id: int, criterion: str, rows: Iterable[LabelRow]) -> int:
    """Writes the labels that differ from what is known, in one transaction, and gives their number."""
    now, written = utc_now(), 0
    with db.transaction():
        for block in chunked(rows, BLOCK):
            known = known_labels(db, criterion, [row.sha256 for row in block])
            changed = [row for row in block if known.get(row.sha256) != row]
            db.executemany(
                "INSERT INTO labels (sha256, criterion, label, score, reason, version, run_id, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sha256, criterion) DO UPDATE SET"
                " label = excluded.label, score = excluded.score, reason = excluded.reason,"
                " version = excluded.version, run_id = excluded.run_id, created_at = excluded.created_at",
                [(r.sha256, criterion, r.label, r.score, r.reason, r.version, run_id, now) for r in changed],
            )
            written += len(changed)
    return written


def drop_labels(db: Database, criterion: str, contents: Iterable[str]) -> None:
    """Forgets the labels of contents that a criterion has no bucket for any more; their scores stay known."""
    with db.transaction():
        sql = "DELETE FROM labels WHERE criterion = ? AND sha256 = ?"
        db.executemany(sql, ((criterion, sha256) for sha256 in contents))


def provenance(db: Database, contents: Sequence[str]) -> dict[str, dict[str, str]]:
    """The origin of contents, as `metadata.jsonl` names it; only what is known.

    It goes to others with the pictures: a query picture has its file's name and its digest, and no place on a disk.
    A content that several results led to is described by the first of them, by the picture's id and the query's number.
    """
    found: dict[str, dict[str, str]] = {}
    for row in db.execute(_PROVENANCE, (json.dumps(contents),)):
        if row["sha256"] not in found:
            found[row["sha256"]] = {name: row[name] for name in row.keys()[1:] if row[name]}
    return found


def kept_columns(db: Database, contents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The columns of lists that are kept with contents; of several of one name that of the first picture counts."""
    found: dict[str, dict[str, Any]] = {}
    sql = (
        "SELECT sha256, json_extract(extra, '$.columns') AS columns FROM downloads"
        f" JOIN images ON images.id = downloads.image_id WHERE downloads.state = 'done' AND {_GIVEN}"
        " AND columns IS NOT NULL ORDER BY 1, images.id"
    )
    for row in db.execute(sql, (json.dumps(contents),)):
        found[row["sha256"]] = json.loads(row["columns"]) | found.get(row["sha256"], {})
    return found


def failed_downloads(db: Database) -> Iterator[dict[str, Any]]:
    """The pictures whose download failed or was refused, by number: `reason`, `columns` and their origin.

    What an owner has opted out of is not among them.
    """
    sql = (
        "SELECT images.id AS id, downloads.reason AS reason, images.engine AS engine,"
        " (SELECT url FROM image_variants WHERE image_id = images.id ORDER BY kind <> 'original', id LIMIT 1)"
        " AS image_url, page_url, title, license_id(license, license_url) AS license, license_url, creator,"
        " attribution,"
        " CASE queries.kind WHEN 'keyword' THEN queries.text"
        " ELSE file_name_of(coalesce(nullif(queries.text, ''), queries.image_path)) END AS query,"
        " queries.image_sha256 AS query_sha256,"
        " json_extract(extra, '$.columns') AS columns FROM downloads JOIN images ON images.id = downloads.image_id"
        " LEFT JOIN queries ON queries.id = (SELECT min(query_id) FROM results WHERE image_id = images.id)"
        " WHERE downloads.state IN ('failed', 'blocked') AND images.id > :last ORDER BY images.id LIMIT :count"
    )
    last = 0
    while rows := db.rows(sql, {"last": last, "count": BLOCK}):
        for row in rows:
            yield dict(row) | {"columns": json.loads(row["columns"] or "{}")}
        last = rows[-1]["id"]


def sightings(db: Database, contents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By whom and when contents were seen, as far as that is known: `engines`, the earliest `published_at` and the
    earliest `first_seen_at` of all their results."""
    sql = (
        "SELECT downloads.sha256 AS sha256, json_group_array(DISTINCT engine) AS engines,"
        " min(nullif(published_at, '')) AS published_at, min(nullif(first_seen_at, '')) AS first_seen_at"
        " FROM downloads JOIN images ON images.id = downloads.image_id"
        f" WHERE downloads.state = 'done' AND downloads.{_GIVEN} GROUP BY downloads.sha256"
    )
    found = {}
    for row in db.execute(sql, (json.dumps(contents),)):
        about = {"engines": sorted(filter(None, json.loads(row["engines"])))}
        about |= {name: row[name] for name in ("published_at", "first_seen_at")}
        found[row["sha256"]] = {name: value for name, value in about.items() if value}
    return found


def latest_placing_run(db: Database, criterion: str) -> int:
    """The newest run whose files lie in `sorted/<criterion>/` and can be taken back; 0 for none."""
    below = f"sorted/{criterion}/"
    sql = (
        "SELECT coalesce(max(run_id), 0) FROM actions JOIN runs ON runs.id = run_id WHERE runs.step = 'sort'"
        " AND actions.state = 'done' AND target >= ? AND target < ?"
    )
    return int(db.value(sql, (below, below[:-1] + "0")))  # 0 follows the slash


def queries_of(db: Database, contents: Sequence[str]) -> dict[str, list[int]]:
    """The numbers of the queries that found each content."""
    found: dict[str, list[int]] = {}
    sql = (
        "SELECT DISTINCT sha256, results.query_id AS query FROM downloads"
        " JOIN results ON results.image_id = downloads.image_id"
        f" WHERE downloads.state = 'done' AND {_GIVEN} ORDER BY 1, 2"
    )
    for row in db.execute(sql, (json.dumps(contents),)):
        found.setdefault(row["sha256"], []).append(row["query"])
    return found


def query_pictures(db: Database, queries: Sequence[int]) -> list[tuple[int, str, str]]:
    """(number, content, path as the workspace writes it) of those queries that were made with a picture."""
    sql = "SELECT id, image_sha256, image_path FROM queries WHERE id = ? AND kind = 'image'"
    return [tuple(row) for number in queries for row in db.rows(sql, (number,))]


def query_texts(db: Database, queries: Sequence[int]) -> dict[int, str]:
    """The words of those queries that were made with words."""
    found = {number: db.value("SELECT text FROM queries WHERE id = ?", (number,)) for number in queries}
    return {number: str(text) for number, text in found.items() if text}


def query_names(db: Database, queries: Sequence[int]) -> dict[int, tuple[str, str]]:
    """(words, engine) of queries; the words are empty for a search by picture."""
    rows = ((number, db.row("SELECT text, engine FROM queries WHERE id = ?", (number,))) for number in queries)
    return {number: (str(row["text"]), str(row["engine"])) for number, row in rows if row is not None}


def known_phashes(db: Database, contents: Sequence[str]) -> dict[str, str]:
    """The perceptual hashes that step 6 keeps, hexadecimal: alike for repeats."""
    sql = f"SELECT sha256, hex(value) FROM hashes WHERE kind = 'phash' AND length(value) > 0 AND {_GIVEN}"
    return db.mapping(sql, (json.dumps(contents),))


def count_unhashed(db: Database, contents: Sequence[str]) -> int:
    """The number of contents that step 6 has not looked at, unlike what it found too flat to hash, or broken."""
    sql = f"SELECT count(DISTINCT sha256) FROM hashes WHERE kind IN ('phash', 'broken') AND {_GIVEN}"
    return len(contents) - int(db.value(sql, (json.dumps(contents),)))


def criteria(db: Database) -> list[str]:
    return db.column("SELECT DISTINCT criterion FROM labels ORDER BY 1")


def written_state(db: Database, name: str) -> str:
    """The state that `note_written` kept of the report; '' for none."""
    return str(db.value("SELECT state FROM written_reports WHERE name = ?", (name,)) or "")


def note_written(db: Database, name: str, state: str) -> None:
    """Keeps what a report was made of and how its files lie on disk; '' where that is not known."""
    if state != written_state(db, name):
        with db.transaction():
            db.execute("INSERT OR REPLACE INTO written_reports (name, state) VALUES (?, ?)", (name, state))


def made_of(db: Database, criterion: str) -> list[Any]:
    """Returns counts and moments that change with all that a report of step 7 reads in the database; [] while a run of
    another step may be changing it.

    Step 7 itself writes scores and labels, each with its moment; all else comes of runs of other steps.
    """
    if (others := runs_beside(db, "sort")) is None:
        return []
    labels = db.row("SELECT count(*), max(created_at), max(run_id) FROM labels WHERE criterion = ?", (criterion,))
    measured = db.row("SELECT count(*), max(created_at) FROM scores")
    return [*others, *(labels or ()), *(measured or ())]


def all_labels(db: Database, criterion: str, version: str) -> Iterator[tuple[str, str]]:
    """(content, label) of everything that a criterion labelled in this version, oldest first."""
    sql = "SELECT sha256, label FROM labels WHERE criterion = ? AND version = ? ORDER BY created_at, sha256"
    yield from map(tuple, db.execute(sql, (criterion, version)))


def repeats(db: Database) -> Iterator[tuple[str, str]]:
    """(content, content that it repeats) of all that step 6 found."""
    sql = "SELECT DISTINCT sha256, keeper_sha256 FROM duplicates WHERE sha256 <> keeper_sha256"
    yield from map(tuple, db.execute(sql))


def file_actions(db: Database, step: str, below: str) -> Iterator[tuple[int, str, str, str, str]]:
    """(id, kind, source, target, sha256) of a step's done file actions that touch a folder, oldest first, in blocks.

    `below` is a folder as `Workspace.to_text` writes it, with a closing slash.
    """
    sql = (
        "SELECT actions.id, kind, source, target, sha256 FROM actions JOIN runs ON runs.id = actions.run_id"
        " WHERE actions.id > :last AND actions.state = 'done' AND runs.step = :step"
        " AND :below IN (substr(target, 1, :length), substr(source, 1, :length)) ORDER BY actions.id"
    )
    for row in db.in_blocks(sql, 0, BLOCK * 4, step=step, below=below, length=len(below)):
        yield tuple(row)


def copies_of(db: Database, sha256: str) -> list[str]:
    """The paths at which step 7 put copies of a content: the targets of its done file actions."""
    rows = db.rows(
        "SELECT DISTINCT target FROM actions JOIN runs ON runs.id = actions.run_id WHERE runs.step = 'sort'"
        " AND actions.sha256 = ? AND actions.state = 'done' AND kind IN ('copy', 'hardlink') ORDER BY target",
        (sha256,),
    )
    return [str(row[0]) for row in rows]
