"""Who may ask next: requests wait in one queue a host, and hosts take turns.

A request waits here *before* it takes a connection, so that a thousand rows of one slow host keep nobody else waiting.
Each host has a limit of requests at once, which is halved when it strains and grows back with success, and may be
paused until a moment (a server's Retry-After), during which its slot serves others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lib.net.retry import SLOW_DOWN, STRAIN

Job = TypeVar("Job")

GROWTH = 0.2  # added to a host's limit with each success, divided by the limit: one more after five rounds
MOST_IDLE_HOSTS = 10_000  # hosts remembered that have nothing to do; a long list of hosts must not fill the memory
SLOW_DOWN_PAUSE = 2.0  # seconds to leave a host alone that said "too many requests" but not for how long


@dataclass(slots=True)
class Host(Generic[Job]):
    """One host: what waits, what runs, how much it bears, and how it has behaved."""

    name: str
    limit: float
    waiting: deque[Job] = field(default_factory=deque)
    active: int = 0
    listed: bool = False  # in the round of hosts that may start a request
    paused_until: float = 0.0  # by the loop's clock
    requests: int = 0
    failures: int = 0
    seconds: float = 0.0


class HostQueues(Generic[Job]):
    """Round-robin over hosts with a limit for each; belongs to one event loop."""

    def __init__(self, per_host: int):
        self.per_host = per_host
        self.hosts: dict[str, Host[Job]] = {}
        self.round: deque[Host[Job]] = deque()
        self.takers: deque[asyncio.Future[None]] = deque()
        self.loop = asyncio.get_running_loop()

    def put(self, name: str, job: Job) -> None:
        """Queues a job under its host."""
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = Host(name, float(self.per_host))
        host.waiting.append(job)
        self._list(host)

    async def take(self) -> tuple[Host[Job], Job]:
        """The next job whose host may be asked now; waits until there is one. `done` must follow."""
        while not self.round:
            taker = self.loop.create_future()
            self.takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                self._pass_on(taker)
                raise
        host = self.round.popleft()
        host.listed = False
        job = host.waiting.popleft()
        host.active += 1
        self._list(host)
        return host, job

    def done(self, host: Host[Job], reason: str, seconds: float, retry_after: float | None = None) -> None:
        """Gives the slot back and learns from how the request ended (`reason` is empty for a success)."""
        host.active -= 1
        host.requests += 1
        host.seconds += seconds
        host.failures += bool(reason)
        if reason in STRAIN:
            host.limit = max(1.0, host.limit / 2)
        elif not reason:
            host.limit = min(float(self.per_host), host.limit + GROWTH / host.limit)
        if retry_after is not None or reason in SLOW_DOWN:
            self.pause(host, SLOW_DOWN_PAUSE if retry_after is None else retry_after)
        self._list(host)
        if len(self.hosts) > MOST_IDLE_HOSTS and not (host.waiting or host.active or self.pause_left(host)):
            del self.hosts[host.name]

    def pause(self, host: Host[Job], seconds: float) -> None:
        """Starts nothing on this host for a while; never shortens a pause."""
        until = self.loop.time() + seconds
        if until > host.paused_until:
            host.paused_until = until
            self.loop.call_at(until, self._list, host)

    def pause_left(self, host: Host[Job]) -> float:
        return max(0.0, host.paused_until - self.loop.time())

    def drain(self, host: Host[Job]) -> list[Job]:
        """Takes everything that waits for a host out of the queue."""
        jobs = list(host.waiting)
        host.waiting.clear()
        if host.listed:
            self.round.remove(host)
            host.listed = False
        return jobs

    def _list(self, host: Host[Job]) -> None:
        if host.listed or not host.waiting or host.active >= int(host.limit):
            return
        if host.paused_until > self.loop.time():
            return
        host.listed = True
        self.round.append(host)
        self._wake()

    def _wake(self) -> None:
        while self.takers:
            taker = self.takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return

    def _pass_on(self, taker: asyncio.Future[None]) -> None:
        """A taker that is cancelled after it was woken hands its turn to the next one."""
        if taker.done() and not taker.cancelled() and self.round:
            self._wake()
