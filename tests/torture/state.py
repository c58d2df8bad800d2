"""What a run leaves behind, in a form in which two ends can be compared.

Two runs differ in their times and numbers, and a run that was killed and run again has two numbers instead of one.
Those are taken out; nothing else is. What is left out, and why:

runs            one row a run: there are more of them after a kill
numbers, times  `run_id`, `id`, `group_no`, `…_at`, leases; `quarantine/12/` reads `quarantine/<run>/`
attempts        how often an address was asked: once more after a kill
actions         `dropped` entries: planned, and then not done, by the run that was killed
contents        inodes and times of a cache
reports         a page tells of the run that wrote it; its name is compared, not its bytes
statistics      of a shard tell when it was written; all else in them is compared
step 4's page   is made after the last commit: of a run that was killed in between there may be none, and its rows have
                gone, so that no rerun could make it; the journal has them (`--undo RUN --dry-run`)
backups         one a run that changes the database: only what lies beside them counts
answers         of a picture whose file a killed run had put in place: its row is made from the file, which does not
                know what the server said of it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

NUMBERS = frozenset({"run_id", "id", "dataset_id", "group_no", "lease", "lease_until", "elapsed_ms", "attempts"})
TRIES = re.compile(r'\\"tries\\": ?\d+')
LEFT_OUT = frozenset({"runs", "contents", "written_reports"})
RUN_FOLDER = re.compile(r"(quarantine/)\d+(?:(/export/)\d+)?(?=[-/\"]|$)")
LOCKS = re.compile(r"^\.[a-z]+\.lock$")
STATISTICS = "_stats.json"
CLOCK = ("start_time", "end_time", "duration")
REPORT = re.compile(r"^reports/[^/]+\.(html|json|csv)$")
LOST_PAGE = re.compile(r"- \S*reports/cleanup\.html ")
PICTURES = (".jpg", ".png", ".gif")
DATABASE = ("gleaner.db", "gleaner.db-wal", "gleaner.db-shm")


@dataclass
class State:
    """The rows of every table; everything below the workspace; everything below the user's folders."""

    rows: dict[str, list[str]] = field(default_factory=dict)
    tree: dict[str, str] = field(default_factory=dict)

    def differences(self, other: State, *, tables: Iterable[str] = ()) -> list[str]:
        """How `other` differs from this one, a line each; `tables` are not compared."""
        lines: list[str] = []
        for table in sorted({*self.rows, *other.rows} - {*tables}):
            expected, found = self.rows.get(table, []), other.rows.get(table, [])
            lines += _lines(table, *(_made_from_files(expected, found) if table == "downloads" else (expected, found)))
        here = [f"{name} {what}" for name, what in self.tree.items()]
        lines += _lines("", here, [f"{name} {what}" for name, what in other.tree.items()])
        return [line for line in lines if not LOST_PAGE.match(line)]


def _lines(about: str, expected: list[str], found: list[str]) -> list[str]:
    missing, more = list(expected), []
    for line in found:
        if line in missing:
            missing.remove(line)
        else:
            more.append(line)
    label = f"{about}: " if about else ""
    return [f"- {label}{line}" for line in missing] + [f"+ {label}{line}" for line in more]


def _made_from_files(expected: list[str], found: list[str]) -> tuple[list[str], list[str]]:
    """Rows of downloads in `found` that say nothing of an answer take it over from their like in `expected`."""
    answered = {_without_answer(row): row for row in expected}
    bare = {row for row in found if '"state": "done"' in row and '"http_status": null' in row}
    return expected, [answered.get(_without_answer(row), row) if row in bare else row for row in found]


def _without_answer(row: str) -> str:
    kept = json.loads(row)
    return json.dumps([kept[name] for name in ("image_id", "state", "reason", "kind", "sha256", "variant_id", "bytes")])


def state_of(place: Path, workspace: Path) -> State:
    """The state of `place`, a folder that holds the workspace and the user's folders."""
    return State(_rows(workspace / "gleaner.db"), _tree(place, workspace.relative_to(place).as_posix()))


def contents(place: Path) -> set[str]:
    """The digests of the user's files and of all pictures: what a person would miss. Half files do not count."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files(place)
        if path.suffix in PICTURES or ("ws" not in path.relative_to(place).parts and path.suffix != ".part")
    }


def _files(place: Path) -> Iterable[Path]:
    return (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def _rows(database: Path) -> dict[str, list[str]]:
    if not database.exists():
        return {}
    connection = sqlite3.connect(database, timeout=60)
    connection.row_factory = sqlite3.Row
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: sorted({_text(row) for row in connection.execute(f"SELECT * FROM {table}")})
            if table == "duplicates"  # a killed run and the next may record one pair both
            else sorted(_text(row) for row in connection.execute(f"SELECT * FROM {table}") if not _dropped(table, row))
            for table in tables
            if table not in LEFT_OUT and not table.startswith("sqlite_")
        }
    finally:
        connection.close()


def _dropped(table: str, row: sqlite3.Row) -> bool:
    return table == "actions" and row["state"] == "dropped"


def _text(row: sqlite3.Row) -> str:
    kept = {name: row[name] for name in row.keys() if name not in NUMBERS and not name.endswith("_at")}  # noqa: SIM118
    if str(kept.get("target", "")).endswith(STATISTICS):
        del kept["sha256"], kept["bytes"]
    return TRIES.sub("tries", RUN_FOLDER.sub(r"\1<run>", json.dumps(kept, default=repr, sort_keys=True)))


def _tree(place: Path, workspace: str) -> dict[str, str]:
    names: dict[tuple[int, int], list[str]] = defaultdict(list)
    tree: dict[str, str] = {}
    for folder, folders, files in os.walk(place):
        for entry in (*folders, *files):
            path = os.path.join(folder, entry)
            name = _name(os.path.relpath(path, place), workspace)
            if not name:
                continue
            about = os.lstat(path)
            if stat.S_ISLNK(about.st_mode):
                tree[name] = "-> " + RUN_FOLDER.sub(r"\1<run>", os.readlink(path))
            elif stat.S_ISDIR(about.st_mode):
                tree[name + "/"] = ""
            elif REPORT.match(name.removeprefix(workspace + "/")):
                tree[name] = "a report"
            else:
                tree[name] = hashlib.sha256(_bytes_of(Path(path))).hexdigest()[:16]
                names[about.st_dev, about.st_ino].append(name)
    for shared in names.values():
        if len(shared) > 1:
            for name in shared:
                tree[name] += " = " + " = ".join(sorted(set(shared) - {name}))
    return tree


def _bytes_of(path: Path) -> bytes:
    if not path.name.endswith(STATISTICS):
        return path.read_bytes()
    found = json.loads(path.read_bytes())
    assert {*CLOCK} <= {*found}
    return json.dumps({name: value for name, value in found.items() if name not in CLOCK}).encode()


def _name(name: str, workspace: str) -> str:
    """The name as it is compared; empty for what is left out."""
    within = name.removeprefix(workspace + "/")
    if within != name and (within in DATABASE or LOCKS.match(within)):
        return ""
    if within.startswith("backups/") and not within.rpartition("/")[2].startswith("."):
        return ""
    return RUN_FOLDER.sub(r"\1<run>", name)
