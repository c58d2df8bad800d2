"""Finds the browser that step 1 drives, and starts it.

The order is: the path in `GLEANER_BROWSER`, Playwright's own Chromium if it has been downloaded, a Chromium,
Chrome or Edge of the system. Nothing is started or downloaded here; `lib/setup/browser.py` does that.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.errors import UsageError

VARIABLE = "GLEANER_BROWSER"
SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
# A headless launch takes the headless shell and a visible one the full browser; a download brings both.
OWN_FOLDERS = {"chromium": "chromium", "chromium-headless-shell": "chromium_headless_shell"}
OWN_COMPLETE = "INSTALLATION_COMPLETE"
OWN_PROGRAMS = ("headless_shell", "chrome-headless-shell", "headless_shell.exe", "chrome-headless-shell.exe")


@dataclass(frozen=True)
class BrowserChoice:
    """A browser that is on this machine; `source` is `environment`, `playwright` or `system`."""

    source: str
    program: Path

    @property
    def executable_path(self) -> Path | None:
        """The path for Playwright's `launch`: None lets it take its own browser."""
        return None if self.source == "playwright" else self.program


def find_browser(
    environ: Mapping[str, str] | None = None,
    system_paths: Sequence[Path] | None = None,
    driver: Path | None = None,
) -> BrowserChoice | None:
    """The browser to use, or None where there is none; UsageError if `GLEANER_BROWSER` names no program.

    `driver` is the folder of Playwright's own files, by default those this Python would import.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(VARIABLE, "").strip()
    if named:
        return BrowserChoice("environment", _named_program(named))
    own = own_browser(environ, driver)
    if own is not None:
        return BrowserChoice("playwright", own)
    for path in usual_paths(environ) if system_paths is None else system_paths:
        if _is_program(path) and not _is_snap_stub(path):
            return BrowserChoice("system", path)
    return None


def launch_arguments() -> list[str]:
    """Chromium's command line: quiet on the network, and sandboxed but for root on Linux, who cannot be."""
    arguments = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-quic",
        "--disable-sync",
        "--no-first-run",
    ]
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        arguments.append("--no-sandbox")
    return arguments


def own_browser(environ: Mapping[str, str], driver: Path | None = None) -> Path | None:
    """Playwright's downloaded Chromium, of the very revision that the installed Playwright wants."""
    package = driver or _playwright_driver()
    if package is None:
        return None
    try:
        listed = json.loads((package / "browsers.json").read_text(encoding="utf-8"))["browsers"]
        revisions = {entry["name"]: str(entry["revision"]) for entry in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    folders = []
    for name, folder in OWN_FOLDERS.items():
        path = _own_root(environ, package) / f"{folder}-{revisions.get(name)}"
        if not (path / OWN_COMPLETE).is_file():
            return None
        folders.append(path)
    return next((p for p in sorted(folders[-1].glob("*/*")) if p.name in OWN_PROGRAMS), None)


def usual_paths(environ: Mapping[str, str]) -> list[Path]:
    """The usual places of a system Chromium, Chrome or Edge, the likelier ones first; the paths need not exist."""
    if sys.platform == "darwin":
        applications = [Path("/Applications"), Path(environ.get("HOME", "/")) / "Applications"]
        names = ("Chromium", "Google Chrome", "Microsoft Edge")
        return [a / f"{name}.app" / "Contents" / "MacOS" / name for name in names for a in applications]
    if sys.platform == "win32":
        roots = [environ.get(name) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
        tails = (
            "Chromium/Application/chrome.exe",
            "Google/Chrome/Application/chrome.exe",
            "Microsoft/Edge/Application/msedge.exe",  # comes with Windows
        )
        return [Path(root) / tail for tail in tails for root in roots if root]
    found = [shutil.which(name, path=environ.get("PATH")) for name in SYSTEM_NAMES]
    return [Path(path) for path in found if path]


def _named_program(named: str) -> Path:
    path = Path(named).expanduser()
    if not _is_program(path):
        raise UsageError(
            f"{VARIABLE} is set to {named}, which is no program; give the path of a Chromium or Chrome, or unset it."
        )
    return path


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_snap_stub(path: Path) -> bool:
    """Ubuntu's `chromium-browser` package is a script that asks for a snap; it starts no browser itself."""
    try:
        with path.open("rb") as file:
            head = file.read(2048)
    except OSError:
        return False
    return head.startswith(b"#!") and b"requires the chromium snap" in head and not Path("/snap/bin/chromium").exists()


def _playwright_driver() -> Path | None:
    spec = importlib.util.find_spec("playwright")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "driver" / "package"


def _own_root(environ: Mapping[str, str], package: Path) -> Path:
    """The folder of Playwright's downloads, by the same rules as Playwright's."""
    placed = environ.get("PLAYWRIGHT_BROWSERS_PATH", "")
    if placed == "0":
        return package / ".local-browsers"
    if placed:
        return Path(placed)
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "ms-playwright"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "ms-playwright"
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "ms-playwright"
