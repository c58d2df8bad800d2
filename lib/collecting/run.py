"""All queries of one engine: workers over one paced queue, and a stop for all where the engine says so."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lib.browser import BrowserSettings, BrowserWeb, Chromium
from lib.collecting.pace import Interrupted, PacedWeb, Pacer, is_loopback
from lib.collecting.search import Ending, Hosts, Limits, Search
from lib.collecting.store import Store
from lib.db.queries import QueryRow
from lib.progress import BarFactory, no_bar

log = logging.getLogger("gleaner.collect")

# One query may meet a passing trouble; two in a row mean that the engine cannot be reached.
NETWORK_PATIENCE = 2
STOPS = ("captcha", "blocked")
LATER = {"captcha", "blocked", "network"}  # outcomes after which a query stays queued
DONE = {"ok", "end", "empty"}


@dataclass(frozen=True)
class CollectOptions:
    """How an engine is worked on. `pace` in seconds; None is the engine's own interval."""

    hosts: tuple[str, ...]
    browser: BrowserSettings
    pace: float | None = None
    contexts: int = 1


@dataclass
class Collected:
    """What a run brought. `stop` is the ending that stopped the engine."""

    pages: int = 0
    results: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    stop: Ending | None = None
    unreachable: str = ""
    trouble: str = ""  # the last failure of the network


@dataclass(frozen=True)
class Task:
    """A query and how far it goes."""

    query: QueryRow
    limits: Limits


class EngineRun:
    """The state that the workers of one engine share."""

    def __init__(self, store: Store, options: CollectOptions, stopping: Callable[[], bool], bar: BarFactory = no_bar):
        self.store, self.options, self._stopping, self._bar = store, options, stopping, bar
        self.found = Collected()
        self.hosts = Hosts(list(options.hosts))
        self.patient = not is_loopback(self.hosts.name)
        engine = store.engine
        pace = options.pace if options.pace is not None else engine.interval if self.patient else 0.0
        self.pacer = Pacer(pace, engine.jitter, self.halted)
        self._failures = 0  # of the network, one after the other

    def halted(self) -> bool:
        return self._stopping() or self.found.stop is not None or bool(self.found.unreachable)

    async def run(self, tasks: list[Task], wait: float = 0.0) -> Collected:
        """Works on the queries, `wait` seconds from now; what is not finished at a stop stays queued."""
        self.pacer.hold(wait)
        queue = deque(tasks)
        with self._bar(len(tasks), "Searching", "query") as bar:
            async with Chromium(self.options.browser) as chromium:
                workers = [
                    asyncio.create_task(self._work(chromium, queue, bar))
                    for _ in range(min(self.options.contexts, len(tasks)))
                ]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
        if self.found.stop and self.found.stop.wait is not None:
            self.store.hold_engine(self.found.stop.wait)
        return self.found

    async def _work(self, chromium: Chromium, queue: deque[Task], bar: object) -> None:
        async with BrowserWeb(chromium) as web:
            paced = PacedWeb(web, self.pacer)
            while queue and not self.halted():
                await self._search(paced, queue.popleft())
                bar.update()  # type: ignore[attr-defined]
                await web.recycle()

    async def _search(self, web: PacedWeb, task: Task) -> None:
        """One query to its ending, which is written down and counted."""
        search = Search(
            self.store.engine,
            web,
            self.pacer,
            self.store,
            self.hosts,
            task.query,
            task.limits,
            self.patient,
            self.halted,
        )
        try:
            ending = await search.run()
        except Interrupted:
            self.store.end(task.query, "pending", "")
            return
        finally:
            self.found.pages += search.pages
            self.found.results += search.results
        state = "done" if ending.outcome in DONE else "pending" if ending.outcome in LATER else "failed"
        self.store.end(task.query, state, ending.outcome, ending.detail, ending.wait)
        self.found.outcomes[ending.outcome] += 1
        self._heed(ending)
        reason = f"{ending.outcome}, {ending.detail}" if ending.detail else ending.outcome
        tell = log.warning if state == "failed" else log.info
        again = f"; --retry {ending.outcome} queues it again" if state == "failed" else ""
        tell(
            "%s: %d new pages, %d new results (%s)%s", name_of(task.query), search.pages, search.results, reason, again
        )

    def _heed(self, ending: Ending) -> None:
        if ending.outcome in STOPS:
            self.found.stop = self.found.stop or ending
        self.found.trouble = ending.detail if ending.outcome == "network" else self.found.trouble
        self._failures = self._failures + 1 if ending.outcome == "network" else 0
        if self._failures >= NETWORK_PATIENCE:
            self.found.unreachable = ending.detail or "network"


def name_of(query: QueryRow) -> str:
    """How a person knows a query: the picture's file name, or the keyword in quotes."""
    return query.image_path.rpartition("/")[2] if query.kind == "image" else f"{query.text!r}"


def stop_sentence(engine: str, ending: Ending, until: str) -> str:
    """What happened and what to do, for the person at the terminal."""
    what = "showed a captcha" if ending.outcome == "captcha" else f"refused to answer ({ending.detail or 'blocked'})"
    when = f"after {until}" if until else "later"
    return (
        f"{engine} {what}; its queue is kept. Run the same command {when}, slower with --pace, or with --headed to see "
        f"the page; --retry {ending.outcome} tries at once. An official API has no such trouble."
    )
