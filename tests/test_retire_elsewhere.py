"""Opt-outs and newer versions reach files that `--to` put at an address: they leave it; `--undo` sends them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import pytest
from download_support import (
    command,
    fill,
    only,
    originals,
    report,
    rows,
    run,
    step,
)
from fsspec.implementations.memory import MemoryFileSystem
from hostile_server import Site, jpeg
from support import as_rows, load_step

from lib.db import open_database
from lib.db.download_queue import Recheck
from lib.workspace import Workspace

REFRESH = Recheck(refresh=True)


class Killed(BaseException):
    """Ends a run in the middle, as a signal would."""


class Store(MemoryFileSystem):
    """A store of objects that may refuse to delete, or end the process before or after it has."""

    protocol = "gleanertest"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    trouble = ""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("gleanertest://", "memory://"))

    def rm_file(self, path: str) -> None:
        trouble, Store.trouble = Store.trouble, ""
        if trouble == "refused":
            raise PermissionError(13, "may not delete", path)
        if trouble == "before":
            raise Killed
        super().rm_file(path)
        if trouble == "after":
            raise Killed


fsspec.register_implementation("gleanertest", Store, clobber=True)
ADDRESS = "gleanertest://pictures/here"


@pytest.fixture(name="there", autouse=True)
def there_fixture() -> Iterator[Store]:
    store = fsspec.filesystem("gleanertest")
    Store.store.clear()
    Store.trouble = ""
    yield store


def kept(store: Store) -> list[str]:
    return [str(path) for path in store.find("/pictures")]


def quarantined(workspace: Workspace) -> list[str]:
    return sorted(
        path.relative_to(workspace.quarantine).as_posix() for path in workspace.quarantine.rglob("*") if path.is_file()
    )


def opt_out(workspace: Workspace, site: Site) -> None:
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ?", (site.address("/noai/1"),))


def journal(workspace: Workspace) -> list[tuple[Any, ...]]:
    return as_rows(workspace.database, "SELECT reason, state FROM actions ORDER BY id")


@pytest.mark.parametrize("to", [ADDRESS, ADDRESS + "/", ""])
def test_an_owner_who_opts_out_later_is_heard_at_any_address(
    workspace: Workspace, site: Site, there: Store, to: str
) -> None:
    """Also by a run that keeps its own files elsewhere."""
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    (file,) = kept(there)
    opt_out(workspace, site)
    made = report(workspace, to=to, again=REFRESH)
    assert made.stats.states == {"opted_out": 1} and made.retired == 1
    assert kept(there) == [] and len(quarantined(workspace)) == 1
    assert file.endswith(quarantined(workspace)[0].partition("/")[2])
    assert (workspace.quarantine / quarantined(workspace)[0]).read_bytes() == jpeg(5)
    assert as_rows(workspace.database, "SELECT state, path FROM files") == [
        ("quarantined", f"quarantine/{quarantined(workspace)[0]}")
    ]
    assert journal(workspace) == [("opted_out", "done")] and only(workspace)["sha256"] is None
    assert report(workspace, to=to).retired == 0


def test_it_is_sent_back_by_an_undo(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/tagged/5", "/tagged/6"))
    run(workspace, to=ADDRESS)
    before, listed = kept(there), as_rows(workspace.database, "SELECT path, state FROM files ORDER BY path")
    opt_out(workspace, site)
    run(workspace, to=ADDRESS, again=REFRESH)
    assert kept(there) == [] and step.main(command(workspace, "--undo", "last", "-n", "-q")) == 0
    assert kept(there) == [] and len(quarantined(workspace)) == 2
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert kept(there) == before and quarantined(workspace) == []
    assert as_rows(workspace.database, "SELECT path, state FROM files ORDER BY path") == listed
    assert report(workspace, to=ADDRESS).retired == 0 and kept(there) == before
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0


def test_an_undo_overwrites_nothing_at_an_address(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    (file,) = kept(there)
    opt_out(workspace, site)
    run(workspace, to=ADDRESS, again=REFRESH)
    there.pipe_file(file, b"somebody's")
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert there.cat_file(file) == b"somebody's" and len(quarantined(workspace)) == 1
    there.pipe_file(file, jpeg(5))  # as an undo leaves it that was killed after it had sent the file
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert there.cat_file(file) == jpeg(5) and quarantined(workspace) == []
    assert journal(workspace) == [("opted_out", "undone")]


def test_a_newer_version_replaces_the_old_one_at_an_address(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    site.version = 1
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 1
    (file,) = kept(there)
    assert there.cat_file(file) == jpeg(6) and journal(workspace) == [("superseded", "done")]


def test_what_another_picture_has_too_stays(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/good/5", "/good/5?again"))
    run(workspace, to=ADDRESS)
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ? WHERE url LIKE '%again'", (site.address("/noai/1"),))
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 0
    assert len(kept(there)) == 1 and sorted(row["state"] for row in rows(workspace).values()) == ["done", "opted_out"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_the_removal_loses_nothing(workspace: Workspace, site: Site, there: Store, moment: str) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    opt_out(workspace, site)
    Store.trouble = moment
    with pytest.raises(Killed):
        run(workspace, to=ADDRESS, again=REFRESH)
    assert len(kept(there)) == (moment == "before") and len(quarantined(workspace)) == 1
    report(workspace, to=ADDRESS)
    assert kept(there) == [] and len(quarantined(workspace)) == 1
    assert journal(workspace) == [("opted_out", "done")]
    assert as_rows(workspace.database, "SELECT state FROM files") == [("quarantined",)]


def test_a_store_that_lets_nothing_be_removed_keeps_it_and_is_asked_again(
    workspace: Workspace, site: Site, there: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    opt_out(workspace, site)
    Store.trouble = "refused"
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 0
    assert len(kept(there)) == 1 and not workspace.quarantine.exists()
    assert "is not moved (PermissionError" in caplog.text and journal(workspace) == [("opted_out", "failed")]
    assert report(workspace, to=ADDRESS).retired == 1
    assert kept(there) == [] and len(quarantined(workspace)) == 1


@pytest.mark.parametrize("meanwhile", ["gone", "another"])
def test_what_is_not_there_any_more_is_left_alone(
    workspace: Workspace, site: Site, there: Store, caplog: pytest.LogCaptureFixture, meanwhile: str
) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    (file,) = kept(there)
    opt_out(workspace, site)
    if meanwhile == "gone":
        there.rm_file(file)
    else:
        there.pipe_file(file, b"somebody's")
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 0
    assert not workspace.quarantine.exists() and kept(there) == ([] if meanwhile == "gone" else [file])
    assert "it is left as it is" in caplog.text and journal(workspace) == [("opted_out", "dropped")]
    assert report(workspace, to=ADDRESS).retired == 0 and len(journal(workspace)) == 1
    assert as_rows(workspace.database, "SELECT state FROM files") == [("missing",)]


@pytest.mark.parametrize("to", [ADDRESS, ""])
def test_a_sidecar_leaves_with_its_picture(workspace: Workspace, site: Site, there: Store, to: str) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=to, sidecar=True)
    lying = kept(there) if to else [str(path) for path in workspace.images.rglob("*.*")]
    assert len(lying) == 2 and sum(name.endswith(".json") for name in lying) == 1
    opt_out(workspace, site)
    report(workspace, to=to, again=REFRESH)
    assert kept(there) == [] and not list(workspace.images.rglob("*.json"))
    assert sorted(name.rpartition("/")[2] for name in quarantined(workspace)) == sorted(
        name.rpartition("/")[2] for name in lying
    )
    assert journal(workspace) == [("opted_out", "done")] * 2
    assert step.main(command(workspace, "--undo", "last")) == 0
    assert len(kept(there) if to else list(workspace.images.rglob("*.*"))) == 2 and not quarantined(workspace)


def test_copies_that_step_7_made_leave_too(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5", "/good/1"))
    run(workspace)
    sort = load_step("sort")
    assert sort.main(["--workspace", str(workspace.root), "-q", "orientation"]) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 2
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ? WHERE url LIKE '%tagged%'", (site.address("/noai/1"),))
    assert step.main(command(workspace, "--refresh")) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 1
    assert len(quarantined(workspace)) == 2
    assert step.main(command(workspace, "--undo", "last")) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 2
