"""Step 5 as a command: what it says, and what is left when it is killed or the disk gives out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from download_support import (
    Rows,
    command,
    consistent,
    files,
    fill,
    mixed,
    only,
    originals,
    outcome,
    rows,
    run,
    start,
    step,
    whole_files_only,
)
from hostile_server import Site, jpeg, picture
from support import PATIENCE, ROOT, snapshot, wait_until

from lib.db import open_database
from lib.db.downloads import has_path
from lib.files.names import file_name, part_owner, shelf
from lib.images.decode import MAX_PIXELS
from lib.net.request import FetchLimits
from lib.temporary import process_lives
from lib.workspace import Workspace


def test_a_dry_run_asks_nobody_and_leaves_the_workspace_as_it_is(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1"))
    before = snapshot(workspace.root)
    assert step.main(command(workspace, "--dry-run")) == 0
    out, err = capsys.readouterr()
    assert f"would fetch  test:0000  original  {site.address('/good/1')}" in out
    assert "2 to fetch, 1 host" in err
    assert snapshot(workspace.root) == before and not site.asked
    assert step.main(command(workspace)) == 0
    before = snapshot(workspace.root)
    assert step.main(command(workspace, "--dry-run", "--retry-failed")) == 0
    assert "1 to fetch" in capsys.readouterr().err
    assert snapshot(workspace.root) == before


def test_the_summary_counts_states_and_reasons(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1", "/noai/1", "/html/1"))
    assert step.main(command(workspace, "--json")) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert {"done": 1, "failed": 2, "opted_out": 1, "http_404": 1, "not_an_image": 1}.items() <= counts.items()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--retry-failed", "timeuot"], 2, "no row failed with timeuot"),
        (["--max-bytes", "0"], 2, "--max-bytes 0 keeps nothing"),
        (["--max-megapixels", str(MAX_PIXELS // 1_000_000 + 1)], 2, "--max-megapixels is 200 at most"),
    ],
)
def test_wrong_use_is_one_sentence(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    fill(workspace, {"test:1": []})
    assert step.main(command(workspace, *arguments)) == code
    assert sentence in capsys.readouterr().err


def test_it_says_what_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["--workspace", str(tmp_path / "none")]) == 2
    assert "1_collect.py" in capsys.readouterr().err


# Loads what a run loads, once, and forks a run for every line of arguments: fifty starts cost as much as two.
NURSERY = """
import json, os, sys
sys.path[:0] = [{root!r}, {tests!r}]
import lib.download.loop
from support import load_step
step = load_step("download")
for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(step.main(json.loads(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
KILLS = 50


def test_killed_at_fifty_moments_and_run_again_it_ends_the_same(
    workspace: Workspace, site: Site, tmp_path: Path
) -> None:
    undisturbed = Workspace(tmp_path / "undisturbed")
    for one in (undisturbed, workspace):
        fill(one, mixed(site, 2400))
    run(undisturbed, limits=FetchLimits(), per_host=16)
    site.asked.clear()
    site.slow = 0.02
    kill_again_and_again(workspace, site, KILLS)
    site.slow, site.most = 0.0, math.inf
    assert {row["state"] for row in rows(workspace).values()} >= {"done", "pending"}
    assert step.main(command(workspace, "-q", "--per-host", "16")) == 0
    assert outcome(workspace) == outcome(undisturbed)
    consistent(workspace)
    good = {path: n for path, n in site.asked.items() if path.startswith("/good/") and path != "/good/3"}
    assert sum(good.values()) - len(good) <= KILLS * 4  # asked again: only what was in flight
    site.asked.clear()
    assert step.main(command(workspace, "-q")) == 0
    assert not site.asked


def kill_again_and_again(workspace: Workspace, site: Site, times: int) -> None:
    """Starts runs and kills each at a random moment: after so many requests, at any point of those under way."""
    rng = random.Random(5)
    code = NURSERY.format(root=str(ROOT), tests=str(ROOT / "tests"))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    nursery = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert nursery.stdin and nursery.stdout
    with nursery, nursery.stdin:
        for number in range(times):
            nursery.stdin.write(json.dumps(command(workspace, "-q", "--per-host", "4")) + "\n")
            nursery.stdin.flush()
            child = int(nursery.stdout.readline())
            # Every eighth run lives long enough to write rows; the others leave files without.
            enough = sum(site.asked.values()) + (150 if number % 8 == 5 else rng.randint(0, 30))
            site.most = enough + 8  # however late the kill comes, fifty runs leave something to do
            wait_until(partial(has_asked, child, site, enough), "enough is asked for")
            time.sleep(rng.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            assert int(nursery.stdout.readline()) == signal.SIGKILL  # it had not ended before
            whole_files_only(workspace)


def has_asked(child: int, site: Site, count: int) -> bool:
    os.kill(child, 0)  # raises when it has ended by itself
    return sum(site.asked.values()) >= count


def test_two_runs_at_once_share_the_work(workspace: Workspace, site: Site) -> None:
    site.slow = 0.004
    fill(workspace, originals(site, *[f"/good/{n // 2}" for n in range(1200)]))  # every content twice
    both = [start(workspace, "--per-host", "8") for _ in range(2)]
    messages = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    assert set(site.asked.values()) == {2} and len(files(workspace)) == 600
    consistent(workspace)


def test_ctrl_c_finishes_what_is_in_flight(workspace: Workspace, site: Site) -> None:
    site.slow = 0.1
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(400)]))
    process = start(workspace, "--per-host", "2")
    while sum(site.asked.values()) < 20 and process.poll() is None:
        time.sleep(0.01)
    site.held = True  # however late the signal comes, the run is under way
    process.send_signal(signal.SIGINT)
    site.held = False
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Traceback" not in err
    done = [row for row in rows(workspace).values() if row["state"] == "done"]
    assert 0 < len(done) < 400 and len(done) == sum(site.asked.values())
    consistent(workspace)
    assert step.main(command(workspace, "-q", "--per-host", "32")) == 0
    assert set(site.asked.values()) == {1} and len(site.asked) == 400


def small_disk(folder: Path, kilobytes: int) -> bool:
    """A file system of its own for the pictures, where this may be had."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return made.returncode == 0


def full_disk_rows(site: Site) -> Rows:
    return originals(site, *[f"/big/{n}" for n in range(4)], *[f"/good/{n}" for n in range(8)])


def test_a_full_disk_stops_the_run_and_leaves_rows_pending(workspace: Workspace, site: Site) -> None:
    fill(workspace, full_disk_rows(site))
    more = ["--min-free", "0", "--per-host", "2"]
    if small_disk(workspace.images, 15_000):
        try:
            process = start(workspace, *more)
            _, err = process.communicate(timeout=PATIENCE)
            whole_files_only(workspace)
            saved = workspace.root.parent / "saved"
            shutil.copytree(workspace.images, saved)
        finally:
            subprocess.run(["umount", str(workspace.images)], check=True)
        workspace.images.rmdir()
        saved.rename(workspace.images)
        assert b"no space is left" in err
    else:  # without the right to mount, a limit on the size of a file fails the write in the same place
        process = start(workspace, *more, preexec_fn=lambda: limit_file_size(1 << 22))
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"Traceback" not in err, err
    states = [row["state"] for row in rows(workspace).values()]
    assert "pending" in states and "failed" not in states
    assert step.main(command(workspace, "-q", *more)) == 0
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    consistent(workspace)


def limit_file_size(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_too_little_room_is_seen_before_it_is_used_up(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1"))
    assert step.main(command(workspace, "--min-free", "900000G")) == 1
    assert "--min-free" in capsys.readouterr().err
    assert not site.asked and only(workspace)["state"] == "pending"


def test_a_folder_that_vanishes_stops_the_run(workspace: Workspace, site: Site) -> None:
    site.slow = 0.1
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(600)]))
    process = start(workspace, "--per-host", "2")
    while sum(site.asked.values()) < 30 and process.poll() is None:
        time.sleep(0.01)
    site.held = True
    workspace.images.rename(workspace.root / "unplugged")
    site.held = False
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"Traceback" not in err, err
    assert "pending" in {row["state"] for row in rows(workspace).values()}


def test_stale_temporary_files_are_swept_but_only_our_own(workspace: Workspace, site: Site) -> None:
    from lib.files.names import part_owner

    fill(workspace, originals(site, "/good/1"))
    parts = workspace.images / ".part"
    parts.mkdir(parents=True)
    machine = part_owner().partition("-")[0]
    (parts / f"{machine}-999999999-0.part").write_bytes(b"half")
    (parts / f"{machine}-{os.getppid()}-0.part").write_bytes(b"at work")
    (parts / "ffffff-1-0.part").write_bytes(b"of another machine")
    run(workspace)
    assert {path.name for path in parts.iterdir()} == {f"{machine}-{os.getppid()}-0.part", "ffffff-1-0.part"}


def test_a_file_without_a_row_is_adopted_only_if_it_is_what_its_name_says(workspace: Workspace, site: Site) -> None:
    """What a kill between the rename and the commit leaves; the second file was tampered with."""
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace)
    expected = outcome(workspace)
    with open_database(workspace.database) as db:
        db.execute("UPDATE downloads SET state = 'pending', sha256 = NULL, kind = '', variant_id = NULL")
        db.execute("DELETE FROM files")
        db.execute("UPDATE runs SET exit_code = NULL")
    second = next(name for name in files(workspace) if "test-0001" in name)
    (workspace.root / second).write_bytes(picture(99))
    site.asked.clear()
    run(workspace)
    assert site.asked == {"/good/2": 1} and outcome(workspace) == expected
    consistent(workspace)


def test_a_symlink_in_the_way_is_not_written_through(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    data = jpeg(1)
    name = file_name("test:0000", "original", 48, 32, hashlib.sha256(data).hexdigest(), "jpg")
    shelf = workspace.images / hashlib.sha256(b"test:0000").hexdigest()[:2]
    shelf.mkdir(parents=True)
    (shelf / name).symlink_to(victim)
    fill(workspace, originals(site, "/good/1"))
    run(workspace)
    assert victim.read_bytes() == b"precious" and not (shelf / name).is_symlink()
    consistent(workspace)


def test_the_database_functions_need_no_network() -> None:
    code = "import sys; import lib.db.downloads; assert not {'aiohttp', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, runpy; sys.argv = ['5_download.py', '--help']\n"
        "try: runpy.run_path('5_download.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'aiohttp', 'PIL', 'numpy', 'yarl'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers of a run."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds workers by /proc")
# After how many answers what is killed: the parent, one worker, everything.
MOMENTS = [("parent", 5), ("parent", 60), ("parent", 250), ("worker", 5), ("worker", 120), ("all", 5), ("all", 200)]


@LINUX
@pytest.mark.parametrize(("victim", "answers"), MOMENTS)
def test_workers_that_are_killed_leave_nothing(workspace: Workspace, site: Site, victim: str, answers: int) -> None:
    paths = [f"/good/{n // 2}" for n in range(400)]  # every content twice, by different workers
    fill(workspace, originals(site, *paths, "/missing/1", "/html/1"))
    site.slow = 0.01
    process = start(workspace, "--workers", "2", "--per-host", "8", "--sidecar", "json", start_new_session=True)
    wait_until(lambda: sum(site.asked.values()) >= answers, "enough is asked for")
    site.most = sum(site.asked.values()) + 8
    workers = children_of(process)
    assert workers
    if victim == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid if victim == "parent" else workers[0], signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    site.slow, site.most = 0.0, math.inf
    assert step.main(command(workspace, "-q", "--per-host", "16", "--sidecar", "json")) == 0  # at once
    assert not any(process_lives(pid) for pid in workers)
    found = rows(workspace)
    assert {row["state"] for row in list(found.values())[:400]} == {"done"}
    assert {row["reason"] for row in list(found.values())[400:]} == {"http_404", "not_an_image"}
    with open_database(workspace.database) as db:
        sizes = {row["sha256"]: row["bytes"] for row in db.rows("SELECT sha256, bytes FROM files")}
    assert len(sizes) == 200 and {row["bytes"] for row in found.values() if row["state"] == "done"} == {*sizes.values()}
    sidecars = set(workspace.images.rglob("*.json"))
    assert {path.with_suffix("") for path in sidecars} == {*workspace.images.rglob("*.jpg")}
    for path in sidecars:
        path.unlink()
    consistent(workspace)


def stray(workspace: Workspace, key: str, seed: int) -> Path:
    """A whole file of a picture under its final name, which no row knows."""
    data = jpeg(seed)
    name = file_name(key, "original", 64, 48, hashlib.sha256(data).hexdigest(), "jpg")
    path = workspace.images / shelf(key) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cut_off(workspace: Workspace, exit_code: int | None = None) -> None:
    """A run that did not come to its end."""
    (workspace.images / ".part").mkdir(exist_ok=True)
    with open_database(workspace.database) as db:
        db.execute(
            "INSERT INTO runs (step, started_at, version, exit_code) VALUES ('download', '', '', ?)", (exit_code,)
        )


def test_files_without_rows_wait_for_their_row_and_the_others_are_settled(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(4)]))
    assert step.main(command(workspace, "-q", "--limit", "1")) == 0
    done = next(workspace.images.rglob("*.jpg"))
    cut_off(workspace)
    one_too_many = workspace.images / shelf("test:0001") / done.name.replace("test-0000", "test-0009")
    one_too_many.parent.mkdir(exist_ok=True)
    one_too_many.write_bytes(done.read_bytes())  # what another worker had brought, killed before it took it back
    other = stray(workspace, "test:0000", 77)  # the address brought something else when it was asked again
    waiting = stray(workspace, "test:0003", 3)
    beside = done.parent / "test-0007_original_9x9_01234567.jpg.json"
    beside.write_text("{}")
    mine = done.parent / "notes.json"
    mine.write_text("{}")
    site.asked.clear()
    assert step.main(command(workspace, "-q", "--limit", "1")) == 0
    assert not one_too_many.exists() and done.exists() and not beside.exists() and mine.exists()
    assert waiting.exists() and rows(workspace)["test:0003"]["state"] == "pending"
    with open_database(workspace.database) as db:
        assert has_path(db, workspace.to_text(other))
    assert step.main(command(workspace, "-q")) == 0  # the run before ended well, and still left one
    assert rows(workspace)["test:0003"]["state"] == "done" and "/good/3" not in site.asked
    mine.unlink()
    consistent(workspace)


def test_an_undo_in_between_does_not_make_a_killed_run_forgotten(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/good/2"))
    (workspace.root / "images").mkdir()
    cut_off(workspace)
    (workspace.images / ".part").rmdir()
    kept = stray(workspace, "test:0000", 1)
    assert step.main(command(workspace, "-q", "--undo", "last")) == 0
    assert step.main(command(workspace, "-q")) == 0
    assert kept.exists() and rows(workspace)["test:0000"]["state"] == "done" and "/good/1" not in site.asked
    consistent(workspace)


def test_half_files_at_another_place_are_cleared(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    fill(workspace, originals(site, "/good/1"))
    (workspace.root / "images").mkdir()
    cut_off(workspace)
    there = tmp_path / "there"
    (there / "ab").mkdir(parents=True)
    machine = part_owner().partition("-")[0]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    half, mine = there / "ab" / f".{machine}-{dead.pid}-3.part", there / "ab" / ".mine.part"
    living = there / "ab" / f".{machine}-{os.getppid()}-3.part"
    for path in (half, mine, living):
        path.write_bytes(b"half")
    assert step.main(command(workspace, "-q", "--to", str(there))) == 0
    assert not half.exists() and mine.exists() and living.exists()
    assert rows(workspace)["test:0000"]["state"] == "done"


def test_a_file_without_a_row_of_a_content_that_is_known_gives_a_row_with_its_bytes(
    workspace: Workspace, site: Site
) -> None:
    fill(workspace, originals(site, "/good/1", "/good/1"))
    assert step.main(command(workspace, "-q", "--limit", "1")) == 0
    cut_off(workspace)
    again = stray(workspace, "test:0001", 1)
    site.asked.clear()
    assert step.main(command(workspace, "-q")) == 0
    first, second = rows(workspace).values()
    assert not site.asked and not again.exists()
    assert first["sha256"] == second["sha256"] and second["bytes"] == first["bytes"] == len(jpeg(1))
    consistent(workspace)
