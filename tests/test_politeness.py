"""Limits and pauses hold for the host that is asked: by redirects, for robots.txt, over processes, after a 429."""

from __future__ import annotations

import asyncio
import time
from multiprocessing import get_context
from typing import Any

import pytest
from aiohttp import web
from counting_server import Door, counting_server
from download_support import fill, report, rows, run

from lib.net.host_queues import DOWN_AFTER, ROOM, Host, HostPolicies, HostPolicy, HostQueues, SharedPauses, make_shared
from lib.workspace import Workspace

PATHOLOGICAL = "User-agent: *\nDisallow: /*a*a*a*a*a*a*a*a*b\n"
MARGIN = 0.05  # seconds by which clocks and the kernel may differ


def pictures(doors: list[Door], *paths: tuple[int, str], kind: str = "original") -> dict[str, list[tuple[Any, ...]]]:
    """Rows of one address each, given as (door, path)."""
    return {f"t:{n:03d}": [(kind, doors[door].url + path)] for n, (door, path) in enumerate(paths)}


def states(workspace: Workspace) -> set[str]:
    return {row["state"] for row in rows(workspace).values()}


@pytest.mark.parametrize(("robots", "kind"), [("ignore", "original"), ("obey", "thumb")])
def test_many_hosts_that_redirect_to_one_do_not_ask_it_at_once(workspace: Workspace, robots: str, kind: str) -> None:
    with counting_server(9) as doors:
        paths = [(1 + n % 8, f"/to/0/good/{n}") for n in range(24)]
        fill(workspace, pictures(doors, *paths, kind=kind))
        run(workspace, per_host=1, per_domain=64, robots=robots)
        assert states(workspace) == {"done"} and doors[0].most_at_once == 1
        assert [door.most_at_once for door in doors] == [1] * 9


def test_the_limit_of_a_redirects_target_holds_over_processes(workspace: Workspace) -> None:
    with counting_server(5) as doors:
        fill(workspace, pictures(doors, *[(1 + n % 4, f"/to/0/good/{n}") for n in range(40)]))
        report(workspace, per_host=2, per_domain=64, workers=2)
        assert states(workspace) == {"done"} and max(door.most_at_once for door in doors) <= 2


@pytest.mark.parametrize("limit", [1, 3])
def test_the_domain_of_a_redirects_target_has_its_limit(workspace: Workspace, limit: int) -> None:
    """All doors are ports of one address, which counts as one domain."""
    with counting_server(6) as doors:
        fill(workspace, pictures(doors, *[(1 + n % 5, f"/to/0/good/{n}") for n in range(15)]))
        run(workspace, per_host=1, per_domain=limit)
        assert states(workspace) == {"done"} and doors[0].most_at_once == 1


@pytest.mark.parametrize(
    "path", ["/to/1/good/{}", "/to/1/to/0/good/{}", "/to/0/to/1/to/0/good/{}", "/to/0/to/0/good/{}"]
)
def test_chains_of_redirects_there_and_back_come_to_an_end(workspace: Workspace, path: str) -> None:
    """Nobody holds a place at one host while waiting for one at another."""
    with counting_server(2) as doors:
        other = path.replace("/0/", "/x/").replace("/1/", "/0/").replace("/x/", "/1/")
        paths = [(0, path.format(n)) for n in range(12)] + [(1, other.format(100 + n)) for n in range(12)]
        fill(workspace, pictures(doors, *paths))
        run(workspace, per_host=1, concurrency=8)
        assert states(workspace) == {"done"} and [door.most_at_once for door in doors] == [1, 1]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("through", ["", "/to/0"])
def test_nothing_is_asked_before_a_pause_is_over(workspace: Workspace, through: str, status: int) -> None:
    """Also not by those that are redirected there from other hosts, and whichever way the refused one came."""
    with counting_server(5) as doors:
        doors[0].refuse(status)
        paths = [((1 + n % 4) if through else 0, f"{through}/good/{n}") for n in range(8)]
        fill(workspace, pictures(doors, *paths))
        made = report(workspace, per_host=1, per_domain=64)
        assert states(workspace) == {"done"}
        assert len(doors[0].pauses()) == 1 and doors[0].pauses()[0] >= 1 - MARGIN
        hosts = {name: host.reasons for name, host in made.stats.hosts.items()}
        assert hosts.pop(doors[0].url.removeprefix("http://")) == {f"http_{status}": 1}
        assert not any(hosts.values())  # who redirected is not to blame


