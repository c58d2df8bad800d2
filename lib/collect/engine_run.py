"""All queries of one engine: workers over one paced queue, a stop for all where the engine says so.

Where a person sits before the browser's window, a captcha is left open for them, and the search goes on when it is
gone. Nothing here answers a captcha or looks at what it asks; the page is looked at until it is another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import urljoin, urlsplit

from lib.collect.options import CollectOptions
from lib.collect.pace import HostFallback, Interrupted, PacedSession, RateLimiter, Transport, is_loopback
from lib.collect.queue import PlannedQuery, results_found
from lib.collect.reach import PageProgress, Stop, due_pages
from lib.collect.search import Ending, QueryPages, QuerySearch
from lib.collect.store import Store
from lib.db import Database
from lib.db import queries as table
from lib.db.queries import QueryRow
from lib.engines.base import API, UPLOAD, Engine, FetchError, PageResponse
from lib.progress import ALWAYS, Bar
from lib.text import counted

log = logging.getLogger("gleaner.collect")

# One query may meet a passing trouble; two in a row mean that the engine cannot be reached.
NETWORK_PATIENCE = 2
STOPS = ("captcha", "blocked")
LATER = {"captcha", "blocked", "network"}  # outcomes after which a query stays queued
DONE = {"ok", "end", "empty"}

OpenWeb = Callable[[], AbstractAsyncContextManager[Any]]  # of a Transport; a browser's is a Window too

LOOK_SECONDS = 1.0  # between two looks at the page
LOOKS = 2  # so many in a row have to be free of a captcha: on its way to another page, one is


@dataclass
class Collected:
    """The results of a run at one engine. `stop` is the ending that stopped it."""

    pages: int = 0
    results: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    stops: list[Stop] = field(default_factory=list)
    stop: Ending | None = None
    unreachable: str = ""
    trouble: str = ""  # the last failure of the network

    @property
    def failed(self) -> int:
        """Queries that ended without what was asked for, but for those that a captcha or a block stopped."""
        return sum(count for name, count in self.outcomes.items() if name not in DONE | {"skipped", *STOPS})


class EngineRun:
    """Searches at the same hosts that share their pace, and a stop in `found`, where all results are counted.

    `open_web` gives each worker its way to the engine.
    """

    def __init__(
        self, store: Store, hosts: Iterable[str], options: CollectOptions, found: Collected, open_web: OpenWeb, bar: Bar
    ):
        self.store, self.found, self._open_web, self._bar = store, found, open_web, bar
        self._contexts = options.contexts
        self.hosts = HostFallback(list(hosts))
        self.patient = not is_loopback(self.hosts.name)
        engine = store.engine
        pace = options.pace if options.pace is not None else engine.interval if self.patient else 0.0
        self.limiter = RateLimiter(pace, engine.jitter, self.halted)
        self.captcha_pause = None
        if options.pause_on_captcha and engine.needs_browser:
            self.captcha_pause = CaptchaPause(engine, self.limiter, options.pause_limit * 60, self.halted)
        self._failures = 0  # of the network, one after the other

    def halted(self) -> bool:
        return self.store.context.stopping() or self.found.stop is not None or bool(self.found.unreachable)

    async def run(self, plans: list[PlannedQuery], wait: float = 0.0) -> None:
        """Works on the queries, `wait` seconds from now; what is not finished at a stop stays queued."""
        self.limiter.hold(wait)
        queue = deque(plans)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(min(self._contexts, len(plans)))]
        await all_or_none(workers)
        if self.found.stop and self.found.stop.wait is not None:
            self.store.hold_engine(self.found.stop.wait)

    async def _work(self, queue: deque[PlannedQuery]) -> None:
        async with self._open_web() as web:
            while queue and not self.halted():
                await self._search(web, queue.popleft())
                await web.recycle()

    async def _search(self, web: Transport, plan: PlannedQuery) -> None:
        """One query to its ending, which is written down and counted."""
        assert plan.row is not None
        pause, store = self.captcha_pause, self.store
        progress = PageProgress(self._bar, pages_due(store.context.db, store.engine, plan))
        search = QuerySearch(
            store, self.hosts, plan.row, plan.limits, self.halted, progress.page,
            web=PacedSession(web, self.limiter), patient=self.patient,
            helper=partial(pause.wait_for_person, cast(Window, web)) if pause else None,
        )  # fmt: skip
        try:
            ending = await run_and_record(search)
        finally:
            self.found.pages += search.pages
            self.found.results += search.results
            progress.end()
        if ending:
            self._count(ending)
        if ending and ending.by:
            pages = table.get_query(store.context.db, plan.row.id).next_page
            name = name_of(plan.row)
            stop = Stop(store.engine.name, name, ending.by, pages, search.found, plan.limits)
            self.found.stops.append(stop)

    def _count(self, ending: Ending) -> None:
        found = self.found
        found.outcomes[ending.outcome] += 1
        if ending.outcome in STOPS:
            found.stop = found.stop or ending
        found.trouble = ending.detail if ending.outcome == "network" else found.trouble
        self._failures = self._failures + 1 if ending.outcome == "network" else 0
        if self._failures >= NETWORK_PATIENCE:
            found.unreachable = ending.detail or "network"


def pages_due(db: Database, engine: Engine, plan: PlannedQuery) -> int:
    """The number of pages that a query is likely to take from where it is."""
    found = results_found(db, plan.row) if plan.row and plan.limits.results else 0
    return due_pages(plan.row.next_page if plan.row else 0, found, plan.limits, engine.page_size)


async def all_or_none(tasks: list[asyncio.Task[None]]) -> None:
    """Waits for all tasks; where one fails, the others are ended before its exception goes on."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_and_record(search: QueryPages) -> Ending | None:
    """Works on a query, records how it ended, and tells the person; None where it was interrupted."""
    store, query = search.store, search.query
    try:
        ending = await search.run()
    except Interrupted:
        store.end(query, "pending", "")
        return None
    state = "done" if ending.outcome in DONE else "pending" if ending.outcome in LATER else "failed"
    store.end(query, state, ending.outcome, ending.detail, ending.wait)
    reason = f"{ending.outcome}, {ending.detail}" if ending.detail else ending.outcome
    again = f"; --retry {ending.outcome} queues it again" if state == "failed" else ""
    found = f"{counted(search.pages, 'new page')}, {counted(search.results, 'new result')}"
    tell = log.warning if state == "failed" else log.info
    tell("%s: %s (%s)%s", f"{store.engine.name} {name_of(query)}", found, reason, again)
    return ending


