"""What follows from each answer: the next address, another try later, or the row's end. It belongs to one loop.

The one writer of rows: collects outcomes and writes them in batches, so that a row costs microseconds.

What a run did, in numbers that can be added up over processes.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db.downloads import Outcome, record
from lib.db.duplicates import REMOVED
from lib.download import body
from lib.download.options import DownloadOptions
from lib.download.picture import OPTED_OUT, REFUSED_REFERER, Ending, PictureFetch
from lib.download.robots import RobotsGate, RobotsReading
from lib.download.targets import Target
from lib.errors import GleanerError
from lib.files.names import safe_id
from lib.net.failures import backoff, is_transient
from lib.net.fetch import MOST_REDIRECTS, NOT_MODIFIED, FetchResult
from lib.net.host_queues import Host, HostQueues
from lib.net.urls import host_of
from lib.progress import Bar
from lib.workspace import Workspace

log = logging.getLogger("gleaner.download")

LONGEST_WAIT = 30.0  # seconds; a row or host that has to wait longer waits for the next run

BATCH_ROWS = 200
BATCH_SECONDS = 0.5


class Scheduler:
    """Moves jobs between the hosts' queues and the ledger; `outstanding` counts those that have not ended."""

    def __init__(
        self,
        options: DownloadOptions,
        queues: HostQueues[PictureFetch | RobotsReading],
        ledger: ResultWriter,
        orphans: dict[str, list[Path]],
        bar: Bar,
        block: int,
        robots: RobotsGate,
    ):
        self.options, self.queues, self.ledger = options, queues, ledger
        self.orphans, self.bar, self.block, self.robots = orphans, bar, block, robots
        self.wake = asyncio.Event()  # there is room for another block, or nothing is left
        self.outstanding = 0
        queues.on_rest = self._clear_resting

    @property
    def has_room(self) -> bool:
        return self.outstanding <= self.options.window - self.block

    def start(self, job: PictureFetch) -> None:
        """Takes a new job on."""
        self.outstanding += 1
        self.schedule(job)

    def schedule(self, job: PictureFetch, *, first: bool = False) -> None:
        """Puts a job where its next address belongs, or ends it."""
        if self.orphans and safe_id(job.key) in self.orphans:
            self.queues.put("", job)  # a file that an earlier run had finished: no host is asked
            return
        while (url := job.next_address()) is not None:
            name = host_of(url)
            host = self.queues.hosts.get(name)
            if host is None or not self.queues.is_down(host):
                break
            job.note_down()
        if url is None:
            self.end(job, job.exhausted(offline=self.is_offline(1)))
            return
        pause = self.queues.pause_left(host) if host else 0.0
        if pause > LONGEST_WAIT:
            self.end(job, job.deferred(pause, "host_paused"))
        else:
            self.queues.put(name, job, first=first)

    def redirected(self, job: PictureFetch, answer: FetchResult) -> None:
        """Lets a job wait for its turn at the host that it was redirected to, where it may go there at all."""
        url = answer.location
        assert url is not None
        host = url.raw_host or ""
        if job.hops >= MOST_REDIRECTS:
            answer.reason, answer.detail = "too_many_redirects", f"more than {MOST_REDIRECTS}"
        elif refusal := self.options.lists.refusal(host):
            answer.reason, answer.detail = refusal, f"redirected to {url}: {host}"
        else:
            job.follow(url, answer.elapsed_ms)
            self.schedule(job, first=True)  # such an address may hold for a short time only
            return
        self.after_failure(job, answer)

    def ask_robots(self, reading: RobotsReading) -> None:
        """Puts the reading of a robots.txt where it is asked for, before the pictures that wait for it."""
        name = host_of(reading.url)
        host = self.queues.hosts.get(name)
        if host is not None and (self.queues.is_down(host) or self.queues.pause_left(host) > LONGEST_WAIT):
            self._give_up(host, reading)
        else:
            self.queues.put(name, reading, first=True)

    def end(self, job: PictureFetch, outcome: Ending) -> None:
        """The row has an outcome; nothing else holds on to it."""
        if job.partial and outcome.next_try_at:  # a later run goes on with it
            body.leave(job.partial.path)
        else:
            self._drop_partial(job)
        self.ledger.add(outcome)
        self.outstanding -= 1
        self.bar.update()
        if self.has_room or not self.outstanding:
            self.wake.set()

    def after_failure(self, job: PictureFetch, answer: FetchResult) -> None:
        reason = answer.reason
        job.restart()
        if reason == NOT_MODIFIED:
            self.end(job, job.not_modified())
            return
        log.debug("%s %s: %s %s", reason, job.key, job.rung.url, answer.detail)
        if reason in REFUSED_REFERER and job.other_referer():
            self.schedule(job)
            return
        job.note(reason, answer.detail, answer.status)
        if reason == OPTED_OUT:
            self.end(job, job.opted_out(answer))
        elif reason == REMOVED:
            self.end(job, job.removed())
        elif not is_transient(reason) or job.is_spent():
            self._drop_partial(job)
            self.schedule(job)
        else:
            self._later(job, answer)

    def _later(self, job: PictureFetch, answer: FetchResult) -> None:
        """Another try of the same address: soon in this run, or in a later run."""
        delay = max(backoff(int(job.entry()["tries"]), self.options.backoff), answer.retry_after or 0.0)
        if delay > LONGEST_WAIT:
            self.end(job, job.deferred(delay, answer.reason))
        else:
            self.queues.loop.call_later(delay, self.schedule, job)

    def _clear_resting(self, host: Host[PictureFetch | RobotsReading]) -> None:
        """A host that wants to be left alone for long gives its rows back to the database; one that is down lets
        them go on to their next address."""
        if self.queues.is_down(host) or self.queues.pause_left(host) > LONGEST_WAIT:
            for waiting in self.queues.drain(host):
                self._give_up(host, waiting)

    def _give_up(self, host: Host[PictureFetch | RobotsReading], item: PictureFetch | RobotsReading) -> None:
        """What happens to a job, or to those that wait for a robots.txt, when its host is not asked now."""
        jobs = self.robots.end(item) if isinstance(item, RobotsReading) else [item]
        is_down, pause = self.queues.is_down(host), self.queues.pause_left(host)
        for job in jobs:
            if is_down:
                job.note_down()
                self.schedule(job)
            else:
                self.end(job, job.deferred(pause, "host_paused"))

    def _drop_partial(self, job: PictureFetch) -> None:
        if job.partial is not None:
            body.drop(job.partial.path)
            job.partial = None

    def is_offline(self, requests: int) -> bool:
        return not self.queues.reached and self.queues.unreached >= requests

    def offline(self) -> GleanerError:
        return GleanerError(
            f"none of {self.queues.unreached} requests reached a server; check the network and run the same command"
            " again (the pictures are still pending)."
        )


