"""The worker processes behind `lib.work.stream`, and the crew they share with the Ray actors of `lib.work.ray`.

A crew has members that each hold a short queue of jobs and answer in order. The crew knows at any time which
job a member is busy with, so when a member dies only that job is suspect: its items are tried again one by one by
a new member, and the item under which a member dies a second time ends as `worker_killed`. Jobs that merely
waited behind it are handed to others untouched.

The inside of a worker process: jobs come off a pipe, answers go back in their order.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lib.errors import GleanerError
from lib.work.outcome import WORKER_KILLED, Answer, attempt, describe

DEPTH = 2  # jobs a member holds: one under way and one waiting, so that it never idles for a round trip
STILLBORN_LIMIT = 3  # members in a row that died before they were ready: then it is the job, not bad luck
FAREWELL_SECONDS = 3.0  # for a worker's libraries to wind down before it is killed

Work = Callable[[Any], Any]
Init = Callable[[], None] | None

PARENT_CHECK_SECONDS = 5.0


@dataclass(eq=False)
class WorkBatch:
    """One chunk of the stream and the answers it has so far."""

    number: int
    items: list[Any]
    answers: list[Answer | None]
    missing: int


@dataclass(eq=False)
class Job:
    """Some items of a batch, by index. `alone` marks the retry of a single item after a member died."""

    batch: WorkBatch
    indices: list[int]
    alone: bool = False

    @property
    def items(self) -> list[Any]:
        return [self.batch.items[index] for index in self.indices]


@dataclass(eq=False)
class Worker:
    """One worker. `handle` and `refs` belong to the kind of crew; `jobs` are in the order they were sent."""

    handle: Any
    channel: Any = None
    reader: Thread | None = None
    ready: bool = False
    jobs: deque[Job] = field(default_factory=deque)
    refs: deque[Any] = field(default_factory=deque)


class WorkerPool:
    """Dispatch and recovery, the same for every kind of worker."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.members: list[Worker] = []
        self.backlog: deque[Job] = deque()
        self.complete: list[WorkBatch] = []
        self.stillborn = 0

    def hire(self) -> Worker:
        raise NotImplementedError

    def send(self, member: Worker, job: Job) -> None:
        """Hand over a job. Raises OSError when the member is gone."""
        raise NotImplementedError

    def listen(self) -> Iterator[tuple[Worker, Any]]:
        """Wait for news of members: answers of the oldest job, the text of the start, or None for dead."""
        raise NotImplementedError

    def bury(self, member: Worker) -> None:
        raise NotImplementedError

    def submit(self, number: int, chunk: list[Any]) -> None:
        batch = WorkBatch(number, chunk, [None] * len(chunk), len(chunk))
        self.backlog.append(Job(batch, list(range(len(chunk)))))
        if len(self.members) < self.workers:  # members are hired as work arrives: three items need no ten processes
            self.members.append(self.hire())
        self.dispatch()

    def dispatch(self) -> None:
        while self.backlog:
            free = [member for member in self.members if self.takes(member, self.backlog[0])]
            if not free:
                return
            member = min(free, key=lambda one: len(one.jobs))
            job = self.backlog.popleft()
            member.jobs.append(job)
            try:
                self.send(member, job)
            except OSError:
                self.replace(member)

    def takes(self, member: Worker, job: Job) -> bool:
        """A retried item shares its member with nothing that could kill it before it has answered."""
        if job.alone or any(other.alone for other in member.jobs):
            return member.ready and not member.jobs
        return member.ready and len(member.jobs) < DEPTH

    def collect(self) -> list[tuple[int, list[Answer]]]:
        while not self.complete:
            self.dispatch()
            for member, news in self.listen():
                if member not in self.members:
                    continue
                if news is None:
                    self.replace(member)
                elif isinstance(news, str):
                    self.welcome(member, news)
                else:
                    self.record(member.jobs.popleft(), news)
        self.dispatch()
        done, self.complete = self.complete, []
        return [(batch.number, [answer for answer in batch.answers if answer]) for batch in done]

    def welcome(self, member: Worker, trouble: str) -> None:
        if trouble:
            raise GleanerError(f"A worker could not prepare for its work ({trouble}); mend that and run again.")
        member.ready = True
        self.stillborn = 0

    def record(self, job: Job, answers: list[Answer]) -> None:
        for index, answer in zip(job.indices, answers, strict=True):
            job.batch.answers[index] = answer
        job.batch.missing -= len(job.indices)
        if not job.batch.missing:
            self.complete.append(job.batch)

    def replace(self, member: Worker) -> None:
        """A member died: its oldest job is suspect, the others only waited behind it."""
        self.members.remove(member)
        self.bury(member)
        waiting = list(member.jobs)
        if member.ready and waiting:
            waiting = self.isolate(waiting[0]) + waiting[1:]
        elif not member.ready:
            self.stillborn += 1
            if self.stillborn >= STILLBORN_LIMIT:
                raise GleanerError(
                    "Worker processes end before they can start; run again with --workers 1 to see the cause."
                )
        self.backlog.extendleft(reversed(waiting))
        self.members.append(self.hire())

    def isolate(self, job: Job) -> list[Job]:
        if job.alone:
            self.record(job, [(None, WORKER_KILLED)])
            return []
        return [Job(job.batch, [index], alone=True) for index in job.indices]


