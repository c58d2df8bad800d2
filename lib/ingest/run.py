"""Step 2 from top to bottom: takes in pending answers, files without rows, or what `--import` names.

Raw answers get rows of their own first and are then parsed. What comes as records (a list of addresses, another
pipeline's database) becomes pictures at once, as the results of one imported query named after its file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from lib.db import Context, responses
from lib.db.connection import bulk_mode
from lib.db.history import note_inputs
from lib.db.images import ReparseIndex, save_pictures
from lib.db.journal import has_rows
from lib.db.responses import ResponseRow, ensure_query
from lib.engines import parser_names
from lib.errors import UsageError
from lib.files.pictures import UnreadableFiles, sha256_of
from lib.ingest.answers import IngestTotals, ingest, picture_rows, preview_rows
from lib.ingest.options import IngestOptions
from lib.ingest.raw_files import (
    RawFile,
    register,
    register_in_place,
    unregistered,
    would_register,
)
from lib.ingest.sources import ImportSource, describe, recognise
from lib.progress import ALWAYS, chunked, no_bar
from lib.records import ImageRecord, ParsedPage
from lib.text import counted, path_as_text
from lib.times import utc_now

log = logging.getLogger("gleaner")

LOOKS_EVERY = 1.0  # seconds between two looks for new answers
LOOKS_AGAIN = 0.1  # seconds after which a request to stop is noticed
BATCH = 2_000  # records in one transaction


def take_in(context: Context, options: IngestOptions) -> IngestTotals:
    """Takes in all that is asked for. Raises UsageError where there is nothing that could be."""
    if options.folder:
        from lib.ingest.folders import import_folder

        return import_folder(context, options.folder, options.limit, options.encoding or "")
    sources = recognise(options.source, options.encoding or "", options.url_column or "")
    if not sources and not options.rescan and options.watch is None and not has_rows(context.db, "responses"):
        raise UsageError("the database holds no raw answer yet; run 1_collect.py first.")
    for sentence in describe(sources):
        log.info("%s", sentence)
    lists = [source for source in sources if source.records]
    totals = save_records(context, lists, options.limit) if lists else IngestTotals()
    if len(lists) < len(sources) or not sources:
        answers = [source for source in sources if not source.records]
        totals.include(ingest_answers(context, options, answers))
    if options.watch is not None:
        _watch(context, options.watch, totals)
    return totals


def ingest_answers(context: Context, options: IngestOptions, sources: Sequence[ImportSource]) -> IngestTotals:
    """Reads all raw answers that are asked for, once."""
    unread = UnreadableFiles()
    for source in sources:
        unread.reasons.update(source.unread.reasons)
    found = tuple(chain.from_iterable(source.answers for source in sources))
    renewed = IngestTotals() if options.reparse or options.limit else _renew(context, options)
    answers, total = (_preview if context.dry_run else _registered)(context, options, found, unread)
    if options.limit:
        answers, total = islice(answers, options.limit), min(options.limit, total)
    index = ReparseIndex() if options.reparse else None
    totals = ingest(context, answers, total, workers=options.workers, reparse=index)
    totals.reasons.update(unread.reasons)
    # Only where everything has been read can it be said of a row that nothing yields it.
    if index is not None and not options.limit and not context.stopping():
        from lib.ingest.reparse import remove_vanished

        totals.vanished = remove_vanished(context, index)
    totals.include(renewed)
    return totals


def _renew(context: Context, options: IngestOptions) -> IngestTotals:
    """Reads anew the answers of every search that an older parser has read, and takes out what only it had read."""
    db = context.db
    queries = responses.outdated_queries(db, parser_names())
    if not queries:
        return IngestTotals()
    from lib.ingest.reparse import remove_vanished

    total = responses.count_of_queries(db, queries)
    log.info("%s read by an older version: read again", counted(total, "raw answer"))
    index = ReparseIndex()
    answers = responses.iter_of_queries(db, queries)
    totals = ingest(context, answers, total, workers=options.workers, reparse=index)
    totals.renewed = totals.answers
    if not context.stopping():
        totals.vanished = remove_vanished(context, index, queries)
    return totals


def _registered(
    context: Context, options: IngestOptions, found: tuple[RawFile, ...], unread: UnreadableFiles
) -> tuple[Iterator[ResponseRow], int]:
    """Gives rows to what has none yet; then everything that is pending."""
    db = context.db
    if found:
        new, known = register(context, found, unread)
        log.info("%s%s", counted(new, "new raw answer"), f", {known:,} known already" if known else "")
    if options.rescan:
        new = register_in_place(context, unregistered(db, context.workspace, unread), unread)
        log.info("%s without a row until now", counted(new, "raw answer"))
    if options.retry_failed:
        responses.retry_failed(db)
    if options.reparse:
        return responses.iter_all(db), responses.count_all(db)
    return responses.iter_pending(db), responses.count_pending(db)


def _preview(
    context: Context, options: IngestOptions, found: tuple[RawFile, ...], unread: UnreadableFiles
) -> tuple[Iterator[ResponseRow], int]:
    """The same answers, without giving a row to anything."""
    db = context.db
    files = [*found, *(unregistered(db, context.workspace, unread) if options.rescan else ())]
    new = would_register(db, files, unread)
    if options.reparse:
        return chain(responses.iter_all(db), new), responses.count_all(db) + len(files)
    parts, total = [responses.iter_pending(db), new], responses.count_pending(db) + len(files)
    if options.retry_failed:
        parts.append(responses.iter_failed(db))
        total += responses.count_failed(db)
    return chain(*parts), total


def _watch(context: Context, idle: float, totals: IngestTotals) -> None:
    """Goes on reading as step 1 writes, until Ctrl-C, or until nothing new came for `idle` seconds (0: no end)."""
    silent, last = replace(context, bar=no_bar), time.monotonic()
    while not context.stopping() and not (idle and time.monotonic() - last > idle):
        if responses.count_pending(context.db):
            totals.include(ingest(silent, responses.iter_pending(context.db), 0))
            last = time.monotonic()
            log.info(
                "%s, %s so far", counted(totals.answers, "answer"), counted(totals.results, "result"), extra=ALWAYS
            )
        until = time.monotonic() + LOOKS_EVERY
        while time.monotonic() < until and not context.stopping():
            time.sleep(LOOKS_AGAIN)


def save_records(context: Context, sources: Sequence[ImportSource], limit: int | None) -> IngestTotals:
    """Writes the records of the sources, one after the other; in a dry run only counts what would be written."""
    totals, seen = IngestTotals(), set[str]()
    with context.bar(None, "Importing", "picture") as progress, bulk_mode(context.db) as wal:
        for source in sources:
            left = None if limit is None else limit - totals.results
            for records in chunked(islice(_records_of(source), left), BATCH):
                _save_batch(context, source, records, totals, seen)
                wal.committed()
                progress.update(len(records))
                if context.stopping():
                    break
            if not context.dry_run:
                note_inputs(context.db, context.run_id, [(path_as_text(source.path.name), sha256_of(source.path))])
            totals.reasons.update(source.unread.reasons)
            totals.left_out.update(source.left_out)
            if context.stopping() or (limit is not None and totals.results >= limit):
                break
    return totals


def _records_of(source: ImportSource) -> Iterator[ImageRecord]:
    assert source.records is not None
    return source.records()


def _save_batch(
    context: Context, source: ImportSource, records: list[ImageRecord], totals: IngestTotals, seen: set[str]
) -> None:
    """Writes a batch as results of the query that is named after its file; it comes with the first of them."""
    db, number = context.db, 0
    if not context.dry_run:  # only now is the source known to be readable
        name = path_as_text(source.path.name)
        with db.transaction():
            number = ensure_query(db, source.engine, "import", name, run_id=context.run_id)
    query = ResponseRow(0, number, source.engine, 0, "", str(source.path), "")
    rows = picture_rows(query, ParsedPage(tuple(records)), utc_now())
    totals.results += len(records)
    if context.dry_run:
        totals.saved.add(preview_rows(db, rows, seen))
    else:
        with db.transaction():
            totals.saved.add(save_pictures(db, rows, utc_now()))


def counts_of(totals: IngestTotals, options: IngestOptions, *, dry_run: bool) -> dict[str, int | float | str]:
    """Counts the step's work in the words of its summary; what does not apply is left out."""
    counts: dict[str, int | float | str] = {}
    if totals.answers or not totals.results:  # a list of addresses has no answers
        counts["files" if options.folder else "answers"] = totals.answers
    if totals.renewed:
        counts["read_again"] = totals.renewed
    counts["failed"] = totals.failed
    counts |= {f"failed_{reason}": count for reason, count in sorted(totals.reasons.items())}
    counts |= {"results": totals.results, "new_pictures": totals.saved.new, "known_pictures": totals.saved.known}
    if not dry_run:
        counts |= {"new_addresses": totals.saved.variants, "new_results": totals.saved.results}
    counts |= {f"left_out_{reason}": count for reason, count in sorted(totals.left_out.items())}
    names = {"image_variants": "addresses", "images": "pictures"}
    return counts | {f"misread_{names.get(table, table)}": n for table, n in sorted(totals.vanished.items())}


def _remedy(reason: str) -> str:
    """Says what can be done about answers or lines that cannot be read."""
    if reason in ("captcha", "blocked", "network"):
        return f"ask the source again with: python 1_collect.py --retry {reason}"
    if reason.startswith("parse_error"):
        return "a later version may know their shape; then add --retry-failed"
    if reason in ("unreadable_file", "missing_file", "changed_file"):
        return "see that the files are there and can be read, and add --retry-failed"
    return "look at what was given; a list may want --encoding or --url-column"


def remark_on(totals: IngestTotals, run_id: int) -> str:
    """Says what stands beside the counts; `run_id` is 0 for a preview."""
    if totals.vanished and run_id:
        return f"what is read no more comes back with: python 2_ingest_db.py --undo {run_id}"
    if totals.came_to_nothing:
        reason, count = totals.reasons.most_common(1)[0]
        return f"nothing could be read: {count:,} of {totals.failed:,} failed as {reason}; {_remedy(reason)}."
    return "" if totals.answers or totals.results or totals.failed else "everything had been read before"
