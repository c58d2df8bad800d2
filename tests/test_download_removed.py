"""What step 6 took away as a repeat is not fetched again, whichever picture asks for it, until it is brought back."""

from __future__ import annotations

import io
import json
import sys

import pytest
from download_support import (
    command,
    consistent,
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


def state(workspace: Workspace) -> dict[str, object]:
    """What the database and the disk say of the pictures: their places and states, and what counts as taken away."""
    asked = {
        "files": "SELECT sha256, path, state FROM files ORDER BY 1",
        "downloads": "SELECT image_id, state, reason, sha256 FROM downloads ORDER BY 1",
        "tombstones": "SELECT sha256 FROM tombstones",
        "addresses": "SELECT url FROM buried_addresses",
        "kept": "SELECT path, sha256, keeper_sha256 FROM kept_files",
    }
    return {name: as_rows(workspace.database, sql) for name, sql in asked.items()} | {"disk": files(workspace)}


def states(workspace: Workspace) -> set[str]:
    return {state for (state,) in as_rows(workspace.database, "SELECT state FROM files")}


def decide(workspace: Workspace, word: str) -> list[str]:
    """The flags that bring the removed picture back, by a decision of the page or by --restore."""
    ((keeper, path),) = as_rows(
        workspace.database, "SELECT keeper_path, path FROM duplicates WHERE group_no > 0 AND decision = 'remove'"
    )
    if word == "restore":
        return ["--restore", path]
    place = workspace.root / "decisions.json"
    chosen = {"keeper": str(workspace.root / keeper), "path": str(workspace.root / path), "decision": word}
    place.write_text(json.dumps({"version": 1, "decisions": [chosen]}), encoding="utf-8")
    return ["exact", "--decisions", str(place)]


@pytest.mark.parametrize("word", ["restore", "keep"])
def test_a_picture_of_the_workspace_that_is_brought_back_stays_and_is_fetched_again(
    workspace: Workspace, site: Site, removed: str, word: str
) -> None:
    run(workspace)  # notes that step 6 took what two pictures ask for
    taken = state(workspace)
    dedup(workspace, *decide(workspace, word))
    back = state(workspace)
    assert states(workspace) == {"present"} and len(files(workspace)) == 3
    assert not back["tombstones"] and not back["addresses"]
    dedup(workspace, "exact")  # kept by hand
    assert state(workspace) == back
    dedup(workspace, "--undo", "last")  # of the return
    again = state(workspace)
    held = [row for row in rows(workspace).values() if row["reason"] == REMOVED]
    assert again | {"downloads": 0} == taken | {"downloads": 0} and not held  # asked again at the next run of step 5
    run(workspace)
    assert state(workspace) == taken and not site.asked
    dedup(workspace, *decide(workspace, word))
    run(workspace)
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    consistent(workspace)
    before = files(workspace)
    dedup(workspace, "exact")
    assert files(workspace) == before


def test_an_exchange_in_the_workspace_turns_what_is_remembered_round(
    workspace: Workspace, site: Site, removed: str
) -> None:
    run(workspace)
    ((gone, keeper),) = as_rows(workspace.database, "SELECT sha256, keeper_sha256 FROM duplicates")
    (number,) = as_rows(workspace.database, "SELECT max(run_id) FROM duplicates")[0]
    taken = state(workspace)
    dedup(workspace, *decide(workspace, "keeper"))
    now = dict(as_rows(workspace.database, "SELECT sha256, state FROM files"))
    assert now[gone] == "present" and now[keeper] == "quarantined"
    assert as_rows(workspace.database, "SELECT sha256 FROM tombstones") == [(keeper,)]
    ((address,),) = as_rows(workspace.database, "SELECT url FROM buried_addresses")
    assert address != removed
    exchanged = state(workspace)
    dedup(workspace, "exact")
    assert state(workspace) == exchanged
    dedup(workspace, "--undo", "last")
    assert state(workspace) | {"downloads": 0} == taken | {"downloads": 0}
    dedup(workspace, "--undo", str(number))
    assert states(workspace) == {"present"}
    assert not state(workspace)["tombstones"]


def test_the_removal_of_a_workspace_picture_can_be_taken_back_before_its_return(
    workspace: Workspace, site: Site, removed: str
) -> None:
    (first,) = as_rows(workspace.database, "SELECT max(run_id) FROM duplicates")[0]
    taken = state(workspace)
    dedup(workspace, *decide(workspace, "restore"))
    dedup(workspace, "--undo", str(first))  # nothing is left of it to take back
    assert states(workspace) == {"present"}
    dedup(workspace, "--undo", "last")
    assert state(workspace) == taken
    dedup(workspace, "--undo", str(first))
    assert states(workspace) == {"present"} and not state(workspace)["tombstones"]
