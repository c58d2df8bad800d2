"""Raw answers become pictures: read and parsed in worker processes, written by one writer, a transaction a batch.

An answer that cannot be read is a verdict with a short reason and never the end of the run. A batch's pictures and the
verdicts of its answers are written in one transaction, so that after a kill an answer is either wholly in or pending.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from lib.db import Database
from lib.db.images import PictureRows, Row, Saved, known_images, save_pictures
from lib.db.ingest import Answer, Verdict, prepare_for_bulk, save_verdicts
from lib.domains import registrable_domain
from lib.parsers import parser_for
from lib.parsers.raw_json import LARGEST_BODY
from lib.progress import BarFactory, no_bar
from lib.records import ImageRecord, ParsedPage, ParseError
from lib.stream import stream
from lib.times import utc_now
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

# Results a transaction. Ids are hashes, so a batch touches pages all over every index: four times as many results write
# hardly more pages. A batch takes about a second, far below what another step waits for the lock.
BATCH_RESULTS = 20_000
BATCH_ANSWERS = 200
FEW_ANSWERS = 200  # below this, starting worker processes takes longer than the work
CHUNK = 8
FINAL_OUTCOMES = ("end", "empty")  # answers that rightly hold nothing
READABLE_OUTCOMES = ("ok", "parse_error", "wrong_tab", *FINAL_OUTCOMES)
PLAIN_REASONS = {"not_json", "captcha", "too_large", "too_complex", "no_parser"}


@dataclass(frozen=True)
class Job:
    """One answer with the place where its file lies."""

    answer: Answer
    file: Path


@dataclass
class Reading:
    """What a worker sends back."""

    verdict: Verdict
    rows: PictureRows = field(default_factory=PictureRows)


@dataclass
class Totals:
    """What an ingest did, or in a preview would do."""

    answers: int = 0
    results: int = 0
    saved: Saved = field(default_factory=Saved)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return sum(self.reasons.values())

    def count(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            self.answers += 1
            self.results += reading.verdict.items
            if reading.verdict.state == "failed":
                self.reasons[reading.verdict.reason] += 1

    def add(self, saved: Saved) -> None:
        self.saved.new += saved.new
        self.saved.known += saved.known
        self.saved.variants += saved.variants
        self.saved.results += saved.results


# --- one answer, in a worker process -------------------------------------------------------------------------------


def read_answer(job: Job) -> Reading:
    """Reads, checks and parses one answer. Every failure is a verdict."""
    answer = job.answer
    try:
        if answer.outcome not in READABLE_OUTCOMES:
            return _failed(answer, answer.outcome)
        if not answer.path and answer.outcome in FINAL_OUTCOMES:
            return Reading(Verdict(answer.id, "done", "", 0, "{}", ""))
        body = _read_body(job)
        parser = parser_for(answer.engine, answer.part)
        page = parser.parse(body)
    except ParseError as error:
        if answer.outcome in FINAL_OUTCOMES:
            return Reading(Verdict(answer.id, "done", "", 0, "{}", ""))
        return _failed(answer, stable_reason(str(error)))
    except (RecursionError, MemoryError) as error:
        return _failed(answer, f"parse_error:{type(error).__name__}")
    rows = picture_rows(answer, page, utc_now())
    drift = orjson.dumps(page.drift).decode()
    return Reading(Verdict(answer.id, "done", "", len(page.images), drift, parser.name), rows)


def stable_reason(reason: str) -> str:
    """A reason as it is counted: a known word, or `parse_error:` with what the parser said."""
    known = reason in PLAIN_REASONS or reason.endswith("_file")
    return reason if known else f"parse_error:{reason}"


def _failed(answer: Answer, reason: str) -> Reading:
    return Reading(Verdict(answer.id, "failed", reason, 0, "{}", ""))


def _read_body(job: Job) -> bytes:
    """The bytes of an answer. Raises ParseError where they are missing, too many, or not those that were recorded."""
    try:
        with job.file.open("rb") as handle:
            body = handle.read(LARGEST_BODY + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ParseError("missing_file") from None
    except OSError:
        raise ParseError("unreadable_file") from None
    if len(body) > LARGEST_BODY:
        raise ParseError("too_large")
    if job.answer.sha256 and hashlib.sha256(body).hexdigest() != job.answer.sha256:
        raise ParseError("changed_file")
    return body


def picture_rows(answer: Answer, page: ParsedPage, now: str) -> PictureRows:
    """The rows of an answer, in the order of the columns of `lib.db.images`."""
    rows = PictureRows()
    first_rank = answer.page * page.page_size
    for record in page.images:
        image_id = f"{answer.engine}:{record.engine_id}"
        rows.images.append(_image_row(image_id, answer.engine, record, now))
        rows.variants += [
            (image_id, v.kind, v.url, v.width, v.height, v.bytes, v.referer, v.expires_at) for v in record.variants
        ]
        rows.results.append((answer.query_id, image_id, answer.id or None, first_rank + record.rank))
    return rows


def _image_row(image_id: str, engine: str, record: ImageRecord, now: str) -> Row:
    return (
        image_id, engine, record.page_url, record.title, record.snippet,
        record.domain, registrable_domain(record.domain),
        record.width, record.height, record.bytes, record.format, record.published_at,
        int(record.is_gif), int(record.is_censored), int(record.is_shop),
        record.creator, record.creator_url, record.license, record.license_url, record.attribution,
        orjson.dumps(record.extra).decode(), now,
    )  # fmt: skip


# --- many answers --------------------------------------------------------------------------------------------------


def ingest(
    db: Database,
    workspace: Workspace,
    answers: Iterable[Answer],
    total: int,
    *,
    workers: int = 1,
    preview: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> Totals:
    """Reads the answers and writes what they hold; with `preview`, only counts what would be written."""
    totals, seen = Totals(), set[str]()
    prepare_for_bulk(db)
    jobs = (Job(answer, workspace.to_path(answer.path)) for answer in _until(answers, stopping))
    readings = _readings(jobs, workers if total > FEW_ANSWERS else 1)
    with bar(total, "Ingesting", "answer") as progress:
        for batch in _batches(readings):
            totals.count(batch)
            totals.add(preview_rows(db, _rows_of(batch), seen) if preview else save_batch(db, batch))
            progress.update(len(batch))
            progress.set_postfix_str(f"{totals.results:,} results")
    return totals


def save_batch(db: Database, batch: list[Reading]) -> Saved:
    """Writes the pictures of some answers and the answers' verdicts in one transaction."""
    rows = _rows_of(batch)
    with db.transaction():
        saved = save_pictures(db, rows, utc_now())
        save_verdicts(db, [reading.verdict for reading in batch])
    return saved


