"""`--workers N`: several engines, each a process with its own loop and its own lease, over one database.

The hosts' limits are divided among them, so that no host sees more requests at once than it would from one process, and
what one is told (to wait, that a host is down) holds for all.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context
from pathlib import Path
from threading import Thread
from typing import Any

from lib.db import open_database
from lib.download.options import DownloadOptions
from lib.download.outcomes import ProgressStats, RunStats
from lib.errors import GleanerError
from lib.net.host_queues import SharedPauses, known_manners, make_shared
from lib.progress import Bar
from lib.work.processes import interrupts_held
from lib.workspace import Workspace

NEWS_SECONDS = 0.3  # between two reports of one worker
SMALLEST_WINDOW = 64


@dataclass
class DownloadWorker:
    """One worker as its parent sees it."""

    process: Any
    channel: connection.Connection
    standing: ProgressStats = field(default_factory=ProgressStats)


def divide(options: DownloadOptions, due: int) -> list[DownloadOptions]:
    """The options of each worker: no more workers than a host bears, and a window that leaves rows for all."""
    count = max(1, min(options.workers, options.per_host, due))
    window = max(SMALLEST_WINDOW, min(options.window, due // (4 * count)))
    limits = [None] * count if options.limit is None else _parts(options.limit, count)
    return [replace(options, share=count, window=window, limit=limit) for limit in limits if limit != 0]


def _parts(total: int, count: int) -> list[int | None]:
    return [total // count + (place < total % count) for place in range(count)]


def run_workers(
    workspace: Workspace,
    run_id: int,
    options: list[DownloadOptions],
    orphans: dict[str, list[Path]],
    stopping: Callable[[], bool],
    bar: Bar,
) -> RunStats:
    """Runs one engine for each of the options; raises what the first of them failed with, when all have ended."""
    context = get_context("spawn")
    members = []
    shared = make_shared(context, len(options), known_manners())
    for place, one in enumerate(options):
        ours, theirs = context.Pipe()
        given = (theirs, workspace.root, run_id, one, orphans, shared.seen_from(place))
        process = context.Process(target=worker_main, args=given, daemon=False)
        with interrupts_held():
            process.start()
        theirs.close()
        members.append(DownloadWorker(process, ours))
    try:
        return _supervise(members, stopping, bar)
    finally:
        for member in members:
            if member.process.is_alive():
                member.process.kill()
            member.process.join()


def _supervise(members: list[DownloadWorker], stopping: Callable[[], bool], bar: Bar) -> RunStats:
    total, told, began = RunStats(), False, time.monotonic()
    failure: BaseException | None = None
    at_work = {id(member.channel): member for member in members}
    while at_work:
        if (stopping() or failure) and not told:
            _tell_all(members)
            told = True
        for channel in connection.wait([member.channel for member in at_work.values()], timeout=0.2):
            member = at_work[id(channel)]
            kind, value = _hear(member)
            if kind == "news":
                done, member.standing = value
                bar.update(done)
                bar.set_postfix_str(_standing(members).text(time.monotonic() - began), refresh=False)
                continue
            if kind == "tally":
                total.add(value)
            else:
                failure = failure or value
            del at_work[id(channel)]
    if failure is not None:
        raise failure
    return total


def _standing(members: list[DownloadWorker]) -> ProgressStats:
    total = ProgressStats()
    for member in members:
        total.add(member.standing)
    return total


def _hear(member: DownloadWorker) -> tuple[str, Any]:
    try:
        found: tuple[str, Any] = member.channel.recv()
        return found
    except (EOFError, OSError):
        return "error", GleanerError("a worker process was killed; run the same command again.")


def _tell_all(members: list[DownloadWorker]) -> None:
    for member in members:
        try:
            member.channel.send("stop")
        except OSError:
            continue  # it has ended


class _ProgressChannel:
    """A worker's bar: what it shows goes to the parent, now and then."""

    def __init__(self, channel: connection.Connection):
        self.channel, self.done, self.told_at = channel, 0.0, 0.0
        self.standing: Callable[[], ProgressStats] = ProgressStats

    def update(self, n: float = 1) -> None:
        self.done += n

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        if self.done and time.monotonic() - self.told_at > NEWS_SECONDS:
            self.channel.send(("news", (self.done, self.standing())))
            self.done, self.told_at = 0.0, time.monotonic()


def worker_main(
    channel: connection.Connection,
    root: Path,
    run_id: int,
    options: DownloadOptions,
    orphans: dict[str, list[Path]],
    shared: SharedPauses,
) -> None:
    """Life of a worker process; it stops when the parent says so and ends at once when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stops: list[float] = []
    Thread(target=_listen, args=(channel, stops), daemon=True).start()
    # Here and not above: the parent of the crew has no use for what an engine loads.
    from lib.download.loop import DownloadLoop

    workspace, news = Workspace(root), _ProgressChannel(channel)
    try:
        with open_database(workspace.database) as db:
            engine = DownloadLoop(
                db, workspace, run_id, options, orphans=orphans, stopping=lambda: bool(stops), shared=shared
            )
            news.standing = engine.standing
            tally = engine.run(news)
        channel.send(("news", (news.done, engine.standing())))
        channel.send(("tally", tally))
    except BaseException as error:  # whatever it is, the parent ends the run with it
        channel.send(("error", _portable(error)))


def _listen(channel: connection.Connection, stops: list[float]) -> None:
    while True:
        try:
            channel.recv()
            stops.append(time.monotonic())
        except (EOFError, OSError):
            os._exit(1)  # as a kill would end it; the next run picks everything up


def _portable(error: BaseException) -> BaseException:
    """An error that can travel between processes."""
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror or str(error), error.filename)
    return error if isinstance(error, GleanerError) else GleanerError(f"{type(error).__name__}: {error}")
