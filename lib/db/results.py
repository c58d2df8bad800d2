"""The hits of one search with their pages, files and addresses, and which of them repeat each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lib.db.connection import Database
from lib.errors import UsageError

NAMED = 8  # searches that a sentence names
COPIES = ("bytes", "pixels", "same", "edited")  # kinds of repeats that show one picture


@dataclass(frozen=True)
class SearchRow:
    """A search with the number of its hits. `words` are the keyword, or the query picture's path."""

    id: int
    engine: str
    kind: str
    words: str
    image_sha256: str
    updated_at: str
    hits: int

    @property
    def name(self) -> str:
        """The keyword, or the query picture's file name; a restored search knows its picture by the digest only."""
        if self.kind != "image":
            return self.words
        return PurePosixPath(self.words.replace("\\", "/")).name or f"picture {self.image_sha256[:16]}"


@dataclass(frozen=True)
class HitRow:
    """One picture that a search showed, as the engine knows it, with its file where step 5 has fetched it."""

    image_id: int
    rank: int
    page_url: str
    title: str
    domain: str
    registrable_domain: str
    width: int | None
    height: int | None
    published_at: str
    first_seen_at: str
    creator: str
    license: str
    license_url: str
    attribution: str
    state: str
    reason: str
    final_url: str
    updated_at: str
    sha256: str
    path: str
    file_state: str
    bytes: int | None
    format: str
    file_width: int | None
    file_height: int | None
    orientation: int


_SEARCHES = (
    "SELECT id, engine, kind, CASE kind WHEN 'image' THEN image_path ELSE text END AS words, image_sha256, updated_at,"
    " (SELECT count(*) FROM results WHERE query_id = queries.id) AS hits FROM queries"
)
_HITS = (
    "SELECT i.id AS image_id, r.rank, i.page_url, i.title, i.domain, i.registrable_domain, i.width, i.height,"
    " i.published_at, i.first_seen_at, i.creator, i.license, i.license_url, i.attribution,"
    " coalesce(d.state, 'pending') AS state, coalesce(d.reason, '') AS reason, coalesce(d.final_url, '') AS final_url,"
    " coalesce(d.updated_at, '') AS updated_at, coalesce(f.sha256, '') AS sha256, coalesce(f.path, '') AS path,"
    " coalesce(f.state, '') AS file_state, f.bytes, coalesce(f.format, '') AS format, f.width AS file_width,"
    " f.height AS file_height, coalesce(f.orientation, 1) AS orientation"
    " FROM results r JOIN images i ON i.id = r.image_id LEFT JOIN downloads d ON d.image_id = i.id"
    # Of a picture whose owner has opted out, nothing but the page is shown.
    " LEFT JOIN files f ON f.sha256 = d.sha256 AND d.state = 'done'"
    " WHERE r.query_id = ? ORDER BY r.rank, i.id"
)


def searches_with_hits(db: Database) -> list[SearchRow]:
    """Every search that showed a picture, the newest first."""
    return [SearchRow(**dict(row)) for row in db.rows(f"{_SEARCHES} WHERE hits > 0 ORDER BY id DESC")]


def find_search(db: Database, text: str) -> SearchRow:
    """The search of that number, keyword, path or file name. Raises UsageError where it is none, or not only one."""
    engine, colon, words = text.partition(": ")
    found = [
        row
        for row in (SearchRow(**dict(row)) for row in db.rows(f"{_SEARCHES} WHERE kind <> 'import' ORDER BY id"))
        if text in (str(row.id), row.words, row.name) or (colon and (engine, words) == (row.engine, row.words))
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"--results: no search is {text!r}; 1_collect.py --list shows them with their numbers.")
    named = ", ".join(f"{row.id} ({row.engine}, {row.name})" for row in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise UsageError(f"--results: {text!r} means several searches: give the number of one, {named}{more}.")


def hits_of(db: Database, query_id: int) -> list[HitRow]:
    """The hits in the order in which the engine showed them."""
    return [HitRow(**dict(row)) for row in db.rows(_HITS, (query_id,))]


def addresses_of(db: Database, query_id: int) -> Iterator[tuple[int, str, str]]:
    """(picture, kind, address) of every address of the hits, thumbnails left out, the original first."""
    rows = db.execute(
        "SELECT v.image_id, v.kind, v.url FROM results r JOIN image_variants v ON v.image_id = r.image_id"
        " WHERE r.query_id = ? AND v.kind <> 'thumb' ORDER BY v.image_id, v.kind <> 'original', v.id",
        (query_id,),
    )
    yield from map(tuple, rows)


def copies_known(db: Database, contents: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a content and the one that it repeats, as step 6 judged them; pairs set apart by a person left out."""
    rows = db.execute(
        "SELECT DISTINCT sha256, keeper_sha256 FROM duplicates"
        f" WHERE sha256 IN (SELECT value FROM json_each(?)) AND kind IN ({', '.join('?' * len(COPIES))})"
        " AND NOT EXISTS (SELECT 1 FROM not_repeats WHERE one = min(sha256, keeper_sha256)"
        " AND other = max(sha256, keeper_sha256)) ORDER BY 1, 2",
        (json.dumps(list(contents)), *COPIES),
    )
    return [(row[0], row[1]) for row in rows]


def place_of_content(db: Database, sha256: str) -> str:
    """The path of a content that is not missing; empty where there is none."""
    sql = "SELECT path FROM files WHERE sha256 = ? AND state <> 'missing'"
    return str(db.value(sql, (sha256,)) or "")
