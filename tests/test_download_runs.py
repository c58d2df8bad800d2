"""Step 5, one run after another: what is asked again, when, and how gently."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from download_support import (
    command,
    consistent,
    files,
    fill,
    only,
    options,
    originals,
    report,
    rows,
    run,
    start,
    step,
)
from hostile_server import Site, jpeg
from support import PATIENCE, ROOT, peak_of_step, wait_until

from lib.db import Context, open_database
from lib.db.download_queue import claim
from lib.download.options import PictureLimits
from lib.download.run import download
from lib.net.failures import FINAL, is_reason
from lib.net.request import FetchLimits
from lib.times import utc_in
from lib.workspace import Workspace


def test_a_second_run_asks_nobody_and_changes_nothing(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1", "/noai/1", "/html/1", "/flaky/3"))
    run(workspace)
    before, shown = rows(workspace), files(workspace)
    site.asked.clear()
    assert run(workspace).states == {}
    assert not site.asked and rows(workspace) == before and files(workspace) == shown


def test_the_limit_counts_pictures(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(9)]))
    assert run(workspace, limit=4).states == {"done": 4}
    assert run(workspace).states == {"done": 5}
    assert set(site.asked.values()) == {1}


def test_an_address_that_step_4_took_away_meanwhile(workspace: Workspace, site: Site) -> None:
    site.held = True
    fill(workspace, originals(site, "/good/1"))
    process = start(workspace)
    wait_until(lambda: site.asked, "the picture is asked for")
    with open_database(workspace.database) as db:
        db.execute("DELETE FROM image_variants")
    site.held = False
    assert process.wait(PATIENCE) == 0
    assert (only(workspace)["state"], only(workspace)["variant_id"]) == ("done", None)
    consistent(workspace)


def test_retry_failed_all_or_by_reason(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1", "/html/1", "/noai/1"))
    run(workspace)
    site.asked.clear()
    run(workspace, retry=["not_an_image"])
    assert site.asked == {"/html/1": 1}
    run(workspace, retry=[])
    assert site.asked == {"/html/1": 2, "/missing/1": 1}
    assert rows(workspace)["test:0002"]["attempts"] == 3


def test_a_reason_that_no_row_has_is_nothing_to_do(workspace: Workspace, site: Site) -> None:
    """The same command twice: the second time nothing has failed for that reason any more."""
    fill(workspace, originals(site, "/flaky/1", "/missing/1"))
    run(workspace, retries=0)
    for _ in range(2):
        assert step.main(command(workspace, "-q", "--retry-failed", "http_500", "connect_error")) == 0
    assert [row["state"] for row in rows(workspace).values()] == ["done", "failed"]


def test_every_reason_of_the_manual_is_known() -> None:
    table = (ROOT / "docs" / "download.md").read_text().split("| reason | tried again? |")[1].split("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.count("|") > 2]
    named = {word for cell in first for word in re.findall(r"`([a-z0-9_]+)", cell)}
    waiting = {"host_paused", "host_down", "offline", "not_better", "opted_out", "http_52x", "http_"}
    assert named and {word for word in named - waiting if not is_reason(word)} == set()
    assert named >= FINAL


def test_what_robots_txt_forbade_is_asked_again_by_that_name(workspace: Workspace, site: Site) -> None:
    site.robots = "User-agent: *\nDisallow: /good/"
    fill(workspace, originals(site, "/good/1", "/noai/1"))
    run(workspace, robots="obey")
    run(workspace, robots="ignore", retry=[])
    assert {row["state"] for row in rows(workspace).values()} == {"opted_out"}
    assert step.main(command(workspace, "-q", "--robots", "ignore", "--retry-failed", "robots_txt")) == 0
    found = [(row["state"], row["reason"]) for row in rows(workspace).values()]
    assert found == [("done", ""), ("opted_out", "opted_out")] and site.asked["/noai/1"] == 1


def test_a_long_retry_after_leaves_the_row_for_a_later_run(workspace: Workspace, site: Site) -> None:
    """Ten rows of one host, asked one at a time: the first answer speaks for all of them."""
    fill(workspace, originals(site, *[f"/late/{n}" for n in range(10)]))
    made = report(workspace, per_host=1)
    found = list(rows(workspace).values())
    assert {row["state"] for row in found} == {"pending"} and sum(site.asked.values()) == 1
    assert {row["reason"] for row in found} == {"http_429", "host_paused"}
    assert all(utc_in(3000) < row["next_try_at"] <= utc_in(3600) for row in found)
    assert made.waiting == 10
    before = rows(workspace)
    run(workspace)
    assert rows(workspace) == before and sum(site.asked.values()) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bar_tells_bytes_a_second_states_and_the_slowest_host(
    workspace: Workspace, site: Site, workers: int
) -> None:
    site.slow = 0.02
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(120)], *["/missing/1"] * 9))
    shown: list[str] = []
    counted: list[float] = []

    class Shown:
        def update(self, n: float = 1) -> None:
            counted.append(n)

        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            shown.append(s)

    @contextmanager
    def bar(total: int | None = None, description: str = "", unit: str = "it") -> Iterator[Shown]:
        yield Shown()

    with open_database(workspace.database) as db:
        download(Context(db, workspace, None, bar=bar), options(workers=workers, per_host=2))  # type: ignore[arg-type]
    assert sum(counted) == 129
    host = re.escape(site.url.removeprefix("http://"))
    assert any(
        re.fullmatch(rf"[\d.]+ MiB/s, \d+ done(, \d+ failed)?, slowest {host} [\d.]+ s", text) for text in shown
    ), shown


def test_a_busy_host_keeps_nobody_waiting(workspace: Workspace, site: Site) -> None:
    busy = {f"busy:{n}": [("original", site.address(f"/after/{n}"))] for n in range(6)}
    good = {f"good:{n}": [("original", site.address(f"/good/{n}").replace("127.0.0.1", "localhost"))] for n in range(6)}
    fill(workspace, busy)
    fill(workspace, good)
    stats = run(workspace, per_host=1, concurrency=2, retries=0)
    assert stats.states == {"done": 12}  # the busy host answers once the other one has been asked for everything


def test_per_host_limit(workspace: Workspace, site: Site) -> None:
    site.slow = 0.02
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(40)]))
    run(workspace, per_host=3, concurrency=20)
    assert site.most_at_once <= 3 and len(site.peers) <= 3


def test_rows_of_another_live_process_are_left_alone(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace, limit=1)
    with open_database(workspace.database) as db:
        db.execute("UPDATE downloads SET state = 'pending', lease = 'elsewhere:1', lease_until = ?", (utc_in(60),))
        assert claim(db, "here:2", utc_in(60), ("", -1), 10) == []
        db.execute("UPDATE downloads SET lease_until = ?", (utc_in(-60),))
        assert len(claim(db, "here:2", utc_in(60), ("", -1), 10)) == 2


def test_memory_holds_a_window_of_rows_only(workspace: Workspace, site: Site) -> None:
    """More rows than the window, all to one host: they come out of the database in blocks."""
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(2600)]))
    stats = run(workspace, per_host=16)
    assert stats.states == {"done": 2600} and sum(site.asked.values()) == 2600
    assert len(site.peers) <= 16  # kept alive, not opened anew
    consistent(workspace)


def test_large_bodies_in_flight_do_not_fill_the_memory(workspace: Workspace, site: Site) -> None:
    """Forty bodies of six megabytes at once: what is in memory is bounded, the rest waits on the disk."""
    fill(workspace, originals(site, *[f"/big/{n}" for n in range(40)]))
    peak = peak_of_step("download", *command(workspace, "--per-host", "40", "-q"))
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    assert peak < 250
    consistent(workspace)


def test_a_large_picture_goes_through_a_temporary_file(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/big/1"))
    run(workspace, limits=FetchLimits(max_bytes=8 << 20))
    ((name, data),) = files(workspace).items()
    assert len(data) > 6 << 20 and data.startswith(jpeg(1)) and name.endswith(".jpg")
    consistent(workspace)
    fill(workspace, {"other:1": [("original", site.address("/big/2"))]})
    run(workspace, limits=FetchLimits(max_bytes=5 << 20))
    assert rows(workspace)["other:1"]["reason"] == "too_large"
    consistent(workspace)


def test_the_limit_on_pixels_is_an_option(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1"))
    run(workspace, pictures=PictureLimits(1000))
    assert only(workspace)["reason"] == "too_many_pixels" and files(workspace) == {}


def test_no_cookie_is_kept_and_no_password_sent(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/cookie/1", "/good/1"))
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = replace(url, '//', '//me:secret@')")
    run(workspace, concurrency=1)
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    assert all("Cookie" not in h and "Authorization" not in h for h in site.headers.values())
