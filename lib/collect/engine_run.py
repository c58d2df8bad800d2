"""All queries of one engine: workers over one paced queue, and a stop for all where the engine says so.

A person at the browser's window: a captcha is left open for them, and the search goes on when it is gone.

Nothing here answers a captcha or looks at what it asks; the page is looked at now and then until it is another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import urljoin, urlsplit

from lib.collect.pace import HostFallback, Interrupted, PacedSession, RateLimiter, Transport, is_loopback
from lib.collect.queue import SearchLimits
from lib.collect.search import Ending, QuerySearch
from lib.collect.store import Store
from lib.db.queries import QueryRow
from lib.engines.base import API, UPLOAD, Engine, FetchError, PageResponse
from lib.progress import Bar
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


@dataclass(frozen=True)
class CollectOptions:
    """How an engine is worked on. `pace` in seconds; None is the engine's own interval.

    `person_limit` is how many seconds a captcha is left open for a person; None is not at all.
    """

    hosts: tuple[str, ...]
    pace: float | None = None
    contexts: int = 1
    person_limit: float | None = None


@dataclass
class Collected:
    """What a run brought. `stop` is the ending that stopped the engine."""

    pages: int = 0
    results: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    stop: Ending | None = None
    unreachable: str = ""
    trouble: str = ""  # the last failure of the network

    def add(self, other: Collected) -> None:
        self.pages += other.pages
        self.results += other.results
        self.outcomes += other.outcomes
        self.stop = self.stop or other.stop
        self.unreachable = self.unreachable or other.unreachable
        self.trouble = other.trouble or self.trouble

    @property
    def failed(self) -> int:
        """Queries that ended without what was asked for, but for those that a captcha or a block stopped."""
        return sum(count for name, count in self.outcomes.items() if name not in DONE | {"skipped", *STOPS})


@dataclass(frozen=True)
class Task:
    """A query and how far it goes."""

    query: QueryRow
    limits: SearchLimits


class EngineRun:
    """The state that the workers of one engine share. `open_web` gives each of them its way to the engine."""

    def __init__(
        self, store: Store, options: CollectOptions, stopping: Callable[[], bool], open_web: OpenWeb, bar: Bar
    ):
        self.store, self.options, self._stopping, self._open_web, self._bar = store, options, stopping, open_web, bar
        self.found = Collected()
        self.hosts = HostFallback(list(options.hosts))
        self.patient = not is_loopback(self.hosts.name)
        engine = store.engine
        pace = options.pace if options.pace is not None else engine.interval if self.patient else 0.0
        self.pacer = RateLimiter(pace, engine.jitter, self.halted)
        limit = options.person_limit if engine.needs_browser else None
        self.person = None if limit is None else CaptchaPause(engine, self.pacer, limit, self.halted)
        self._failures = 0  # of the network, one after the other

    def halted(self) -> bool:
        return self._stopping() or self.found.stop is not None or bool(self.found.unreachable)

    async def run(self, tasks: list[Task], wait: float = 0.0) -> Collected:
        """Works on the queries, `wait` seconds from now; what is not finished at a stop stays queued."""
        self.pacer.hold(wait)
        queue = deque(tasks)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(min(self.options.contexts, len(tasks)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if self.found.stop and self.found.stop.wait is not None:
            self.store.hold_engine(self.found.stop.wait)
        return self.found

    async def _work(self, queue: deque[Task]) -> None:
        async with self._open_web() as web:
            while queue and not self.halted():
                await self._search(web, queue.popleft())
                self._bar.update()
                await web.recycle()

    async def _search(self, web: Transport, task: Task) -> None:
        """One query to its ending, which is written down and counted."""
        search = QuerySearch(
            self.store.engine, PacedSession(web, self.pacer), self.pacer, self.store, self.hosts, task.query,
            task.limits, self.patient, self.halted,
            partial(self.person.help, cast(Window, web)) if self.person else None,
        )  # fmt: skip
        try:
            ending = await search.run()
        except Interrupted:
            self.store.end(task.query, "pending", "")
            return
        finally:
            self.found.pages += search.pages
            self.found.results += search.results
        self.found.outcomes[ending.outcome] += 1
        self._heed(ending)
        write_down(self.store, task.query, ending, search)

    def _heed(self, ending: Ending) -> None:
        if ending.outcome in STOPS:
            self.found.stop = self.found.stop or ending
        self.found.trouble = ending.detail if ending.outcome == "network" else self.found.trouble
        self._failures = self._failures + 1 if ending.outcome == "network" else 0
        if self._failures >= NETWORK_PATIENCE:
            self.found.unreachable = ending.detail or "network"


def write_down(store: Store, query: QueryRow, ending: Ending, search: QuerySearch) -> None:
    """Records how the work on a query ended, and tells the person."""
    state = "done" if ending.outcome in DONE else "pending" if ending.outcome in LATER else "failed"
    store.end(query, state, ending.outcome, ending.detail, ending.wait)
    reason = f"{ending.outcome}, {ending.detail}" if ending.detail else ending.outcome
    tell = log.warning if state == "failed" else log.info
    again = f"; --retry {ending.outcome} queues it again" if state == "failed" else ""
    what = f"{store.engine.name} {name_of(query)}"
    found = f"{counted(search.pages, 'new page')}, {counted(search.results, 'new result')}"
    tell("%s: %s (%s)%s", what, found, reason, again)


def name_of(query: QueryRow) -> str:
    """How a person knows a query: the picture's file name, or the keyword in quotes."""
    return query.image_path.rpartition("/")[2] if query.kind == "image" else f"{query.text!r}"


def stop_sentence(engine: Engine, ending: Ending, until: str) -> str:
    """What happened and what to do, for the person at the terminal."""
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

    async def glance(self) -> PageResponse | None: ...


@dataclass
class CaptchaPause:
    """Who answers an engine's captchas, for at most `limit` seconds each time. One page is shown at a time."""

    engine: Engine
    pacer: RateLimiter
    limit: float
    halted: Callable[[], bool]
    passed: int = 0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def help(self, window: Window, answer: PageResponse, address: str) -> bool:
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
            self.engine.name, self.limit / 60,
        )  # fmt: skip
        end, free = time.monotonic() + self.limit, 0
        while time.monotonic() < end:
            if self.halted():
                raise Interrupted
            self.pacer.hold(2 * LOOK_SECONDS)  # nobody else asks meanwhile
            await asyncio.sleep(LOOK_SECONDS)
            seen = await window.glance()
            if seen is not None:
                free = 0 if self.engine.classify(seen).outcome == "captcha" else free + 1
            if free >= LOOKS:
                return True
        log.warning("%s: nobody has answered the captcha in time", self.engine.name)
        return False


def captcha_address(answer: PageResponse) -> str:
    """Where the captcha can be seen: the answer itself where it is a page, or what its JSON names; else empty. Pure."""
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
