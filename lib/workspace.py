"""The workspace, one folder that the steps share: its paths, and the locks of its steps.

The system lets a lock go when the process ends, however that happens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib.errors import GleanerError, UsageError
from lib.text import path_as_text

DATABASE_NAME = "gleaner.db"
SETTINGS_NAME = "gleaner.toml"
# Folders that the steps write to, and how many floors of folders they make in them. Runs and queries can be many.
FLOORS = {"xhr": 2, "images": 1, "quarantine": 1, "sorted": 2, "reports": 2, "backups": 0}
MARKS = frozenset({SETTINGS_NAME, "xhr", "quarantine"})  # nobody else has a folder of these names in all likelihood
# May lie in a folder that is going to be a workspace: what else we make there, and what systems leave behind.
BESIDE = frozenset({"export", "browser-profile", "lost+found", "desktop.ini", "Thumbs.db", "thumbs.db"})
NAMED = 3  # foreign files that a sentence names
OWN_FOLDER = "give a folder of its own, which is made where there is none"

if sys.platform == "win32":

    def _lock(handle: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _lock(handle: int) -> bool:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class _Below:
    """A place in a workspace, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, workspace: Workspace, owner: type | None = None) -> Path:
        return workspace.root / self.name


@dataclass(frozen=True)
class Workspace:
    """Paths only: asking for one creates nothing."""

    root: Path

    database = _Below(DATABASE_NAME)
    settings = _Below(SETTINGS_NAME)
    xhr, images, quarantine = _Below("xhr"), _Below("images"), _Below("quarantine")
    sorted, reports, backups = _Below("sorted"), _Below("reports"), _Below("backups")

    def to_text(self, path: Path) -> str:
        """Writes a path as the database does: relative with forward slashes inside the workspace, else absolute."""
        absolute = path.absolute()
        try:
            return absolute.relative_to(self.root.absolute()).as_posix()
        except ValueError:
            return absolute.as_posix()

    def to_path(self, text: str) -> Path:
        """The path that `to_text` wrote down."""
        pure = PurePosixPath(text)
        return Path(pure) if pure.is_absolute() else self.root / Path(pure)

    def refuse_odd_root(self) -> None:
        """Raises UsageError for a path that no folder can have or that something else has."""
        text = os.fspath(self.root)
        if "\0" in text:
            raise UsageError("--workspace holds a null character, which no path can; give another one.")
        absolute = os.path.abspath(text)
        try:
            absolute.encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(f"the workspace's path {absolute} is not UTF-8; rename that folder or give another "
                             "--workspace.") from None  # fmt: skip
        place = Path(absolute)
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not place.is_dir() and os.path.lexists(place):
            raise UsageError(f"{place} is no folder; give another --workspace.")

    def refuse_foreign(self, inputs: Iterable[Path] = ()) -> None:
        """Raises UsageError for the root of a file system, the home folder, and a folder of somebody's own files.

        A database or a settings file makes a folder a workspace, whatever else is in it. `inputs` are the paths that the
        command line names: what leads to them, such as a folder of query pictures, may lie in the workspace.
        """
        root = Path(os.path.realpath(self.root))
        if root == root.parent:
            raise UsageError(f"--workspace {self.root} is the root of a file system; {OWN_FOLDER}.")
        names = _names_in(root)
        if names & MARKS or any(name.startswith(DATABASE_NAME) for name in names):
            return
        if names and root == Path(os.path.realpath(os.path.expanduser("~"))):
            raise UsageError(f"--workspace {self.root} is your home folder; {OWN_FOLDER}.")
        given = [Path(os.path.realpath(path)) for path in inputs]
        foreign = sorted(
            name
            for name in names - BESIDE - FLOORS.keys()
            if not name.startswith(".") and not any(path.is_relative_to(root / name) for path in given)
        )
        if foreign:
            some = ", ".join(path_as_text(name) for name in foreign[:NAMED])
            more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
            raise UsageError(f"--workspace {self.root} is no workspace and holds other files ({some}{more}); {OWN_FOLDER}.")

    def refuse_links(self) -> None:
        """Raises UsageError where one of the steps' folders is a link: what they write would end up elsewhere."""
        for name, floors in FLOORS.items():
            for path in _links(self.root / name, floors):
                raise UsageError(f"{path} is a link; put a folder in its place and run this again.")


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:  # not there, or not to be read: whoever opens it says so
        return set()


def _links(folder: Path, floors: int) -> Iterator[str]:
    """The folder itself where it is a link, and links to folders within it. Pictures may be links to files."""
    if os.path.islink(folder):
        yield os.fspath(folder)
        return
    pending = [(os.fspath(folder), floors)]
    while pending:
        path, left = pending.pop()
        if not left:
            continue
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        if entry.is_dir():
                            yield entry.path
                    elif left > 1 and entry.is_dir():
                        pending.append((entry.path, left - 1))
        except OSError:  # not there, no folder, not to be read: whoever writes to it says so
            continue


def step_lock(root: Path, step: str) -> Path:
    """The lock that a step which keeps a journal holds in a workspace while it is at work."""
    return root / f".{step}.lock"


@contextmanager
def file_lock(path: Path, busy: str) -> Iterator[None]:
    """Holds the lock file `path`; raises GleanerError with the sentence `busy` when another process has it.

    The file stays: removing it would let two processes hold locks on two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(handle):
            raise GleanerError(busy)
        yield
    finally:
        os.close(handle)
