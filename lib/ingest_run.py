"""What a run of step 2 takes in: pending answers, files without rows, an import, everything again, what still comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from lib.db import Database
from lib.db import ingest as table
from lib.db.ingest import Answer
from lib.db.misread import Reread
from lib.imports import Source
from lib.ingest import Totals, ingest
from lib.plain_files import Unread
from lib.progress import BarFactory, no_bar
from lib.raw_files import Adopted, adopt, adopt_strays, find_strays, would_adopt
from lib.sentences import counted
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

LOOKS_EVERY = 1.0  # seconds between two looks for new answers
LOOKS_AGAIN = 0.1  # seconds after which a wish to stop is noticed


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    run_id: int
    source: Source | None = None
    rescan: bool = False
    retry_failed: bool = False
    reparse: bool = False
    limit: int | None = None
    workers: int = 1
    preview: bool = False
    stopping: Callable[[], bool] = lambda: False
    bar: BarFactory = no_bar


def ingest_answers(db: Database, workspace: Workspace, wanted: Wanted) -> Totals:
    """Reads all that is asked for, once."""
    unread = wanted.source.unread if wanted.source else Unread()
    answers, total = (_preview if wanted.preview else _take_in)(db, workspace, wanted, unread)
    if wanted.limit:
        answers, total = islice(answers, wanted.limit), min(wanted.limit, total)
    reread = Reread() if wanted.reparse else None
    totals = ingest(
        db, workspace, answers, total,
        workers=wanted.workers, preview=wanted.preview, reread=reread,
        stopping=wanted.stopping, bar=wanted.bar,
    )  # fmt: skip
    totals.reasons.update(unread.reasons)
    # Only where everything has been read can it be said of a row that nothing yields it.
    if reread is not None and not wanted.limit and not wanted.stopping():
        from lib.misread import withdraw

        totals.withdrawn = withdraw(
            db, wanted.run_id, reread, preview=wanted.preview, stopping=wanted.stopping, bar=wanted.bar
        )
    return totals


def counts_of(totals: Totals, *, files: bool, preview: bool) -> dict[str, int | float | str]:
    """What the step did, in the words of its summary; what does not apply is left out."""
    counts: dict[str, int | float | str] = {}
    if totals.answers or not totals.results:  # a list of addresses has no answers
        counts["files" if files else "answers"] = totals.answers
    counts["failed"] = totals.failed
    counts |= {f"failed_{reason}": count for reason, count in sorted(totals.reasons.items())}
    counts |= {"results": totals.results, "new_pictures": totals.saved.new, "known_pictures": totals.saved.known}
    if not preview:
        counts |= {"new_addresses": totals.saved.variants, "new_results": totals.saved.results}
    names = {"image_variants": "addresses", "images": "pictures"}
    return counts | {f"misread_{names.get(table, table)}": n for table, n in sorted(totals.withdrawn.items())}


def remark_on(totals: Totals, run_id: int) -> str:
    """What there is to say beside the counts; `run_id` is 0 for a preview."""
    if totals.withdrawn and run_id:
        return f"what is read no more comes back with: python 2_ingest_db.py --undo {run_id}"
    return "" if totals.answers or totals.results or totals.failed else "everything had been read before"


def watch(db: Database, workspace: Workspace, wanted: Wanted, idle: float) -> Totals:
    """Goes on reading as step 1 writes, until Ctrl-C, or until nothing new came for `idle` seconds (0: no end)."""
    totals = ingest_answers(db, workspace, wanted)
    last = time.monotonic()
    while not wanted.stopping() and not (idle and time.monotonic() - last > idle):
        if table.count_pending(db):
            totals.include(ingest(db, workspace, table.iter_pending(db), 0, stopping=wanted.stopping))
            last = time.monotonic()
            log.info("%s, %s so far", counted(totals.answers, "answer"), counted(totals.results, "result"))
        _rest(wanted.stopping)
    return totals


def _rest(stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + LOOKS_EVERY
    while time.monotonic() < until and not stopping():
        time.sleep(LOOKS_AGAIN)


def _take_in(db: Database, workspace: Workspace, wanted: Wanted, unread: Unread) -> tuple[Iterator[Answer], int]:
    """Gives rows to what has none yet; then everything that is pending."""
    if wanted.source:
        found = wanted.source.answers
        taken = adopt(db, workspace, found, len(found), wanted.run_id, unread, stopping=wanted.stopping, bar=wanted.bar)
        log.info("%s", _told(taken))
    if wanted.rescan:
        taken = adopt_strays(db, workspace, find_strays(db, workspace, unread), wanted.run_id, unread)
        log.info("%s without a row until now", counted(taken.new, "raw answer"))
    if wanted.retry_failed:
        table.retry_failed(db)
    if wanted.reparse:
        return table.iter_all(db), table.count_all(db)
    return table.iter_pending(db), table.count_pending(db)


def _told(taken: Adopted) -> str:
    known = f", {taken.known:,} known already" if taken.known else ""
    return f"{counted(taken.new, 'new raw answer')}{known}"


def _preview(db: Database, workspace: Workspace, wanted: Wanted, unread: Unread) -> tuple[Iterator[Answer], int]:
    """The same answers, without giving a row to anything."""
    found = list(wanted.source.answers if wanted.source else ())
    if wanted.rescan:
        found += find_strays(db, workspace, unread)
    if wanted.reparse:
        return chain(table.iter_all(db), would_adopt(db, found, unread)), table.count_all(db) + len(found)
    parts = [table.iter_pending(db), would_adopt(db, found, unread)]
    total = table.count_pending(db) + len(found)
    if wanted.retry_failed:
        parts.append(table.iter_failed(db))
        total += table.count_failed(db)
    return chain(*parts), total
