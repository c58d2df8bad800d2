"""Step 5 on pictures that it has: asking whether they changed, better addresses, thumbnails first."""

from __future__ import annotations

import json

import pytest
from download_support import (
    Rows,
    command,
    consistent,
    files,
    fill,
    only,
    originals,
    report,
    rows,
    run,
    step,
)
from hostile_server import Site, jpeg
from support import as_rows, flat

from lib.db import open_database
from lib.db.download_queue import Recheck
from lib.workspace import Workspace

REFRESH, UPGRADE, ORIGINALS = Recheck(refresh=True), Recheck(upgrade=True), Recheck(untried=True)


def quarantined(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.quarantine.rglob("*") if path.is_file())


def thumbs_and_originals(site: Site, count: int, original: str = "/large/") -> Rows:
    return {
        f"test:{n:04d}": [
            ("thumb", site.address(f"/good/{n}"), 48, 32),
            ("original", site.address(f"{original}{n}"), 200, 100),
        ]
        for n in range(count)
    }


def test_a_refresh_asks_with_the_entity_tag_and_changes_nothing(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    before, kept = only(workspace), files(workspace)
    made = report(workspace, again=REFRESH)
    assert made.stats.states == {"unchanged": 1} and made.stats.received == 0
    assert site.headers["/tagged/5"]["If-None-Match"] == '"5-0"'
    after = only(workspace)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"attempts", "checked_at"} and files(workspace) == kept


