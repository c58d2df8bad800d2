"""The loop of step 5: claim rows, let hosts take turns, fetch, hand to the writer thread, hand to the ledger.

Memory does not grow with the work: a bounded window of rows is in the loop at a time, small bodies are held only by
the fixed number of tasks that fetch them, and outcomes leave in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from lib.db import Database
from lib.db.downloads import claim, release, renew
from lib.downloading.body import Body
from lib.downloading.job import OPTED_OUT, REFUSED_REFERER, Job, make_job
from lib.downloading.keeper import Keeper, PictureLimits
from lib.downloading.ledger import Ledger
from lib.downloading.names import safe_id
from lib.downloading.sweep import own_lease
from lib.net.client import Answer, Limits, fetch, open_session
from lib.net.hosts import Host, HostQueues
from lib.net.retry import backoff, is_transient
from lib.net.urls import host_of
from lib.net.watch import Watch
from lib.progress import Bar
from lib.times import utc_in
from lib.workspace import Workspace

log = logging.getLogger("gleaner.download")

TICK = 0.2  # seconds between two looks at everything that is timed
WINDOW = 2000  # rows in the loop at a time: enough that many hosts can take turns
BLOCK = 250  # rows of one claim
LEASE_SECONDS = 900.0
RENEW_SECONDS = 300.0
LONGEST_WAIT = 30.0  # seconds; a row or host that has to wait longer waits for the next run
GRACE = 10.0  # seconds that requests under way get after the first Ctrl-C
NAME_THREADS = 16  # for the system's blocking name service, apart from the writer's thread


@dataclass(frozen=True)
class Options:
    """How a run downloads; `limit` is the most rows it takes on."""

    limits: Limits = field(default_factory=Limits)
    pictures: PictureLimits = field(default_factory=PictureLimits)
    concurrency: int = 64
    per_host: int = 6
    retries: int = 2
    backoff: float = 1.0
    limit: int | None = None
    allow_private: bool = False
    contact: str = ""
    min_free: int = 0


class Engine:
    """One run over the pending rows, in one event loop."""

    def __init__(
        self,
        db: Database,
        workspace: Workspace,
        run_id: int,
        options: Options,
        *,
        orphans: dict[str, list[Path]] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.db, self.workspace, self.options = db, workspace, options
        self.orphans, self.stopping = orphans or {}, stopping
        self.keeper = Keeper(workspace, options.pictures)
        self.ledger = Ledger(db, workspace, run_id, self.keeper.committed, options.min_free)
        self.watch = Watch()
        self.lease = own_lease()
        self.after = ("", -1)
        self.claimed = self.outstanding = self.busy = 0
        self.exhausted = False
        self.failure: BaseException | None = None

    def run(self, bar: Bar) -> None:
        """Works until nothing is due; raises what stopped the run early (a full disk), with everything recorded."""
        self.bar = bar
        self.keeper.parts.mkdir(exist_ok=True)
        self.ledger.check_space()
        writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.writer = writer
        try:
            asyncio.run(self._main())
        finally:
            writer.submit(self.keeper.close).result()
            writer.shutdown()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(NAME_THREADS, thread_name_prefix="names"))
        self.queues: HostQueues[Job] = HostQueues(self.options.per_host)
        self.wake = asyncio.Event()
        self.renew_at = loop.time() + RENEW_SECONDS
        async with open_session(allow_private=self.options.allow_private, contact=self.options.contact) as session:
            tasks = [asyncio.create_task(self._serve(session)) for _ in range(self.options.concurrency)]
            try:
                await self._until_finished()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._close_books()
        if self.failure is not None:
            raise self.failure

    def _close_books(self) -> None:
        """Records what is finished and gives back what is not, as far as the disk lets us."""
        try:
            self.ledger.flush()
            release(self.db, self.lease)
        except Exception as error:
            self.failure = self.failure or error

    # --- the main task: feeding and watching -----------------------------------------------------------------------

    async def _until_finished(self) -> None:
        stop_at = None
        while self.failure is None:
            now = self.queues.loop.time()
            self._look_around(now)
            if self.stopping():
                stop_at = stop_at or now + GRACE
                if not self.busy or now > stop_at:
                    return
            else:
                self._feed()
                if self.exhausted and not self.outstanding:
                    return
            self.wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), TICK)

    def _look_around(self, now: float) -> None:
        self.watch.look()
        self.ledger.flush_if_due()
        self.bar.set_postfix_str(f"{self.watch.bytes_so_far() / 2**20:.1f} MiB", refresh=False)
        if now > self.renew_at:
            renew(self.db, self.lease, utc_in(LEASE_SECONDS))
            self.renew_at = now + RENEW_SECONDS

    def _feed(self) -> None:
        """Fills the window, block by block."""
        while not self.exhausted and self.outstanding <= WINDOW - BLOCK:
            room = BLOCK if self.options.limit is None else min(BLOCK, self.options.limit - self.claimed)
            rows = claim(self.db, self.lease, utc_in(LEASE_SECONDS), self.after, room) if room else []
            self.exhausted = len(rows) < BLOCK
            for row in rows:
                self.after = (row.next_try_at, row.position)
                self.claimed += 1
                self.outstanding += 1
                self._schedule(make_job(row, self.options.retries))

    def _schedule(self, job: Job) -> None:
        """Puts a job where its next address belongs, or ends it."""
        if self.orphans and safe_id(job.image_id) in self.orphans:
            self.queues.put("", job)  # a file that an earlier run had finished: no host is asked
            return
        url = job.next_address()
        if url is None:
            self._end(job.failed())
            return
        name = host_of(url)
        host = self.queues.hosts.get(name)
        pause = self.queues.pause_left(host) if host else 0.0
        if pause > LONGEST_WAIT:
            self._end(job.deferred(pause, "host_paused"))
        else:
            self.queues.put(name, job)

    def _end(self, outcome: Any) -> None:
        """The row has an outcome; nothing else holds on to it."""
        self.ledger.add(outcome)
        self.outstanding -= 1
        self.bar.update()
        if self.outstanding <= WINDOW - BLOCK or not self.outstanding:
            self.wake.set()

    # --- the tasks that fetch --------------------------------------------------------------------------------------

    async def _serve(self, session: aiohttp.ClientSession) -> None:
        try:
            while not self.stopping():
                host, job = await self.queues.take()
                if self.stopping():
                    return
                self.busy += 1
                try:
                    if host.name:
                        await self._try(session, host, job)
                    else:
                        await self._adopt(host, job)
                finally:
                    self.busy -= 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a full disk, or a bug: the main task ends the run and raises it
            self.failure = self.failure or error
            self.wake.set()

    async def _try(self, session: aiohttp.ClientSession, host: Host[Job], job: Job) -> None:
        """One request, and what follows from its answer."""
        body = Body(self.keeper.temporary, self.writer)
        try:
            job.attempts += 1
            answer = await self._ask(session, host, job, body)
            if answer.reason:
                await body.discard()
                self._after_failure(host, job, answer)
                return
            await body.finish()
            kept = await self.queues.loop.run_in_executor(
                self.writer, self.keeper.keep, job.image_id, job.rung.kind, body
            )
        finally:
            await body.discard()
        if kept.reason:
            answer.reason, answer.detail = kept.reason, kept.detail
            self._after_failure(host, job, answer)
        else:
            self._end(job.done(kept, answer))

    async def _ask(self, session: aiohttp.ClientSession, host: Host[Job], job: Job, body: Body) -> Answer:
        """The request itself; the host's slot is free again before the body goes to the disk."""
        reason, answer = "timeout", None
        started = self.queues.loop.time()
        try:
            answer = await fetch(session, job.url, body, self.options.limits, self.watch, job.referer)
            reason = answer.reason
            return answer
        finally:
            seconds = self.queues.loop.time() - started
            self.queues.done(host, reason, seconds, answer.retry_after if answer else None)

    def _after_failure(self, host: Host[Job], job: Job, answer: Answer) -> None:
        reason = answer.reason
        self._clear_paused(host)
        log.debug("%s %s: %s %s", reason, job.image_id, job.rung.url, answer.detail)
        if reason in REFUSED_REFERER and job.other_referer():
            self._schedule(job)
            return
        job.note(reason, answer.detail, answer.status)
        if reason == OPTED_OUT:
            self._end(job.opted_out(answer))
        elif not is_transient(reason) or job.is_spent():
            self._schedule(job)
        else:
            self._later(job, answer)

    def _later(self, job: Job, answer: Answer) -> None:
        """Another try of the same address: soon in this run, or in a later run."""
        delay = max(backoff(int(job.entry()["tries"]), self.options.backoff), answer.retry_after or 0.0)
        if delay > LONGEST_WAIT:
            self._end(job.deferred(delay, answer.reason))
        else:
            self.queues.loop.call_later(delay, self._schedule, job)

    def _clear_paused(self, host: Host[Job]) -> None:
        """A host that wants to be left alone for long gives its rows back to the database."""
        pause = self.queues.pause_left(host)
        if pause > LONGEST_WAIT:
            for waiting in self.queues.drain(host):
                self._end(waiting.deferred(pause, "host_paused"))

    async def _adopt(self, host: Host[Job], job: Job) -> None:
        """Takes over a whole file that a killed run left without its row."""
        self.queues.done(host, "", 0.0)
        for path in self.orphans.pop(safe_id(job.image_id)):
            parts = path.name.split("_")
            kind, sha8 = parts[-3], parts[-1][:8]
            job.at = next((n for n, rung in enumerate(job.rungs) if rung.kind == kind), len(job.rungs))
            if job.at == len(job.rungs):
                continue
            kept = await self.queues.loop.run_in_executor(self.writer, self.keeper.adopt, path, sha8)
            if not kept.reason:
                size = path.stat().st_size if path.exists() else 0
                self._end(job.done(kept, Answer(bytes=kept.file.bytes if kept.file else size)))
                return
        job.at = 0
        self._schedule(job)
