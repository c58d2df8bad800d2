"""The journal: one row of `runs` a run of a step, one of `actions` for every file moved and every row taken out."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lib import __version__
from lib.db.connection import Database
from lib.db.downloads import OPTED_OUT
from lib.temporary import process_lives
from lib.times import utc_now

_COLUMNS = "id, run_id, kind, state, source, target, sha256, bytes, table_name, payload, reason"

BUILDING = "building"  # the reason of an entry that is no file: a folder in which a dataset is being built
WORDS = "words"  # the name in `arguments` of a run of the words of its command line
MANIFEST = "dataset.json"  # the file that says what a dataset was made of
_BEGUN_DATASETS = f"SELECT run_id FROM actions WHERE state = 'planned' AND kind = 'write' AND reason = '{BUILDING}'"


def start_run(db: Database, step: str, arguments: dict[str, Any]) -> int:
    """Records that a step begins and gives the run's number."""
    with db.transaction():
        cursor = db.execute(
            "INSERT INTO runs (step, arguments, started_at, version, host, pid) VALUES (?, ?, ?, ?, ?, ?)",
            (step, json.dumps(arguments, default=str), utc_now(), __version__, socket.gethostname(), os.getpid()),
        )
    return int(cursor.lastrowid or 0)


def finish_run(db: Database, run_id: int, exit_code: int, counts: dict[str, Any]) -> None:
    with db.transaction():
        db.execute(
            "UPDATE runs SET finished_at = ?, exit_code = ?, counts = ? WHERE id = ?",
            (utc_now(), exit_code, json.dumps(counts, default=str), run_id),
        )


def last_counts(db: Database, step: str) -> dict[str, Any]:
    """The counts of the newest run of a step that has ended; empty where there is none."""
    found = db.value("SELECT counts FROM runs WHERE step = ? AND finished_at IS NOT NULL ORDER BY id DESC", (step,))
    return json.loads(found) if found else {}


def latest_run_with_actions(db: Database, step: str) -> int | None:
    """The newest run of a step that did something which has not been undone."""
    found = db.value(
        "SELECT max(runs.id) FROM runs WHERE step = ? AND EXISTS"
        " (SELECT 1 FROM actions WHERE actions.run_id = runs.id AND actions.state = 'done')",
        (step,),
    )
    return None if found is None else int(found)


def run_step(db: Database, run_id: int) -> str | None:
    found = db.value("SELECT step FROM runs WHERE id = ?", (run_id,))
    return None if found is None else str(found)


def runs_beside(db: Database, step: str) -> tuple[int, str] | None:
    """The number of runs of all other steps, and when the last of them ended; None while one may be at work.

    A killed run never ends; it counts as ended where its process is gone.
    """
    runs = db.rows("SELECT host, pid, finished_at FROM runs WHERE step <> ?", (step,))
    here = socket.gethostname()
    if any(not run["finished_at"] and (run["host"] != here or process_lives(run["pid"])) for run in runs):
        return None
    return len(runs), max((run["finished_at"] or "" for run in runs), default="")


def is_at_work(host: str, pid: int) -> bool:
    """True where the process of a run that has not ended lives on this machine."""
    return host == socket.gethostname() and process_lives(pid)


@dataclass(frozen=True)
class Action:
    """One journal entry. Paths are as `Workspace.to_text` writes them; `bytes` and `sha256` are of the source."""

    kind: str
    source: str = ""
    target: str = ""
    sha256: str = ""
    bytes: int = 0
    table_name: str = ""
    payload: str = "{}"
    reason: str = ""
    id: int = 0
    run_id: int = 0
    state: str = "planned"


@dataclass(frozen=True)
class HeldDataset:
    """A dataset in force that was made with contents whose owners have opted out since.

    `id` is the journal's entry of its building, `place` its folder as `Workspace.to_text` writes it.
    """

    id: int
    run_id: int
    place: str
    contents: frozenset[str]


@dataclass(frozen=True)
class BrokenOff:
    """A run that did not come to its end. `undo` and `purge` are as they were asked for, empty where they were not."""

    id: int
    started_at: str
    undo: str
    purge: str


