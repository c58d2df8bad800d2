"""Step 5 from beginning to end: the preview, the run, its report and its undo. The script calls only this module."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.db import Context, Database, download_queue, journal
from lib.db.downloads import enqueue, forget_undone
from lib.download.options import DownloadOptions
from lib.download.picture import make_fetch
from lib.download.recovery import (
    clean_partials,
    clear_elsewhere,
    clear_sidecars,
    find_orphans,
    may_have_orphans,
    record_orphans,
    release_dead,
    remove_parts_folder,
)
from lib.download.report import DownloadReport, RunStats
from lib.download.superseded import FolderMoves, quarantine_superseded
from lib.download.targets import RemoteTarget, check_address, is_elsewhere, make_target
from lib.errors import UsageError
from lib.files.names import PARTS
from lib.journal import files
from lib.net.failures import FINAL, TRANSIENT, is_reason
from lib.net.request import host_of
from lib.text import did_you_mean
from lib.times import utc_now

PREVIEW_ROWS = 10_000  # rows that a dry run looks at to count hosts


@dataclass(frozen=True)
class DownloadPreview:
    """A dry run's answer: how many rows would be asked, at how many hosts, and the first addresses."""

    rows: int
    waiting: int
    hosts: int
    lines: tuple[str, ...]


def check_reasons(db: Database, reasons: Sequence[str] | None) -> None:
    """Raises UsageError for what is no reason at all: a typing error must not look like success.

    One that no row has failed with, or not any more, is nothing to do.
    """
    known = download_queue.failed_reasons(db)
    unknown = [reason for reason in reasons or () if reason not in known and not is_reason(reason)]
    if unknown:
        there = f"there are {', '.join(known)}" if known else "no row has failed"
        meant = did_you_mean(unknown[0], (*known, *TRANSIENT, *FINAL))
        raise UsageError(f"--retry-failed: no row failed with {', '.join(unknown)}; {there}.{meant}")


def plan(db: Database, options: DownloadOptions, most: int | None = None) -> DownloadPreview:
    """Tells what `download` would do with the same options; writes nothing."""
    check_address(options.to)
    download_queue.prepare(db)
    hosts: set[str] = set()
    lines: list[str] = []
    count = 0
    anew = options.again.retry is not None or options.again.lifted
    for recheck in options.sources:
        where = download_queue.due_where(options.again, recheck, options.scope)
        count += download_queue.count_preview(db, where)
        for row in download_queue.preview(db, where, PREVIEW_ROWS, recheck):
            # What is tried again starts with an empty log.
            fetch = make_fetch(replace(row, log="[]") if anew else row, options, utc_now())
            url = fetch.next_url()
            if url is not None:
                hosts.add(host_of(url))
            if most is None or len(lines) < most:
                why_not = "step 6 took it away as a repeat" if fetch.row.removed_before else "it has no usable address"
                where_to = f"{fetch.address.kind}  {fetch.address.url}" if url is not None else f"nothing: {why_not}"
                lines.append(f"would {recheck or 'fetch'}  {row.key}  {where_to}")
    rows = min(count, options.limit) if options.limit else count
    shown = lines[:rows]
    if most is not None and rows > most:
        shown = [*shown[:most], f"… and {rows - most:,} more (-v prints all)"]
    return DownloadPreview(rows, download_queue.count_pending(db, options.scope)[1], len(hosts), tuple(shown))


def download(context: Context, options: DownloadOptions) -> DownloadReport:
    """Fetches every row that is due. Raises OSError or GleanerError when the disk ends it, with rows left pending."""
    started = time.monotonic()
    db, workspace = context.db, context.workspace
    download_queue.prepare(db)
    release_dead(db)
    # A clean end leaves nothing, and looking at every file of a large workspace takes a while.
    cut_off = may_have_orphans(context)
    # What step 6 took away is not fetched again, and where step 7 put a file it is not missed.
    files.finish_others(context, ("dedup", "sort"))
    clean_partials(workspace.images / PARTS)
    remove_parts_folder(workspace)
    if cut_off:
        clear_elsewhere(make_target(workspace, options.to))
    if not options.again.kept:
        enqueue(db)
    check_address(options.to)
    if isinstance(target := make_target(workspace, options.to), RemoteTarget):
        target.probe()
    download_queue.make_due(db, options.again, options.scope)
    due = sum(download_queue.count_pending(db, options.scope, recheck)[0] for recheck in options.sources)
    report = DownloadReport(elsewhere=options.to if is_elsewhere(options.to) else "")
    orphans = find_orphans(db, workspace) if cut_off else {}
    if due:
        report.stats = _fetch(context, options, due, orphans)
    if cut_off and not context.stopping():
        record_orphans(db, workspace, orphans)
        clear_sidecars(db, workspace)
        remove_parts_folder(workspace)
    report.retired = 0 if context.stopping() else quarantine_superseded(context, options.to)
    report.held = _held(context)
    report.waiting, report.next_due = download_queue.count_pending(db, options.scope)[1], download_queue.next_due(db)
    report.seconds = time.monotonic() - started
    return report


def _held(context: Context) -> list[dict[str, Any]]:
    """The datasets of step 7 that hold pictures whose owners have opted out since."""
    return [
        {
            "path": held.place,
            "run": held.run_id,
            "pictures": len(held.contents),
            "there": (context.workspace.to_path(held.place) / journal.MANIFEST).is_file(),
            "sha256": sorted(held.contents),
        }
        for held in journal.datasets_with_opted_out(context.db)
    ]


def _fetch(context: Context, options: DownloadOptions, due: int, orphans: dict[str, list[Path]]) -> RunStats:
    """Runs the loop, here or in several processes."""
    context.workspace.images.mkdir(exist_ok=True)
    with context.bar(min(due, options.limit or due), "Downloading", "file") as progress:
        try:
            shares = options.divided(due)
            if len(shares) > 1:
                from lib.download.workers import run_workers

                return run_workers(context, shares, orphans, progress)
            from lib.download.loop import DownloadLoop

            return DownloadLoop(context, options, orphans=dict(orphans)).run(progress)
        finally:
            remove_parts_folder(context.workspace)


def undo(context: Context, reference: str, to: str = "") -> dict[str, int | float | str]:
    """Brings back what a run moved into the quarantine; the counts are those of `lib.journal.files.undo`.

    `to` is the address that files may have come from, as the command line has it.
    """
    db, workspace, dry_run = context.db, context.workspace, context.dry_run
    far = FolderMoves(db, workspace, to)
    if not dry_run and not download_queue.leases(db):
        far.finish_interrupted()
        files.finish_interrupted(context, "download", tidy=True)
    run_id = files.run_to_undo(db, "download", reference, context.run_id)
    if run_id is None:
        return {}
    counts = far.undo(run_id, dry_run=dry_run) + files.undo(context, run_id)
    if not dry_run:
        forget_undone(db, run_id)
    return dict(counts)
