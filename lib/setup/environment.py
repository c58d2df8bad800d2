"""The virtual environment in `.venv`: made, checked and filled from the requirements files.

A stamp remembers what is installed, so that a rerun is quick. Packages of the operating system are installed where
this process may do so.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import GleanerError

log = logging.getLogger("gleaner.setup")

STAMP = "gleaner-setup.json"
PIP_LOG = "gleaner-pip.log"
# A program's output as text: Windows has another encoding for it, and programs that write none.
AS_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}
# Measured: 0.95 GB without the models, and with them 7.5 GB on Linux, where torch 2.15 brings CUDA along.
MODELS_BYTES = 9_000_000_000 if sys.platform.startswith("linux") else 3_000_000_000
NEEDED_BYTES = {"requirements-core.txt": 1_200_000_000, "requirements.txt": MODELS_BYTES}
HEARTBEAT_SECONDS = 15
STATES = {"other python": "of another Python version"}  # in words, where the state is no word that people use

# Run by the environment's Python: what each requirement wants and what is there, read with pip's own parser.
PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
from pip._vendor.packaging.requirements import Requirement
answer = []
for line in json.load(sys.stdin):
    wanted = Requirement(line)
    if wanted.marker and not wanted.marker.evaluate():
        continue
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        found = None
    fits = found is not None and wanted.specifier.contains(found, prereleases=True)
    answer.append([wanted.name, found, fits])
print(json.dumps(answer))
"""

# A mirror that hangs must not hang the set-up; 15 minutes are ample for 150 MB.
APT_TIMEOUT_SECONDS = 900


