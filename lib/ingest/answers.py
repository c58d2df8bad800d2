"""Turns raw answers into pictures: parsed in worker processes, written by one writer, a transaction a batch.

An answer that cannot be read is a result with a short reason and never the end of the run. A batch's pictures and the
results of its answers are written in one transaction, so that after a kill an answer is either wholly in or pending.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import marshal
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from lib.db import Context, Database
from lib.db.connection import bulk_mode
from lib.db.images import IMAGE_COLUMNS, PictureRows, ReparseIndex, Saved, known_images, save_pictures
from lib.db.responses import FINAL_OUTCOMES, READABLE_OUTCOMES, ParseResult, ResponseRow, answers_there, save_results
from lib.domains import registrable_domain
from lib.engines import parser_for
from lib.engines.parsing import LARGEST_BODY
from lib.records import ParsedPage, ParseError
from lib.times import utc_now
from lib.work.stream import stream

log = logging.getLogger("gleaner")

# Ids are hashes, so a transaction touches pages all over every index, and one of five times as many results writes
# hardly more of them. Another step waits for the lock at most that long, and finds it free for a moment in between:
# SQLite looks again every 100 ms.
TRANSACTION_SECONDS = 4.0
TRANSACTION_RESULTS = 200_000
GAP_SECONDS = 0.12
BATCH_RESULTS = 4_000  # rows that are in memory at once, beside those that wait to be read
BATCH_ANSWERS = 200
FEW_ANSWERS = 200  # below this, starting worker processes takes longer than the work
CHUNK = 16  # answers; more keep the workers busy during a commit, and as many large ones have to be held at once
PLAIN_REASONS = {"not_json", "captcha", "too_large", "too_complex", "no_parser"}  # others become parse_error:reason

_MADE = ("key", "engine", "registrable_domain", "is_gif", "is_censored", "is_shop", "extra", "first_seen_at")
_TAKEN = {name: attrgetter(name) for name in IMAGE_COLUMNS if name not in _MADE}


@dataclass(frozen=True)
class ParseTask:
    """One answer with the place where its file lies."""

    answer: ResponseRow
    file: Path


@dataclass
class Parsed:
    """One parsed answer as a worker sends it back. Its rows are packed: unpickling objects costs more."""

    result: ParseResult
    packed: bytes = b""


@dataclass
class IngestTotals:
    """The outcome of an ingest, or of its preview."""

    answers: int = 0
    results: int = 0
    saved: Saved = field(default_factory=Saved)
    reasons: Counter[str] = field(default_factory=Counter)
    vanished: Counter[str] = field(default_factory=Counter)  # rows that no answer yields any more, by table
    left_out: Counter[str] = field(default_factory=Counter)  # entries of answers that are no pictures of their own
    renewed: int = 0  # answers that an older parser had read

    @property
    def failed(self) -> int:
        return sum(self.reasons.values())

    @property
    def came_to_nothing(self) -> bool:
        """True where something was read and nothing of it could be."""
        return self.failed > 0 and not self.results

    def count(self, readings: Iterable[Parsed]) -> None:
        for reading in readings:
            self.answers += 1
            self.results += reading.result.items
            if reading.result.state == "failed":
                self.reasons[reading.result.reason] += 1
            if '"left_out"' in reading.result.drift:
                self.left_out.update(orjson.loads(reading.result.drift)["left_out"])

    def include(self, other: IngestTotals) -> None:
        """Adds what a further pass did."""
        self.answers += other.answers
        self.results += other.results
        self.reasons.update(other.reasons)
        self.left_out.update(other.left_out)
        self.vanished.update(other.vanished)
        self.renewed += other.renewed
        self.saved.add(other.saved)


def read_answer(job: ParseTask) -> Parsed:
    """Reads, checks and parses one answer. Every failure is a result."""
    answer = job.answer
    if answer.outcome not in READABLE_OUTCOMES:
        return _without_rows(answer, "failed", answer.outcome)
    is_final = answer.outcome in FINAL_OUTCOMES
    try:
        if is_final and not answer.path:
            return _without_rows(answer, "done")
        body = _read_body(job)
        parser = parser_for(answer.engine, answer.part)
        page = parser.parse(body)
    except ParseError as error:
        if is_final:
            return _without_rows(answer, "done")
        reason = str(error)
        is_known = reason in PLAIN_REASONS or reason.endswith("_file")
        return _without_rows(answer, "failed", reason if is_known else f"parse_error:{reason}")
    except (RecursionError, MemoryError) as error:
        return _without_rows(answer, "failed", f"parse_error:{type(error).__name__}")
    rows = picture_rows(answer, page, utc_now())
    drift = orjson.dumps(page.drift).decode()
    packed = marshal.dumps((rows.count, rows.images, rows.variants, rows.results))
    return Parsed(ParseResult(answer.id, "done", "", len(page.images), drift, parser.name), packed)


def _without_rows(answer: ResponseRow, state: str, reason: str = "") -> Parsed:
    return Parsed(ParseResult(answer.id, state, reason, 0, "{}", ""))


def _read_body(job: ParseTask) -> bytes:
    """The bytes of an answer. Raises ParseError where they are missing, too many, or not those that were recorded."""
    try:
        with job.file.open("rb") as handle:
            # Asked for the limit at once, Python would make room for all of it: two microseconds a result.
            size = os.fstat(handle.fileno()).st_size
            body = handle.read(min(size, LARGEST_BODY) + 1)
            if len(body) > size:  # it has grown, or is no ordinary file
                body += handle.read(LARGEST_BODY + 1 - len(body))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ParseError("missing_file") from None
    except OSError:
        raise ParseError("unreadable_file") from None
    if len(body) > LARGEST_BODY:
        raise ParseError("too_large")
    if job.answer.sha256 and hashlib.sha256(body).hexdigest() != job.answer.sha256:
        raise ParseError("changed_file")
    return body


def ingest(
    context: Context,
    answers: Iterable[ResponseRow],
    total: int,
    *,
    workers: int = 1,
    reparse: ReparseIndex | None = None,
) -> IngestTotals:
    """Reads the answers and writes what they hold; in a dry run only counts what would be written.

    Given `reparse`, what is read now takes the place of what an older parser had read, in pictures met again too; the
    index remembers all that was read.
    """
    db, dry_run, totals, seen = context.db, context.dry_run, IngestTotals(), set[str]()
    going_on = takewhile(lambda _: not context.stopping(), answers)
    jobs = (ParseTask(answer, context.workspace.to_path(answer.path)) for answer in going_on)
    readings = _readings(jobs, workers if total > FEW_ANSWERS else 1)
    with (
        context.bar(total, "Ingesting", "answer") as progress,
        bulk_mode(db, foreign_keys=False) as wal,
        seldom_collecting(),
    ):
        for batches in _transactions(_batches(readings)):
            with nullcontext() if dry_run else db.transaction():
                for batch in batches:
                    totals.count(batch)
                    if dry_run:
                        totals.saved.add(preview_rows(db, _rows_of(batch), seen, reparse))
                    else:
                        totals.saved.add(save_batch(db, batch, reparse))
                    if reparse is not None:
                        reparse.answers.update(one.result.id for one in batch if one.result.state == "done")
                    progress.update(len(batch))
                    progress.set_postfix_str(f"{totals.results:,} results")
            wal.committed()
    return totals


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Python looks for circular garbage seldom: rows have none, and the search took a tenth of the time."""
    before = gc.get_threshold()
    rarely_collect()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def rarely_collect() -> None:
    gc.set_threshold(200_000, 20, 20)


