"""The end of a run of step 7: what is applied and written, and what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import actions
from lib.db import scores as store
from lib.reports_index import refresh_index
from lib.sort_options import subtitle
from lib.sort_output import as_table, csv_lines, write_report
from lib.sorting import Sorting

SHOWN_LEFT = 100_000  # pictures with reasons in a report's lists; metadata and the database hold everything


def finish(run: Sorting) -> str:
    """Applies the plan and writes the report; gives the note that says where the page is."""
    run.apply()
    page = write_report(
        run.db,
        run.workspace,
        run.criterion.name,
        rules=run.criterion.buckets(),
        subtitle=subtitle(run.args),
        unreadable=_told(run, "unreadable"),
        left_out=_told(run, "left_out"),
        workers=run.args.workers,
        extra=_extra(run),
    )
    if clusters := getattr(run.criterion, "clusters", ()):
        page = _clusters_page(run, clusters)
    refresh_index(run.workspace)
    return f"page: {page}"


def shown(run: Sorting, form: str) -> Iterator[str]:
    """The lines for stdout: the plan in a dry run, then the buckets; or the pictures as CSV or JSON."""
    if form == "csv":
        yield from (part.rstrip("\n") for part in csv_lines(_pictures(run)))
    elif form == "json":
        yield from _json_list(_pictures(run))
    else:
        if run.dry_run:
            yield from actions.describe(run.workspace, run.plan(), dry_run=True)
        yield from (f"leave  {path}  ({reason})" for path, reason, _ in run.files.told("unreadable"))
        yield from getattr(run.criterion, "notes", list)()
        yield as_table(run.buckets(), run.criterion.buckets())


def as_result(run: Sorting) -> dict[str, Any]:
    """What `--json` prints; the lists are iterators, since there may be a million entries."""
    return {
        "criterion": run.criterion.name,
        "dry_run": run.dry_run,
        "run": run.run_id or None,
        "buckets": dict(sorted(run.buckets().items())),
        "actions": ({"kind": a.kind, "source": a.source, "target": a.target, "reason": a.reason} for a in run.plan()),
        "unreadable": ({"path": path, "reason": reason} for path, reason, _ in run.files.told("unreadable")),
        "left_out": ({"path": path, "score": score} for path, _, score in run.files.told("left_out")),
        "summary": run.counts(),
    } | _extra(run)


def _clusters_page(run: Sorting, clusters: Any) -> Path:
    """`reports/sort_topic_clusters.html`: every cluster with the pictures nearest to its middle, best cluster first."""
    from lib.pages import Bucket, Heading, SheetItem, render_contact_sheet, write_page

    page = run.workspace.reports / f"sort_{run.criterion.name}_clusters.html"
    places = run.files.places([sha256 for cluster in clusters for sha256 in cluster.faces])
    buckets, items = [], []
    for cluster in clusters:
        mark = "kept" if cluster.kept else "left out"
        note = f"{mark}, score {cluster.score:+.2f}, {cluster.unique} unique, coherence {cluster.coherence:.2f}"
        buckets.append(Bucket(cluster.name, cluster.pictures, note))
        faces = [run.workspace.to_path(places[sha256]) for sha256 in cluster.faces if sha256 in places]
        items += [SheetItem(path, path.name, cluster.name, reason=note) for path in faces]
    heading = Heading("Clusters by query", subtitle(run.args), notes=list(run.criterion.said))  # type: ignore[attr-defined]
    html = render_contact_sheet(page, heading, buckets, items, workers=run.args.workers)
    return page if page.exists() and page.read_text("utf-8") == html else write_page(page, html)


def _told(run: Sorting, state: str) -> list[tuple[str, str, float | None]]:
    return [row for row, _ in zip(run.files.told(state), range(SHOWN_LEFT), strict=False)]


def _extra(run: Sorting) -> dict[str, Any]:
    """What a criterion has to say besides its labels (the topic's clusters)."""
    report = getattr(run.criterion, "report", None)
    return report() if report else {}


def _json_list(entries: Iterator[Any]) -> Iterator[str]:
    """The lines of a JSON array, an entry a line; each is known to be the last one only when there is no next."""
    waiting = next(entries, None)
    yield "["
    while waiting is not None:
        entry, waiting = waiting, next(entries, None)
        yield f" {json.dumps(entry, ensure_ascii=False)}{',' if waiting is not None else ''}"
    yield "]"


def _pictures(run: Sorting) -> Iterator[dict[str, Any]]:
    block = []
    for item in run.files.items("labelled"):
        block.append(item)
        if len(block) == 500:
            yield from _rows(run, block)
            block = []
    yield from _rows(run, block)


def _rows(run: Sorting, items: list[Any]) -> Iterator[dict[str, Any]]:
    sizes = store.known_sizes(run.db, [item.sha256 for item in items])
    for metric, _ in run.criterion.keys if run.dry_run else ():
        for sha256, (row, _) in run.files.kept(metric, [item.sha256 for item in items]).items():
            detail = row.detail
            sizes.setdefault(sha256, (detail["width"], detail["height"], detail["format"]))
    for item in items:
        width, height, form = sizes.get(item.sha256, (0, 0, ""))
        words = {"label": item.label, "score": item.score, "reason": item.reason}
        yield {"path": item.path, **words, "width": width, "height": height, "format": form, "sha256": item.sha256}