class ProcessPool(WorkerPool):
    """Worker processes on this machine, each behind its own pipe.

    `spawn` and not `fork`: a fork copies locks that other threads hold (aiohttp, numpy, sqlite) and hangs.
    """

    def __init__(self, work: Work, init: Init, workers: int) -> None:
        super().__init__(workers)
        self.work, self.init = work, init
        self.context = get_context("spawn")
        # What members say is taken off their pipes at once, also while the consumer is busy: else they would wait.
        self.inbox: SimpleQueue[tuple[Worker, bytes | None]] = SimpleQueue()
        self.bell, self.button = self.context.Pipe(duplex=False)

    def hire(self) -> Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=serve, args=(theirs, self.work, self.init), daemon=True)
        with interrupts_held():
            process.start()
        theirs.close()  # else the end of the worker would not end the pipe
        member = Worker(process, ours)
        member.reader = Thread(target=_hear, args=(member, self.inbox, self.button), daemon=True)
        member.reader.start()
        return member

    def send(self, member: Worker, job: Job) -> None:
        member.channel.send_bytes(pickle.dumps(job.items, pickle.HIGHEST_PROTOCOL))

    def listen(self) -> Iterator[tuple[Worker, Any]]:
        sentinels = {member.handle.sentinel: member for member in self.members}
        ready = connection.wait([self.bell, *sentinels])
        ended = [sentinels[source] for source in ready if source in sentinels]
        for member in ended:
            if member.reader:
                member.reader.join(FAREWELL_SECONDS)  # what a worker said before it ended is still good
        while self.bell.poll():
            self.bell.recv_bytes()
        told = []
        while not self.inbox.empty():
            member, news = self.inbox.get()
            told.append(member)
            yield member, None if news is None else pickle.loads(news)
        for member in ended:
            if member not in told:
                yield member, None

    def bury(self, member: Worker) -> None:
        member.handle.kill()
        member.handle.join()
        if member.reader:
            member.reader.join(FAREWELL_SECONDS)  # the pipe has ended; closing it under a reader would be unsafe
        member.channel.close()

    def close(self, finished: bool) -> None:
        for member in self.members:
            if not finished:
                member.handle.kill()
                continue
            try:
                member.channel.send_bytes(b"")
            except OSError:
                continue  # it is gone already; the join below takes note
        for member in self.members:
            if finished:
                member.handle.join(FAREWELL_SECONDS)
            self.bury(member)
        self.members.clear()


def _hear(member: Worker, inbox: SimpleQueue[tuple[Worker, bytes | None]], button: Any) -> None:
    """Puts what a worker says into the inbox, and None when it has ended."""
    said: bytes | None = b""
    while said is not None:
        try:
            said = member.channel.recv_bytes()
        except (EOFError, OSError):
            said = None
        inbox.put((member, said))
        with suppress(OSError):  # the crew may have gone home
            button.send_bytes(b".")


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold SIGINT back while a worker starts: it inherits the mask, so Ctrl-C cannot hit it half-way up.

    The parent gets a Ctrl-C from that moment right after. (The resource tracker of multiprocessing is started
    first, because starting it would lift the mask.)
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(channel: connection.Connection, work: Work, init: Init) -> None:
    """Life of a worker process: prepare, answer job after job, end on an empty message or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    inbox: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_keep_listening, args=(channel, inbox), daemon=True).start()
    channel.send(prepare(init))
    while packed := inbox.get():
        channel.send_bytes(pack(run_chunk(work, pickle.loads(packed))))


def _keep_listening(channel: connection.Connection, inbox: SimpleQueue[bytes]) -> None:
    """Take jobs off the pipe at once, so the parent never blocks, and leave when the parent is gone."""
    parent = os.getppid()
    while True:
        try:
            if channel.poll(PARENT_CHECK_SECONDS):
                inbox.put(channel.recv_bytes())
            elif os.getppid() != parent:  # a process forked by the parent may still hold the pipe open
                os._exit(1)
        except (EOFError, OSError):
            os._exit(1)


def prepare(init: Init) -> str:
    """Run `init`; the empty text when all is well, else what went wrong."""
    try:
        if init:
            init()
    except Exception as error:  # reported to the parent, which ends the stream with it
        return describe(error)
    return ""


def run_chunk(work: Work, items: list[Any]) -> list[Answer]:
    return [attempt(work, item) for item in items]


def pack(answers: list[Answer]) -> bytes:
    """Pickle the answers; a value that cannot be pickled becomes that item's error."""
    try:
        return pickle.dumps(answers, pickle.HIGHEST_PROTOCOL)
    except Exception:  # pickling calls the values' own code, which may raise anything
        return pickle.dumps([_picklable(answer) for answer in answers], pickle.HIGHEST_PROTOCOL)


def _picklable(answer: Answer) -> Answer:
    try:
        pickle.dumps(answer)
        return answer
    except Exception as error:  # see pack
        return None, describe(error)
