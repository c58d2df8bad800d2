"""Work of one kind in threads of this process, its results in order: for NumPy and codecs, which let go of the lock.

Unlike `lib.stream` an exception is no value here: what a task raises is raised where its result would have come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(one: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[R]:
    """The tasks' results in order; tasks are read no further ahead than two for each worker."""
    if workers <= 1:
        yield from map(one, tasks)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="work") as threads:
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(threads.submit(one, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for late in waiting:
                late.cancel()
