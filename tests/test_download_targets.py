"""Where the pictures go and who works on them: addresses of fsspec, sidecars, shards, processes, full decodes."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import fsspec
import pytest
from download_support import (
    command,
    consistent,
    files,
    fill,
    mixed,
    only,
    originals,
    outcome,
    report,
    rows,
    run,
    start,
    step,
)
from hostile_server import Site, animation, jpeg, picture
from support import PATIENCE, as_rows, load_step, wait_until

from lib.db import open_database
from lib.db.download_queue import shard_of
from lib.download.options import DownloadOptions, VerifyLimits
from lib.download.targets import LocalTarget
from lib.download.verify import Verifier
from lib.images.formats import sniff
from lib.images.structure import trailing_bytes
from lib.net.request import FetchLimits
from lib.workspace import Workspace


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_pictures_go_to_any_address(workspace: Workspace, site: Site, tmp_path: Path, kind: str) -> None:
    address = "memory://pictures/here" if kind == "memory" else f"file://{tmp_path}/there"
    fill(workspace, originals(site, *[f"/good/{n % 7}" for n in range(10)], "/big/1"))
    stats = run(workspace, to=address, limits=FetchLimits(max_bytes=8 << 20))
    assert stats.states == {"done": 11} and stats.files == 8
    store, root = fsspec.core.url_to_fs(address)
    paths = [row[0] for row in as_rows(workspace.database, "SELECT path FROM files ORDER BY path")]
    address = address.removeprefix("file://")
    assert all(path.startswith(address + "/") for path in paths)
    there = sorted(path for path in store.find(root) if path.endswith(".jpg"))
    assert [path.removeprefix(root) for path in there] == [path.removeprefix(address) for path in paths]
    assert store.cat_file(there[0]).startswith(b"\xff\xd8")
    assert files(workspace) == {} and len(store.find(root)) == 8
    assert run(workspace, to=address).states == {}


@pytest.mark.parametrize("address", ["there", "{}/there", "file://{}/there", "{}/ws/images"])
def test_files_in_another_folder_are_found_by_the_steps_that_follow(
    workspace: Workspace,
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(4)]))
    root = ["--workspace", str(workspace.root)]
    assert step.main(command(workspace, "--to", address.format(tmp_path))) == 0
    assert "6_dedup.py" in capsys.readouterr().err
    monkeypatch.chdir("/")
    for name, words, told in (
        ("ingest", ["--check"], "4 files, 0 answers, 0 repaired"),
        ("dedup", ["exact", "-n"], "4 files, 0 groups"),
        ("sort", ["orientation", "-n"], "4 pictures, 4 landscape"),
    ):
        assert load_step(name).main([*root, *words]) == 0
        assert told in capsys.readouterr().err
    assert step.main(command(workspace, "-q")) == 0 and sum(site.asked.values()) == 4


def test_files_at_an_address_are_told_of_and_never_taken_for_lost(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1"))
    assert step.main(command(workspace, "--to", "memory://elsewhere")) == 0
    err = capsys.readouterr().err
    assert "The files are at memory://elsewhere" in err and "next:" not in err
    assert load_step("ingest").main(["--workspace", str(workspace.root), "--check", "--repair", "-q"]) == 0
    assert only(workspace)["state"] == "done"


def test_content_that_lies_at_the_address_is_not_sent_again(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1"))
    run(workspace, to="memory://again")
    fill(workspace, {"other:1": [("original", site.address("/good/1"))]})
    assert run(workspace, to="memory://again").files == 0
    store = fsspec.filesystem("memory")
    store.rm("/again", recursive=True)
    fill(workspace, {"third:1": [("original", site.address("/good/1"))]})
    assert run(workspace, to="memory://again").files == 1 and len(store.find("/again")) == 1


@pytest.mark.parametrize("address", ["nosuch://bucket/x", "gopher://a"])
def test_an_address_that_nobody_knows(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    fill(workspace, originals(site, "/good/1"))
    assert step.main(command(workspace, "--to", address)) == 2
    assert "--to" in capsys.readouterr().err and only(workspace)["state"] == "pending"


def test_a_sidecar_stands_beside_every_picture(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1"), page_url="https://page.example/a")
    with open_database(workspace.database) as db:
        db.execute("UPDATE images SET title = 'a \u202e title', license = 'CC BY 4.0', creator = 'Somebody'")
    run(workspace, sidecar=True)
    image, sidecar = sorted(files(workspace))
    assert sidecar == image + ".json"
    found = json.loads(files(workspace)[sidecar])
    assert found["file_name"] == image.rpartition("/")[2] and found["license"] == "CC-BY-4.0"
    assert found["image_url"] == site.address("/good/1") and found["page_url"] == "https://page.example/a"
    assert (found["width"], found["height"], found["sha256"]) == (48, 32, only(workspace)["sha256"])
    assert "attribution" not in found


def test_a_sidecar_names_the_address_that_won(workspace: Workspace, site: Site) -> None:
    """Two of one kind, of which the first listed is gone."""
    variants = [("preview", site.address("/missing/1"), 90, 60), ("preview", site.address("/good/1?size=m"), 48, 32)]
    fill(workspace, {"t:1": variants})
    run(workspace, sidecar=True)
    _, sidecar = sorted(files(workspace))
    assert json.loads(files(workspace)[sidecar])["image_url"] == site.address("/good/1?size=m")


def test_shards_share_one_job_without_talking(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    """Two machines with databases of their own, in which the rows stand in another order."""
    everything = originals(site, *[f"/good/{n}" for n in range(20)])
    fill(workspace, everything)
    elsewhere = Workspace(tmp_path / "elsewhere")
    fill(elsewhere, dict(reversed(everything.items())))
    run(workspace, shard=0, shards=2)
    run(elsewhere, shard=1, shards=2)
    done = [{r["key"] for r in rows(one).values() if r["state"] == "done"} for one in (workspace, elsewhere)]
    assert done[0] | done[1] == set(everything) and not done[0] & done[1] and set(site.asked.values()) == {1}
    assert all(shard_of(key, 2) == 0 for key in done[0])


def test_the_parts_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert step.shard("2/3") == (1, 3)
    for text in ("0/2", "3/2", "x/2", "2", "1/0", "-1/2"):
        with pytest.raises(SystemExit):
            step.build_parser().parse_args(["--shard", text])


def test_several_processes_end_as_one_does(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    alone = Workspace(tmp_path / "alone")
    for one in (alone, workspace):
        fill(one, mixed(site, 300))
    run(alone, limits=FetchLimits())
    site.asked.clear()
    site.slow = 0.003
    made = report(workspace, workers=2, per_host=8, limits=FetchLimits())
    assert outcome(workspace) == outcome(alone)
    assert made.stats.states["done"] + made.stats.states["failed"] == 300
    assert {path: n for path, n in site.asked.items() if n > 1}.keys() <= {"/good/3", "/missing/1", "/html/1"}
    assert site.most_at_once <= 8
    (host,) = made.stats.hosts.values()
    assert host.requests == sum(site.asked.values())
    consistent(workspace)


@pytest.mark.parametrize(
    ("workers", "per_host", "limit", "due", "expected"),
    [(4, 2, None, 100, [None] * 2), (2, 6, 5, 100, [3, 2]), (2, 6, 1, 100, [1]), (8, 6, None, 3, [None] * 3)],
)
def test_work_is_divided(workers: int, per_host: int, limit: int | None, due: int, expected: list[int | None]) -> None:
    parts = DownloadOptions(workers=workers, per_host=per_host, limit=limit).divided(due)
    assert [part.limit for part in parts] == expected


def test_ctrl_c_reaches_the_processes(workspace: Workspace, site: Site) -> None:
    site.slow = 0.1
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(600)]))
    process = start(workspace, "--workers", "2", "--per-host", "4", start_new_session=True)
    while sum(site.asked.values()) < 20 and process.poll() is None:
        time.sleep(0.01)
    site.held = True
    os.killpg(process.pid, signal.SIGINT)
    site.held = False
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Traceback" not in err, err
    done = [row for row in rows(workspace).values() if row["state"] == "done"]
    assert 0 < len(done) < 600 and len(done) == sum(site.asked.values())
    consistent(workspace)


# Python reads this when it starts: a worker or a decoder that has been started waits here, as on a busy machine.
LATE_START = """
import os, pathlib, sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    here = pathlib.Path(__file__).parent
    (here / str(os.getpid())).touch()
    while not (here / "go").exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize(("arguments", "children"), [(["--workers", "2"], 2), (["--verify", "decode"], 1)])
