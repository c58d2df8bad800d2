"""Step 5 as a whole: what is to be done, doing it, and what came of it. The edge calls only this module."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lib.db import Database
from lib.db import downloads as table
from lib.downloading.engine import Engine, Options
from lib.downloading.job import make_job
from lib.downloading.sweep import find_orphans, release_dead, remove_parts_folder, remove_stale_parts
from lib.errors import UsageError
from lib.net.hosts import Host
from lib.net.urls import host_of
from lib.progress import BarFactory, no_bar
from lib.workspace import Workspace

log = logging.getLogger("gleaner.download")

PREVIEW_ROWS = 10_000  # rows that a dry run looks at to count hosts
PREVIEW_LINES = 10
SHOWN_HOSTS = 5


@dataclass
class Report:
    """What a run did: rows by state and by reason, new files, bytes received, and the hosts that gave trouble."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    files: int = 0
    bytes: int = 0
    waiting: int = 0
    next_due: str = ""
    slowest: list[str] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What a run would do: how many rows, at how many hosts, and the first addresses."""

    rows: int
    waiting: int
    hosts: int
    lines: tuple[str, ...]


def check_reasons(db: Database, reasons: Sequence[str] | None) -> None:
    """Raises UsageError for a reason that no row has failed with: a typing error must not look like success."""
    known = table.failed_reasons(db)
    unknown = [reason for reason in reasons or () if reason not in known]
    if unknown:
        there = f"there are {', '.join(known)}" if known else "no row has failed"
        raise UsageError(f"--retry-failed: no row failed with {', '.join(unknown)}; {there}.")


def plan(db: Database, retry: Sequence[str] | None, options: Options) -> Plan:
    """What `download` would do with the same arguments; writes nothing."""
    due, waiting = table.count_pending(db)
    rows = due + table.count_new(db) + (0 if retry is None else table.count_failed(db, retry))
    rows = min(rows, options.limit) if options.limit else rows
    hosts: set[str] = set()
    lines: list[str] = []
    for row in table.preview(db, retry, min(rows, PREVIEW_ROWS)):
        job = make_job(row, options.retries)
        url = job.next_address()
        if url is not None:
            hosts.add(host_of(url))
        if len(lines) < PREVIEW_LINES:
            where = f"{job.rung.kind}  {job.rung.url}" if url is not None else "nothing: it has no usable address"
            lines.append(f"would fetch  {row.image_id}  {where}")
    return Plan(rows, waiting, len(hosts), tuple(lines))


def download(
    db: Database,
    workspace: Workspace,
    run_id: int,
    options: Options,
    *,
    retry: Sequence[str] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> Report:
    """Fetches every row that is due. Raises OSError or GleanerError when the disk ends it, with rows left pending."""
    release_dead(db)
    remove_stale_parts(workspace)
    table.enqueue(db)
    if retry is not None:
        table.reset_failed(db, retry)
    due, waiting = table.count_pending(db)
    if not due:
        return Report(waiting=waiting, next_due=table.next_due(db))
    workspace.images.mkdir(exist_ok=True)
    # A clean end leaves no orphans, and looking at every file of a large workspace takes a while.
    orphans = {} if table.last_run_was_clean(db, run_id) else find_orphans(db, workspace)
    engine = Engine(db, workspace, run_id, options, orphans=orphans, stopping=stopping)
    with bar(min(due, options.limit or due), "Downloading", "file") as progress:
        try:
            engine.run(progress)
        finally:
            remove_parts_folder(workspace)
    return _report(db, engine)


def _report(db: Database, engine: Engine) -> Report:
    ledger, hosts = engine.ledger, list(engine.queues.hosts.values())
    return Report(
        ledger.states, ledger.reasons, ledger.kinds, ledger.files, engine.watch.received,
        table.count_pending(db)[1], table.next_due(db), list(_slowest(hosts)), list(_failing(hosts)),
    )  # fmt: skip


def _slowest(hosts: Sequence[Host]) -> Iterator[str]:
    asked = [host for host in hosts if host.requests and host.name]
    for host in sorted(asked, key=lambda host: host.seconds / host.requests, reverse=True)[:SHOWN_HOSTS]:
        yield f"{host.name}: {host.seconds / host.requests:.2f} s a request, {host.requests} requests"


def _failing(hosts: Sequence[Host]) -> Iterator[str]:
    for host in sorted(hosts, key=lambda host: host.failures, reverse=True)[:SHOWN_HOSTS]:
        if host.failures:
            yield f"{host.name}: {host.failures} of {host.requests} requests failed"
