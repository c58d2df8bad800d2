"""The end of a run of step 7: what is applied and written, and what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lib import actions
from lib.reports_index import refresh_index
from lib.sort_options import subtitle
from lib.sort_output import as_csv, as_table, write_report
from lib.sorting import Sorting


def finish(run: Sorting) -> str:
    """Applies the plan and writes the report; gives the note that says where the page is."""
    run.apply()
    page = write_report(
        run.db,
        run.workspace,
        run.criterion.name,
        rules=run.criterion.buckets(),
        subtitle=subtitle(run.args),
        unreadable=run.unreadable,
        left_out=run.left_out,
        workers=run.args.workers,
    )
    refresh_index(run.workspace)
    return f"page: {page}"


def shown(run: Sorting, form: str) -> Iterator[str]:
    """The lines for stdout: the plan in a dry run, then the buckets; or the pictures as CSV or JSON."""
    if form == "csv":
        yield as_csv(_pictures(run)).rstrip("\n")
    elif form == "json":
        yield json.dumps(_pictures(run), ensure_ascii=False, indent=1)
    else:
        if run.dry_run:
            yield from actions.describe(run.workspace, run.plan, dry_run=True)
        yield from (f"leave  {path}  ({reason})" for path, reason in sorted(run.unreadable.items()))
        yield as_table(run.buckets(), run.criterion.buckets())


def as_result(run: Sorting) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "criterion": run.criterion.name,
        "dry_run": run.dry_run,
        "run": run.run_id or None,
        "buckets": dict(sorted(run.buckets().items())),
        "actions": [{"kind": a.kind, "source": a.source, "target": a.target, "reason": a.reason} for a in run.plan],
        "unreadable": [{"path": path, "reason": reason} for path, reason in sorted(run.unreadable.items())],
        "left_out": [{"path": path, "score": score} for path, score in sorted(run.left_out.items())],
        "summary": run.counts(),
    }


def _pictures(run: Sorting) -> list[dict[str, Any]]:
    rows = []
    for item in run.items:
        if label := run.labels.get(item.sha256):
            measure = run.measures[item.sha256]
            size = {"width": measure.width, "height": measure.height, "format": measure.format}
            words = {"label": label.bucket, "score": label.score, "reason": label.reason}
            rows.append({"path": item.path, **words, **size, "sha256": item.sha256})
    return rows
