"""The order of requests: they wait in one queue a host, and hosts take turns.

A request waits here *before* it takes a connection, so that a thousand rows of one slow host keep nobody else waiting.
A host's limit of requests at once is halved when it strains and grows back with success. The hosts of one registrable
domain share a second limit, and a rhythm where the domain is known to want one. A redirect waits again, with nothing
held meanwhile, under the host that it leads to.

Processes tell each other of pauses. Each writes its own part of a table that all read, so that no lock is left behind
by one that is killed. The moments are of the machine's clock that only goes forward, which all processes share.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import tomllib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from lib.domains import registrable_domain
from lib.net.failures import FAULTS, SLOW_DOWN, STRAIN

Job = TypeVar("Job")

GROWTH = 0.2  # added to a host's limit with each success, divided by the limit: one more after five rounds
MOST_IDLE_HOSTS = 10_000  # hosts remembered that have nothing to do; a long list of hosts must not fill the memory
SLOW_DOWN_PAUSE = 2.0  # seconds to leave a host alone that said "too many requests" but not for how long
DOWN_AFTER = 10  # faults in a row: more than one round of the default limit, so that one bad moment is not enough
DOWN_SECONDS = 60.0  # until one request may find out whether the host is back

_DOWN = "down "  # begins the name under which processes tell each other that a host is down

ROOM = 1024  # pauses of one process at a time; beyond that the one that ends first is forgotten
PROBES = 16  # places of the table where one host's pause may stand
BUSY = 0.05  # seconds until a turn is asked for again that another process has

_PART = 1 + 2 * ROOM  # of the table: the latest end of a process's pauses, then (host, end) each


@dataclass(slots=True, eq=False)
class Domain:
    """Shared by the hosts of one registrable domain: `gap` is the mean of seconds between two starts."""

    limit: int
    gap: float = 0.0
    active: int = 0
    ready_at: float = 0.0  # by the loop's clock
    turns: Turns | None = None  # that other processes have as well
    parked: list[Host] = field(default_factory=list)  # hosts whose turn came when the domain had no room


@dataclass(slots=True, eq=False)
class Host(Generic[Job]):
    """One host: what waits, what runs, how much it bears, and how it has behaved."""

    name: str
    limit: float
    domain: Domain
    highest: float  # that the limit grows back to
    waiting: deque[Job] = field(default_factory=deque)
    active: int = 0
    listed: bool = False  # in the round of hosts that may start a request, or parked at its domain
    paused_until: float = 0.0  # by the loop's clock
    down_until: float = 0.0  # by the loop's clock
    faults: int = 0  # in a row
    requests: int = 0
    failures: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


class HostQueues(Generic[Job]):
    """Round-robin over hosts with a limit for each; belongs to one event loop.

    `share` processes work at once and divide every limit among them; pauses reach the others by `shared`. `on_rest` is
    told of a host that is paused or down, and may drain it.
    """

    def __init__(
        self,
        per_host: int,
        per_domain: int = 0,
        policies: HostPolicies | None = None,
        share: int = 1,
        shared: SharedPauses | None = None,
    ):
        self.per_host, self.per_domain = per_host, max(per_host, per_domain)
        self.policies, self.share, self.shared = policies or HostPolicies(), share, shared
        self.on_rest: Callable[[Host[Job]], object] = lambda host: None
        self.hosts: dict[str, Host[Job]] = {}
        self.domains: dict[str, Domain] = {}
        self.round: deque[Host[Job]] = deque()
        self.takers: deque[asyncio.Future[None]] = deque()
        self.loop = asyncio.get_running_loop()
        self.reached = self.unreached = 0  # requests that some machine answered, and those that none did

    def put(self, name: str, job: Job, *, first: bool = False) -> None:
        """Queues a job under its host, before the others if it is to be `first`."""
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = self._new_host(name)
        if first:
            host.waiting.appendleft(job)
        else:
            host.waiting.append(job)
        self._list(host)

    def _new_host(self, name: str) -> Host[Job]:
        """A host that is asked for the first time, with the limits of its domain."""
        registered = registrable_domain(name.rpartition(":")[0])
        policy = self.policies.of(registered)
        limit = float(self._divided(min(self.per_host, policy.per_host or self.per_host)))
        domain = self.domains.get(registered)
        if domain is None:
            wide = min(self.per_domain, policy.per_domain or self.per_domain)
            turns = self.shared.turns.get(registered) if self.shared else None
            gap = policy.gap if turns else policy.gap * self.share
            domain = self.domains[registered] = Domain(self._divided(wide), gap, turns=turns)
        return Host(name, limit, domain, limit)

    def _divided(self, limit: int) -> int:
        return max(1, limit // self.share)

    async def take(self) -> tuple[Host[Job], Job]:
        """The next job whose host may be asked now; waits until there is one. `done` must follow."""
        while (host := self._next()) is None:
            taker = self.loop.create_future()
            self.takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled() and self.round:  # woken, it hands its turn to the next one
                    self._wake()
                raise
        host.listed = False
        job = host.waiting.popleft()
        host.active += 1
        host.domain.active += 1
        self._list(host)
        return host, job

    def _next(self) -> Host[Job] | None:
        """The host whose turn it is; those whose domain has no room step aside until it has."""
        while self.round:
            host = self.round.popleft()
            if self.pause_left(host) or self.is_down(host):  # since it was put into the round, or for other processes
                host.listed = False
                self.loop.call_soon(self.on_rest, host)
                continue
            domain = host.domain
            if domain.active < domain.limit and self._start(domain):
                return host
            if not domain.parked and domain.ready_at > self.loop.time():
                self.loop.call_at(domain.ready_at, self._unpark, domain)
            domain.parked.append(host)
        return None

    def _start(self, domain: Domain) -> bool:
        """Tells if a request may start now in the domain's rhythm; if so, the next one has to wait for its time."""
        now = self.loop.time()
        if domain.ready_at > now:
            return False
        # A random rhythm around the mean: a fixed one is what a server's guard looks for.
        pause = domain.gap * random.uniform(0.5, 1.5)
        wait = domain.turns.take(pause) if domain.turns else 0.0
        domain.ready_at = now + (wait or pause)
        return not wait

    def _unpark(self, domain: Domain) -> None:
        hosts, domain.parked = domain.parked, []
        for host in hosts:
            self.round.append(host)
            self._wake()

    def done(
        self,
        host: Host[Job],
        reason: str,
        seconds: float,
        retry_after: float | None = None,
        reached: bool | None = True,
    ) -> None:
        """Gives the slot back and learns from how the request ended (`reason` is empty for a success).

        `reached` tells whether any machine answered; None is for what never left this one.
        """
        host.requests += 1
        host.seconds += seconds
        if reason:
            host.failures += 1
            host.reasons[reason] += 1
        if reason in STRAIN:
            host.limit = max(1.0, host.limit / 2)
        elif not reason:
            host.limit = min(host.highest, host.limit + GROWTH / host.limit)
        self._count_faults(host, reason, reached)
        if retry_after is not None or reason in SLOW_DOWN:
            self.pause(host, SLOW_DOWN_PAUSE if retry_after is None else retry_after)
        # Only now: a slot that is free before the pause is known would let one more request out.
        if self.pause_left(host) or self.is_down(host):
            self.on_rest(host)
        self.release(host)
        if len(self.hosts) > MOST_IDLE_HOSTS:
            self._forget(host)

    def release(self, host: Host[Job], *, started: bool = True) -> None:
        """Gives a slot back; one that sent nothing (`started` is false) leaves its moment in the rhythm to the next."""
        host.active -= 1
        domain = host.domain
        domain.active -= 1
        if not started:
            domain.ready_at = 0.0
        if domain.turns:
            domain.turns.give_back(started=started)
        if domain.parked:
            self._unpark(domain)
        self._list(host)

    def _count_faults(self, host: Host[Job], reason: str, reached: bool | None) -> None:
        """Counts faults in a row; a host that only fails is down until one request may try again."""
        self.reached += reached is True
        self.unreached += reached is False
        host.faults = host.faults + 1 if reason in FAULTS else 0
        if host.faults >= DOWN_AFTER:
            host.down_until = self.loop.time() + DOWN_SECONDS
            if self.shared:
                self.shared.pause(_DOWN + host.name, host.down_until)

    def is_down(self, host: Host[Job]) -> bool:
        """Tells if this process, or another one, has found that a host only fails."""
        now = self.loop.time()
        if host.faults >= DOWN_AFTER and host.down_until > now:
            return True
        return self.shared is not None and self.shared.paused_until(_DOWN + host.name) > now

    def pause(self, host: Host[Job], seconds: float) -> None:
        """Starts nothing on this host for a while; never shortens a pause."""
        until = self.loop.time() + seconds
        if until > host.paused_until:
            host.paused_until = until
            self.loop.call_at(until, self._resume, host)
            if self.shared:
                self.shared.pause(host.name, until)

    def pause_left(self, host: Host[Job]) -> float:
        """Seconds until a host may be asked again, whichever process was told to wait."""
        if self.shared and (until := self.shared.paused_until(host.name)) > host.paused_until:
            host.paused_until = until
            self.loop.call_at(until, self._resume, host)
        return max(0.0, host.paused_until - self.loop.time())

    def _resume(self, host: Host[Job]) -> None:
        """Goes on with a host whose pause may be over: it may have become longer, and clocks are not exact."""
        if host.paused_until > self.loop.time():
            self.loop.call_at(host.paused_until, self._resume, host)
        else:
            self._list(host)

    def drain(self, host: Host[Job]) -> list[Job]:
        """Takes everything that waits for a host out of the queue."""
        jobs = list(host.waiting)
        host.waiting.clear()
        if host.listed:
            with_it = host.domain.parked if host in host.domain.parked else self.round
            with_it.remove(host)
            host.listed = False
        return jobs

    def _forget(self, host: Host[Job]) -> None:
        if host.waiting or host.active or self.pause_left(host) or self.is_down(host):
            return
        self.hosts.pop(host.name, None)
        registered = registrable_domain(host.name.rpartition(":")[0])
        if not (host.domain.active or host.domain.parked or host.domain.gap):
            self.domains.pop(registered, None)

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


