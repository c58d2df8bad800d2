"""Recovery of what a killed run left: rows that it held, files that it finished but did not record, unfinished bodies.

Under `images/.part/` a body on its way in is `<owner>-<n>.part`. Where its rest could be asked for alone, a note beside
it says by what. A part that outlives its process is renamed after its address, and the next request for that address
takes it over. A note without its part, or a part without a note, is worth nothing and goes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lib import temporary
from lib.db import Context, Database
from lib.db.download_queue import leases, release, unfinished_keys
from lib.db.downloads import has_path, known_file, last_run_was_clean
from lib.db.files import FileRow, add_or_restore_files
from lib.download.targets import RemoteTarget, Target
from lib.files.names import KEPT, PARTS, part_owner, read_name, safe_id
from lib.files.pictures import sha256_of
from lib.images.decode import DecodeError, read_header
from lib.workspace import Workspace

LAST_BREATH = 10.0  # seconds that a worker whose parent was killed gets to end
NOTE = ".json"  # added to a part's name
STALE_SECONDS = 24 * 3600  # after which an unfinished file of another machine is given up
KEPT_SECONDS = 7 * 24 * 3600  # after which nobody is going to ask for the rest
WAITING = "unrecorded"  # in the folder of temporary files: some whole files still wait for their row


def own_lease() -> str:
    """Names this process: the machine and its number, with that of the parent where this is one of several workers."""
    parent = multiprocessing.parent_process()
    return f"{socket.gethostname()}:{f'{parent.pid}/' if parent else ''}{os.getpid()}"


def release_dead(db: Database) -> None:
    """Frees the rows of processes of this machine that are no more."""
    for lease in filter(_is_dead, leases(db)):
        release(db, lease)


def _is_dead(lease: str) -> bool:
    machine, _, numbers = lease.rpartition(":")
    parent, _, number = numbers.rpartition("/")
    if machine != socket.gethostname() or not number.isdigit():
        return False
    if parent.isdigit() and not process_lives(int(parent)):
        end = time.monotonic() + LAST_BREATH  # a worker ends by itself then, at once, but not in the same moment
        while process_lives(int(number)) and time.monotonic() < end:
            time.sleep(0.02)
    return not process_lives(int(number))


def process_lives(number: int) -> bool:
    """Tells if another process has this number."""
    if number == os.getpid():  # a number that came round again: this run has claimed nothing yet
        return False
    return temporary.process_lives(number)


def remove_parts_folder(workspace: Workspace) -> None:
    """Takes the folder of temporary files away when it is empty."""
    with suppress(OSError):
        (workspace.images / PARTS).rmdir()


def may_have_orphans(context: Context) -> bool:
    """Tells if an earlier run may have left files without rows: looking at every file takes a while.

    Every run makes the folder of temporary files and, at its end, removes it, unless a later run can go on with what is
    in it. A run that is cut off leaves the folder.
    """
    try:
        held = [entry.name for entry in os.scandir(context.workspace.images / PARTS)]
    except FileNotFoundError:
        held = [KEPT]
    return (
        not held
        or not all(name.startswith(KEPT) for name in held)
        or not last_run_was_clean(context.db, context.run_id)
    )


def find_orphans(db: Database, workspace: Workspace) -> dict[str, list[Path]]:
    """Whole files under final names that no row knows, by the safe id in their name.

    A kill between the rename and the commit leaves them, at most one batch and what was in flight.
    """
    found: dict[str, list[Path]] = {}
    for shelf in sorted(workspace.images.glob("[0-9a-f][0-9a-f]")):
        for path in sorted(shelf.iterdir()):
            parts = read_name(path.name)
            if parts and not path.is_symlink() and not has_path(db, workspace.to_text(path)):
                found.setdefault(parts[0], []).append(path)
    return found


def record_orphans(db: Database, workspace: Workspace, orphans: Mapping[str, Sequence[Path]]) -> None:
    """Records the files without rows that a run has not taken over, except those that a later one may.

    Those of rows that are not finished wait, and the next run looks for them. Where the content is known, and lies
    elsewhere, the file is one too many; any other picture gets a row. A run that is at work is left alone.
    """
    left = [(name, path) for name, paths in orphans.items() for path in paths]
    left = [(name, path) for name, path in left if path.exists() and not has_path(db, workspace.to_text(path))]
    unfinished = {safe_id(key) for key in unfinished_keys(db)} if left else set()
    for name, path in left:
        if name not in unfinished:
            _record_orphan(db, workspace, path)
    note = workspace.images / PARTS / WAITING
    if any(name in unfinished for name, _ in left):
        note.parent.mkdir(exist_ok=True)
        note.touch()
    else:
        note.unlink(missing_ok=True)


def _record_orphan(db: Database, workspace: Workspace, path: Path) -> None:
    try:
        digest, size, header = sha256_of(path), path.stat().st_size, read_header(path)
    except (OSError, DecodeError):
        return  # `2_ingest_db.py --check` tells of it
    known = known_file(db, digest)
    if known and known[1] != "missing" and (workspace.root / known[0]).exists():
        path.unlink(missing_ok=True)
        return
    sides = (header.width, header.height)
    row = FileRow(digest, workspace.to_text(path), size, header.format, *sides, header.frames, header.orientation)
    with db.transaction():
        add_or_restore_files(db, [row])


def clear_sidecars(db: Database, workspace: Workspace) -> None:
    """Removes what is beside a picture that never came: a sidecar is written first."""
    for path in workspace.images.glob("[0-9a-f][0-9a-f]/*.json"):
        picture = path.with_suffix("")
        if read_name(picture.name) and not picture.exists() and not has_path(db, workspace.to_text(picture)):
            path.unlink(missing_ok=True)


def clear_elsewhere(target: Target) -> None:
    """Removes the temporary files of dead processes of this machine from a place that is not the workspace's own.

    Only where a file is written aside and renamed; what is only shown whole leaves none.
    """
    if not isinstance(target, RemoteTarget) or target.whole:
        return
    for path in target.files.glob(f"{target.path}/*/.*.part"):
        number = _process_of(str(path).rpartition("/")[2].removeprefix("."))
        if number and not process_lives(number):
            with suppress(FileNotFoundError):
                target.files.rm_file(path)


@dataclass(frozen=True)
class Partial:
    """The first `size` bytes of a body of `total` (0: unknown), of the version that `validator` names."""

    path: str
    size: int
    validator: str  # a strong entity tag, or a date of change that is as good
    total: int = 0


@dataclass(frozen=True)
class _Note:
    url: str
    validator: str
    total: int
    boot: str


def write_note(path: str, url: str, validator: str, total: int) -> None:
    """Notes which body a part is the beginning of. Raises OSError."""
    text = json.dumps(asdict(_Note(url, validator, total, _boot())))
    Path(path + NOTE).write_text(text, encoding="utf-8")


def forget_note(path: str) -> None:
    Path(path + NOTE).unlink(missing_ok=True)


def drop(path: str) -> None:
    """Removes a part and its note, as far as they are there."""
    for name in (path, path + NOTE):
        with suppress(OSError):
            os.unlink(name)


def save_partial(path: str) -> bool:
    """Puts a part where any later request for its address finds it; one without a sound note is removed."""
    note = _read_note(path)
    try:
        if note is None or not os.path.getsize(path):
            drop(path)
            return False
        kept = os.path.join(os.path.dirname(path), kept_name(note.url))
        # The part first: a kill in between leaves a note of an older part away, never a note for other bytes.
        drop(kept)
        os.replace(path, kept)
        os.replace(path + NOTE, kept + NOTE)
    except OSError:
        drop(path)
        return False
    return True


def kept_name(url: str) -> str:
    return f"{KEPT}{hashlib.sha256(url.encode()).hexdigest()[:24]}.part"


def claim_partial(folder: Path, url: str, temporary: Callable[[], str]) -> Partial | None:
    """The part of an address, under a name of this process; None where there is none or another was quicker."""
    kept, own = str(folder / kept_name(url)), temporary()
    try:
        os.rename(kept, own)
        os.rename(kept + NOTE, own + NOTE)
        note, size = _read_note(own), os.path.getsize(own)
        if note is not None and note.url == url and size:
            if note.total and size >= note.total:  # all of it is here; the last byte proves the version
                os.truncate(own, size := note.total - 1)
            return Partial(own, size, note.validator, note.total)
    except OSError:
        pass
    drop(own)
    return None


def clean_partials(folder: Path) -> None:
    """Keeps what dead processes of this machine left and somebody may go on with; removes what is of no use."""
    now = time.time()
    for path in folder.glob("*.part"):
        try:
            age = now - path.stat().st_mtime
        except OSError:
            continue
        if path.name.startswith(KEPT):
            if age > KEPT_SECONDS or _read_note(str(path)) is None:
                drop(str(path))
        elif number := _process_of(path.name):
            if not process_lives(number):
                save_partial(str(path))
        elif age > STALE_SECONDS:
            drop(str(path))
    for note in folder.glob(f"*.part{NOTE}"):
        number = _process_of(note.name)
        if not note.with_name(note.name.removesuffix(NOTE)).exists() and not (number and process_lives(number)):
            note.unlink(missing_ok=True)


def _process_of(name: str) -> int:
    """The number of the process of this machine that made a part; 0 where it was none."""
    machine, _, rest = name.partition("-")
    digits = rest.partition("-")[0]
    return int(digits[:18]) if digits.isdecimal() and machine == part_owner().partition("-")[0] else 0


def _read_note(path: str) -> _Note | None:
    """The note beside a part; None where it cannot be relied on, as after a restart of the machine."""
    try:
        note = _Note(**json.loads(Path(path + NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    sound = isinstance(note.url, str) and isinstance(note.validator, str) and isinstance(note.total, int)
    return note if sound and note.validator and note.boot == _boot() else None


def _boot() -> str:
    """Tells one start of the machine from another where that can be told: a power cut loses what was not yet written,
    while the file's length may say that it is there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
