"""Politeness: one run an engine, a pause with jitter between two requests, and which of the hosts is asked.

Two runs at once would ask twice as often as the engine's pace allows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from lib.engines.base import FilePart, PageResponse, Web
from lib.workspace import Workspace, file_lock

T = TypeVar("T")
NAP = 0.2  # seconds between two looks at whether Ctrl-C was pressed


class Interrupted(Exception):
    """Ctrl-C came while waiting: what is done stays, the rest stays queued."""


class RateLimiter:
    """Hands out turns: at least `interval` seconds apart, up to `jitter` of that added at random."""

    def __init__(self, interval: float, jitter: float, stopping: Callable[[], bool]):
        self._interval, self._jitter, self._stopping = interval, jitter, stopping
        self._next = 0.0
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        """Waits for the next turn. Raises Interrupted."""
        async with self._lock:
            while (left := self._next - time.monotonic()) > 0:
                await self.sleep(left)
            await self.sleep(0)
            self._next = time.monotonic() + self._interval * (1 + self._jitter * random.random())

    def hold(self, seconds: float) -> None:
        """Lets nobody have a turn for so long: the engine asked for it."""
        self._next = max(self._next, time.monotonic() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Waits. Raises Interrupted as soon as the run is asked to end."""
        end = time.monotonic() + seconds
        while not self._stopping():
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(NAP, left))
        raise Interrupted


class Transport(Web, Protocol):
    """A `Web` that is told when one query has ended and the next one begins."""

    async def recycle(self) -> None:
        """Throws away what has served long enough."""


class PacedSession:
    """A `Web` whose every request waits for its turn, so that no engine can forget to."""

    def __init__(self, web: Web, limiter: RateLimiter):
        self._web, self.limiter = web, limiter

    async def open(self, url: str) -> PageResponse:
        return await self._in_turn(lambda: self._web.open(url))

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> PageResponse:
        return await self._in_turn(lambda: self._web.get(url, part=part, headers=headers))

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> PageResponse:
        return await self._in_turn(lambda: self._web.post(url, headers=headers, form=form, body=body))

    async def submit(self, labels: Sequence[str]) -> PageResponse | None:
        return await self._in_turn(lambda: self._web.submit(labels))

    async def value(self, name: str) -> bytes:
        """The engine is asked for nothing here, so there is no turn to wait for."""
        return await self._web.value(name)

    async def _in_turn(self, request: Callable[[], Awaitable[T]]) -> T:
        await self.limiter.turn()
        return await request()


def is_loopback(host: str) -> bool:
    """True for an address such as `http://127.0.0.1:8080`: it is this machine, where nobody has to be polite."""
    name = urlsplit(host).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


@dataclass
class HostFallback:
    """The engine's hosts in the order in which they are tried; all queries of a run share the one that works."""

    names: list[str]
    current: int = 0

    @property
    def name(self) -> str:
        return self.names[self.current]

    def prefer(self, name: str) -> None:
        if name in self.names:
            self.current = self.names.index(name)

    def next(self, tried: set[str]) -> bool:
        """Goes on to a host that was not tried yet; False where there is none."""
        for place, name in enumerate(self.names):
            if name not in tried:
                self.current = place
                return True
        return False


def engine_lock(workspace: Workspace, engine: str) -> AbstractContextManager[None]:
    """Holds the engine for this process. Raises GleanerError when another run has it."""
    busy = f"another run is searching {engine} for this workspace; wait until it has ended."
    return file_lock(workspace.root / f".collect-{engine}.lock", busy)


def profile_lock(profile: Path) -> AbstractContextManager[None]:
    """Holds a browser profile, which two browsers cannot share. Raises GleanerError when another run has it."""
    busy = f"another run uses the profile {profile}; give --profile."
    return file_lock(profile.with_name(f".{profile.name}.lock"), busy)
