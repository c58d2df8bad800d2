"""`--import-folder`: pictures already on disk become pictures of the workspace, each content once.

A picture is known by its content and takes its facts from its sidecar. Its file is linked into `images/` (copied where
a link cannot be made), the file first and the row second, and the folder it came from is left as it is.

Sidecars are JSON files beside pictures, as gallery-dl, SceneImg and other downloaders write them. One is
`photo.jpg.json` or `photo.json`; a `metadata.jsonl` in the folder tells of many by `file_name`. Names of keys differ
from tool to tool, so each fact is looked for under several, and values of another type are left out.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lib.db import Context
from lib.db import files as table
from lib.db.files import FileRow
from lib.db.images import Saved, save_pictures
from lib.db.responses import ResponseRow, ensure_query
from lib.domains import host_of
from lib.engines.parsing import address, load_json, mapping, plain, text, whole
from lib.files.names import file_name, shelf
from lib.files.pictures import PictureFile, UnreadableFiles, folder_pictures
from lib.images.decode import DecodeError, Header, read_header
from lib.images.formats import sniff
from lib.ingest.answers import IngestTotals, picture_rows
from lib.journal.moves import NO_ROOM
from lib.progress import chunked
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord
from lib.temporary import becoming, clear_dead
from lib.text import counted, path_as_text
from lib.times import utc_now
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

FOLDER_ENGINE = "folder"
ID_LENGTH = 32  # hexadecimal digits of the content's SHA-256
BATCH = 200
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}

LARGEST = 4 * 2**20  # bytes; sidecars have a few kilobytes
METADATA = "metadata.jsonl"
_KEYS = {
    "url": (
        *("image_url", "file_url", "original_url", "img_url", "media_url"),
        *("url", "src", "objURL", "source_image_url"),
    ),
    "page": ("page_url", "webpage_url", "post_url", "permalink", "source_url", "fromURL", "source", "referer"),
    "title": ("title", "caption", "alt", "fromPageTitle", "name"),
    "snippet": ("description", "content", "text", "snippet"),
    "creator": (
        *("creator", "artist", "author", "photographer", "tag_string_artist"),
        *("owner", "user", "uploader", "username"),
    ),
    "creator_url": ("creator_url", "author_url", "user_url"),
    "license": ("license_name", "license", "licence"),
    "license_url": ("license_url", "licence_url"),
    "attribution": ("attribution", "credit"),
    "published_at": ("date", "published_at", "created_at", "upload_date"),
    "tags": ("tags", "keywords", "tag_string"),
    "query": ("query", "keyword", "search_tags", "search_term"),
    "source": ("category", "engine", "site"),
}
# What a list of pictures is kept for, beside its names: it may tell of a million.
_USED = frozenset(name for names in _KEYS.values() for name in names) | {
    "content_type", "width", "height", "original_width", "original_height",
}  # fmt: skip
_NAMES_OF_PEOPLE = ("realname", "name", "nick", "username", "title", "id")
Examined = tuple[int, PictureFile, Header]  # a picture with its place in the folder


def import_folder(context: Context, folder: Path, limit: int | None) -> IngestTotals:
    """Takes the pictures of a folder in; a dry run only counts. Raises UsageError for what is no folder."""
    db, dry_run = context.db, context.dry_run
    if not dry_run:
        clear_dead(context.workspace.images, deep=True)
    totals, sidecars, seen, number = IngestTotals(), Sidecars(), set[str](), 0
    unreadable = UnreadableFiles(totals.reasons)
    found = folder_pictures(db, [folder], remember=not dry_run, unreadable=unreadable, bar=context.bar)
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
        facts = sidecars.of(picture.path)
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


class Sidecars:
    """Finds what is written beside pictures; a folder's `metadata.jsonl` is read once and kept while it is needed.

    `broken` counts the files that could not be read or are no JSON.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.listed: dict[str, Mapping[str, Any]] = {}
        self.broken = 0

    def of(self, picture: Path) -> Mapping[str, Any]:
        """The facts of a picture under the keys of the sidecar; empty where there is none or it cannot be read."""
        if picture.parent != self.folder:
            self.folder, self.listed = picture.parent, self._read_metadata(picture.parent / METADATA)
        for path in (picture.with_name(picture.name + ".json"), picture.with_suffix(".json")):
            if found := self._read(path):
                return found
        return self.listed.get(picture.name, {})

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            if not path.is_file():
                return {}
            if path.stat().st_size > LARGEST:
                self.broken += 1
                return {}
            value, _ = load_json(path.read_bytes())
        except (OSError, ParseError):
            self.broken += 1
            return {}
        if isinstance(value, list):  # gallery-dl's --dump-json: the facts stand last
            value = next((entry for entry in reversed(value) if isinstance(entry, dict)), None)
        return mapping(value)

    def _read_metadata(self, path: Path) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        if not path.is_file():
            return found
        try:
            with path.open("rb") as handle:
                while line := handle.readline(LARGEST):
                    is_short = len(line) < LARGEST
                    row = self._row(line) if is_short and line.strip() else {}
                    if name := text(row.get("file_name")):
                        found[name] = {key: row[key] for key in _USED if key in row}
                    if not is_short:  # longer than any sidecar: the next begins behind its end
                        self.broken += 1
                        while line and not line.endswith(b"\n"):
                            line = handle.readline(LARGEST)
        except OSError:
            self.broken += 1
        return found

    def _row(self, line: bytes) -> Mapping[str, Any]:
        try:
            return mapping(load_json(line)[0])
        except ParseError:
            self.broken += 1
            return {}


