"""Defects of the reference pipeline's downloader that were reproduced, each with the behaviour that replaces it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from download_support import (
    command,
    consistent,
    files,
    fill,
    only,
    options,
    originals,
    rows,
    run,
    step,
)
from hostile_server import Site, jpeg

from lib.db import Context, open_database
from lib.download.outcomes import BATCH_SECONDS
from lib.download.run import download
from lib.workspace import Workspace


def test_ids_with_dots_do_not_share_a_file(workspace: Workspace, site: Site) -> None:
    """`a.b` and `a.c` both became `a.jpg`, and the second got the first one's picture."""
    fill(
        workspace, {"y:a.b": [("original", site.address("/good/1"))], "y:a.c": [("original", site.address("/good/2"))]}
    )
    run(workspace)
    assert sorted(files(workspace).values()) == sorted([jpeg(1), jpeg(2)])
    assert len({row["sha256"] for row in rows(workspace).values()}) == 2


def test_a_retry_after_with_a_date_does_not_end_the_run(workspace: Workspace, site: Site) -> None:
    """`int()` of a date raised inside the handler and took everything with it."""
    fill(workspace, originals(site, "/date/1", "/good/1"))
    assert run(workspace).states == {"done": 2}


def test_a_retry_after_holds_no_slot(workspace: Workspace, site: Site) -> None:
    """It slept for as long as the server liked, in one of its forty places."""
    fill(workspace, originals(site, "/late/1"))
    fill(workspace, {"other:1": [("original", site.address("/good/1").replace("127.0.0.1", "localhost"))]})
    run(workspace, concurrency=1)  # pytest's limit on a test is less than the server likes
    assert [row["state"] for row in rows(workspace).values()] == ["done", "pending"]


@pytest.mark.parametrize(
    ("path", "state", "reason"),
    [("/html/1", "failed", "not_an_image"), ("/empty/1", "failed", "empty"), ("/octet/1", "done", "")],
)
def test_the_bytes_say_what_a_file_is(workspace: Workspace, site: Site, path: str, state: str, reason: str) -> None:
    """Pages were kept as `.html`, empty bodies kept, JPEGs of type octet-stream named `.bin`: all "downloaded"."""
    fill(workspace, originals(site, path))
    run(workspace)
    assert (only(workspace)["state"], only(workspace)["reason"]) == (state, reason)
    assert [Path(name).suffix for name in files(workspace)] == ([".jpg"] if state == "done" else [])


def test_a_404_is_asked_once_and_the_next_address_is_tried(workspace: Workspace, site: Site) -> None:
    """It was asked four times, and the other address never."""
    fill(workspace, {"y:1": [("original", site.address("/missing/1")), ("preview", site.address("/good/1"))]})
    run(workspace, retries=3)
    assert site.asked == {"/missing/1": 1, "/good/1": 1} and only(workspace)["kind"] == "preview"


def test_what_is_there_is_not_asked_for(workspace: Workspace, site: Site) -> None:
    """The test for an existing file came after the request."""
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace)
    site.asked.clear()
    assert run(workspace).states == {} and not site.asked


def test_rows_with_one_address_do_not_write_one_temporary_file(workspace: Workspace, site: Site) -> None:
    """The temporary name lacked the row, so two of them wrote the same file at once."""
    site.slow = 0.05
    fill(workspace, originals(site, *["/good/1"] * 12))
    assert run(workspace, per_host=12).files == 1
    consistent(workspace)


def test_rows_come_out_of_the_database_a_window_at_a_time(workspace: Workspace, site: Site) -> None:
    """A task was made for every row at the start."""
    site.slow = 0.001
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(400)]))
    held: list[int] = []
    with open_database(workspace.database) as db:

        def check() -> bool:
            held.append(db.value("SELECT count(*) FROM downloads WHERE lease <> ''"))
            return False

        download(Context(db, workspace, None, stopping=check), options(window=40, per_host=16))  # type: ignore[arg-type]
        # What is finished keeps its lease until its batch is written, so that comes on top of the window.
        assert 0 < max(held) <= 40 + 200
    assert {row["state"] for row in rows(workspace).values()} == {"done"}


def test_rows_are_written_in_batches(workspace: Workspace, site: Site) -> None:
    """Every row paid for a connection, a commit and a close, in the event loop."""
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(300)]))
    said: list[str] = []
    with open_database(workspace.database) as db:
        db.connection.set_trace_callback(said.append)
        made = download(Context(db, workspace, None), options(per_host=16))  # type: ignore[arg-type]
    commits = [text for text in said if text.upper().startswith("COMMIT")]
    assert len(commits) < 20 + made.seconds / BATCH_SECONDS


def test_the_original_is_what_is_fetched(workspace: Workspace, site: Site) -> None:
    """Only the search engine's own copies were ever asked for."""
    variants = [("preview", site.address("/good/1"), 900, 900), ("original", site.address("/large/1"))]
    fill(workspace, {"y:1": variants})
    run(workspace)
    assert only(workspace)["kind"] == "original" and site.asked == {"/large/1": 1}


def test_nothing_to_do_is_no_error_and_nobody_is_asked_to_type(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report divided by the number of downloads, and the end waited for a key."""
    fill(workspace, originals(site, "/good/1"))
    run(workspace)
    assert step.main(command(workspace, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["done"] == 0
