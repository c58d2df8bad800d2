"""All queries of one engine: workers over one paced queue, and a stop for all where the engine says so."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from lib.collecting.pace import Interrupted, PacedWeb, Pacer, Transport, is_loopback
from lib.collecting.person import Person, Window
from lib.collecting.search import Ending, Hosts, Limits, Search
from lib.collecting.store import Store
from lib.db.queries import QueryRow
from lib.engines.base import API, Engine
from lib.progress import Bar
from lib.sentences import counted

log = logging.getLogger("gleaner.collect")

# One query may meet a passing trouble; two in a row mean that the engine cannot be reached.
NETWORK_PATIENCE = 2
STOPS = ("captcha", "blocked")
LATER = {"captcha", "blocked", "network"}  # outcomes after which a query stays queued
DONE = {"ok", "end", "empty"}

OpenWeb = Callable[[], AbstractAsyncContextManager[Any]]  # of a Transport; a browser's is a Window too


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
    limits: Limits


class EngineRun:
    """The state that the workers of one engine share. `open_web` gives each of them its way to the engine."""

    def __init__(
        self, store: Store, options: CollectOptions, stopping: Callable[[], bool], open_web: OpenWeb, bar: Bar
    ):
        self.store, self.options, self._stopping, self._open_web, self._bar = store, options, stopping, open_web, bar
        self.found = Collected()
        self.hosts = Hosts(list(options.hosts))
        self.patient = not is_loopback(self.hosts.name)
        engine = store.engine
        pace = options.pace if options.pace is not None else engine.interval if self.patient else 0.0
        self.pacer = Pacer(pace, engine.jitter, self.halted)
        limit = options.person_limit if engine.needs_browser else None
        self.person = None if limit is None else Person(engine, self.pacer, limit, self.halted)
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
        search = Search(
            self.store.engine, PacedWeb(web, self.pacer), self.pacer, self.store, self.hosts, task.query, task.limits,
            self.patient, self.halted, partial(self.person.help, cast(Window, web)) if self.person else None,
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


def write_down(store: Store, query: QueryRow, ending: Ending, search: Search) -> None:
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
