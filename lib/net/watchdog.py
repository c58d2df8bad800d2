"""One watchman over all transfers of a loop, in place of several timers for each of them.

A socket's own read timeout never fires against a server that sends a byte now and then. The watchman looks at every
transfer a few times a second and ends those that are past their deadline, late with their headers, or too slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Bounds(Protocol):
    """The limits that a watchman enforces, in seconds and bytes a second."""

    @property
    def timeout(self) -> float: ...

    @property
    def deadline(self) -> float: ...

    @property
    def min_speed(self) -> int: ...

    @property
    def speed_window(self) -> float: ...


class Transfer:
    """One request under watch."""

    __slots__ = ("bounds", "bytes", "marked_at", "marked_bytes", "started", "task", "verdict")

    def __init__(self, task: asyncio.Task[Any], bounds: Bounds):
        self.task, self.bounds = task, bounds
        self.started = self.marked_at = time.monotonic()
        self.bytes = self.marked_bytes = 0
        self.verdict = ""

    def progress(self, count: int) -> None:
        self.bytes += count

    def judge(self, now: float) -> str:
        """`timeout` or `too_slow` when a limit is passed, else nothing."""
        if now - self.started > self.bounds.deadline:
            return "timeout"
        if not self.bytes:
            self.marked_at = now  # a late first byte is not slow: its speed is measured from here
            # Connecting and the headers each have `timeout` of their own; headers that trickle in must end as well.
            return "timeout" if now - self.started > 2 * self.bounds.timeout else ""
        if now - self.marked_at < self.bounds.speed_window:
            return ""
        slow = self.bytes - self.marked_bytes < self.bounds.min_speed * (now - self.marked_at)
        self.marked_at, self.marked_bytes = now, self.bytes
        return "too_slow" if slow else ""


class Watchdog:
    """The transfers under way, and the total of bytes that they received."""

    def __init__(self) -> None:
        self.active: set[Transfer] = set()
        self.received = 0

    @contextmanager
    def over(self, bounds: Bounds) -> Iterator[Transfer]:
        """Watches the calling task; a transfer that is ended by the watchman raises TransferEnded here."""
        task = asyncio.current_task()
        assert task is not None
        transfer = Transfer(task, bounds)
        self.active.add(transfer)
        try:
            yield transfer
        except asyncio.CancelledError:
            if not transfer.verdict:
                raise
            if hasattr(task, "uncancel"):  # Python 3.11: this cancellation was ours and is dealt with
                task.uncancel()
            raise TransferEnded(transfer.verdict) from None
        finally:
            self.active.discard(transfer)
            self.received += transfer.bytes

    def look(self) -> None:
        """Ends what is past its limits; to be called a few times a second."""
        now = time.monotonic()
        for transfer in list(self.active):
            if not transfer.verdict and (verdict := transfer.judge(now)):
                transfer.verdict = verdict
                transfer.task.cancel()

    def bytes_so_far(self) -> int:
        return self.received + sum(transfer.bytes for transfer in self.active)


class TransferEnded(Exception):
    """The watchman ended the transfer; `reason` is timeout or too_slow."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason
