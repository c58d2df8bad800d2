"""Pictures that come as records and not as raw answers: the results of one imported query, named after their file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from lib.db import Database
from lib.db.bulk import bulk_mode
from lib.db.images import PictureRows, Saved, save_pictures
from lib.db.ingest import Answer, ensure_query
from lib.imports import Source
from lib.ingest import Totals, preview_rows
from lib.picture_rows import picture_rows
from lib.progress import BarFactory, no_bar
from lib.records import ImageRecord, ParsedPage
from lib.text import path_as_text
from lib.times import utc_now

BATCH = 2_000


def save_records(
    db: Database,
    source: Source,
    run_id: int,
    *,
    limit: int | None = None,
    preview: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> Totals:
    """Writes the records of a source in batches; with `preview`, only counts what would be written."""
    assert source.records is not None
    totals, seen, number = Totals(), set[str](), 0
    with bar(None, "Importing", "picture") as progress, bulk_mode(db) as log:
        for records in _batches(islice(source.records(), limit)):
            if not preview and not number:  # only now is the source known to be readable
                with db.transaction():
                    number = ensure_query(db, source.engine, "import", path_as_text(source.path.name), run_id=run_id)
            query = Answer(0, number, source.engine, 0, "", str(source.path), "")
            rows = picture_rows(query, ParsedPage(tuple(records)), utc_now())
            totals.results += len(records)
            totals.add(preview_rows(db, rows, seen) if preview else _save(db, rows))
            log.committed()
            progress.update(len(records))
            if stopping():
                break
    totals.reasons.update(source.unread.reasons)
    return totals


def _save(db: Database, rows: PictureRows) -> Saved:
    with db.transaction():
        return save_pictures(db, rows, utc_now())


def _batches(records: Iterable[ImageRecord]) -> Iterator[list[ImageRecord]]:
    waiting = iter(records)
    while batch := list(islice(waiting, BATCH)):
        yield batch
