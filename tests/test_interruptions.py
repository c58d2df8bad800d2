"""Steps 2 and 4 killed at many instants, and several steps at once: the database is whole and nothing is lost."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import PATIENCE, ROOT, STEPS, as_rows, dump, load_step, run_step
from yandex_answers import entity, make_workspace, xhr

INSTANTS = 5  # of each job; spread over its whole length
CONTENT = ("runs", "actions")
PAGES, PAGE = 120, 25


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with pending answers, enough for several transactions."""
    answers = {
        (f"q{page % 6}", page, "xhr"): xhr([entity(n) for n in range(page * 20, page * 20 + PAGE)])
        for page in range(PAGES)
    }
    return make_workspace(tmp_path_factory.mktemp("raw") / "ws", answers).parent


@pytest.fixture(scope="module")
def full(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ingested, with faults for step 4 to take, a backup, and unused room in the file."""
    root = copy_of(raw, tmp_path_factory.mktemp("full"))
    assert load_step("ingest").main(["--workspace", str(root), "-q", "--workers", "1"]) == 0
    connection = sqlite3.connect(root / "gleaner.db")
    connection.execute("UPDATE image_variants SET url = 'ftp://x/' || id WHERE kind = 'dup'")
    connection.commit()
    connection.close()
    assert load_step("cleanup").main(["--workspace", str(root), "-q"]) == 0
    connection = sqlite3.connect(root / "gleaner.db")
    connection.execute("UPDATE image_variants SET url = 'ftp://x/' || id WHERE kind = 'thumb'")
    connection.execute("CREATE TABLE waste AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
                       " SELECT i, hex(randomblob(60)) FROM n")  # fmt: skip
    connection.execute("DROP TABLE waste")
    connection.commit()
    connection.close()
    return root


def copy_of(root: Path, folder: Path) -> Path:
    return Path(shutil.copytree(root, folder / "ws", dirs_exist_ok=True))


def start(name: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / STEPS[name]), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.stderr is not None
    process.stderr.close()


JOBS = [
    ("ingest", ("--workers", "1"), "raw"),
    ("cleanup", (), "full"),
    ("cleanup", ("--restore", "last"), "full"),
    ("cleanup", ("--vacuum",), "full"),
    ("cleanup", ("--reset", "everything", "--yes", "ws"), "full"),
]


@pytest.mark.parametrize(("name", "arguments", "state"), JOBS, ids=["ingest", "rules", "restore", "vacuum", "reset"])
def test_killed_at_many_instants_it_ends_the_same(
    tmp_path: Path, raw: Path, full: Path, name: str, arguments: tuple[str, ...], state: str
) -> None:
    source = {"raw": raw, "full": full}[state]
    whole = copy_of(source, tmp_path / "whole")
    started = time.monotonic()
    done = run_step(name, *arguments, "--workspace", whole)
    length = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    before, after = dump(source / "gleaner.db", without=CONTENT), dump(whole / "gleaner.db", without=CONTENT)
    for number in range(INSTANTS):
        root = copy_of(source, tmp_path / f"killed{number}")
        kill_after(start(name, *arguments, "--workspace", root), length * (0.25 + 0.75 * number / INSTANTS))
        database = root / "gleaner.db"
        assert as_rows(database, "PRAGMA integrity_check") == [("ok",)]
        assert as_rows(database, "PRAGMA foreign_key_check") == []
        if state == "full":  # all or nothing; ingest is in between, an answer at a time
            assert dump(database, without=CONTENT) in (before, after)
        again = run_step(name, *arguments, "--workspace", root)
        assert again.returncode == 0, again.stderr
        assert dump(database, without=CONTENT) == after
        shutil.rmtree(root)


def test_several_steps_at_once_never_find_the_database_locked(tmp_path: Path, raw: Path) -> None:
    """Two ingests, a cleanup again and again, reports and a check on one workspace, while a reader stays in a read."""
    root = copy_of(raw, tmp_path)
    reader = sqlite3.connect(root / "gleaner.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM responses").fetchone()
    both = [start("ingest", "--workspace", root, "--workers", "1") for _ in range(2)]
    others: list[subprocess.Popen[bytes]] = []
    for name, arguments in [("cleanup", ()), ("report", ()), ("ingest", ("--check",)), ("cleanup", ()), ("report", ())]:
        others.append(start(name, *arguments, "--workspace", root))
        _wait(others[-1])
    for process in both:
        _wait(process)
    said = [process.stderr.read().decode() for process in (*both, *others) if process.stderr]
    reader.close()
    assert not [text for text in said if "locked" in text or "held it for too long" in text or "Traceback" in text]
    assert [process.returncode for process in both] == [0, 0]
    # A report may come before the first picture, which is a sentence of its own.
    assert {process.returncode for process in others} <= {0, 2}
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM responses WHERE ingest_state = 'done'") == [(PAGES,)]
    assert as_rows(root / "gleaner.db", "PRAGMA foreign_key_check") == []


def _wait(process: subprocess.Popen[bytes]) -> None:
    process.wait(timeout=PATIENCE)
