"""The worker processes behind `lib.work.stream`, and the pool that they share with the Ray actors of `lib.work.ray`.

Each worker of a pool holds a short queue of jobs and answers in order, so the pool knows at any time which job a worker
is busy with. When a worker dies only that job is suspect. Its items are tried again one by one by a new worker, and the
item under which a worker dies a second time ends as `worker_killed`. Jobs that waited behind it go to others untouched.

`start_child` and `Child.end` serve other supervisors of processes too, such as the decoders and workers of step 5.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from lib.errors import GleanerError
from lib.work import WORKER_KILLED, Answer, attempt, demand_sound_installation, describe, failure

if TYPE_CHECKING:  # only the type checker knows them as types of two parameters
    if sys.platform == "win32":
        Channel = connection.PipeConnection[Any, Any]
    else:
        Channel = connection.Connection[Any, Any]

DEPTH = 2  # jobs a worker holds: one under way and one waiting, so that it never idles for a round trip
FAILED_STARTS_LIMIT = 3  # workers in a row that died before they were ready: then it is the job, not bad luck
END_SECONDS = 3.0  # for a worker's libraries to wind down before it is killed
PARENT_CHECK_SECONDS = 5.0

# `spawn` and not `fork`: a fork copies locks that other threads hold (aiohttp, numpy, sqlite) and hangs.
SPAWN = get_context("spawn")

Work = Callable[[Any], Any]
Init = Callable[[], None] | None


@dataclass(eq=False)
class Child:
    """A child process and this side of the pipe to it."""

    process: Any
    channel: Channel

    def end(self) -> None:
        """Kills the process, unless it has ended, and waits for its end; the pipe stays open."""
        self.process.kill()
        self.process.join()


def start_child(target: Callable[..., None], *args: Any, daemon: bool = True) -> Child:
    """Starts `target(channel, *args)` in a process of its own, which Ctrl-C cannot hit before it is up."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(theirs, *args), daemon=daemon)
    with interrupts_held():
        process.start()
    theirs.close()  # else the end of the child would not end the pipe
    return Child(process, ours)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds SIGINT back while a worker starts: it inherits the mask, so Ctrl-C cannot hit it half-way up.

    The parent gets a Ctrl-C from that moment right after. (The resource tracker of multiprocessing is started
    first, because starting it would lift the mask.)
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(eq=False)
class WorkBatch:
    """One chunk of the stream and the answers it has so far."""

    number: int
    items: list[Any]
    answers: list[Answer | None]
    missing: int


@dataclass(eq=False)
class Job:
    """Some items of a batch, by index. `alone` marks the retry of a single item after a worker died."""

    batch: WorkBatch
    indices: list[int]
    alone: bool = False

    @property
    def items(self) -> list[Any]:
        return [self.batch.items[index] for index in self.indices]


@dataclass(eq=False)
class Worker:
    """One worker. `handle`, `reader` and `refs` belong to the kind of pool; `jobs` are in the order they were sent."""

    handle: Any
    reader: Any = None
    ready: bool = False
    jobs: deque[Job] = field(default_factory=deque)
    refs: deque[Any] = field(default_factory=deque)


class WorkerPool:
    """Dispatch and recovery, the same for every kind of worker."""

    def __init__(self, work: Work, init: Init, size: int) -> None:
        # As bytes, so that a worker that lacks a module can say so.
        self.packed, self.size = pickle.dumps((work, init), pickle.HIGHEST_PROTOCOL), size
        self.workers: list[Worker] = []
        self.backlog: deque[Job] = deque()
        self.complete: list[WorkBatch] = []
        self.failed_starts = 0
        self.trouble = ""  # what is known of why a worker ended

    def start(self) -> Worker:
        """Starts one worker, which is ready as soon as it says so."""
        raise NotImplementedError

    def send(self, worker: Worker, job: Job) -> None:
        """Hands over a job. Raises OSError when the worker is gone."""
        raise NotImplementedError

    def listen(self) -> Iterator[tuple[Worker, Any]]:
        """Waits for news of workers: answers of the oldest job, the text of the start, or None for dead."""
        raise NotImplementedError

    def reap(self, worker: Worker) -> None:
        """Ends a worker, if it has not ended, and frees what belongs to it."""
        raise NotImplementedError

    def submit(self, number: int, chunk: list[Any]) -> None:
        batch = WorkBatch(number, chunk, [None] * len(chunk), len(chunk))
        self.backlog.append(Job(batch, list(range(len(chunk)))))
        if len(self.workers) < self.size:  # workers are started as work arrives: three items need no ten processes
            self.workers.append(self.start())
        self._dispatch()

    def collect(self) -> list[tuple[int, list[Answer]]]:
        while not self.complete:
            self._dispatch()
            for worker, news in self.listen():
                if worker not in self.workers:
                    continue
                if news is None:
                    self._replace(worker)
                elif isinstance(news, str):
                    if news:
                        demand_sound_installation(news)
                        raise GleanerError(
                            f"A worker could not prepare for its work ({news}); mend that and run again."
                        )
                    worker.ready, self.failed_starts = True, 0
                else:
                    self._record(worker.jobs.popleft(), news)
        self._dispatch()
        done, self.complete = self.complete, []
        return [(batch.number, [answer for answer in batch.answers if answer]) for batch in done]

    def _dispatch(self) -> None:
        while self.backlog:
            free = [worker for worker in self.workers if _takes(worker, self.backlog[0])]
            if not free:
                return
            worker = min(free, key=lambda one: len(one.jobs))
            job = self.backlog.popleft()
            worker.jobs.append(job)
            try:
                self.send(worker, job)
            except OSError:
                self._replace(worker)

    def _record(self, job: Job, answers: list[Answer]) -> None:
        for index, answer in zip(job.indices, answers, strict=True):
            job.batch.answers[index] = answer
        job.batch.missing -= len(job.indices)
        if not job.batch.missing:
            self.complete.append(job.batch)

    def _replace(self, worker: Worker) -> None:
        """Starts a worker in place of a dead one, whose oldest job is suspect; the others only waited behind it."""
        self.workers.remove(worker)
        self.reap(worker)
        waiting = list(worker.jobs)
        if worker.ready and waiting:
            waiting = self._retry_one_by_one(waiting[0]) + waiting[1:]
        elif not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS_LIMIT:
                why = f" ({self.trouble})" if self.trouble else ""
                raise GleanerError(
                    f"Worker processes end before they can start{why}; run again with --workers 1 to see the cause."
                )
        self.backlog.extendleft(reversed(waiting))
        self.workers.append(self.start())

    def _retry_one_by_one(self, job: Job) -> list[Job]:
        if job.alone:
            self._record(job, [(None, WORKER_KILLED)])
            return []
        return [Job(job.batch, [index], alone=True) for index in job.indices]


