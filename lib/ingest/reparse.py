"""`--reparse`: rows that no answer yields any more leave the database, archived in the journal like a row of step 4.

A row may leave only where all answers that might have brought it have just been read: an address, a result or a whole
picture of searches whose every answer could be read. What came as a record (a list, another pipeline's database), what
is downloaded, and the address that it was downloaded from stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from lib.db import Context, Database
from lib.db import images as table
from lib.db.images import ReparseIndex, mark
from lib.db.responses import READABLE_OUTCOMES
from lib.journal import MISREAD
from lib.journal.rows import Change, RowPlan, apply_plan, plan_pictures
from lib.progress import chunked, no_bar

BLOCK = 500  # pictures in one transaction


@dataclass(frozen=True)
class _Read:
    """The answers that this run has read, and the marks of their rows as sorted int64 arrays, 8 bytes a row."""

    answers: set[int]
    addresses: np.ndarray
    results: np.ndarray


def remove_vanished(context: Context, index: ReparseIndex, queries: Sequence[int] | None = None) -> Counter[str]:
    """Takes out the rows that no answer yields any more; gives their number by table. A dry run only counts.

    Given `queries`, only the pictures of these searches are looked at.
    """
    db, counts = context.db, Counter[str]()
    addresses, results = (np.sort(np.frombuffer(marks, np.int64)) for marks in (index.addresses, index.results))
    read = _Read(index.answers, addresses, results)
    suspects = _suspects(db, read)
    if queries is not None:
        shown = table.pictures_of(db, queries)
        suspects = [number for number in suspects if number in shown]
    with context.bar(len(suspects), "Comparing", "picture") as progress:
        for block in chunked(suspects, BLOCK):
            with nullcontext() if context.dry_run else db.transaction():  # plan and application see the same rows
                plan = _plan(db, read, block)
                if not context.dry_run:
                    apply_plan(replace(context, bar=no_bar), plan)
            counts.update(change.table for change in plan.changes.values())
            progress.update(len(block))
            if context.stopping():
                break
    return counts


def _suspects(db: Database, read: _Read) -> list[int]:
    """The pictures with an address or a result that has not been read in this run."""
    found: set[int] = set()
    for addresses in table.iter_addresses(db):
        known = _among(read.addresses, [mark(*row) for row in addresses])
        found.update(row[0] for row, is_known in zip(addresses, known, strict=True) if not is_known)
    for results in table.iter_results(db):
        known = _among(read.results, [mark(*row) for row in results])
        found.update(row[1] for row, is_known in zip(results, known, strict=True) if not is_known)
    return sorted(found)


def _plan(db: Database, read: _Read, image_ids: Sequence[int]) -> RowPlan:
    """Plans what leaves of some pictures."""
    unsure = table.unsure_queries(db, read.answers, READABLE_OUTCOMES)
    free = table.without_file(db, image_ids)
    plan, leaving = RowPlan(), list[int]()
    for image_id in image_ids:
        stored = table.stored_rows(db, image_id)
        if not stored.results or any(answer is None or query in unsure for query, answer in stored.results):
            continue  # it came from elsewhere too, or from an answer that could not be read
        known = _among(read.results, [mark(query, image_id) for query, _ in stored.results])
        if not known.any():
            leaving += [image_id] if image_id in free else []  # one that has a file keeps its history
            continue
        for (query, _), is_known in zip(stored.results, known, strict=True):
            if not is_known and image_id in free:
                plan.add(Change("results", (query, image_id), MISREAD, "read_no_more"))
        known = _among(read.addresses, [mark(image_id, kind, url) for _, kind, url, _ in stored.addresses])
        for (number, _, url, won), is_known in zip(stored.addresses, known, strict=True):
            if not is_known and not won:
                plan.add(Change("image_variants", (number,), MISREAD, "read_no_more", url))
    plan_pictures(db, plan, MISREAD, leaving)
    return plan


def _among(marks: np.ndarray, asked: list[int]) -> np.ndarray:
    """Tells of each asked mark (int64) if it is among the sorted ones, as bool."""
    wanted = np.asarray(asked, np.int64)
    if not len(marks):
        return np.zeros(len(wanted), bool)
    places = np.minimum(np.searchsorted(marks, wanted), len(marks) - 1)
    return np.asarray(marks[places] == wanted)
