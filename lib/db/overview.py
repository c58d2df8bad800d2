"""The workspace at a glance: how far each step got, what is due, and the datasets that were made.

Asked at the end of every run, so nothing here reads more than one narrow pass over a table.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from lib import STEP_FILES
from lib.db.connection import Database
from lib.db.journal import MANIFEST, WORDS, is_at_work
from lib.errors import EXIT_BLOCKED, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE

STEPS = tuple(STEP_FILES)
NEVER, DONE, WAITING, UNDONE = "never run", "done", "waiting", "taken back"
RUNNING, INTERRUPTED, FAILED, HELD = "running", "interrupted", "failed", "stopped by the site"


@dataclass(frozen=True)
class StepState:
    """One of the seven steps, and how far it got.

    state   one of the words above
    due     what a run of it would take up: queries, answers, pictures
    at      when it reached what stands now, UTC; empty where it never ran. A run that changed nothing moves it not.
    counts  what it has brought so far, in the database as it stands
    what    the mode or criterion of its last run, for the steps that have one
    words   of the command line: of the last run where it broke off, of the last whole one where something is due
    """

    step: str
    state: str = NEVER
    due: int = 0
    at: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    what: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetRow:
    """An export in force: its manifest as `Workspace.to_text` writes it, and when it was put in its place."""

    manifest: str
    at: str


@dataclass(frozen=True)
class Overview:
    """`results` as the engines know them, so that a picture of two engines is two; files are distinct contents."""

    steps: tuple[StepState, ...]
    datasets: tuple[DatasetRow, ...]
    results: int
    files: int
    quarantined: int


def overview(db: Database) -> Overview:
    """Reads the state of all steps."""
    pictures = int(db.value("SELECT count(*) FROM images"))
    files: dict[str, int] = db.mapping("SELECT state, count(*) FROM files GROUP BY state")
    downloads: dict[str, int] = db.mapping("SELECT state, count(*) FROM downloads GROUP BY state")
    last = {step: _last_run(db, step) for step in STEPS}
    changed = _changes(db)
    counts = _counts(db, pictures, files, downloads)
    due = {
        "collect": int(db.value("SELECT count(*) FROM queries WHERE state IN ('pending', 'running')")),
        "ingest": int(db.value("SELECT count(*) FROM responses WHERE ingest_state = 'pending'")),
        "download": pictures - sum(number for state, number in downloads.items() if state != "pending"),
        "dedup": _files_since(db, "dedup", changed["file"]),
        "sort": _files_since(db, "sort", changed["file"]),
    }
    states = tuple(
        _state(db, step, last[step], due.get(step, 0), changed[step], counts.get(step, {})) for step in STEPS
    )
    return Overview(states, _datasets(db), pictures, files.get("present", 0), files.get("quarantined", 0))


@dataclass(frozen=True)
class _Run:
    id: int
    state: str
    ended: str
    what: str
    words: tuple[str, ...]


def _last_run(db: Database, step: str) -> _Run | None:
    """The newest run of a step that was not refused: a wrong command changes nothing."""
    row = db.row(
        "SELECT id, started_at, finished_at, exit_code, host, pid, json_extract(arguments, '$.undo') AS undo,"
        " coalesce(json_extract(arguments, '$.mode'), '') AS mode,"
        " coalesce(json_extract(arguments, '$.criterion'), '') AS criterion,"
        f" coalesce(json_extract(arguments, '$.{WORDS}'), '[]') AS words"
        f" FROM runs WHERE step = ? AND exit_code IS NOT {EXIT_USAGE} ORDER BY id DESC LIMIT 1",
        (step,),
    )
    if row is None:
        return None
    code = row["exit_code"]
    if code is None:
        state = RUNNING if is_at_work(row["host"], row["pid"]) else INTERRUPTED
    else:
        undone = UNDONE if row["undo"] else DONE
        state = {EXIT_INTERRUPTED: INTERRUPTED, EXIT_FAILED: FAILED, EXIT_BLOCKED: HELD}.get(code, undone)
    what = str(row["criterion"] or (row["mode"] if step == "dedup" else ""))
    return _Run(int(row["id"]), state, row["finished_at"] or row["started_at"], what, tuple(json.loads(row["words"])))


def _state(db: Database, step: str, last: _Run | None, due: int, changed: str, counts: Mapping[str, int]) -> StepState:
    if last is None:
        return StepState(step, NEVER, due, counts=counts)
    if last.state not in (DONE, UNDONE):
        return StepState(step, last.state, due, last.ended, counts, last.what, last.words)
    # The first run that ended after the last change: later ones changed nothing.
    first = db.value(
        "SELECT min(finished_at) FROM runs WHERE step = ? AND finished_at >= ? AND exit_code NOT IN (?, ?)",
        (step, changed, EXIT_USAGE, EXIT_FAILED),
    )
    state, what, words = last.state, last.what, ()
    if due and last.state == DONE:
        state = WAITING
        if step in _LOOKS_AT_FILES and (whole := _whole_run(db, step)):
            what, words = whole["what"], tuple(json.loads(whole["words"]))
    return StepState(step, state, due, first or last.ended, counts, what, words)


def _changes(db: Database) -> dict[str, str]:
    """The last change of what each step works on or has made, and of `file`, UTC; empty where there is nothing."""
    queries = str(db.value("SELECT max(updated_at) FROM queries WHERE kind <> 'import'") or "")
    pictures = str(db.value("SELECT first_seen_at FROM images ORDER BY id DESC LIMIT 1") or "")
    downloads = str(db.value("SELECT max(updated_at) FROM downloads WHERE state <> 'pending'") or "")
    # Of each run its last entry, since all of them would be as many as there are files; and what was taken back since.
    made: dict[str, str] = db.mapping(
        "SELECT step, max(at) FROM (SELECT step, (SELECT finished_at FROM actions WHERE run_id = runs.id"
        " ORDER BY id DESC LIMIT 1) AS at FROM runs UNION ALL SELECT step, actions.finished_at FROM actions"
        " JOIN runs ON runs.id = actions.run_id WHERE actions.state = 'undone') GROUP BY step"
    )
    found = {"collect": queries, "ingest": pictures, "report": max(pictures, downloads), "download": downloads}
    files = str(db.value("SELECT max(added_at) FROM files") or "")
    found |= {"cleanup": pictures, "dedup": files, "sort": files}
    return {"file": files, **{step: max(found[step], made.get(step) or "") for step in STEPS}}


# What `arguments` hold of a run that looked at all files of the workspace, and of none else.
_NONE_OF = ("undo", "decisions", "apply", "purge", "restore[0]", "folders[0]")
_LOOKS_AT_FILES = {"dedup": "mode", "sort": "criterion"}  # with the argument that says how


def _whole_run(db: Database, step: str) -> sqlite3.Row | None:
    """The newest run of a step that looked at all files: its `began`, `what` and `words`."""
    none = " AND ".join(f"json_extract(arguments, '$.{name}') IS NULL" for name in _NONE_OF)
    return db.row(
        f"SELECT started_at AS began, coalesce(json_extract(arguments, '$.{_LOOKS_AT_FILES[step]}'), '') AS what,"
        f" coalesce(json_extract(arguments, '$.{WORDS}'), '[]') AS words FROM runs"
        f" WHERE step = ? AND exit_code IN (0, 3) AND {none}"
        " AND coalesce(json_extract(arguments, '$.criterion'), '') <> 'export' ORDER BY id DESC LIMIT 1",
        (step,),
    )


def _files_since(db: Database, step: str, newest: str) -> int:
    """Files that came after the last whole run of a step had begun; 0 where there is no such run."""
    run = _whole_run(db, step)
    if run is None or newest <= run["began"]:
        return 0
    return int(db.value("SELECT count(*) FROM files WHERE state = 'present' AND added_at > ?", (run["began"],)))


def _counts(
    db: Database, pictures: int, files: Mapping[str, int], downloads: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Counts of each step's results in the database, by words that are counted: `picture`, `page`."""
    searches, pages, results = db.execute(
        "SELECT (SELECT count(*) FROM queries WHERE kind <> 'import'), count(*), coalesce(sum(items), 0)"
        " FROM responses WHERE outcome = 'ok'"
    ).fetchone()
    domains = db.value("SELECT count(DISTINCT registrable_domain) FROM images WHERE registrable_domain <> ''")
    rows = "SELECT count(*) FROM actions WHERE state = 'done' AND kind = ? AND run_id IN"
    taken = {
        step: int(db.value(f"{rows} (SELECT id FROM runs WHERE step = ?)", (kind, step)))
        for step, kind in (("cleanup", "remove_row"), ("dedup", "move"))
    }
    unsettled = ("failed", "blocked", "opted_out")
    criteria = db.value(
        "SELECT count(DISTINCT json_extract(arguments, '$.criterion')) FROM runs WHERE step = 'sort' AND exit_code = 0"
        " AND json_extract(arguments, '$.undo') IS NULL AND json_extract(arguments, '$.criterion') <> 'export'"
        " AND id NOT IN (SELECT run_id FROM actions WHERE state = 'undone')"
    )
    return {
        "collect": {"search": int(searches), "page": int(pages), "result": int(results)},
        "ingest": {"different result": pictures},
        "report": {"domain": int(domains)},
        "cleanup": {"row taken out": taken["cleanup"]},
        "download": {
            "file": files.get("present", 0) + files.get("quarantined", 0),
            "picture not fetched": sum(downloads.get(state, 0) for state in unsettled),
        },
        "dedup": {"file in quarantine": taken["dedup"]},
        "sort": {"criterion": int(criteria)},
    }


def _datasets(db: Database) -> tuple[DatasetRow, ...]:
    """The exports in force, newest first."""
    rows = db.rows(
        "SELECT made.target, max(made.finished_at) AS at FROM (SELECT DISTINCT run_id, target FROM actions"
        " INDEXED BY actions_of_datasets WHERE reason = 'building') AS begun"
        " CROSS JOIN actions AS made ON made.run_id = begun.run_id AND made.target = begun.target || '/' || ?"
        " AND made.kind = 'write' AND made.state = 'done' GROUP BY made.target ORDER BY at DESC, made.target",
        (MANIFEST,),
    )
    return tuple(DatasetRow(row["target"], row["at"] or "") for row in rows)


def sample_files(db: Database, most: int) -> list[tuple[str, str]]:
    """(content, path) of a few present files: by their digests, so by chance, and the same from run to run."""
    sql = "SELECT sha256, path FROM files WHERE +state = 'present' ORDER BY sha256 LIMIT ?"  # by the key's index
    return [(row["sha256"], row["path"]) for row in db.rows(sql, (most,))]
