"""The past runs, as a dataset's card tells them: what each was asked for and did, and what was taken back since."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.db.connection import Database

_RECIPE = re.compile(r"([\w.-]+) sha256:([0-9a-f]{64})")  # as a run's arguments name it
INPUTS = "inputs"  # what a run has read from elsewhere, beside its arguments: [[name, digest], ...]


@dataclass(frozen=True)
class PastRun:
    """One run. `finished_at` is empty and `exit_code` None for one that was killed, or that is still at work.

    `done` and `undone` are its entries in the journal; `labels`, `answers` and `downloads` are what the tables still
    hold of it. `undone_by` is the run that took it back, 0 for none.
    """

    id: int
    step: str
    started_at: str
    finished_at: str
    exit_code: int | None
    arguments: dict[str, Any]
    counts: dict[str, Any]
    done: int = 0
    undone: int = 0
    undone_at: str = ""
    undone_by: int = 0
    labels: int = 0
    answers: int = 0
    downloads: int = 0
    inputs: Sequence[tuple[str, str]] = field(default=())


def note_inputs(db: Database, run_id: int, inputs: Sequence[tuple[str, str]]) -> None:
    """Keeps (name, SHA-256) of files that a run has taken in, beside what it has taken in before."""
    with db.transaction():
        text = db.value("SELECT arguments FROM runs WHERE id = ?", (run_id,))
        if text is None:
            return
        arguments = json.loads(text)
        arguments[INPUTS] = [*arguments.get(INPUTS, ()), *map(list, inputs)]
        db.execute("UPDATE runs SET arguments = ? WHERE id = ?", (json.dumps(arguments), run_id))


def past_runs(db: Database, before: int = 0) -> Iterator[PastRun]:
    """Every run before run `before` (0: every run), oldest first."""
    journal = _by_run(
        db,
        "SELECT run_id, total(state = 'done'), total(state = 'undone'),"
        " coalesce(max(CASE state WHEN 'undone' THEN finished_at END), '') FROM actions GROUP BY run_id",
    )
    # Sides of earlier exports are labels too, and change no picture.
    labels = _by_run(db, "SELECT run_id, count(*) FROM labels WHERE criterion <> 'split' GROUP BY run_id")
    answers = _by_run(db, "SELECT run_id, count(*) FROM responses GROUP BY run_id")
    downloads = _by_run(db, "SELECT run_id, count(*) FROM downloads WHERE state = 'done' GROUP BY run_id")
    takers = _undoing(db, {run_id: found for run_id, found in journal.items() if found[1]})
    sql = (
        "SELECT id, step, started_at, finished_at, exit_code, arguments, counts FROM runs WHERE id > :last ORDER BY id"
    )
    for row in db.in_blocks(sql):
        if before and row["id"] >= before:
            return
        done, undone, moment = journal.get(row["id"], (0, 0, ""))
        arguments = _object(row["arguments"])
        held = [int(found.get(row["id"], (0,))[0]) for found in (labels, answers, downloads)]
        yield PastRun(
            id=row["id"],
            step=row["step"],
            started_at=row["started_at"],
            finished_at=row["finished_at"] or "",
            exit_code=row["exit_code"],
            arguments=arguments,
            counts=_object(row["counts"]),
            done=int(done),
            undone=int(undone),
            undone_at=moment,
            undone_by=takers.get(row["id"], 0),
            labels=held[0],
            answers=held[1],
            downloads=held[2],
            inputs=[(str(name), str(digest)) for name, digest in arguments.get(INPUTS, ())],
        )


def recipes_of(db: Database, until: int = 0) -> dict[tuple[str, str], list[int]]:
    """The runs of each recipe, by its name and SHA-256, up to run `until` (0: every run), oldest first."""
    found: dict[tuple[str, str], list[int]] = {}
    rows = db.rows("SELECT id, arguments FROM runs WHERE arguments LIKE '%\"recipe\"%' ORDER BY id")
    for row in rows:
        match = _RECIPE.fullmatch(str(_object(row["arguments"]).get("recipe") or ""))
        if match and not (until and row["id"] > until):
            found.setdefault((match[1], match[2]), []).append(int(row["id"]))
    return found


def _by_run(db: Database, sql: str) -> dict[int, tuple[Any, ...]]:
    return {row[0]: tuple(row)[1:] for row in db.execute(sql) if row[0]}


def _undoing(db: Database, undone: dict[int, tuple[Any, ...]]) -> dict[int, int]:
    """The run that took each of the runs back, or the last of it: one of its step that was at work then.

    That is a run with `--undo`, by number or as the last; else one that brought single files back.
    """
    found: dict[int, int] = {}
    runs = db.rows("SELECT id, step, started_at, finished_at, arguments FROM runs ORDER BY id") if undone else []
    steps = {int(row["id"]): row["step"] for row in runs}
    asked = {int(row["id"]): str(_object(row["arguments"]).get("undo") or "") for row in runs}
    for row in sorted(runs, key=lambda row: (not asked[row["id"]], row["id"])):
        end = row["finished_at"] or "9"  # a killed one may be continued; its last entries are what counts
        taken_back = [
            run_id
            for run_id, (_, _, moment) in undone.items()
            if run_id not in found and run_id < row["id"] and steps.get(run_id) == row["step"]
            and row["started_at"] <= moment <= end and asked[row["id"]] in ("", "last", str(run_id))
        ]  # fmt: skip
        if taken_back and asked[row["id"]]:
            found[max(taken_back)] = int(row["id"])
        else:
            found |= dict.fromkeys(taken_back, int(row["id"]))
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
