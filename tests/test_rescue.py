"""A database that is damaged, foreign, empty or newer: one sentence, nothing changed, and `--restore` brings a copy."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from support import ROOT, STEPS, as_rows, drawing, dump, load_step, snapshot

from lib.db import open_database
from lib.db import soundness as sound
from lib.db.maintenance import finish_replacing, list_backups, make_backup, waiting
from lib.db.schema import schema_version

MODULES = {name: load_step(name) for name in STEPS}
# What each step is for, its previews and what takes back; nothing here asks the network for anything.
JOBS = [
    ("collect", ["--list"]),
    ("collect", ["--drift"]),
    ("ingest", ["--retry-failed"]),
    ("ingest", ["--check"]),
    ("ingest", ["--reparse"]),
    ("ingest", ["--undo", "last"]),
    ("report", []),
    ("report", ["--by", "query"]),
    ("cleanup", []),
    ("cleanup", ["--vacuum"]),
    ("cleanup", ["--reset", "hashes"]),
    ("cleanup", ["--undo", "last"]),
    ("download", ["--dry-run"]),
    ("download", ["--limit", "1"]),
    ("dedup", ["all", "--dry-run"]),
    ("dedup", ["all", "--max-share", "100%", "--workers", "1"]),
    ("dedup", ["--undo", "last"]),
    ("sort", ["orientation", "--workers", "1"]),
    ("sort", ["megapixels", "--dry-run", "--workers", "1"]),
    ("sort", ["export"]),
    ("sort", ["--undo", "last"]),
]
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "60"))


def run(step: str, workspace: Path, *arguments: object) -> int:
    return MODULES[step].main([*map(str, arguments), "--workspace", str(workspace)])


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which most steps have been at work, closed and without a log."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "photos").mkdir()
    for number in range(6):
        drawing(number % 4, 200 + 8 * number, 150).save(folder / "photos" / f"{number}.png")
    shutil.copy(folder / "photos/0.png", folder / "photos/again.png")
    (folder / "urls.txt").write_text("".join(f"http://127.0.0.1:9/{number}.jpg\n" for number in range(40)))
    workspace = folder / "ws"
    assert run("ingest", workspace, "--import", folder / "urls.txt") == 0
    assert run("ingest", workspace, "--import-folder", folder / "photos") == 0
    assert run("download", workspace, "--limit", "3", "--retries", "0") == 0
    assert run("dedup", workspace, "all", "--max-share", "100%", "--workers", "1") == 0
    assert run("sort", workspace, "orientation", "--workers", "1") == 0
    with open_database(workspace / "gleaner.db") as db:
        make_backup(db, workspace / "backups", 5)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for lock in workspace.glob(".*.lock"):
        lock.unlink()
    return workspace


@pytest.fixture
def workspace(used: Path, tmp_path: Path) -> Path:
    shutil.copytree(used, tmp_path / "ws", symlinks=True)
    return tmp_path / "ws"


def flip(chance: random.Random, body: bytearray) -> None:
    for _ in range(chance.choice([1, 3, 20])):
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)


def head(chance: random.Random, body: bytearray) -> None:
    body[chance.randrange(100)] = chance.randrange(256)


def schema(chance: random.Random, body: bytearray) -> None:
    body[chance.randrange(100, 8192)] = chance.randrange(256)


def cut(chance: random.Random, body: bytearray) -> None:
    del body[chance.randrange(len(body)) :]


def junk(chance: random.Random, body: bytearray) -> None:
    at, size = chance.randrange(len(body)), chance.choice([4, 64, 4096, 20_000])
    body[at : at + size] = chance.randbytes(len(body[at : at + size]))


def zeros(chance: random.Random, body: bytearray) -> None:
    at, size = chance.randrange(len(body)), chance.choice([64, 4096])
    body[at : at + size] = bytes(len(body[at : at + size]))


def texts(chance: random.Random, body: bytearray) -> None:
    places = [match.start() for match in re.finditer(rb"[a-z]{5,}", bytes(body)) if match.start() > 40_000]
    for place in chance.sample(places, chance.choice([1, 10])):
        body[place + 2] = chance.choice(b"\xff\xc3\x00\x22\x7b")


DAMAGES = [flip, head, schema, cut, junk, zeros, texts]


def called(step: str, workspace: Path, arguments: list[str]) -> int | str:
    """The exit code, or the end of a traceback."""
    try:
        return run(step, workspace, *arguments)
    except Exception:
        return "".join(traceback.format_exc().splitlines(keepends=True)[-8:])


def without_locks(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(folder).items() if not name.endswith(".lock")}


@pytest.mark.parametrize("part", range(6))
def test_a_damaged_file_ends_in_success_or_a_sentence_with_nothing_changed(
    part: int, used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeded: `FUZZ_ROUNDS=6000 pytest tests/test_rescue.py` tries more."""
    chance = random.Random(f"rescue {part}")
    for number in range(ROUNDS // 6):
        place = tmp_path / "ws"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(used, place, symlinks=True)
        body, hurt, (step, arguments) = (
            bytearray((place / "gleaner.db").read_bytes()),
            *map(chance.choice, (DAMAGES, JOBS)),
        )
        hurt(chance, body)
        (place / "gleaner.db").write_bytes(body)
        before, what = without_locks(place), (part, number, hurt.__name__, step, arguments)
        capsys.readouterr()
        code = called(step, place, arguments)
        said = capsys.readouterr().err
        assert code in (0, 1, 2) and "Traceback" not in said, (what, code, said)
        if code:
            assert said.strip().splitlines()[-1].startswith("error: "), (what, said)
            if "gleaner.db" in said:  # otherwise it is what an undamaged file would be told as well
                assert without_locks(place) == before, (what, said)


@pytest.mark.parametrize("shared", [True, False], ids=["with-shm", "without-shm"])
@pytest.mark.parametrize("target", ["gleaner.db", "gleaner.db-wal"])
def test_a_damaged_file_with_a_log_beside_it(
    target: str, shared: bool, used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run was killed: what it had committed lies in the log. A damaged file is refused with its log untouched."""
    chance, left = random.Random(f"log {target} {shared}"), tmp_path / "left"
    shutil.copytree(used, left, symlinks=True)
    kill_after_writing(left)
    for number in range(ROUNDS // 8):
        place = tmp_path / "ws"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(left, place, symlinks=True)
        if not shared:
            (place / "gleaner.db-shm").unlink()
        body, hurt = bytearray((place / target).read_bytes()), chance.choice(DAMAGES[:-1])
        step, arguments = chance.choice(JOBS)
        hurt(chance, body)
        (place / target).write_bytes(body)
        before, what = without_locks(place), (number, hurt.__name__, step, arguments)
        capsys.readouterr()
        code = called(step, place, arguments)
        said = capsys.readouterr().err
        assert code in (0, 1, 2) and "Traceback" not in said, (what, code, said)
        if code == 1 and "damaged" in said:
            after = without_locks(place)
            assert after.keys() == before.keys(), (what, said)
            before.pop("gleaner.db-shm", None), after.pop("gleaner.db-shm", None)  # an index of the log, no content
            assert after == before, (what, said)


def kill_after_writing(workspace: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path; from lib.db import open_database\n"
        "db = open_database(Path(sys.argv[1]))\n"
        "for number in range(50):\n"
        "    db.execute(\"INSERT INTO runs (step, started_at, version) VALUES ('ingest', '2026-01-01', 'x')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(workspace / "gleaner.db")], cwd=ROOT, check=False)
    assert (workspace / "gleaner.db-wal").stat().st_size > 0


def foreign(path: Path, *, version: int = 0, wal: bool = False, table: str = "recipes (id)") -> None:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"CREATE TABLE {table}")
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()


def test_a_statement_that_sqlite_repeats_does_not_break_the_sentence(workspace: Path, capsys) -> None:
    body = (workspace / "gleaner.db").read_bytes()
    assert body.count(b"CREATE TABLE scores (") == 1
    (workspace / "gleaner.db").write_bytes(body.replace(b"CREATE TABLE scores (", b"CREATE TABLE scores {"))
    for step in STEPS:
        assert run(step, workspace, *{"sort": ["orientation"], "collect": ["--list"]}.get(step, [])) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and "\n" not in said and len(said) < 500, said


def make_unusable(database: Path, kind: str) -> None:
    body = database.read_bytes()
    if kind == "folder":
        database.unlink()
        database.mkdir()
    elif kind == "pipe":
        database.unlink()
        os.mkfifo(database)
    elif kind == "link to nothing":
        database.unlink()
        database.symlink_to(database.with_name("nowhere"))
    elif kind == "newer":
        connection = sqlite3.connect(database)
        connection.execute(f"PRAGMA user_version={schema_version() + 7}")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
    elif kind.startswith("foreign"):
        foreign(database, version=3 if "version" in kind else 0, wal="wal" in kind,
                table="images (id)" if "images" in kind else "recipes (id)")  # fmt: skip
    elif kind == "older number":
        connection = sqlite3.connect(database)
        connection.execute("PRAGMA user_version=1")
        connection.close()
    elif kind == "index":
        hurt_the_index(database)
    else:
        database.write_bytes({
            "empty": b"", "text": b"no database at all " * 800, "cut": body[: len(body) // 2], "head": body[:16],
            "half a page": body[:5000], "garbled schema": body[:100] + b"\xff" * 8000 + body[8100:],
            "garbled": body[:9000] + b"\xa5" * (len(body) - 9000),
        }[kind])  # fmt: skip


def hurt_the_index(database: Path) -> None:
    """An index that says something else than its table: every page in itself is right."""
    connection = sqlite3.connect(database)
    page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_images_1'").fetchone()[
        0
    ]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    body = bytearray(database.read_bytes())
    at = body.index(b"list:", (page - 1) * size)
    body[at + 7] ^= 1
    database.write_bytes(body)


UNUSABLE = [
    *"empty text cut head garbled folder pipe newer foreign index".split(),
    *("half a page", "garbled schema", "link to nothing", "foreign version", "foreign version wal"),
    *("foreign version images", "older number"),
]


REMEDIES = ("--restore last", "--workspace", "update this copy", ".py first")


@pytest.mark.parametrize("kind", UNUSABLE)
def test_every_step_refuses_what_it_cannot_use(kind: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_unusable(workspace / "gleaner.db", kind)
    before = snapshot(workspace) if kind != "pipe" else {}
    for step, preview in itertools.product(STEPS, ([], ["--dry-run"])):
        words = {"sort": ["orientation"], "collect": ["--list"]}.get(step, [])
        capsys.readouterr()
        assert run(step, workspace, *words, *preview) in (1, 2), (step, preview)
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and "\n" not in said, (step, said)
        assert any(remedy in said for remedy in REMEDIES), (step, said)
    if before:
        assert snapshot(workspace) == before


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_restore_works_whatever_is_wrong(kind: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, copy = workspace / "gleaner.db", list_backups(workspace / "backups")[0]
    make_unusable(database, kind)
    hurt = database.read_bytes() if database.is_file() else b""
    before = snapshot(workspace) if kind != "pipe" else {}
    assert run("cleanup", workspace, "--restore", "last", "--dry-run") == 0
    assert kind == "pipe" or snapshot(workspace) == before
    assert run("cleanup", workspace, "--restore", "last") == 0
    assert dump(database) == dump(copy) and sound.find_fault(database, deep=True, texts=True) is None
    assert as_rows(database, "SELECT exit_code FROM runs ORDER BY id DESC LIMIT 1") == [(0,)]
    (aside,) = workspace.glob("gleaner.db.damaged-*")
    if hurt:
        assert aside.read_bytes() == hurt
    assert not waiting(database).exists() and not list(workspace.glob(".*.part"))
    assert run("report", workspace) == 0


def test_last_is_the_newest_backup_that_is_sound(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, (good,) = workspace / "gleaner.db", list_backups(workspace / "backups")
    wanted = dump(good)
    for stamp, kind in (("20300101T000000Z", "garbled"), ("20310101T000000Z", "newer"), ("20320101T000000Z", "empty")):
        bad = good.with_name(f"gleaner-{stamp}.db")
        shutil.copy(good, bad)
        make_unusable(bad, kind)
        assert run("cleanup", workspace, "--restore", bad.name) == 2
        assert "choose another" in capsys.readouterr().err
    before = {path.name: path.read_bytes() for path in good.parent.iterdir()}
    for spoil in (lambda: None, lambda: make_unusable(database, "garbled")):
        spoil()
        assert run("cleanup", workspace, "--restore", "last") == 0
        assert capsys.readouterr().err.count("the next older backup is taken") == 3
        assert dump(database) == wanted
    assert before.items() <= {path.name: path.read_bytes() for path in good.parent.iterdir()}.items()


@pytest.mark.parametrize("kind", ["foreign", "newer", "garbled", "empty", "itself", "pipe"])
def test_a_file_that_is_no_backup_is_refused_over_a_damaged_database_too(
    kind: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.db"
    shutil.copy(workspace / "gleaner.db", bad)
    make_unusable(workspace / "gleaner.db", "garbled")
    if kind == "itself":
        bad = workspace / "gleaner.db"
    else:
        make_unusable(bad, kind)
    before = snapshot(workspace)
    assert run("cleanup", workspace, "--restore", bad) == 2
    assert capsys.readouterr().err.strip().startswith("error: --restore: ")
    assert snapshot(workspace) == before


def test_without_any_sound_backup_nothing_is_moved(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in [workspace / "gleaner.db", *list_backups(workspace / "backups")]:
        make_unusable(path, "garbled")
    before = snapshot(workspace)
    assert run("cleanup", workspace, "--restore", "last") == 2
    assert "none of the 1 backups" in capsys.readouterr().err
    assert snapshot(workspace) == before


def test_the_log_of_a_damaged_file_goes_with_it(workspace: Path) -> None:
    """SQLite would read it into the copy: a log names no file that it belongs to."""
    database, copy = workspace / "gleaner.db", list_backups(workspace / "backups")[0]
    kill_after_writing(workspace)
    log = (workspace / "gleaner.db-wal").read_bytes()
    make_unusable(database, "text")
    assert run("cleanup", workspace, "--restore", "last") == 0
    assert dump(database) == dump(copy)
    (kept,) = workspace.glob("gleaner.db.damaged-*-wal")
    assert kept.read_bytes() == log


def killed_at(call: int, workspace: Path) -> bool:
    """Restores in a child that is killed at its so manyeth operation on the workspace's files; False where it ended."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    calls = itertools.count(1)

    def count(event: str, details: tuple[object, ...]) -> None:
        reads = event == "open" and not int(details[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        counted = ("open", "os.rename", "os.remove", "os.link", "os.chmod", "sqlite3.connect")
        ours = event in counted and not reads and str(workspace) in str(details[0])
        if ours and next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        run("cleanup", workspace, "--restore", "last")
    finally:
        os._exit(0)


@pytest.mark.parametrize("kind", ["garbled", "folder"])
def test_a_restore_that_is_killed_anywhere_ends_when_it_is_run_again(
    kind: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_after_writing(workspace)
    make_unusable(workspace / "gleaner.db", kind)
    database, spare = workspace / "gleaner.db", tmp_path / "spare"
    shutil.copytree(workspace, spare, symlinks=True)
    hurt = (spare / "gleaner.db").read_bytes() if kind == "garbled" else b""
    wanted, log = dump(list_backups(workspace / "backups")[0]), (spare / "gleaner.db-wal").read_bytes()
    for at in itertools.count(1):
        shutil.rmtree(workspace)
        shutil.copytree(spare, workspace, symlinks=True)
        if not killed_at(at, workspace):
            break
        # Any other step finds the unusable file, untouched, or the copy, whole; never a new, empty database.
        capsys.readouterr()
        if run("report", workspace, "--format", "json"):
            assert "--restore last" in capsys.readouterr().err, at
        else:
            assert dump(database) == wanted, at
        assert run("cleanup", workspace, "--restore", "last") == 0, at
        assert dump(database) == wanted, at
        left = [path for path in workspace.iterdir() if ".part" in path.name or path.name.endswith(".restoring")]
        assert not left, (at, left)
        asides = sorted(workspace.glob("gleaner.db.damaged-*"))
        if hurt:
            assert [path for path in asides if path.read_bytes() == hurt], at
        assert [path for path in asides if path.name.endswith("-wal") and path.read_bytes() == log], at
    assert at > 10


@pytest.mark.parametrize("step", STEPS)
def test_every_step_finishes_a_restore_that_was_killed(step: str, workspace: Path, capsys) -> None:
    database = workspace / "gleaner.db"
    os.rename(database, waiting(database))
    wanted, before = dump(waiting(database)), snapshot(workspace)
    words = {"sort": ["orientation"], "collect": ["--list"], "ingest": ["--check"]}.get(step, [])
    words += ["--limit", "1"] if step == "download" else []
    assert run(step, workspace, *words, "--dry-run") == 2
    assert "--restore last" in capsys.readouterr().err and snapshot(workspace) == before
    assert run(step, workspace, *words) == 0
    assert not waiting(database).exists() and dump(database).keys() == wanted.keys()
    assert as_rows(database, "SELECT count(*) > 5 FROM images") == [(1,)]


def test_a_waiting_copy_is_no_matter_while_there_is_a_database(workspace: Path) -> None:
    shutil.copy(workspace / "gleaner.db", waiting(workspace / "gleaner.db"))
    assert finish_replacing(workspace / "gleaner.db") is False


def test_a_new_database_is_whole_or_not_there(tmp_path: Path) -> None:
    """Killed while it is made, it would otherwise be an empty file that no step takes for a database."""
    code = (
        "import os, signal, sys; from pathlib import Path; from lib.db import open_database\n"
        "def stop(event, details):\n"
        "    if event == 'os.link': os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(stop)\n"
        "open_database(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "gleaner.db")], cwd=ROOT, check=False)
    assert not (tmp_path / "gleaner.db").exists() and len(list(tmp_path.iterdir())) == 1
    with open_database(tmp_path / "gleaner.db") as db:
        assert db.value("PRAGMA user_version") == schema_version()
    assert [path.name for path in tmp_path.iterdir()] == ["gleaner.db"]


def test_a_bug_in_a_sound_database_stays_a_traceback(workspace: Path) -> None:
    from lib import cli

    def work(session: cli.Session) -> cli.Summary:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        cli.run(cli.parser("Try.", "report"), ["--workspace", str(workspace)], work)


def test_an_older_schema_is_ours_and_another_mix_is_not(tmp_path: Path) -> None:
    from lib.db.schema import migrate

    for version in range(1, schema_version() + 1):
        path = tmp_path / f"{version}.db"
        connection = sqlite3.connect(path, isolation_level=None)
        migrate(connection, version)
        connection.close()
        assert sound.find_fault(path, deep=True, texts=True) is None
        with open_database(path) as db:
            assert db.value("PRAGMA user_version") == schema_version()


def test_files_are_for_their_owner_only(workspace: Path) -> None:
    database = workspace / "gleaner.db"
    database.chmod(0o644)
    for copy in list_backups(workspace / "backups"):
        copy.chmod(0o644)
    with open_database(database) as db:
        db.execute("INSERT INTO runs (step, started_at, version) VALUES ('ingest', '2026-01-01', 'x')")
        make_backup(db, workspace / "backups", 5)
        seen = [database, *workspace.glob("gleaner.db-*"), *(workspace / "backups").iterdir()]
        assert len(seen) >= 4 and {stat.S_IMODE(path.stat().st_mode) for path in seen} == {0o600}
