"""A run of step 1: all engines at once, each with a paced queue of its own, one browser for those that need one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from lib.collect import queue
from lib.collect.engine_run import Collected, EngineRun, OpenWeb, all_or_none, pages_due, stop_sentence
from lib.collect.options import CollectOptions
from lib.collect.pace import engine_lock, profile_lock
from lib.collect.preconditions import NO_QUEUE, check_engine, check_flags, settings_for
from lib.collect.queue import CONTINUE, SEARCH, SKIP, PlannedQuery
from lib.collect.reach import SearchLimits, Stop, limits_for, stop_lines, why_no_page
from lib.collect.search import LONGEST_WAIT
from lib.collect.show import drift_warning
from lib.collect.store import Store
from lib.db import Context
from lib.db import queries as table
from lib.db.queries import NewQuery, QueryRow
from lib.engines import DEFAULT, NAMES
from lib.engines.base import Engine, load_engine
from lib.errors import EXIT_BLOCKED, EXIT_FAILED, EXIT_INCOMPLETE, EXIT_OK, UsageError
from lib.progress import Bar
from lib.web.browser import BrowserSettings, BrowserWeb, Chromium
from lib.web.direct import DirectSettings, DirectWeb

NOTHING_SEARCHABLE = (
    "nothing that was asked for can be searched: no picture among it can be read and decoded (--list shows why)."
)

FAILURES = ("consent", "region", "wrong_tab", "upload_rejected", "parse_error")  # after these nothing is queued

log = logging.getLogger("gleaner.collect")


@dataclass
class CollectReport:
    """The end of a run: the summary's numbers, and what the person has to be told."""

    counts: dict[str, int | float | str]
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    exit_code: int = EXIT_OK

    @property
    def notes(self) -> list[str]:
        """Lines for the person: what ended the queries, and why where no page came."""
        return [*stop_lines(self.stops), *filter(None, [why_no_page(self.counts, FAILURES)])]

    @property
    def result(self) -> dict[str, Any]:
        """The `result` of `--json`."""
        found: dict[str, Any] = {"warnings": self.warnings, "stopped": [stop.as_dict() for stop in self.stops]}
        return found | ({"error": " ".join(self.sentences)} if self.sentences else {})


