"""The loop of step 5: claims rows, lets hosts take turns, fetches, and hands bodies and results to their writers.

Memory does not grow with the work: rows come in blocks into a window of bounded size, small bodies are held only by
the fixed number of tasks that fetch them, and results leave in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections import deque
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import aiohttp

from lib.db import Context, Database
from lib.db.download_queue import claim, prepare, release, renew
from lib.download.body import Body, BodyBuffers, read_placeholders
from lib.download.options import IGNORE, OBEY, DownloadOptions, VerifyLimits
from lib.download.outcomes import ResultWriter, Scheduler
from lib.download.picture import PictureFetch, make_fetch
from lib.download.recovery import claim_partial, kept_name, own_lease, save_partial
from lib.download.report import HostTotals, ProgressStats, RunStats
from lib.download.robots import Item, RobotsGate, RobotsReading
from lib.download.store import FileStore, Writers
from lib.download.verify import Verifier
from lib.files.names import KEPT, read_name, safe_id
from lib.net.fetch import Watchdog, fetch, open_session
from lib.net.host_queues import Host, HostQueues, SharedPauses, known_policies
from lib.net.request import BAD_RANGE, NOT_MODIFIED, REDIRECTED, FetchResult
from lib.progress import Bar
from lib.times import utc_in, utc_now

TICK = 0.2  # seconds between two looks at everything that is timed
SHOW_SECONDS = 0.3  # between two looks at how far the run is
GRACE = 10.0  # seconds that requests under way get after the first Ctrl-C
NAME_THREADS = 16  # for the system's blocking name service, apart from the writers' threads
KEPT_HOSTS = 64  # up to so many hosts, connections are stored also where nothing waits for them
WRITERS = 2  # a disk makes one wait now and then; the other goes on meanwhile
UPLOADS = 8  # at once, to an address that is not this machine's disk
OFFLINE_AFTER = 30  # requests that nobody answered, and none that anybody did: then it is our own network
FEW = 1024  # bytes that a transfer may still owe for a whole picture: lengths are counted wrong by a few
BROKEN_OFF = frozenset({"timeout", "too_slow", "disconnected", "truncated"})  # the rest may still be had

LARGEST_BLOCK = 250  # rows of one claim
LEASE_SECONDS = 900.0
RENEW_SECONDS = 300.0
START = ("", -(2**62))  # before every (next_try_at, number of a picture)


class DownloadLoop:
    """One run over the rows that are due, in one event loop."""

    def __init__(
        self,
        context: Context,
        options: DownloadOptions,
        *,
        orphans: dict[str, list[Path]],
        shared: SharedPauses | None = None,
    ):
        self.db, self.stopping = context.db, context.stopping
        self.options, self.orphans, self.shared = options, orphans, shared
        placeholders = read_placeholders(options.placeholders)
        decoders = max(1, (os.cpu_count() or 1) // options.share)
        self.verifier = Verifier(decoders, options.verify or VerifyLimits())
        self.store = FileStore(context.workspace, options, placeholders, self.verifier)
        threads = UPLOADS if options.to else decoders if options.verify else WRITERS
        self.writers = Writers(threads, self.store.close_reader)
        self.spooler = ThreadPoolExecutor(WRITERS, thread_name_prefix="spooler")  # of large bodies
        self.buffers = BodyBuffers(self.store.temporary, self.spooler, placeholders)
        self.results = ResultWriter(context, self.store.target, self.store.committed, options.min_free)
        self.work_queue = WorkQueue(self.db, options)
        self.watch = Watchdog()
        self.left: set[str] = set()  # names of parts
        self.busy, self.show_at = 0, 0.0
        self.failure: BaseException | None = None

    def run(self, bar: Bar) -> RunStats:
        """Works until nothing is due; raises what stopped the run early (a full disk), with everything recorded."""
        self.bar = bar
        stats = self.results.stats
        stats.began, stats.cpu = time.monotonic(), -time.process_time()
        self.store.parts.mkdir(exist_ok=True)
        self.left = {path.name for path in self.store.parts.glob(f"{KEPT}*.part")}  # by earlier runs
        self.results.check_space()
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
            for left in self.store.parts.glob(f"{self.store.owner}-*.part"):
                save_partial(str(left))
        stats.received = self.watch.received
        for host in self.queues.hosts.values():
            if host.requests and host.name:
                stats.hosts.setdefault(host.name, HostTotals()).add(host)
        stats.ended, stats.cpu = time.monotonic(), stats.cpu + time.process_time()
        return stats

    async def _main(self) -> None:
        loop, options = asyncio.get_running_loop(), self.options
        self.writers.start()
        loop.set_default_executor(ThreadPoolExecutor(NAME_THREADS, thread_name_prefix="names"))
        self.queues: HostQueues[Item] = HostQueues(
            options.per_host, options.per_domain, known_policies(), options.share, self.shared
        )
        async with open_session(
            allow_private=options.allow_private, contact=options.contact, exempt=options.exempt
        ) as session:
            self.robots = RobotsGate(self.db, session, options.limits, self.watch)
            self.scheduler = Scheduler(
                options, self.queues, self.results, self.orphans, self.bar, self.work_queue.block, self.robots
            )
            count = max(1, options.concurrency // options.share)
            tasks = [asyncio.create_task(self._serve(session)) for _ in range(count)]
            try:
                await self._run_until_finished()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._flush_and_release()
        if self.failure is not None:
            raise self.failure

    def _flush_and_release(self) -> None:
        """Records what is finished and gives back what is not, as far as the disk lets us."""
        try:
            self.results.flush()
            self.work_queue.give_back()
        except Exception as error:
            self.failure = self.failure or error
        if not self.failure and not self.stopping() and self.scheduler.is_offline(1):
            self.failure = self.scheduler.offline()

    async def _run_until_finished(self) -> None:
        stop_at = None
        while self.failure is None:
            now = self.queues.loop.time()
            self._do_timed_work()
            if self.stopping():
                stop_at = stop_at or now + GRACE
                if not self.busy or now > stop_at:
                    return
            else:
                self._fill()
                if self.work_queue.exhausted and not self.scheduler.outstanding:
                    return
            self.scheduler.wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.scheduler.wake.wait(), TICK)

    def _do_timed_work(self) -> None:
        self.watch.check()
        self.results.flush_if_due()
        self.work_queue.renew_if_due()
        if (now := time.monotonic()) >= self.show_at:  # comparing thousands of hosts takes a while
            self.show_at = now + SHOW_SECONDS
            self.bar.set_postfix_str(self.progress().text(now - self.results.stats.began), refresh=False)
        if self.scheduler.is_offline(OFFLINE_AFTER):
            self.failure = self.scheduler.offline()

    def progress(self) -> ProgressStats:
        """The numbers that the bar shows."""
        asked = (host for host in self.queues.hosts.values() if host.requests and host.name)
        slowest = max(((host.seconds / host.requests, host.name) for host in asked), default=(0.0, ""))
        return ProgressStats(self.watch.bytes_so_far(), self.results.stats.states.copy(), slowest)

    def _fill(self) -> None:
        """Fills the window, block by block."""
        while not self.work_queue.exhausted and self.scheduler.has_room:
            for picture in self.work_queue.claim_block():
                self.scheduler.start(picture)

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
                        await self._register_orphan(host, item)
                    elif self.options.robots == IGNORE or await self._may_ask(host, item):
                        await self._try(session, host, item)
                finally:
                    self.busy -= 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a full disk, or a bug: the main task ends the run and raises it
            self.failure = self.failure or error
            self.scheduler.wake.set()

    async def _may_ask(self, host: Host[Item], picture: PictureFetch) -> bool:
        """Asks the origin's robots.txt; where it says no or is not known, the picture goes on from here."""
        answer = await self.robots.answer_for(picture.target)
        if answer is None:
            self.queues.release(host, started=False)
            if reading := self.robots.wait(picture):
                self.scheduler.ask_robots(reading)
            return False
        if note := "robots_disallowed" if answer.reason else answer.detail:
            picture.notes.add(note)
        if answer.reason and self.options.robots == OBEY:
            self.queues.release(host, started=False)
            if picture.hop:
                answer.detail = f"redirected to {picture.hop}: {answer.detail}"
            self.scheduler.after_failure(picture, answer)
            await asyncio.sleep(0)  # a host of many rules and forbidden pictures lets the others have their turns
            return False
        if self.queues.pause_left(host) or self.queues.is_down(host):  # since its turn came
            self.queues.release(host, started=False)
            self.scheduler.schedule(picture)
            return False
        return True

    async def _read_robots(self, host: Host[Item], reading: RobotsReading) -> None:
        """One request for a robots.txt, and what follows for the pictures that wait for it."""
        answer = await self._request_to_host(host, self.robots.read(reading))
        if answer.reason == REDIRECTED:
            refused = reading.url.raw_host or ""
            if not (refusal := self.options.lists.refusal(refused)):
                self.scheduler.ask_robots(reading)
                return
            answer = FetchResult(refusal, f"robots.txt: {refused}", reached=None)
        if answer.reason and self.options.robots != OBEY:
            self.robots.pass_over(reading)
            answer = FetchResult()
        for picture in self.robots.end(reading):
            if answer.reason:
                picture.attempts += 1
                self.scheduler.after_failure(picture, replace(answer))
            else:
                self.scheduler.schedule(picture)

    async def _try(self, session: aiohttp.ClientSession, host: Host[Item], picture: PictureFetch) -> None:
        """Makes one request and does what follows from its answer."""
        begun, picture.partial = picture.partial, None
        if not begun and not picture.hop:
            name = kept_name(str(picture.url)) if self.left else ""
            if name in self.left:  # the beginning of this body, which an earlier run has left
                self.left.discard(name)
                begun = claim_partial(self.store.parts, str(picture.url), self.store.temporary)
        body = Body(self.buffers, str(picture.url), begun)
        fetching = True
        try:
            picture.attempts += not picture.hop
            # Thousands of hosts with an idle connection each would use up the files that a process may open.
            request = picture.request(begun, last=not host.waiting and len(self.queues.hosts) > KEPT_HOSTS)
            asked = fetch(session, picture.target, body, self.options.limits, self.watch, request)
            answer = await self._request_to_host(host, asked)  # the slot is free before the body goes to the disk
            if answer.reason and not await self._is_whole(answer, body):
                if answer.validator and answer.reason in BROKEN_OFF:
                    picture.partial = await body.keep_part(answer.validator)
                elif begun and body.begun and answer.reason != BAD_RANGE:  # what was there is as good as before
                    picture.partial = await body.keep_part(begun.validator)
                await body.discard()
                follow = self.scheduler.redirected if answer.reason == REDIRECTED else self.scheduler.after_failure
                follow(picture, answer)
                return
            if answer.reason:
                answer.reason = answer.detail = ""
                picture.notes.add("broken_off")
            await body.finish()
            fetching = False
            stored = await self.writers.run(
                self.store.store, picture.key, picture.address.kind, body, picture.more_than
            )
        except (asyncio.CancelledError, KeyboardInterrupt):  # a second Ctrl-C may be raised right here
            if fetching:
                await body.save_partial()
            raise
        finally:
            await body.discard()
        if stored.reason:
            answer.reason, answer.detail = stored.reason, stored.detail
            self.scheduler.after_failure(picture, answer)
        else:
            self.scheduler.end(picture, picture.done(stored, answer))

    async def _is_whole(self, answer: FetchResult, body: Body) -> bool:
        """Tells if what a broken transfer has brought, or a server has no more of, is the whole picture."""
        broken = answer.reason in BROKEN_OFF and answer.missing <= FEW
        if not body.size or not (broken or (answer.reason == BAD_RANGE and answer.at_end)):
            return False
        await body.finish()
        whole: bool = await self.writers.run(self.store.ends_well, body)
        return whole

    async def _request_to_host(self, host: Host[Item], request: Awaitable[FetchResult]) -> FetchResult:
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

    async def _register_orphan(self, host: Host[Item], picture: PictureFetch) -> None:
        """Takes over a whole file that a killed run left without its row."""
        self.queues.release(host)
        kinds = [address.kind for address in picture.addresses]
        for path in self.orphans.pop(safe_id(picture.key)):
            _, kind, digits = read_name(path.name) or ("", "", "")
            if kind in kinds:
                picture.index = kinds.index(kind)
                stored = await self.writers.run(self.store.register, path, digits)
                if not stored.reason:
                    self.scheduler.end(picture, picture.done(stored, FetchResult(bytes=stored.bytes)))
                    return
        picture.index = 0
        self.scheduler.schedule(picture)


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

    def claim_block(self) -> Iterator[PictureFetch]:
        """The next block of rows, each with its fetch."""
        limit, scope = self.options.limit, self.options.scope
        room = self.block if limit is None else min(self.block, limit - self.claimed)
        if not room:
            self.left.clear()
            return
        rows = claim(self.db, self.lease, utc_in(LEASE_SECONDS), self.after, room, self.left[0], scope)
        self.claimed += len(rows)
        if len(rows) == room:
            self.after = (rows[-1].next_try_at, rows[-1].image_id)
        else:
            self.left.popleft()
            self.after = START
        now = utc_now()
        yield from (make_fetch(row, self.options, now) for row in rows)

    def renew_if_due(self) -> None:
        if time.monotonic() > self.renew_at:
            renew(self.db, self.lease, utc_in(LEASE_SECONDS))
            self.renew_at = time.monotonic() + RENEW_SECONDS

    def give_back(self) -> None:
        """Frees what was claimed and not finished."""
        release(self.db, self.lease)
