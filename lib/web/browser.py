"""An engine's way through the browser: one Chromium for a run, one page in a context of its own for each search.

Every request ends in a `PageResponse` or a `FetchError`. The browser dies with this process, however that ends:
Playwright's driver ends when its pipe closes, Chromium when the driver's does, and neither listens to the terminal's
Ctrl-C, so that a step can finish what is in flight.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from lib.engines.base import PAGE, UPLOAD, FetchError, FilePart, PageResponse
from lib.engines.parsing import LARGEST_BODY
from lib.errors import UsageError
from lib.net.guard import PRIVATE_ADDRESS, leads_inside, names_inside
from lib.web.direct import HARMLESS, KEEPS_METHOD, MOST_REDIRECTS, REDIRECTS, Proxy
from lib.web.find_browser import BrowserChoice, find_browser, launch_arguments

if TYPE_CHECKING:
    from playwright.async_api import APIResponse, Browser, BrowserContext, Page, Playwright, Response, Route

log = logging.getLogger("gleaner.browser")
T = TypeVar("T")

PAGES_PER_CONTEXT = 100  # a context is replaced after so many requests, which bounds what its pages hoard
GRACE = 5.0  # seconds beyond Playwright's own time-out, for a renderer that does not answer at all
PRESS_SECONDS = 10.0
CLOSE_SECONDS = 10.0
LAUNCH_SECONDS = 90.0  # a cold or busy machine needs most of a minute
OPEN_SECONDS = LAUNCH_SECONDS + 30.0  # until there is a page, the start of the browser included

BLOCKED_TYPES = frozenset({"font", "image", "media"})  # what no answer needs
BLOCKED_BESIDE_A_PERSON = frozenset({"media"})  # who has to see what a captcha shows

# Our words where the browser has others: it cannot be told why we refused a request.
_NET_WORDS = {"address_unreachable": PRIVATE_ADDRESS}
# Playwright's own requests are made outside the browser; these are its words for the common failures.
_NODE_WORDS = {
    "econnrefused": "connection_refused",
    "enotfound": "name_not_resolved",
    "econnreset": "connection_reset",
    "socket hang up": "connection_reset",
    "aborted": "connection_reset",
    "certificate": "certificate",
}

# Asks from within the page: same cookies, same connection, same headers as the site's own code.
_ASK = """async ([url, headers, limit, most]) => {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), limit);
  try {
    const answer = await fetch(url, {headers, credentials: "include", signal: stop.signal});
    let text = "";
    for (const reader = answer.body?.getReader(); reader; ) {
      const {done, value} = await reader.read();
      if (done) break;
      for (let i = 0; i < value.length; i += 32768) text += String.fromCharCode(...value.subarray(i, i + 32768));
      if (text.length > most) {
        stop.abort();
        return {error: "too_large"};
      }
    }
    return {url: answer.url, status: answer.status, headers: Object.fromEntries(answer.headers), body: btoa(text)};
  } catch (error) {
    return {error: error.name === "AbortError" ? "timeout" : "connection_failed"};
  } finally {
    clearTimeout(timer);
  }
}"""

_VALUE = """name => {
  try {
    return JSON.stringify(globalThis[name]) ?? "";
  } catch {
    return "";  // it leads back to itself
  }
}"""


class BrowserWeb:
    """A `lib.engines.base.Web` over one context with one page; an async context manager."""

    def __init__(self, chromium: Chromium):
        self._chromium = chromium
        self._timeout = chromium.settings.timeout
        self._page: Page | None = None
        self._used = 0

    async def __aenter__(self) -> BrowserWeb:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.forget()

    async def forget(self) -> None:
        """Closes the page and its context; the next request opens another."""
        page, self._page, self._used = self._page, None, 0
        if page:
            await self._chromium.close_page(page)

    async def recycle(self) -> None:
        """Replaces a context that has served long enough; to be called between two queries."""
        if self._used >= PAGES_PER_CONTEXT:
            await self.forget()

    async def open(self, url: str) -> PageResponse:
        self._chromium.expect(url)

        async def go(page: Page) -> PageResponse:
            response = await page.goto(url, wait_until="domcontentloaded")
            if response is None:
                raise FetchError("no_document")
            return await _as_page(response)

        return await self._bounded(go)

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> PageResponse:
        self._chromium.expect(url)

        async def ask(page: Page) -> PageResponse:
            if _origin(page.url) != _origin(url):
                return await self._beside(page, part, "GET", url, dict(headers))
            found = await page.evaluate(_ASK, [url, dict(headers), self._timeout * 1000, LARGEST_BODY])
            if "error" in found:
                raise FetchError(found["error"])
            return PageResponse(part, found["url"], found["status"], found["headers"], base64.b64decode(found["body"]))

        return await self._bounded(ask)

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> PageResponse:
        self._chromium.expect(url)

        async def send(page: Page) -> PageResponse:
            given: dict[str, Any] = {"data": body}
            if form:
                file = {"name": form.name, "mimeType": form.mime, "buffer": form.content}
                given = {"multipart": {form.form_field: file}}
            return await self._beside(page, UPLOAD, "POST", url, dict(headers), **given)

        return await self._bounded(send)

    async def _beside(
        self, page: Page, part: str, method: str, url: str, headers: dict[str, str], **given: Any
    ) -> PageResponse:
        """A request with the page's cookies that the page does not make. Its redirects are looked at one by one."""
        for _ in range(MOST_REDIRECTS + 1):
            response = await page.context.request.fetch(url, method=method, headers=headers, max_redirects=0, **given)
            target = response.headers.get("location", "")
            if response.status not in REDIRECTS or not target:
                return await _read(part, response)
            await response.dispose()
            following = urljoin(url, target)
            if not following.startswith(("http://", "https://")):
                raise FetchError("bad_redirect")
            if not await self._chromium.may_ask(following):
                raise FetchError(PRIVATE_ADDRESS, following[:200])
            if response.status not in KEEPS_METHOD:
                method, given = "GET", {}
            elif given and _origin(following) != _origin(url):
                raise FetchError("bad_redirect", "a body is not sent on to another host")
            if _origin(following) != _origin(url):
                headers = {name: value for name, value in headers.items() if name.lower() in HARMLESS}
            url = following
        raise FetchError("too_many_redirects")

    async def submit(self, labels: Sequence[str]) -> PageResponse | None:
        async def find_and_press(page: Page) -> PageResponse | None:
            pattern = re.compile("^\\s*(" + "|".join(map(re.escape, labels)) + ")\\s*$", re.IGNORECASE)
            button = page.get_by_role("button", name=pattern).first
            if not await button.count():
                return None
            async with page.expect_navigation(wait_until="domcontentloaded", timeout=PRESS_SECONDS * 1000) as going:
                await button.click(timeout=PRESS_SECONDS * 1000)
            response = await going.value
            return await _as_page(response) if response else None

        return await self._bounded(find_and_press)

    async def value(self, name: str) -> bytes:
        async def read(page: Page) -> bytes:
            return str(await page.evaluate(_VALUE, name)).encode("utf-8", "replace")

        return await self._bounded(read)

    async def show(self, url: str) -> None:
        """Opens a page for a person and brings its window to the front."""
        await self.open(url)
        if self._page:
            with suppress(Exception):
                await self._page.bring_to_front()

    async def screenshot_text(self) -> PageResponse | None:
        """The open page as it is at this moment, None while it is changing. Raises FetchError where it was closed."""
        page = self._page
        if page is None or page.is_closed():
            raise FetchError("window_closed")
        try:
            body = await asyncio.wait_for(page.content(), self._timeout)
        except Exception:  # on its way to another page, or busy; the next look will tell
            return None
        return PageResponse(PAGE, page.url, 200, {}, body.encode("utf-8", "replace"))

    async def _ready_page(self) -> Page:
        if self._page is None or self._page.is_closed():
            await self.forget()
            self._page = await asyncio.wait_for(self._chromium.open_page(), OPEN_SECONDS)
        self._used += 1
        return self._page

    async def _bounded(self, work: Callable[[Page], Awaitable[T]]) -> T:
        """Every failure of the network or the browser as a FetchError; after a crash the context is replaced.

        The limit for a request begins when there is a page: a busy machine may need longer to start the browser.
        """
        from playwright.async_api import Error
        from playwright.async_api import TimeoutError as Late

        try:
            page = await self._ready_page()
            return await asyncio.wait_for(work(page), self._timeout + GRACE)
        except Late:
            raise FetchError("timeout") from None
        except TimeoutError:
            await self.forget()  # not even Playwright's own time-out came: the renderer is stuck
            raise FetchError("timeout") from None
        except Error as error:
            reason = _reason(error.message)
            log.debug("%s: %s", reason, error.message.partition("\n")[0])
            # A page whose navigation was refused breaks off the next one when Chromium's page about it comes late.
            if reason in ("browser_crashed", PRIVATE_ADDRESS):
                await self.forget()
            raise FetchError(reason) from None