class Collection:
    """The engines of a run. Raises UsageError where the flags do not go with them."""

    def __init__(self, context: Context, options: CollectOptions):
        self.context, self.options = context, options
        self.problems: list[str] = []
        self.has_work = False  # known after the preview
        engines = [load_engine(name) for name in self._names()]
        check_flags(options, engines)
        self.queues = [EngineQueue(context, options, engine, self.problems) for engine in engines]

    def _names(self) -> tuple[str, ...]:
        """The engines asked for; to go on with the queue, those that have one."""
        if self.options.engine:
            return tuple(dict.fromkeys(self.options.engine))
        if self.options.names_queries:
            return (DEFAULT,)
        db = self.context.db
        queued = table.engines_pending(db)
        if self.options.retry:
            queued += table.engines_with_outcome(db, self.options.retry)
        if not table.engines_known(db):
            raise UsageError(NO_QUEUE.format(self.context.workspace.root))
        return tuple(name for name in NAMES if name in queued)

    def preview(self) -> list[str]:
        """Tells what would be done, one line a query, and what would be left out; writes nothing. Raises UsageError."""
        plans = [plan for waiting in self.queues for plan in waiting.plan()]
        self.has_work = any(plan.action in (SEARCH, CONTINUE) for plan in plans)
        lines = [plan.line for plan in plans]
        for each in self.queues:
            try:
                each.engine.require_keys()
            except UsageError as error:
                lines.append(f"Would be refused: {error}")
                self.has_work = False
        return lines + [f"Would leave out: {problem}" for problem in dict.fromkeys(self.problems)]

    def run(self) -> CollectReport:
        """Queues what is new and searches everywhere at once. Raises UsageError before anything is touched."""
        for each in self.queues:
            check_engine(self.options, each.engine)
            each.engine.require_keys()
        browser, direct = settings_for(self.options, [each.engine for each in self.queues], self.context.workspace.root)
        for each in self.queues:
            if each.engine.wants_contact and not each.engine.contact:
                ask = "%s asks every client who it is; set GLEANER_CONTACT to a mail address or a page"
                log.warning(ask, each.engine.name)
        with ExitStack() as locks:
            for each in self.queues:
                locks.enter_context(engine_lock(self.context.workspace, each.engine.name))
            if browser and browser.profile:
                locks.enter_context(profile_lock(browser.profile))
            for each in self.queues:
                each.prepare()
            with self.context.bar(sum(each.pages_due() for each in self.queues), "Searching", "page") as progress:
                asyncio.run(self._search(browser, direct, progress))
        return self._report()

    async def _search(self, browser: BrowserSettings | None, direct: dict[str, DirectSettings], bar: Bar) -> None:
        async with AsyncExitStack() as stack:
            # It is started by the first page that is asked for.
            chromium = await stack.enter_async_context(Chromium(browser)) if browser else None
            tasks = []
            for each in self.queues:
                open_web: OpenWeb
                if each.engine.needs_browser and chromium:
                    open_web = partial(BrowserWeb, chromium)
                else:  # one session, shared by all searches at the engine
                    session = await stack.enter_async_context(DirectWeb(direct[each.engine.name]))
                    open_web = partial(nullcontext, session)
                tasks.append(asyncio.create_task(each.search(open_web, bar)))
            await all_or_none(tasks)

    def _report(self) -> CollectReport:
        states = [each.exit_state() for each in self.queues]
        codes = {code for code, _ in states}
        sentences = [sentence for _, sentence in states if sentence]
        db, run_id = self.context.db, self.context.run_id
        drifted = [drift_warning(db, each.engine.name, run_id) for each in self.queues if each.found.pages]
        problems = list(dict.fromkeys(self.problems))
        if problems and self.options.strict and not codes & {EXIT_FAILED, EXIT_BLOCKED}:
            codes.add(EXIT_INCOMPLETE)
        if self.options.names_queries and not any(each.searchable for each in self.queues):
            codes.add(EXIT_FAILED)
            sentences.append(NOTHING_SEARCHABLE)
        return CollectReport(
            self._counts() | ({"unreadable": len(problems)} if problems else {}),
            sentences,
            [*problems, *filter(None, drifted)],
            [stop for each in self.queues for stop in each.found.stops],
            next((code for code in (EXIT_BLOCKED, EXIT_FAILED, EXIT_INCOMPLETE) if code in codes), EXIT_OK),
        )

    def _counts(self) -> dict[str, Any]:
        """The numbers of the summary line; what is zero is left out, but for queries, pages and results."""
        outcomes: Counter[str] = sum((each.found.outcomes for each in self.queues), Counter())
        return {
            "queries": sum(count for name, count in outcomes.items() if name != "skipped"),
            "pages": sum(each.found.pages for each in self.queues),
            "results": sum(each.found.results for each in self.queues),
        } | {name: count for name, count in sorted(outcomes.items()) if count}


@dataclass(frozen=True)
class QueryBatch:
    """Queries that go to the same hosts, which want to be left alone for `wait` seconds more."""

    hosts: tuple[str, ...]
    plans: list[PlannedQuery]
    wait: float


