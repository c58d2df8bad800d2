"""Everything the seven steps share."""

from __future__ import annotations

import os
import sys

from lib.errors import EXIT_INTERRUPTED

TYPE_CHECKING = False  # as in `typing`, which takes too long to load for what has to be the first thing that happens
if TYPE_CHECKING:
    from types import TracebackType

__version__ = "0.1.0"

STEP_FILES = {
    "collect": "1_collect.py",
    "ingest": "2_ingest_db.py",
    "report": "3_domain_report.py",
    "cleanup": "4_db_cleanup.py",
    "download": "5_download.py",
    "dedup": "6_dedup.py",
    "sort": "7_sort_quality.py",
}

# Threads of OpenMP that wait for their next share of a network keep a core busy with asking whether it has come, and so
# take it from the workers that decode. Whoever has set it knows better. It has to be known before the first library
# of numbers is loaded; worker processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A Ctrl-C while modules are still being loaded is a sentence too: only `lib.cli.run` knows how to end better."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sentence = "stopped before anything was begun; run the same command again."
    file = os.path.basename(sys.argv[0])
    if "--json" in sys.argv and (step := next((step for step in STEP_FILES if STEP_FILES[step] == file), "")):
        dry_run = "true" if "--dry-run" in sys.argv or "-n" in sys.argv else "false"  # as lib.cli.output's envelope
        head = f'"step": "{step}", "run": null, "dry_run": {dry_run}, "exit_code": {EXIT_INTERRUPTED}, "counts": {{}}'
        sys.stdout.write(f'{{{head}, "result": {{"error": "{sentence}"}}}}\n')
        sys.stdout.flush()
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)  # Python would end itself by the signal, which tells a script something else


if sys.excepthook is sys.__excepthook__:  # a debugger's stays
    sys.excepthook = _end_quietly
