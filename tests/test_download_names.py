"""Names of downloaded files: nothing is overwritten, whatever is found by trying, planted, or left by a kill."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from download_support import (
    command,
    consistent,
    files,
    fill,
    only,
    originals,
    run,
)
from hostile_server import Site, jpeg
from support import ROOT

from lib.db import open_database
from lib.db.download_queue import Recheck
from lib.files.names import file_name, safe_id
from lib.temporary import _rename_where_free, rename_unless_taken
from lib.workspace import Workspace


def same_digits() -> tuple[bytes, bytes]:
    """Two pictures of one size whose SHA-256 begin with the same eight digits."""
    whole = jpeg(1)
    start, seen = hashlib.sha256(whole[:-2]), dict[bytes, bytes]()
    for n in range(1 << 20):
        end = struct.pack(">HHQ", 0xFFFE, 10, n) + b"\xff\xd9"
        digest = start.copy()
        digest.update(end)
        short = digest.digest()[:4]
        if short in seen:
            return whole[:-2] + seen[short], whole[:-2] + end
        seen[short] = end
    raise AssertionError("no two alike among a million")


@pytest.fixture(name="twins", scope="module")
def twins_fixture() -> tuple[bytes, bytes]:
    return same_digits()


def below(workspace: Workspace) -> set[bytes]:
    """Every picture anywhere in the workspace."""
    return {path.read_bytes() for path in workspace.root.rglob("*.jpg")}


@pytest.mark.parametrize("sidecar", [False, True], ids=["plain", "sidecar"])
def test_a_refresh_destroys_no_picture_whose_hash_begins_alike(
    workspace: Workspace, site: Site, twins: tuple[bytes, bytes], sidecar: bool
) -> None:
    site.bodies[0] = twins[0]
    fill(workspace, originals(site, "/body/0"))
    run(workspace, sidecar=sidecar)
    first = only(workspace)["sha256"]
    site.bodies[0] = twins[1]
    run(workspace, again=Recheck(None, refresh=True), sidecar=sidecar)
    second = only(workspace)["sha256"]
    assert first[:8] == second[:8] and second == hashlib.sha256(twins[1]).hexdigest()
    assert below(workspace) == set(twins)
    with open_database(workspace.database) as db:
        rows_of = {row["sha256"]: dict(row) for row in db.rows("SELECT * FROM files")}
    for sha256, row in rows_of.items():
        path = workspace.to_path(row["path"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256, row
        if sidecar:
            notes = (
                json.loads((workspace.root / f"{row['path']}.json").read_text()) if row["state"] == "present" else {}
            )
            assert notes.get("sha256", sha256) == sha256
    assert rows_of[second]["path"].endswith(f"_{second[:12]}.jpg")
    before = files(workspace)
    run(workspace, again=Recheck(None, refresh=True), sidecar=sidecar)
    assert files(workspace) == before and only(workspace)["sha256"] == second


def test_a_picture_that_comes_again_keeps_its_longer_name(
    workspace: Workspace, site: Site, twins: tuple[bytes, bytes]
) -> None:
    """The rows of both are lost, as after a kill; nothing is overwritten, and names stay as they were."""
    fill(workspace, originals(site, "/body/0"))
    first, second = (hashlib.sha256(data).hexdigest() for data in twins)
    shelf = workspace.images / hashlib.sha256(b"test:0000").hexdigest()[:2]
    shelf.mkdir(parents=True)
    (shelf / file_name("test:0000", "original", 48, 32, first, "jpg")).write_bytes(twins[0])
    (shelf / file_name("test:0000", "original", 48, 32, second, "jpg", 12)).write_bytes(twins[1])
    site.bodies[0] = twins[1]
    before = files(workspace)
    run(workspace)
    assert files(workspace) == before
    assert only(workspace)["sha256"] == second


def test_a_name_that_belongs_to_a_lost_content_is_not_given_again(workspace: Workspace, site: Site) -> None:
    site.bodies[0] = jpeg(1)
    sha256 = hashlib.sha256(jpeg(1)).hexdigest()
    fill(workspace, originals(site, "/body/0"))
    shelf = hashlib.sha256(b"test:0000").hexdigest()[:2]
    with open_database(workspace.database) as db:
        for digits in (8, 12):
            name = file_name("test:0000", "original", 48, 32, sha256, "jpg", digits)
            db.execute(
                "INSERT INTO files (sha256, path, bytes, format, state, added_at)"
                " VALUES (?, ?, 1, 'jpeg', 'missing', '')",
                (f"{digits:064x}", f"images/{shelf}/{name}"),
            )
    run(workspace)
    assert [name.rpartition("_")[2] for name in files(workspace)] == [f"{sha256[:16]}.jpg"]


def test_a_file_that_is_not_what_its_name_says_is_set_aside(workspace: Workspace, site: Site) -> None:
    site.bodies[0] = jpeg(1)
    fill(workspace, originals(site, "/body/0"))
    shelf = workspace.images / hashlib.sha256(b"test:0000").hexdigest()[:2]
    shelf.mkdir(parents=True)
    name = file_name("test:0000", "original", 48, 32, hashlib.sha256(jpeg(1)).hexdigest(), "jpg")
    (shelf / name).write_bytes(b"precious")
    run(workspace)
    assert files(workspace) == {f"images/{shelf.name}/{name}": jpeg(1)}
    assert (workspace.quarantine / "not-as-named" / name).read_bytes() == b"precious"
    consistent(workspace)


@pytest.mark.parametrize("rename", [rename_unless_taken, _rename_where_free], ids=["links", "no links"])
def test_of_many_who_want_a_name_one_gets_it(tmp_path: Path, rename: Callable[[str, str], None]) -> None:
    count, final = 12, tmp_path / "final"
    for round_ in range(20):
        ready, won = threading.Barrier(count), list[int]()

        def claim(number: int, ready: threading.Barrier = ready, won: list[int] = won) -> None:
            source = tmp_path / f"{number}.part"
            source.write_bytes(b"%d" % number)
            ready.wait()
            try:
                rename(str(source), str(final))
                won.append(number)
            except FileExistsError:
                assert source.read_bytes() == b"%d" % number

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 and final.read_bytes() == b"%d" % won[0], round_
        assert len(list(tmp_path.iterdir())) == count  # the winner's own name is gone
        final.unlink()


KILLED = """
import os, sys, runpy
link = os.link
def killed(source, path, **options):
    link(source, path, **options)
    os._exit(9)
