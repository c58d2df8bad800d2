"""The files of one run of step 7, in a private temporary database: a million pictures need no memory.

SQLite keeps such a database in its cache and puts it into a temporary file only where it grows; it goes with the run.
It is not the workspace's: a dry run may fill it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lib.db.connection import BLOCK, Database
from lib.db.scores import ScoreRow
from lib.db.where import Condition
from lib.progress import chunked

CACHE_KB = 96_000  # of a million pictures' half a gigabyte; what is looked up out of order must fit

_SCHEMA = """
CREATE TABLE items (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    place TEXT NOT NULL, bucket TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'listed',
    label TEXT NOT NULL DEFAULT '', score REAL, reason TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT '', target TEXT NOT NULL DEFAULT '');
CREATE INDEX items_by_sha256 ON items (sha256);
CREATE TABLE todo (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, missing TEXT NOT NULL,
    runs INTEGER NOT NULL);
CREATE TABLE fresh (
    sha256 TEXT NOT NULL, metric TEXT NOT NULL, value REAL, reason TEXT NOT NULL, detail TEXT NOT NULL, vector BLOB,
    PRIMARY KEY (sha256, metric)) WITHOUT ROWID;
CREATE TABLE names (name INTEGER PRIMARY KEY);
CREATE TABLE placements (
    target TEXT PRIMARY KEY, origin TEXT NOT NULL, sha256 TEXT NOT NULL, kind TEXT NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX placements_by_sha256 ON placements (sha256);
CREATE TABLE away (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE withdrawn (
    place TEXT PRIMARY KEY, target TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    reason TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Item:
    """One file to be sorted. `path` is as `Workspace.to_text` writes it; `place` is where it lies under this criterion
    (`path` where it was not sorted yet), `bucket` the bucket it lies in ('' for none)."""

    id: int
    path: str
    sha256: str
    bytes: int
    place: str
    bucket: str
    label: str
    score: float | None
    reason: str
    kind: str
    target: str


@dataclass(frozen=True)
class Placement:
    """A file that step 7 put somewhere. Paths are as `Workspace.to_text` writes them.

    `origin` is where the file came from when it was first sorted under this criterion; `kind` is how: copy, move,
    hardlink or symlink.
    """

    target: str
    origin: str
    sha256: str
    kind: str

    @property
    def bucket(self) -> str:
        return self.target.split("/")[2]

    @property
    def name(self) -> str:
        return self.target.rpartition("/")[2]


_PLACEMENT = "target, origin, sha256, kind"
_ITEM = "id, path, sha256, bytes, place, bucket, label, score, reason, kind, target"


def temporary() -> Database:
    connection = sqlite3.connect("", isolation_level=None)
    connection.row_factory = sqlite3.Row
    for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KB}"):
        connection.execute(f"PRAGMA {setting}")
    connection.executescript(_SCHEMA)
    # One transaction that never ends: nothing else reads it, and a million small ones would cost more than the work.
    connection.execute("BEGIN")
    return Database(connection, None)


class Worklist:
    """The files of a run, what was measured and decided of them, what lies in `sorted/`, and what is to be done."""

    def __init__(self, db: Database | None = None):
        self.db = db or temporary()

    def add(self, path: str, sha256: str, size: int, place: str = "", bucket: str = "") -> None:
        self.db.execute(
            "INSERT INTO items (path, sha256, bytes, place, bucket) VALUES (?, ?, ?, ?, ?)",
            (path, sha256, size, place or path, bucket),
        )

    def add_unread(self, path: str, reason: str) -> None:
        """A file that could not even be listed."""
        sql = "INSERT INTO items (path, sha256, bytes, place, bucket, state, reason)"
        self.db.execute(f"{sql} VALUES (?, '', 0, ?, '', 'unreadable', ?)", (path, path, reason))

    def select(self, db: Database, where: Condition) -> int:
        """Leaves out contents that the workspace's database does not find by a condition; gives the number of files.

        Raises UsageError where the condition names what is not there.
        """
        left_out = 0
        where.check(db)
        for page in self.contents():
            contents = [sha256 for sha256, _ in page]
            matching = where.matching(db, contents)
            left_out += self.leave_out(sha256 for sha256 in contents if sha256 not in matching)
        return left_out

    def leave_out(self, contents: Iterable[str]) -> int:
        """Leaves out contents; gives the number of files."""
        return self.db.executemany("DELETE FROM items WHERE sha256 = ?", [(sha256,) for sha256 in contents]).rowcount

    def count(self, state: str = "") -> int:
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        return int(self.db.value(f"SELECT count(*) FROM items {where}", values))

    def contents(self) -> Iterator[list[tuple[str, str]]]:
        """Pages of (sha256, place of one file that has it) of what is listed or labelled, each content once."""
        sql = "SELECT sha256, place, min(id) FROM items WHERE sha256 > :last GROUP BY sha256 ORDER BY sha256"
        for rows in chunked(self.db.in_blocks(sql, ""), BLOCK):
            yield [(row["sha256"], row["place"]) for row in rows]

    def items(self, state: str = "labelled") -> Iterator[Item]:
        """The files in a state, in the order in which they were found; rows may be changed meanwhile."""
        return self._paged(state, "")

    def misplaced(self) -> Iterator[Item]:
        """Labelled files that do not lie in their bucket."""
        return self._paged("labelled", "AND label <> bucket")

    def planned(self) -> Iterator[Item]:
        """Files with something to be done."""
        return self._paged("labelled", "AND target <> ''")

    def _paged(self, state: str, condition: str) -> Iterator[Item]:
        # By number, without an index: any other order would be sorted anew for every page.
        sql = f"SELECT {_ITEM} FROM items NOT INDEXED WHERE state = :state {condition} AND id > :last ORDER BY id"
        return (Item(**dict(row)) for row in self.db.in_blocks(sql, state=state))

    def add_todo(self, rows: Iterable[tuple[str, str, str, int]]) -> None:
        """(path on disk, sha256, names of the missing metrics joined by commas, runs that tried already)."""
        self.db.executemany("INSERT OR IGNORE INTO todo (path, sha256, missing, runs) VALUES (?, ?, ?, ?)", rows)

    def missing_sets(self) -> list[tuple[str, int]]:
        """The sets of metrics that are missing somewhere, with the number of contents."""
        return [tuple(row) for row in self.db.rows("SELECT missing, count(*) FROM todo GROUP BY 1 ORDER BY 2 DESC")]

    def todo(self, missing: str) -> Iterator[str]:
        """The paths at which exactly these metrics are missing; those that the fewest runs tried come first."""
        sql = "SELECT id, path FROM todo WHERE missing = :missing AND runs = :runs AND id > :last ORDER BY id"
        for runs in self.db.column("SELECT DISTINCT runs FROM todo ORDER BY 1"):
            yield from (row["path"] for row in self.db.in_blocks(sql, missing=missing, runs=runs))

    def content_at(self, path: str) -> str:
        return str(self.db.value("SELECT sha256 FROM todo WHERE path = ?", (path,)))

    def keep(self, metric: str, rows: Iterable[tuple[ScoreRow, bytes | None]]) -> None:
        """Measures that the workspace's database does not get: a dry run's, and those that may differ next time."""
        self.db.executemany(
            "INSERT OR REPLACE INTO fresh (sha256, metric, value, reason, detail, vector) VALUES (?, ?, ?, ?, ?, ?)",
            [(row.sha256, metric, row.value, row.reason, json.dumps(row.detail), vector) for row, vector in rows],
        )

    def kept(self, metric: str, contents: Sequence[str]) -> dict[str, tuple[ScoreRow, bytes | None]]:
        found = {}
        sql = "SELECT sha256, value, reason, detail, vector FROM fresh WHERE metric = ? AND sha256 IN"
        for row in self.db.rows(f"{sql} (SELECT value FROM json_each(?))", (metric, json.dumps(contents))):
            score = ScoreRow(row["sha256"], row["value"], row["reason"], json.loads(row["detail"]))
            found[row["sha256"]] = (score, row["vector"])
        return found

    def set_labels(self, rows: Iterable[tuple[str, str, float | None, str, str]]) -> None:
        """(state, label, score, reason, sha256) for contents."""
        self.db.executemany(
            "UPDATE items SET state = ?, label = ?, score = ?, reason = ? WHERE sha256 = ? AND state = 'listed'", rows
        )

    def plan_move(self, item: int, kind: str, target: str) -> None:
        self.db.execute("UPDATE items SET kind = ?, target = ? WHERE id = ?", (kind, target, item))

    def buckets(self) -> dict[str, int]:
        sql = "SELECT label, count(*) FROM items WHERE state = 'labelled' GROUP BY 1 ORDER BY 1"
        return self.db.mapping(sql)

    def labels(self, contents: Sequence[str]) -> dict[str, str]:
        sql = "SELECT sha256, label FROM items WHERE state = 'labelled' AND sha256 IN (SELECT value FROM json_each(?))"
        return self.db.mapping(sql, (json.dumps(contents),))

    def plan_size(self) -> tuple[int, int]:
        """(all planned actions, those of files that are sorted already and change their bucket)."""
        row = self.db.row("SELECT count(*), coalesce(sum(bucket <> ''), 0) FROM items WHERE target <> ''")
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def reasons(self, state: str) -> Iterator[tuple[str, str, float | None]]:
        """(place, reason, score) of files in a state, by place."""
        sql = "SELECT place, reason, score FROM items WHERE state = ? ORDER BY place"
        yield from map(tuple, self.db.execute(sql, (state,)))

    def removals(self) -> Iterator[sqlite3.Row]:
        """(place, target, sha256, bytes, reason) of files that are taken out again, by place."""
        sql = "SELECT place, target, sha256, bytes, reason FROM withdrawn WHERE place > :last ORDER BY place"
        return self.db.in_blocks(sql, "")

    def count_removals(self) -> int:
        return int(self.db.value("SELECT count(*) FROM withdrawn"))

    def has_path(self, path: str) -> bool:
        return self.db.row("SELECT 1 FROM items WHERE path = ? LIMIT 1", (path,)) is not None

    def places(self, contents: Sequence[str], *, as_planned: bool = True) -> dict[str, str]:
        """The place of one file of each content now, or when the plan has been carried out."""
        place = "iif(target = '', place, target)" if as_planned else "place"
        sql = f"SELECT {place} AS place FROM items WHERE sha256 = ? ORDER BY id LIMIT 1"
        found = {sha256: self.db.value(sql, (sha256,)) for sha256 in contents}
        return {sha256: str(place) for sha256, place in found.items() if place}

    def add_placement(self, placement: Placement) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO placements (target, origin, sha256, kind) VALUES (?, ?, ?, ?)",
            (placement.target, placement.origin, placement.sha256, placement.kind),
        )

    def remove_placement(self, target: str) -> None:
        self.db.execute("DELETE FROM placements WHERE target = ?", (target,))

    def claim_placement(self, target: str) -> None:
        """Notes that a file of this run lies there."""
        self.db.execute("UPDATE placements SET taken = 1 WHERE target = ?", (target,))

    def placement_at(self, target: str) -> Placement | None:
        row = self.db.row(f"SELECT {_PLACEMENT} FROM placements WHERE target = ?", (target,))
        return Placement(**dict(row)) if row else None

    def unclaimed_of(self, sha256: str) -> list[Placement]:
        """The placements of a content that no file of this run has claimed."""
        sql = f"SELECT {_PLACEMENT} FROM placements WHERE sha256 = ? AND taken = 0 ORDER BY target"
        return [Placement(**dict(row)) for row in self.db.rows(sql, (sha256,))]

    def placements(self, below: str = "", *, unclaimed: bool = False) -> Iterator[Placement]:
        """By target: those below a folder (with its closing slash), or all."""
        condition = "AND taken = 0" if unclaimed else ""
        end = below[:-1] + chr(ord(below[-1]) + 1) if below else "\U0010ffff"
        sql = f"SELECT {_PLACEMENT} FROM placements WHERE target > :last AND target < :end {condition} ORDER BY target"
        return (Placement(**dict(row)) for row in self.db.in_blocks(sql, below, end=end))

    def staying(self) -> Iterator[Placement]:
        """By target: what no file of this run stands for and the plan does not take out."""
        own = "SELECT place FROM items WHERE state = 'labelled' UNION ALL SELECT place FROM withdrawn"
        sql = f"SELECT {_PLACEMENT} FROM placements WHERE target > :last AND target NOT IN ({own}) ORDER BY target"
        return (Placement(**dict(row)) for row in self.db.in_blocks(sql, ""))

    def placements_digest(self) -> str:
        """One number for all placements."""
        digest = hashlib.sha256()
        for row in self.db.execute("SELECT target, origin, sha256, kind FROM placements ORDER BY target"):
            digest.update("\0".join(row).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def note_away(self, paths: Iterable[str]) -> None:
        """Remembers which paths' files are in the quarantine; from now on files of the run are found by path, too."""
        self.db.execute("CREATE INDEX IF NOT EXISTS items_by_path ON items (path)")
        self.db.executemany("INSERT OR IGNORE INTO away (path) VALUES (?)", ((path,) for path in paths))

    def is_away(self, path: str) -> bool:
        return self.db.row("SELECT 1 FROM away WHERE path = ?", (path,)) is not None

    def add_removal(self, placement: Placement, target: str, size: int, reason: str) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO withdrawn (place, target, sha256, bytes, reason) VALUES (?, ?, ?, ?, ?)",
            (placement.target, target, placement.sha256, size, reason),
        )


class TakenNames(set[str]):
    """The names that the run has given, a set that lies in the temporary database.

    A name is kept as 64 bits, a tenth of its room. Two names with one number cost the second a needless `_2`.
    """

    def __init__(self, db: Database):
        super().__init__()
        self.db = db

    def __contains__(self, name: object) -> bool:
        return self.db.row("SELECT 1 FROM names WHERE name = ?", (_number(str(name)),)) is not None

    def add(self, name: str) -> None:
        self.db.execute("INSERT OR IGNORE INTO names (name) VALUES (?)", (_number(name),))


def _number(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
