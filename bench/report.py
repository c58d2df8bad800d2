"""Measures the reports of step 3 and the plan of step 4 over the workspace that `bench/ingest.py --keep` has left.

    python bench/ingest.py --folder /tmp/bench --keep
    python bench/report.py /tmp/bench/workspace

Nothing is written: both are dry runs. Each is run twice and the better one counts: the first may read from the disk.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measure import load, measure

ROOT = Path(__file__).parents[1]
REPORTS = [["--by", by] for by in ("domain", "family", "host", "engine", "query", "licence", "format", "size")]
REPORTS.append(["--compare", "1", "2"])


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("workspace", type=Path, help="a workspace with an ingested database")
    args = made.parse_args()
    print(f"{'':<30}{'wall':>8}{'CPU':>9}{'memory':>9}{'load':>7}")
    jobs = [("3_domain_report.py", arguments) for arguments in REPORTS] + [("4_db_cleanup.py", [])]
    for step, arguments in jobs:
        command = (ROOT / step, "--dry-run", "--json", *arguments, "--workspace", args.workspace)
        best = min((measure(*command) for _ in range(2)), key=lambda cost: cost.wall)
        name = f"{step[:1]} {' '.join(arguments) or 'plan'}"
        print(f"{name:<30}{best.wall:>7.1f}s{best.cpu:>8.1f}s{best.megabytes:>6.0f} MB{load():>7}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
