"""Finds raw answers that lie on disk without a row, tells them apart by name and content, and gives them rows.

Three layouts are known: our own `<engine>/<query>/<page>.json|html`, the reference pipeline's `<name>_xhr_NNN.json`,
and single files whose content shows what they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

import orjson

from lib.db import Context, Database
from lib.db.responses import (
    NewResponse,
    ResponseRow,
    add_answers,
    answers_of,
    ensure_query,
    find_query_id,
    known_paths,
    query_of_folder,
)
from lib.engines import engines, part_of
from lib.engines.parsing import load_json, mapping
from lib.files.answers import NOTE, write_note
from lib.files.pictures import Unreadable, UnreadableFiles, plain_files, sha256_of, text_name
from lib.progress import chunked
from lib.records import ParseError
from lib.temporary import write_whole
from lib.text import storable
from lib.times import to_text
from lib.workspace import Workspace

_REFERENCE = re.compile(r"(?P<name>.+)_xhr_(?P<page>\d{1,6})\.json", re.IGNORECASE)
_OURS = re.compile(r"(?P<page>\d{1,6})\.(?:json|html?)", re.IGNORECASE)
_SUFFIXES = {".json", ".html", ".htm"}
_SNIFFED = 4 * 2**20  # bytes looked at to tell what a file is: pages carry their results far behind the head
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
FILES_A_COMMIT = 200
LARGEST_NOTE = 2**20  # bytes
_query_of = attrgetter("engine", "query")
_ASKED = {"kind": "import", "text": "", "image_sha256": "", "params": "{}"}


@dataclass(frozen=True)
class RawFile:
    """A raw answer on disk: whose query it belongs to, which page and part of it, and how its place was told."""

    engine: str
    query: str
    page: int
    part: str
    file: Path
    layout: str  # ours, reference or single


def find_answers(folder: Path, unread: Unreadable) -> Iterator[RawFile]:
    """The raw answers below a folder (or the one file), in the order of their queries and pages."""
    if folder.is_file():
        yield from _single(folder, folder.stem, unread)
        return
    yield from sorted(
        _found(folder, unread), key=lambda entry: (entry.engine, entry.query, entry.page, entry.part, str(entry.file))
    )


def holds_answers(folder: Path) -> bool:
    """Tells if there is a raw answer below a folder; looks no further than to the first."""
    return next(_found(folder, UnreadableFiles()), None) is not None


def _found(folder: Path, unread: Unreadable) -> Iterator[RawFile]:
    files = plain_files(folder, unread, lambda name: Path(name).suffix.lower() in _SUFFIXES)
    return (entry for file in files for entry in _recognise(folder, file, unread))


def register(context: Context, found: Sequence[RawFile], unread: Unreadable) -> tuple[int, int]:
    """Copies raw answers into the workspace and gives them rows; gives how many are new and how many were known.

    One whose bytes the query has already is known.
    """
    db, workspace, new, known = context.db, context.workspace, 0, 0
    with context.bar(len(found), "Taking in", "file") as progress:
        for (engine, query), group in groupby(found, key=_query_of):
            asked = _asked(first := next(group), query)
            with db.transaction():
                query_id = ensure_query(db, engine, **asked, run_id=context.run_id)
            if asked["kind"] != "import":  # so that a lost database gives the very query back
                write_note(_folder(workspace, first), engine, **asked | {"params": orjson.loads(asked["params"])})
            for part in chunked(chain([first], group), FILES_A_COMMIT):
                if context.stopping():
                    return new, known
                readable = [(entry, digest) for entry in part if (digest := _digest(entry.file, unread))]
                answers = list(_place(db, workspace, query_id, readable))
                with db.transaction():
                    added = add_answers(db, query_id, answers, context.run_id)
                new, known = new + added, known + len(readable) - added
                progress.update(len(part))
    return new, known


def would_register(db: Database, found: Iterable[RawFile], unread: Unreadable) -> Iterator[ResponseRow]:
    """The answers that `register` would make rows of, to be read where they lie."""
    for (engine, query), group in groupby(found, key=_query_of):
        query_id = find_query_id(db, engine, **_asked(first := next(group), query))
        contents = answers_of(db, query_id)[1] if query_id else set()
        for entry in chain([first], group):
            digest = _digest(entry.file, unread)
            if digest and digest not in contents:
                contents.add(digest)
                path = str(entry.file.absolute())
                yield ResponseRow(0, query_id or 0, engine, entry.page, entry.part, path, digest)


def unregistered(db: Database, workspace: Workspace, unread: Unreadable) -> list[RawFile]:
    """The raw answers in the workspace that have no row, as after the loss of a database."""
    if not workspace.xhr.is_dir():
        return []
    known, found = known_paths(db, workspace.to_text(workspace.xhr)), []
    for entry in find_answers(workspace.xhr, unread):
        try:
            if entry.layout == "ours" and text_name(entry.file, workspace) not in known:
                found.append(entry)
        except OSError as error:
            unread(entry.file, error)
    return found


def register_in_place(context: Context, found: Iterable[RawFile], unread: Unreadable) -> int:
    """Gives rows to files of the workspace where they lie, under the query of their folder; gives their number."""
    db, to_text, new = context.db, context.workspace.to_text, 0
    for folder, group in groupby(found, key=lambda entry: entry.file.parent):
        entries = list(group)
        answers = [
            _new_answer(entry, entry.page, to_text(entry.file), digest)
            for entry in entries
            if (digest := _digest(entry.file, unread))
        ]
        with db.transaction():
            query_id = query_of_folder(db, to_text(folder))
            if query_id is None:
                asked = _asked(entries[0], folder.name)
                query_id = ensure_query(db, entries[0].engine, **asked, run_id=context.run_id)
            new += add_answers(db, query_id, answers, context.run_id)
    return new


def _recognise(folder: Path, file: Path, unread: Unreadable) -> Iterator[RawFile]:
    # What a query is called is text, whatever bytes the system allows in names.
    whole = Path(os.fsencode(Path(folder.absolute().name) / file.relative_to(folder)).decode(errors="backslashreplace"))
    parts = whole.parts
    if match := _REFERENCE.fullmatch(parts[-1]):
        query = "/".join((*parts[:-1], match["name"]))
        yield RawFile("yandex", query, int(match["page"]), "xhr", file, "reference")
    elif (match := _OURS.fullmatch(file.name)) and len(parts) >= 2:
        engine = next((part for part in reversed(parts[:-2]) if part in engines()), "yandex")
        suffix = file.suffix.lower()
        yield RawFile(engine, "/".join(parts[:-1]), int(match["page"]), part_of(engine, suffix), file, "ours")
    else:
        yield from _single(file, "/".join((*parts[:-1], whole.stem)), unread)


def _single(file: Path, query: str, unread: Unreadable) -> Iterator[RawFile]:
    """A file under any name, if its content is an answer's."""
    try:
        with file.open("rb") as handle:
            head = handle.read(_SNIFFED)
    except OSError as error:
        unread(file, error)
        return
    if b"serpList" in head:
        part = "page" if head.lstrip()[:1] == b"<" else "xhr"
        yield RawFile("yandex", query, 0, part, file, "single")