def name_of(query: QueryRow) -> str:
    """The name by which a person knows a query: the picture's file name, or the keyword in quotes."""
    return query.image_path.rpartition("/")[2] if query.kind == "image" else f"{query.text!r}"


def stop_sentence(engine: Engine, ending: Ending, until: str) -> str:
    """Tells the person at the terminal what happened and what to do."""
    if ending.detail == "key_refused":  # neither time nor a slower pace mends that
        return (
            f"{engine.name} refused its key; its queue is kept. Correct the key in the environment and run the same "
            f"command with --retry {ending.outcome}."
        )
    what = "showed a captcha" if ending.outcome == "captcha" else f"refused to answer ({ending.detail or 'blocked'})"
    when = f"after {until}" if until else "later"
    seen = ", or with --headed --pause-on-captcha to answer it yourself" if engine.needs_browser else ""
    better = "" if engine.part(0) == API else " An open or official source has no such trouble."
    return (
        f"{engine.name} {what}; its queue is kept. Run the same command {when}, slower with --pace{seen}; "
        f"--retry {ending.outcome} tries at once.{better}"
    )


class Window(Protocol):
    """A page that a person can see."""

    async def show(self, url: str) -> None: ...

    async def screenshot_text(self) -> PageResponse | None: ...


@dataclass
class CaptchaPause:
    """A pause of at most `limit` seconds in which a person can answer an engine's captcha; one page at a time."""

    engine: Engine
    limiter: RateLimiter
    limit: float
    halted: Callable[[], bool]
    passed: int = 0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def wait_for_person(self, window: Window, answer: PageResponse, address: str) -> bool:
        """Shows the captcha and waits until it is passed; False where it was not. Raises Interrupted."""
        before = self.passed
        async with self._one:
            # Another search of the same profile may have met it first: then we are known by now.
            if self.passed > before:
                return True
            try:
                await window.show(captcha_address(answer) or address)
                if not await self._is_gone(window):
                    return False
            except FetchError as error:
                log.warning("%s: the page of the captcha was closed (%s)", self.engine.name, error.reason)
                return False
            self.passed += 1
            log.info("%s: the captcha is passed, going on", self.engine.name)
            return True

    async def _is_gone(self, window: Window) -> bool:
        log.warning(
            "%s shows a captcha: please answer it in the browser's window; waiting for %g minutes at most",
            self.engine.name, self.limit / 60, extra=ALWAYS,
        )  # fmt: skip
        end, free = time.monotonic() + self.limit, 0
        while time.monotonic() < end:
            if self.halted():
                raise Interrupted
            self.limiter.hold(2 * LOOK_SECONDS)  # nobody else asks meanwhile
            await asyncio.sleep(LOOK_SECONDS)
            seen = await window.screenshot_text()
            if seen is not None:
                free = 0 if self.engine.classify(seen).outcome == "captcha" else free + 1
            if free >= LOOKS:
                return True
        log.warning("%s: nobody has answered the captcha in time", self.engine.name)
        return False


def captcha_address(answer: PageResponse) -> str:
    """The address that shows a captcha: the answer's own where it is a page, or one that its JSON names; else empty."""
    if answer.part == UPLOAD:
        return ""
    if answer.body.lstrip()[:1] == b"<":
        return answer.url
    try:
        named = urljoin(answer.url, json.loads(answer.body)["captcha"]["captcha-page"])
        here, there = urlsplit(answer.url), urlsplit(named)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return named if (here.scheme, here.netloc) == (there.scheme, there.netloc) else ""
