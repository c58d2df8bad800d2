"""robots.txt of every origin that is asked: read once, kept for a day, and obeyed or only reported."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from yarl import URL

from lib.db import Database
from lib.db.downloads import known_robots, remember_robots
from lib.download.picture import PictureFetch
from lib.net.fetch import Watchdog, fetch
from lib.net.request import MOST_REDIRECTS, REDIRECTED, FetchLimits, FetchResult, Request, Sink
from lib.net.robots import MOST_BYTES, Robots, decode_robots, parse_robots

ROBOTS_TXT = "robots_txt"
ROBOTS_CUT = "robots_cut"  # noted of a picture whose robots.txt is longer than what is read of it
ASK = Request(picture=False)  # many sites send `X-Robots-Tag: noindex` with their robots.txt
MOST_ORIGINS = 5000  # remembered in memory; the database has the others
MOST_RULES = 300_000  # of all of them together, some 100 MB
LONG = 32 * 1024  # characters above which a text is read in a thread: the loop serves other hosts meanwhile


class _Text(Sink):
    """A sink for a small text; what exceeds it is dropped."""

    def __init__(self) -> None:
        self.data = bytearray()

    def restart(self) -> None:
        self.data.clear()

    def write(self, block: bytes) -> Any:
        self.data += block[: MOST_BYTES + 1 - len(self.data)]  # one more, which tells that there was more


@dataclass(eq=False)
class RobotsReading:
    """The robots.txt of one origin while it is being read: where it is asked for next, and what waits for it."""

    origin: str
    url: URL
    hops: int = 0
    waiting: list[PictureFetch] = field(default_factory=list)


Item = PictureFetch | RobotsReading  # what waits in a host's queue


class RobotsGate:
    """Answers for one loop whether an address may be asked. `db` is used from the loop's thread."""

    def __init__(self, db: Database, session: aiohttp.ClientSession, limits: FetchLimits, watch: Watchdog):
        self.db, self.session, self.watch = db, session, watch
        deadline = min(limits.deadline, 3 * limits.timeout)
        self.limits = replace(limits, deadline=deadline, max_bytes=4 * MOST_BYTES)
        self.known: OrderedDict[str, Robots] = OrderedDict()
        self.rules = 0  # of all that is known
        self.readings: dict[str, RobotsReading] = {}

    async def answer_for(self, url: URL) -> FetchResult | None:
        """An answer without a reason where an address may be asked, `robots_txt` where it may not.

        Its detail is `robots_cut` where only the beginning was read. None where its robots.txt has to be read first.
        """
        origin = str(url.origin())
        found = self.known.get(origin)
        if found is None:
            text = None if origin in self.readings else known_robots(self.db, origin)
            if text is None:
                return None
            found = await self._learn(origin, text)
        if refusal := found.refusal(url.raw_path_qs):
            return FetchResult(ROBOTS_TXT, f"robots.txt of {origin} {refusal} it", reached=None)
        return FetchResult(detail=ROBOTS_CUT if found.cut else "")

    def wait(self, picture: PictureFetch) -> RobotsReading | None:
        """Lets a picture wait for the robots.txt of its origin; gives the reading if it is a new one, to be queued."""
        origin = str(picture.target.origin())
        known = self.readings.get(origin)
        reading = known or RobotsReading(origin, picture.target.origin().with_path("/robots.txt"))
        reading.waiting.append(picture)
        self.readings[origin] = reading
        return None if known else reading

    def end(self, reading: RobotsReading) -> list[PictureFetch]:
        """The pictures that waited, for which the reading is over, whatever came of it."""
        self.readings.pop(reading.origin, None)
        return reading.waiting

    async def read(self, reading: RobotsReading) -> FetchResult:
        """Makes one request. Without a reason the text is known now; `redirected` has to be asked for again elsewhere.

        A robots.txt that cannot be had speaks for its origin (RFC 9309): what went wrong with it is the answer to the
        addresses that waited, and may pass.
        """
        sink = _Text()
        answer = await fetch(self.session, reading.url, sink, self.limits, self.watch, ASK)
        if answer.reason == REDIRECTED and answer.location is not None:
            reading.url, reading.hops = answer.location, reading.hops + 1
            if reading.hops > MOST_REDIRECTS:
                answer.reason, answer.detail = "too_many_redirects", f"robots.txt: more than {MOST_REDIRECTS}"
            return answer
        refused = (answer.status or 0) // 100 == 4 and answer.reason.startswith("http_") and answer.status != 429
        if answer.reason and not refused and answer.reason not in ("empty", "too_large"):
            answer.detail = f"robots.txt: {answer.detail}"
            return answer
        text = "" if refused else decode_robots(bytes(sink.data))
        remember_robots(self.db, reading.origin, answer.status or 0, text)
        await self._learn(reading.origin, text)
        answer.reason = ""
        return answer

    def pass_over(self, reading: RobotsReading) -> None:
        """Takes a robots.txt that cannot be had for an empty one, for this run: it is only reported."""
        self._remember(reading.origin, Robots())

    async def _learn(self, origin: str, text: str) -> Robots:
        found = await asyncio.to_thread(parse_robots, text) if len(text) > LONG else parse_robots(text)
        self._remember(origin, found)
        return found

    def _remember(self, origin: str, found: Robots) -> None:
        before = self.known.pop(origin, None)
        self.rules += found.size - (before.size if before else 0)
        self.known[origin] = found
        while len(self.known) > MOST_ORIGINS or (self.rules > MOST_RULES and len(self.known) > 1):
            self.rules -= self.known.popitem(last=False)[1].size
