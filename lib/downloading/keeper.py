"""What the writer thread does with a finished body: check, hash, write, rename. It alone touches `images/`."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lib.db import Database, open_for_preview
from lib.db.downloads import known_file
from lib.db.files import FileRow
from lib.decode import DecodeError, Header, read_header
from lib.downloading.body import Body, Contents
from lib.downloading.names import file_name, shelf
from lib.media import Buffer, Format, boxed_size, check_end, refusal, sniff
from lib.workspace import Workspace

PARTS = ".part"  # the folder of temporary files: on the same file system as the final names, empty between two runs
# Formats that the decoder at hand may be unable to open although they are sound.
_SELDOM_DECODED = frozenset({"avif", "heic", "jxl", "jpeg2000"})


@dataclass(frozen=True)
class Kept:
    """What became of a body. `reason` is empty when its content is (now) known; `file` is set when it was written."""

    reason: str = ""
    detail: str = ""
    sha256: str = ""
    format: Format | None = None
    file: FileRow | None = None
    restores: bool = False


@dataclass(frozen=True)
class PictureLimits:
    """The largest picture that is kept, in pixels; all frames of an animation together may have ten times as many."""

    max_pixels: int = 200_000_000

    @property
    def max_frame_pixels(self) -> int:
        return 10 * self.max_pixels


class Keeper:
    """Lives in one writer thread: `keep` and `close` are called there only."""

    def __init__(self, workspace: Workspace, limits: PictureLimits):
        self.workspace, self.limits = workspace, limits
        self.root = str(workspace.root)
        self.parts = workspace.images / PARTS
        self.parts_text = str(self.parts)
        self.numbers = itertools.count()
        self.owner = part_owner()
        # Contents that were written but whose rows are not committed yet: the database cannot know them.
        self.fresh: dict[str, FileRow] = {}
        self._reader: Database | None = None

    def temporary(self) -> str:
        """A new name for a file that is not finished; it tells the next run whose it was."""
        # Strings rather than `Path` here and in the functions below: they take a third of the time of a small file.
        return f"{self.parts_text}/{self.owner}-{next(self.numbers)}.part"

    def keep(self, image_id: str, kind: str, body: Body) -> Kept:
        """Checks a body and brings it under its final name, unless its content is there already.

        Raises OSError for what is wrong with the disk.
        """
        with Contents(body) as data:
            found, header, reason, detail = self._examine(data, body)
            if reason or found is None:
                return Kept(reason, detail)
            sha256 = hashlib.sha256(data).hexdigest()
            known, restores = self._known(sha256)
            if known is not None:
                return Kept(sha256=sha256, format=found, file=self.fresh.get(sha256))
            name = file_name(image_id, kind, header.width, header.height, sha256, found.extension)
            text = f"{self.workspace.images.name}/{shelf(image_id)}/{name}"
            self._write(os.path.join(self.root, text), data, body)
        return self._written(text, sha256, found, header, body.size, restores)

    def adopt(self, path: Path, sha8: str) -> Kept:
        """Takes over a whole file that an earlier run left without a row; `gone` when it is not what its name says."""
        try:
            data = path.read_bytes()
        except OSError as error:
            return Kept("gone", str(error))
        sha256 = hashlib.sha256(data).hexdigest()
        body = Body(self.temporary, None)  # type: ignore[arg-type]
        body.write(data)
        found, header, reason, detail = self._examine(data, body)
        if reason or found is None or not sha256.startswith(sha8):
            return Kept(reason or "gone", detail)
        known, restores = self._known(sha256)
        if known is not None:
            if known != path:
                path.unlink(missing_ok=True)
            return Kept(sha256=sha256, format=found, file=self.fresh.get(sha256))
        return self._written(self.workspace.to_text(path), sha256, found, header, len(data), restores)

    def committed(self, hashes: Iterable[str]) -> None:
        """The rows of these contents are in the database now."""
        for sha256 in hashes:
            self.fresh.pop(sha256, None)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _examine(self, data: Buffer, body: Body) -> tuple[Format | None, Header, str, str]:
        """(format, header, reason, detail): the bytes decide, and the end has to be there."""
        nothing = Header("", 0, 0, 1, 1, "")
        found = sniff(data)
        if found is None:
            return None, nothing, *refusal(data[:512])
        if reason := check_end(data, found):
            return found, nothing, reason, "the end of the picture is missing"
        try:
            header = read_header(data if isinstance(data, bytes) else Path(body.path or ""))
        except DecodeError as error:
            if found.name not in _SELDOM_DECODED or error.reason not in ("not_an_image", "undecodable"):
                return found, nothing, "undecodable" if error.reason == "not_an_image" else error.reason, str(error)
            header = Header(found.name, *(boxed_size(data) or (0, 0)), 1, 1, "")
        return found, header, *self._too_large(header)

    def _too_large(self, header: Header) -> tuple[str, str]:
        pixels = header.width * header.height
        if pixels > self.limits.max_pixels:
            return "too_many_pixels", f"{header.width}x{header.height}"
        if pixels * header.frames > self.limits.max_frame_pixels:
            return "too_many_frames", f"{header.frames} frames of {header.width}x{header.height}"
        return "", ""

    def _known(self, sha256: str) -> tuple[Path | None, bool]:
        """(where the content is or was put, False), or (None, whether a row waits for it to come back)."""
        if sha256 in self.fresh:
            return self.workspace.to_path(self.fresh[sha256].path), False
        if self._reader is None:
            self._reader = open_for_preview(self.workspace.database)
        row = known_file(self._reader, sha256)
        if row is None:
            return None, False
        path, state = self.workspace.to_path(row[0]), row[1]
        if state == "quarantined" or (state == "present" and path.exists()):
            return path, False
        return None, True

    def _write(self, path: str, data: Buffer, body: Body) -> None:
        temporary = body.path
        if temporary is None:
            temporary = self.temporary()
            try:
                try:
                    _write_new(temporary, data)
                except FileNotFoundError:  # another process that came to its end took the empty folder away
                    os.mkdir(self.parts_text)
                    _write_new(temporary, data)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        try:
            os.replace(temporary, path)
        except FileNotFoundError:  # the shelf's first file
            os.mkdir(os.path.dirname(path))
            os.replace(temporary, path)
        body.path = None

    def _written(self, text: str, sha256: str, found: Format, header: Header, size: int, restores: bool) -> Kept:
        row = FileRow(
            sha256, text, size, found.name, header.width or None, header.height or None,
            header.frames, header.orientation,
        )  # fmt: skip
        self.fresh[sha256] = row
        return Kept(sha256=sha256, format=found, file=row, restores=restores)


def _write_new(path: str, data: Buffer) -> None:
    """Writes a file that must not exist, never through a link that somebody put there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(handle)


def part_owner() -> str:
    """This process as a temporary file's name tells it: machine and process number."""
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f"{machine}-{os.getpid()}"