def test_ctrl_c_does_not_hit_a_process_that_is_still_starting(
    workspace: Workspace, site: Site, tmp_path: Path, arguments: list[str], children: int
) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(LATE_START)
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(9)]))
    environment = {**os.environ, "PYTHONPATH": str(hook)}
    process = start(workspace, "--per-host", "2", *arguments, start_new_session=True, env=environment)
    wait_until(lambda: sum(path.name.isdigit() for path in hook.iterdir()) >= children, "they are starting")
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    assert any(b"finishing what is in flight" in line for line in process.stderr)  # the signal has arrived
    (hook / "go").touch()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Traceback" not in err and b"KeyboardInterrupt" not in err, err
    assert "failed" not in {row["state"] for row in rows(workspace).values()}
    consistent(workspace)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker by /proc")
def test_a_process_that_is_killed_ends_the_run_with_a_sentence(workspace: Workspace, site: Site) -> None:
    site.slow = 0.1
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(400)]))
    process = start(workspace, "--workers", "2", "--per-host", "4")
    while sum(site.asked.values()) < 20 and process.poll() is None:
        time.sleep(0.01)
    site.held = True
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
    site.held = False
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"a worker process was killed" in err and b"Traceback" not in err, err
    site.slow = 0.0
    assert step.main(command(workspace, "-q", "--per-host", "16")) == 0
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    consistent(workspace)


