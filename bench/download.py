"""Step 5 beside img2dataset and aria2 on a loopback server, interleaved, and its memory under many rows.

    python bench/download.py                              # 20 KiB over http, tmpfs and disk
    python bench/download.py --https --sizes 20 --files 400
    python bench/download.py --memory

Peers are found on the PATH or by --img2dataset and --aria2c, and left out with a sentence when they are not there.
`bare` is what the machine allows: processes that receive, hash and write the same bodies from the same server.

Give --disk a file system on which nothing was deleted in the last minutes, such as a new one in a file:

    truncate -s 12G /var/tmp/disk && mkfs.ext4 -qF /var/tmp/disk && mount -o loop /var/tmp/disk /mnt

ext4 passes over the inodes of deleted files for up to five minutes, one by one, for every file that it creates: after
the removal of some thousand files a new one costs a millisecond instead of thirty microseconds, whoever makes it.

Rates are files a second without start-up; `job` is the whole command. The machine's other work shows in every figure:
compare the columns of one run, not two runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench._downloaders import ROOT, WORKERS, Job, Measured, aria2c, bare, fill, find, gleaner, img2dataset, timed

Tool = Callable[[Job], Measured]


def build_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--files", type=int, default=3000, help="files of one job (default: 3000)")
    made.add_argument("--rounds", type=int, default=5, help="rounds, each tool once in each (default: 5)")
    made.add_argument("--sizes", type=int, nargs="+", default=[20], metavar="KIB", help="body sizes (default: 20)")
    made.add_argument("--https", action="store_true", help="over TLS instead of plain http")
    made.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    made.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    made.add_argument("--only", choices=("tmpfs", "disk"), help="one of the two")
    made.add_argument("--img2dataset", metavar="PATH", help="its program")
    made.add_argument("--aria2c", metavar="PATH", help="its program")
    made.add_argument(
        "--calm",
        type=float,
        default=0.0,
        metavar="S",
        help="wait at most so many seconds for an idle machine each time",
    )
    made.add_argument("--memory", action="store_true", help="measure memory with 10^4 and 10^6 pending rows instead")
    return made


def main() -> None:
    args = build_parser().parse_args()
    with tempfile.TemporaryDirectory(dir=args.disk) as scratch, running_server(Path(scratch), args.https) as base:
        environment = {"SSL_CERT_FILE": f"{scratch}/trusted.pem"} if args.https else {}
        if args.memory:
            memory(Path(scratch), base)
            return
        tools = find_tools(args, base, Path(scratch), environment)
        places = [p for p in ("tmpfs", "disk") if args.only in (None, p)]
        for size in args.sizes:
            for place in places:
                compare(tools, f"{base}/{size}", args, getattr(args, place), environment, f"{size} KiB, {place}")


@contextlib.contextmanager
def running_server(scratch: Path, https: bool) -> Iterator[str]:
    """The server in a process of its own; gives its address."""
    command = [sys.executable, str(ROOT / "bench" / "_server.py")]
    if https:
        command += certificate(scratch)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        yield f"https://127.0.0.1:{ports[1]}" if https else f"http://127.0.0.1:{ports[0]}"
    finally:
        process.kill()
        process.wait()


def certificate(scratch: Path) -> list[str]:
    """A certificate for loopback, and a list of the system's authorities with it at the end, as real clients load."""
    import ssl

    cert, key = scratch / "cert.pem", scratch / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    system = ssl.get_default_verify_paths().cafile
    own = Path(system).read_text(encoding="utf-8") if system and os.path.exists(system) else ""
    (scratch / "trusted.pem").write_text(own + cert.read_text(encoding="utf-8"), encoding="utf-8")
    return ["--cert", str(cert), "--key", str(key)]


