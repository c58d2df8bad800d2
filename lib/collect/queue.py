"""From what was asked for to queries: which ones are new, which go on, and which are done already.

A query picture is a file of any format that Pillow reads; an engine gets it as it is, or as a JPEG.
"""

from __future__ import annotations

import hashlib
import io
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.collect.options import CollectOptions
from lib.collect.reach import DEFAULT_PAGES, MAX_PAGES, SearchLimits, limits_for
from lib.db import Context, Database
from lib.db import queries as table
from lib.db.queries import NewQuery, QueryRow
from lib.engines import filters_in
from lib.engines.base import Engine, SearchRequest
from lib.errors import UsageError
from lib.files.pictures import find_files
from lib.images.decode import DecodeError, decode, read_header
from lib.text import counted
from lib.times import utc_now
from lib.workspace import Workspace

log = logging.getLogger("gleaner.collect")

NOTHING_GIVEN = "no picture and no keyword was found in what was given; check the paths."
SEARCH, CONTINUE, WAIT, SKIP = "search", "continue", "wait", "skip"

LARGEST_FILE = 512 * 2**20  # bytes; read into memory once
PHASH_SIDE = 256  # pixels; a perceptual hash looks at 32x32
# Tried in this order until the file is small enough: (long side in pixels or None, JPEG quality).
REDUCTIONS = ((None, 92), (4096, 90), (2560, 88), (1600, 85), (1024, 80), (512, 75))


@dataclass(frozen=True)
class PlannedQuery:
    """A query, its row where there is one, how far it goes, and what is to be done with it."""

    new: NewQuery
    row: QueryRow | None
    limits: SearchLimits
    action: str

    @property
    def line(self) -> str:
        """The line of a dry run."""
        what = f"picture {self.new.image_path}" if self.new.kind == "image" else f"keyword {self.new.text!r}"
        what += "".join(f", {name} {value}" for name, value in filters_in(self.new.params).items())
        far = f"up to {counted(self.limits.pages, 'page')}"
        if self.limits.results:
            far = f"up to {counted(self.limits.results, 'result')}"
            far += f" or {counted(self.limits.pages, 'page')}" if self.limits.by == MAX_PAGES else ""
        if self.row is None:
            return f"Would search {self.new.engine} for {what}, {far}"
        if self.action == SKIP:
            return f"Would skip {what}: {self.row.state}, {self.row.outcome}"
        if self.action == WAIT:
            return f"Would wait with {what}: {self.row.outcome} until {self.row.not_before}"
        return f"Would search {self.new.engine} for {what} from page {self.row.next_page}, {far}"


def hosts_for(engine: Engine, host: str | None) -> tuple[str, ...]:
    """The hosts to try in order: the one asked for, and the engine's others where it is one of its own."""
    if host is None:
        return engine.hosts
    if not engine.knows_host(host):
        return (host,)
    return (host, *(other for other in engine.hosts if other != host))


def params_for(engine: Engine, host: str | None, filters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All that sets a query apart: its filters, and a host (the gallery) whose answers are not the engine's."""
    foreign = {} if host is None or engine.knows_host(host) else {"host": host}
    return foreign | dict(filters or {})


def keywords(words: Sequence[str], file: Path | None) -> list[str]:
    """Keywords from the command line and a file with one a line, in order, each once. Raises UsageError."""
    found = list(words)
    if file is not None:
        try:
            found += file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} is no UTF-8 text ({error.reason}); save it as UTF-8.") from error
        except OSError as error:
            raise UsageError(f"{file} cannot be read ({error.strerror}); give another --keywords-file.") from error
    plain = (" ".join(unicodedata.normalize("NFC", word).split()) for word in found)
    return list(dict.fromkeys(word for word in plain if word))


def picture_queries(
    engine: Engine, places: Sequence[Path], workspace: Workspace, params: Mapping[str, Any], problems: list[str]
) -> Iterator[NewQuery]:
    """A query for each distinct picture; what cannot be read is named in `problems`. Raises UsageError."""
    known: set[str] = set()

    def leave_out(path: Path, error: OSError) -> None:
        problems.append(f"{path} cannot be read ({error.strerror or error}); it is left out.")

    for path in find_pictures(places, leave_out):
        try:
            sha256 = hashlib.sha256(_read(path)).hexdigest()
        except OSError as error:
            leave_out(path, error)
            continue
        if sha256 not in known:
            known.add(sha256)
            yield NewQuery(engine.name, "image", "", sha256, workspace.to_text(path), params=params)


def find_pictures(
    places: Sequence[Path], unreadable: Callable[[Path, OSError], None] = lambda path, error: None
) -> Iterator[Path]:
    """Files as given, and the picture files in folders; a folder below that may not be read goes to `unreadable`.

    Raises UsageError for a place that cannot be read.
    """
    for place in places:
        if not place.exists():
            raise UsageError(f"{place} does not exist; give a picture or a folder of pictures to --images.")
        yield from (path for path, _ in find_files([place], unreadable))