def test_a_run_with_new_pictures_refreshes_the_earlier_ones_too(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5", "/tagged/6"))
    run(workspace)
    fill(workspace, {"test:new": [("original", site.address("/good/7"), 48, 32)]})
    assert run(workspace, again=REFRESH).states == {"done": 1, "unchanged": 2}


def test_a_changed_picture_replaces_the_old_one_which_goes_to_the_quarantine(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    (old,) = files(workspace)
    site.version = 1
    made = report(workspace, again=REFRESH)
    assert made.stats.states == {"replaced": 1} and made.retired == 1
    assert list(files(workspace).values()) == [jpeg(6)] and quarantined(workspace) == [old.rpartition("/")[2]]
    assert only(workspace)["etag"] == '"5-1"'
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert old in files(workspace) and quarantined(workspace) == []
    assert report(workspace).retired == 0 and old in files(workspace)


def test_a_picture_that_comes_back_is_taken_out_of_the_quarantine(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    first = files(workspace)
    for version in (1, 0):
        site.version = version
        run(workspace, again=REFRESH)
    assert files(workspace) == first and only(workspace)["etag"] == '"5-0"'
    consistent(workspace)


def test_a_refused_picture_does_not_come_back(workspace: Workspace, site: Site) -> None:
    """What steps 6 and 7 put into quarantine stays there, also when its address shows it anew."""
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    (name,) = files(workspace)
    (workspace.root / name).unlink()
    with open_database(workspace.database) as db:
        db.execute("UPDATE files SET state = 'quarantined', path = 'quarantine/1/x.jpg'")
        db.execute("UPDATE downloads SET etag = ''")
    run(workspace, again=REFRESH)
    assert files(workspace) == {}


@pytest.mark.parametrize("path", ["/missing/1", "/html/1", "/error/1", "/cut/1"])
def test_what_is_gone_meanwhile_is_kept_here(workspace: Workspace, site: Site, path: str) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    before = files(workspace)
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ?", (site.address(path),))
    stats = run(workspace, again=REFRESH)
    assert stats.states == {"kept": 1} and files(workspace) == before
    assert (only(workspace)["state"], only(workspace)["wish"]) == ("done", "")
    assert json.loads(only(workspace)["log"])[0]["reason"] in stats.reasons
    consistent(workspace)


def test_an_owner_who_opts_out_later_is_heard(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ?", (site.address("/noai/1"),))
    run(workspace, again=REFRESH)
    assert (only(workspace)["state"], only(workspace)["sha256"]) == ("opted_out", None)
    assert files(workspace) == {} and len(quarantined(workspace)) == 1
    assert as_rows(workspace.database, "SELECT reason FROM actions") == [("opted_out",)]


def test_an_owner_who_opts_out_of_an_unchanged_picture_is_heard(workspace: Workspace, site: Site) -> None:
    """The headers of "not modified" say it, and no body does."""
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace)
    site.unchanged = {"X-Robots-Tag": "noai"}
    run(workspace, again=REFRESH)
    assert (only(workspace)["state"], only(workspace)["sha256"]) == ("opted_out", None)
    assert files(workspace) == {} and len(quarantined(workspace)) == 1


def test_an_interrupted_refresh_goes_on_where_it_was(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, *[f"/tagged/{n}" for n in range(6)]))
    run(workspace)
    site.asked.clear()
    run(workspace, again=REFRESH, limit=4)
    run(workspace, again=REFRESH)
    assert set(site.asked.values()) == {1} and len(site.asked) == 6


def test_an_upgrade_tries_the_better_address_again(workspace: Workspace, site: Site) -> None:
    fill(workspace, thumbs_and_originals(site, 3, "/missing/"))
    run(workspace)
    thumbs = sorted(files(workspace))
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = replace(url, '/missing/', '/large/') WHERE kind = 'original'")
    site.asked.clear()
    made = report(workspace, again=UPGRADE)
    assert made.stats.states == {"replaced": 3} and made.retired == 3
    assert {row["kind"] for row in rows(workspace).values()} == {"original"}
    assert len(files(workspace)) == 3 and not set(files(workspace)) & set(thumbs)
    assert len(quarantined(workspace)) == 3 and not any(path.startswith("/good") for path in site.asked)
    site.asked.clear()
    assert run(workspace, again=UPGRADE).states == {} and not site.asked


def test_a_better_address_with_a_smaller_picture_replaces_nothing(workspace: Workspace, site: Site) -> None:
    fill(workspace, {"test:1": [("thumb", site.address("/large/1")), ("original", site.address("/missing/1"))]})
    run(workspace)
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ? WHERE kind = 'original'", (site.address("/good/1"),))
    stats = run(workspace, again=UPGRADE)
    assert stats.states == {"kept": 1} and stats.reasons == {"not_better": 1}
    assert only(workspace)["kind"] == "thumb" and len(files(workspace)) == 1
    consistent(workspace)


def test_thumbs_then_the_originals_of_what_was_kept(workspace: Workspace, site: Site) -> None:
    fill(workspace, thumbs_and_originals(site, 4))
    assert run(workspace, stage="thumbs").states == {"done": 4}
    assert {path.split("/")[1] for path in site.asked} == {"good"}
    with open_database(workspace.database) as db:  # as steps 6 and 7 do with what they refuse
        db.execute(
            "UPDATE files SET state = 'quarantined' WHERE sha256 IN"
            " (SELECT sha256 FROM downloads JOIN images ON id = image_id WHERE key IN ('test:0001', 'test:0003'))"
        )
    site.asked.clear()
    chosen = Recheck(untried=True, kept=True)
    made = report(workspace, stage="originals", again=chosen)
    assert made.stats.states == {"replaced": 2} and sorted(site.asked) == ["/large/0", "/large/2"]
    assert {row["key"] for row in rows(workspace).values() if row["kind"] == "original"} == {
        "test:0000",
        "test:0002",
    }
    site.asked.clear()
    assert run(workspace, stage="originals", again=chosen).states == {} and not site.asked


def test_originals_include_what_no_thumb_stood_for(workspace: Workspace, site: Site) -> None:
    """Pictures that were never fetched, and those whose thumbs failed."""
    fill(workspace, {"a:1": [("original", site.address("/large/1"))]})
    fill(workspace, {"b:1": [("thumb", site.address("/missing/1")), ("original", site.address("/large/2"))]})
    assert run(workspace, stage="thumbs").states == {"failed": 1}
    assert rows(workspace)["a:1"]["state"] == "pending"
    assert run(workspace, stage="originals", again=ORIGINALS).states == {"done": 2}
    site.asked.clear()
    assert run(workspace, stage="originals", again=ORIGINALS).states == {} and not site.asked
    consistent(workspace)


def test_an_original_that_fails_leaves_the_thumb_and_is_not_asked_twice(workspace: Workspace, site: Site) -> None:
    fill(workspace, thumbs_and_originals(site, 1, "/missing/"))
    run(workspace, stage="thumbs")
    before = files(workspace)
    assert run(workspace, stage="originals", again=ORIGINALS).states == {"kept": 1}
    assert run(workspace, stage="originals", again=ORIGINALS).states == {}
    assert site.asked["/missing/0"] == 1 and files(workspace) == before


def test_the_command_and_its_dry_run(workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    fill(workspace, thumbs_and_originals(site, 2))
    assert step.main(command(workspace, "--stage", "thumbs", "-q")) == 0
    capsys.readouterr()
    assert step.main(command(workspace, "--stage", "originals", "--only", "kept", "--dry-run")) == 0
    out, err = capsys.readouterr()
    assert f"would upgrade  test:0000  original  {site.address('/large/0')}" in out and "2 to fetch" in err
    assert step.main(command(workspace, "--refresh", "--dry-run")) == 0
    assert f"would refresh  test:0000  thumb  {site.address('/good/0')}" in capsys.readouterr().out
    assert step.main(command(workspace, "--stage", "originals", "--only", "kept", "--json")) == 0
    found = flat(capsys.readouterr().out)
    assert found["counts"]["replaced"] == 2 and found["retired"] == 2 and found["kinds"] == {"original": 2}
    (host,) = found["hosts"].values()
    assert host["requests"] == 2 and host["failures"] == 0
