"""What step 6 took away as a repeat is not fetched again, whichever picture asks for it, until it is brought back."""

from __future__ import annotations

import io
import sys

import pytest
from download_support import (
    command,
    files,
    fill,
    rows,
    run,
    step,
)
from hostile_server import Site
from support import as_rows, load_step

from lib.db import open_database
from lib.db.downloads import enqueue
from lib.db.duplicates import REMOVED, removed_images
from lib.workspace import Workspace


def dedup(workspace: Workspace, *words: str) -> None:
    assert load_step("dedup").main(["--workspace", str(workspace.root), "-q", *words]) == 0


@pytest.fixture(name="removed")
def removed_fixture(workspace: Workspace, site: Site) -> str:
    """Two pictures with the same pixels, of which step 6 took one; the address of that one."""
    pair = {f"t:{n}": [("original", site.address(path))] for n, path in enumerate(("/good/4", "/polyglot/1"))}
    fill(workspace, {**pair, "t:2": [("original", site.address("/good/9"))]})
    run(workspace)
    dedup(workspace, "exact")
    ((address,),) = as_rows(workspace.database, "SELECT url FROM buried_addresses")
    fill(
        workspace, {"u:1": [("original", address)], "u:2": [("thumb", address), ("original", site.address("/good/7"))]}
    )
    site.asked.clear()
    return str(address)


def test_removed_pictures_are_not_fetched_again_until_they_are_back(
    workspace: Workspace, site: Site, removed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(workspace)
    assert step.main(command(workspace, "--dry-run")) == 0
    assert capsys.readouterr().out.count("nothing: step 6 took it away as a repeat") == 2
    assert step.main(command(workspace)) == 0
    assert "2 blocked" in capsys.readouterr().err
    for again in ([], ["--retry-failed"], ["--refresh"], ["--upgrade"]):
        assert step.main(command(workspace, "-q", *again)) == 0
        found = {key: (row["state"], row["reason"]) for key, row in rows(workspace).items()}
        assert found["u:1"] == found["u:2"] == ("blocked", REMOVED)
    assert removed.removeprefix(site.url) not in site.asked and "/good/7" not in site.asked
    assert files(workspace) == before
    dedup(workspace, "--undo", "last")
    assert as_rows(workspace.database, "SELECT count(*) FROM buried_addresses") == [(0,)]
    run(workspace)
    assert {row["state"] for row in rows(workspace).values()} == {"done"} and site.asked["/good/7"] == 1


AS_KILLED = {
    "marked": "UPDATE runs SET exit_code = NULL, finished_at = NULL WHERE step = 'dedup'",
    "moved": "UPDATE actions SET state = 'planned', finished_at = '';"
    " UPDATE files SET state = 'present', path = (SELECT source FROM actions WHERE actions.sha256 = files.sha256)"
    " WHERE state = 'quarantined'",
}


@pytest.mark.parametrize("how", [("marked",), ("marked", "moved")], ids=" and ".join)
def test_what_a_killed_step_6_took_away_is_not_fetched_again(
    workspace: Workspace, site: Site, removed: str, how: tuple[str, ...]
) -> None:
    """Step 6 never ran again: it was killed after the mark of its move, or before that."""
    before = files(workspace)
    with open_database(workspace.database) as db:
        db.execute("DELETE FROM tombstones")
        for name in how:
            db.connection.executescript(AS_KILLED[name])
    run(workspace)
    found = {key: (row["state"], row["reason"]) for key, row in rows(workspace).items()}
    assert found["u:1"] == found["u:2"] == ("blocked", REMOVED)
    assert not site.asked and files(workspace) == before
    assert as_rows(workspace.database, "SELECT count(*) FROM files WHERE state = 'quarantined'") == [(1,)]
    dedup(workspace, "--undo", "last")
    run(workspace)
    assert {row["state"] for row in rows(workspace).values()} == {"done"}


def test_what_was_deleted_for_good_does_not_come_back(
    workspace: Workspace, site: Site, removed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its own row, nor from an address that nobody has asked before."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    dedup(workspace, "--purge", "last")
    before = files(workspace)
    fill(workspace, {"v:1": [("original", f"{removed}?again"), ("thumb", site.address("/good/8"))]})
    with open_database(workspace.database) as db:  # what a check with a repair makes of it
        db.execute(
            "UPDATE downloads SET state = 'pending', sha256 = NULL, variant_id = NULL"
            " WHERE sha256 IN (SELECT sha256 FROM files WHERE state = 'missing')"
        )
    run(workspace)
    found = [(row["state"], row["reason"]) for row in rows(workspace).values()]
    assert found.count(("blocked", REMOVED)) == 4 and found.count(("done", "")) == 2
    assert sum(site.asked.values()) == 1 and files(workspace) == before


def test_a_content_that_is_here_again_is_not_removed(workspace: Workspace, site: Site, removed: str) -> None:
    with open_database(workspace.database) as db:
        enqueue(db)
        ids = [row[0] for row in db.rows("SELECT id FROM images WHERE key LIKE 'u:%' ORDER BY key")]
        assert set(removed_images(db, ids)) == set(ids)
        db.execute("UPDATE files SET state = 'present'")
        assert removed_images(db, ids) == {}


def test_the_question_costs_nothing_where_nothing_was_removed(workspace: Workspace, site: Site) -> None:
    """It is answered from the side of what was removed, by its key."""
    fill(workspace, {"t:1": [("original", site.address("/good/1"))]})
    with open_database(workspace.database) as db:
        plan = db.rows(
            "EXPLAIN QUERY PLAN SELECT image_id FROM image_variants"
            " JOIN buried_addresses ON buried_addresses.url = image_variants.url WHERE image_id IN (1, 2)"
        )
    assert any("SEARCH buried_addresses USING PRIMARY KEY" in row["detail"] for row in plan)
    assert not any(row["detail"].startswith("SCAN") for row in plan)