def insert_actions(db: Database, run_id: int, actions: Iterable[Action], state: str = "planned") -> int:
    """Writes entries in one transaction and gives their number."""
    now, count = utc_now(), 0
    with db.transaction():
        for action in actions:
            db.execute(
                "INSERT INTO actions (run_id, kind, state, source, target, sha256, bytes, table_name, payload, reason,"
                " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(run_id, action.kind, state, action.source, action.target, action.sha256, action.bytes),
                    *(action.table_name, action.payload, action.reason, now),
                ),
            )
            count += 1
    return count


def iter_actions(
    db: Database, run_id: int, state: str, *, newest_first: bool = False, elsewhere: bool = False
) -> Iterator[Action]:
    """The entries of a run in one state, in blocks, so that the state may be changed while reading.

    Those of files at an address (`s3://…`) only with `elsewhere`, and then no others: see `lib.download.superseded`.
    """
    comparison, order, start = ("<", "DESC", 2**63 - 1) if newest_first else (">", "ASC", 0)
    sql = (
        f"SELECT {_COLUMNS} FROM actions WHERE run_id = :run AND state = :state AND (instr(source, '://') > 0) = :away"
        f" AND id {comparison} :last ORDER BY id {order}"
    )
    for row in db.in_blocks(sql, start, run=run_id, state=state, away=elsewhere):
        yield Action(**dict(row))


def neighbour(db: Database, action: Action, *, after: bool) -> Action | None:
    """The entry of the same run right before this one, or right after it."""
    where = "id > ? ORDER BY id" if after else "id < ? ORDER BY id DESC"
    row = db.row(f"SELECT {_COLUMNS} FROM actions WHERE run_id = ? AND {where} LIMIT 1", (action.run_id, action.id))
    return None if row is None else Action(**dict(row))


def places_of_contents(db: Database, run_id: int) -> Iterator[tuple[str, str]]:
    """(content, a place where it lies or lay) of every content that a run handled, as far as any table knows."""
    own = "sha256 IN (SELECT sha256 FROM actions WHERE run_id = ? AND sha256 <> '')"
    rows = db.execute(
        f"SELECT sha256, path FROM files WHERE {own} UNION ALL SELECT sha256, path FROM contents WHERE {own}"
        " UNION ALL SELECT sha256, target FROM actions WHERE state = 'done' AND kind IN ('move', 'copy', 'hardlink')"
        f" AND {own}",
        (run_id,) * 3,
    )
    yield from map(tuple, rows)


def broken_off(db: Database, step: str, before: int = 0) -> BrokenOff | None:
    """The newest run of a step (before run `before`), where it was killed, interrupted or failed."""
    row = db.row(
        "SELECT id, arguments, started_at, exit_code FROM runs WHERE step = ? AND (? = 0 OR id < ?)"
        " ORDER BY id DESC LIMIT 1",
        (step, before, before),
    )
    if row is None or row["exit_code"] == 0:
        return None
    arguments = json.loads(row["arguments"])
    found = (str(arguments.get(name) or "") for name in ("undo", "purge"))
    return BrokenOff(int(row["id"]), row["started_at"], *found)


def taken_back_since(db: Database, step: str, moment: str) -> int | None:
    """The run of a step of which an entry was taken back at or after a moment, the newest one."""
    found = db.value(
        "SELECT actions.run_id FROM actions JOIN runs ON runs.id = actions.run_id WHERE actions.state = 'undone'"
        " AND runs.step = ? AND actions.finished_at >= ? ORDER BY actions.id DESC LIMIT 1",
        (step, moment),
    )
    return None if found is None else int(found)


def set_state(db: Database, ids: Iterable[int], state: str) -> None:
    now = utc_now()
    with db.transaction():
        db.executemany("UPDATE actions SET state = ?, finished_at = ? WHERE id = ?", [(state, now, i) for i in ids])


def count_actions(db: Database, run_id: int, state: str) -> int:
    return int(db.value("SELECT count(*) FROM actions WHERE run_id = ? AND state = ?", (run_id, state)))


def counts_by_reason(db: Database, run_id: int, state: str) -> list[tuple[str, str, int]]:
    """(reason, table, entries) of a run's entries in one state, in the order in which they were written."""
    rows = db.rows(
        "SELECT reason, table_name, count(*) FROM actions WHERE run_id = ? AND state = ?"
        " GROUP BY reason, table_name ORDER BY min(id)",
        (run_id, state),
    )
    return [tuple(row) for row in rows]