class Environment:
    """One virtual environment and what is known to be installed in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"

    @property
    def python(self) -> Path:
        """The environment's interpreter, whether it exists or not."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def site_packages(self) -> Path:
        """The folder of its packages, whether it exists or not."""
        inside = "Lib" if os.name == "nt" else "lib/python{}.{}".format(*sys.version_info[:2])
        return self.folder / inside / "site-packages"

    def state(self) -> str:
        """`ready`, `missing`, `broken` or `other python`."""
        if not os.path.lexists(self.folder):
            return "missing"
        probe = "import sys, pip; print('%d.%d' % sys.version_info[:2], sys.prefix != sys.base_prefix)"
        try:
            answer = subprocess.run(
                [str(self.python), "-c", probe], capture_output=True, **AS_TEXT, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return "broken"
        if answer.stdout.split() == ["{}.{}".format(*sys.version_info[:2]), "True"]:
            return "ready"
        return "other python"

    def ensure(self) -> None:
        """Makes the environment, or makes it again if it is broken or belongs to another Python version."""
        if (state := self.state()) == "ready":
            return
        if state != "missing":
            log.info("The environment in %s is %s; it is made again.", self.folder, STATES.get(state, state))
            _remove(self.folder)
        _require_ensurepip()
        log.info("Making the environment in %s", self.folder)
        # The interpreter outside any environment: one is never made from another.
        python = getattr(sys, "_base_executable", None) or sys.executable
        made = subprocess.run([python, "-m", "venv", str(self.folder)], capture_output=True, **AS_TEXT, check=False)
        if made.returncode != 0 or self.state() != "ready":
            said = (made.stderr or made.stdout).strip()
            reason = said.splitlines()[-1].strip() if said else "no reason given"
            raise GleanerError(f"{sys.executable} could not make {self.folder} ({reason}); put that right and rerun.")

    def stamp(self) -> dict[str, Any]:
        """Returns the notes of the last finished installation; empty where there are none that can be read."""
        try:
            noted = json.loads((self.folder / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def note(self, key: str, value: Any) -> None:
        """Writes one entry of the stamp, whole or not at all."""
        entries = {**self.stamp(), key: value}
        temporary = self.folder / (STAMP + ".new")
        temporary.write_text(json.dumps(entries, indent=1, sort_keys=True), encoding="utf-8")
        temporary.replace(self.folder / STAMP)

    def installed(self, name: str) -> bool:
        """True where this very requirements file, as it now reads, was installed by this very Python."""
        path = self.root / name
        if not path.is_file() or self.stamp().get(name) != fingerprint(path):
            return False
        # Somebody may have removed a package by hand since; this look costs a fifth of a second.
        lines = [line for included in included_files(path) for line in requirement_lines(included)]
        return all(package.fits for package in installed_packages(self.python, lines))

    def install(self, name: str, *, verbose: bool = False) -> bool:
        """Installs one requirements file with pip unless the stamp says it is there; True if pip was run."""
        if self.installed(name):
            return False
        path = self.root / name
        if not path.is_file():
            raise GleanerError(f"{path} is missing; run `git checkout -- {name}`.")
        self._require_room(name)
        log.info("Installing %s", name)
        started = time.monotonic()
        self._pip(["install", "--no-input", "--progress-bar", "off", "-r", str(path)], name, verbose)
        for included in included_files(path):
            self.note(included.name, fingerprint(included))
        log.info("Installed %s in %.0f s", name, time.monotonic() - started)
        return True

    def _pip(self, arguments: list[str], name: str, verbose: bool) -> None:
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments]
        if verbose:
            if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
                raise GleanerError(f"pip could not install {name} (its reason is above); run the same command again.")
            return
        pip_log = self.folder / PIP_LOG
        if (tail := _run_with_heartbeat(command, pip_log)) is not None:
            raise GleanerError(
                f"pip could not install {name} ({pip_error(tail)}); see {pip_log}, then run the same command again."
            )

    def _require_room(self, name: str) -> None:
        # What the stamp knows to be installed needs no more room.
        needed = max(NEEDED_BYTES.get(path.name, 0) for path in included_files(self.root / name))
        needed -= sum(NEEDED_BYTES.get(known, 0) for known in self.stamp() if NEEDED_BYTES.get(known, 0) <= needed)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise GleanerError(
                f"{name} needs about {needed / 1e9:.0f} GB and {self.root} has {free / 1e9:.1f} GB free; "
                "make room and rerun."
            )


def pip_error(lines: list[str]) -> str:
    """The one line of pip's output that says what went wrong."""
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    chosen = errors[-1] if errors else next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return chosen.split(":", 1)[-1].strip().rstrip(".")[:300]


def _run_with_heartbeat(command: list[str], log_path: Path) -> list[str] | None:
    """Runs pip with its output in a file and a short line now and then; the tail if it failed, else None."""
    tail: deque[str] = deque(maxlen=40)
    started = said = time.monotonic()
    with log_path.open("w", encoding="utf-8") as file:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            **AS_TEXT,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            for line in child.stdout:
                file.write(line)
                tail.append(line.rstrip())
                now = time.monotonic()
                if now - said >= HEARTBEAT_SECONDS and not line.startswith(("WARNING", "Successfully")):
                    said = now
                    log.info("  %3.0f s  %s", now - started, line.strip()[:70])
        return list(tail) if child.returncode != 0 else None


def _remove(folder: Path) -> None:
    """Removes an old environment, and nothing that does not look like one."""
    if folder.is_symlink() or not folder.is_dir():
        raise GleanerError(f"{folder} is no folder; move it away and rerun.")
    if not (folder / "pyvenv.cfg").exists() and any(folder.iterdir()):
        raise GleanerError(f"{folder} holds something else than a virtual environment; move it away and rerun.")
    if Path(sys.prefix).resolve() == folder.resolve():
        raise GleanerError(f"{folder} is broken and its own Python is running this; rerun with the system's python3.")
    shutil.rmtree(folder)


def _require_ensurepip() -> None:
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    packages = ["python3-venv", "python{}.{}-venv".format(*sys.version_info[:2])]
    if can_apt():
        for package in packages:
            with contextlib.suppress(GleanerError):
                apt_install([package])
            importlib.invalidate_caches()
            if importlib.util.find_spec("ensurepip"):
                return
    raise GleanerError(
        f"This Python cannot make virtual environments; run `sudo apt-get install {' '.join(packages[:1])}`"
        f" (or {packages[1]}, or the like of your system) and rerun."
    )


@dataclass(frozen=True)
class Package:
    """One required package: its version where it is installed, and whether that is one of those allowed."""

    name: str
    version: str | None
    fits: bool


def included_files(path: Path) -> list[Path]:
    """The requirements file and those it includes with `-r`, each once, in the order of reading."""
    found = [path]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += included_files(path.parent / line[3:].split("#")[0].strip())
    return list(dict.fromkeys(found))


def fingerprint(path: Path) -> str:
    """A hash of a requirements file with its includes and of the running Python's version."""
    digest = hashlib.sha256(sys.version.encode())
    for included in included_files(path):
        digest.update(included.name.encode() + b"\0" + included.read_bytes())
    return digest.hexdigest()


def requirement_lines(path: Path) -> list[str]:
    """The requirements written in this very file, without comments and includes."""
    lines = (line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def installed_packages(python: Path, lines: list[str]) -> list[Package]:
    """The required packages as the interpreter has them; those for other Pythons do not count."""
    answer = subprocess.run(
        [str(python), "-c", PROBE], input=json.dumps(lines), capture_output=True, **AS_TEXT, check=True
    )
    return [Package(*entry) for entry in json.loads(answer.stdout)]


def can_apt() -> bool:
    """True for root on a Debian or Ubuntu."""
    return sys.platform.startswith("linux") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: list[str]) -> None:
    """`apt-get update` and `install`, without a question; GleanerError with apt's reason where it fails."""
    log.info("Installing %s with apt-get", " ".join(packages))
    # A failed update is no reason to stop: the lists may do, and install says what is wrong if not.
    _apt(["update", "-qq"])
    failed = _apt(["install", "-y", "-qq", "--no-install-recommends", *packages])
    if failed is not None:
        raise GleanerError(f"apt-get could not install {' '.join(packages)} ({failed}); install it by hand and rerun.")


def _apt(arguments: list[str]) -> str | None:
    """None where it worked, else the reason."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["apt-get", *arguments], stdin=subprocess.DEVNULL, capture_output=True, **AS_TEXT,
            env=environment, timeout=APT_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return type(error).__name__
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return lines[0][2:].strip() if lines else f"exit code {done.returncode}"


def run_child(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    out: int | None = None,
    alone: bool = False,
) -> int:
    """Runs a command to its end and gives its exit code. Ctrl-C reaches it too, and it ends in its own way.

    `out` is where its stdout goes. `alone`: in a group of its own, and each Ctrl-C is passed on once. A terminal sends
    Ctrl-C to the whole group; a command that gets it from here as well would stop at once. Windows knows no such
    groups, and sends it to both by itself.
    """
    alone = alone and os.name == "posix"
    sys.stdout.flush()
    child = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, start_new_session=alone
    )
    interrupted = False
    try:
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt:
                interrupted = True
                if alone:
                    child.send_signal(signal.SIGINT)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if interrupted:
        raise KeyboardInterrupt
    return child.returncode
