"""The threads that keep finished bodies. An executor's futures cost more than the write of a small file."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

Task = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Writers:
    """A few threads for one loop. What they have done comes back to it in handfuls; each does `last` before it ends."""

    def __init__(self, count: int, last: Callable[[], None]):
        self.tasks: SimpleQueue[Task | None] = SimpleQueue()
        self.done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self.told = False  # that something is done
        self.last = last
        self.threads = [Thread(target=self._work, name=f"writer-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """To be called in the loop."""
        self.loop = asyncio.get_running_loop()
        for thread in self.threads:
            thread.start()

    def run(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Hands in a call; what it gives or raises is the future's."""
        future = self.loop.create_future()
        self.tasks.put((future, work, arguments))
        return future

    def close(self) -> None:
        """Waits until everything that was handed in is done."""
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            future, work, arguments = task
            try:
                self.done.append((future, work(*arguments), None))
            except BaseException as error:
                self.done.append((future, None, error))
            if not self.told:  # a second word while the first is on its way does no harm
                self.told = True
                with suppress(RuntimeError):  # the loop has ended and nobody waits
                    self.loop.call_soon_threadsafe(self._deliver)
        self.last()

    def _deliver(self) -> None:
        self.told = False
        while self.done:
            future, result, error = self.done.popleft()
            if future.done():  # whoever waited was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
