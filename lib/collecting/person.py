"""A person at the browser's window: a captcha is left open for them, and the search goes on when it is gone.

Nothing here answers a captcha or looks at what it asks; the page is looked at now and then until it is another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from lib.collecting.pace import Interrupted, Pacer
from lib.engines.base import UPLOAD, Answer, Engine, FetchError

log = logging.getLogger("gleaner.collect")

LOOK_SECONDS = 1.0  # between two looks at the page
LOOKS = 2  # so many in a row have to be free of a captcha: on its way to another page, one is


class Window(Protocol):
    """A page that a person can see."""

    async def show(self, url: str) -> None: ...

    async def glance(self) -> Answer | None: ...


@dataclass
class Person:
    """Who answers an engine's captchas, for at most `limit` seconds each time. One page is shown at a time."""

    engine: Engine
    pacer: Pacer
    limit: float
    halted: Callable[[], bool]
    passed: int = 0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def help(self, window: Window, answer: Answer, address: str) -> bool:
        """Shows the captcha and waits until it is passed; False where it was not. Raises Interrupted."""
        before = self.passed
        async with self._one:
            # Another search of the same profile may have met it first: then we are known by now.
            if self.passed > before:
                return True
            try:
                await window.show(captcha_address(answer) or address)
                if not await self._is_gone(window):
                    return False
            except FetchError as error:
                log.warning("%s: the page of the captcha was closed (%s)", self.engine.name, error.reason)
                return False
            self.passed += 1
            log.info("%s: the captcha is passed, going on", self.engine.name)
            return True

    async def _is_gone(self, window: Window) -> bool:
        log.warning(
            "%s shows a captcha: please answer it in the browser's window; waiting for %g minutes at most",
            self.engine.name, self.limit / 60,
        )  # fmt: skip
        end, free = time.monotonic() + self.limit, 0
        while time.monotonic() < end:
            if self.halted():
                raise Interrupted
            self.pacer.hold(2 * LOOK_SECONDS)  # nobody else asks meanwhile
            await asyncio.sleep(LOOK_SECONDS)
            seen = await window.glance()
            if seen is not None:
                free = 0 if self.engine.classify(seen).outcome == "captcha" else free + 1
            if free >= LOOKS:
                return True
        log.warning("%s: nobody has answered the captcha in time", self.engine.name)
        return False


def captcha_address(answer: Answer) -> str:
    """Where the captcha can be seen: the answer itself where it is a page, or what its JSON names; else empty. Pure."""
    if answer.part == UPLOAD:
        return ""
    if answer.body.lstrip()[:1] == b"<":
        return answer.url
    try:
        named = urljoin(answer.url, json.loads(answer.body)["captcha"]["captcha-page"])
        here, there = urlsplit(answer.url), urlsplit(named)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return named if (here.scheme, here.netloc) == (there.scheme, there.netloc) else ""