def _place(
    db: Database, workspace: Workspace, query_id: int, entries: list[tuple[RawFile, str]]
) -> Iterator[NewResponse]:
    """Copies what the query lacks into its folder; where a page's number is taken the next free one is used."""
    taken, contents = answers_of(db, query_id)
    for entry, digest in entries:
        if digest in contents:
            continue
        page = entry.page
        while (page, entry.part) in taken:
            page += 1
        suffix = ".html" if entry.part == "page" else ".json"
        target = _folder(workspace, entry) / f"{page:04d}{suffix}"
        if not target.exists() or sha256_of(target) != digest:
            with entry.file.open("rb") as source:
                write_whole(target, partial(shutil.copyfileobj, source))
        taken.add((page, entry.part))
        contents.add(digest)
        yield _new_answer(entry, page, workspace.to_text(target), digest)


def _digest(file: Path, unread: Unreadable) -> str:
    """The digest of a file; empty where it cannot be read."""
    try:
        return sha256_of(file)
    except OSError as error:
        unread(file, error)
        return ""


def _new_answer(entry: RawFile, page: int, path: str, digest: str) -> NewResponse:
    status = entry.file.stat()
    fetched = to_text(datetime.fromtimestamp(status.st_mtime, UTC))
    return NewResponse(page, entry.part, path, digest, status.st_size, fetched)


def _folder(workspace: Workspace, entry: RawFile) -> Path:
    """The folder of an imported answer: a short ASCII name that two queries never share."""
    query = entry.query
    digest = hashlib.sha256(query.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    readable = _UNSAFE.sub("-", query.rpartition("/")[2]).strip("-.")[:40]
    return workspace.xhr / entry.engine / (f"import-{readable}-{digest}" if readable else f"import-{digest}")


def _asked(entry: RawFile, name: str) -> dict[str, str]:
    """The search, as a `query.json` beside the answer tells it; else an import of that name."""
    note = _read_note(entry.file.parent / NOTE) if entry.layout == "ours" else {}
    if note.get("engine") == entry.engine and note.get("kind") in ("image", "keyword", "import"):
        return {key: note.get(key, default) for key, default in _ASKED.items()}
    return _ASKED | {"text": name}


def _read_note(path: Path) -> dict[str, str]:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_NOTE:
            return {}
        note, _ = load_json(path.read_bytes())
    except (OSError, ParseError):
        return {}
    if not isinstance(note, dict):
        return {}
    note["params"] = orjson.dumps(mapping(note.get("params")), option=orjson.OPT_SORT_KEYS).decode()
    return {key: storable(value) for key, value in note.items() if isinstance(value, str)}
