"""Chromium through Playwright: one browser, a few contexts, and requests that end in an `Answer` or a `FetchError`.

The browser dies with this process, however that ends: Playwright's driver ends when its pipe closes, Chromium when
the driver's does, and neither listens to the terminal's Ctrl-C, so that a step can finish what is in flight.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from lib.browser_path import BrowserChoice, find_browser, launch_arguments
from lib.engines.base import PAGE, UPLOAD, Answer, FetchError, FilePart
from lib.errors import UsageError
from lib.proxy import Proxy

if TYPE_CHECKING:
    from playwright.async_api import APIResponse, Browser, BrowserContext, Page, Playwright, Route

log = logging.getLogger("gleaner.browser")
T = TypeVar("T")

BLOCKED_TYPES = frozenset({"font", "image", "media"})  # what no answer needs
PAGES_PER_CONTEXT = 100  # a context is replaced after so many requests, which bounds what its pages hoard
GRACE = 5.0  # seconds beyond Playwright's own time-out, for a renderer that does not answer at all
CLOSE_SECONDS = 10.0
PRESS_SECONDS = 10.0

# What Playwright's own requests, which are made outside the browser, call the common failures.
_NODE_WORDS = {
    "econnrefused": "connection_refused",
    "enotfound": "name_not_resolved",
    "econnreset": "connection_reset",
    "socket hang up": "connection_reset",
    "aborted": "connection_reset",
    "certificate": "certificate",
}

# Asks from within the page: same cookies, same connection, same headers as the site's own code.
_ASK = """async ([url, headers, limit]) => {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), limit);
  try {
    const answer = await fetch(url, {headers, credentials: "include", signal: stop.signal});
    const bytes = new Uint8Array(await answer.arrayBuffer());
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return {url: answer.url, status: answer.status, headers: Object.fromEntries(answer.headers), body: btoa(text)};
  } catch (error) {
    return {error: error.name === "AbortError" ? "timeout" : "connection_failed"};
  } finally {
    clearTimeout(timer);
  }
}"""


@dataclass(frozen=True)
class BrowserSettings:
    """How the browser is started; `timeout` is for one request, in seconds."""

    choice: BrowserChoice
    headed: bool = False
    proxy: Proxy | None = None
    timeout: float = 30.0


def require_browser(*, headed: bool) -> BrowserChoice:
    """The browser to use. Raises UsageError with one sentence where something is missing."""
    if importlib.util.find_spec("playwright") is None:
        raise UsageError("Playwright is not installed; run python3 0_setup.py, or pip install playwright.")
    choice = find_browser()
    if choice is None:
        raise UsageError("no Chromium was found; run python3 0_setup.py, or set GLEANER_BROWSER to its path.")
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if headed and sys.platform.startswith("linux") and not shown:
        raise UsageError("--headed needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY is set; leave it out.")
    return choice


class Chromium:
    """The browser; an async context manager. It is started by the first context that is asked for."""

    def __init__(self, settings: BrowserSettings):
        self.settings = settings
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Chromium:
        return self

    async def __aexit__(self, *_: object) -> None:
        for thing in (self._browser and self._browser.close(), self._playwright and self._playwright.stop()):
            if thing:
                with suppress(Exception):
                    await asyncio.wait_for(thing, CLOSE_SECONDS)

    async def context(self) -> BrowserContext:
        """A fresh context: no cookies, nothing blocked types would load. A crashed browser is started again."""
        async with self._starting:
            if self._browser is None or not self._browser.is_connected():
                self._browser = await self._start()
        context = await self._browser.new_context(service_workers="block")
        context.set_default_timeout(self.settings.timeout * 1000)
        await context.route("**/*", _let_pass)
        return context

    async def _start(self) -> Browser:
        from playwright.async_api import async_playwright

        if self._playwright is None:
            self._playwright = await async_playwright().start()
        settings = self.settings
        proxy: Any = None
        if settings.proxy:
            proxy = {"server": settings.proxy.server}
            if settings.proxy.username:
                proxy |= {"username": settings.proxy.username, "password": settings.proxy.password}
        return await self._playwright.chromium.launch(
            executable_path=settings.choice.executable_path,
            args=launch_arguments(),
            headless=not settings.headed,
            proxy=proxy,
            # Ctrl-C is for this program, which closes the browser when it is ready to.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )


class BrowserWeb:
    """A `lib.engines.base.Web` over one context with one page; an async context manager."""

    def __init__(self, chromium: Chromium):
        self._chromium = chromium
        self._timeout = chromium.settings.timeout
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._used = 0

    async def __aenter__(self) -> BrowserWeb:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.forget()

    async def forget(self) -> None:
        """Closes the context; the next request opens another."""
        context, self._context, self._page, self._used = self._context, None, None, 0
        if context:
            with suppress(Exception):
                await asyncio.wait_for(context.close(), CLOSE_SECONDS)

    async def recycle(self) -> None:
        """To be called between two queries: replaces a context that has served long enough."""
        if self._used >= PAGES_PER_CONTEXT:
            await self.forget()

    async def open(self, url: str) -> Answer:
        async def go() -> Answer:
            response = await (await self._ready_page()).goto(url, wait_until="domcontentloaded")
            if response is None:
                raise FetchError("no_document")
            return Answer(PAGE, response.url, response.status, await response.all_headers(), await response.body())

        return await self._bounded(go())

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> Answer:
        async def ask() -> Answer:
            page = await self._ready_page()
            if _origin(page.url) != _origin(url):
                assert self._context is not None
                return await _read(part, await self._context.request.get(url, headers=dict(headers)))
            found = await page.evaluate(_ASK, [url, dict(headers), self._timeout * 1000])
            if "error" in found:
                raise FetchError(found["error"])
            return Answer(part, found["url"], found["status"], found["headers"], base64.b64decode(found["body"]))

        return await self._bounded(ask())

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> Answer:
        async def send() -> Answer:
            await self._ready_page()
            assert self._context is not None
            given: dict[str, Any] = {"data": body}
            if form:
                file = {"name": form.name, "mimeType": form.mime, "buffer": form.content}
                given = {"multipart": {form.form_field: file}}
            return await _read(UPLOAD, await self._context.request.post(url, headers=dict(headers), **given))

        return await self._bounded(send())

    async def press(self, labels: Sequence[str]) -> Answer | None:
        async def find_and_press() -> Answer | None:
            page = await self._ready_page()
            pattern = re.compile("^\\s*(" + "|".join(map(re.escape, labels)) + ")\\s*$", re.IGNORECASE)
            button = page.get_by_role("button", name=pattern).first
            if not await button.count():
                return None
            async with page.expect_navigation(wait_until="domcontentloaded", timeout=PRESS_SECONDS * 1000) as going:
                await button.click(timeout=PRESS_SECONDS * 1000)
            response = await going.value
            if response is None:
                return None
            return Answer(PAGE, response.url, response.status, await response.all_headers(), await response.body())

        return await self._bounded(find_and_press())

    async def _ready_page(self) -> Page:
        if self._page is None or self._page.is_closed():
            await self.forget()
            self._context = await self._chromium.context()
            self._page = await self._context.new_page()
        self._used += 1
        return self._page

    async def _bounded(self, work: Awaitable[T]) -> T:
        """Every failure of the network or the browser as a FetchError; after a crash the context is replaced."""
        from playwright.async_api import Error
        from playwright.async_api import TimeoutError as Late

        try:
            return await asyncio.wait_for(work, self._timeout + GRACE)
        except Late:
            raise FetchError("timeout") from None
        except asyncio.TimeoutError:
            await self.forget()  # not even Playwright's own time-out came: the renderer is stuck
            raise FetchError("timeout") from None
        except Error as error:
            reason = _reason(error.message)
            log.debug("%s: %s", reason, error.message.partition("\n")[0])
            if reason == "browser_crashed":
                await self.forget()
            raise FetchError(reason) from None


async def _read(part: str, response: APIResponse) -> Answer:
    try:
        return Answer(part, response.url, response.status, response.headers, await response.body())
    finally:
        await response.dispose()


async def _let_pass(route: Route) -> None:
    # The page may be gone by the time the answer is ready; then there is nobody to tell.
    with suppress(Exception):
        if route.request.resource_type in BLOCKED_TYPES:
            await route.abort("blockedbyclient")
        else:
            await route.continue_()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _reason(message: str) -> str:
    """A short stable word from Playwright's message: `net::ERR_CONNECTION_REFUSED at …` is `connection_refused`."""
    lowered = message.lower()
    if any(word in lowered for word in ("crash", "has been closed", "connection closed", "disconnected")):
        return "browser_crashed"
    if "timeout" in lowered or "timed_out" in lowered or "etimedout" in lowered:
        return "timeout"
    if found := re.search(r"net::err_([a-z_]+)", lowered):
        return found[1]
    return next((reason for word, reason in _NODE_WORDS.items() if word in lowered), "connection_failed")
