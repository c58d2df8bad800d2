"""Several hosts in one: each port counts its requests in flight and notes when they came and what was answered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web
from hostile_server import jpeg
from loop_server import running


@dataclass
class Door:
    """One host. `replies` are given before anything else, each once; then robots.txt, redirects and pictures.

    A path `/to/2/rest` redirects to `/rest` of door 2, and `/good/7` is a picture.
    """

    url: str = ""
    robots: str | None = None
    hold: float = 0.02  # seconds that an answer takes, so that requests at once meet
    replies: deque[web.Response] = field(default_factory=deque)
    headers: dict[str, str] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0
    seen: list[tuple[float, float, str, int]] = field(default_factory=list)  # (came, answered, path, status)

    def pauses(self) -> list[float]:
        """Seconds from each 429 or 503 to the next request that came after it."""
        found = []
        for _, answered, _, status in self.seen:
            later = [came for came, _, _, _ in self.seen if came > answered]
            if status in (429, 503) and later:
                found.append(min(later) - answered)
        return found

    def refuse(self, status: int = 429, retry_after: str = "1") -> None:
        """Answers one request with that."""
        self.replies.append(web.Response(status=status, headers={"Retry-After": retry_after} if retry_after else {}))


@contextmanager
def counting_server(count: int) -> Iterator[list[Door]]:
    """So many doors, served from a thread."""
    doors = [Door() for _ in range(count)]

    async def serve(ready: Callable[[], None], end: asyncio.Event) -> None:
        runners = []
        for door in doors:
            runner = web.AppRunner(_app(doors, door), access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            door.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            runners.append(runner)
        ready()
        await end.wait()
        for runner in runners:
            await runner.cleanup()

    with running(serve):
        yield doors


def _app(doors: list[Door], door: Door) -> web.Application:
    async def answer(request: web.Request) -> web.StreamResponse:
        came = time.monotonic()
        door.at_once += 1
        door.most_at_once = max(door.most_at_once, door.at_once)
        await asyncio.sleep(door.hold)
        door.at_once -= 1
        response = door.replies.popleft() if door.replies else _usual(doors, door, request.path)
        door.seen.append((came, time.monotonic(), request.path, response.status))
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    return app


def _usual(doors: list[Door], door: Door, path: str) -> web.Response:
    parts = path.split("/")
    if path == "/robots.txt" and door.robots is not None:
        return web.Response(text=door.robots)
    if parts[1] == "to":
        return web.Response(status=302, headers={"Location": f"{doors[int(parts[2])].url}/{'/'.join(parts[3:])}"})
    if parts[1] == "good":
        number = int(parts[-1].partition(".")[0])
        return web.Response(body=jpeg(number), content_type="image/jpeg", headers=door.headers)
    return web.Response(status=404)