def find_tools(args: argparse.Namespace, base: str, scratch: Path, environment: dict[str, str]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {"gleaner": gleaner}
    if not args.https:
        tools["bare"] = bare
    if program := find("img2dataset", args.img2dataset):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:  # what it costs to start, so that it can be left out
            one = img2dataset(program, 0.0)(
                Job([f"{base}/20/{n}.jpg" for n in range(WORKERS)], Path(folder), environment)
            )
        tools["img2dataset"] = img2dataset(program, one.cpu)
    else:
        print("img2dataset is not installed: it is left out (pip install img2dataset==1.47.0 and --img2dataset PATH)")
    if program := find("aria2c", args.aria2c):
        tools["aria2c"] = aria2c(program)
    else:
        print("aria2c is not installed: it is left out (apt install aria2)")
    return tools


def compare(
    tools: dict[str, Tool], base: str, args: argparse.Namespace, place: Path, environment: dict[str, str], title: str
) -> None:
    """Runs every tool once a round, in turn, and prints medians and the ratios to the first tool."""
    found: dict[str, list[Measured]] = {name: [] for name in tools}
    with tempfile.TemporaryDirectory(dir=place) as kept:
        for number in range(args.rounds):
            urls = [f"{base}/{number * args.files + n}.jpg" for n in range(args.files)]
            for name in list(tools) if number % 2 == 0 else list(reversed(tools)):
                wait_for_calm(args.calm)
                os.sync()  # nobody writes out what another has left
                folder = Path(kept, f"{number}-{name}")
                folder.mkdir()
                found[name].append(tools[name](Job(urls, folder, environment)))
                if place == args.tmpfs:  # a disk keeps everything to the end, for the reason that stands above
                    shutil.rmtree(folder)
    scheme = "https" if args.https else "http"
    print(f"\n{title}, {scheme}, {args.files} files, medians of {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'':12} {'files/s':>9} {'job s':>8} {'CPU ms':>8} {'job CPU s':>10} {'files':>7} {'rate x':>8} {'job x':>7}"
    )
    for name, runs in found.items():
        rate, wall, cpu, whole, files = (
            statistics.median(values)
            for values in zip(*((m.rate, m.wall, m.cpu_ms, m.cpu, m.files) for m in runs), strict=True)
        )
        ours = found["gleaner"]
        faster = statistics.median(a.rate / b.rate for a, b in zip(ours, runs, strict=True))
        shorter = statistics.median(b.wall / a.wall for a, b in zip(ours, runs, strict=True))
        print(f"{name:12} {rate:9.0f} {wall:8.2f} {cpu:8.2f} {whole:10.1f} {files:7.0f} {faster:8.2f} {shorter:7.2f}")
    sys.stdout.flush()


def wait_for_calm(longest: float) -> None:
    """Waits until most of the processors are idle, as other work on the machine favours whoever has more threads."""
    end = time.monotonic() + longest
    while time.monotonic() < end:
        before = _jiffies()
        time.sleep(1)
        idle, total = (now - then for now, then in zip(_jiffies(), before, strict=True))
        if idle > 0.7 * total:
            return


def _jiffies() -> tuple[int, int]:
    """(idle, all) ticks of all processors since the machine started."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]]
    return ticks[3], sum(ticks)


def memory(scratch: Path, base: str) -> None:
    """Peak resident memory of a run over part of 10^4 and of 10^6 pending rows on thousands of hosts."""
    port = base.rpartition(":")[2]
    for size, rows, limit in ((20, 10_000, 10_000), (20, 1_000_000, 10_000), (300, 10_000, 2000)):
        workspace = scratch / f"rows{rows}_{size}"
        hosts = [f"127.{n % 250}.{n // 250 % 250}.{1 + n % 7}" for n in range(5000)]
        fill(workspace, [f"http://{hosts[n % 5000]}:{port}/{size}/{n}.jpg" for n in range(rows)])
        command = [
            *(sys.executable, "5_download.py", "--workspace", str(workspace), "--allow-private", "--json", "-q"),
            *("--limit", str(limit), "--robots", "ignore"),
        ]
        probe = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
            " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        wall, _, out = timed([sys.executable, "-c", probe, *command], {})
        megabytes = int(out) / 1024
        print(
            f"{rows:>9,} rows of {size} KiB, {limit:,} fetched: {megabytes:6.1f} MB at most, {wall:.1f} s", flush=True
        )
        shutil.rmtree(workspace)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    main()
