"""The places that pictures are kept at: the workspace's own folder, or any address that fsspec knows."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from lib.errors import GleanerError, UsageError
from lib.files.pictures import sha256_of
from lib.images.formats import Buffer
from lib.temporary import rename_unless_taken
from lib.text import redact, without_user
from lib.workspace import Workspace

# Stores that show an object only when it is whole; anywhere else a file is written aside and renamed.
WHOLE_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "hf", "memory"})


_OF_THIS_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})
# What fsspec reads, and writes nowhere or into a file that has to be there first.
READ_ONLY = frozenset(
    "http https github git data reference jlab jupyter libarchive tar zip dir filecache simplecache blockcache cached"
    " generic dask asynclocal lazyreference async_wrapper".split()
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")  # one letter is a drive
_DAMAGED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)//")


def check_address(address: str) -> None:
    """Raises UsageError for an address that no file can be kept at: a typing error makes no folder of its name."""
    if "\0" in address:
        raise UsageError("--to holds a null character, which no path can; give another one.")
    found = _SCHEME.match(address)
    if found and found[2]:
        _check_protocol(address, found[1].lower())
    elif address:
        _check_path(address, found[1] if found else "")
    if address and not is_elsewhere(address):
        place = os.path.abspath(address.partition("://")[2] or address)
        while not os.path.lexists(place) and place != os.path.dirname(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise UsageError(f"--to {address}: {place} is no folder; give another path.")


def _check_protocol(address: str, name: str) -> None:
    known, shown = _protocols(), without_user(address)
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f"did you mean {near[0]}://?" if near else "give one of those that its documentation lists."
        raise UsageError(f"--to {shown} cannot be used, since fsspec knows no {name}://; {hint}")
    if name in READ_ONLY or "::" in address:
        raise UsageError(f"--to {shown} can only be read; give a folder or a store that takes files.")
    try:
        _fsspec().get_filesystem_class(name)
    except ImportError as error:
        raise UsageError(f"--to {shown} needs a package that is not installed ({_words(error)}).") from error
    if name in ("file", "local") and not address.partition("://")[2].startswith("/"):
        raise UsageError(f"--to {shown} names no folder of this machine; write {name}:///….")


def _check_path(address: str, scheme: str) -> None:
    """Refuses a path that was meant for an address, unless there is such a folder."""
    if os.path.isdir(address):
        return
    damaged = _DAMAGED.match(address)
    if scheme or address.startswith((":", "~")):
        raise UsageError(f"--to {address} is no path and no address; write ./{address} or PROTOCOL://….")
    if damaged and damaged[1] in _protocols():
        raise UsageError(f"--to {address} lacks its colon; write {damaged[1]}://….")


def _protocols() -> set[str]:
    return {*_fsspec().available_protocols(), *_fsspec().registry}


def _fsspec() -> ModuleType:
    """The library, which takes a while to load and is seldom needed."""
    import fsspec

    return fsspec


def make_target(workspace: Workspace, address: str) -> Target:
    """The workspace's `images/` for an empty address. Raises UsageError for one that cannot be used."""
    return RemoteTarget(workspace, address) if address else LocalTarget(workspace)


def is_elsewhere(address: str) -> bool:
    """Tells if what lies at an address is no file of this machine, so that the steps after this one do not find it."""
    return "://" in address and not address.startswith(("file://", "local://"))


