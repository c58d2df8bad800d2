"""Packages of the operating system, where this process may install them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys

from lib.errors import GleanerError

log = logging.getLogger("gleaner.setup")

# A mirror that hangs must not hang the set-up; 15 minutes are ample for 150 MB.
APT_TIMEOUT_SECONDS = 900


def can_apt() -> bool:
    """Whether this is root on a Debian or Ubuntu."""
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
    command = ["apt-get", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=APT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return type(error).__name__
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return lines[0][2:].strip() if lines else f"exit code {done.returncode}"
