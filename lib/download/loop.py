"""The loop of step 5: claim rows, let hosts take turns, fetch, hand to the writer threads, hand to the ledger.

Memory does not grow with the work: a bounded window of rows is in the loop at a time, small bodies are held only by
the fixed number of tasks that fetch them, and outcomes leave in batches.

Rows from the database into the loop, block by block, so that memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import aiohttp

from lib.db import Database
from lib.db.download_queue import claim, prepare, release, renew
from lib.download import body as download_body
from lib.download.body import Body, BodyBuffers, Partial
from lib.download.options import IGNORE, OBEY, DownloadOptions, VerifyLimits
from lib.download.outcomes import ProgressStats, ResultWriter, RunStats, Scheduler, slowest_of
from lib.download.picture import PictureFetch, make_job
from lib.download.recovery import own_lease
from lib.download.robots import RobotsGate, RobotsReading
from lib.download.store import FileStore, Writers
from lib.download.verify import Verifier
from lib.files.names import read_name, safe_id
from lib.net.fetch import BAD_RANGE, NOT_MODIFIED, REDIRECTED, FetchResult, Request, fetch, open_session
from lib.net.host_queues import Host, HostQueues, SharedPauses, known_manners
from lib.net.placeholders import read_placeholders
from lib.net.watchdog import Watchdog
from lib.progress import Bar
from lib.times import utc_in, utc_now
from lib.workspace import Workspace

TICK = 0.2  # seconds between two looks at everything that is timed
SHOW_SECONDS = 0.3  # between two looks at how far the run is
GRACE = 10.0  # seconds that requests under way get after the first Ctrl-C
NAME_THREADS = 16  # for the system's blocking name service, apart from the writers' threads
KEPT_HOSTS = 64  # up to so many hosts, connections are kept also where nothing waits for them
WRITERS = 2  # a disk makes one wait now and then; the other goes on meanwhile
UPLOADS = 8  # at once, to an address that is not this machine's disk
OFFLINE_AFTER = 30  # requests that nobody answered, and none that anybody did: then it is our own network
BROKEN_OFF = frozenset({"timeout", "too_slow", "disconnected", "truncated"})  # the rest may still be had

LARGEST_BLOCK = 250  # rows of one claim
LEASE_SECONDS = 900.0
RENEW_SECONDS = 300.0
START = ("", -(2**62))  # before every (next_try_at, number of a picture)


class DownloadLoop:
    """One run over the rows that are due, in one event loop."""

    def __init__(
        self,
        db: Database,
        workspace: Workspace,
        run_id: int,
        options: DownloadOptions,
        *,
        orphans: dict[str, list[Path]] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        shared: SharedPauses | None = None,
    ):
        self.shared = shared
        self.db, self.options, self.orphans, self.stopping = db, options, orphans or {}, stopping
        placeholders = read_placeholders(options.placeholders)
        decoders = max(1, (os.cpu_count() or 1) // options.share)
        self.verifier = Verifier(decoders, options.verify or VerifyLimits())
        self.keeper = FileStore(workspace, options, placeholders, self.verifier)
        threads = UPLOADS if options.to else decoders if options.verify else WRITERS
        self.writers = Writers(threads, self.keeper.close_reader)
        self.spooler = ThreadPoolExecutor(WRITERS, thread_name_prefix="spooler")  # of large bodies
        self.intake = BodyBuffers(self.keeper.temporary, self.spooler, placeholders)
        self.ledger = ResultWriter(db, workspace, run_id, self.keeper.target, self.keeper.committed, options.min_free)
        self.feed = WorkQueue(db, options)
        self.watch = Watchdog()
        self.busy, self.show_at = 0, 0.0
        self.failure: BaseException | None = None

    def run(self, bar: Bar) -> RunStats:
        """Works until nothing is due; raises what stopped the run early (a full disk), with everything recorded."""
        self.bar = bar
        tally = self.ledger.tally
        tally.began, tally.cpu = time.monotonic(), -time.process_time()
        self.keeper.parts.mkdir(exist_ok=True)
        self.left = download_body.kept_parts(self.keeper.parts)
        self.ledger.check_space()
        # A request makes hundreds of objects, few of them in circles: looking for these less often saves a twentieth.
        thresholds = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(20_000, *thresholds[1:])
        try:
            asyncio.run(self._main())
        finally:
            self.writers.close()
            self.spooler.shutdown()
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            self.verifier.close()
            for left in self.keeper.parts.glob(f"{self.keeper.owner}-*.part"):
                download_body.leave(str(left))
        tally.received = self.watch.received
        tally.add_hosts(self.queues.hosts.values())
        tally.ended, tally.cpu = time.monotonic(), tally.cpu + time.process_time()
        return tally

    async def _main(self) -> None:
        loop, options = asyncio.get_running_loop(), self.options
        self.writers.start()
        loop.set_default_executor(ThreadPoolExecutor(NAME_THREADS, thread_name_prefix="names"))
        self.queues: HostQueues[PictureFetch | RobotsReading] = HostQueues(
            options.per_host, options.per_domain, known_manners(), options.share, self.shared
        )
        async with open_session(
            allow_private=options.allow_private, contact=options.contact, exempt=options.exempt
        ) as session:
            self.robots = RobotsGate(self.db, session, options.limits, self.watch)
            self.course = Scheduler(
                options, self.queues, self.ledger, self.orphans, self.bar, self.feed.block, self.robots
            )
            count = max(1, options.concurrency // options.share)
            tasks = [asyncio.create_task(self._serve(session)) for _ in range(count)]
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
            self.feed.give_back()
        except Exception as error:
            self.failure = self.failure or error
        if not self.failure and not self.stopping() and self.course.is_offline(1):
            self.failure = self.course.offline()

    async def _until_finished(self) -> None:
        stop_at = None
        while self.failure is None:
            now = self.queues.loop.time()
            self._look_around()
            if self.stopping():
                stop_at = stop_at or now + GRACE
                if not self.busy or now > stop_at:
                    return
            else:
                self._fill()
                if self.feed.exhausted and not self.course.outstanding:
                    return
            self.course.wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.course.wake.wait(), TICK)

    def _look_around(self) -> None:
        self.watch.look()
        self.ledger.flush_if_due()
        self.feed.renew_if_due()
        if (now := time.monotonic()) >= self.show_at:  # comparing thousands of hosts takes a while
            self.show_at = now + SHOW_SECONDS
            self.bar.set_postfix_str(self.standing().text(now - self.ledger.tally.began), refresh=False)
        if self.course.is_offline(OFFLINE_AFTER):
            self.failure = self.course.offline()

    def standing(self) -> ProgressStats:
        """How far this engine is."""
        slowest = slowest_of(self.queues.hosts.values())
        return ProgressStats(self.watch.bytes_so_far(), self.ledger.tally.states.copy(), slowest)

    def _fill(self) -> None:
        """Fills the window, block by block."""
        while not self.feed.exhausted and self.course.has_room:
            for job in self.feed.jobs():
                self.course.start(job)

    async def _serve(self, session: aiohttp.ClientSession) -> None:
        try:
            while not self.stopping():
                host, item = await self.queues.take()
                if self.stopping():
                    return
                self.busy += 1
                try:
                    if isinstance(item, RobotsReading):
                        await self._read_robots(host, item)
                    elif not host.name:
                        await self._adopt(host, item)
                    elif self.options.robots == IGNORE or await self._may_ask(host, item):
                        await self._try(session, host, item)
                finally:
                    self.busy -= 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a full disk, or a bug: the main task ends the run and raises it
            self.failure = self.failure or error
            self.course.wake.set()

    async def _may_ask(self, host: Host[PictureFetch | RobotsReading], job: PictureFetch) -> bool:
        """What the origin's robots.txt says; where it says no or is not known, the job goes on from here."""
        answer = await self.robots.verdict(job.target)
        if answer is None:
            self.queues.release(host, started=False)
            if reading := self.robots.wait(job):
                self.course.ask_robots(reading)
            return False
        if note := "robots_disallowed" if answer.reason else answer.detail:
            job.notes.add(note)
        if answer.reason and self.options.robots == OBEY:
            self.queues.release(host, started=False)
            if job.hop:
                answer.detail = f"redirected to {job.hop}: {answer.detail}"
            self.course.after_failure(job, answer)
            await asyncio.sleep(0)  # a host of many rules and forbidden pictures lets the others have their turns
            return False
        if self.queues.pause_left(host) or self.queues.is_down(host):  # since its turn came
            self.queues.release(host, started=False)
            self.course.schedule(job)
            return False
        return True

    async def _read_robots(self, host: Host[PictureFetch | RobotsReading], reading: RobotsReading) -> None:
        """One request for a robots.txt, and what follows for the jobs that wait for it."""
        answer = await self._in_its_turn(host, self.robots.read(reading))
        if answer.reason == REDIRECTED:
            refused = reading.url.raw_host or ""
            if not (refusal := self.options.lists.refusal(refused)):
                self.course.ask_robots(reading)
                return
            answer = FetchResult(refusal, f"robots.txt: {refused}", reached=None)
        if answer.reason and self.options.robots != OBEY:
            self.robots.pass_over(reading)
            answer = FetchResult()
        for job in self.robots.end(reading):
            if answer.reason:
                job.attempts += 1
                self.course.after_failure(job, replace(answer))
            else:
                self.course.schedule(job)

    async def _try(
        self, session: aiohttp.ClientSession, host: Host[PictureFetch | RobotsReading], job: PictureFetch
    ) -> None:
        """One request, and what follows from its answer."""
        begun, job.partial = job.partial or (None if job.hop else self._left_before(job)), None
        body = Body(self.intake, str(job.url), begun)
        fetching = True
        try:
            job.attempts += not job.hop
            # Thousands of hosts with an idle connection each would use up the files that a process may open.
            last = not host.waiting and len(self.queues.hosts) > KEPT_HOSTS
            answer = await self._ask(session, host, job, body, job.ask(begun, last))
            if answer.reason:
                if answer.validator and answer.reason in BROKEN_OFF:
                    job.partial = await body.keep_part(answer.validator)
                elif begun and body.begun and answer.reason != BAD_RANGE:  # what was there is as good as before
                    job.partial = await body.keep_part(begun.validator)
                await body.discard()
                follow = self.course.redirected if answer.reason == REDIRECTED else self.course.after_failure
                follow(job, answer)
                return
            await body.finish()
            fetching = False
            kept = await self.writers.run(self.keeper.keep, job.key, job.rung.kind, body, job.more_than)
        except asyncio.CancelledError:
            if fetching:
                await body.leave()
            raise
        finally:
            await body.discard()
        if kept.reason:
            answer.reason, answer.detail = kept.reason, kept.detail
            self.course.after_failure(job, answer)
        else:
            self.course.end(job, job.done(kept, answer))

    def _left_before(self, job: PictureFetch) -> Partial | None:
        """The beginning of this address's body that an earlier run has left."""
        url = str(job.url)
        if not self.left or (name := download_body.kept_name(url)) not in self.left:
            return None
        self.left.discard(name)
        return download_body.take(self.keeper.parts, url, self.keeper.temporary)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        host: Host[PictureFetch | RobotsReading],
        job: PictureFetch,
        body: Body,
        ask: Request,
    ) -> FetchResult:
        """The request itself; the host's slot is free again before the body goes to the disk."""
        return await self._in_its_turn(host, fetch(session, job.target, body, self.options.limits, self.watch, ask))

    async def _in_its_turn(
        self, host: Host[PictureFetch | RobotsReading], request: Awaitable[FetchResult]
    ) -> FetchResult:
        """Waits for a request and lets its host's queue learn from the answer."""
        started = self.queues.loop.time()
        try:
            answer = await request
        except BaseException:  # this machine's fault, or the end of the run: the host has nothing to do with it
            self.queues.release(host)
            raise
        reason = "" if answer.reason in (NOT_MODIFIED, REDIRECTED) else answer.reason
        self.queues.done(host, reason, self.queues.loop.time() - started, answer.retry_after, answer.reached)
        return answer

    async def _adopt(self, host: Host[PictureFetch | RobotsReading], job: PictureFetch) -> None:
        """Takes over a whole file that a killed run left without its row."""
        self.queues.release(host)
        for path in self.orphans.pop(safe_id(job.key)):
            _, kind, digits = read_name(path.name) or ("", "", "")
            job.at = next((n for n, rung in enumerate(job.rungs) if rung.kind == kind), len(job.rungs))
            if job.at == len(job.rungs):
                continue
            kept = await self.writers.run(self.keeper.adopt, path, digits)
            if not kept.reason:
                self.course.end(job, job.done(kept, FetchResult(bytes=kept.bytes)))
                return
        job.at = 0
        self.course.schedule(job)