def save_batch(db: Database, batch: list[Parsed], reparse: ReparseIndex | None = None) -> Saved:
    """Writes the pictures of some answers together with the answers' results.

    The connection does not check parents; an answer that has gone since it was read takes what it held with it.
    """
    with db.transaction():
        there = answers_there(db, [reading.result.id for reading in batch])
        kept = [reading for reading in batch if reading.result.id in there]
        saved = save_pictures(db, _rows_of(kept), utc_now(), reparse)
        save_results(db, [reading.result for reading in kept])
    return saved


def preview_rows(db: Database, rows: PictureRows, seen: set[str], reparse: ReparseIndex | None = None) -> Saved:
    """Counts as saving would; `seen` remembers the new pictures of this preview."""
    keys = rows.images.get("key", [])
    known = known_images(db, keys)
    new = set(keys) - known.keys() - seen
    seen |= new
    if reparse is not None:
        reparse.note([known.get(key, 0) for key in keys], rows.variants, rows.results)
    return Saved(new=len(new), known=len(keys) - len(new))


def _rows_of(batch: list[Parsed]) -> PictureRows:
    rows = PictureRows()
    for reading in batch:
        if reading.packed:
            rows.add(PictureRows(*marshal.loads(reading.packed)))
    return rows


def _readings(jobs: Iterable[ParseTask], workers: int) -> Iterator[Parsed]:
    init = rarely_collect if workers > 1 else None
    # In order: where two answers disagree about a picture the earlier one counts, also after a kill.
    for outcome in stream(read_answer, jobs, workers=workers, chunk=CHUNK, ordered=True, init=init):
        if outcome.value is None:
            log.warning("%s could not be read: %s", outcome.item.answer.path, outcome.error)
            yield _without_rows(outcome.item.answer, "failed", f"parse_error:{outcome.error.partition(':')[0]}")
        else:
            yield outcome.value


