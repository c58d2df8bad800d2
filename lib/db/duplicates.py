"""The `duplicates` table: which file repeats which, as each run of step 6 found it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

from lib.db.connection import Database


@dataclass(frozen=True)
class DuplicateRow:
    """One file of a group that is not the group's keeper. Paths are as `Workspace.to_text` writes them."""

    path: str
    sha256: str
    group_no: int
    keeper_path: str
    keeper_sha256: str
    kind: str
    distance: float
    decision: str
    reason: str


def record_duplicates(db: Database, run_id: int, rows: Iterable[DuplicateRow]) -> int:
    """Writes what a run found and gives the number of rows that are new.

    A finding that takes nothing away and stands already under an earlier run is not written again: running the step
    twice on the same pictures changes nothing.
    """
    new = 0
    with db.transaction():
        for row in rows:
            if row.decision != "remove" and _is_known(db, row):
                continue
            db.execute(
                "INSERT INTO duplicates (run_id, path, sha256, group_no, keeper_path, keeper_sha256, kind, distance,"
                " decision, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, *astuple(row)),
            )
            new += 1
    return new


def _is_known(db: Database, row: DuplicateRow) -> bool:
    return bool(
        db.value(
            "SELECT 1 FROM duplicates WHERE sha256 = ? AND path = ? AND keeper_path = ? AND keeper_sha256 = ?"
            " AND kind = ? AND decision = ? AND reason = ? LIMIT 1",
            (row.sha256, row.path, row.keeper_path, row.keeper_sha256, row.kind, row.decision, row.reason),
        )
    )


def present_file_count(db: Database) -> int:
    """How many files step 5 left for the later steps."""
    return int(db.value("SELECT count(*) FROM files WHERE state = 'present'"))


def page_urls(db: Database, contents: list[str]) -> dict[str, str]:
    """The page that a downloaded content was found on, where it is known."""
    found: dict[str, str] = {}
    for start in range(0, len(contents), 500):
        block = contents[start : start + 500]
        marks = ", ".join("?" * len(block))
        for row in db.rows(
            "SELECT downloads.sha256 AS sha256, min(images.page_url) AS url FROM downloads JOIN images"
            f" ON images.id = downloads.image_id WHERE downloads.sha256 IN ({marks}) AND images.page_url <> ''"
            " GROUP BY downloads.sha256",
            block,
        ):
            found[row["sha256"]] = row["url"]
    return found


def query_picture_paths(db: Database) -> list[str]:
    """Where the query pictures of step 1 lie, as the workspace writes it."""
    rows = db.rows("SELECT DISTINCT image_path FROM queries WHERE kind = 'image' AND image_path <> '' ORDER BY 1")
    return [row["image_path"] for row in rows]


def set_file_state(db: Database, sha256: str, path: str, state: str) -> None:
    """The state of a content that lies (or lay) at a path."""
    db.execute("UPDATE files SET state = ? WHERE sha256 = ? AND path = ?", (state, sha256, path))


def forget_unmoved(db: Database, run_id: int) -> None:
    """Takes out what a run that did not come to its end was to move and has not: the next run finds it again.

    Where it has moved nothing, all that it found goes.
    """
    moved = "SELECT source FROM actions WHERE run_id = ? AND kind = 'move' AND state = 'done'"
    with db.transaction():
        if db.value(f"{moved} LIMIT 1", (run_id,)) is None:
            forget_duplicates(db, run_id)
            return
        db.execute(
            f"DELETE FROM duplicates WHERE run_id = ? AND decision = 'remove' AND path NOT IN ({moved})",
            (run_id, run_id),
        )


def forget_duplicates(db: Database, run_id: int) -> None:
    """Takes out the groups of a run that was undone; its journal stays."""
    with db.transaction():
        db.execute("DELETE FROM duplicates WHERE run_id = ?", (run_id,))


def reported_run(db: Database) -> int | None:
    """The newest run that found repeats which no run before it had found."""
    found = db.value("SELECT max(run_id) FROM duplicates")
    return None if found is None else int(found)
