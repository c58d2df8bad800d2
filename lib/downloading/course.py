"""What follows from each answer: the next address, another try later, or the row's end. It belongs to one loop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lib.db.tombstones import REMOVED
from lib.downloading import parts
from lib.downloading.job import OPTED_OUT, REFUSED_REFERER, Ending, Job
from lib.downloading.ledger import Ledger
from lib.downloading.names import safe_id
from lib.downloading.options import Options
from lib.downloading.robots_gate import Reading, RobotsGate
from lib.errors import GleanerError
from lib.net.client import MOST_REDIRECTS, NOT_MODIFIED
from lib.net.exchange import Answer
from lib.net.hosts import Host, HostQueues
from lib.net.retry import backoff, is_transient
from lib.net.urls import host_of
from lib.progress import Bar

log = logging.getLogger("gleaner.download")

LONGEST_WAIT = 30.0  # seconds; a row or host that has to wait longer waits for the next run


class Course:
    """Moves jobs between the hosts' queues and the ledger; `outstanding` counts those that have not ended."""

    def __init__(
        self,
        options: Options,
        queues: HostQueues[Job | Reading],
        ledger: Ledger,
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

    def start(self, job: Job) -> None:
        """Takes a new job on."""
        self.outstanding += 1
        self.schedule(job)

    def schedule(self, job: Job, *, first: bool = False) -> None:
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

    def redirected(self, job: Job, answer: Answer) -> None:
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

    def ask_robots(self, reading: Reading) -> None:
        """Puts the reading of a robots.txt where it is asked for, before the pictures that wait for it."""
        name = host_of(reading.url)
        host = self.queues.hosts.get(name)
        if host is not None and (self.queues.is_down(host) or self.queues.pause_left(host) > LONGEST_WAIT):
            self._give_up(host, reading)
        else:
            self.queues.put(name, reading, first=True)

    def end(self, job: Job, outcome: Ending) -> None:
        """The row has an outcome; nothing else holds on to it."""
        if job.partial and outcome.next_try_at:  # a later run goes on with it
            parts.leave(job.partial.path)
        else:
            self._drop_partial(job)
        self.ledger.add(outcome)
        self.outstanding -= 1
        self.bar.update()
        if self.has_room or not self.outstanding:
            self.wake.set()

    def after_failure(self, job: Job, answer: Answer) -> None:
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

    def _later(self, job: Job, answer: Answer) -> None:
        """Another try of the same address: soon in this run, or in a later run."""
        delay = max(backoff(int(job.entry()["tries"]), self.options.backoff), answer.retry_after or 0.0)
        if delay > LONGEST_WAIT:
            self.end(job, job.deferred(delay, answer.reason))
        else:
            self.queues.loop.call_later(delay, self.schedule, job)

    def _clear_resting(self, host: Host[Job | Reading]) -> None:
        """A host that wants to be left alone for long gives its rows back to the database; one that is down lets
        them go on to their next address."""
        if self.queues.is_down(host) or self.queues.pause_left(host) > LONGEST_WAIT:
            for waiting in self.queues.drain(host):
                self._give_up(host, waiting)

    def _give_up(self, host: Host[Job | Reading], item: Job | Reading) -> None:
        """What happens to a job, or to those that wait for a robots.txt, when its host is not asked now."""
        jobs = self.robots.end(item) if isinstance(item, Reading) else [item]
        is_down, pause = self.queues.is_down(host), self.queues.pause_left(host)
        for job in jobs:
            if is_down:
                job.note_down()
                self.schedule(job)
            else:
                self.end(job, job.deferred(pause, "host_paused"))

    def _drop_partial(self, job: Job) -> None:
        if job.partial is not None:
            parts.drop(job.partial.path)
            job.partial = None

    def is_offline(self, requests: int) -> bool:
        return not self.queues.reached and self.queues.unreached >= requests

    def offline(self) -> GleanerError:
        return GleanerError(
            f"none of {self.queues.unreached} requests reached a server; check the network and run the same command"
            " again (the pictures are still pending)."
        )
