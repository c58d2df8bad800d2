"""One bounded stream: read items lazily, work on them in parallel, hand every result to the one consumer.

A step names one item's work as a module-level function and never how it is spread:

    for outcome in stream(measure, pending_rows(), workers=4):
        save(outcome.value) if outcome.ok else note(outcome.item, outcome.error)

A failure is a value: an exception inside the work, or a worker that dies under it, ends as `Result.error` of
that one item and the stream goes on. What is wrong with the job as a whole (an unknown executor, a worker
that cannot start, a missing module, Ray missing) is raised.

`in_threads` is for NumPy and codecs, which let go of the lock: threads of this process, results in order. There an
exception is no value: what a task raises is raised where its result would have come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Any, Protocol

from lib.errors import UsageError
from lib.work import Answer, R, Result, T, attempt, result_of

EXECUTORS = ("local", "threads", "processes", "ray")


class Executor(Protocol):
    """The place where chunks are worked on. `collect` waits for at least one finished chunk."""

    def submit(self, number: int, chunk: list[Any]) -> None: ...

    def collect(self) -> list[tuple[int, list[Answer]]]: ...

    def close(self, finished: bool) -> None: ...


def stream(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    executor: str = "local",
    workers: int = 1,
    chunk: int = 16,
    in_flight: int | None = None,
    ordered: bool = False,
    init: Callable[[], None] | None = None,
    ray_address: str | None = None,
) -> Generator[Result[T, R], None, None]:
    """Yields one `Result` for every item, as they finish or, with `ordered`, in the order of the items.

    work        module-level function of lib (worker processes find it by name); item and value must pickle
    items       read lazily; at most `in_flight` chunks are read ahead of what has been yielded
    executor    `local`: in this process for `workers` <= 1, else worker processes;
                `processes`: worker processes, even for one worker: for work that may bring its process down;
                `threads`: for work that releases the interpreter lock (decoding, hashing of large buffers);
                `ray`: actors on a private cluster, or on the one at `ray_address`
    chunk       items sent at once: large for cheap work, 1 for work of seconds or a source that trickles
    in_flight   chunks outstanding, default two for each worker
    init        module-level function called once in every worker process before its first item, or once in
                this process for in-process work and threads

    Closing the generator (break, an exception, Ctrl-C) ends the workers at once.

    Raises UsageError for options that make no sense and GleanerError when Ray is missing, both before
    anything is read, and GleanerError when the workers cannot start.
    """
    if executor not in EXECUTORS:
        raise UsageError(f"There is no executor {executor!r}; choose one of {', '.join(EXECUTORS)}.")
    if chunk < 1 or (in_flight is not None and in_flight < 1):
        raise UsageError("A stream needs a chunk and an in-flight limit of at least 1; give larger numbers.")
    if executor == "local" and workers <= 1:
        return _in_process(work, items, init)
    workers = max(1, workers)
    make_pool = _pool_maker(executor, work, init, workers, ray_address)
    return _drive(make_pool, items, chunk, in_flight or 2 * workers, ordered)


def _pool_maker(
    executor: str, work: Callable[..., Any], init: Callable[[], None] | None, workers: int, address: str | None
) -> Callable[[], Executor]:
    if executor == "threads":
        return lambda: ThreadPool(work, init, workers)
    # Late imports: processes and Ray are needed by few runs.
    if executor == "ray":
        from lib.work.ray import RayPool, import_ray

        import_ray()
        return lambda: RayPool(work, init, workers, address)
    from lib.work.processes import ProcessPool

    return lambda: ProcessPool(work, init, workers)


def _in_process(
    work: Callable[[T], R], items: Iterable[T], init: Callable[[], None] | None
) -> Generator[Result[T, R], None, None]:
    if init:
        init()
    for item in items:
        yield result_of(item, *attempt(work, item))


def _drive(
    make_pool: Callable[[], Executor], items: Iterable[T], size: int, in_flight: int, ordered: bool
) -> Generator[Result[T, R], None, None]:
    """Keeps at most `in_flight` chunks between the source and the consumer."""
    source = iter(items)
    open_chunks: dict[int, list[T]] = {}
    answers: dict[int, list[Answer]] = {}
    number = next_out = 0
    exhausted = False
    pool = make_pool()
    try:
        while True:
            while not exhausted and len(open_chunks) < in_flight:
                part = list(islice(source, size))
                exhausted = len(part) < size
                if part:
                    open_chunks[number] = part
                    pool.submit(number, part)
                    number += 1
            if not open_chunks:
                return
            answers.update(pool.collect())
            while answers:
                turn = next_out if ordered else next(iter(answers))
                if turn not in answers:
                    break
                for item, answer in zip(open_chunks[turn], answers.pop(turn), strict=True):
                    yield result_of(item, *answer)
                # A chunk counts as outstanding until its last item was consumed: that is the memory bound.
                del open_chunks[turn]
                next_out += 1
    finally:
        pool.close(finished=exhausted and not open_chunks)


class ThreadPool:
    """Threads of this process; they stop between two items when the stream is closed early."""

    def __init__(self, work: Callable[[Any], Any], init: Callable[[], None] | None, workers: int) -> None:
        if init:
            init()
        self.work = work
        self.stopped = Event()
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="stream")
        self.running: dict[Future[list[Answer]], int] = {}

    def submit(self, number: int, chunk: list[Any]) -> None:
        self.running[self.threads.submit(self._run, chunk)] = number

    def _run(self, chunk: list[Any]) -> list[Answer]:
        return [attempt(self.work, item) for item in chunk if not self.stopped.is_set()]

    def collect(self) -> list[tuple[int, list[Answer]]]:
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        return [(self.running.pop(future), future.result()) for future in done]

    def close(self, finished: bool) -> None:
        self.stopped.set()
        self.threads.shutdown(wait=True, cancel_futures=True)


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


@dataclass(frozen=True)
class Parallelism:
    """The executor and the number of workers that measuring is spread over, as `stream` takes them."""

    executor: str = "local"
    workers: int = 1
