"""All engines of a run of step 1 at once: one paced queue each, one browser for those that need one.

One engine's share of a run of step 1: plan, queue, search.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from lib.collect import queue
from lib.collect.engine_run import Collected, CollectOptions, EngineRun, OpenWeb, Task, stop_sentence
from lib.collect.options import names_queries
from lib.collect.pace import engine_lock, profile_lock
from lib.collect.preconditions import Settings, check_engine, check_flags, settings_of, without_searches
from lib.collect.queue import SKIP, PlannedQuery, SearchLimits
from lib.collect.search import LONGEST_WAIT
from lib.collect.show import drift_warning
from lib.collect.store import Store
from lib.db import Database
from lib.db import queries as table
from lib.db.queries import NewQuery, QueryRow, count_restored_pages
from lib.engines import DEFAULT, NAMES, filters_in
from lib.engines.base import Engine, load_engine
from lib.errors import EXIT_BLOCKED, EXIT_FAILED, EXIT_INCOMPLETE, EXIT_OK, UsageError
from lib.progress import Bar, BarFactory
from lib.web.browser import BrowserWeb, Chromium
from lib.web.direct import DirectWeb
from lib.workspace import Workspace

NOTHING_SEARCHABLE = (
    "nothing that was asked for can be searched: no picture among it can be read and decoded (--list shows why)."
)

log = logging.getLogger("gleaner.collect")


@dataclass
class Ended:
    """How a run ended: the summary's numbers, and what the person has to be told."""

    counts: dict[str, int | float | str]
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exit_code: int = EXIT_OK


class Collection:
    """The engines of a run. Raises UsageError where the flags do not go with them."""

    def __init__(self, args: argparse.Namespace, workspace: Workspace, db: Database):
        self.args, self.workspace, self.db = args, workspace, db
        self.problems: list[str] = []
        engines = [load_engine(name) for name in self._names()]
        check_flags(args, engines)
        self.jobs = [EngineQueue(args, workspace, db, engine, self.problems) for engine in engines]

    def _names(self) -> tuple[str, ...]:
        """The engines asked for; to go on with the queue, those that have one."""
        if self.args.engine:
            return tuple(dict.fromkeys(self.args.engine))
        if names_queries(self.args):
            return (DEFAULT,)
        queued = table.engines_pending(self.db)
        if self.args.retry:
            queued += table.engines_with_outcome(self.db, self.args.retry)
        if not table.engines_known(self.db):
            raise UsageError(without_searches(self.workspace))
        return tuple(name for name in NAMES if name in queued)

    def preview(self) -> list[str]:
        """What would be done, one line a query, and what would be left out; writes nothing. Raises UsageError."""
        lines = [plan.line for job in self.jobs for plan in job.plan()]
        return lines + [f"Would leave out: {problem}" for problem in dict.fromkeys(self.problems)]

    def run(self, run_id: int, stopping: Callable[[], bool], bar: BarFactory) -> Ended:
        """Queues what is new and searches everywhere at once. Raises UsageError before anything is touched."""
        for job in self.jobs:
            check_engine(self.args, job.engine)
            job.engine.require_keys()
        settings = settings_of(self.args, [job.engine for job in self.jobs], self.workspace.root)
        for job in self.jobs:
            job.tell_contact()
        with ExitStack() as locks:
            for job in self.jobs:
                locks.enter_context(engine_lock(self.workspace, job.engine.name))
            if settings.browser and settings.browser.profile:
                locks.enter_context(profile_lock(settings.browser.profile))
            for job in self.jobs:
                job.prepare(run_id)
            queued = sum(len(batch.tasks) for job in self.jobs for batch in job.batches)
            with bar(queued, "Searching", "query") as progress:
                asyncio.run(self._search(settings, run_id, stopping, progress))
        return self._ended(run_id)

    async def _search(self, settings: Settings, run_id: int, stopping: Callable[[], bool], bar: Bar) -> None:
        async with AsyncExitStack() as stack:
            # It is started by the first page that is asked for.
            chromium = await stack.enter_async_context(Chromium(settings.browser)) if settings.browser else None
            tasks = []
            for job in self.jobs:
                open_web: OpenWeb
                if job.engine.needs_browser and chromium:
                    open_web = partial(BrowserWeb, chromium)
                else:  # one session, shared by all searches at the engine
                    session = await stack.enter_async_context(DirectWeb(settings.direct[job.engine.name]))
                    open_web = partial(nullcontext, session)
                tasks.append(asyncio.create_task(job.search(run_id, stopping, open_web, bar)))
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, run_id: int) -> Ended:
        verdicts = [job.verdict() for job in self.jobs]
        codes = {code for code, _ in verdicts}
        drifted = [drift_warning(self.db, job.engine.name, run_id) for job in self.jobs if job.found.pages]
        unreadable = len(dict.fromkeys(self.problems))
        if unreadable and self.args.strict and not codes & {EXIT_FAILED, EXIT_BLOCKED}:
            codes.add(EXIT_INCOMPLETE)
        sentences = [sentence for _, sentence in verdicts if sentence]
        if names_queries(self.args) and not any(job.searchable for job in self.jobs):
            codes.add(EXIT_FAILED)
            sentences.append(NOTHING_SEARCHABLE)
        return Ended(
            self._counts() | ({"unreadable": unreadable} if unreadable else {}),
            sentences,
            [*dict.fromkeys(self.problems), *filter(None, drifted)],
            next((code for code in (EXIT_BLOCKED, EXIT_FAILED, EXIT_INCOMPLETE) if code in codes), EXIT_OK),
        )

    def _counts(self) -> dict[str, Any]:
        """The numbers of the summary line; what is zero is left out, but for queries, pages and results."""
        outcomes: Counter[str] = sum((job.found.outcomes for job in self.jobs), Counter())
        return {
            "queries": sum(count for name, count in outcomes.items() if name != "skipped"),
            "pages": sum(job.found.pages for job in self.jobs),
            "results": sum(job.found.results for job in self.jobs),
        } | {name: count for name, count in sorted(outcomes.items()) if count}


