"""The `runs` table: one row a run of a step."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from lib import __version__
from lib.db.connection import Database
from lib.times import utc_now


def start_run(db: Database, step: str, arguments: dict[str, Any]) -> int:
    """Records that a step begins and gives the run's number."""
    with db.transaction():
        cursor = db.execute(
            "INSERT INTO runs (step, arguments, started_at, version, host, pid) VALUES (?, ?, ?, ?, ?, ?)",
            (
                step,
                json.dumps(arguments, default=str),
                utc_now(),
                __version__,
                socket.gethostname(),
                os.getpid(),
            ),
        )
    return int(cursor.lastrowid or 0)


def finish_run(db: Database, run_id: int, exit_code: int, counts: dict[str, Any]) -> None:
    """Records how a run ended."""
    with db.transaction():
        db.execute(
            "UPDATE runs SET finished_at = ?, exit_code = ?, counts = ? WHERE id = ?",
            (utc_now(), exit_code, json.dumps(counts, default=str), run_id),
        )


def latest_run_with_actions(db: Database, step: str) -> int | None:
    """The newest run of a step that did something which has not been undone."""
    found = db.value(
        "SELECT max(runs.id) FROM runs WHERE step = ? AND EXISTS"
        " (SELECT 1 FROM actions WHERE actions.run_id = runs.id AND actions.state = 'done')",
        (step,),
    )
    return None if found is None else int(found)


def run_step(db: Database, run_id: int) -> str | None:
    """Which step a run was of; None where there is no such run."""
    found = db.value("SELECT step FROM runs WHERE id = ?", (run_id,))
    return None if found is None else str(found)
