"""The writer threads, which check, hash, write and rename finished bodies. They alone touch the pictures' place."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lib.db import Database, open_for_preview
from lib.db.downloads import describe_picture, is_path_of_another, known_file
from lib.db.duplicates import REMOVED, is_removed
from lib.db.files import FileRow
from lib.download.body import PLACEHOLDER, Body, Placeholders, contents
from lib.download.options import DownloadOptions
from lib.download.picture import StoredFile
from lib.download.targets import Target, local_path, make_target
from lib.download.verify import MOST_FRAMES, Verifier, has_decoder
from lib.errors import GleanerError
from lib.files.names import DIGITS, PARTS, file_name, part_owner, read_name, shelf
from lib.images.decode import NO_DECODER, DecodeError, Header, read_header
from lib.images.formats import JPEG, NOT_AN_IMAGE, Buffer, Format, refusal, sniff
from lib.images.structure import find_fault, size_of_structure, trailing_bytes
from lib.journal.moves import free_target, move_without_overwriting
from lib.workspace import Workspace

log = logging.getLogger("gleaner.download")

LOCKS = 64
SET_ASIDE = "not-as-named"  # in the quarantine: files in the way of a picture that are not what their names say
# Formats in which much passes for a picture until it is decoded; they are rare enough for that. Where the decoder at
# hand does not know one, its structure alone says whether it is whole.
_DECODED = frozenset({"avif", "heic", "jxl", "jpeg2000", "tiff", "ico", "bmp"})

# Formats of which the structure says where they end; a TIFF's pages may lie anywhere.
_SHOWS_ITS_END = frozenset({"jpg", "png", "gif", "webp", "bmp", "ico", "avif", "heic", "jp2", "j2k", "jxl"})
_MORE_PICTURES = b"MPF\0"  # in the header of a JPEG that other pictures follow
LONGEST_HEADER = 256 * 1024
MOST_BEHIND = 64  # bytes of padding behind a whole picture
_PADDING = b"\0\t\r\n "

Task = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class FileStore:
    """Lives in the writer threads: `store` and `register` are called there only."""

    def __init__(self, workspace: Workspace, options: DownloadOptions, placeholders: Placeholders, verifier: Verifier):
        self.workspace, self.options = workspace, options
        self.placeholders, self.verifier = placeholders, verifier
        self.target: Target = make_target(workspace, options.to)
        self.parts = workspace.images / PARTS
        self.parts_text = str(self.parts)
        self.numbers = itertools.count()
        self.owner = part_owner()
        # Contents that were written but whose rows are not committed yet: the database cannot know them.
        self.fresh: dict[str, FileRow] = {}
        self.locks = [threading.Lock() for _ in range(LOCKS)]
        self._readers = threading.local()

    def temporary(self) -> str:
        """A new name for a file that is not finished; it tells the next run whose it was."""
        return f"{self.parts_text}/{self.owner}-{next(self.numbers)}.part"

    def store(self, key: str, kind: str, body: Body, more_than: int = 0) -> StoredFile:
        """Checks a body and brings it under its final name, unless its content is there already.

        `more_than` refuses a picture that has no more pixels than the one that it would replace. Raises OSError or
        GleanerError for what is wrong with the disk.
        """
        with contents(body) as data:
            source = data if isinstance(data, bytes) else Path(body.path or "")
            found, header, reason, detail = self._examine(data, source)
            if not reason and more_than and header.width * header.height <= more_than:
                reason, detail = "not_better", f"{header.width}x{header.height}"
            if reason or found is None:
                return StoredFile(reason, detail)
            if trailing := trailing_bytes(data, found, exact=self.options.strip_trailing):
                data = bytes(data[: len(data) - trailing]) if self.options.strip_trailing else data
            sha256 = hashlib.sha256(data).hexdigest()
            if self.placeholders.sha256 and sha256 in self.placeholders.sha256:
                return StoredFile(PLACEHOLDER, self.placeholders.sha256[sha256])
            reason, detail = self._verify(data, body.path or data, found)
            if reason:
                return StoredFile(reason, detail)
            with self.locks[int(sha256[:2], 16) % LOCKS]:  # two threads with one content write it once
                known, restores = self._known(sha256)
                size = len(data)
                if known:
                    return StoredFile("", "", sha256, found, self.fresh.get(sha256), trailing=trailing, bytes=size)
                if restores and is_removed(self.reader(), sha256):
                    return StoredFile(REMOVED, "step 6 took this content away as a repeat")
                name = self._write(key, kind, body, data, header, sha256, found)
                row = self._row(self.target.text(name), sha256, found, header, size)
        return StoredFile("", "", sha256, found, row, restores, trailing, size)

    def ends_well(self, body: Body) -> bool:
        """Tells if a body whose transfer broke off is a whole picture: its structure ends where the bytes end.

        A format whose end does not show, and a picture behind which another one belongs, cannot be told from a cut one.
        """
        with contents(body) as data:
            found = sniff(data) if len(data) else None
            if found is None or found.extension not in _SHOWS_ITS_END or find_fault(data, found)[0]:
                return False
            if found is JPEG and data[:LONGEST_HEADER].find(_MORE_PICTURES) >= 0:
                return False
            behind = trailing_bytes(data, found, exact=True)
            return behind <= MOST_BEHIND and not data[len(data) - behind :].strip(_PADDING)

    def register(self, path: Path, digits: str) -> StoredFile:
        """Takes over a whole file that an earlier run left without a row; `gone` when it is not what its name says."""
        try:
            data = path.read_bytes()
        except OSError as error:
            return StoredFile("gone", str(error))
        sha256 = hashlib.sha256(data).hexdigest()
        found, header, reason, detail = self._examine(data, data)
        if not reason and found is not None:
            reason, detail = self._verify(data, data, found)
        if reason or found is None or not digits or not sha256.startswith(digits):
            return StoredFile(reason or "gone", detail)
        known, restores = self._known(sha256)
        if known:
            if local_path(self.workspace, known) != path:
                path.unlink(missing_ok=True)
            return StoredFile(sha256=sha256, format=found, file=self.fresh.get(sha256), bytes=len(data))
        row = self._row(self.workspace.to_text(path), sha256, found, header, len(data))
        return StoredFile("", "", sha256, found, row, restores, bytes=len(data))

    def committed(self, hashes: Iterable[str]) -> None:
        """Forgets these contents: their rows are in the database now."""
        for sha256 in hashes:
            self.fresh.pop(sha256, None)

    def reader(self) -> Database:
        """This thread's own connection, for looking things up."""
        found: Database | None = getattr(self._readers, "db", None)
        if found is None:
            found = self._readers.db = open_for_preview(self.workspace.database)
        return found

    def close_reader(self) -> None:
        """Closes this thread's connection."""
        found: Database | None = getattr(self._readers, "db", None)
        if found is not None:
            found.close()

    def _examine(self, data: Buffer, source: bytes | Path) -> tuple[Format | None, Header, str, str]:
        """(format, header, reason, detail): the bytes decide, and the end has to be there."""
        nothing = Header("", 0, 0, 1, 1, "")
        found = sniff(data)
        if found is None:
            return None, nothing, *refusal(data[:512])
        reason, detail = find_fault(data, found)
        if reason:
            return found, nothing, reason, detail
        try:
            header = read_header(source)
        except DecodeError as error:
            if not error.reason.startswith(NO_DECODER):
                return found, nothing, "undecodable" if error.reason == NOT_AN_IMAGE else error.reason, str(error)
            header = Header(found.name, *(size_of_structure(data, found) or (0, 0)), 1, 1, "")
        if header.width < 1 or header.height < 1:
            return found, nothing, NOT_AN_IMAGE, f"{found.name} of no size"
        pixels, limits = header.width * header.height, self.options.pictures
        if pixels > limits.max_pixels:
            return found, header, "too_many_pixels", f"{header.width}x{header.height}"
        if pixels * header.frames > limits.max_frame_pixels:
            return found, header, "too_many_frames", f"{header.frames} frames of {header.width}x{header.height}"
        return found, header, "", ""

    def _verify(self, data: Buffer, source: str | Buffer, found: Format) -> tuple[str, str]:
        """Decodes the whole picture in another process, if that is asked for or its structure alone shows little."""
        if (self.options.verify is None and found.name not in _DECODED) or not has_decoder(found.name):
            return "", ""
        frames = 1 if self.options.verify is None else MOST_FRAMES
        return self.verifier.check(source if isinstance(source, str) else bytes(data), frames)

    def _known(self, sha256: str) -> tuple[str, bool]:
        """(where the content is or was put, False), or ("", whether a row waits for it to come back)."""
        if sha256 in self.fresh:
            return self.fresh[sha256].path, False
        path, state = known_file(self.reader(), sha256) or ("", "")
        if not path:
            return "", False
        if state == "present":
            local = local_path(self.workspace, path)
            is_there = local.exists() if local else self.target.local or self.target.exists(path)
        return (path, False) if state == "quarantined" or (state == "present" and is_there) else ("", True)

    def _write(self, key: str, kind: str, body: Body, data: Buffer, header: Header, sha256: str, found: Format) -> str:
        """Brings a body under the shortest name that is free or its own; gives the name. Nothing is overwritten."""
        whole = body.path if len(data) == body.size else None  # a stripped one is written anew
        if whole is not None:
            body.forget_note()  # a kill while the file has two names must not leave one of them to be gone on with
        text = ""
        for digits in DIGITS:
            plain = file_name(key, kind, header.width, header.height, sha256, found.extension, digits)
            name = f"{shelf(key)}/{plain}"
            text = self.target.text(name)
            if is_path_of_another(self.reader(), text, sha256):
                continue
            if self.options.sidecar:
                if self._holds_another(text, sha256):
                    continue
                self._write_sidecar(name, key, kind, body.asked, sha256, header)
            if self.target.write_new(whole, data, name, self.temporary()) or (
                not self._holds_another(text, sha256) and self.target.write_new(whole, data, name, self.temporary())
            ):
                if whole is not None:
                    body.path = None
                return name
            if self.target.sha256(text) == sha256:  # a killed run came as far as here
                return name
        raise GleanerError(f"{text} holds another picture than its name says; move it away and run this again.")

    def _holds_another(self, text: str, sha256: str) -> bool:
        """Tells if another picture lies under a name. A file that is not what its name says is moved out of the way."""
        found = self.target.sha256(text)
        if found in ("", sha256):
            return False
        _, _, digits = read_name(text.rpartition("/")[2]) or ("", "", "")
        path = local_path(self.workspace, text)
        if path is None or found.startswith(digits):
            return True
        aside = free_target(self.workspace.quarantine / SET_ASIDE / path.name, set())
        move_without_overwriting(path, aside)
        log.warning("%s was not the picture that its name says; it lies in %s now", text, self.workspace.to_text(aside))
        return False

    def _row(self, text: str, sha256: str, found: Format, header: Header, size: int) -> FileRow:
        row = FileRow(
            sha256, text, size, found.name, header.width or None, header.height or None,
            header.frames, header.orientation,
        )  # fmt: skip
        self.fresh[sha256] = row
        return row

    def _write_sidecar(self, name: str, key: str, kind: str, url: str, sha256: str, header: Header) -> None:
        """Writes `<picture>.json` before the picture itself, so that no picture lacks it; `url` won. Raises OSError."""
        sizes = {"format": header.format, "width": header.width, "height": header.height}
        known = {"file_name": name.rpartition("/")[2], "id": key, "sha256": sha256, "kind": kind, **sizes}
        known |= {**describe_picture(self.reader(), key), "image_url": url}
        told = json.dumps({name: value for name, value in known.items() if value not in ("", None)}, ensure_ascii=False)
        self.target.write(None, told.encode("utf-8", "replace"), f"{name}.json", self.temporary())