@dataclass(frozen=True)
class QueryBatch:
    """Queries that go to the same hosts, which want to be left alone for `wait` seconds more."""

    hosts: tuple[str, ...]
    tasks: list[Task]
    wait: float


@dataclass
class EngineQueue:
    """`problems` are pictures that could not be read; `held` is until when everything has to wait."""

    args: argparse.Namespace
    workspace: Workspace
    db: Database
    engine: Engine
    problems: list[str] = field(default_factory=list)
    batches: list[QueryBatch] = field(default_factory=list)
    found: Collected = field(default_factory=Collected)
    held: str = ""
    searchable: int = 0  # queries that can be searched for, done or not

    @property
    def limits(self) -> SearchLimits:
        pages = self.args.max_pages or self.engine.default_pages
        return SearchLimits(min(pages, self.engine.most_pages), self.args.max_results)

    @property
    def hosts(self) -> tuple[str, ...]:
        return queue.hosts_for(self.engine, self.args.host)

    def tell_contact(self) -> None:
        if self.engine.wants_contact and not os.environ.get("GLEANER_CONTACT", "").strip():
            name = self.engine.name
            log.warning("%s asks every client who it is; set GLEANER_CONTACT to a mail address or a page", name)

    def plan(self) -> list[PlannedQuery]:
        """What is to be done, in order; writes nothing. Raises UsageError."""
        args = self.args
        if names_queries(args):
            planned = queue.plan_given(self.db, self.given(), self.limits)
        else:
            planned = queue.plan_pending(self.db, self.engine, args.host, self.limits, args.max_pages)
        if args.retry and args.dry_run:
            again = queue.plan_retry(self.db, self.engine, args.retry, self.limits, args.max_pages)
            known = {plan.row.id for plan in again if plan.row}
            planned = again + [plan for plan in planned if plan.row is None or plan.row.id not in known]
        return self._limited(planned)

    def given(self) -> list[NewQuery]:
        """The queries named on the command line. Raises UsageError where there is none."""
        args = self.args
        check_engine(args, self.engine)
        words = queue.keywords(args.keywords or (), args.keywords_file)
        params = queue.params_for(self.engine, args.host, filters_in(vars(args)))
        found = [NewQuery(self.engine.name, "keyword", word, params=params) for word in words]
        found += queue.picture_queries(self.engine, args.images or (), self.workspace, params, self.problems)
        if not found and not self.problems:
            raise UsageError(queue.NOTHING_GIVEN)
        return found

    def _limited(self, planned: list[PlannedQuery]) -> list[PlannedQuery]:
        """At most `--limit` queries that cost anything."""
        if self.args.limit is None:
            return planned
        kept, left = [], self.args.limit
        for plan in planned:
            left -= plan.action != SKIP
            if left >= 0 or plan.action == SKIP:
                kept.append(plan)
        return kept

    def prepare(self, run_id: int) -> None:
        """Queues what is new and sorts what is to be done. Only for who holds the engine's lock."""
        count_restored_pages(self.db, self.engine.name)
        if table.release_running(self.db, self.engine.name):
            log.info("going on where an earlier run was stopped")
        if self.args.retry:
            again = table.requeue(self.db, self.engine.name, self.args.retry)
            log.info("%s: queued again: %d with outcome %s", self.engine.name, again, self.args.retry)
        planned, rejected = queue.queue(self.db, self.plan(), run_id, self.workspace)
        self.searchable = sum(not (plan.row and is_no_picture(plan.row)) for plan in planned)
        self.found.outcomes["upload_rejected"] += rejected
        self.found.outcomes["skipped"] += sum(plan.action == SKIP for plan in planned) - rejected
        self._sort(planned)

    def _sort(self, planned: list[PlannedQuery]) -> None:
        """Batches by the hosts that they belong to. A wait is for the whole queue, what is new in it included."""
        by_hosts: dict[tuple[str, ...], list[PlannedQuery]] = {}
        for plan in planned:
            if plan.row and plan.action != SKIP:
                own = plan.row.params.get("host")
                by_hosts.setdefault((own,) if own else self._own_hosts(), []).append(plan)
        for hosts, plans in by_hosts.items():
            until = table.held_until(self.db, self.engine.name, plans[0].new.params.get("host", ""))
            wait = seconds_until(until)
            if wait > LONGEST_WAIT:
                self.held = min(self.held or until, until)
            else:
                self.batches.append(
                    QueryBatch(hosts, [Task(plan.row, plan.limits) for plan in plans if plan.row], wait)
                )
        if self.batches:
            self.held = ""

    def _own_hosts(self) -> tuple[str, ...]:
        host = self.args.host
        return self.hosts if host is None or self.engine.knows_host(host) else self.engine.hosts

    async def search(self, run_id: int, stopping: Callable[[], bool], open_web: OpenWeb, bar: Bar) -> None:
        """Works on everything that was prepared; `found` tells how it went."""
        args = self.args
        limit = args.pause_limit * 60 if args.pause_on_captcha else None
        for batch in self.batches:
            options = CollectOptions(batch.hosts, args.pace, args.contexts, limit)
            store = Store(self.db, self.workspace, self.engine, run_id)
            self.found.add(await EngineRun(store, options, stopping, open_web, bar).run(batch.tasks, batch.wait))
            if stopping() or self.found.stop or self.found.unreachable:
                break

    def verdict(self) -> tuple[int, str]:
        """The exit code, and the sentence for the person where it is not 0."""
        found, name = self.found, self.engine.name
        if found.stop:
            waiting = [row.not_before for row in table.pending_queries(self.db, name) if row.not_before]
            until = minute(max(waiting)) if waiting and found.stop.wait else ""
            return EXIT_BLOCKED, stop_sentence(self.engine, found.stop, until)
        if self.held:
            return EXIT_BLOCKED, (
                f"{name} asked to be left alone until {minute(self.held)}; run the same command after that, "
                "or add --retry captcha (or blocked) to try at once."
            )
        if found.unreachable or (found.outcomes["network"] and not found.pages):
            reason = found.unreachable or found.trouble
            remedy = "check the network, --host and --proxy, and run again"
            if reason.startswith("browser_"):
                remedy = "run python3 0_setup.py to check the browser"
            return EXIT_FAILED, f"{name} could not be reached ({reason}); {remedy}."
        if found.failed and self.args.strict:
            return EXIT_INCOMPLETE, f"{found.failed} of the queries at {name} failed; --list shows why."
        return EXIT_OK, ""


def is_no_picture(row: QueryRow) -> bool:
    """Whether a query picture could not be decoded, so that it was never shown to the engine."""
    return row.state == "failed" and row.outcome == "upload_rejected" and not row.cursor


def minute(moment: str) -> str:
    """A moment as a person reads it."""
    return f"{moment[:16].replace('T', ' ')} UTC"


def seconds_until(moment: str) -> float:
    """Seconds from now to a moment as the database writes it; 0 where it is empty or over."""
    if not moment:
        return 0.0
    then = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
