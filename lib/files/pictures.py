"""Finds files: the pictures of the workspace or of any folder, other plain files, and what killed runs left behind.

A file or folder that cannot be read is handed to the caller and never ends the search.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lib.db import Database
from lib.db.files import KnownContent, iter_present_files, known_contents, remember_contents
from lib.errors import UsageError
from lib.images.formats import sniff
from lib.progress import BarFactory, chunked, no_bar
from lib.temporary import clear_dead, is_temporary
from lib.text import is_storable
from lib.workspace import Workspace

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .avif .heic .heif .jp2 .j2k"
    " .ppm .pgm .pbm .pnm .tga .ico .mpo .pcx .jxl".split()
)
# Files that tell of pictures; they are passed over without a word.
NOTES = frozenset(".json .jsonl .csv .txt .xmp".split())
CAMERA_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srf .srw"
    " .x3f".split()
)
# Downloads that are under way or were broken off, ours and those of browsers and other tools.
UNFINISHED = frozenset(".part .partial .crdownload .download .aria2".split())
Unreadable = Callable[[Path, OSError], None]
NotTaken = Callable[[Path, str], None]  # (path, reason) of a file that is passed over

BLOCK = 1000  # files that are looked up at once
SKIPPED_FOLDERS = frozenset({"$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "#recycle"})

log = logging.getLogger("gleaner")

ANSWERS = ("collect", "ingest")  # the steps that write below xhr/


@dataclass(frozen=True)
class PictureFile:
    """A picture on disk: where it lies, which content it has, and how large it is in bytes."""

    path: Path
    sha256: str
    bytes: int
    mtime_ns: int
    root: Path  # the folder it was found under; quarantine keeps the path relative to it


def workspace_pictures(
    db: Database, workspace: Workspace, limit: int | None = None, *, missing: list[tuple[str, str]] | None = None
) -> Iterator[PictureFile]:
    """Every file that the database holds as present and that lies on disk, or the first `limit` of those it holds.

    `missing` gets (content, path as the database has it) of those that do not lie there.
    """
    for sha256, text in islice(iter_present_files(db), limit):
        path = workspace.to_path(text)
        try:
            status = path.stat()
        except OSError:
            if missing is not None:
                missing.append((sha256, text))
            continue  # `2_ingest_db.py --check` reports it; a step that only reads leaves the row alone
        yield PictureFile(path, sha256, status.st_size, status.st_mtime_ns, workspace.root)


def folder_pictures(
    db: Database,
    folders: Sequence[Path],
    *,
    remember: bool,
    unreadable: Unreadable = lambda path, error: None,
    bar: BarFactory = no_bar,
    limit: int | None = None,
    passed_over: NotTaken | None = None,
) -> Iterator[PictureFile]:
    """Every picture file below the folders, sorted by path; each file once, links and trash left out.

    With `limit` only the first of them; what lies behind is not read. Under an ending that is none of a picture the
    bytes decide; what they make no picture goes to `passed_over` with the reason, or is told in the log without it.

    A file whose size, time and inode are as the database knows them is not read again. With `remember` new contents
    are written to that cache (a dry run passes False). A file that cannot be read is handed to `unreadable`.
    Raises UsageError for a folder that does not exist.
    """
    # Text and shared folders: a million `Path`s would take more memory than all the rest.
    names, roots = list[str](), list[Path]()
    told = PassedOver()
    for path, root in islice(find_files(folders, unreadable, passed_over or told), limit):
        if is_storable(str(path.absolute())):
            names.append(str(path))
            roots.append(root)
        else:  # the database, JSON and pages hold text; such a file is told of and left alone
            unreadable(path, OSError(errno.EILSEQ, "the name is no UTF-8", str(path)))
    if told.reasons:
        log.info("passed over: %s", ", ".join(f"{count} {reason}" for reason, count in sorted(told.reasons.items())))
    with bar(len(names), "Reading", "file") as progress:
        for block in chunked(zip(map(Path, names), roots, strict=True), BLOCK):
            known = known_contents(db, [str(path.absolute()) for path, _ in block])
            fresh: list[KnownContent] = []
            for path, root in block:
                progress.update()
                try:
                    picture, content = _picture(path, root, known.get(str(path.absolute())))
                except OSError as error:
                    unreadable(path, error)
                    continue
                if content:
                    fresh.append(content)
                yield picture
            if remember and fresh:
                remember_contents(db, fresh)


def find_files(
    folders: Iterable[Path],
    unreadable: Unreadable = lambda path, error: None,
    passed_over: NotTaken = lambda path, reason: None,
) -> Iterator[tuple[Path, Path]]:
    """(file, folder it was found under) for every picture file, each real file once.

    A folder below that may not be read is handed to `unreadable`. Raises UsageError where a named folder may not.
    """
    folders = list(folders)
    roots = [Path(os.path.realpath(folder)) for folder in folders]
    overlap = len(set(roots)) < len(roots) or any(one in other.parents for one in roots for other in roots)
    seen: set[str] = set()
    real: dict[str, str] = {}  # folder -> without links; the files themselves are no links
    for folder in folders:
        if folder.is_file():
            yield folder, folder.parent
            continue
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; give the path of one that exists.")
        if not os.access(folder, os.R_OK | os.X_OK):
            raise UsageError(f"{folder} may not be read; check its permissions.")
        for path in _walk(folder, unreadable, passed_over):
            # A file reached twice (nested folders on the command line) is one file, not a repeat of itself. Hard
            # links are two names of one content, and step 6 must see both.
            parent, name = os.path.split(path)
            if not overlap:
                yield path, folder
                continue
            if parent not in real:
                real[parent] = os.path.realpath(parent)
            identity = os.path.join(real[parent], name)
            if identity not in seen:
                seen.add(identity)
                yield path, folder


def _walk(folder: Path, unreadable: Unreadable, passed_over: NotTaken) -> Iterator[Path]:
    def report(error: OSError) -> None:
        unreadable(Path(error.filename or folder), error)

    for current, folders, files in os.walk(folder, followlinks=False, onerror=report):
        folders[:] = sorted(
            name for name in folders if name not in SKIPPED_FOLDERS and not name.lower().startswith(".trash")
        )
        for name in sorted(files):
            path = Path(current) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith("._") and _is_regular(path):
                yield path
            else:
                reason = _not_taken(path)
                if not reason:
                    yield path
                elif reason != "note":
                    passed_over(path, reason)


def _not_taken(path: Path) -> str:
    """Returns the reason why a file under another ending is no picture; empty where its bytes are one's."""
    if path.name.startswith("._"):
        return "hidden_file"
    if not _is_regular(path):
        return "no_plain_file"
    if path.suffix.lower() in CAMERA_RAW:  # most begin like a TIFF, which holds a small preview only
        return "camera_raw"
    if is_temporary(path.name) or path.suffix.lower() in UNFINISHED:
        return "unfinished_file"
    try:
        with path.open("rb") as handle:
            found = sniff(handle.read(512))
    except OSError:
        return "unreadable"
    if found:
        return ""
    return "note" if path.suffix.lower() in NOTES else "not_a_picture"


