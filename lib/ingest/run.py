"""What a run of step 2 takes in: pending answers, files without rows, an import, everything again, what still comes.

What `--import PATH` was given, told by its content and said aloud.

Pictures that come as records and not as raw answers: the results of one imported query, named after their file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from lib.db import Database, responses
from lib.db.connection import bulk_mode
from lib.db.images import PictureRows, ReparseIndex, Saved, save_pictures
from lib.db.reference import MAGIC
from lib.db.responses import ResponseRow, ensure_query
from lib.errors import UsageError
from lib.files.pictures import UnreadableFiles
from lib.ingest.answers import IngestTotals, ingest, picture_rows, preview_rows
from lib.ingest.lists import LIST_ENGINE, list_format, list_records
from lib.ingest.raw_files import Adopted, RawFile, adopt_strays, find_answers, find_strays, register, would_adopt
from lib.ingest.reference import reference_records
from lib.progress import BarFactory, no_bar
from lib.records import ImageRecord, ParsedPage
from lib.text import counted, path_as_text
from lib.times import utc_now
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

LOOKS_EVERY = 1.0  # seconds between two looks for new answers
LOOKS_AGAIN = 0.1  # seconds after which a wish to stop is noticed

LAYOUTS = {
    "ours": "a folder of raw answers",
    "reference": "the reference pipeline's XHR folder",
    "single": "raw answers told by their content",
}

BATCH = 2_000


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    run_id: int
    source: ImportSource | None = None
    rescan: bool = False
    retry_failed: bool = False
    reparse: bool = False
    limit: int | None = None
    workers: int = 1
    preview: bool = False
    stopping: Callable[[], bool] = lambda: False
    bar: BarFactory = no_bar


def ingest_answers(db: Database, workspace: Workspace, wanted: Wanted) -> IngestTotals:
    """Reads all that is asked for, once."""
    unread = wanted.source.unread if wanted.source else UnreadableFiles()
    answers, total = (_preview if wanted.preview else _take_in)(db, workspace, wanted, unread)
    if wanted.limit:
        answers, total = islice(answers, wanted.limit), min(wanted.limit, total)
    reread = ReparseIndex() if wanted.reparse else None
    totals = ingest(
        db, workspace, answers, total,
        workers=wanted.workers, preview=wanted.preview, reread=reread,
        stopping=wanted.stopping, bar=wanted.bar,
    )  # fmt: skip
    totals.reasons.update(unread.reasons)
    # Only where everything has been read can it be said of a row that nothing yields it.
    if reread is not None and not wanted.limit and not wanted.stopping():
        from lib.ingest.reparse import remove_vanished

        totals.withdrawn = remove_vanished(
            db, wanted.run_id, reread, preview=wanted.preview, stopping=wanted.stopping, bar=wanted.bar
        )
    return totals


def counts_of(totals: IngestTotals, *, files: bool, preview: bool) -> dict[str, int | float | str]:
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


def remark_on(totals: IngestTotals, run_id: int) -> str:
    """What there is to say beside the counts; `run_id` is 0 for a preview."""
    if totals.withdrawn and run_id:
        return f"what is read no more comes back with: python 2_ingest_db.py --undo {run_id}"
    return "" if totals.answers or totals.results or totals.failed else "everything had been read before"


def watch(db: Database, workspace: Workspace, wanted: Wanted, idle: float) -> IngestTotals:
    """Goes on reading as step 1 writes, until Ctrl-C, or until nothing new came for `idle` seconds (0: no end)."""
    totals = ingest_answers(db, workspace, wanted)
    last = time.monotonic()
    while not wanted.stopping() and not (idle and time.monotonic() - last > idle):
        if responses.count_pending(db):
            totals.include(ingest(db, workspace, responses.iter_pending(db), 0, stopping=wanted.stopping))
            last = time.monotonic()
            log.info("%s, %s so far", counted(totals.answers, "answer"), counted(totals.results, "result"))
        _rest(wanted.stopping)
    return totals


def _rest(stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + LOOKS_EVERY
    while time.monotonic() < until and not stopping():
        time.sleep(LOOKS_AGAIN)


def _take_in(
    db: Database, workspace: Workspace, wanted: Wanted, unread: UnreadableFiles
) -> tuple[Iterator[ResponseRow], int]:
    """Gives rows to what has none yet; then everything that is pending."""
    if wanted.source:
        found = wanted.source.answers
        taken = register(
            db, workspace, found, len(found), wanted.run_id, unread, stopping=wanted.stopping, bar=wanted.bar
        )
        log.info("%s", _told(taken))
    if wanted.rescan:
        taken = adopt_strays(db, workspace, find_strays(db, workspace, unread), wanted.run_id, unread)
        log.info("%s without a row until now", counted(taken.new, "raw answer"))
    if wanted.retry_failed:
        responses.retry_failed(db)
    if wanted.reparse:
        return responses.iter_all(db), responses.count_all(db)
    return responses.iter_pending(db), responses.count_pending(db)


def _told(taken: Adopted) -> str:
    known = f", {taken.known:,} known already" if taken.known else ""
    return f"{counted(taken.new, 'new raw answer')}{known}"


def _preview(
    db: Database, workspace: Workspace, wanted: Wanted, unread: UnreadableFiles
) -> tuple[Iterator[ResponseRow], int]:
    """The same answers, without giving a row to anything."""
    found = list(wanted.source.answers if wanted.source else ())
    if wanted.rescan:
        found += find_strays(db, workspace, unread)
    if wanted.reparse:
        return chain(responses.iter_all(db), would_adopt(db, found, unread)), responses.count_all(db) + len(found)
    parts = [responses.iter_pending(db), would_adopt(db, found, unread)]
    total = responses.count_pending(db) + len(found)
    if wanted.retry_failed:
        parts.append(responses.iter_failed(db))
        total += responses.count_failed(db)
    return chain(*parts), total


@dataclass(frozen=True)
class ImportSource:
    """What a path holds: raw answers, which become rows of their own, or records of an `engine` as they are.

    `unread` tells what could not be looked at.
    """

    path: Path
    description: str
    answers: tuple[RawFile, ...] = ()
    engine: str = ""
    records: Callable[[], Iterator[ImageRecord]] | None = None
    unread: UnreadableFiles = field(default_factory=UnreadableFiles)


def recognise(path: Path) -> ImportSource:
    """Looks at what is there. Raises UsageError where it is nothing that can be imported."""
    if not path.exists():
        raise UsageError(f"--import: {path} does not exist; check the path.")
    if path.is_file() and (source := _recognise_file(path)):
        return source
    unread = UnreadableFiles()
    answers = tuple(find_answers(path, unread))
    if not answers:
        raise UsageError(
            f"--import: {path} holds neither raw answers nor a list of URLs nor a reference pipeline's database;"
            " give one of those. A folder of pictures is for --import-folder."
        )
    layouts = dict.fromkeys(LAYOUTS[entry.layout] for entry in answers)
    return ImportSource(path, f"{' and '.join(layouts)} ({counted(len(answers), 'file')})", answers, unread=unread)


def _recognise_file(path: Path) -> ImportSource | None:
    with path.open("rb") as handle:
        head = handle.read(len(MAGIC))
    if head == MAGIC:
        unread = UnreadableFiles()
        return ImportSource(
            path, "the reference pipeline's database", engine="yandex", unread=unread,
            records=lambda: reference_records(path, unread.reasons),
        )  # fmt: skip
    if kind := list_format(path):
        unread = UnreadableFiles()
        return ImportSource(
            path, f"a list of URLs ({kind})", engine=LIST_ENGINE, unread=unread,
            records=lambda: list_records(path, kind, unread.reasons),
        )  # fmt: skip
    return None


def save_records(
    db: Database,
    source: ImportSource,
    run_id: int,
    *,
    limit: int | None = None,
    preview: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> IngestTotals:
    """Writes the records of a source in batches; with `preview`, only counts what would be written."""
    assert source.records is not None
    totals, seen, number = IngestTotals(), set[str](), 0
    with bar(None, "Importing", "picture") as progress, bulk_mode(db) as log:
        for records in _batches(islice(source.records(), limit)):
            if not preview and not number:  # only now is the source known to be readable
                with db.transaction():
                    number = ensure_query(db, source.engine, "import", path_as_text(source.path.name), run_id=run_id)
            query = ResponseRow(0, number, source.engine, 0, "", str(source.path), "")
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
