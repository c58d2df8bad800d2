"""Fairness: host and domain limits, rhythm, hosts that are down, no network; robots.txt; placeholders; resume."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from download_support import (
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
from support import PATIENCE

from lib.db import open_database
from lib.domains import write_list
from lib.download.body import read_placeholders
from lib.errors import GleanerError, UsageError
from lib.net.host_queues import DOWN_AFTER, HostPolicies, HostPolicy, HostQueues, known_policies
from lib.net.request import FetchLimits
from lib.workspace import Workspace


async def take_all(queues: HostQueues[str]) -> list[str]:
    """What may be started right now, one after the other."""
    taken = []
    while True:
        try:
            _, job = await asyncio.wait_for(queues.take(), 0.01)
        except TimeoutError:
            return taken
        taken.append(job)


def test_hosts_of_one_domain_share_a_limit() -> None:
    async def run() -> list[str]:
        queues: HostQueues[str] = HostQueues(2, 3)
        for host in ("a.example.com:80", "b.example.com:80", "c.example.com:443", "other.org:80"):
            for n in range(4):
                queues.put(host, f"{host[0]}{n}")
        taken = await take_all(queues)
        assert sorted(taken) == ["a0", "b0", "c0", "o0", "o1"]
        host = queues.hosts["a.example.com:80"]
        queues.done(host, "", 0.1)
        return await take_all(queues)

    assert asyncio.run(run()) in (["a1"], ["b1"], ["c1"])


def test_known_hosts_are_asked_in_their_rhythm() -> None:
    async def run() -> float:
        queues: HostQueues[str] = HostQueues(6, 12, HostPolicies({"vk.com": HostPolicy(per_host=2, gap=0.08)}))
        for n in range(4):
            queues.put("sun1.vk.com:443", str(n))
        started = queues.loop.time()
        for _ in range(4):
            host, _ = await asyncio.wait_for(queues.take(), PATIENCE)
            queues.done(host, "", 0.0)
        return queues.loop.time() - started

    assert asyncio.run(run()) >= 3 * 0.5 * 0.08  # three pauses, each of which is half of the mean at least


def test_processes_divide_the_limits() -> None:
    async def run() -> list[str]:
        queues: HostQueues[str] = HostQueues(6, 12, share=3)
        for n in range(9):
            queues.put("example.com:80", str(n))
        return await take_all(queues)

    assert asyncio.run(run()) == ["0", "1"]


def test_the_table_of_known_hosts() -> None:
    known = known_policies()
    assert known.of("vk.com").gap >= 0.5 and known.of("userapi.com").per_host == 2
    assert known.of("example.com") == HostPolicy()


def test_a_host_that_is_down_is_left_alone_and_the_next_address_is_asked(workspace: Workspace, site: Site) -> None:
    dead = "http://127.0.0.1:1"
    fill(workspace, {f"t:{n:02d}": [("original", f"{dead}/{n}")] for n in range(30)})
    fill(workspace, {f"u:{n:02d}": [("original", f"{dead}/{n}"), ("thumb", site.address("/good/1"))] for n in range(9)})
    stats = run(workspace, retries=0, per_host=1)
    assert sum(host.requests for name, host in stats.hosts.items() if name.endswith(":1")) == DOWN_AFTER
    assert stats.states == {"failed": DOWN_AFTER, "pending": 20, "done": 9}
    assert stats.reasons == {"connect_error": DOWN_AFTER, "host_down": 20}
    waiting = [row for row in rows(workspace).values() if row["state"] == "pending"]
    assert all(row["reason"] == "host_down" and row["next_try_at"] for row in waiting)
    assert run(workspace).states == {}
    for _ in range(3):  # it stays down: in the end its pictures count as failed, without a request for each
        with open_database(workspace.database) as db:
            db.execute("UPDATE downloads SET next_try_at = '' WHERE state = 'pending'")
        run(workspace, retries=0, per_host=1)
    assert {row["state"] for row in rows(workspace).values()} == {"done", "failed"}


def test_without_a_network_rows_stay_pending(workspace: Workspace) -> None:
    # The broadcast address takes no connections: "network is unreachable", with a network or without.
    fill(workspace, {f"t:{n:03d}": [("original", f"http://255.255.255.255:{1000 + n}/a.jpg")] for n in range(40)})
    with pytest.raises(GleanerError, match="requests reached a server; check the network"):
        run(workspace, retries=0)
    assert {row["state"] for row in rows(workspace).values()} == {"pending"}
    consistent_leases = {row["lease"] for row in rows(workspace).values()}
    assert consistent_leases == {""}


ROBOTS = "User-agent: *\nDisallow: /good/2\nAllow: /good/22\n\nUser-agent: otherbot\nDisallow: /\n"


def test_robots_txt_is_obeyed_and_asked_once_a_day(workspace: Workspace, site: Site) -> None:
    site.robots = ROBOTS
    fill(workspace, originals(site, "/good/1", "/good/2", "/good/21", "/good/22"))
    run(workspace, robots="obey")
    found = [(row["state"], row["reason"]) for row in rows(workspace).values()]
    assert found == [("done", ""), ("opted_out", "robots_txt"), ("opted_out", "robots_txt"), ("done", "")]
    assert set(site.asked) == {"/good/1", "/good/22"} and sum(site.robots_asked.values()) == 1
    fill(workspace, {"more:1": [("original", site.address("/good/5"))]})
    run(workspace, robots="obey")
    assert sum(site.robots_asked.values()) == 1


@pytest.mark.parametrize("header", ["X-Robots-Tag", "tdm-reservation"])
def test_an_opt_out_of_robots_txt_itself_does_not_make_it_empty(workspace: Workspace, site: Site, header: str) -> None:
    """Many sites keep their robots.txt out of search engines; what it says holds all the same."""
    site.robots = ROBOTS
    site.robots_headers = {header: "1" if header == "tdm-reservation" else "noindex, follow"}
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace, robots="obey")
    assert [row["state"] for row in rows(workspace).values()] == ["done", "opted_out"]
    assert "/good/2" not in site.asked


def test_the_beginning_of_a_very_long_robots_txt_holds(workspace: Workspace, site: Site) -> None:
    site.robots = ROBOTS + "# and so on\n" * 300_000
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace, robots="obey")
    assert [row["state"] for row in rows(workspace).values()] == ["done", "opted_out"]


def test_another_address_of_a_disallowed_picture_is_tried(workspace: Workspace, site: Site) -> None:
    site.robots = ROBOTS
    fill(workspace, {"t:1": [("original", site.address("/good/2")), ("thumb", site.address("/good/1"))]})
    run(workspace, robots="obey")
    assert (only(workspace)["state"], only(workspace)["kind"]) == ("done", "thumb")
    assert json.loads(only(workspace)["log"])[0]["reason"] == "robots_txt"


@pytest.mark.parametrize(("mode", "states"), [("obey", ["opted_out", "done"]), ("report", ["done", "done"])])
def test_robots_txt_holds_for_where_a_redirect_leads(
    workspace: Workspace, site: Site, mode: str, states: list[str]
) -> None:
    """Another origin has rules of its own, read once, before its pictures are asked for."""
    site.robots = ROBOTS
    fill(workspace, originals(site, f"/hop/1?to={elsewhere(site)}/good/2", f"/hop/2?to={elsewhere(site)}/good/22"))
    stats = run(workspace, robots=mode)
    found = rows(workspace)
    assert [row["state"] for row in found.values()] == states and stats.notes["robots_disallowed"] == 1
    assert ("/good/2" in site.asked) == (mode == "report") and sorted(site.robots_asked.values()) == [1, 1]
    assert found["test:0000"]["reason"] == ("robots_txt" if mode == "obey" else "")


def test_five_redirects_at_most(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/loop/1"))
    run(workspace)
    assert only(workspace)["reason"] == "too_many_redirects" and site.asked["/loop/1"] == 6


def test_a_redirect_to_a_private_address_is_refused(workspace: Workspace, site: Site) -> None:
    """The first address is let through, so that it is the hop alone that meets the guard."""
    fill(workspace, originals(site, "/moved/1", "/metadata/1"))
    run(workspace, exempt=frozenset({"127.0.0.1"}), allow_private=False)
    assert [row["reason"] for row in rows(workspace).values()] == ["", "private_address"]


def elsewhere(site: Site) -> str:
    """The same server as another origin."""
    return site.url.replace("127.0.0.1", "localhost")


def test_domains_on_the_users_lists(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    listed = tmp_path / "listed.txt"
    write_list(listed, ["localhost"], "blocklist")
    other = elsewhere(site)
    made = {
        "t:1": [("original", f"{other}/good/1"), ("thumb", site.address("/good/2"))],
        "t:2": [("original", f"{other}/good/3")],
        "t:3": [("original", site.address(f"/hop/1?to={other}/good/4"))],
    }
    fill(workspace, made)
    assert step.main(command(workspace, "-q", "--blocklist", str(listed))) == 0
    found = {name: (row["state"], row["reason"]) for name, row in rows(workspace).items()}
    assert found == {
        "t:1": ("done", ""), "t:2": ("blocked", "blocked_domain"), "t:3": ("blocked", "blocked_domain"),
    }  # fmt: skip
    assert set(site.asked) == {"/good/2", "/hop/1"}
    assert step.main(command(workspace, "-q", "--retry-failed", "blocked_domain", "--allowlist", str(listed))) == 0
    found = {name: (row["state"], row["reason"]) for name, row in rows(workspace).items()}
    assert found["t:2"] == ("done", "") and found["t:3"] == ("blocked", "not_allowed_domain")
    assert site.asked["/hop/1"] == 1 and "/good/4" not in site.asked
    assert step.main(command(workspace, "--blocklist", str(tmp_path / "none.txt"))) == 2


@pytest.mark.parametrize(("mode", "asked", "noted"), [("report", 1, 1), ("ignore", 0, 0)])
def test_robots_txt_is_reported_or_ignored(workspace: Workspace, site: Site, mode: str, asked: int, noted: int) -> None:
    site.robots = ROBOTS
    fill(workspace, originals(site, "/good/1", "/good/2"))
    stats = run(workspace, robots=mode)
    assert stats.states == {"done": 2} and stats.notes["robots_disallowed"] == noted
    assert sum(site.robots_asked.values()) == asked


@pytest.mark.parametrize(
    ("status", "state", "reason"), [(404, "done", ""), (403, "done", ""), (500, "failed", "http_500")]
)
def test_a_robots_txt_that_cannot_be_had(
    workspace: Workspace, site: Site, status: int, state: str, reason: str
) -> None:
    """RFC 9309: one that is not there allows everything, a server in trouble allows nothing for now."""
    site.robots = status
    fill(workspace, originals(site, "/good/1"))
    run(workspace, robots="obey")
    assert (only(workspace)["state"], only(workspace)["reason"]) == (state, reason)


def test_a_placeholder_is_no_picture(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    """A redirect to `removed.png` is told by its address, another by its content."""
    import hashlib

    own = tmp_path / "own.toml"
    own.write_text(f'[sha256]\n"{hashlib.sha256(jpeg(3)).hexdigest()}" = "the shop\'s logo"\n')
    fill(workspace, originals(site, "/taken/1", "/good/3", "/removed.png", "/good/4"))
    run(workspace, placeholders=own)
    found = [(row["state"], row["reason"]) for row in rows(workspace).values()]
    assert found == [("failed", "placeholder"), ("failed", "placeholder"), ("done", ""), ("done", "")]
    assert len(files(workspace)) == 2


@pytest.mark.parametrize(
    ("asked", "final", "etag", "known"),
    [
        ("https://i.imgur.com/abc.jpg", "https://i.imgur.com/removed.png", "", True),
        ("https://i.imgur.com/abc.jpg", "https://i.imgur.com/abc.jpg", '"d835884373f4d6c8f24742ceabe74946"', True),
        ("https://x.org/abc.jpg", "https://x.org/abc.jpg", '"d835884373f4d6c8f24742ceabe74946"', False),
        ("https://vk.com/images/camera_200.png", "https://vk.com/images/camera_200.png", "", True),
        ("https://x.org/a.jpg", "https://x.org/img/image-not-found.png?x=1", "", True),
        ("https://x.org/removed.png", "https://x.org/removed.png", "", False),
        ("https://x.org/a.jpg", "https://cdn.x.org/a.jpg", "", False),
        ("https://x.org/a.jpg", "https://x.org", "", False),
    ],
)
def test_known_placeholders(asked: str, final: str, etag: str, known: bool) -> None:
    assert bool(read_placeholders().by_answer(asked, final, etag)) is known


def test_a_list_of_placeholders_that_makes_no_sense(
    tmp_path: Path, workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    fill(workspace, originals(site, "/good/1"))
    for text in ("moved = ['(']", "colour = 1", "[", "etags = 3"):
        own.write_text(text)
        with pytest.raises(UsageError):
            read_placeholders(own)
    assert step.main(command(workspace, "--placeholders", str(own))) == 2
    assert "is no list of placeholders" in capsys.readouterr().err


LARGE = FetchLimits(timeout=60, max_bytes=20 << 20)
WHOLE = len(jpeg(1)) + (6 << 20)


def test_a_broken_transfer_goes_on_where_it_ended(workspace: Workspace, site: Site) -> None:
    site.part = 5 << 20
    fill(workspace, originals(site, "/broken/1"))
    run(workspace, limits=LARGE)
    ((_, data),) = files(workspace).items()
    assert data == jpeg(1) + bytes(6 << 20)
    assert len(site.ranges) == 2 and site.ranges[0] == 0 and 4 << 20 < site.ranges[1] <= 5 << 20
    assert only(workspace)["bytes"] == WHOLE and only(workspace)["http_status"] == 206
    consistent(workspace)


def test_a_version_that_changed_is_fetched_anew(workspace: Workspace, site: Site) -> None:
    site.part, site.changes = 5 << 20, 1
    fill(workspace, originals(site, "/broken/1"))
    run(workspace, limits=LARGE, retries=1)
    assert site.ranges == [0, 0] and only(workspace)["reason"] == "truncated"  # asked from the middle, sent all
    consistent(workspace)


def test_a_server_that_sends_another_range_is_not_believed(workspace: Workspace, site: Site) -> None:
    site.part, site.lie = 5 << 20, True
    fill(workspace, originals(site, "/broken/1"))
    made = report(workspace, limits=LARGE, retries=1)
    assert only(workspace)["reason"] == "bad_range" and made.stats.states == {"failed": 1}
    consistent(workspace)
