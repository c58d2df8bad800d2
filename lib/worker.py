"""The inside of a worker process: jobs come off a pipe, answers go back in their order."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from multiprocessing import connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lib.stream import Answer, attempt, describe

Work = Callable[[Any], Any]
Init = Callable[[], None] | None

PARENT_CHECK_SECONDS = 5.0


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