class Writers:
    """A few threads for one loop, to which results come back in handfuls; each does `last` before it ends.

    An executor's futures cost more than the write of a small file.
    """

    def __init__(self, count: int, last: Callable[[], None]):
        self.tasks: SimpleQueue[Task | None] = SimpleQueue()
        self.done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self.told = False  # that something is done
        self.last = last
        self.threads = [Thread(target=self._work, name=f"writer-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """To be called in the loop."""
        self.loop = asyncio.get_running_loop()
        for thread in self.threads:
            thread.start()

    def run(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Hands in a call; what it gives or raises is the future's."""
        future = self.loop.create_future()
        self.tasks.put((future, work, arguments))
        return future

    def close(self) -> None:
        """Waits until everything that was handed in is done."""
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            future, work, arguments = task
            try:
                self.done.append((future, work(*arguments), None))
            except BaseException as error:
                self.done.append((future, None, error))
            if not self.told:  # a second word while the first is on its way does no harm
                self.told = True
                with suppress(RuntimeError):  # the loop has ended and nobody waits
                    self.loop.call_soon_threadsafe(self._deliver)
        self.last()

    def _deliver(self) -> None:
        self.told = False
        while self.done:
            future, result, error = self.done.popleft()
            if future.done():  # whoever waited was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
