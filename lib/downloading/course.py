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
from lib.errors import GleanerError
from lib.net.client import NOT_MODIFIED
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
        queues: HostQueues[Job],
        ledger: Ledger,
        orphans: dict[str, list[Path]],
        bar: Bar,
        block: int,
    ):
        self.options, self.queues, self.ledger = options, queues, ledger
        self.orphans, self.bar, self.block = orphans, bar, block
        self.wake = asyncio.Event()  # there is room for another block, or nothing is left
        self.outstanding = 0

    @property
    def has_room(self) -> bool:
        return self.outstanding <= self.options.window - self.block

    def start(self, job: Job) -> None:
        """Takes a new job on."""
        self.outstanding += 1
        self.schedule(job)

    def schedule(self, job: Job) -> None:
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
            self.queues.put(name, job)

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

    def after_failure(self, host: Host[Job], job: Job, answer: Answer) -> None:
        reason = answer.reason
        self._clear_paused(host)
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

    def _clear_paused(self, host: Host[Job]) -> None:
        """A host that wants to be left alone for long gives its rows back to the database; one that is down lets
        them go on to their next address."""
        if self.queues.is_down(host):
            for waiting in self.queues.drain(host):
                self.schedule(waiting)
            return
        pause = self.queues.pause_left(host)
        if pause > LONGEST_WAIT:
            for waiting in self.queues.drain(host):
                self.end(waiting, waiting.deferred(pause, "host_paused"))

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