def _is_regular(path: Path) -> bool:
    """No link, and no pipe or device, which would block for ever when read."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return True  # reading it will tell the reason


def _picture(path: Path, root: Path, known: KnownContent | None) -> tuple[PictureFile, KnownContent | None]:
    status = path.stat()
    if known and (known.bytes, known.mtime_ns, known.inode) == (status.st_size, status.st_mtime_ns, status.st_ino):
        return PictureFile(path, known.sha256, status.st_size, status.st_mtime_ns, root), None
    sha256 = sha256_of(path)
    content = KnownContent(str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino, sha256)
    return PictureFile(path, sha256, status.st_size, status.st_mtime_ns, root), content


def text_name(path: Path, workspace: Workspace) -> str:
    """A path as the database writes it. Raises OSError for a name that is no text."""
    text = workspace.to_text(path)
    if not is_storable(text):
        raise OSError(errno.EILSEQ, "the name is no UTF-8", str(path))
    return text


@dataclass(frozen=True)
class UnreadableFiles:
    """Files and folders that could not be read: said aloud, and counted by reason."""

    reasons: Counter[str] = field(default_factory=Counter)

    def __call__(self, path: Path, error: OSError) -> None:
        log.warning("%s cannot be read (%s); it is left out", path, error.strerror or error)
        self.reasons["unreadable_folder" if path.is_dir() else "unreadable_file"] += 1


@dataclass(frozen=True)
class PassedOver:
    """Files below a folder that are no pictures, counted by reason: for `folder_pictures` and a step's summary.

    What the workspace itself consists of is nobody's picture and counts only where it lies below a folder asked for
    by name.
    """

    workspace: Path | None = None
    folders: Sequence[Path] = ()
    reasons: Counter[str] = field(default_factory=Counter)

    def __call__(self, path: Path, reason: str) -> None:
        if self.workspace is None or not self._is_own(path):
            self.reasons[reason] += 1

    def _is_own(self, path: Path) -> bool:
        own = Path(os.path.realpath(str(self.workspace)))
        asked = (Path(os.path.realpath(folder)) for folder in self.folders)
        inside = own in Path(os.path.realpath(path)).parents
        return inside and not any(folder == own or own in folder.parents for folder in asked)

    def counts(self) -> dict[str, int | float | str]:
        """Returns the counts as a step's summary names them; none where nothing was passed over."""
        if not self.reasons:
            return {}
        found: dict[str, int | float | str] = {"passed_over": self.reasons.total()}
        return found | {f"passed_over_{reason}": count for reason, count in sorted(self.reasons.items())}


def plain_files(
    folder: Path, unreadable: Unreadable, wanted: Callable[[str], bool], *, hidden: bool = True
) -> Iterator[Path]:
    """Every file below a folder whose name is wanted, sorted; without `hidden`, no folder whose name has a dot first.

    A folder that may not be read goes to `unreadable`, and so does a link to nothing, a pipe or a device: reading one
    of those would wait for ever. The folder itself need not be there.
    """

    def report(error: OSError) -> None:
        path = Path(error.filename or folder)
        if path != folder or not isinstance(error, FileNotFoundError):
            unreadable(path, error)

    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
        for name in sorted(filter(wanted, names)):
            path = Path(parent, name)
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise OSError(errno.EINVAL, "it is no plain file", str(path))
            except OSError as error:
                unreadable(path, error)
            else:
                yield path


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def clear_leftovers(workspace: Workspace, step: str) -> int:
    """Removes what killed runs left where this step writes; gives the number of files.

    The pictures' folder holds too many files to be walked through by every run: step 5 keeps its temporary ones in
    a folder of their own, and an import of pictures looks for its own.
    """
    found = sum(clear_dead(folder) for folder in (workspace.root, workspace.backups, workspace.reports))
    if step in ANSWERS:
        found += clear_dead(workspace.xhr, deep=True)
    return found
