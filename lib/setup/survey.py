"""The table of `0_setup.py check`: each thing that the steps use, and whether it is on this machine. Writes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.db.connection import OLDEST_SQLITE
from lib.errors import GleanerError
from lib.setup.browser import browser_version, look
from lib.setup.demo import folder_size, human_size, workspace_lines
from lib.setup.environment import STATES, Environment, installed_packages, requirement_lines

GROUPS = {"core": "requirements-core.txt", "models": "requirements.txt", "dev": "requirements-dev.txt"}
REMEDIES = {"core": "python3 0_setup.py --core", "models": "python3 0_setup.py", "dev": "python3 0_setup.py test"}
KEYS = (
    "YANDEX_CLOUD_API_KEY", "YANDEX_CLOUD_FOLDER_ID", "NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET", "NAVER_HUB_KEY_ID",
    "NAVER_HUB_KEY", "OPENVERSE_CLIENT_ID", "OPENVERSE_CLIENT_SECRET", "GLEANER_CONTACT", "OPENAI_API_KEY",
    "OLLAMA_API_KEY", "HF_TOKEN",
)  # fmt: skip
WEIGHT_ENDINGS = {".bin", ".ckpt", ".mat", ".onnx", ".pkl", ".pt", ".pth", ".safetensors"}
# With less room than this the next step that writes pictures will soon stop.
LITTLE_ROOM = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """One line of the table; `needed` says whether the core steps cannot do without it."""

    subject: str
    good: bool
    detail: str
    needed: bool = False


def survey(environment: Environment, workspace: Path, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Every finding in the order of the table."""
    environ = os.environ if environ is None else environ
    yield Finding("Python", True, f"{sys.version.split()[0]} at {sys.executable}", True)
    recent = sqlite3.sqlite_version_info >= OLDEST_SQLITE
    yield Finding("SQLite", recent, sqlite3.sqlite_version + ("" if recent else ", and 3.37 is needed"), True)
    state = environment.state()
    yield Finding("environment", state == "ready", f"{environment.folder} is {STATES.get(state, state)}", True)
    for group, file in GROUPS.items():
        yield packages(environment, group, file, state == "ready")
    yield browser(environment)
    yield from weights(environ)
    for name in KEYS:
        yield Finding(name, bool(environ.get(name)), "set" if environ.get(name) else "not set")
    free = shutil.disk_usage(environment.root).free
    yield Finding("free disk", free >= LITTLE_ROOM, f"{human_size(free)} in {environment.root}")
    yield from contents(workspace)


def packages(environment: Environment, group: str, file: str, ready: bool) -> Finding:
    """One group of packages: how many of those asked for are there, which ones are not, and the versions."""
    subject, needed = f"{group} packages", group == "core"
    lines = requirement_lines(environment.root / file)
    if not ready:
        return Finding(subject, False, f"none of {len(lines)}; run `{REMEDIES[group]}`", needed)
    found = installed_packages(environment.python, lines)
    present = ", ".join(f"{package.name} {package.version}" for package in found if package.fits)
    lacking = [f"{package.name} ({package.version or 'missing'})" for package in found if not package.fits]
    if lacking:
        wanting = f"{len(found) - len(lacking)} of {len(found)}; run `{REMEDIES[group]}` for {', '.join(lacking)}"
        return Finding(subject, False, wanting + (f"; there: {present}" if present else ""), needed)
    return Finding(subject, True, f"{len(found)} of {len(found)}: {present}", needed)


def browser(environment: Environment) -> Finding:
    """The browser step 1 would start, with the version it gives."""
    try:
        choice = look(environment)
    except GleanerError as error:
        return Finding("browser", False, str(error), True)
    if choice is None:
        return Finding("browser", False, "none; run python3 0_setup.py, or install Chromium or Google Chrome", True)
    version = browser_version(choice.program)
    origins = {"environment": "GLEANER_BROWSER", "playwright": "Playwright's own", "system": "of the system"}
    detail = f"{version or 'does not start'} ({origins[choice.source]}, {choice.program})"
    return Finding("browser", version is not None, detail, True)


def weights(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The folders where models look for their weights, and what lies there. The core steps need none."""
    for subject, folder in weight_folders(environ).items():
        if folder is None:
            yield Finding(subject, False, "not set")
            continue
        names = weight_names(folder)
        if not names:
            yield Finding(subject, False, f"{folder}: {'no weights' if folder.is_dir() else 'no such folder'}")
            continue
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        yield Finding(subject, True, f"{folder}: {shown} ({human_size(folder_size(folder)[1])})")


def weight_folders(environ: Mapping[str, str]) -> dict[str, Path | None]:
    """Each place by the name of its variable; the defaults are those of torch and of the Hugging Face hub."""
    caches = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    models = environ.get("GLEANER_MODELS_DIR")
    hub = environ.get("HF_HUB_CACHE") or Path(environ.get("HF_HOME") or caches / "huggingface") / "hub"
    return {
        "GLEANER_MODELS_DIR": Path(models) if models else None,
        "TORCH_HOME": Path(environ.get("TORCH_HOME") or caches / "torch"),
        "HF_HUB_CACHE": Path(hub),
    }


def weight_names(folder: Path) -> list[str]:
    """Weight files by name, and repositories of a Hugging Face cache as owner/name."""
    if not folder.is_dir():
        return []
    hub = [path.name[len("models--") :].replace("--", "/") for path in folder.glob("models--*")]
    files = [
        path.name
        for path in folder.rglob("*")
        if path.suffix in WEIGHT_ENDINGS
        and path.is_file()
        and "/models--" not in f"/{path.relative_to(folder).as_posix()}"
    ]
    return sorted(hub) + sorted(files)


def contents(workspace: Path) -> Iterator[Finding]:
    """The workspace's content, one finding a folder; an absent one is no fault."""
    try:
        lines = workspace_lines(workspace)
    except GleanerError as error:
        yield Finding("workspace", False, str(error))
        return
    if not lines:
        yield Finding("workspace", False, f"{workspace} is not there yet; the first step makes it")
    else:
        yield Finding("workspace", True, str(workspace))
        yield from (Finding("", True, f"{name}  {detail}") for name, detail in lines[1:])