@dataclass(frozen=True)
class HostPolicy:
    """Limits of one registrable domain; 0 is no limit of its own. `gap` is mean seconds between two starts."""

    per_host: int = 0
    per_domain: int = 0
    gap: float = 0.0


class HostPolicies(dict[str, HostPolicy]):
    """Policies by registrable domain."""

    def of(self, domain: str) -> HostPolicy:
        return self.get(domain) or HostPolicy()


def known_policies() -> HostPolicies:
    """The policies that `known_hosts.toml` lists."""
    table = tomllib.loads(Path(__file__).with_name("known_hosts.toml").read_text(encoding="utf-8"))
    return HostPolicies({domain: HostPolicy(**values) for domain, values in table.items()})


@dataclass(frozen=True)
class Turns:
    """The requests to one site over all processes: `room` for so many at once, and when the next one may start."""

    room: Any  # a semaphore, or None where dividing the limit is enough
    starting: Any  # a lock
    ready_at: Any  # a shared number
    gap: float

    def take(self, seconds: float) -> float:
        """0.0 where a request may start now, after which the next waits so many seconds; else how long to wait."""
        if not self.starting.acquire(block=False):
            return BUSY
        try:
            now = time.monotonic()
            if (left := self.ready_at.value - now) > 0:
                return float(left)
            if self.room is not None and not self.room.acquire(block=False):
                return BUSY
            self.ready_at.value = now + seconds
            return 0.0
        finally:
            self.starting.release()

    def give_back(self, *, started: bool) -> None:
        """Ends a turn; one that was not used does not make the next one wait."""
        if not started:
            self.ready_at.value = 0.0
        if self.room is not None:
            self.room.release()


