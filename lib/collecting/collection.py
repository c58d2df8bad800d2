"""All engines of a run of step 1 at once: one paced queue each, one browser for those that need one."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lib.browser import BrowserWeb
from lib.chromium import Chromium
from lib.collecting.drift_watch import drift_warning
from lib.collecting.job import Job
from lib.collecting.lock import engine_lock, profile_lock
from lib.collecting.options import names_queries
from lib.collecting.preconditions import Settings, check_engine, check_flags, settings_of, without_searches
from lib.collecting.run import OpenWeb
from lib.db import Database
from lib.db import queries as table
from lib.direct_web import DirectWeb
from lib.engines import DEFAULT, NAMES, load_engine
from lib.errors import UsageError
from lib.progress import Bar, BarFactory
from lib.workspace import Workspace

NOTHING_SEARCHABLE = (
    "nothing that was asked for can be searched: no picture among it can be read and decoded (--list shows why)."
)


@dataclass
class Ended:
    """How a run ended: the summary's numbers, and what the person has to be told."""

    counts: dict[str, int | float | str]
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exit_code: int = 0


class Collection:
    """The engines of a run. Raises UsageError where the flags do not go with them."""

    def __init__(self, args: argparse.Namespace, workspace: Workspace, db: Database):
        self.args, self.workspace, self.db = args, workspace, db
        self.problems: list[str] = []
        engines = [load_engine(name) for name in self._names()]
        check_flags(args, engines)
        self.jobs = [Job(args, workspace, db, engine, self.problems) for engine in engines]

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
        if unreadable and self.args.strict and not codes & {1, 4}:
            codes.add(3)
        sentences = [sentence for _, sentence in verdicts if sentence]
        if names_queries(self.args) and not any(job.searchable for job in self.jobs):
            codes.add(1)
            sentences.append(NOTHING_SEARCHABLE)
        return Ended(
            self._counts() | ({"unreadable": unreadable} if unreadable else {}),
            sentences,
            [*dict.fromkeys(self.problems), *filter(None, drifted)],
            next((code for code in (4, 1, 3) if code in codes), 0),
        )

    def _counts(self) -> dict[str, Any]:
        """The numbers of the summary line; what is zero is left out, but for queries, pages and results."""
        outcomes: Counter[str] = sum((job.found.outcomes for job in self.jobs), Counter())
        return {
            "queries": sum(count for name, count in outcomes.items() if name != "skipped"),
            "pages": sum(job.found.pages for job in self.jobs),
            "results": sum(job.found.results for job in self.jobs),
        } | {name: count for name, count in sorted(outcomes.items()) if count}