def runs_with_planned_actions(db: Database, step: str) -> list[int]:
    """Runs of a step that were killed between planning and finishing, oldest first.

    A run of which a dataset is on its way to its place is left to `lib.sort.export.run`.
    """
    return _runs(db, step, f"actions.state = 'planned' AND runs.id NOT IN ({_BEGUN_DATASETS})")


def runs_with_begun_datasets(db: Database) -> list[int]:
    """Runs that were killed while a dataset was being built or on its way to its place, oldest first."""
    return _runs(db, "sort", f"runs.id IN ({_BEGUN_DATASETS})")


def note_dataset(db: Database, dataset: int, contents: Iterable[str]) -> None:
    """Keeps which contents a dataset is made with; `dataset` is the number of the entry of its building."""
    with db.transaction():
        rows = ((sha256, dataset) for sha256 in contents)
        db.executemany("INSERT OR IGNORE INTO dataset_pictures (sha256, dataset_id) VALUES (?, ?)", rows)


def follow_dataset(db: Database, old: int, new: int, without: Iterable[str]) -> None:
    """Gives a dataset that was made from another one its contents, without some."""
    with db.transaction():
        db.execute(
            "INSERT OR IGNORE INTO dataset_pictures (sha256, dataset_id) SELECT sha256, ? FROM dataset_pictures"
            " WHERE dataset_id = ? AND sha256 NOT IN (SELECT value FROM json_each(?))",
            (new, old, json.dumps(sorted(without))),
        )


def forget_dataset(db: Database, dataset: int, contents: Iterable[str] | None = None) -> None:
    """Forgets contents of a dataset that does not hold them; without any given, all of one that came to nothing."""
    some = "" if contents is None else " AND sha256 IN (SELECT value FROM json_each(?))"
    with db.transaction():
        values = (dataset,) if contents is None else (dataset, json.dumps(sorted(contents)))
        db.execute(f"DELETE FROM dataset_pictures WHERE dataset_id = ?{some}", values)


def datasets_with_opted_out(db: Database) -> list[HeldDataset]:
    """The datasets that hold contents whose owners have opted out since, oldest first.

    A dataset is in force as long as its manifest is neither taken back nor followed by another dataset in its place.
    """
    in_force = (
        "SELECT max(other.id) FROM actions AS other WHERE other.reason = 'building' AND other.target = begun.target"
        " AND EXISTS (SELECT 1 FROM actions AS written WHERE written.run_id = other.run_id AND written.id > other.id"
        f" AND written.kind = 'write' AND written.state = 'done' AND written.target = other.target || '/{MANIFEST}')"
    )
    rows = db.rows(
        "SELECT begun.id, begun.run_id, begun.target, json_group_array(held.sha256) FROM dataset_pictures AS held"
        f" JOIN actions AS begun ON begun.id = held.dataset_id WHERE held.sha256 IN ({OPTED_OUT})"
        f" GROUP BY begun.id HAVING begun.id = ({in_force}) ORDER BY begun.id"
    )
    return [HeldDataset(int(row[0]), int(row[1]), row[2], frozenset(json.loads(row[3]))) for row in rows]


def _runs(db: Database, step: str, where: str) -> list[int]:
    return db.column(
        "SELECT DISTINCT actions.run_id FROM actions JOIN runs ON runs.id = actions.run_id"
        f" WHERE runs.step = ? AND {where} ORDER BY 1",
        (step,),
    )


def quarantined_sources(db: Database, quarantine: str) -> Iterator[str]:
    """The old places of files that any step moved into the quarantine (its name with a closing slash)."""
    sql = (
        "SELECT id, source FROM actions WHERE id > :last AND kind = 'move' AND state = 'done'"
        " AND substr(target, 1, :length) = :below ORDER BY id"
    )
    for row in db.in_blocks(sql, block=2_000, length=len(quarantine), below=quarantine):
        yield row["source"]


def follow_file(db: Database, sha256: str, old: str, new: str, state: str) -> None:
    """The row of a moved file follows it to its new place."""
    db.execute("UPDATE files SET path = ?, state = ? WHERE sha256 = ? AND path = ?", (new, state, sha256, old))


def table_counts(db: Database) -> dict[str, int]:
    """Rows of every table, by the table's name."""
    names = db.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1")
    return {name: int(db.value(f'SELECT count(*) FROM "{name}"')) for (name,) in names}


def has_rows(db: Database, table: str) -> bool:
    """True where a table holds anything at all."""
    return bool(db.value(f'SELECT EXISTS (SELECT 1 FROM "{table}")'))
