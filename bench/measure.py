"""Runs a command and says what it took: wall time, processor time and peak memory of it with all its workers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SAMPLING = 0.2  # seconds between two looks at the memory


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and processor time, and the largest sum of resident memory seen, in MB."""

    wall: float
    cpu: float
    megabytes: float
    output: str = ""


def measure(*command: object) -> Cost:
    """Runs a command to its end. Raises CalledProcessError, with what it said, when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    peak = [0.0]
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, ended), daemon=True)
    watcher.start()
    out, err = process.communicate()
    wall = time.perf_counter() - started
    ended.set()
    watcher.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, out, err[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(wall, cpu, peak[0], out)


def load() -> str:
    """How busy the machine is with other things, for the record."""
    return f"{os.getloadavg()[0]:.1f}"


def _watch(pid: int, peak: list[float], ended: threading.Event) -> None:
    while not ended.wait(SAMPLING):
        peak[0] = max(peak[0], sum(map(_resident, _family(pid))))


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return [pid]
    return [pid, *(found for child in children for found in _family(int(child)))]


def _resident(pid: int) -> float:
    """Resident memory without pages of shared files, MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1024
