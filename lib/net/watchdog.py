"""One watchdog over all transfers of a loop, in place of several timers for each of them.

A socket's own read timeout never fires against a server that sends a byte now and then. The watchdog looks at every
transfer a few times a second and ends those that are past their deadline, late with their headers, or too slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FetchLimits:
    """The most that one address may cost: seconds, bytes, and bytes a second over a window of seconds."""

    timeout: float = 20.0  # to connect, to the first byte, and between two bytes
    deadline: float = 300.0  # the whole file
    max_bytes: int = 50 * 1024 * 1024
    min_speed: int = 1024
    speed_window: float = 10.0


class Transfer:
    """One request under watch."""

    __slots__ = ("bytes", "ended_by", "limits", "marked_at", "marked_bytes", "started", "task")

    def __init__(self, task: asyncio.Task[Any], limits: FetchLimits):
        self.task, self.limits = task, limits
        self.started = self.marked_at = time.monotonic()
        self.bytes = self.marked_bytes = 0
        self.ended_by = ""

    def progress(self, count: int) -> None:
        self.bytes += count

    def limit_exceeded(self, now: float) -> str:
        """`timeout` or `too_slow` when a limit is passed, else nothing."""
        if now - self.started > self.limits.deadline:
            return "timeout"
        if not self.bytes:
            self.marked_at = now  # a late first byte is not slow: its speed is measured from here
            # Connecting and the headers each have `timeout` of their own; headers that trickle in must end as well.
            return "timeout" if now - self.started > 2 * self.limits.timeout else ""
        if now - self.marked_at < self.limits.speed_window:
            return ""
        slow = self.bytes - self.marked_bytes < self.limits.min_speed * (now - self.marked_at)
        self.marked_at, self.marked_bytes = now, self.bytes
        return "too_slow" if slow else ""


class Watchdog:
    """The transfers under way, and the total of bytes that they received."""

    def __init__(self) -> None:
        self.active: set[Transfer] = set()
        self.received = 0

    @contextmanager
    def over(self, limits: FetchLimits) -> Iterator[Transfer]:
        """Watches the calling task; a transfer that is ended by the watchdog raises TransferEnded here."""
        task = asyncio.current_task()
        assert task is not None
        transfer = Transfer(task, limits)
        self.active.add(transfer)
        try:
            yield transfer
        except asyncio.CancelledError:
            if not transfer.ended_by:
                raise
            if hasattr(task, "uncancel"):  # Python 3.11: this cancellation was ours and is dealt with
                task.uncancel()
            raise TransferEnded(transfer.ended_by) from None
        finally:
            self.active.discard(transfer)
            self.received += transfer.bytes

    def check(self) -> None:
        """Ends what is past its limits; to be called a few times a second."""
        now = time.monotonic()
        for transfer in list(self.active):
            if not transfer.ended_by and (ended_by := transfer.limit_exceeded(now)):
                transfer.ended_by = ended_by
                transfer.task.cancel()

    def bytes_so_far(self) -> int:
        return self.received + sum(transfer.bytes for transfer in self.active)


class TransferEnded(Exception):
    """The watchdog ended the transfer; `reason` is timeout or too_slow."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason
