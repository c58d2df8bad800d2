"""Large bodies whose transfer a kill, a Ctrl-C or a broken line cut short: the next run asks for the rest alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiofiles.threadpool
import pytest
from download_support import (
    command,
    consistent,
    files,
    fill,
    only,
    originals,
    rows,
    run,
    start,
    step,
)
from hostile_server import Site, jpeg
from support import PATIENCE, load_step, snapshot, wait_until

from lib.download import recovery
from lib.download.body import Body, BodyBuffers, Placeholders
from lib.net.fetch import validator_of
from lib.net.request import FetchLimits
from lib.workspace import Workspace

MANY = 20 << 20
PICTURE = jpeg(1) + bytes(6 << 20)
LARGE = FetchLimits(timeout=60, max_bytes=MANY)


def killed_in_the_middle(workspace: Workspace, site: Site, signals: tuple[int, ...] = (signal.SIGKILL,)) -> None:
    """A run that is ended when five of six megabytes have come; the server has the rest from then on."""
    site.part, site.hold = 5 << 20, PATIENCE
    fill(workspace, originals(site, "/broken/1"))
    process = start(workspace)
    here = (workspace.images / ".part").glob
    wait_until(lambda: sum(path.stat().st_size for path in here("*.part")) > 4 << 20, "most of it is here")
    assert process.stderr is not None
    for number in signals[:-1]:
        process.send_signal(number)
        assert any(b"finishing what is in flight" in line for line in process.stderr)  # else two would count as one
    process.send_signal(signals[-1])
    process.communicate(timeout=PATIENCE)
    site.part, site.hold = MANY, 0.0
    assert site.ranges == [0] and only(workspace)["state"] == "pending"


@pytest.mark.parametrize("tagged", [True, False])
def test_after_a_kill_only_the_rest_is_asked_for(workspace: Workspace, site: Site, tagged: bool) -> None:
    site.undated = tagged
    killed_in_the_middle(workspace, site)
    assert step.main(command(workspace, "-q")) == 0
    assert len(site.ranges) == 2 and site.ranges[1] > 4 << 20
    assert list(files(workspace).values()) == [PICTURE] and only(workspace)["bytes"] == len(PICTURE)
    consistent(workspace)


def test_after_ctrl_c_too(workspace: Workspace, site: Site) -> None:
    killed_in_the_middle(workspace, site, (signal.SIGINT, signal.SIGINT))
    run(workspace, limits=LARGE)
    assert site.ranges[1:] and site.ranges[1] > 4 << 20
    assert list(files(workspace).values()) == [PICTURE]
    consistent(workspace)


def test_after_a_second_ctrl_c_amid_the_body_too(
    workspace: Workspace, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt may be raised wherever Python is at work, so also where a block is taken."""
    fill(workspace, originals(site, "/broken/1"))
    site.part = MANY
    write = Body.write

    def interrupted(body: Body, block: bytes) -> Any:
        if body.size > 4 << 20:
            raise KeyboardInterrupt
        return write(body, block)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Body, "write", interrupted)
        run(workspace, limits=LARGE)
    run(workspace, limits=LARGE)
    assert site.ranges[0] == 0 and site.ranges[1] > 3 << 20
    assert list(files(workspace).values()) == [PICTURE]
    consistent(workspace)


@pytest.mark.parametrize("ends", ["kept", "discarded", "finished"])
def test_a_block_on_its_way_to_the_disk_is_waited_for(tmp_path: Path, ends: str) -> None:
    """Cancelled while a thread writes: the next block must not overtake it, and nothing closes the file below it."""
    at_work, may_go_on = threading.Event(), threading.Event()
    pool = ThreadPoolExecutor(4)

    class Slow(io.FileIO):
        def write(self, block: Any) -> int:
            if not at_work.is_set():
                at_work.set()
                may_go_on.wait(PATIENCE)
            return super().write(block)

    async def run() -> None:
        buffers = BodyBuffers(lambda: str(tmp_path / "a.part"), pool, Placeholders())
        body = Body(buffers, "http://here/")
        body.answer.validator = '"tag"'
        body.write(bytes(4 << 20))
        waiting = body.write(b"1" * (1 << 20))
        assert waiting is not None
        task = asyncio.create_task(waiting)
        await asyncio.get_running_loop().run_in_executor(None, at_work.wait, PATIENCE)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        body.write(b"2" * 100)
        asyncio.get_running_loop().call_later(0.2, may_go_on.set)
        if ends == "kept":
            assert (part := await body.keep_part('"tag"')) and part.size == (5 << 20) + 100
        elif ends == "finished":
            await body.finish()
        else:
            await body.discard()
        assert body.handle is None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(aiofiles.threadpool, "sync_open", lambda path, mode, **_: Slow(path, mode.replace("b", "")))
        try:
            asyncio.run(run())
        finally:
            may_go_on.set()
            pool.shutdown()
    if ends == "discarded":
        assert not list(tmp_path.iterdir())
    else:
        assert (tmp_path / "a.part").read_bytes() == bytes(4 << 20) + b"1" * (1 << 20) + b"2" * 100


