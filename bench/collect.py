"""Step 1 under load: 100 queries of 10 pages against the offline gallery, in one browser with 4 contexts.

    python bench/collect.py
    python bench/collect.py --queries 20 --contexts 2

Prints one JSON object: pages a second, and the memory of the Python process and of the browser over time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = 10
PAGE_SIZE = 12
SAMPLE_SECONDS = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100, help="query pictures (default: 100)")
    parser.add_argument("--contexts", type=int, default=4, help="searches at once (default: 4)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "queries"
        make_queries(pictures, args.queries)
        gallery, url = start_gallery()
        try:
            print(json.dumps(measure(Path(folder) / "ws", pictures, url, args.contexts), indent=2))
        finally:
            gallery.terminate()
            gallery.wait(20)
    return 0


def make_queries(folder: Path, count: int) -> None:
    """Small pictures that all differ."""
    folder.mkdir()
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{seed:03d}.jpg")


def start_gallery() -> tuple[subprocess.Popen[str], str]:
    results = str(PAGES * PAGE_SIZE + PAGE_SIZE)  # so that the tenth page is not the last one
    command = [sys.executable, "-m", "demo", "--no-broken", "--page-size", str(PAGE_SIZE), "--results", results]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    assert process.stdout
    return process, json.loads(process.stdout.readline())["url"]


def measure(workspace: Path, pictures: Path, url: str, contexts: int) -> dict[str, Any]:
    """Runs the step and looks at its memory once a second."""
    command = [sys.executable, str(ROOT / "1_collect.py"), "--workspace", str(workspace), "--host", url, "--json"]
    command += ["--images", str(pictures), "--max-pages", str(PAGES), "--contexts", str(contexts)]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    own: list[float] = []
    below: list[float] = []
    while process.poll() is None:
        own.append(resident(process.pid))
        below.append(sum(proportional(pid) for pid in descendants(process.pid)))
        time.sleep(SAMPLE_SECONDS)
    elapsed = time.monotonic() - started
    assert process.stdout
    counts = json.loads(process.stdout.read())["counts"]
    own, below = own[1:-1], below[1:-1]  # the first and the last look may fall into the start and the end
    return {
        "exit_code": process.returncode,
        "counts": counts,
        "seconds": round(elapsed, 1),
        "pages_per_second": round(counts["pages"] / elapsed, 2),
        "python_mib": {"half": round(own[len(own) // 2], 1), "end": round(own[-1], 1), "most": round(max(own), 1)},
        "python_mib_by_tenth": tenths(own),
        "driver_and_browser_mib_by_tenth": tenths(below),
    }


def tenths(values: list[float]) -> list[float]:
    return [round(values[place * len(values) // 10], 1) for place in range(10)]


def resident(pid: int) -> float:
    """Memory that a process holds, in MiB; 0 where it is gone."""
    try:
        return (
            int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        )
    except (OSError, IndexError):
        return 0.0


def proportional(pid: int) -> float:
    """The same, with memory that processes share counted once in all; a browser's processes share most of theirs."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    lines = (line for line in text.splitlines() if line.startswith("Pss:"))
    return sum(int(line.split()[1]) for line in lines) / 1024


def descendants(pid: int) -> set[int]:
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found


if __name__ == "__main__":
    sys.exit(main())
