"""The scheduling of what follows each answer: the next address, another try, or the row's end, written and counted.

One scheduler and one writer of rows belong to one loop. Rows are written in batches, so that each costs microseconds;
the counts can be added up over processes.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from lib.db import Context
from lib.db.downloads import DownloadResult, record
from lib.db.duplicates import REMOVED
from lib.download.options import DownloadOptions
from lib.download.picture import OPTED_OUT, PictureFetch
from lib.download.recovery import drop, save_partial
from lib.download.report import RunStats
from lib.download.robots import Item, RobotsGate, RobotsReading
from lib.download.targets import Target
from lib.errors import GleanerError
from lib.files.names import safe_id
from lib.net.failures import TRANSIENT, backoff
from lib.net.host_queues import Host, HostQueues
from lib.net.request import MOST_REDIRECTS, NOT_MODIFIED, FetchResult, host_of
from lib.progress import Bar

log = logging.getLogger("gleaner.download")

LONGEST_WAIT = 30.0  # seconds; a row or host that has to wait longer waits for the next run

BATCH_ROWS = 200
BATCH_SECONDS = 0.5


class Scheduler:
    """Moves pictures between the hosts' queues and the writer of rows; `outstanding` counts those not ended."""

    def __init__(
        self,
        options: DownloadOptions,
        queues: HostQueues[Item],
        results: ResultWriter,
        orphans: dict[str, list[Path]],
        bar: Bar,
        block: int,
        robots: RobotsGate,
    ):
        self.options, self.queues, self.results = options, queues, results
        self.orphans, self.bar, self.block, self.robots = orphans, bar, block, robots
        self.wake = asyncio.Event()  # there is room for another block, or nothing is left
        self.outstanding = 0
        queues.on_rest = self._clear_resting

    @property
    def has_room(self) -> bool:
        return self.outstanding <= self.options.window - self.block

    def start(self, picture: PictureFetch) -> None:
        """Takes a new picture on."""
        self.outstanding += 1
        self.schedule(picture)

    def schedule(self, picture: PictureFetch, *, first: bool = False) -> None:
        """Puts a picture where its next address belongs, or ends it."""
        if self.orphans and safe_id(picture.key) in self.orphans:
            self.queues.put("", picture)  # a file that an earlier run had finished: no host is asked
            return
        while (url := picture.next_url()) is not None:
            name = host_of(url)
            host = self.queues.hosts.get(name)
            if host is None or not self.queues.is_down(host):
                break
            picture.skip_host_down()
        if url is None:
            self.end(picture, picture.exhausted(offline=self.is_offline(1)))
            return
        pause = self.queues.pause_left(host) if host else 0.0
        if pause > LONGEST_WAIT:
            self.end(picture, picture.deferred(pause, "host_paused"))
        else:
            self.queues.put(name, picture, first=first)

    def redirected(self, picture: PictureFetch, answer: FetchResult) -> None:
        """Lets a picture wait for its turn at the host that it was redirected to, where it may go there at all."""
        url = answer.location
        assert url is not None
        host = url.raw_host or ""
        if picture.hops >= MOST_REDIRECTS:
            answer.reason, answer.detail = "too_many_redirects", f"more than {MOST_REDIRECTS}"
        elif refusal := self.options.lists.refusal(host):
            answer.reason, answer.detail = refusal, f"redirected to {url}: {host}"
        else:
            picture.follow(url, answer.elapsed_ms)
            self.schedule(picture, first=True)  # such an address may hold for a short time only
            return
        self.after_failure(picture, answer)

    def ask_robots(self, reading: RobotsReading) -> None:
        """Puts the reading of a robots.txt where it is asked for, before the pictures that wait for it."""
        name = host_of(reading.url)
        host = self.queues.hosts.get(name)
        if host is not None and (self.queues.is_down(host) or self.queues.pause_left(host) > LONGEST_WAIT):
            self._put_off(host, reading)
        else:
            self.queues.put(name, reading, first=True)

    def end(self, picture: PictureFetch, result: DownloadResult) -> None:
        """The row has a result; nothing else holds on to it."""
        if picture.partial and result.next_try_at:  # a later run goes on with it
            save_partial(picture.partial.path)
        else:
            self._drop_partial(picture)
        self.results.add(result)
        self.outstanding -= 1
        self.bar.update()
        if self.has_room or not self.outstanding:
            self.wake.set()

    def after_failure(self, picture: PictureFetch, answer: FetchResult) -> None:
        reason = answer.reason
        picture.restart()
        if reason == NOT_MODIFIED:
            self.end(picture, picture.not_modified())
            return
        log.debug("%s %s: %s %s", reason, picture.key, picture.address.url, answer.detail)
        if reason in ("http_401", "http_403") and picture.other_referer():
            self.schedule(picture)
            return
        picture.note(reason, answer.detail, answer.status)
        if reason == OPTED_OUT:
            self.end(picture, picture.opted_out(answer))
        elif reason == REMOVED:
            self.end(picture, picture.removed())
        elif reason not in TRANSIENT or picture.is_used_up():
            self._drop_partial(picture)
            self.schedule(picture)
        else:
            self._later(picture, answer)

    def _later(self, picture: PictureFetch, answer: FetchResult) -> None:
        """Another try of the same address: soon in this run, or in a later run."""
        delay = max(backoff(int(picture.entry()["tries"]), self.options.backoff), answer.retry_after or 0.0)
        if delay > LONGEST_WAIT:
            self.end(picture, picture.deferred(delay, answer.reason))
        else:
            self.queues.loop.call_later(delay, self.schedule, picture)

    def _clear_resting(self, host: Host[Item]) -> None:
        """A host that wants to be left alone for long gives its rows back to the database; one that is down lets
        them go on to their next address."""
        if self.queues.is_down(host) or self.queues.pause_left(host) > LONGEST_WAIT:
            for waiting in self.queues.drain(host):
                self._put_off(host, waiting)

    def _put_off(self, host: Host[Item], item: Item) -> None:
        """Goes on with a picture, or with those that wait for a robots.txt, when its host is not asked now."""
        pictures = self.robots.end(item) if isinstance(item, RobotsReading) else [item]
        is_down, pause = self.queues.is_down(host), self.queues.pause_left(host)
        for picture in pictures:
            if is_down:
                picture.skip_host_down()
                self.schedule(picture)
            else:
                self.end(picture, picture.deferred(pause, "host_paused"))

    def _drop_partial(self, picture: PictureFetch) -> None:
        if picture.partial is not None:
            drop(picture.partial.path)
            picture.partial = None

    def is_offline(self, requests: int) -> bool:
        return not self.queues.reached and self.queues.unreached >= requests

    def offline(self) -> GleanerError:
        return GleanerError(
            f"none of {self.queues.unreached} requests reached a server; check the network and run the same command"
            " again (the pictures are still pending)."
        )