async def _as_page(response: Response) -> PageResponse:
    headers, body = await response.all_headers(), _bounded_body(await response.body())
    return PageResponse(PAGE, response.url, response.status, headers, body)


async def _read(part: str, response: APIResponse) -> PageResponse:
    try:
        return PageResponse(part, response.url, response.status, response.headers, _bounded_body(await response.body()))
    finally:
        await response.dispose()


def _bounded_body(body: bytes) -> bytes:
    if len(body) > LARGEST_BODY:
        raise FetchError("too_large", f"more than {LARGEST_BODY} bytes")
    return body


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
        return _NET_WORDS.get(found[1], found[1])
    return next((reason for word, reason in _NODE_WORDS.items() if word in lowered), "connection_failed")


@dataclass(frozen=True)
class BrowserSettings:
    """The browser and how it is started; `timeout` is for one request, in seconds.

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
        for opened in (self._shared, self._browser):
            if opened:
                await _soon(opened.close())
        if self._playwright:
            await _soon(self._playwright.stop())

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
        """True where an address that a page or a redirect names does not lead into a private network."""
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
        await _soon((page if page.context is self._shared else page.context).close())

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
        proxy = self.settings.proxy
        secret = {"username": proxy.username, "password": proxy.password} if proxy and proxy.username else {}
        return {
            "executable_path": self.settings.choice.executable_path,
            "args": launch_arguments(),
            "headless": not self.settings.headed,
            "timeout": LAUNCH_SECONDS * 1000,
            "proxy": {"server": proxy.server} | secret if proxy else None,
            # Ctrl-C is for this program, which closes the browser when it is ready to.
            **dict.fromkeys(("handle_sigint", "handle_sigterm", "handle_sighup"), False),
        }


async def _soon(closing: Awaitable[None]) -> None:
    """Waits for what is being closed, but not for ever; a failure is of no use to anybody by now."""
    with suppress(Exception):
        await asyncio.wait_for(closing, CLOSE_SECONDS)


async def _started(launch: Awaitable[T]) -> T:
    """Returns what a launch gives. Raises FetchError with the first line of what the browser said."""
    from playwright.async_api import Error

    try:
        return await launch
    except Error as error:
        said = error.message.strip().partition("\n")[0]
        log.warning("the browser could not be started: %s", said)
        raise FetchError("browser_not_started", said) from None