class ResultWriter:
    """Outcomes on their way into the database. What a kill takes away is found again on disk by its name."""

    def __init__(
        self,
        db: Database,
        workspace: Workspace,
        run_id: int,
        target: Target,
        committed: Callable[[list[str]], None],
        min_free: int = 0,
    ):
        self.db, self.workspace, self.run_id, self.target = db, workspace, run_id, target
        self.committed, self.min_free = committed, min_free
        self.batch: list[Ending] = []
        self.since = 0.0
        self.tally = RunStats()

    def add(self, outcome: Ending) -> None:
        if not self.batch:
            self.since = time.monotonic()
        self.batch.append(outcome)
        if len(self.batch) >= BATCH_ROWS:
            self.flush()

    def flush_if_due(self) -> None:
        if self.batch and time.monotonic() - self.since >= BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been collected. Raises sqlite3.Error or OSError when the disk will not take it."""
        if not self.batch:
            return
        batch, self.batch = self.batch, []
        added, surplus = record(self.db, self.run_id, batch)
        self.tally.files += added
        for text in surplus:
            self.target.remove(text)
        self.committed([outcome.file.sha256 for outcome in batch if isinstance(outcome, Outcome) and outcome.file])
        for outcome in batch:
            self.tally.count(outcome)
        self.check_space()

    def check_space(self) -> None:
        """Stops the run before the disk is full: other programs need the rest."""
        free = shutil.disk_usage(self.workspace.images).free
        if free < self.min_free:
            raise GleanerError(
                f"only {free / 2**20:.0f} MiB are free on the disk of {self.workspace.images} (--min-free);"
                " make room and run the same command again."
            )


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
class ProgressStats:
    """How far a run is: what its bar says beside the number of files. `slowest` is (seconds a request, host)."""

    received: int = 0
    states: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")

    def add(self, other: ProgressStats) -> None:
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

    def add(self, other: RunStats) -> None:
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