def plan_given(db: Database, queries: Iterable[NewQuery], limits: SearchLimits) -> list[PlannedQuery]:
    """The plan for queries that were asked for by name."""
    planned = []
    for new in queries:
        row = table.find_query(db, new)
        planned.append(PlannedQuery(new, row, limits, SEARCH if row is None else _action(db, row, limits)))
    return planned


def plan_pending(db: Database, engine: Engine, options: CollectOptions) -> list[PlannedQuery]:
    """The queries still queued for the engine, as far as they were meant to go unless a flag says otherwise.

    Without `--host` queries to every host go on; with it those to that host alone.
    """
    wanted = params_for(engine, options.host).get("host")
    rows = table.pending_queries(db, engine.name)
    rows = [row for row in rows if not options.host or row.params.get("host") == wanted]
    planned = [_planned(row, options, engine) for row in rows]
    return [replace(plan, action=_action(db, plan.row, plan.limits)) for plan in planned if plan.row]


def plan_retry(db: Database, engine: Engine, options: CollectOptions) -> list[PlannedQuery]:
    """The queries that `--retry` would queue again."""
    rows = table.queries_with_outcome(db, engine.name, options.retry or "")
    return [_planned(row, options, engine) for row in rows]


def _planned(row: QueryRow, options: CollectOptions, engine: Engine) -> PlannedQuery:
    default, most = engine.default_pages, engine.most_pages
    pages, results = row.cursor.get("pages"), row.cursor.get("results")
    by = row.cursor.get("by") or (DEFAULT_PAGES if pages == default else MAX_PAGES)
    stored = SearchLimits(min(pages, most), results, by) if pages else None
    limits = limits_for(options.max_pages, options.max_results, default, most, stored=stored)
    new = NewQuery(row.engine, row.kind, row.text, row.image_sha256, row.image_path, params=row.params)
    return PlannedQuery(new, row, limits, CONTINUE)


def _action(db: Database, row: QueryRow, limits: SearchLimits) -> str:
    if row.state in ("pending", "running"):
        return WAIT if row.not_before > utc_now() else CONTINUE
    # `ok` means that our own limit ended it, so a larger one goes on from there.
    wants_more = limits.results is None or results_found(db, row) < limits.results
    return CONTINUE if row.outcome == "ok" and row.next_page < limits.pages and wants_more else SKIP


def results_found(db: Database, row: QueryRow) -> int:
    """The results that a query has, each once; where no run has counted them so, those of its pages."""
    found = row.cursor.get("found")
    return found if isinstance(found, int) else table.results_stored(db, row.id)


def enqueue(context: Context, planned: Sequence[PlannedQuery]) -> tuple[list[PlannedQuery], int]:
    """Writes the new queries down; also gives how many pictures cannot be decoded: failed rows with their reason."""
    db, rejected = context.db, 0
    examined = [_examine(plan.new, context.workspace) for plan in planned if plan.row is None]
    made: dict[tuple[str, ...], dict[str, Any]] = {}
    with db.transaction():
        for new, problem in examined:
            number = table.add_query(db, new, context.run_id)
            if problem:
                rejected += 1
                table.end_query(db, number, "failed", "upload_rejected", problem)
                log.warning("%s is no picture that can be searched for: %s", new.image_path, problem)
            made[new.key] = {"row": table.get_query(db, number), "action": SKIP if problem else SEARCH}
    return [replace(plan, **made.get(plan.new.key, {})) for plan in planned], rejected


def _examine(new: NewQuery, workspace: Workspace) -> tuple[NewQuery, str]:
    """A query with its picture's perceptual hash, and why the picture cannot be decoded where it cannot."""
    if new.kind != "image":
        return new, ""
    from imagehash import phash
    from PIL import Image

    try:
        picture = decode(workspace.to_path(new.image_path), long_side=PHASH_SIDE)
    except DecodeError as error:
        return new, error.reason
    return replace(new, image_phash=str(phash(Image.fromarray(picture.rgb)))), ""


def prepare_upload(path: Path, formats: frozenset[str], limit: int) -> SearchRequest:
    """A search by the file as it is where the engine takes it, else by a JPEG below `limit` bytes.

    Raises DecodeError (also `too_large` where no reduction is enough) and OSError.
    """
    content = _read(path)
    header = read_header(content)
    if header.format in formats and len(content) <= limit:
        return SearchRequest("image", picture=content, mime=f"image/{header.format}")
    return SearchRequest("image", picture=encode_jpeg(content, limit), mime="image/jpeg")


def encode_jpeg(content: bytes, limit: int) -> bytes:
    """The picture upright as JPEG, as large and as good as `limit` bytes allow."""
    from PIL import Image

    for side, quality in REDUCTIONS:
        rgb = decode(content, long_side=side, background=None).rgb
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= limit:
            return buffer.getvalue()
    raise DecodeError("too_large", f"no JPEG below {limit} bytes")


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_FILE:
        raise OSError(f"{path} is larger than {LARGEST_FILE >> 20} MiB")
    return path.read_bytes()