@dataclass
class EngineQueue:
    """The queries of one engine in a run.

    `problems` are pictures that could not be read; `held` is until when everything has to wait.
    """

    context: Context
    options: CollectOptions
    engine: Engine
    problems: list[str] = field(default_factory=list)
    batches: list[QueryBatch] = field(default_factory=list)
    found: Collected = field(default_factory=Collected)
    held: str = ""
    searchable: int = 0  # queries that can be searched for, done or not

    @property
    def limits(self) -> SearchLimits:
        options, engine = self.options, self.engine
        return limits_for(options.max_pages, options.max_results, engine.default_pages, engine.most_pages)

    @property
    def hosts(self) -> tuple[str, ...]:
        return queue.hosts_for(self.engine, self.options.host)

    def plan(self) -> list[PlannedQuery]:
        """All that is to be done, in order; writes nothing. Raises UsageError."""
        db, options = self.context.db, self.options
        if options.names_queries:
            planned = queue.plan_given(db, self._given(), self.limits)
        else:
            planned = queue.plan_pending(db, self.engine, options)
        if options.retry and self.context.dry_run:
            again = queue.plan_retry(db, self.engine, options)
            known = {plan.row.id for plan in again if plan.row}
            planned = again + [plan for plan in planned if plan.row is None or plan.row.id not in known]
        return self._limited(planned)

    def _limited(self, planned: list[PlannedQuery]) -> list[PlannedQuery]:
        """At most `--limit` queries that cost anything."""
        if self.options.limit is None:
            return planned
        kept, left = [], self.options.limit
        for plan in planned:
            left -= plan.action != SKIP
            if left >= 0 or plan.action == SKIP:
                kept.append(plan)
        return kept

    def _given(self) -> list[NewQuery]:
        """The queries named on the command line. Raises UsageError where there is none."""
        options, engine = self.options, self.engine
        check_engine(options, engine)
        words = queue.keywords(options.keywords, options.keywords_file)
        params = queue.params_for(engine, options.host, options.filters)
        found = [NewQuery(engine.name, "keyword", word, params=params) for word in words]
        found += queue.picture_queries(engine, options.images, self.context.workspace, params, self.problems)
        if not found and not self.problems:
            raise UsageError(queue.NOTHING_GIVEN)
        return found

    def prepare(self) -> None:
        """Queues what is new and sorts what is to be done. Only for who holds the engine's lock."""
        db, name, retry = self.context.db, self.engine.name, self.options.retry
        table.count_restored_pages(db, name)
        if table.release_running(db, name):
            log.info("going on where an earlier run was stopped")
        if retry:
            log.info("%s: queued again: %d with outcome %s", name, table.requeue(db, name, retry), retry)
        planned, rejected = queue.enqueue(self.context, self.plan())
        self.searchable = sum(not (plan.row and is_no_picture(plan.row)) for plan in planned)
        self.found.outcomes["upload_rejected"] += rejected
        self.found.outcomes["skipped"] += sum(plan.action == SKIP for plan in planned) - rejected
        self._sort(planned)

    def _sort(self, planned: list[PlannedQuery]) -> None:
        """Batches by the hosts that they belong to. A wait is for the whole queue, what is new in it included."""
        host = self.options.host
        usual = self.hosts if host is None or self.engine.knows_host(host) else self.engine.hosts
        by_hosts: dict[tuple[str, ...], list[PlannedQuery]] = {}
        for plan in planned:
            if plan.row and plan.action != SKIP:
                own = plan.row.params.get("host")
                by_hosts.setdefault((own,) if own else usual, []).append(plan)
        for hosts, plans in by_hosts.items():
            until = table.held_until(self.context.db, self.engine.name, plans[0].new.params.get("host", ""))
            wait = seconds_until(until)
            if wait > LONGEST_WAIT:
                self.held = min(self.held or until, until)
            else:
                self.batches.append(QueryBatch(hosts, plans, wait))
        if self.batches:
            self.held = ""

    def pages_due(self) -> int:
        """The number of pages that everything prepared is likely to take."""
        return sum(pages_due(self.context.db, self.engine, plan) for batch in self.batches for plan in batch.plans)

    async def search(self, open_web: OpenWeb, bar: Bar) -> None:
        """Works on everything that was prepared; `found` tells how it went."""
        store = Store(self.context, self.engine)
        for batch in self.batches:
            await EngineRun(store, batch.hosts, self.options, self.found, open_web, bar).run(batch.plans, batch.wait)
            if self.context.stopping() or self.found.stop or self.found.unreachable:
                break

    def exit_state(self) -> tuple[int, str]:
        """The exit code, and the sentence for the person where it is not 0."""
        found, name = self.found, self.engine.name
        if found.stop:
            waiting = [row.not_before for row in table.pending_queries(self.context.db, name) if row.not_before]
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
        if found.failed and self.options.strict:
            return EXIT_INCOMPLETE, f"{found.failed} of the queries at {name} failed; --list shows why."
        return EXIT_OK, ""


def is_no_picture(row: QueryRow) -> bool:
    """True for a query picture that could not be decoded, so that it was never shown to the engine."""
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
