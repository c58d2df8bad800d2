"""`--workers N`: several processes over one database, each with its own loop and its own lease.

The hosts' limits are divided among them, and what one is told (to wait, that a host is down) holds for all.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from threading import Thread
from typing import Any

from lib.db import Context, open_database
from lib.download.options import DownloadOptions
from lib.download.report import ProgressStats, RunStats
from lib.errors import GleanerError, broken_installation, is_broken_installation
from lib.net.host_queues import SharedPauses, known_policies, make_shared
from lib.progress import Bar
from lib.work.processes import SPAWN, Child, start_child
from lib.workspace import Workspace

REPORT_SECONDS = 0.3  # between two reports of one worker


def run_workers(context: Context, options: list[DownloadOptions], orphans: dict[str, list[Path]], bar: Bar) -> RunStats:
    """Runs one loop for each of the options; raises what the first of them failed with, when all have ended."""
    shared = make_shared(SPAWN, len(options), known_policies())
    workers: list[Child] = []
    for place, one in enumerate(options):
        given = (context.workspace.root, context.run_id, one, orphans, shared.seen_from(place))
        # No daemon: those may have no children, and a worker starts decoders.
        workers.append(start_child(worker_main, *given, daemon=False))
    try:
        return _supervise([worker.channel for worker in workers], context.stopping, bar)
    finally:
        for worker in workers:
            worker.end()


def _supervise(channels: list[Any], stopping: Callable[[], bool], bar: Bar) -> RunStats:
    total, told, began = RunStats(), False, time.monotonic()
    failure: BaseException | None = None
    progress: dict[Any, ProgressStats] = {}
    running = list(channels)
    while running:
        if (stopping() or failure) and not told:
            told = True
            for channel in channels:
                with suppress(OSError):  # it has ended
                    channel.send("stop")
        ready: list[Any] = connection.wait(running, timeout=0.2)
        for channel in ready:
            try:
                kind, value = channel.recv()
            except (EOFError, OSError):
                kind, value = "error", GleanerError("a worker process was killed; run the same command again.")
            if kind == "progress":
                done, progress[channel] = value
                bar.update(done)
                together = ProgressStats()
                for one in progress.values():
                    together.add(one)
                bar.set_postfix_str(together.text(time.monotonic() - began), refresh=False)
                continue
            if kind == "stats":
                total.add(value)
            else:
                failure = failure or value
            running.remove(channel)
    if failure is not None:
        raise failure
    return total


class _ProgressChannel:
    """A worker's bar: what it shows goes to the parent, now and then."""

    def __init__(self, channel: connection.Connection):
        self.channel, self.done, self.told_at = channel, 0.0, 0.0
        self.progress: Callable[[], ProgressStats] = ProgressStats

    def update(self, n: float = 1) -> None:
        self.done += n

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        if self.done and time.monotonic() - self.told_at > REPORT_SECONDS:
            self.channel.send(("progress", (self.done, self.progress())))
            self.done, self.told_at = 0.0, time.monotonic()

    def expect(self, more: int) -> None:
        return None


def worker_main(
    channel: connection.Connection,
    root: Path,
    run_id: int,
    options: DownloadOptions,
    orphans: dict[str, list[Path]],
    shared: SharedPauses,
) -> None:
    """One worker process; it stops when the parent says so and ends at once when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stops: list[float] = []
    Thread(target=_listen, args=(channel, stops), daemon=True).start()
    workspace, news = Workspace(root), _ProgressChannel(channel)
    try:
        # Here and not above: the parent of the workers has no use for what a loop loads.
        from lib.download.loop import DownloadLoop

        with open_database(workspace.database) as db:
            context = Context(db, workspace, run_id, stopping=lambda: bool(stops))
            loop = DownloadLoop(context, options, orphans=orphans, shared=shared)
            news.progress = loop.progress
            stats = loop.run(news)
        channel.send(("progress", (news.done, loop.progress())))
        channel.send(("stats", stats))
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
    if is_broken_installation(error):
        return GleanerError(broken_installation(error))
    return error if isinstance(error, GleanerError) else GleanerError(f"{type(error).__name__}: {error}")