class WorkQueue:
    """Claims rows under this process's lease, up to a limit."""

    def __init__(self, db: Database, options: DownloadOptions):
        self.db, self.options = db, options
        self.lease = own_lease()
        self.left = deque(options.sources)
        self.after = START
        self.claimed = 0
        self.block = max(1, min(LARGEST_BLOCK, options.window // 4))
        self.renew_at = time.monotonic() + RENEW_SECONDS
        prepare(db)

    @property
    def exhausted(self) -> bool:
        return not self.left

    def jobs(self) -> Iterator[PictureFetch]:
        """The next block of rows, as jobs."""
        room = self.block
        if self.options.limit is not None:
            room = min(room, self.options.limit - self.claimed)
        rows = []
        if room:
            until, scope = utc_in(LEASE_SECONDS), self.options.scope
            rows = claim(self.db, self.lease, until, self.after, room, self.left[0], scope)
        if not room:
            self.left.clear()
        elif len(rows) < room:
            self.left.popleft()
            self.after = START
        now = utc_now()
        for row in rows:
            self.after = (row.next_try_at, row.image_id)
            self.claimed += 1
            yield make_job(row, self.options, now)

    def renew_if_due(self) -> None:
        if time.monotonic() > self.renew_at:
            renew(self.db, self.lease, utc_in(LEASE_SECONDS))
            self.renew_at = time.monotonic() + RENEW_SECONDS

    def give_back(self) -> None:
        """Frees what was claimed and not finished."""
        release(self.db, self.lease)
