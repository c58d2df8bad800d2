"""The `hashes` table: what was computed from a content's pixels, so that no picture is decoded twice.

A row is valid only for the algorithm that made it. Kinds: `phash` (empty value: too flat to hash), `buffers` (what two
pictures are compared by), `pixels` (digest of the pixels), `enlarged from …` (whether it is that content, enlarged) and
`broken` (the reason why the content cannot be decoded).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from lib.db.connection import Database

BLOCK = 500  # below SQLite's oldest limit of 999 parameters


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
    """What is known of the given contents under this very algorithm."""
    found: dict[str, bytes | None] = {}
    for start in range(0, len(contents), BLOCK):
        block = contents[start : start + BLOCK]
        marks = ", ".join("?" * len(block))
        rows = db.rows(
            f"SELECT sha256, value FROM hashes WHERE kind = ? AND bits = ? AND algorithm = ? AND sha256 IN ({marks})",
            (kind, bits, algorithm, *block),
        )
        found.update((row["sha256"], row["value"]) for row in rows)
    return found


def known_flags(db: Database, contents: Sequence[str], prefix: str, algorithm: str) -> dict[tuple[str, str], bool]:
    """(content, kind) -> whether it holds, for every kind that begins so: answers of one bit, as bytes 0 and 1."""
    found: dict[tuple[str, str], bool] = {}
    for start in range(0, len(contents), BLOCK):
        block = contents[start : start + BLOCK]
        rows = db.rows(
            "SELECT sha256, kind, value FROM hashes WHERE bits = 1 AND algorithm = ? AND substr(kind, 1, ?) = ?"
            f" AND sha256 IN ({', '.join('?' * len(block))})",
            (algorithm, len(prefix), prefix, *block),
        )
        found.update(((row["sha256"], row["kind"]), row["value"] == b"\1") for row in rows)
    return found


def remember_hashes(db: Database, rows: Iterable[HashRow]) -> None:
    """Writes values in one transaction; a value of an older algorithm is replaced."""
    with db.transaction():
        db.executemany(
            "INSERT INTO hashes (sha256, kind, bits, value, algorithm) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256, kind, bits) DO UPDATE SET value = excluded.value, algorithm = excluded.algorithm"
            " WHERE algorithm <> excluded.algorithm OR value IS NOT excluded.value",
            [astuple(row) for row in rows],
        )