class ResultWriter:
    """The one writer of rows. What a kill takes away is found again on disk by its name."""

    def __init__(self, context: Context, target: Target, committed: Callable[[list[str]], None], min_free: int = 0):
        self.context, self.target = context, target
        self.committed, self.min_free = committed, min_free
        self.batch: list[DownloadResult] = []
        self.since = 0.0
        self.stats = RunStats()

    def add(self, result: DownloadResult) -> None:
        if not self.batch:
            self.since = time.monotonic()
        self.batch.append(result)
        if len(self.batch) >= BATCH_ROWS:
            self.flush()

    def flush_if_due(self) -> None:
        if self.batch and time.monotonic() - self.since >= BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been collected. Raises sqlite3.Error or OSError when the disk will not take it."""
        if not self.batch:
            return
        batch, self.batch = self.batch, []
        added, surplus = record(self.context.db, self.context.run_id, batch)
        self.stats.files += added
        for text in surplus:
            self.target.remove(text)
        self.committed([result.file.sha256 for result in batch if result.file])
        for result in batch:
            self.stats.count(result)
        self.check_space()

    def check_space(self) -> None:
        """Stops the run before the disk is full: other programs need the rest."""
        free = shutil.disk_usage(self.context.workspace.images).free
        if free < self.min_free:
            raise GleanerError(
                f"only {free / 2**20:.0f} MiB are free on the disk of {self.context.workspace.images} (--min-free);"
                " make room and run the same command again."
            )