def test_a_version_that_changed_meanwhile_is_fetched_whole(workspace: Workspace, site: Site) -> None:
    killed_in_the_middle(workspace, site)
    site.version += 1
    run(workspace, limits=LARGE)
    assert site.ranges == [0, 0] and list(files(workspace).values()) == [PICTURE]
    consistent(workspace)


def test_a_server_that_sends_another_range_is_asked_anew(workspace: Workspace, site: Site) -> None:
    killed_in_the_middle(workspace, site)
    site.lie = True
    run(workspace, limits=LARGE)
    assert [bool(start) for start in site.ranges] == [False, True, False]
    assert list(files(workspace).values()) == [PICTURE]
    consistent(workspace)


def test_a_part_survives_a_run_that_gets_no_answer(workspace: Workspace, site: Site) -> None:
    """Kept while the row waits, for the run after the next."""
    killed_in_the_middle(workspace, site)
    fill(workspace, {"other:1": [("original", site.address("/good/1"))]})
    asked = dict(site.asked)
    run(workspace, limits=LARGE, limit=1, shard=1 if shard_of_first(workspace) == 0 else 0, shards=2)
    assert dict(site.asked).get("/broken/1") == asked["/broken/1"]
    run(workspace, limits=LARGE)
    assert site.ranges[1] > 4 << 20 and {row["state"] for row in rows(workspace).values()} == {"done"}
    consistent(workspace)


def shard_of_first(workspace: Workspace) -> int:
    from lib.db.download_queue import shard_of

    return shard_of("test:0000", 2)


def test_parts_are_no_pictures(workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps 6 and 7 and the check look past them, in the workspace and in its folder of pictures."""
    killed_in_the_middle(workspace, site)
    run(workspace, shard=1 if shard_of_first(workspace) == 0 else 0, shards=2)  # settles what the kill left
    assert [path.name[:5] for path in sorted((workspace.images / ".part").iterdir())] == ["kept-", "kept-"]
    before = snapshot(workspace.images)
    root = ["--workspace", str(workspace.root), "-q"]
    assert load_step("ingest").main([*root, "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"files": 0, "answers": 0, "repaired": 0}
    for name, words in (("dedup", ["exact"]), ("sort", ["orientation"])):
        for folder in ([], [str(workspace.images)]):
            load_step(name).main([*root, *words, *folder, "--dry-run", "--json"])
            assert "kept-" not in capsys.readouterr().out
    assert snapshot(workspace.images) == before


def test_what_nobody_goes_on_with_is_removed(workspace: Workspace, site: Site) -> None:
    killed_in_the_middle(workspace, site)
    folder = workspace.images / ".part"
    recovery.clean_partials(folder)
    (kept,) = folder.glob("kept-*.part")
    note = Path(f"{kept}.json")
    (folder / "kept-0.part").write_bytes(b"without a note")
    (folder / "kept-1.part.json").write_text("{}")
    recovery.clean_partials(folder)
    assert set(folder.iterdir()) == {kept, note}
    os.utime(kept, (1, 1))
    recovery.clean_partials(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("change", [{"boot": "another start of the machine"}, {"url": "http://other/"}, {"total": "x"}])
def test_a_note_that_cannot_be_relied_on(tmp_path: Path, change: dict[str, str]) -> None:
    made = str(tmp_path / "a.part")
    Path(made).write_bytes(b"123")
    recovery.write_note(made, "http://here/", '"tag"', 9)
    assert recovery.save_partial(made)
    kept = tmp_path / recovery.kept_name("http://here/")
    note = Path(f"{kept}.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))
    assert recovery.claim_partial(tmp_path, "http://here/", lambda: made) is None and not list(tmp_path.iterdir())


def test_one_of_two_takes_a_part_over(tmp_path: Path) -> None:
    made = str(tmp_path / "a.part")
    Path(made).write_bytes(b"123456789")
    recovery.write_note(made, "http://here/", '"tag"', 9)
    assert recovery.save_partial(made)
    first = recovery.claim_partial(tmp_path, "http://here/", lambda: str(tmp_path / "b.part"))
    assert first == recovery.Partial(str(tmp_path / "b.part"), 8, '"tag"', 9)  # whole: its last byte is asked for
    assert Path(first.path).read_bytes() == b"12345678"
    assert recovery.claim_partial(tmp_path, "http://here/", lambda: str(tmp_path / "c.part")) is None
    with contextlib.suppress(FileNotFoundError):
        recovery.drop(first.path)
    assert not list(tmp_path.iterdir())


CHANGED, LATER = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:37 GMT"


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": '"a"', "Last-Modified": CHANGED}, '"a"'),
        ({"ETag": 'W/"a"'}, ""),
        ({"ETag": f'"{"a" * 300}"'}, ""),
        ({"Last-Modified": CHANGED, "Date": LATER}, CHANGED),
        ({"Last-Modified": CHANGED, "Date": CHANGED}, ""),
        ({"Last-Modified": CHANGED}, ""),
        ({"Last-Modified": "yesterday", "Date": LATER}, ""),
        ({}, ""),
    ],
)
def test_what_tells_two_versions_apart(headers: dict[str, str], validator: str) -> None:
    assert validator_of(headers) == validator
