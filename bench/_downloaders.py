"""The programs that `bench/download.py` compares, each as one function: fetch a list, say what it cost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
CONNECTIONS = 64


@dataclass(frozen=True)
class Measured:
    """One job: files that arrived, seconds and processor seconds of the whole job, and of the downloading alone."""

    files: int
    wall: float
    cpu: float
    steady_seconds: float
    steady_cpu: float

    @property
    def rate(self) -> float:
        """Files a second, start-up left out."""
        return self.files / max(self.steady_seconds, 1e-9)

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds a file, start-up left out."""
        return self.steady_cpu / max(self.files, 1) * 1000


@dataclass
class Job:
    """What is fetched, where to, and the environment that trusts the server's certificate."""

    urls: Sequence[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)


def timed(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """(seconds, processor seconds, standard output) of a command with all its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, cwd=ROOT)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def fill(workspace: Path, urls: Sequence[str]) -> None:
    """A workspace that knows one address a picture, as step 2 leaves it."""
    from lib.db import open_database
    from lib.times import utc_now

    workspace.mkdir(parents=True)
    now = utc_now()
    with open_database(workspace / "gleaner.db") as db, db.transaction():
        numbered = range(1, len(urls) + 1)
        db.executemany(
            "INSERT INTO images (id, key, engine, first_seen_at) VALUES (?, ?, 'bench', ?)",
            ((n, f"bench:{n:08d}", now) for n in numbered),
        )
        db.executemany(
            "INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'original', ?)",
            enumerate(urls, 1),
        )
        db.executemany("INSERT INTO downloads (image_id, updated_at) VALUES (?, ?)", ((n, now) for n in numbered))


def gleaner(job: Job, workers: int = WORKERS) -> Measured:
    """Step 5 with everything on: checks, sha256, database, robots.txt."""
    workspace = job.folder / "gleaner"
    fill(workspace, job.urls)
    count = str(CONNECTIONS)
    wall, cpu, out = timed(
        [
            *(sys.executable, "5_download.py", "--workspace", str(workspace), "--allow-private", "--json", "-q"),
            *("--workers", str(workers), "--concurrency", count, "--per-host", count, "--per-domain", count),
        ],
        job.environment,
    )
    found = json.loads(out)["result"]
    return Measured(found["states"].get("done", 0), wall, cpu, found["steady_seconds"], found["cpu_seconds"])


def bare(job: Job) -> Measured:
    """What the machine allows: four processes that receive, hash and write the same bodies, and do nothing else."""
    folder, processes = job.folder / "bare", 4
    folder.mkdir()
    _, _, address, size, name = job.urls[0].split("/")
    first, share = int(name.partition(".")[0]), -(-len(job.urls) // processes)
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [
        subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "bench" / "_bare.py"), address.rpartition(":")[2], size),
                *(str(first + at), str(min(share, len(job.urls) - at)), str(folder)),
            ],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for at in range(0, len(job.urls), share)
    ]
    found = [tuple(map(float, process.communicate()[0].split())) for process in running]
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Measured(len(job.urls), wall, cpu, max(seconds for seconds, _ in found), sum(used for _, used in found))


def img2dataset(program: str, startup_cpu: float) -> Callable[[Job], Measured]:
    """img2dataset on raw bytes: no resize, nothing decoded, sha256, two processes of 32 threads."""

    def run(job: Job) -> Measured:
        urls, out = job.folder / "urls.txt", job.folder / "img2dataset"
        urls.write_text("\n".join(job.urls), encoding="utf-8")
        wall, cpu, _ = timed(
            [
                *(program, "--url_list", str(urls), "--input_format", "txt", "--output_folder", str(out)),
                *("--output_format", "files", "--resize_mode", "no", "--disable_all_reencoding", "True"),
                *("--processes_count", str(WORKERS), "--thread_count", str(CONNECTIONS // WORKERS)),
                *("--number_sample_per_shard", str(max(1, -(-len(job.urls) // WORKERS)))),
                *("--compute_hash", "sha256", "--extract_exif", "False", "--timeout", "60", "--retries", "0"),
            ],
            {"NO_ALBUMENTATIONS_UPDATE": "1", **job.environment},
        )
        stats = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*_stats.json")]
        seconds = max(s["end_time"] for s in stats) - min(s["start_time"] for s in stats)
        return Measured(sum(s["successes"] for s in stats), wall, cpu, seconds, max(0.0, cpu - startup_cpu))

    return run


def aria2c(program: str) -> Callable[[Job], Measured]:
    """aria2 with the same number of connections; it neither hashes nor checks."""

    def run(job: Job) -> Measured:
        urls, out = job.folder / "aria.txt", job.folder / "aria2"
        urls.write_text("\n".join(job.urls), encoding="utf-8")
        trust = job.environment.get("SSL_CERT_FILE")
        wall, cpu, _ = timed(
            [
                *(program, "-q", "-d", str(out), "-i", str(urls), "-j", str(CONNECTIONS), "-x", "1"),
                *("--file-allocation=none", "--no-conf", *([f"--ca-certificate={trust}"] if trust else [])),
            ],
            {},
        )
        return Measured(sum(1 for _ in out.iterdir()), wall, cpu, wall, cpu)

    return run


def find(name: str, given: str | None) -> str | None:
    """The program that was named, or the one on the PATH."""
    if given:
        return given if os.access(given, os.X_OK) else None
    return shutil.which(name)
