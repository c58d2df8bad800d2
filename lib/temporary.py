"""Files that are not finished yet: how they are named, become whole, and are cleared after a kill.

A temporary file lies beside its target as `.<target>.<machine>-<process>-<random>.part`. The name says whose it is, so
that one of a living process is never touched, and no file of a person looks like one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 160  # bytes of the target's name that are kept; file systems allow 255 for the whole
CUT_DIGITS = 8  # of the hash of a name that is cut
STALE_SECONDS = 24 * 3600.0  # after which a temporary file of another machine is given up
START_MARGIN = 2.0  # seconds by which a process may seem to have started later than it did

# SQLite writes files of its own beside a database.
_NAME = re.compile(
    r"\.(?P<target>.+)\.(?P<machine>[0-9a-f]{6})-(?P<process>\d{1,10})-[0-9a-f]{8}\.part(?:-journal|-wal|-shm)?",
    re.DOTALL,
)
_BESIDE = ("", "-journal", "-wal", "-shm")


def temporary_beside(path: Path) -> Path:
    """A new name for a file, or folder, that is going to be `path`."""
    return path.with_name(f".{_short(path.name)}.{machine_mark()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")


@contextmanager
def becoming(path: Path) -> Iterator[Path]:
    """Gives a temporary name to write to; at the end it becomes `path`, after an error nothing is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        for ending in _BESIDE:
            with suppress(OSError):
                os.unlink(f"{temporary}{ending}")


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object], *, synced: bool = False) -> None:
    """Writes a file that is either whole or not there; with `synced` it is on the disk before it gets its name."""
    with becoming(path) as temporary, temporary.open("xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        if synced:
            file.flush()
            os.fsync(file.fileno())


def rename_unless_taken(source: str | Path, target: str | Path) -> None:
    """Gives a file its final name. Raises FileExistsError where that is taken, and leaves both as they are."""
    if sys.platform == "win32":
        os.rename(source, target)  # refuses by itself there
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _rename_where_free(source, target)
    else:
        os.unlink(source)


def _rename_where_free(source: str | Path, target: str | Path) -> None:
    """Looks and renames while no other process does either in that folder."""
    folder = os.open(os.path.dirname(os.path.abspath(target)), os.O_RDONLY)
    try:
        if sys.platform != "win32":  # where a rename refuses by itself
            import fcntl

            with suppress(OSError):  # a network's file system that cannot lock
                fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(source, target)
    finally:
        os.close(folder)


def remove_file(path: str | Path) -> None:
    """Removes a file, one that may not be written too, as everywhere but on Windows."""
    try:
        os.unlink(path)
    except PermissionError:
        if sys.platform != "win32" or os.path.islink(path):
            raise
        os.chmod(path, stat.S_IWRITE)
        os.unlink(path)


def clear_dead(folder: Path, *, target: str = "", deep: bool = False) -> int:
    """Removes the temporary files of processes that are no more; gives their number.

    `target` names the only file whose temporary ones are meant; `deep` goes down into the folders too. What may not be
    removed stays. Links are neither followed nor removed.
    """
    found = 0
    for path in dead_files(folder, target=target, deep=deep):
        with suppress(OSError):
            path.unlink()
            found += 1
    return found


def dead_files(folder: Path, *, target: str = "", deep: bool = False) -> Iterator[Path]:
    """The temporary files below a folder whose process is no more."""
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if deep and entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif (match := _NAME.fullmatch(entry.name)) and _is_dead(entry, match, _short(target)):
                        yield Path(entry.path)
        except OSError:
            continue  # it is not there, or may not be read


def is_temporary(name: str) -> bool:
    """True for a name that `temporary_beside` gives."""
    return _NAME.fullmatch(name) is not None


def process_lives(number: int, changed_at: float | None = None) -> bool:
    """True where a process has this number, and, where a time is given, had it then: numbers are given again."""
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return changed_at is None or time.time() - changed_at < STALE_SECONDS
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        pass
    ended, started = _state(number)
    return not ended and not (changed_at is not None and started and started > changed_at + START_MARGIN)


def _is_dead(entry: os.DirEntry[str], match: re.Match[str], target: str) -> bool:
    innermost = match  # the file that it is going to be: a temporary file may be made by way of another one
    while inner := _NAME.fullmatch(innermost["target"]):
        innermost = inner
    if (target and innermost["target"] != target) or not entry.is_file(follow_symlinks=False):
        return False
    status = entry.stat(follow_symlinks=False)
    # A link to a file has that file's time of change; the other time says when it was made.
    changed_at = max(status.st_mtime, status.st_ctime)
    if match["machine"] != machine_mark():
        return time.time() - changed_at > STALE_SECONDS
    return not process_lives(int(match["process"]), changed_at)


def _short(name: str) -> str:
    return fitting(name, LONGEST_NAME)


def fitting(name: str, length: int) -> str:
    """Returns a name of so many bytes of UTF-8 at most; one that is cut ends in digits that tell it from others."""
    body = name.encode("utf-8", "replace")
    if len(body) <= length:
        return body.decode()
    digits = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:CUT_DIGITS]
    return f"{body[: length - CUT_DIGITS - 1].decode('utf-8', 'ignore')}~{digits}"


def machine_mark() -> str:
    """Six digits that tell this machine from others in the name of a temporary file."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _state(number: int) -> tuple[bool, float]:
    """(whether a process has ended and nobody took note, when it started as seconds since the epoch, 0 if unknown)."""
    if sys.platform != "linux":  # only Linux tells so much
        return False, 0.0
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        system = Path("/proc/stat").read_text(encoding="ascii")
        booted = next(int(line.split()[1]) for line in system.splitlines() if line.startswith("btime "))
        return fields[0] in ("Z", "X"), booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return False, 0.0