def _takes(worker: Worker, job: Job) -> bool:
    """A retried item shares its worker with nothing that could kill it before it has answered."""
    alone = job.alone or any(other.alone for other in worker.jobs)
    return worker.ready and len(worker.jobs) < (1 if alone else DEPTH)


class ProcessPool(WorkerPool):
    """Worker processes on this machine, each behind its own pipe."""

    def __init__(self, work: Work, init: Init, size: int) -> None:
        super().__init__(work, init, size)
        # What workers say is taken off their pipes at once, also while the consumer is busy: else they would wait.
        self.inbox: SimpleQueue[tuple[Worker, bytes | None]] = SimpleQueue()
        self.wake_reader, self.wake_writer = SPAWN.Pipe(duplex=False)

    def start(self) -> Worker:
        worker = Worker(start_child(serve, self.packed))
        worker.reader = Thread(target=self._read_pipe, args=(worker,), daemon=True)
        worker.reader.start()
        return worker

    def _read_pipe(self, worker: Worker) -> None:
        """Puts what a worker says into the inbox, and None when it has ended."""
        said: bytes | None = b""
        while said is not None:
            try:
                said = worker.handle.channel.recv_bytes()
            except (EOFError, OSError):
                said = None
            self.inbox.put((worker, said))
            with suppress(OSError):  # the pool may be closed
                self.wake_writer.send_bytes(b".")

    def send(self, worker: Worker, job: Job) -> None:
        worker.handle.channel.send_bytes(pickle.dumps(job.items, pickle.HIGHEST_PROTOCOL))

    def listen(self) -> Iterator[tuple[Worker, Any]]:
        sentinels = {worker.handle.process.sentinel: worker for worker in self.workers}
        ready = connection.wait([self.wake_reader, *sentinels])
        ended = [sentinels[source] for source in ready if source in sentinels]
        for worker in ended:
            worker.reader.join(END_SECONDS)  # what a worker said before it ended is still good
        while self.wake_reader.poll():
            self.wake_reader.recv_bytes()
        told = []
        while not self.inbox.empty():
            worker, news = self.inbox.get()
            told.append(worker)
            yield worker, None if news is None else pickle.loads(news)
        for worker in ended:
            if worker not in told:
                yield worker, None

    def reap(self, worker: Worker) -> None:
        worker.handle.end()
        worker.reader.join(END_SECONDS)  # the pipe has ended; closing it under a reader would be unsafe
        worker.handle.channel.close()

    def close(self, finished: bool) -> None:
        for worker in self.workers:
            if finished:
                with suppress(OSError):  # it is gone already
                    worker.handle.channel.send_bytes(b"")
            else:
                worker.handle.process.kill()
        for worker in self.workers:
            if finished:
                worker.handle.process.join(END_SECONDS)
            self.reap(worker)
        self.workers.clear()


def serve(channel: Channel, packed: bytes) -> None:
    """Runs a worker process: prepares, answers job after job, ends on an empty message or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    inbox: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_keep_listening, args=(channel, inbox), daemon=True).start()
    work, trouble = prepare(packed)
    channel.send(trouble)
    while job := inbox.get():
        channel.send_bytes(run_chunk(work, pickle.loads(job)))


def _keep_listening(channel: Channel, inbox: SimpleQueue[bytes]) -> None:
    """Takes jobs off the pipe at once, so the parent never blocks, and leaves when the parent is gone."""
    parent = os.getppid()
    while True:
        try:
            if channel.poll(PARENT_CHECK_SECONDS):
                inbox.put(channel.recv_bytes())
            elif os.getppid() != parent:  # a process forked by the parent may still hold the pipe open
                os._exit(1)
        except (EOFError, OSError):
            os._exit(1)


def prepare(packed: bytes) -> tuple[Work, str]:
    """Unpacks (work, init) and runs `init`; the text is empty when all is well, else what went wrong."""
    try:
        work, init = pickle.loads(packed)
        if init:
            init()
    except Exception as error:  # reported to the parent, which ends the stream with it
        return describe, failure(error)
    return work, ""


def run_chunk(work: Work, items: list[Any]) -> bytes:
    """The pickled answers to the items; a value that cannot be pickled becomes that item's error."""
    answers = [attempt(work, item) for item in items]
    try:
        return pickle.dumps(answers, pickle.HIGHEST_PROTOCOL)
    except Exception:  # pickling calls the values' own code, which may raise anything
        return pickle.dumps([_picklable(answer) for answer in answers], pickle.HIGHEST_PROTOCOL)


def _picklable(answer: Answer) -> Answer:
    try:
        pickle.dumps(answer)
        return answer
    except Exception as error:  # see run_chunk
        return None, failure(error)
