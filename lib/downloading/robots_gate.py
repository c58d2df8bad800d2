"""robots.txt of every origin that is asked: read once, kept for a day, and obeyed or only reported."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import aiohttp
from yarl import URL

from lib.db import Database
from lib.db.robots import known_robots, remember_robots
from lib.net.client import fetch
from lib.net.exchange import Answer, Ask
from lib.net.limits import Limits
from lib.net.robots import MOST_BYTES, Robots, parse_robots, robots_url
from lib.net.watch import Watch

ROBOTS_TXT = "robots_txt"
ASK = Ask(picture=False)  # many sites send `X-Robots-Tag: noindex` with their robots.txt
MOST_ORIGINS = 5000  # remembered in memory; the database has the others


class _Text:
    """A sink for a small text; what exceeds it is dropped."""

    def __init__(self) -> None:
        self.data = bytearray()

    def meet(self, answer: Answer) -> tuple[str, str]:
        return "", ""

    def judge(self, head: bytes) -> tuple[str, str]:
        return "", ""

    def restart(self) -> None:
        self.data.clear()

    def write(self, block: bytes) -> Any:
        self.data += block[: MOST_BYTES - len(self.data)]


class RobotsGate:
    """Answers for one loop whether an address may be asked. `db` is used from the loop's thread."""

    def __init__(self, db: Database, session: aiohttp.ClientSession, limits: Limits, watch: Watch):
        self.db, self.session, self.watch = db, session, watch
        self.limits = Limits(limits.timeout, min(limits.deadline, 3 * limits.timeout), 4 * MOST_BYTES, limits.min_speed)
        self.known: OrderedDict[str, Robots] = OrderedDict()
        self.asking: dict[str, asyncio.Lock] = {}

    async def ask(self, url: URL) -> Answer:
        """An answer without a reason where the address may be asked.

        `robots_txt` where it may not. A robots.txt that cannot be had speaks for its origin (RFC 9309): what went
        wrong with it is the answer then, and may pass.
        """
        origin = str(url.origin())
        rules = self.known.get(origin)
        if rules is None:
            lock = self.asking.setdefault(origin, asyncio.Lock())
            try:
                async with lock:
                    rules = self.known.get(origin)
                    found = rules if rules is not None else await self._learn(url, origin)
            finally:
                self.asking.pop(origin, None)
            if isinstance(found, Answer):
                return found
            rules = found
        if rules.allows(url.raw_path_qs):
            return Answer()
        return Answer(ROBOTS_TXT, f"robots.txt of {origin} disallows it", reached=None)

    async def _learn(self, url: URL, origin: str) -> Robots | Answer:
        text = known_robots(self.db, origin)
        if text is None:
            sink = _Text()
            answer = await fetch(self.session, robots_url(url), sink, self.limits, self.watch, ASK)
            refused = (answer.status or 0) // 100 == 4 and answer.reason.startswith("http_") and answer.status != 429
            if answer.reason and not refused and answer.reason not in ("empty", "too_large"):
                answer.detail = f"robots.txt: {answer.detail}"
                return answer
            text = "" if refused else sink.data.decode("utf-8", "replace")
            remember_robots(self.db, origin, answer.status or 0, text)
        self.known[origin] = rules = parse_robots(text)
        if len(self.known) > MOST_ORIGINS:
            self.known.popitem(last=False)
        return rules
