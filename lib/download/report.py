"""The counts of a run, which processes add up, and the report that is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lib.db.downloads import DownloadResult
from lib.db.duplicates import REMOVED
from lib.download.picture import OPTED_OUT
from lib.net.guard import PORT_REFUSED, PRIVATE_ADDRESS
from lib.text import counted

if TYPE_CHECKING:
    from lib.net.host_queues import Host

NOT_THE_HOST = frozenset({PRIVATE_ADDRESS, PORT_REFUSED, OPTED_OUT, REMOVED})
SHOWN_HOSTS = 5
JSON_HOSTS = 1000  # those with the most requests
WITH_PICTURE = ("done", "replaced", "unchanged", "kept")  # how a row may be counted that has one
SLOW_SECONDS = 2.0  # a request, above which a host is told of


@dataclass
class HostTotals:
    """The record of one host: requests, those that failed, the seconds they took together, and why they failed."""

    requests: int = 0
    failures: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> Counter[str]:
        """The failures that are the host's, by reason: what was never asked for, or what an owner says, is none."""
        return Counter({reason: n for reason, n in self.reasons.items() if reason not in NOT_THE_HOST})

    def add(self, other: HostTotals | Host[Any]) -> None:
        self.requests += other.requests
        self.failures += other.failures
        self.seconds += other.seconds
        self.reasons.update(other.reasons)

    @property
    def mean(self) -> float:
        """Seconds a request."""
        return self.seconds / self.requests if self.requests else 0.0


@dataclass
class ProgressStats:
    """A run's progress as its bar says it beside the number of files. `slowest` is (seconds a request, host)."""

    received: int = 0
    states: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")

    def add(self, other: ProgressStats) -> None:
        """Adds the progress of another process."""
        self.received += other.received
        self.states.update(other.states)
        self.slowest = max(self.slowest, other.slowest)

    def text(self, seconds: float) -> str:
        """The bar's text after so many seconds."""
        states = [f"{n} {state}" for state, n in self.states.most_common(4)]
        slow = [f"slowest {self.slowest[1]} {self.slowest[0]:.1f} s"] if self.slowest[1] else []
        return ", ".join([f"{self.received / 2**20 / max(seconds, 0.1):.1f} MiB/s", *states, *slow])


@dataclass
class RunStats:
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

    def count(self, result: DownloadResult) -> None:
        """One row that has ended (or waits for another run)."""
        self.states[result.counted or result.state] += 1
        if result.reason:
            self.reasons[result.reason] += 1
        if result.notes:
            self.notes.update(result.notes)
        if result.state == "done" and not result.unchanged:
            self.kinds[result.kind] += 1

    def add(self, other: RunStats) -> None:
        """Adds the work of another process."""
        for name in ("states", "reasons", "kinds", "notes"):
            getattr(self, name).update(getattr(other, name))
        self.files += other.files
        self.received += other.received
        self.began = min(self.began or other.began, other.began)
        self.ended = max(self.ended, other.ended)
        self.cpu += other.cpu
        for name, totals in other.hosts.items():
            self.hosts.setdefault(name, HostTotals()).add(totals)


@dataclass
class DownloadReport:
    """The result of a run: what it did, how long it took in seconds, and how many rows wait until when.

    In the JSON, `seconds` are of the run, `steady_seconds` and `cpu_seconds` of the downloading without its start.
    """

    stats: RunStats = field(default_factory=RunStats)
    seconds: float = 0.0
    retired: int = 0
    waiting: int = 0
    next_due: str = ""
    held: list[dict[str, Any]] = field(default_factory=list)  # exported datasets with what has opted out since
    elsewhere: str = ""  # the address where the files are, if it is none on this machine

    @property
    def only_waits(self) -> bool:
        """True where all rows that were asked wait for another run."""
        states = self.stats.states
        return 0 < states["pending"] == states.total()

    @property
    def came_to_nothing(self) -> bool:
        """True where rows were asked, and those that do not wait for another run have no picture."""
        states = self.stats.states
        return states.total() > states["pending"] and not any(states[state] for state in WITH_PICTURE)

    def counts(self) -> dict[str, int | float | str]:
        """The numbers of the summary line."""
        stats = self.stats
        counts: dict[str, int | float | str] = {state: stats.states[state] for state in ("done", "failed")}
        counts.update({state: n for state, n in sorted(stats.states.items()) if state not in counts})
        counts.update({"new_files": stats.files, "MiB": round(stats.received / 2**20, 2)})
        counts["files_a_second"] = round(sum(stats.states.values()) / max(stats.ended - stats.began, 1e-3), 1)
        if self.retired:
            counts["retired"] = self.retired
        also = [*stats.reasons.most_common(), *stats.notes.most_common()]
        counts.update({name: n for name, n in also if name not in counts})
        return counts

    def lines(self) -> Iterator[str]:
        """The hosts that failed most and those that were slowest, where there is something to tell."""
        hosts = self.stats.hosts.items()
        failing = sorted((host for host in hosts if host[1].failed), key=lambda host: -host[1].failed.total())
        slowest = sorted((host for host in hosts if host[1].mean > SLOW_SECONDS), key=lambda host: -host[1].mean)
        for name, host in failing[:SHOWN_HOSTS]:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in host.failed.most_common(3))
            of = f"{host.failed.total():,} of {counted(host.requests, 'request')}"
            yield f"failing host {name}: {of} failed ({reasons}), {host.mean:.2f} s each"
        for name, host in slowest[:SHOWN_HOSTS]:
            yield f"slow host {name}: {counted(host.requests, 'request')}, {host.mean:.2f} s each"

    def warnings(self) -> Iterator[str]:
        """The exported datasets that hold what has opted out since; those that are gone only when it is news."""
        for entry in self.held:
            some = counted(entry["pictures"], "picture")
            if entry["there"]:
                yield (
                    f"{entry['path']} holds {some} whose owners have opted out since run {entry['run']} wrote it;"
                    " `7_sort_quality.py export --drop-opted-out` takes them out."
                )
            elif self.retired:
                yield (
                    f"The dataset that run {entry['run']} wrote to {entry['path']} held {some} whose owners have opted"
                    " out since, and it is not there any more; take them out where it is now."
                )

    def as_json(self) -> dict[str, Any]:
        """Everything, by state, reason and host."""
        stats = self.stats
        seconds = max(stats.ended - stats.began, 1e-3)
        return {
            "states": dict(stats.states),
            "reasons": dict(stats.reasons.most_common()),
            "kinds": dict(stats.kinds),
            "notes": dict(stats.notes),
            "new_files": stats.files,
            "retired": self.retired,
            "datasets_with_opted_out": self.held,
            "bytes": stats.received,
            "seconds": round(self.seconds, 3),
            "steady_seconds": round(stats.ended - stats.began, 3),
            "cpu_seconds": round(stats.cpu, 3),
            "files_per_second": round(sum(stats.states.values()) / seconds, 1),
            "mib_per_second": round(stats.received / 2**20 / seconds, 2),
            "waiting": self.waiting,
            "next_due": self.next_due,
            "hosts": {
                name: {
                    "requests": host.requests,
                    "failures": host.failures,
                    "seconds_a_request": round(host.mean, 4),
                    "reasons": dict(host.reasons.most_common()),
                }
                for name, host in sorted(stats.hosts.items(), key=lambda item: -item[1].requests)[:JSON_HOSTS]
            },
        }