def test_a_pause_that_a_robots_txt_asks_for_holds_for_pictures(workspace: Workspace) -> None:
    with counting_server(3) as doors:
        doors[0].refuse()
        fill(workspace, pictures(doors, *[(n % 3, f"/to/0/good/{n}") for n in range(9)]))
        run(workspace, per_host=3, robots="obey", retries=3)
        assert states(workspace) == {"done"}
        assert min(doors[0].pauses()) >= 1 - MARGIN
        assert [path for _, _, path, _ in doors[0].seen].count("/robots.txt") == 2


def test_a_robots_txt_that_is_redirected_waits_for_its_turn_there(workspace: Workspace) -> None:
    with counting_server(4) as doors:
        for door in doors[1:]:
            door.replies.append(_moved(doors[0].url + "/robots.txt"))
        doors[0].robots = "User-agent: *\nDisallow: /good/1\n"
        doors[0].refuse(retry_after="1")
        fill(workspace, pictures(doors, *[(n % 4, f"/good/{n}") for n in range(8)]))
        run(workspace, per_host=1, robots="obey", retries=3)
        found = {row["reason"] for row in rows(workspace).values()}
        assert found == {"", "robots_txt"} and doors[0].most_at_once == 1
        assert min(doors[0].pauses()) >= 1 - MARGIN


def _moved(url: str) -> web.Response:
    return web.Response(status=301, headers={"Location": url})


def test_a_long_pause_of_a_redirects_target_leaves_its_pictures_for_later(workspace: Workspace) -> None:
    with counting_server(4) as doors:
        doors[0].refuse(retry_after="3000")
        paths = [(1 + n % 3, f"/to/0/good/{n}") for n in range(9)] + [(1, "/good/50")]
        fill(workspace, pictures(doors, *paths))
        stats = run(workspace, per_host=1)
        assert stats.states == {"done": 1, "pending": 9} and len(doors[0].seen) == 1
        assert stats.reasons == {"host_paused": 8, "http_429": 1}


def test_a_redirects_target_that_is_down_is_left_alone(workspace: Workspace) -> None:
    with counting_server(2) as doors:
        for _ in range(40):
            doors[0].refuse(500, "")
        fill(workspace, pictures(doors, *[(1, f"/to/0/good/{n}") for n in range(30)]))
        stats = run(workspace, per_host=1, retries=0)
        assert len(doors[0].seen) == DOWN_AFTER
        assert stats.states == {"failed": DOWN_AFTER, "pending": 20}


@pytest.mark.parametrize("robots", ["obey", "report"])
def test_a_hostile_robots_txt_stops_nobody(workspace: Workspace, robots: str) -> None:
    """Neither when it is read nor when a later run finds it in the database."""
    with counting_server(2) as doors:
        doors[0].robots = PATHOLOGICAL
        hostile = "/good/" + "a" * 400 + "/7.jpg"
        fill(workspace, pictures(doors, (0, hostile), *[(1, f"/good/{n}") for n in range(20)]))
        assert run(workspace, robots=robots).states == {"done": 21}
        fill(workspace, {"later:1": [("original", doors[0].url + hostile.replace("7", "8"))]})
        assert run(workspace, robots=robots).states == {"done": 1}
        assert [path for _, _, path, _ in doors[0].seen].count("/robots.txt") == 1


def test_a_robots_txt_of_many_rules_is_read_beside_the_others(workspace: Workspace) -> None:
    with counting_server(2) as doors:
        doors[0].robots = "User-agent: *\n" + "".join(f"Disallow:/*a{n}b\n" for n in range(40_000))
        far = "/good/" + "a" * 7000
        paths = [(0, f"{far}/{n}") for n in range(10)] + [(0, "/good/99")] + [(1, f"/good/{n}") for n in range(20)]
        fill(workspace, pictures(doors, *paths))
        stats = run(workspace, robots="obey")
        assert stats.states == {"done": 21, "opted_out": 10} and stats.notes["robots_cut"] == 1
        first = rows(workspace)["t:000"]
        assert first["reason"] == "robots_txt" and "has too many rules to tell about it" in first["log"]


async def take_all(queues: HostQueues[str]) -> list[str]:
    """What may be started right now, one after the other."""
    taken = []
    while True:
        try:
            taken.append((await asyncio.wait_for(queues.take(), 0.01))[1])
        except TimeoutError:
            return taken


