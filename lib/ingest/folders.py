"""`--import-folder`: pictures already on disk become pictures of the workspace, each content once.

A picture is known by its content and takes its facts from its sidecar. Its file is linked into `images/` (copied where
a link cannot be made), the file first and the row second, and the folder it came from is left as it is.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lib.db import Context
from lib.db import files as table
from lib.db.files import FileRow
from lib.db.images import Saved, save_pictures
from lib.db.responses import ResponseRow, ensure_query
from lib.files.names import file_name, shelf
from lib.files.pictures import PassedOver, PictureFile, UnreadableFiles, folder_pictures
from lib.images.decode import DecodeError, Header, read_header
from lib.images.formats import sniff
from lib.ingest.answers import IngestTotals, picture_rows
from lib.ingest.columns import sidecar_record
from lib.ingest.sidecars import Sidecars
from lib.journal.moves import NO_ROOM
from lib.progress import chunked
from lib.records import ParsedPage
from lib.temporary import becoming, clear_dead
from lib.text import counted, path_as_text
from lib.times import utc_now
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

FOLDER_ENGINE = "folder"
ID_LENGTH = 32  # hexadecimal digits of the content's SHA-256
BATCH = 200
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}

Examined = tuple[int, PictureFile, Header]  # a picture with its place in the folder


def import_folder(context: Context, folder: Path, limit: int | None, encoding: str = "") -> IngestTotals:
    """Takes the pictures of a folder in; a dry run only counts. Raises UsageError for what is no folder."""
    db, dry_run = context.db, context.dry_run
    if not dry_run:
        clear_dead(context.workspace.images, deep=True)
    totals, sidecars, seen, number = IngestTotals(), Sidecars(encoding), set[str](), 0
    unreadable = UnreadableFiles(totals.reasons)
    passed_over = PassedOver(context.workspace.root, [folder], totals.left_out)
    found = folder_pictures(
        db, [folder], remember=not dry_run, unreadable=unreadable, bar=context.bar, passed_over=passed_over
    )
    for pictures in chunked(enumerate(islice(found, limit)), BATCH):
        totals.answers += len(pictures)
        fresh = []
        for rank, picture in pictures:
            if picture.sha256 not in seen:
                seen.add(picture.sha256)
                fresh.append((rank, picture))
        known = table.contents_of_pictures(db, [_key(picture) for _, picture in fresh])
        batch = list(_examined([(r, p) for r, p in fresh if p.sha256 not in known], totals.reasons))
        totals.saved.known += len(pictures) - len(fresh) + len(known)
        totals.results += len(batch)
        if dry_run:
            totals.saved.new += len(batch)
        elif batch:
            if not number:
                with db.transaction():
                    name = path_as_text(folder.absolute())
                    number = ensure_query(db, FOLDER_ENGINE, "import", name, run_id=context.run_id)
            totals.saved.add(_save(context, number, batch, sidecars))
        if context.stopping():
            break
    if sidecars.broken:
        log.warning("%s could not be read", counted(sidecars.broken, "sidecar"))
    return totals


def _key(picture: PictureFile) -> str:
    return f"{FOLDER_ENGINE}:{picture.sha256[:ID_LENGTH]}"


def _examined(pictures: list[tuple[int, PictureFile]], reasons: Counter[str]) -> Iterator[Examined]:
    for rank, picture in pictures:
        try:
            yield rank, picture, read_header(picture.path)
        except DecodeError as error:
            log.warning("%s is left out: %s", picture.path, error)
            reasons[error.reason] += 1


def _save(context: Context, query_id: int, batch: list[Examined], sidecars: Sidecars) -> Saved:
    """Files first, then their rows in one transaction."""
    db = context.db
    states = table.file_states(db, [picture.sha256 for _, picture, _ in batch])
    files, records, done = [], [], []
    for rank, picture, header in batch:
        facts = sidecars.of(picture.path, picture.root)
        record = sidecar_record(picture.sha256[:ID_LENGTH], rank, facts, picture.path.stem)
        record.width, record.height, record.bytes = header.width, header.height, picture.bytes
        record.format = header.format
        records.append(record)
        done.append((picture.sha256, picture.bytes, _key(picture)))
        if states.get(picture.sha256, "missing") == "missing":
            files.append(_place(context.workspace, picture, header))
    rows = picture_rows(ResponseRow(0, query_id, FOLDER_ENGINE, 0, "", "", ""), ParsedPage(tuple(records)), utc_now())
    with db.transaction():
        saved = save_pictures(db, rows, utc_now())
        table.add_or_restore_files(db, files)
        table.mark_done(db, done, utc_now())
    return saved


def _place(workspace: Workspace, picture: PictureFile, header: Header) -> FileRow:
    """Brings a file under its final name in the workspace, whole or not at all."""
    key = _key(picture)
    size = (header.width, header.height)
    with picture.path.open("rb") as handle:
        found = sniff(handle.read(512))  # the bytes say it, and for formats that they do not settle the header's word
    extension = found.extension if found else _EXTENSIONS.get(header.format, header.format)
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