def _transactions(batches: Iterator[list[Parsed]]) -> Iterator[Iterator[list[Parsed]]]:
    """The batches of one transaction after the other; a moment's rest after each that was long."""

    def until_due(batch: list[Parsed] | None, due: float) -> Iterator[list[Parsed]]:
        results = 0
        while batch:
            results += sum(reading.result.items for reading in batch)
            yield batch
            batch = next(batches, None) if time.monotonic() < due and results < TRANSACTION_RESULTS else None

    for first in batches:
        started = time.monotonic()
        yield until_due(first, started + TRANSACTION_SECONDS)
        if time.monotonic() - started > 1:
            time.sleep(GAP_SECONDS)


def _batches(readings: Iterable[Parsed]) -> Iterator[list[Parsed]]:
    batch: list[Parsed] = []
    results = 0
    for reading in readings:
        batch.append(reading)
        results += reading.result.items
        if results >= BATCH_RESULTS or len(batch) >= BATCH_ANSWERS:
            yield batch
            batch, results = [], 0
    if batch:
        yield batch


def picture_rows(answer: ResponseRow, page: ParsedPage, now: str) -> PictureRows:
    """The rows of an answer, column by column as `lib.db.images` takes them."""
    images, first_rank = page.images, answer.page * page.page_size
    count = len(images)
    taken = {name: list(map(value, images)) for name, value in _TAKEN.items()}
    columns: dict[str, list[Any]] = taken | {
        "key": [f"{answer.engine}:{record.engine_id}" for record in images],
        "engine": [answer.engine] * count,
        "registrable_domain": list(map(registrable_domain, taken["domain"])),
        "is_gif": [int(record.is_gif) for record in images],
        "is_censored": [int(record.is_censored) for record in images],
        "is_shop": [int(record.is_shop) for record in images],
        "extra": [orjson.dumps(record.extra).decode() for record in images],
        "first_seen_at": [now] * count,
    }
    rows = PictureRows(count, {name: columns[name] for name in IMAGE_COLUMNS if any(columns[name])})
    variants = list(chain.from_iterable(record.variants for record in images))
    if variants:
        places = [place for place, record in enumerate(images) for _ in record.variants]
        rows.variants = [places, *map(list, zip(*variants, strict=True))]
    ranks = [first_rank + record.rank for record in images]
    rows.results = [[answer.query_id] * count, [answer.id or None] * count, ranks]
    return rows
