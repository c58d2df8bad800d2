"""The values that step 6 has computed of contents and its findings about pairs, so that nothing is done twice.

`hashes` holds values of a content's pixels, each valid only for the algorithm that made it. Kinds: `phash` (empty
value: too flat to hash), `buffers` (what two pictures are compared by), `pixels` (digest of the pixels),
`enlarged from …` (1 where it is that content, enlarged) and `broken` (the reason why the content cannot be decoded).

`near_hashes` holds every hash that has been compared with all the others there, `near_pairs` the pairs that were found.
`relations` holds how pairs of contents were judged, `not_repeats` the pairs that a person has set apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

from lib.db.connection import Database
from lib.progress import chunked

CONTENTS_BLOCK = 5_000  # contents asked for at once: 300,000 in one list take a third longer and twice the memory
VIEWS_BLOCK = 2_000  # rows of views fetched at once, 1.2 KB each


@dataclass(frozen=True)
class HashRow:
    """One computed value of a content; `value` is None where there is none by design (a flat picture)."""

    sha256: str
    kind: str
    bits: int
    value: bytes | None
    algorithm: str


def known_hashes(
    db: Database, contents: Sequence[str], kind: str, bits: int, algorithm: str
) -> dict[str, bytes | None]:
    """Returns what is known of the given contents under this very algorithm."""
    found: dict[str, bytes | None] = {}
    for block in chunked(contents, CONTENTS_BLOCK):
        found |= db.mapping(
            "SELECT sha256, value FROM hashes WHERE kind = ? AND bits = ? AND algorithm = ?"
            " AND sha256 IN (SELECT value FROM json_each(?))",
            (kind, bits, algorithm, json.dumps(block)),
        )
    return found


def known_answers(db: Database, contents: Sequence[str], prefix: str, algorithm: str) -> dict[tuple[str, str], int]:
    """Returns (content, kind) -> answer for every kind that begins so: small numbers, kept as one byte."""
    rows = db.rows(
        "SELECT sha256, kind, value FROM hashes WHERE bits = 1 AND algorithm = ? AND substr(kind, 1, ?) = ?"
        " AND sha256 IN (SELECT value FROM json_each(?))",
        (algorithm, len(prefix), prefix, json.dumps(contents)),
    )
    return {(row["sha256"], row["kind"]): row["value"][0] for row in rows}


def remember_hashes(db: Database, rows: Iterable[HashRow]) -> None:
    """Writes values in one transaction; a value of an older algorithm is replaced."""
    with db.transaction():
        db.executemany(
            "INSERT INTO hashes (sha256, kind, bits, value, algorithm) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256, kind, bits) DO UPDATE SET value = excluded.value, algorithm = excluded.algorithm"
            " WHERE algorithm <> excluded.algorithm OR value IS NOT excluded.value",
            [astuple(row) for row in rows],
        )


@dataclass(frozen=True)
class NearPair:
    """Two hashes, `one` < `other`, and how they were found near each other.

    view     -1: as they are; else the number of the view under which a picture of one hash shows that of the other
    flipped  the view is one of `other`
    inside   it was compared with what is inside the border
    """

    one: bytes
    other: bytes
    distance: int
    view: int
    flipped: bool
    inside: bool


def compared_hashes(db: Database, algorithm: str) -> set[bytes]:
    """Returns the hashes that have been compared with one another under this algorithm."""
    return set(db.column("SELECT hash FROM near_hashes WHERE algorithm = ?", (algorithm,)))


def iter_views(db: Database, algorithm: str) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yields (hashes, their views) in blocks, in the order of the hashes."""
    sql = "SELECT hash, views FROM near_hashes WHERE algorithm = :algorithm AND hash > :last ORDER BY hash"
    for rows in chunked(db.in_blocks(sql, b"", VIEWS_BLOCK, algorithm=algorithm), VIEWS_BLOCK):
        yield [row["hash"] for row in rows], [row["views"] for row in rows]


def near_pairs(db: Database) -> Iterator[NearPair]:
    sql = "SELECT one, other, distance, view, flipped, inside FROM near_pairs"
    for one, other, distance, view, flipped, inside in db.rows(sql):
        yield NearPair(one, other, distance, view, bool(flipped), bool(inside))


def remember_near(
    db: Database, algorithm: str, compared: Iterable[tuple[bytes, bytes]], pairs: Sequence[NearPair]
) -> None:
    """Adds hashes with their views, and the pairs they are in; what another algorithm found is dropped."""
    with db.transaction():
        if db.value("SELECT 1 FROM near_hashes WHERE algorithm <> ? LIMIT 1", (algorithm,)):
            db.execute("DELETE FROM near_hashes")
            db.execute("DELETE FROM near_pairs")
        db.executemany(
            "INSERT INTO near_hashes (hash, algorithm, views) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING",
            ((value, algorithm, views) for value, views in compared),
        )
        db.executemany(
            "INSERT INTO near_pairs (one, other, distance, view, flipped, inside) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (one, other) DO NOTHING",
            ((p.one, p.other, p.distance, p.view, p.flipped, p.inside) for p in pairs),
        )


def known_relations(db: Database, algorithm: str) -> dict[tuple[str, str], tuple[str, float, str, str]]:
    """Returns (keeper's content, other content) -> (kind or '', distance, reason, why it must stay)."""
    return {
        (row["keeper"], row["other"]): (row["kind"], row["distance"], row["reason"], row["blocked"])
        for row in db.rows(
            "SELECT keeper, other, kind, distance, reason, blocked FROM relations WHERE algorithm = ?", (algorithm,)
        )
    }


def remember_relations(db: Database, algorithm: str, found: dict[tuple[str, str], tuple[str, float, str, str]]) -> None:
    """Writes how pairs of contents were judged, so that no pair is judged twice."""
    if not found:
        return
    with db.transaction():
        db.execute("DELETE FROM relations WHERE algorithm <> ?", (algorithm,))
        db.executemany(
            "INSERT INTO relations (keeper, other, algorithm, kind, distance, reason, blocked)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (keeper, other) DO NOTHING",
            ((keeper, other, algorithm, *relation) for (keeper, other), relation in found.items()),
        )


def known_apart(db: Database) -> set[frozenset[str]]:
    """Returns the pairs of contents that a person has said are no repeats of each other."""
    return set(map(frozenset, db.rows("SELECT one, other FROM not_repeats")))


def set_apart(db: Database, run_id: int, pairs: Iterable[tuple[str, str]], now: str) -> None:
    """Remembers that pairs of contents are no repeats."""
    with db.transaction():
        db.executemany(
            "INSERT INTO not_repeats (one, other, run_id, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            ((min(pair), max(pair), run_id, now) for pair in pairs),
        )


def forget_apart(db: Database, run_id: int) -> None:
    if db.value("SELECT 1 FROM not_repeats WHERE run_id = ? LIMIT 1", (run_id,)):
        with db.transaction():
            db.execute("DELETE FROM not_repeats WHERE run_id = ?", (run_id,))