@dataclass(frozen=True)
class SharedPauses:
    """The table of pauses, seen from the process at `place`, and the turns by registrable domain."""

    table: Any
    processes: int
    turns: Mapping[str, Turns]
    place: int = 0

    def seen_from(self, place: int) -> SharedPauses:
        return replace(self, place=place)

    def pause(self, name: str, until: float) -> None:
        """Tells the others until when a host is to be left alone."""
        key, start, now = _key(name), self.place * _PART, time.monotonic()
        slots = [start + 1 + 2 * ((key + step) % ROOM) for step in range(PROBES)]
        own = [slot for slot in slots if self.table[slot] == key]
        slot = own[0] if own else min(slots, key=lambda slot: self.table[slot + 1])
        self.table[slot] = 0.0
        self.table[slot + 1] = until
        self.table[slot] = float(key)
        self.table[start] = until if self.table[start] < now else max(until, self.table[start])

    def paused_until(self, name: str) -> float:
        """The latest moment until which another process wants a host left alone; 0.0 where none does."""
        now, found, key = time.monotonic(), 0.0, 0
        for place in range(self.processes):
            start = place * _PART
            if place == self.place or self.table[start] <= now:
                continue
            key = key or _key(name)
            for step in range(PROBES):
                slot = start + 1 + 2 * ((key + step) % ROOM)
                if self.table[slot] == key:
                    found = max(found, float(self.table[slot + 1]))
        return found


def make_shared(context: Any, processes: int, policies: HostPolicies) -> SharedPauses:
    """Makes what that many processes started in a context of `multiprocessing` share."""
    turns = {
        domain: Turns(
            context.Semaphore(most) if (most := _most_at_once(policy)) and most < processes else None,
            context.Lock(), context.RawValue("d", 0.0), policy.gap,
        )
        for domain, policy in policies.items() if policy.gap or 0 < _most_at_once(policy) < processes
    }  # fmt: skip
    return SharedPauses(context.RawArray("d", processes * _PART), processes, turns)


def _most_at_once(policy: HostPolicy) -> int:
    return min((limit for limit in (policy.per_host, policy.per_domain) if limit), default=0)


def _key(name: str) -> int:
    """A number for a host that a double holds exactly."""
    return 1 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big")
