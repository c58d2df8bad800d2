"""What processes tell each other that ask the same hosts: pauses, and turns at sites that want few requests.

Each process writes pauses into its own part of a table that all of them read, so that no lock is left behind by one
that is killed. The moments are of the machine's clock that only goes forward, which all processes share.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib.net.manners import Manner, Manners

ROOM = 1024  # pauses of one process at a time; beyond that the one that ends first is forgotten
PROBES = 16  # places of the table where one host's pause may stand
BUSY = 0.05  # seconds until a turn is asked for again that another process has


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
class Shared:
    """The table of pauses, seen from the process at `place`, and the turns by registrable domain."""

    table: Any
    processes: int
    turns: Mapping[str, Turns]
    place: int = 0

    def seen_from(self, place: int) -> Shared:
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


_PART = 1 + 2 * ROOM  # of the table: the latest end of a process's pauses, then (host, end) each


def make_shared(context: Any, processes: int, manners: Manners) -> Shared:
    """What that many processes started in a context of `multiprocessing` share."""
    turns = {
        domain: Turns(
            context.Semaphore(most) if (most := _most_at_once(manner)) and most < processes else None,
            context.Lock(), context.RawValue("d", 0.0), manner.gap,
        )
        for domain, manner in manners.known.items() if manner.gap or 0 < _most_at_once(manner) < processes
    }  # fmt: skip
    return Shared(context.RawArray("d", processes * _PART), processes, turns)


def _most_at_once(manner: Manner) -> int:
    return min((limit for limit in (manner.per_host, manner.per_domain) if limit), default=0)


def _key(name: str) -> int:
    """A number for a host that a double holds exactly."""
    return 1 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big")
