"""Measures step 2 on raw answers made for it, beside the access pattern of older pipelines on the same files.

    python bench/ingest.py
    python bench/ingest.py --results 100000
    python bench/ingest.py --folder /tmp/bench --keep      (a second call measures the same files)

Prints one line a measurement: results a second, processor seconds, peak memory. The order is: json.load alone, the
reference pattern, Gleaner, Gleaner again (nothing to do). Works in a temporary folder and removes it, unless told to
keep it for `bench/report.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import raw_answers
from measure import Cost, load, measure

ROOT = Path(__file__).parents[1]
JSON_ALONE = "import json, sys, pathlib\nfor f in pathlib.Path(sys.argv[1]).rglob('*.json'):\n    json.load(f.open())"


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", type=int, default=1_000_000, help="results to ingest (default: 1000000)")
    made.add_argument("--workers", type=int, default=2, help="worker processes of step 2 (default: 2)")
    made.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    made.add_argument("--keep", action="store_true", help="leave the workspace for other measurements")
    made.add_argument("--only-ours", action="store_true", help="leave the reference pattern out")
    args = made.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="gleaner-bench-"))
    try:
        run(folder, args)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def run(folder: Path, args: argparse.Namespace) -> None:
    raw, workspace = folder / "raw", folder / "workspace"
    if not (raw / "gleaner.db").exists():
        size = raw_answers.make_workspace(raw, args.results)
        print(f"{args.results // raw_answers.PAGE:,} raw answers, {size / 1e6:,.0f} MB", flush=True)
    print(f"{'':<26}{'wall':>8}{'results/s':>11}{'CPU':>9}{'memory':>9}{'load':>7}")
    rates = {}
    if not args.only_ours:
        show("json.load alone", measure("-c", JSON_ALONE, raw / "xhr"), args.results)
        reference = folder / "reference.db"
        reference.unlink(missing_ok=True)
        cost = measure(ROOT / "bench" / "reference_ingest.py", raw / "xhr", reference)
        rates["reference"] = show("reference pattern", cost, args.results)
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    shutil.copy(raw / "gleaner.db", workspace)
    shutil.copytree(raw / "xhr", workspace / "xhr", copy_function=os.link)  # a link in its place would be refused
    step = (ROOT / "2_ingest_db.py", "--workspace", workspace, "--workers", args.workers, "--json")
    cost = measure(*step)
    rates["ours"] = show("2_ingest_db.py", cost, args.results)
    counts = json.loads(cost.output)["counts"]
    assert counts["results"] >= 0.99 * args.results and not counts["failed"], counts
    show("2_ingest_db.py again", measure(*step), 0)
    if "reference" in rates:
        print(f"ours / reference: {rates['ours'] / rates['reference']:.2f}")
    size = sum(path.stat().st_size for path in workspace.glob("gleaner.db*"))
    print(f"database {size / 1e6:,.0f} MB; {json.dumps(counts)}")


def show(name: str, cost: Cost, results: int) -> float:
    rate = results / cost.wall
    shown = f"{rate:>11,.0f}" if results else " " * 11
    print(f"{name:<26}{cost.wall:>7.1f}s{shown}{cost.cpu:>8.1f}s{cost.megabytes:>6.0f} MB{load():>7}", flush=True)
    return rate


if __name__ == "__main__":
    sys.exit(main())
