"""What several tests need: running a step, comparing workspaces, drawing pictures."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # children that measure their memory import this module
    import pytest

ROOT = Path(__file__).parents[1]
STEPS = {
    "collect": "1_collect.py",
    "ingest": "2_ingest_db.py",
    "report": "3_domain_report.py",
    "cleanup": "4_db_cleanup.py",
    "download": "5_download.py",
    "dedup": "6_dedup.py",
    "sort": "7_sort_quality.py",
}


# Seconds for what takes a moment: a machine may be many times slower than the one that a test was written on, and
# pytest's own limit for a test is 900.
PATIENCE = 240.0


def load_step(name: str) -> ModuleType:
    """A step as a module: its file name begins with a digit, so `import` cannot name it."""
    path = ROOT / STEPS[name]
    spec = importlib.util.spec_from_file_location(f"step_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before exec_module, or dataclasses with postponed annotations crash
    spec.loader.exec_module(module)
    return module


def run_step(
    name: str, *arguments: object, timeout: float = PATIENCE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a step as a user does, in its own process."""
    return subprocess.run(
        [sys.executable, str(ROOT / STEPS[name]), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def dedup(folder: Path, *arguments: object, expect: int = 0) -> None:
    """Runs step 6 in this process on a folder, its workspace beside it."""
    words = [*map(str, arguments), "--workspace", str(folder.parent / "ws"), "--workers", "1"]
    assert load_step("dedup").main(words) == expect, words


def result(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object, expect: int = 0) -> dict[str, Any]:
    """The same with `--json`: the object that it prints."""
    capsys.readouterr()
    dedup(folder, *arguments, "--json", expect=expect)
    return flat(capsys.readouterr().out)


def flat(text: str) -> dict[str, Any]:
    """The object that `--json` printed, with what its result holds beside the keys of the envelope."""
    found: dict[str, Any] = json.loads(text)
    return {**found, **found["result"]}


MEASURED = """
import runpy, sys
sys.path.insert(0, {tests!r})
from support import peak_megabytes
sys.argv = {argv!r}
try:
    runpy.run_path({path!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(peak_megabytes())
"""


def peak_of_step(name: str, *arguments: object, timeout: float = PATIENCE) -> int:
    """Runs a step in its own process and gives the most memory that this process held, in MiB."""
    path = ROOT / STEPS[name]
    argv = [path.name, *map(str, arguments)]
    probe = MEASURED.format(tests=str(ROOT / "tests"), argv=argv, path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


def wait_until(true: Callable[[], object], what: str) -> None:
    """Returns once `true()` is, and fails with `what` was waited for when it never is."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder` with the digest of its bytes, so that two states can be compared."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_dir():
            found[name + "/"] = ""
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def touched(workspace: Path) -> dict[str, tuple[int, ...]]:
    """Every file and folder below the workspace with its time, inode and size: a file that was rewritten shows, and so
    does one that was there for a moment, by its folder's time.

    The database's own files and the locks lie in the workspace itself and are every run's.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(workspace.rglob("*")):
        if path.parent != workspace or path.is_dir():
            status = path.lstat()
            size = 0 if path.is_dir() else status.st_size
            found[path.relative_to(workspace).as_posix()] = (status.st_mtime_ns, status.st_ino, size)
    return found


def all_rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table but `runs`, with their times."""
    tables = [name for (name,) in as_rows(database, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: as_rows(database, f"SELECT * FROM {name}") for name in tables if name != "runs"}


def dump(database: Path, *, without: tuple[str, ...] = ("runs", "written_reports")) -> dict[str, list[str]]:
    """The rows of every table as sorted JSON, times and run numbers left out: two runs differ in those alone."""
    ignored = {"run_id", "started_at", "finished_at", "updated_at", "created_at", "added_at", "first_seen_at"}
    ignored |= {"elapsed_ms", "fetched_at", "lease", "lease_until", "next_try_at", "dataset_id"}
    connection = sqlite3.connect(database, timeout=PATIENCE)
    connection.row_factory = sqlite3.Row
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: sorted(_row_text(row, ignored) for row in connection.execute(f"SELECT * FROM {table}"))
            for table in tables
            if table not in without and not table.startswith("sqlite_")
        }
    finally:
        connection.close()


def _row_text(row: sqlite3.Row, ignored: set[str]) -> str:
    return json.dumps({k: row[k] for k in row.keys() if k not in ignored}, default=repr, sort_keys=True)  # noqa: SIM118


def drawing(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A smooth, coloured, detailed picture that differs from every other seed's; cheap and always the same."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    fine = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    base = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    detail = Image.fromarray(fine).resize((width, height), Image.Resampling.BICUBIC)
    return Image.blend(base, detail, 0.25)


def as_rows(database: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a query as plain tuples, through a connection of its own."""
    connection = sqlite3.connect(database, timeout=PATIENCE)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def peak_megabytes() -> int:
    """The most memory that this process has held, in MiB.

    On Linux from the kernel's own account: `ru_maxrss` of a child begins with what its parent held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20


def left_by_a_dead_process(path: Path) -> Path:
    """The name of a temporary file of `path`, as a process would have left it that has been killed since."""
    code = "import pathlib, sys; from lib.temporary import temporary_beside as t; print(t(pathlib.Path(sys.argv[1])))"
    made = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=PATIENCE
    )
    return Path(made.stdout.strip())