def sidecar_record(engine_id: str, rank: int, facts: Mapping[str, Any], name: str = "") -> ImageRecord:
    """A picture's record from its sidecar; `name` is its title where the sidecar knows none."""
    found = {key: _first(facts, names) for key, names in _KEYS.items()}
    url, page = _link(found["url"]), _link(found["page"])
    if not url and text(facts.get("content_type")).startswith("image/"):
        url, page = page, ""  # the type of what was fetched: its `source` is the picture's own address
    license_name, creator = plain(found["license"]), found["creator"]
    if isinstance(creator, list):
        creator = next(iter(creator), None)
    if isinstance(creator, dict):  # some tools wrap a person's name in an object
        creator = _first(creator, _NAMES_OF_PEOPLE)
    # Of what stands at the address: a tool that resizes tells both.
    width, height = (whole(facts.get(f"original_{side}") or facts.get(side)) for side in ("width", "height"))
    return ImageRecord(
        engine_id=engine_id,
        rank=rank,
        page_url=page,
        title=plain(found["title"]) or name,
        snippet=plain(found["snippet"]),
        domain=host_of(page) or host_of(url),
        width=width,
        height=height,
        published_at=text(found["published_at"]),
        creator=plain(creator),
        creator_url=_link(found["creator_url"]),
        license="" if license_name.isdecimal() else license_name,  # a number tells a licence to its service only
        license_url=_link(found["license_url"]),
        attribution=plain(found["attribution"]),
        extra=_extra(found),
        variants=(VariantRecord("original", url, width, height, referer=page),) if url else (),
    )


def _extra(found: Mapping[str, Any]) -> dict[str, Any]:
    tags = found["tags"]
    words = [plain(tag) for tag in tags[:200]] if isinstance(tags, list) else plain(tags).split()[:200]
    made = {"tags": [word for word in words if word], "query": plain(found["query"]), "source": text(found["source"])}
    return {key: value for key, value in made.items() if value}


def _first(facts: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((facts[name] for name in names if facts.get(name)), None)


def _link(value: Any) -> str:
    """A web address; a name of a site or a path is none."""
    found = address(value)
    return found if found.startswith(("http://", "https://")) else ""
