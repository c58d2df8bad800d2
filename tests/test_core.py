"""The shared core: settings, the database and its migrations, the journal with undo, the command line's edge."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import ROOT, as_rows, snapshot

from lib import cli
from lib.cli.settings import apply_settings
from lib.db import Context, open_database, open_for_preview
from lib.db.files import FileRow, add_file
from lib.db.journal import Action, count_actions, start_run
from lib.db.schema import migrate, schema_version, statements
from lib.errors import GleanerError, UsageError
from lib.files.pictures import find_files
from lib.journal import files as journal
from lib.journal.moves import free_target, move_without_overwriting
from lib.workspace import Workspace


def parsed(tmp_path: Path, toml: str, environment: dict[str, str], argv: list[str], monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gleaner.toml").write_text(toml, encoding="utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = cli.parser("Try.", "download")
    cli.add_workers(made, default=1)
    cli.add_dry_run(made)
    made.add_argument("--stage", choices=("thumbs", "originals"), default="thumbs")
    return cli.parse(made, ["--workspace", str(tmp_path), *argv])


PRECEDENCE = [
    ("", {}, [], 1),
    ("workers = 2", {}, [], 2),
    ("workers = 2\n[download]\nworkers = 3", {}, [], 3),
    ("[download]\nworkers = 3\n[sort]\nworkers = 9", {"GLEANER_WORKERS": "4"}, [], 4),
    ("[download]\nworkers = 3", {"GLEANER_WORKERS": "4"}, ["--workers", "5"], 5),
]


@pytest.mark.parametrize(("toml", "environment", "argv", "expected"), PRECEDENCE)
def test_flag_beats_environment_beats_file_beats_default(tmp_path, toml, environment, argv, expected, monkeypatch):
    assert parsed(tmp_path, toml, environment, argv, monkeypatch).workers == expected


BAD_SETTINGS = [
    ("workers = 'many'", {}, "is not a whole number"),
    ("[download]\nwrokers = 3", {}, "has no such option"),
    ("[download]\napi-key = 'x'", {}, "environment"),
    ("stage = 'burn'", {}, "one of thumbs, originals"),
    ("workers = ", {}, "cannot be read"),
    ("password = 'x'", {}, "looks like a secret"),
    ("[download]\nproxy = 'http://me:word@proxy.example'", {}, "looks like a secret"),
    ("[downlod]\nworkers = 2", {}, "which is no step"),
    ("", {"GLEANER_DRY_RUN": "perhaps"}, "true or false"),
]


@pytest.mark.parametrize(("toml", "environment", "reason"), BAD_SETTINGS)
def test_a_bad_setting_is_named_with_its_place(tmp_path, toml, environment, reason, monkeypatch):
    with pytest.raises(UsageError, match=reason):
        parsed(tmp_path, toml, environment, [], monkeypatch)


def test_switches_can_be_set_from_file_and_environment(tmp_path, monkeypatch):
    assert parsed(tmp_path, "dry-run = true", {}, [], monkeypatch).dry_run is True
    assert parsed(tmp_path, "dry-run = true", {"GLEANER_DRY_RUN": "0"}, [], monkeypatch).dry_run is False


def test_underscores_and_lists_are_understood(tmp_path, monkeypatch):
    (tmp_path / "gleaner.toml").write_text("[dedup]\nnear_query = 4\nprotect = ['a', 'b']\n", encoding="utf-8")
    made = cli.parser("Try.", "dedup")
    made.add_argument("--near-query", type=cli.whole, default=5)
    made.add_argument("--protect", type=Path, action="append", default=[])
    parsed_args = cli.parse(made, ["--workspace", str(tmp_path)])
    assert (parsed_args.near_query, parsed_args.protect) == (4, [Path("a"), Path("b")])
    monkeypatch.setenv("GLEANER_PROTECT", "c")
    assert cli.parse(made, ["--workspace", str(tmp_path)]).protect == [Path("c")]


def test_the_environment_names_the_workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("GLEANER_WORKSPACE", str(tmp_path / "there"))
    assert cli.parse(cli.parser("Try.", "report"), []).workspace == tmp_path / "there"


def test_undo_is_never_taken_from_a_settings_file(tmp_path):
    made = cli.parser("Try.", "dedup")
    cli.add_undo(made)
    with pytest.raises(UsageError, match="give --undo on the command line"):
        apply_settings(made, "dedup", {"dedup": {"undo": "last"}}, {}, tmp_path / "gleaner.toml")


def test_a_new_database_is_in_wal_mode_with_foreign_keys(tmp_path):
    with open_database(tmp_path / "gleaner.db") as db:
        assert db.value("PRAGMA journal_mode") == "wal"
        assert db.value("PRAGMA foreign_keys") == 1
        assert db.value("PRAGMA user_version") == schema_version()
        assert db.rows("PRAGMA foreign_key_check") == []


def test_a_migration_and_its_number_are_one_transaction(tmp_path, monkeypatch):
    path = tmp_path / "m999_broken.sql"
    path.write_text(
        "CREATE TABLE half (id INTEGER) STRICT;\nCREATE TABLE half (id INTEGER) STRICT;\n", encoding="utf-8"
    )
    monkeypatch.setattr("lib.db.schema.migrations", lambda: [(999, path)])
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 0
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0


def test_statements_are_split_where_sqlite_says_they_end():
    script = "CREATE TABLE a (b TEXT DEFAULT ';');\n-- a ; in a comment\nCREATE INDEX c\nON a (b);\n"
    assert len(list(statements(script))) == 2


def test_a_transaction_leaves_nothing_behind_when_it_fails(tmp_path):
    with open_database(tmp_path / "gleaner.db") as db:
        with pytest.raises(RuntimeError), db.transaction():
            start_run(db, "ingest", {})
            raise RuntimeError("in between")
        assert db.value("SELECT count(*) FROM runs") == 0


STRANGE_DATABASES = [
    (
        b"this is text, and long enough to be taken for a header of a database file" * 20,
        "damaged or no SQLite",
    ),
    (b"", None),
]


@pytest.mark.parametrize(("content", "reason"), STRANGE_DATABASES)
def test_a_file_that_is_no_database_is_one_sentence(tmp_path, content, reason):
    path = tmp_path / "gleaner.db"
    path.write_bytes(content)
    if reason is None:
        open_database(path).close()  # an empty file is a new database
        return
    with pytest.raises(GleanerError, match=reason):
        open_database(path)
    with pytest.raises(GleanerError, match=reason):
        open_for_preview(path)


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "gleaner.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="some other program"):
        open_database(path)
    assert path.read_bytes() == before


def test_a_newer_database_is_refused(tmp_path):
    with open_database(tmp_path / "gleaner.db") as db:
        db.execute("PRAGMA user_version=999")
    with pytest.raises(GleanerError, match="newer Gleaner"):
        open_database(tmp_path / "gleaner.db")


def test_a_preview_can_write_nothing_and_leaves_no_trace(tmp_path):
    with open_database(tmp_path / "gleaner.db") as db:
        start_run(db, "ingest", {})
    before = snapshot(tmp_path)
    with open_for_preview(tmp_path / "gleaner.db") as db:
        assert db.value("SELECT count(*) FROM runs") == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM runs")
    assert snapshot(tmp_path) == before


def test_a_preview_after_a_kill_leaves_the_log_as_it_is(tmp_path):
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from lib.db import open_database\n"
        "from lib.db.journal import start_run\n"
        "start_run(open_database(Path(sys.argv[1])), 'ingest', {}); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "gleaner.db"), str(ROOT)], check=False)
    before = snapshot(tmp_path)
    assert "gleaner.db-wal" in before
    with open_for_preview(tmp_path / "gleaner.db") as db:
        assert db.value("SELECT count(*) FROM runs") == 1
    after = snapshot(tmp_path)
    # The third file is the log's index in shared memory, which any reader may build anew.
    assert {**after, "gleaner.db-shm": ""} == {**before, "gleaner.db-shm": ""}


def test_a_preview_without_a_database_works_in_memory(tmp_path):
    with open_for_preview(tmp_path / "none" / "gleaner.db") as db:
        assert db.value("SELECT count(*) FROM images") == 0
    assert snapshot(tmp_path) == {}


@pytest.fixture
def moved(tmp_path):
    """A workspace with three files, and the plan that moves them into quarantine."""
    workspace = Workspace(tmp_path)
    names = ["a.txt", "b.txt", "c.txt"]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_text("content of " + name, encoding="utf-8")
    db = open_database(workspace.database)
    run_id = start_run(db, "dedup", {})
    with db.transaction():
        for name in names:
            add_file(db, FileRow(name * 8, f"images/{name}", 16, "txt", 1, 1))
    moves = [
        Action("move", f"images/{name}", f"quarantine/{run_id}/images/{name}", sha256=name * 8, bytes=16)
        for name in names
    ]
    journal.plan(db, run_id, moves)
    yield workspace, db, run_id
    db.close()


def states(db) -> list[str]:
    return [row["state"] for row in db.rows("SELECT state FROM files ORDER BY sha256")]


def test_apply_moves_files_and_their_rows_and_undo_brings_both_back(moved):
    workspace, db, run_id = moved
    before = snapshot(workspace.images)
    assert journal.apply(Context(db, workspace, run_id)) == {"done": 3}
    assert snapshot(workspace.images) == {} and states(db) == ["quarantined"] * 3
    assert journal.undo(Context(db, workspace), run_id) == {"undone": 3}
    assert snapshot(workspace.images) == before and states(db) == ["present"] * 3
    assert not workspace.quarantine.exists()


def test_a_dry_undo_touches_nothing(moved):
    workspace, db, run_id = moved
    journal.apply(Context(db, workspace, run_id))
    before = snapshot(workspace.root / "quarantine")
    assert journal.undo(Context(db, workspace, dry_run=True), run_id) == {"undone": 3}
    assert snapshot(workspace.root / "quarantine") == before and count_actions(db, run_id, "done") == 3


def test_a_check_can_keep_a_file_where_it_is(moved):
    workspace, db, run_id = moved
    counts = journal.apply(
        Context(db, workspace, run_id), check=lambda action: "changed" if "b.txt" in action.source else ""
    )
    assert counts == {"done": 2, "dropped": 1} and (workspace.images / "b.txt").exists()


def test_undo_never_overwrites(moved):
    workspace, db, run_id = moved
    journal.apply(Context(db, workspace, run_id))
    (workspace.images / "a.txt").write_text("somebody else's", encoding="utf-8")
    assert journal.undo(Context(db, workspace), run_id) == {"undone": 2, "occupied": 1}
    assert (workspace.images / "a.txt").read_text(encoding="utf-8") == "somebody else's"
    (workspace.images / "a.txt").unlink()
    assert journal.undo(Context(db, workspace), run_id) == {"undone": 1}


def test_a_move_never_overwrites(moved):
    workspace, db, run_id = moved
    target = workspace.quarantine / str(run_id) / "images" / "b.txt"
    target.parent.mkdir(parents=True)
    target.write_text("already here", encoding="utf-8")
    with pytest.raises(GleanerError, match="appeared while working"):
        journal.apply(Context(db, workspace, run_id))
    assert target.read_text(encoding="utf-8") == "already here" and (workspace.images / "b.txt").exists()


HALF_DONE = [
    ("nothing moved yet", lambda source, target: None, "dropped"),
    ("moved, mark missing", lambda source, target: os.rename(source, target), "done"),
    ("linked, old name not yet removed", lambda source, target: os.link(source, target), "done"),
    ("copied across file systems", lambda source, target: target.write_bytes(source.read_bytes()), "done"),
    ("another file took the name", lambda source, target: target.write_text("other"), "dropped"),
]


@pytest.mark.parametrize(("name", "happen", "expected"), HALF_DONE, ids=[case[0] for case in HALF_DONE])
def test_settle_reads_the_truth_from_the_disk(moved, name, happen, expected):
    workspace, db, run_id = moved
    source, target = workspace.images / "a.txt", workspace.quarantine / str(run_id) / "images" / "a.txt"
    target.parent.mkdir(parents=True)
    happen(source, target)
    assert journal.finish_interrupted(Context(db, workspace), "dedup") == 3
    state = db.value("SELECT state FROM actions ORDER BY id LIMIT 1")
    assert state == expected
    assert source.exists() == (expected == "dropped")
    assert db.value("SELECT state FROM files WHERE path LIKE '%a.txt'") == (
        "present" if expected == "dropped" else "quarantined"
    )


MADE = ["copy", "hardlink", "symlink"]


@pytest.fixture(params=MADE)
def made(request, tmp_path):
    """A workspace in which a run made one copy or link of a file."""
    workspace = Workspace(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.txt").write_text("content", encoding="utf-8")
    with open_database(workspace.database) as db:
        run_id = start_run(db, "sort", {})
        sha256 = hashlib.sha256(b"content").hexdigest()
        journal.plan(db, run_id, [Action(request.param, "images/a.txt", "sorted/high/a.txt", sha256=sha256)])
        assert journal.apply(Context(db, workspace, run_id)) == {"done": 1}
        yield workspace, db, run_id


def test_undo_takes_away_what_a_run_made(made):
    workspace, db, run_id = made
    assert journal.undo(Context(db, workspace), run_id) == {"undone": 1}
    assert not workspace.sorted.exists() and (workspace.images / "a.txt").read_text(encoding="utf-8") == "content"


def test_undo_never_takes_away_what_somebody_changed(made):
    workspace, db, run_id = made
    target = workspace.sorted / "high" / "a.txt"
    target.unlink()
    target.write_text("somebody's work", encoding="utf-8")
    assert journal.undo(Context(db, workspace), run_id) == {"changed": 1}
    assert target.read_text(encoding="utf-8") == "somebody's work"
    target.unlink()
    assert journal.undo(Context(db, workspace), run_id) == {"missing": 1}


def test_a_kill_between_files_loses_nothing(tmp_path):
    """SIGKILL at many instants of a move of 60 files: the union of both places is always complete."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from lib.db import open_database\n"
        "from lib.db import Context\n"
        "from lib.journal import files as journal\n"
        "from lib.workspace import Workspace\n"
        "ws = Workspace(Path(sys.argv[1])); db = open_database(ws.database)\n"
        "print('go', flush=True)\n"
        "journal.apply(Context(db, ws, 1))\n"
    )
    (tmp_path / "images").mkdir()
    names = [f"{n:03}.bin" for n in range(60)]
    for name in names:
        (tmp_path / "images" / name).write_bytes(name.encode() * 1000)
    workspace = Workspace(tmp_path)
    with open_database(workspace.database) as db:
        start_run(db, "dedup", {})
    for delay in range(8):
        with open_database(workspace.database) as db:
            journal.finish_interrupted(Context(db, workspace), "dedup")
            left = sorted(path.name for path in workspace.images.iterdir())
            journal.plan(db, 1, [Action("move", f"images/{n}", f"quarantine/1/images/{n}", sha256=n) for n in left])
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(ROOT)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout and child.stdout.readline() == "go\n"
        try:
            child.wait(timeout=0.002 * delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        there = workspace.quarantine / "1" / "images"
        found = {path.name for folder in (workspace.images, there) if folder.is_dir() for path in folder.iterdir()}
        assert set(names) <= found
    with open_database(workspace.database) as db:
        journal.finish_interrupted(Context(db, workspace), "dedup")
        left = sorted(path.name for path in workspace.images.iterdir())
        journal.plan(db, 1, [Action("move", f"images/{n}", f"quarantine/1/images/{n}", sha256=n) for n in left])
        journal.apply(Context(db, workspace, 1))
        done = {row["source"] for row in db.rows("SELECT source FROM actions WHERE state = 'done'")}
    assert done == {f"images/{name}" for name in names}
    assert all((there / name).read_bytes() == name.encode() * 1000 for name in names)


def test_settle_takes_away_what_a_killed_copy_left(moved):
    workspace, db, run_id = moved
    target = workspace.quarantine / str(run_id) / "images" / "a.txt"
    target.parent.mkdir(parents=True)
    (target.parent / ".a.txt.part").write_bytes(b"half")
    journal.finish_interrupted(Context(db, workspace), "dedup")
    assert list(target.parent.iterdir()) == [] and (workspace.images / "a.txt").exists()


def test_a_second_run_beside_a_living_one_is_refused(tmp_path, capsys):
    def work(session: cli.Session) -> cli.Summary:
        made = cli.parser("Try.", "dedup")
        beside = cli.run(made, ["--workspace", str(tmp_path)], raising(AssertionError()), alone=True)
        return cli.Summary({"beside": beside})

    assert cli.run(cli.parser("Try.", "dedup"), ["--workspace", str(tmp_path)], work, alone=True) == 0
    assert "another run of 6_dedup.py is at work" in capsys.readouterr().err
    assert as_rows(tmp_path / "gleaner.db", "SELECT counts FROM runs") == [('{"beside": 1}',)]


def test_free_target_sees_the_disk_and_the_plan_and_ignores_case(tmp_path):
    (tmp_path / "Photo.jpg").write_bytes(b"x")
    taken: set[str] = set()
    assert free_target(tmp_path / "Photo.jpg", taken).name == "Photo_2.jpg"
    assert free_target(tmp_path / "photo_2.JPG", taken).name == "photo_2_2.JPG"
    assert free_target(tmp_path / "other.jpg", taken).name == "other.jpg"


def test_a_folder_that_may_not_be_read_is_told_of(monkeypatch):
    """Every other user is stopped by mode 000; root has to become somebody else for a moment."""
    usual = Path(tempfile.gettempdir())  # of a run of the tests; its parents may be for root alone
    open_to_all = next((place for place in (usual, *usual.parents) if place.stat().st_mode & 0o7 == 0o7), usual)
    root = Path(tempfile.mkdtemp(prefix="gleaner-", dir=open_to_all))
    try:
        (root / "in").mkdir()
        for name in ("a.jpg", "in/b.jpg"):
            (root / name).write_bytes(b"x")
        root.chmod(0o755)
        (root / "in").chmod(0)
        told: list[tuple[str, int | None]] = []
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            found = [p.name for p, _ in find_files([root], lambda path, error: told.append((path.name, error.errno)))]
        finally:
            os.seteuid(was)
        assert found == ["a.jpg"] and told == [("in", errno.EACCES)]
    finally:
        (root / "in").chmod(0o755)
        shutil.rmtree(root)


def test_moves_work_across_file_systems(tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    source = shm / f"gleaner-test-{os.getpid()}.bin"
    source.write_bytes(b"across")
    try:
        move_without_overwriting(source, tmp_path / "deep" / "down.bin")
        assert (tmp_path / "deep" / "down.bin").read_bytes() == b"across" and not source.exists()
    finally:
        source.unlink(missing_ok=True)


def run_work(tmp_path: Path, work, *argv: str, needs: str = "") -> int:
    made = cli.parser("Try.", "report")
    cli.add_dry_run(made)
    return cli.run(made, ["--workspace", str(tmp_path / "ws"), *argv], work, needs=needs)


def raising(error: BaseException):
    def work(session: cli.Session) -> cli.Summary:
        raise error

    return work


ERRORS = [
    (GleanerError("the thing broke; mend it."), 1, "error: the thing broke; mend it."),
    (UsageError("--top needs --by; add it."), 2, "--top needs --by"),
    (OSError(errno.ENOSPC, "no space", "/x/y"), 1, "no space is left on the device (/x/y); make room"),
    (OSError(errno.EROFS, "ro", "/x"), 1, "/x is read-only"),
    (PermissionError(errno.EACCES, "no", "/x"), 1, "/x may not be read or written"),
    (sqlite3.OperationalError("database or disk is full"), 1, "the disk is full"),
    (sqlite3.OperationalError("attempt to write a readonly database"), 1, "can be written"),
    (sqlite3.DatabaseError("database disk image is malformed"), 1, "put back a copy"),
    (KeyboardInterrupt(), 130, "run the same command to continue"),
]


@pytest.mark.parametrize(("error", "code", "sentence"), ERRORS, ids=[str(case[0])[:30] or "ctrl-c" for case in ERRORS])
def test_an_error_is_one_sentence_and_an_exit_code(tmp_path, capsys, error, code, sentence):
    assert run_work(tmp_path, raising(error)) == code
    shown = capsys.readouterr()
    assert sentence in shown.err and "Traceback" not in shown.err and shown.out == ""
    if code == 2:  # it may be a typing error, which leaves nothing behind
        assert snapshot(tmp_path) == {}
    else:
        assert as_rows(tmp_path / "ws" / "gleaner.db", "SELECT exit_code FROM runs") == [(code,)]


def test_a_bug_is_a_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_work(tmp_path, lambda session: cli.Summary({"x": 1 // 0}))


def test_a_step_run_too_early_names_the_step_to_run_first(tmp_path, capsys):
    assert run_work(tmp_path, raising(AssertionError()), needs="2_ingest_db.py") == 2
    assert "run 2_ingest_db.py first" in capsys.readouterr().err
    assert snapshot(tmp_path) == {}


def test_the_summary_is_the_last_line_and_the_run_is_recorded(tmp_path, capsys):
    work = lambda session: cli.Summary({"files": 1234, "new_pictures": 2}, next="python 4_db_cleanup.py")  # noqa: E731
    assert run_work(tmp_path, work) == 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-2].startswith("report: 1,234 files, 2 new pictures in ")
    assert lines[-1] == f"next: python 4_db_cleanup.py --workspace {tmp_path / 'ws'}"
    rows = as_rows(tmp_path / "ws" / "gleaner.db", "SELECT step, exit_code, counts, finished_at <> '' FROM runs")
    assert rows == [("report", 0, '{"files": 1234, "new_pictures": 2}', 1)]


COUNTS = [
    ({"queries": 1, "new_pictures": 2}, "1 query, 2 new pictures"),
    ({"addresses": 1, "files": 0}, "1 address, 0 files"),
    ({"run": 7, "undone": 3}, "run 7, 3 undone"),
]


@pytest.mark.parametrize(("counts", "shown"), COUNTS)
def test_counts_read_as_people_say_them(tmp_path, capsys, counts, shown):
    assert run_work(tmp_path, lambda session: cli.Summary(counts)) == 0
    assert f"report: {shown} in " in capsys.readouterr().err


def test_json_is_one_object_on_stdout_for_success_and_failure(tmp_path, capsys):
    assert run_work(tmp_path, lambda session: cli.Summary({"files": 3}), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "step": "report",
        "run": 1,
        "dry_run": False,
        "exit_code": 0,
        "counts": {"files": 3},
        "result": {},
    }
    assert run_work(tmp_path, raising(UsageError("no; do this.")), "--json") == 2
    assert json.loads(capsys.readouterr().out) == {
        "step": "report",
        "run": 2,
        "dry_run": False,
        "exit_code": 2,
        "counts": {},
        "result": {"error": "no; do this."},
    }


def test_a_dry_run_leaves_no_trace(tmp_path):
    assert run_work(tmp_path, lambda session: cli.Summary({"files": session.run_id}), "--dry-run") == 0
    assert snapshot(tmp_path) == {}


def test_quiet_says_nothing_when_all_is_well(tmp_path, capsys):
    assert run_work(tmp_path, lambda session: cli.Summary({"files": 3}), "-q") == 0
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""


def test_control_characters_never_reach_the_terminal(tmp_path, capsys):
    assert run_work(tmp_path, raising(GleanerError("title \x1b]0;gotcha\x07 \u202e from a page; look."))) == 1
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown and "\\x1b" in shown


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_once_ends_in_order_and_twice_at_once(tmp_path, presses, capsys):
    reached: list[str] = []

    def work(session: cli.Session) -> cli.Summary:
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)
        assert session.stopping()
        reached.append("end")
        return cli.Summary({"files": 1}, next="python 4_db_cleanup.py")

    assert run_work(tmp_path, work) == 130
    assert reached == (["end"] if presses == 1 else [])
    assert "run the same command to continue" in capsys.readouterr().err
    assert as_rows(tmp_path / "ws" / "gleaner.db", "SELECT exit_code FROM runs") == [(130,)]


def test_a_signal_that_comes_too_late_kills_nothing(tmp_path, monkeypatch):
    """The work is done and recorded; only the interpreter's end is left."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["3_domain_report.py", "--workspace", str(tmp_path)])
    try:
        assert cli.run(cli.parser("Try.", "report"), None, lambda session: cli.Summary({"files": 1})) == 0
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


NUMBERS = [
    (cli.positive, "3", 3),
    (cli.positive, "0", None),
    (cli.positive, "x", None),
    (cli.whole, "-1", None),
    (cli.whole, "9" * 30, None),
    (cli.run_reference, "9" * 30, None),
    (cli.share, "50%", 0.5),
    (cli.share, "0.25", 0.25),
    (cli.share, "120%", None),
    (cli.run_reference, "last", "last"),
    (cli.run_reference, "12", "12"),
    (cli.run_reference, "first", None),
]


@pytest.mark.parametrize(("convert", "text", "expected"), NUMBERS)
def test_converters(convert, text, expected):
    if expected is None:
        with pytest.raises(Exception, match="is"):
            convert(text)
    else:
        assert convert(text) == expected
