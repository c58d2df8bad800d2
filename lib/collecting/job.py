"""One engine's share of a run of step 1: plan, queue, search."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lib.collecting import intake
from lib.collecting.filters import filters_in
from lib.collecting.intake import SKIP, Planned
from lib.collecting.options import names_queries
from lib.collecting.preconditions import check_engine
from lib.collecting.run import Collected, CollectOptions, EngineRun, OpenWeb, Task, stop_sentence
from lib.collecting.search import LONGEST_WAIT, Limits
from lib.collecting.store import Store
from lib.db import Database
from lib.db import queries as table
from lib.db.queries import NewQuery, QueryRow
from lib.db.restored import count_restored_pages
from lib.engines.base import Engine
from lib.errors import UsageError
from lib.progress import Bar
from lib.workspace import Workspace

log = logging.getLogger("gleaner.collect")


@dataclass(frozen=True)
class Batch:
    """Queries that go to the same hosts, which want to be left alone for `wait` seconds more."""

    hosts: tuple[str, ...]
    tasks: list[Task]
    wait: float


@dataclass
class Job:
    """`problems` are pictures that could not be read; `held` is until when everything has to wait."""

    args: argparse.Namespace
    workspace: Workspace
    db: Database
    engine: Engine
    problems: list[str] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    found: Collected = field(default_factory=Collected)
    held: str = ""
    searchable: int = 0  # queries that can be searched for, done or not

    @property
    def limits(self) -> Limits:
        pages = self.args.max_pages or self.engine.default_pages
        return Limits(min(pages, self.engine.most_pages), self.args.max_results)

    @property
    def hosts(self) -> tuple[str, ...]:
        return intake.hosts_for(self.engine, self.args.host)

    def tell_contact(self) -> None:
        if self.engine.wants_contact and not os.environ.get("GLEANER_CONTACT", "").strip():
            name = self.engine.name
            log.warning("%s asks every client who it is; set GLEANER_CONTACT to a mail address or a page", name)

    def plan(self) -> list[Planned]:
        """What is to be done, in order; writes nothing. Raises UsageError."""
        args = self.args
        if names_queries(args):
            planned = intake.plan_given(self.db, self.given(), self.limits)
        else:
            planned = intake.plan_pending(self.db, self.engine, args.host, self.limits, args.max_pages)
        if args.retry and args.dry_run:
            again = intake.plan_retry(self.db, self.engine, args.retry, self.limits, args.max_pages)
            known = {plan.row.id for plan in again if plan.row}
            planned = again + [plan for plan in planned if plan.row is None or plan.row.id not in known]
        return self._limited(planned)

    def given(self) -> list[NewQuery]:
        """The queries named on the command line. Raises UsageError where there is none."""
        args = self.args
        check_engine(args, self.engine)
        words = intake.keywords(args.keywords or (), args.keywords_file)
        params = intake.params_for(self.engine, args.host, filters_in(vars(args)))
        found = [NewQuery(self.engine.name, "keyword", word, params=params) for word in words]
        found += intake.picture_queries(self.engine, args.images or (), self.workspace, params, self.problems)
        if not found and not self.problems:
            raise UsageError(intake.NOTHING_GIVEN)
        return found

    def _limited(self, planned: list[Planned]) -> list[Planned]:
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
        planned, rejected = intake.queue(self.db, self.plan(), run_id, self.workspace)
        self.searchable = sum(not (plan.row and is_no_picture(plan.row)) for plan in planned)
        self.found.outcomes["upload_rejected"] += rejected
        self.found.outcomes["skipped"] += sum(plan.action == SKIP for plan in planned) - rejected
        self._sort(planned)

    def _sort(self, planned: list[Planned]) -> None:
        """Batches by the hosts that they belong to. A wait is for the whole queue, what is new in it included."""
        by_hosts: dict[tuple[str, ...], list[Planned]] = {}
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
                self.batches.append(Batch(hosts, [Task(plan.row, plan.limits) for plan in plans if plan.row], wait))
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
            return 4, stop_sentence(self.engine, found.stop, until)
        if self.held:
            return 4, (
                f"{name} asked to be left alone until {minute(self.held)}; run the same command after that, "
                "or add --retry captcha (or blocked) to try at once."
            )
        if found.unreachable or (found.outcomes["network"] and not found.pages):
            reason = found.unreachable or found.trouble
            remedy = "check the network, --host and --proxy, and run again"
            if reason.startswith("browser_"):
                remedy = "run python3 0_setup.py to check the browser"
            return 1, f"{name} could not be reached ({reason}); {remedy}."
        if found.failed and self.args.strict:
            return 3, f"{found.failed} of the queries at {name} failed; --list shows why."
        return 0, ""


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
