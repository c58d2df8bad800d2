"""Getting a browser where none is there yet, in the order that disturbs the machine least."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from lib.errors import GleanerError
from lib.setup.environment import AS_TEXT, Environment, apt_install, can_apt
from lib.web.find_browser import BrowserChoice, find_browser

log = logging.getLogger("gleaner.setup")

FAILED_DOWNLOAD = "browser-download-failed"
# Without a network the attempt fails in two seconds; where packets vanish, each try waits this long.
CONNECTION_TIMEOUT_MS = 8000
DOWNLOAD_TIMEOUT_SECONDS = 420
# Chromium brings no fonts, and pages without any are boxes.
APT_PACKAGES = ["chromium", "fonts-liberation"]


def ensure_browser(environment: Environment, *, verbose: bool = False) -> BrowserChoice:
    """A browser that starts: found, downloaded or installed; GleanerError where none can be had."""
    system = look(environment)
    if system is not None and system.source != "system":
        return _that_starts(system)
    if download_own(environment, verbose=verbose, retry=system is None):
        own = look(environment)
        if own is not None and own.source == "playwright":
            # A bare machine lacks libraries that it needs; Playwright knows their Debian names.
            if browser_version(own.program) is None and can_apt():
                log.info("Installing the libraries that the browser needs")
                _playwright(environment, ["install-deps", "chromium"], verbose=False)
            return _that_starts(own)
    if system is None and can_apt():
        try:
            apt_install(APT_PACKAGES)
        except GleanerError as error:
            log.info("%s", error)
        system = look(environment)
    if system is None:
        raise GleanerError(
            "No browser is here and none could be downloaded; "
            "install Chromium or Google Chrome, or set GLEANER_BROWSER."
        )
    return _that_starts(system)


def look(environment: Environment) -> BrowserChoice | None:
    """`find_browser` with the environment's Playwright, which this Python knows nothing of."""
    return find_browser(driver=environment.site_packages / "playwright" / "driver" / "package")


def browser_version(program: Path) -> str | None:
    """The browser's own version line, or None where it does not start. Chrome on Windows cannot say it."""
    if sys.platform == "win32":
        return "version unknown"
    try:
        answer = subprocess.run([str(program), "--version"], capture_output=True, **AS_TEXT, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def download_own(environment: Environment, *, verbose: bool, retry: bool) -> bool:
    """`playwright install chromium`; a failure is noted, and not tried again where another browser does."""
    code = "from importlib.metadata import version; print(version('playwright'))"
    answer = subprocess.run([str(environment.python), "-c", code], capture_output=True, **AS_TEXT, check=True)
    noted = answer.stdout.strip()
    if not retry and environment.stamp().get(FAILED_DOWNLOAD) == noted:
        return False
    log.info("Downloading Playwright's Chromium")
    if _playwright(environment, ["install", "chromium"], verbose):
        return True
    environment.note(FAILED_DOWNLOAD, noted)
    log.info("It cannot be downloaded here; a browser of the system does as well.")
    return False


def _playwright(environment: Environment, arguments: list[str], verbose: bool) -> bool:
    """Runs Playwright's command quietly and for a bounded time; it has children, so its group is ended."""
    output = None if verbose else subprocess.DEVNULL
    child = subprocess.Popen(
        [str(environment.python), "-m", "playwright", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": str(CONNECTION_TIMEOUT_MS), **os.environ},
        start_new_session=True,
    )
    try:
        return child.wait(DOWNLOAD_TIMEOUT_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if child.poll() is None:
            _end_with_children(child.pid)
            child.wait()


def _end_with_children(pid: int) -> None:
    """Ends a process that leads a group of its own, and the processes that it has started."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/PID", str(pid), "/T", "/F"], capture_output=True, check=False)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _that_starts(choice: BrowserChoice) -> BrowserChoice:
    if browser_version(choice.program) is None:
        raise GleanerError(
            f"{choice.program} does not start; see `{choice.program} --version`, or set GLEANER_BROWSER to another one."
        )
    return choice
