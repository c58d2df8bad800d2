"""The parts of step 1 put together: plan, preview, queue, search."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lib.browser import BrowserSettings, require_browser
from lib.collecting import intake
from lib.collecting.intake import SKIP, Planned
from lib.collecting.lock import engine_lock
from lib.collecting.pace import is_loopback
from lib.collecting.run import Collected, CollectOptions, EngineRun, Task, stop_sentence
from lib.collecting.search import LONGEST_WAIT, Limits
from lib.collecting.store import Store
from lib.db import Database
from lib.db import queries as table
from lib.db.queries import NewQuery
from lib.engines import load_engine
from lib.engines.base import Engine
from lib.errors import BlockedError, UsageError
from lib.progress import BarFactory
from lib.proxy import read_proxy
from lib.workspace import Workspace

log = logging.getLogger("gleaner.collect")


@dataclass
class Job:
    """One engine's share of a run of step 1; `problems` are pictures that could not be read."""

    args: argparse.Namespace
    workspace: Workspace
    db: Database
    engine: Engine
    problems: list[str] = field(default_factory=list)

    @property
    def limits(self) -> Limits:
        pages = self.args.max_pages or self.engine.default_pages
        return Limits(min(pages, self.engine.most_pages), self.args.max_results)

    @property
    def hosts(self) -> tuple[str, ...]:
        return intake.hosts_for(self.engine, self.args.host)

    def plan(self) -> list[Planned]:
        """What is to be done, in order; writes nothing. Raises UsageError."""
        args = self.args
        new = self._given()
        if new is not None:
            planned = intake.plan_given(self.db, new, self.limits)
        else:
            planned = intake.plan_pending(self.db, self.engine, args.host, self.limits, args.max_pages)
        if args.retry and args.dry_run:
            again = intake.plan_retry(self.db, self.engine, args.retry, self.limits, args.max_pages)
            known = {plan.row.id for plan in again if plan.row}
            planned = again + [plan for plan in planned if plan.row is None or plan.row.id not in known]
        return self._limited(planned)

    def _given(self) -> list[NewQuery] | None:
        """The queries named on the command line; None where none is, which means to go on with the queue."""
        args = self.args
        if not (args.images or args.keywords or args.keywords_file):
            return None
        words = intake.keywords(args.keywords or (), args.keywords_file)
        for kind, wanted in (("image", args.images), ("keyword", words)):
            if wanted and kind not in self.engine.kinds:
                raise UsageError(f"{self.engine.name} cannot search by {kind}; choose another --engine.")
        params = intake.params_for(self.engine, args.host)
        found = [NewQuery(self.engine.name, "keyword", word, params=params) for word in words]
        found += intake.picture_queries(self.engine, args.images or (), self.workspace, params, self.problems)
        if not found and not self.problems:
            raise UsageError("no picture and no keyword was found in what was given; check the paths.")
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

    def options(self) -> CollectOptions:
        """Raises UsageError where a key or the browser is missing."""
        self.engine.require_keys()
        args = self.args
        browser = BrowserSettings(
            require_browser(headed=args.headed), args.headed, read_proxy(args.proxy, os.environ), args.timeout
        )
        return CollectOptions(self.hosts, browser, args.pace, args.contexts)

    def run(self, options: CollectOptions, run_id: int, stopping: Callable[[], bool], bar: BarFactory) -> Collected:
        """Queues what is new and searches. Raises BlockedError where everything has to wait."""
        with engine_lock(self.workspace, self.engine.name):
            if table.release_running(self.db, self.engine.name):
                log.info("going on where an earlier run was stopped")
            if self.args.retry:
                again = table.requeue(self.db, self.engine.name, self.args.retry)
                log.info("queued again: %d with outcome %s", again, self.args.retry)
            planned = intake.queue(self.db, self.plan(), run_id, self.workspace)
            found = Collected()
            for host, tasks, wait in self._batches(planned):
                here = CollectOptions(host or options.hosts, options.browser, options.pace, options.contexts)
                work = EngineRun(Store(self.db, self.workspace, self.engine, run_id), here, stopping, bar)
                found = _added(found, asyncio.run(work.run(tasks, wait)))
                if stopping() or found.stop or found.unreachable:
                    break
            found.outcomes["skipped"] += sum(plan.action == SKIP for plan in planned)
            return found

    def _batches(self, planned: list[Planned]) -> list[tuple[tuple[str, ...], list[Task], float]]:
        """Tasks by the hosts that they belong to, with the seconds that those still want to be left alone.

        A wait is for the whole queue, what is new in it included. Raises BlockedError where all have to wait long.
        """
        batches: dict[tuple[str, ...], list[Planned]] = {}
        for plan in planned:
            if plan.row and plan.action != SKIP:
                own = plan.row.params.get("host")
                batches.setdefault((own,) if own else self._own_hosts(), []).append(plan)
        ready, held = [], ""
        for hosts, plans in batches.items():
            until = table.held_until(self.db, self.engine.name, plans[0].new.params)
            wait = seconds_until(until)
            if wait > LONGEST_WAIT:
                held = min(held or until, until)
            else:
                ready.append((hosts, [Task(plan.row, plan.limits) for plan in plans if plan.row], wait))
        if held and not ready:
            raise BlockedError(
                f"{self.engine.name} asked to be left alone until {minute(held)}; run the same command after that, "
                "or add --retry captcha (or blocked) to try at once."
            )
        return ready

    def _own_hosts(self) -> tuple[str, ...]:
        host = self.args.host
        return self.hosts if host is None or self.engine.knows_host(host) else self.engine.hosts