os.link = killed
sys.argv = ["5_download.py", *sys.argv[1:]]
runpy.run_path("5_download.py", run_name="__main__")
"""


@pytest.mark.parametrize("path", ["/broken/1", "/good/1"], ids=["large", "small"])
def test_a_kill_while_a_file_has_two_names_costs_nothing(workspace: Workspace, site: Site, path: str) -> None:
    """Whoever goes on with the temporary one would write into the final one."""
    site.part = 8 << 20
    fill(workspace, originals(site, path))
    ended = subprocess.run([sys.executable, "-c", KILLED, *command(workspace, "--robots", "ignore")], cwd=ROOT)
    assert ended.returncode == 9
    before = files(workspace)
    assert len(before) == 2 and len(set(before.values())) == 1
    (final,) = (name for name in before if ".part" not in name)
    site.asked.clear()
    run(workspace)
    assert files(workspace) == {final: before[final]} and not site.asked
    assert only(workspace)["state"] == "done" and only(workspace)["bytes"] == len(before[final])
    consistent(workspace)


def test_no_id_can_be_made_that_gives_the_files_of_another() -> None:
    """An id that spells out what another's is turned into."""
    odd = "t:A b"
    assert safe_id(f"t:{safe_id(odd).removeprefix('t-')}") != safe_id(odd)
    assert len({safe_id(text) for text in ("t:a--b", "t:a-b", "t:-a", "t:a-", "t:--", "t-:a", "T:a", "t:a")}) == 8
    assert all(len(safe_id(text)) <= 80 for text in ("t:" + "x" * 500, "t:" + "-" * 500, "t:" + "é" * 90))