class LocalTarget:
    """The folder `images/` of the workspace: takes whole files under names such as `ab/name.jpg`."""

    local = True

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        # Strings rather than `Path` in what follows: they take a third of the time of a small file.
        self.root = str(workspace.images)
        self.folder = workspace.images.name
        self.shelves: set[str] = set()

    def text(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def exists(self, text: str) -> bool:
        return self.workspace.to_path(text).exists()

    def remove(self, text: str) -> None:
        self.workspace.to_path(text).unlink(missing_ok=True)

    def sha256(self, text: str) -> str:
        """The hash of the content under a name; empty where that is no file."""
        path = self.workspace.to_path(text)
        return sha256_of(path) if path.is_file() and not path.is_symlink() else ""

    def write(self, temporary: str | None, data: Buffer, name: str, aside: str) -> None:
        """Brings a temporary file, or data through one at `aside`, under its final name. Raises OSError."""
        self._write(temporary, data, name, aside, os.replace)

    def write_new(self, temporary: str | None, data: Buffer, name: str, aside: str) -> bool:
        """The same, but never over another file: False where the name is taken. Raises OSError."""
        if temporary is not None:
            _sync(temporary)  # a large one: it costs more to fetch again than to wait for
        try:
            self._write(temporary, data, name, aside, rename_unless_taken)
        except FileExistsError:
            if not _is_void(f"{self.root}/{name}"):
                return False
            self._write(temporary, data, name, aside, os.replace)
        return True

    def _write(
        self, temporary: str | None, data: Buffer, name: str, aside: str, rename: Callable[[str, str], None]
    ) -> None:
        path, shelf = f"{self.root}/{name}", name[:2]
        if shelf not in self.shelves:
            if os.path.islink(f"{self.root}/{shelf}"):  # it would lead files out of the workspace
                raise GleanerError(f"{self.root}/{shelf} is a link; put a folder in its place and run this again.")
            self.shelves.add(shelf)
        try:
            if temporary is None:
                # Another process that came to its end may have taken the empty folder away.
                _in_folder_of(aside, lambda: _write_aside(aside, data))
            _in_folder_of(path, lambda: rename(temporary or aside, path))  # of the shelf's first file
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise


class RemoteTarget:
    """A folder at any address that fsspec knows. The files' rows hold whole addresses, or paths on this machine."""

    local = False

    def __init__(self, workspace: Workspace, address: str):
        try:
            self.files, path = _fsspec().core.url_to_fs(address)
        except ImportError as error:
            needed = "needs a package that is not installed"
            raise UsageError(f"--to {without_user(address)} {needed} ({_words(error)}).") from error
        except Exception as error:  # every store has exceptions of its own
            raise UsageError(f"--to {without_user(address)} cannot be used ({_words(error)}).") from error
        self.workspace, self.elsewhere = workspace, is_elsewhere(address)
        # Rows hold no password; who reads the files brings credentials as the address's own library wants them.
        self.address, self.path = without_user(address).rstrip("/"), str(path).rstrip("/")
        names = self.files.protocol
        self.protocols = {names} if isinstance(names, str) else set(names)
        self.whole = bool(self.protocols & WHOLE_OBJECTS)
        self.shelves: set[str] = set()

    def text(self, name: str) -> str:
        return f"{self.address}/{name}" if self.elsewhere else self.workspace.to_text(Path(self.path, name))

    def _at(self, text: str) -> str:
        if not self.elsewhere:
            return str(self.workspace.to_path(text))
        return f"{self.path}/{without_user(text).removeprefix(self.address).lstrip('/')}"

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns the exceptions of the address's own library into a sentence. A disk of this machine has its own."""
        try:
            yield
        except GleanerError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and not self.elsewhere):
                raise
            if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
                raise
            hint = "check the address and its credentials, and run the same command again"
            raise GleanerError(f"{self.address} {what} ({_words(error)}); {hint}.") from error

    def probe(self) -> None:
        """Asks the address once, before anything is fetched for it. Raises GleanerError where it cannot be used."""
        if "memory" in self.protocols:
            return
        with contextlib.suppress(FileNotFoundError), self._explained("cannot be used"):
            self.files.info(self.path or "/")

    def exists(self, text: str) -> bool:
        with self._explained("cannot be asked"):
            return bool(self.files.exists(self._at(text)))

    def remove(self, text: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self._at(text))

    def fetch(self, text: str, path: str) -> None:
        """Writes a copy of a file to a path of this machine. Raises FileNotFoundError, GleanerError or OSError."""
        with self._explained("gives no file"):
            self.files.get_file(self._at(text), path)

    def sha256(self, text: str) -> str:
        """The hash of the content under a name; empty where nothing lies there."""
        digest = hashlib.sha256()
        try:
            with self._explained("cannot be read"), self.files.open(self._at(text), "rb") as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def write_new(self, temporary: str | None, data: Buffer, name: str, aside: str) -> bool:
        """The same as `write`, but not over another file: False where the name is taken.

        Few stores can refuse by themselves, so it looks first. A name belongs to one picture, and a picture to the
        process that claimed its row, so nobody comes in between.
        """
        if self.exists(self.text(name)):
            return False
        self.write(temporary, data, name, aside)
        return True

    def write(self, temporary: str | None, data: Buffer, name: str, aside: str) -> None:
        """Sends a file or its bytes. Raises GleanerError, or OSError of this machine's disk."""
        try:
            with self._explained("does not take files"):
                self._send(temporary, data, f"{self.path}/{name}", aside)
        except FileNotFoundError as error:
            if not self.elsewhere:
                raise
            raise GleanerError(
                f"{self.address} is not there ({_words(error)}); make it or check the address."
            ) from error
        if temporary is not None:
            os.unlink(temporary)

    def _send(self, temporary: str | None, data: Buffer, path: str, aside: str) -> None:
        folder = path.rpartition("/")[0]
        if folder not in self.shelves:
            self.files.makedirs(folder, exist_ok=True)
            self.shelves.add(folder)
        there = path if self.whole else f"{folder}/.{os.path.basename(aside)}"
        if temporary is not None:
            self.files.put_file(temporary, there)
        else:
            self.files.pipe_file(there, bytes(data))
        if there != path:
            self.files.mv(there, path)


Target = LocalTarget | RemoteTarget


def _words(error: BaseException) -> str:
    """An error of a library as part of one sentence, without passwords."""
    said = " ".join(str(error).split())[:300].rstrip(".")
    return redact(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def _is_void(path: str) -> bool:
    """Tells if nothing is lost with what has a name: a link, or the empty file that a power cut leaves."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and not found.st_size)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _in_folder_of(path: str, work: Callable[[], None]) -> None:
    """Does what needs the folder of a path, which is made if it lacks; its own folder is not."""
    try:
        work()
    except FileNotFoundError:
        Path(path).parent.mkdir(exist_ok=True)  # another thread or process may be quicker
        work()


def _write_aside(path: str, data: Buffer) -> None:
    """Writes a file that must not exist, never through a link that somebody put there."""
    with open(path, "xb") as handle:
        try:
            handle.write(data)
            handle.flush()
        except OSError as error:
            error.filename = error.filename or path
            raise


def local_path(workspace: Workspace, text: str) -> Path | None:
    """The path of a file that the database holds; None where it lies at an address."""
    return None if "://" in text else workspace.to_path(text)
