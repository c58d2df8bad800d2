"""One Chromium for a run: how it is found, started, shared by a few contexts, and closed.

The browser dies with this process, however that ends: Playwright's driver ends when its pipe closes, Chromium when
the driver's does, and neither listens to the terminal's Ctrl-C, so that a step can finish what is in flight.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from lib.browser_path import BrowserChoice, find_browser, launch_arguments
from lib.engines.base import FetchError
from lib.errors import UsageError
from lib.net.inside import leads_inside, names_inside
from lib.proxy import Proxy

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Playwright, Route

log = logging.getLogger("gleaner.browser")
T = TypeVar("T")

BLOCKED_TYPES = frozenset({"font", "image", "media"})  # what no answer needs
BLOCKED_BESIDE_A_PERSON = frozenset({"media"})  # who has to see what a captcha shows
CLOSE_SECONDS = 10.0
LAUNCH_SECONDS = 90.0  # a cold or busy machine needs most of a minute


@dataclass(frozen=True)
class BrowserSettings:
    """How the browser is started; `timeout` is for one request, in seconds.

    With `profile` all pages share that folder's cookies, which outlive the run, and a person can see all of a page.
    """

    choice: BrowserChoice
    headed: bool = False
    proxy: Proxy | None = None
    timeout: float = 30.0
    profile: Path | None = None


def require_browser(*, headed: bool) -> BrowserChoice:
    """The browser to use. Raises UsageError with one sentence where something is missing."""
    if importlib.util.find_spec("playwright") is None:
        raise UsageError("Playwright is not installed; run python3 0_setup.py, or pip install playwright.")
    choice = find_browser()
    if choice is None:
        raise UsageError(
            "no Chromium was found; run python3 0_setup.py, set GLEANER_BROWSER to its path, or choose an "
            "--engine that needs none, such as openverse or commons."
        )
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if headed and sys.platform.startswith("linux") and not shown:
        raise UsageError("--headed needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY is set; leave it out.")
    return choice


class Chromium:
    """The browser; an async context manager. It is started by the first page that is asked for."""

    def __init__(self, settings: BrowserSettings):
        self.settings = settings
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._shared: BrowserContext | None = None  # the context of the profile, where there is one
        self._starting = asyncio.Lock()
        self._asked: set[str] = set()  # hosts that engines asked on purpose
        self._private: dict[str, bool] = {}  # what was found out about others

    async def __aenter__(self) -> Chromium:
        return self

    async def __aexit__(self, *_: object) -> None:
        for thing in (self._shared, self._browser):
            if thing:
                with suppress(Exception):
                    await asyncio.wait_for(thing.close(), CLOSE_SECONDS)
        if self._playwright:
            with suppress(Exception):
                await asyncio.wait_for(self._playwright.stop(), CLOSE_SECONDS)

    async def open_page(self) -> Page:
        """A page in a fresh context without cookies, or in the profile. A crashed browser is started again."""
        async with self._starting:
            context = await (self._profile_context() if self.settings.profile else self._fresh_context())
        page = await context.new_page()
        await self._guard(page)
        return page

    def expect(self, url: str) -> None:
        """Notes that a host is asked on purpose: it may stand in a private network, as the demo's does."""
        self._asked.add(urlsplit(url).hostname or "")

    async def may_ask(self, url: str) -> bool:
        """Whether an address that a page or a redirect names may be asked: it does not lead into a private network."""
        host = urlsplit(url).hostname or ""
        if not host or host in self._asked:
            return True
        if host not in self._private:  # a proxy looks names up itself, and where it stands they may mean other places
            self._private[host] = names_inside(host) if self.settings.proxy else await leads_inside(host)
        return not self._private[host]

    async def _guard(self, page: Page) -> None:
        """Looks at every request of a page, also at those that redirects lead to: a `route` does not see them."""
        session = await page.context.new_cdp_session(page)

        async def judge(event: dict[str, Any]) -> None:
            allowed = await self.may_ask(event["request"]["url"])
            with suppress(Exception):  # the page may be gone by now
                if allowed:
                    await session.send("Fetch.continueRequest", {"requestId": event["requestId"]})
                else:
                    log.warning("a page asked for the private address %s; refused", event["request"]["url"][:200])
                    refusal = {"requestId": event["requestId"], "errorReason": "AddressUnreachable"}
                    await session.send("Fetch.failRequest", refusal)

        session.on("Fetch.requestPaused", judge)
        await session.send("Fetch.enable", {"patterns": [{"urlPattern": "*", "requestStage": "Request"}]})

    async def close_page(self, page: Page) -> None:
        """Closes the page, and its context where that is its own."""
        with suppress(Exception):
            thing = page if page.context is self._shared else page.context
            await asyncio.wait_for(thing.close(), CLOSE_SECONDS)

    async def _fresh_context(self) -> BrowserContext:
        if self._browser is None or not self._browser.is_connected():
            driver = await self._driver()
            self._browser = await _started(driver.chromium.launch(**self._launch_options()))
        return await self._prepared(await self._browser.new_context(service_workers="block"))

    async def _profile_context(self) -> BrowserContext:
        if self._shared is None:
            folder = self.settings.profile
            assert folder is not None
            folder.mkdir(parents=True, exist_ok=True)
            launch = (await self._driver()).chromium.launch_persistent_context
            context = await _started(launch(folder, service_workers="block", **self._launch_options()))
            context.on("close", lambda _: self._forget_shared(context))
            self._shared = await self._prepared(context)
        return self._shared

    def _forget_shared(self, context: BrowserContext) -> None:
        if self._shared is context:
            self._shared = None

    async def _prepared(self, context: BrowserContext) -> BrowserContext:
        context.set_default_timeout(self.settings.timeout * 1000)
        blocked = BLOCKED_BESIDE_A_PERSON if self.settings.profile else BLOCKED_TYPES

        async def let_pass(route: Route) -> None:
            # The page may be gone by the time the answer is ready; then there is nobody to tell.
            with suppress(Exception):
                if route.request.resource_type in blocked or not await self.may_ask(route.request.url):
                    await route.abort("blockedbyclient")
                else:
                    await route.continue_()

        await context.route("**/*", let_pass)
        return context

    async def _driver(self) -> Playwright:
        from playwright.async_api import async_playwright

        if self._playwright is None:
            self._playwright = await async_playwright().start()
        return self._playwright

    def _launch_options(self) -> dict[str, Any]:
        settings = self.settings
        proxy: Any = None
        if settings.proxy:
            proxy = {"server": settings.proxy.server}
            if settings.proxy.username:
                proxy |= {"username": settings.proxy.username, "password": settings.proxy.password}
        return {
            "executable_path": settings.choice.executable_path,
            "args": launch_arguments(),
            "headless": not settings.headed,
            "timeout": LAUNCH_SECONDS * 1000,
            "proxy": proxy,
            # Ctrl-C is for this program, which closes the browser when it is ready to.
            "handle_sigint": False,
            "handle_sigterm": False,
            "handle_sighup": False,
        }


async def _started(launch: Awaitable[T]) -> T:
    """What a launch gives. Raises FetchError with the first line of what the browser said."""
    from playwright.async_api import Error

    try:
        return await launch
    except Error as error:
        said = error.message.strip().partition("\n")[0]
        log.warning("the browser could not be started: %s", said)
        raise FetchError("browser_not_started", said) from None
