"""What a run did, in numbers that can be added up over processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.net.hosts import Host


@dataclass
class HostTotals:
    """How one host behaved: requests, those that failed, the seconds they took together, and why they failed."""

    requests: int = 0
    failures: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, requests: int, failures: int, seconds: float, reasons: Counter[str]) -> None:
        self.requests += requests
        self.failures += failures
        self.seconds += seconds
        self.reasons.update(reasons)

    @property
    def mean(self) -> float:
        """Seconds a request."""
        return self.seconds / self.requests if self.requests else 0.0


@dataclass
class Standing:
    """How far a run is: what its bar says beside the number of files. `slowest` is (seconds a request, host)."""

    received: int = 0
    states: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")

    def add(self, other: Standing) -> None:
        """Adds how far another process is."""
        self.received += other.received
        self.states.update(other.states)
        self.slowest = max(self.slowest, other.slowest)

    def text(self, seconds: float) -> str:
        """What the bar shows after so many seconds."""
        states = [f"{n} {state}" for state, n in self.states.most_common(4)]
        slow = [f"slowest {self.slowest[1]} {self.slowest[0]:.1f} s"] if self.slowest[1] else []
        return ", ".join([f"{self.received / 2**20 / max(seconds, 0.1):.1f} MiB/s", *states, *slow])


def slowest_of(hosts: Iterable[Host[Any]]) -> tuple[float, str]:
    """(seconds a request, name) of the host that takes longest."""
    asked = ((host.seconds / host.requests, host.name) for host in hosts if host.requests and host.name)
    return max(asked, default=(0.0, ""))


@dataclass
class Tally:
    """Rows by state, reason and winning kind, what else was noted, new files, bytes received, and the hosts."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    files: int = 0
    received: int = 0
    hosts: dict[str, HostTotals] = field(default_factory=dict)
    began: float = 0.0  # by the machine's clock that only goes forward, the same in every process
    ended: float = 0.0
    cpu: float = 0.0  # seconds of processor time, all threads

    def count(self, outcome: Any) -> None:
        """One row that has ended (or waits for another run)."""
        self.states[outcome.counted or outcome.state if hasattr(outcome, "state") else outcome.counted] += 1
        if outcome.reason:
            self.reasons[outcome.reason] += 1
        if outcome.notes:
            self.notes.update(outcome.notes)
        if getattr(outcome, "state", "") == "done":
            self.kinds[outcome.kind] += 1

    def add_hosts(self, hosts: Iterable[Host[Any]]) -> None:
        for host in hosts:
            if host.requests and host.name:
                totals = self.hosts.setdefault(host.name, HostTotals())
                totals.add(host.requests, host.failures, host.seconds, host.reasons)

    def add(self, other: Tally) -> None:
        """Adds what another process did."""
        for mine, theirs in (
            (self.states, other.states),
            (self.reasons, other.reasons),
            (self.kinds, other.kinds),
            (self.notes, other.notes),
        ):
            mine.update(theirs)
        self.files += other.files
        self.received += other.received
        self.began = min(self.began or other.began, other.began)
        self.ended = max(self.ended, other.ended)
        self.cpu += other.cpu
        for name, totals in other.hosts.items():
            mine_of = self.hosts.setdefault(name, HostTotals())
            mine_of.add(totals.requests, totals.failures, totals.seconds, totals.reasons)
