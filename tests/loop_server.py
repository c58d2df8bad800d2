"""A server of a test in a thread of its own, with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from support import PATIENCE

Serve = Callable[[Callable[[], None], asyncio.Event], Coroutine[Any, Any, None]]


@contextmanager
def running(serve: Serve) -> Iterator[None]:
    """Runs a server meanwhile: `serve` calls the function that it is given once it is up, and waits for the event."""
    ready, loop, end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve(ready.set, end))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(PATIENCE)