def test_two_that_need_the_same_folder_at_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for round_ in range(30):
        workspace = Workspace(tmp_path / str(round_))
        workspace.images.mkdir(parents=True)
        target, together = LocalTarget(workspace), Barrier(4)

        def write(n: int, target: LocalTarget = target, together: Barrier = together) -> None:
            together.wait(PATIENCE)
            target.write(None, b"x", f"ab/{n}.jpg", f"{target.root}/.part/{n}.part")

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(write, range(4)))
        assert len(list((workspace.images / "ab").iterdir())) == 4


def test_a_picture_is_decoded_to_its_end(workspace: Workspace, site: Site) -> None:
    """The half picture has a sound header and an end marker: only decoding shows that it is broken."""
    fill(workspace, originals(site, "/good/1", "/half/1", "/big/2", "/frames/1"))
    run(workspace, verify=VerifyLimits(), limits=FetchLimits(max_bytes=8 << 20))
    found = [(row["state"], row["reason"]) for row in rows(workspace).values()]
    assert found[0] == found[2] == found[3] == ("done", "") and found[1] == ("failed", "undecodable")
    consistent(workspace)


def test_a_decode_has_limits_on_memory_and_time() -> None:
    vast = picture(7, (9000, 9000), "PNG")
    for limits, reason in (
        (VerifyLimits(20, 290 << 20), "decode_memory"),
        (VerifyLimits(0.01, 3 << 30), "decode_timeout"),
    ):
        if reason == "decode_timeout":
            vast = animation_of_many()
        verifier = Verifier(1, limits)
        try:
            found = [verifier.check(vast)[0], verifier.check(jpeg(1))[0]]
        finally:
            verifier.close()
        assert found == [reason, ""], found


def animation_of_many(frames: int = 500) -> bytes:
    """One large and empty frame, many times over: little to send, and much to decode."""
    from PIL import Image

    made = io.BytesIO()
    Image.new("L", (3000, 3000)).save(made, "GIF")
    one = made.getvalue()
    start = 13 + (3 << ((one[10] & 7) + 1))
    return one[:start] + one[start:-1] * frames + b";"


@pytest.mark.parametrize("strip", [False, True])
def test_bytes_after_the_end_are_noted_or_cut_off(workspace: Workspace, site: Site, strip: bool) -> None:
    fill(workspace, originals(site, "/polyglot/1"))
    stats = run(workspace, strip_trailing=strip)
    ((name, data),) = files(workspace).items()
    assert name.endswith(".jpg") and (data == jpeg(4)) is strip
    assert stats.notes == {"trailing_bytes": 1}
    assert json.loads(only(workspace)["log"])[0]["detail"] == "29 bytes after its end"
    consistent(workspace)


@pytest.mark.parametrize(
    "made", [jpeg(1), picture(form="PNG"), picture(form="GIF"), picture(form="WEBP"), animation(3)]
)
def test_the_end_of_a_picture(made: bytes) -> None:
    found = sniff(made)
    assert found is not None
    assert trailing_bytes(made, found) == 0 and trailing_bytes(made + b"PK\x03\x04 more", found) == 9
    assert trailing_bytes(made + made, found, exact=True) == len(made)
