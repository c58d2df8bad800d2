"""`--import-folder`: pictures already on disk become pictures of the workspace, each content once.

A picture is known by its content and takes its facts from its sidecar. Its file is linked into `images/` (copied where
a link cannot be made), the file first and the row second, and the folder it came from is left as it is.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from lib.db import Database
from lib.db import on_disk as table
from lib.db.files import FileRow
from lib.db.images import Saved, save_pictures
from lib.db.ingest import Answer, ensure_query
from lib.decode import DecodeError, Header, read_header
from lib.downloading.names import file_name, shelf
from lib.ingest import Totals
from lib.media import sniff
from lib.moves import NO_ROOM
from lib.picture_rows import picture_rows
from lib.pictures import PictureFile, folder_pictures
from lib.plain_files import Unread
from lib.progress import BarFactory, no_bar
from lib.records import ParsedPage
from lib.sentences import counted
from lib.sidecars import Sidecars, sidecar_record
from lib.temporary import becoming, clear_dead
from lib.text import path_as_text
from lib.times import utc_now
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

FOLDER_ENGINE = "folder"
ID_LENGTH = 32  # hexadecimal digits of the content's SHA-256
BATCH = 200
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}


def import_folder(
    db: Database,
    workspace: Workspace,
    folder: Path,
    run_id: int,
    *,
    limit: int | None = None,
    preview: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    bar: BarFactory = no_bar,
) -> Totals:
    """Takes the pictures of a folder in; with `preview`, only counts. Raises UsageError for what is no folder."""
    if not preview:
        clear_dead(workspace.images, deep=True)
    totals, sidecars, seen = Totals(), Sidecars(), set[str]()
    found = folder_pictures(db, [folder], remember=not preview, unreadable=Unread(totals.reasons), bar=bar)
    number = 0
    for pictures in _batches(enumerate(islice(found, limit))):
        totals.answers += len(pictures)
        fresh = [(rank, picture) for rank, picture in pictures if not _met(picture, seen)]
        known = table.known_contents(db, [f"{FOLDER_ENGINE}:{p.sha256[:ID_LENGTH]}" for _, p in fresh])
        batch = list(_examined([(r, p) for r, p in fresh if p.sha256 not in known], totals.reasons))
        totals.saved.known += len(pictures) - len(fresh) + len(known)
        totals.results += len(batch)
        if preview:
            totals.saved.new += len(batch)
        elif batch:
            number = number or _query(db, folder, run_id)
            totals.add(_save(db, workspace, number, batch, sidecars))
        if stopping():
            break
    if sidecars.broken:
        log.warning("%s could not be read", counted(sidecars.broken, "sidecar"))
    return totals


def _met(picture: PictureFile, seen: set[str]) -> bool:
    met = picture.sha256 in seen
    seen.add(picture.sha256)
    return met


def _examined(
    pictures: list[tuple[int, PictureFile]], reasons: Counter[str]
) -> Iterator[tuple[int, PictureFile, Header]]:
    for rank, picture in pictures:
        try:
            yield rank, picture, read_header(picture.path)
        except DecodeError as error:
            log.warning("%s is left out: %s", picture.path, error)
            reasons[error.reason] += 1


def _query(db: Database, folder: Path, run_id: int) -> int:
    with db.transaction():
        return ensure_query(db, FOLDER_ENGINE, "import", path_as_text(folder.absolute()), run_id=run_id)


def _save(
    db: Database,
    workspace: Workspace,
    query_id: int,
    batch: list[tuple[int, PictureFile, Header]],
    sidecars: Sidecars,
) -> Saved:
    """Files first, then their rows in one transaction."""
    states = table.file_states(db, [picture.sha256 for _, picture, _ in batch])
    files, records, done = [], [], []
    for rank, picture, header in batch:
        engine_id = picture.sha256[:ID_LENGTH]
        record = sidecar_record(engine_id, rank, sidecars.of(picture.path), picture.path.stem)
        record.width, record.height, record.bytes = header.width, header.height, picture.bytes
        record.format = header.format
        records.append(record)
        done.append((picture.sha256, picture.bytes, f"{FOLDER_ENGINE}:{engine_id}"))
        if states.get(picture.sha256, "missing") == "missing":
            files.append(_place(workspace, picture, header))
    rows = picture_rows(Answer(0, query_id, FOLDER_ENGINE, 0, "", "", ""), ParsedPage(tuple(records)), utc_now())
    with db.transaction():
        saved = save_pictures(db, rows, utc_now())
        table.add_or_restore_files(db, files)
        table.mark_done(db, done, utc_now())
    return saved


def _place(workspace: Workspace, picture: PictureFile, header: Header) -> FileRow:
    """Brings a file under its final name in the workspace, whole or not at all."""
    key = f"{FOLDER_ENGINE}:{picture.sha256[:ID_LENGTH]}"
    size = (header.width, header.height)
    extension = _extension(picture.path, header)
    target = workspace.images / shelf(key) / file_name(key, "original", *size, picture.sha256, extension)
    if not target.exists():
        with becoming(target) as temporary:
            try:
                os.link(picture.path, temporary)
            except OSError as error:
                if error.errno in NO_ROOM:  # a copy needs more
                    raise
                shutil.copyfile(picture.path, temporary)
    text = workspace.to_text(target)
    return FileRow(picture.sha256, text, picture.bytes, header.format, *size, header.frames, header.orientation)


def _extension(path: Path, header: Header) -> str:
    """By the bytes, as everywhere; by the header's word for formats that the first bytes do not settle."""
    with path.open("rb") as handle:
        found = sniff(handle.read(512))
    return found.extension if found else _EXTENSIONS.get(header.format, header.format)


def _batches(pictures: Iterator[tuple[int, PictureFile]]) -> Iterator[list[tuple[int, PictureFile]]]:
    while batch := list(islice(pictures, BATCH)):
        yield batch