def check_pace(args: argparse.Namespace) -> None:
    """A pace below the engine's own is for this machine, or for who says that it is allowed. Raises UsageError."""
    engine = load_engine(args.engine)
    at_home = args.host is not None and is_loopback(args.host)
    if args.pace is not None and args.pace < engine.interval and not (at_home or args.i_am_allowed):
        raise UsageError(
            f"--pace {args.pace:g} is faster than {engine.name} is asked by default ({engine.interval:g} s); "
            "give a larger one, or --i-am-allowed if you have the source's permission."
        )


def summarise(found: Collected, problems: list[str]) -> dict[str, int | float | str]:
    """The counts of the summary line; what is zero is left out, but for pages and results."""
    done = sum(count for name, count in found.outcomes.items() if name != "skipped")
    counts: dict[str, Any] = {"queries": done, "pages": found.pages, "results": found.results}
    counts |= {name: count for name, count in sorted(found.outcomes.items()) if count}
    return counts | ({"unreadable": len(problems)} if problems else {})


def verdict(engine: Engine, found: Collected, db: Database) -> tuple[int, str]:
    """The exit code, and the sentence for the person where it is not 0."""
    if found.stop:
        waiting = [row.not_before for row in table.pending_queries(db, engine.name) if row.not_before]
        until = minute(max(waiting)) if waiting and found.stop.wait else ""
        return 4, stop_sentence(engine.name, found.stop, until)
    failed_only = found.outcomes["network"] and not found.pages
    if found.unreachable or failed_only:
        reason = found.unreachable or found.trouble
        return (
            1,
            f"{engine.name} could not be reached ({reason}); check the network, --host and --proxy, and run again.",
        )
    return 0, ""


def table_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The listing of `--list`, one line a query."""
    if not rows:
        return ["no queries yet"]
    lines = [f"{'id':>5}  {'state':<8} {'outcome':<15} {'pages':>5} {'results':>7}  query"]
    for row in rows:
        what = row["image_path"] if row["kind"] == "image" else repr(row["text"])
        extra = f"  ({row['detail']})" if row["detail"] else ""
        later = f"  not before {row['not_before'][:16]}" if row["not_before"] and row["state"] == "pending" else ""
        lines.append(
            f"{row['id']:>5}  {row['state']:<8} {row['outcome'] or '-':<15} {row['pages']:>5} {row['items']:>7}"
            f"  {row['engine']} {what}{extra}{later}"
        )
    return lines


def _added(one: Collected, two: Collected) -> Collected:
    return Collected(
        one.pages + two.pages,
        one.results + two.results,
        Counter(one.outcomes) + Counter(two.outcomes),
        one.stop or two.stop,
        one.unreachable or two.unreachable,
        two.trouble or one.trouble,
    )


def minute(moment: str) -> str:
    """A moment as a person reads it."""
    return f"{moment[:16].replace('T', ' ')} UTC"


def seconds_until(moment: str) -> float:
    """Seconds from now to a moment as the database writes it; 0 where it is empty or over."""
    if not moment:
        return 0.0
    then = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return max(0.0, (then - datetime.now(timezone.utc)).total_seconds())
