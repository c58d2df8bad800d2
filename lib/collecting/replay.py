"""Answers captured elsewhere through the same code as fetched ones: judged, parsed, kept. No network is used."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.collecting import intake
from lib.collecting.captured import Captured, read_captured
from lib.collecting.collection import Ended
from lib.collecting.drift_watch import drift_warning
from lib.collecting.filters import filters_in
from lib.collecting.intake import SKIP, Planned
from lib.collecting.job import Job
from lib.collecting.lock import engine_lock
from lib.collecting.pace import Interrupted, PacedWeb, Pacer
from lib.collecting.run import Task, write_down
from lib.collecting.search import Ending, Hosts, Limits, Search
from lib.collecting.store import Store
from lib.db import Database
from lib.db.queries import QueryRow
from lib.engines import DEFAULT, load_engine
from lib.engines.base import Answer, Ask, FetchError, FilePart, Verdict
from lib.errors import UsageError
from lib.workspace import Workspace

log = logging.getLogger("gleaner.collect")


class Nowhere:
    """A web that reaches nothing, so that a replay cannot ask anybody by mistake."""

    async def open(self, url: str) -> Answer:
        raise FetchError("no_network")

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> Answer:
        raise FetchError("no_network")

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> Answer:
        raise FetchError("no_network")

    async def press(self, labels: Sequence[str]) -> Answer | None:
        return None

    async def value(self, name: str) -> bytes:
        return b""

    async def recycle(self) -> None:
        return None


@dataclass
class Replayed(Search):
    """A search whose pages are known already; there is nobody to be waited for."""

    captured: Mapping[int, Captured] = field(default_factory=dict)

    async def _result_page(self, page: int) -> tuple[Answer | None, Verdict]:
        answer = self.captured[page].answer
        return answer, self.engine.classify(answer)

    def _received_at(self, page: int) -> str:
        return self.captured[page].received_at

    def _ending(self, answer: Answer | None, verdict: Verdict) -> Ending:
        return Ending(verdict.outcome, verdict.detail)


class Replay:
    """The answers at `--replay` for the one query that the command line names. Raises UsageError."""

    def __init__(self, args: argparse.Namespace, workspace: Workspace, db: Database):
        self.args, self.workspace, self.db = args, workspace, db
        self.job = Job(args, workspace, db, load_engine((args.engine or [DEFAULT])[0]))
        self.planned = self.job.plan()
        if len(self.planned) != 1:
            raise UsageError(f"--replay is about one query, and {len(self.planned)} were given; give one.")
        query = self.planned[0].new
        ask = Ask(query.kind, query.text, filters=filters_in(query.params))
        self.host = self.job.hosts[0]
        self.pages = read_captured(args.replay, self.job.engine, self.host, ask)
        if not self.pages:
            raise UsageError(
                f"{args.replay} holds no answer of {self.job.engine.name} to this query; check --engine, the words "
                "and, for another host than its own, --host."
            )

    def _usable(self, first: int) -> range:
        """The pages from `first` on, as far as none is missing."""
        last = first
        while last in self.pages:
            last += 1
        return range(first, last)

    def preview(self) -> list[str]:
        """What each page would be taken for."""
        row = self.planned[0].row
        engine = self.job.engine
        return [
            f"Would take page {page} of {engine.name}: {engine.classify(self.pages[page].answer).outcome}"
            for page in self._usable(row.next_page if row else 0)
        ]

    def run(self, run_id: int, stopping: Callable[[], bool]) -> Ended:
        """Judges, parses and keeps what is new."""
        engine = self.job.engine
        with engine_lock(self.workspace, engine.name):
            queued, _ = intake.queue(self.db, self.planned, run_id, self.workspace)
            plan = queued[0]
            assert plan.row is not None
            usable = self._usable(plan.row.next_page)
            warnings = self._left_out(usable)
            if not usable or (plan.action == SKIP and plan.row.outcome != "ok"):
                return Ended(_counts(0, 0, "skipped"), warnings=warnings)
            search = self._search(plan, usable, run_id, stopping)
            ending = asyncio.run(_ended(search))
            if ending is None:
                search.store.end(plan.row, "pending", "")
                return Ended(_counts(search.pages, search.results, "interrupted"), warnings=warnings)
            write_down(search.store, plan.row, ending, search)
            self._go_further_later(search, plan.row)
        drifted = drift_warning(self.db, engine.name, run_id) if search.pages else ""
        code = 3 if self.args.strict and ending.outcome not in ("ok", "end", "empty") else 0
        warnings += filter(None, [drifted])
        return Ended(_counts(search.pages, search.results, ending.outcome), warnings=warnings, exit_code=code)

    def _search(self, plan: Planned, usable: range, run_id: int, stopping: Callable[[], bool]) -> Replayed:
        assert plan.row is not None
        task = Task(plan.row, Limits(usable.stop, self.args.max_results))
        pacer = Pacer(0, 0, stopping)
        store = Store(self.db, self.workspace, self.job.engine, run_id)
        web, hosts = PacedWeb(Nowhere(), pacer), Hosts([self.host])
        return Replayed(
            store.engine, web, pacer, store, hosts, task.query, task.limits, False, stopping, captured=self.pages
        )

    def _left_out(self, usable: range) -> list[str]:
        left = [page for page in sorted(self.pages) if page >= usable.stop]
        if not left:
            return []
        return [f"page {usable.stop} is not in {self.args.replay}; the {len(left)} pages after it are left out."]

    def _go_further_later(self, search: Search, row: QueryRow) -> None:
        """What a later run takes for the query's own limits is not where the capture happens to end."""
        limits = self.job.limits
        goal: dict[str, Any] = {"pages": max(limits.pages, search.limits.pages), "results": limits.results}
        search.store.save_cursor(row, search.cursor | goal)


async def _ended(search: Search) -> Ending | None:
    try:
        return await search.run()
    except Interrupted:
        return None


def _counts(pages: int, results: int, outcome: str) -> dict[str, int | float | str]:
    return {"queries": int(outcome != "skipped"), "pages": pages, "results": results, outcome: 1}