async def taken(queues: HostQueues[str]) -> Host[str]:
    return (await asyncio.wait_for(queues.take(), 5))[0]


@pytest.mark.parametrize(("reason", "retry_after"), [("http_429", None), ("http_503", 9.0), ("http_500", 9.0)])
def test_no_request_starts_between_a_refusal_and_its_pause(reason: str, retry_after: float | None) -> None:
    async def play() -> list[str]:
        queues: HostQueues[str] = HostQueues(4)
        for n in range(6):
            queues.put("a.example:80", str(n))
        hosts = [await taken(queues) for _ in range(2)]
        queues.done(hosts[0], reason, 0.1, retry_after)
        queues.done(hosts[1], "", 0.1)
        return await take_all(queues)

    assert asyncio.run(play()) == []


def both(per_host: int, policies: HostPolicies | None = None) -> tuple[HostQueues[str], HostQueues[str]]:
    """The queues of two processes, in one loop."""
    shared = make_shared(get_context("spawn"), 2, policies or HostPolicies())
    one, other = (HostQueues[str](per_host, 12, policies, 2, shared.seen_from(place)) for place in range(2))
    return one, other


@pytest.mark.parametrize("reason", ["http_429", "http_503"])
def test_what_one_process_is_told_holds_for_the_others(reason: str) -> None:
    async def play() -> None:
        one, other = both(4)
        rested: list[str] = []
        other.on_rest = lambda host: rested.append(host.name)
        for queues in (one, other):
            for name in ("a.example:80", "b.example:80"):
                queues.put(name, name)
        one.done(await taken(one), reason, 0.1, 600.0)
        assert await take_all(other) == ["b.example:80"] and rested == ["a.example:80"]
        assert other.pause_left(other.hosts["a.example:80"]) > 500
        assert not other.pause_left(other.hosts["b.example:80"])

    asyncio.run(play())


def test_a_host_that_one_process_finds_down_is_down_for_the_others() -> None:
    async def play() -> None:
        one, other = both(4)
        for n in range(DOWN_AFTER):
            one.put("a.example:80", str(n))
            one.done(await taken(one), "timeout", 0.1)
        other.put("a.example:80", "x")
        assert await take_all(other) == [] and other.is_down(other.hosts["a.example:80"])

    asyncio.run(play())


def test_a_site_that_wants_one_request_at_a_time_gets_one_from_all_processes() -> None:
    async def play() -> None:
        one, other = both(4, HostPolicies({"vk.com": HostPolicy(per_host=1, per_domain=1)}))
        for queues in (one, other):
            for n in range(3):
                queues.put(f"sun{n}.vk.com:443", str(n))
        host = await taken(one)
        assert await take_all(other) == [] and await take_all(one) == []
        one.done(host, "", 0.1)
        other.done(await taken(other), "", 0.1)

    asyncio.run(play())


def test_the_rhythm_of_a_site_holds_over_processes() -> None:
    async def play() -> float:
        one, other = both(4, HostPolicies({"vk.com": HostPolicy(per_host=4, gap=0.08)}))
        started = one.loop.time()
        for queues in (one, other, one, other):
            queues.put("sun.vk.com:443", "x")
            queues.done(await taken(queues), "", 0.0)
        return one.loop.time() - started

    assert asyncio.run(play()) >= 3 * 0.5 * 0.08


def pause_there(shared: SharedPauses, name: str, until: float) -> None:
    shared.pause(name, until)


def test_a_pause_reaches_another_process() -> None:
    context = get_context("spawn")
    shared = make_shared(context, 2, HostPolicies())
    until = time.monotonic() + 900
    process = context.Process(target=pause_there, args=(shared.seen_from(1), "a.example:80", until))
    process.start()
    process.join()
    assert shared.paused_until("a.example:80") == until and shared.paused_until("b.example:80") == 0.0


def test_many_pauses_have_room() -> None:
    shared = make_shared(get_context("spawn"), 2, HostPolicies())
    until = time.monotonic() + 900
    for n in range(ROOM // 4):
        shared.seen_from(1).pause(f"host{n}:80", until + n)
    assert all(shared.paused_until(f"host{n}:80") == until + n for n in range(ROOM // 4))
    for n in range(4 * ROOM):  # more than there is room for: the latest are known at least
        shared.seen_from(1).pause(f"more{n}:80", until + 900 + n)
    assert shared.paused_until(f"more{4 * ROOM - 1}:80") == until + 900 + 4 * ROOM - 1