def preview_rows(db: Database, rows: PictureRows, seen: set[str]) -> Saved:
    """What saving would count; `seen` remembers the new pictures of this preview."""
    ids = [row[0] for row in rows.images]
    new = set(ids) - known_images(db, ids) - seen
    seen |= new
    return Saved(new=len(new), known=len(ids) - len(new))


def _rows_of(batch: list[Reading]) -> PictureRows:
    rows = PictureRows()
    for reading in batch:
        rows.add(reading.rows)
    return rows


def _until(answers: Iterable[Answer], stopping: Callable[[], bool]) -> Iterator[Answer]:
    for answer in answers:
        if stopping():
            return
        yield answer


def _readings(jobs: Iterable[Job], workers: int) -> Iterator[Reading]:
    # In order: where two answers disagree about a picture the earlier one counts, also after a kill.
    for outcome in stream(read_answer, jobs, workers=workers, chunk=CHUNK, ordered=True):
        if outcome.value is None:
            log.warning("%s could not be read: %s", outcome.item.answer.path, outcome.error)
            yield _failed(outcome.item.answer, f"parse_error:{outcome.error.partition(':')[0]}")
        else:
            yield outcome.value


def _batches(readings: Iterable[Reading]) -> Iterator[list[Reading]]:
    batch: list[Reading] = []
    results = 0
    for reading in readings:
        batch.append(reading)
        results += reading.verdict.items
        if results >= BATCH_RESULTS or len(batch) >= BATCH_ANSWERS:
            yield batch
            batch, results = [], 0
    if batch:
        yield batch
