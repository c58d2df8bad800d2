"""Ray actors behind `lib.work.stream`: the same pool as of worker processes, spread over a private or a shared cluster.

Ray costs about ten seconds of start-up, so it is never the default. The driver stays the one writer of the
database; actors take items and give values, and our own rows are the checkpoint.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from lib.errors import GleanerError
from lib.work import describe
from lib.work.processes import Init, Job, Work, Worker, WorkerPool, prepare, run_chunk

CONNECT_SECONDS = 10.0
STARTS = 3  # Ray gives its own node half a minute to come up, and on a busy machine that is not enough for the first


def import_ray() -> Any:
    """Ray, or one sentence saying how to get it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":  # it is there and broken
            raise
        raise GleanerError(
            "The executor ray needs the package ray, which is not installed; run: pip install ray"
        ) from error


class Actor:
    """The inside of a Ray actor; wrapped by `ray.remote` when Ray is there."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def prepare(self) -> str:
        self.work, trouble = prepare(self.packed)
        return trouble

    def run(self, items: list[Any]) -> bytes:
        return run_chunk(self.work, items)


class RayPool(WorkerPool):
    """Ray actors, on a private cluster of this machine or on the one at `address`.

    Actors that the cluster has no room for yet get no jobs until they are up, so they hold nothing back.
    """

    def __init__(self, work: Work, init: Init, size: int, address: str | None) -> None:
        super().__init__(work, init, size)
        self.ray = import_ray()
        self.owner = not self.ray.is_initialized()
        if self.owner:
            self._connect(address)
        # Deaths are counted and answered by the pool, so Ray restarts and retries nothing by itself.
        self.actor = self.ray.remote(max_restarts=0, max_task_retries=0, num_cpus=1)(Actor)

    def _connect(self, address: str | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address:
            # Other nodes do not have our files; they get the library, which holds all work functions.
            options |= {"runtime_env": {"py_modules": [str(Path(__file__).parents[1])]}}
        else:
            # Named "local" because Ray would otherwise look for a cluster first, even a stale one. Its actors
            # find modules where this process does, as spawned processes would.
            path = os.pathsep.join(os.path.abspath(part) for part in sys.path)
            options |= {"num_cpus": max(self.size, os.cpu_count() or 1), "include_dashboard": False}
            options |= {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
        _check_reachable(address or "")
        self._init(address, options)
        # Ray prints the death of every actor on stdout, which belongs to the step's result; there is no
        # public switch. The pool counts the deaths itself.
        vars(import_module("ray._private.worker"))["_worker_logs_enabled"] = False

    def _init(self, address: str | None, options: dict[str, Any]) -> None:
        for left in reversed(range(1 if address else STARTS)):
            try:
                self.ray.init(address=address or "local", **options)
                return
            except Exception as error:  # a node that is late is a bare Exception
                self.ray.shutdown()
                if not left:
                    what = "check the address" if address else "give the machine less to do"
                    raise GleanerError(f"Ray does not start ({describe(error)}); {what} and run again.") from error

    def start(self) -> Worker:
        actor = self.actor.remote(self.packed)
        return Worker(actor, refs=deque([actor.prepare.remote()]))

    def send(self, worker: Worker, job: Job) -> None:
        worker.refs.append(worker.handle.run.remote(job.items))

    def listen(self) -> Iterator[tuple[Worker, Any]]:
        # The oldest call of each worker is enough: an actor answers in order.
        heads = {worker.refs[0]: worker for worker in self.workers if worker.refs}
        ready, _ = self.ray.wait(list(heads), num_returns=1)
        for ref in ready:
            worker = heads[ref]
            try:
                news = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self.trouble = (str(error).strip().splitlines() or [""])[-1]
                yield worker, None
                continue
            worker.refs.popleft()
            yield worker, pickle.loads(news) if isinstance(news, bytes) else news

    def reap(self, worker: Worker) -> None:
        self.ray.kill(worker.handle)

    def close(self, finished: bool) -> None:
        for worker in self.workers:
            self.reap(worker)
        self.workers.clear()
        if self.owner:
            self.ray.shutdown()


def _check_reachable(address: str) -> None:
    """Says at once that nobody listens at host:port; Ray itself would go on trying for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", "local": Ray answers for these at once
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise GleanerError(
            f"No Ray cluster answers at {address} ({describe(error)}); check the address and run again."
        ) from error
