"""Beginnings of large bodies, kept on disk with what the rest may be asked for by, so that a kill costs little of them.

Under `images/.part/` a body on its way in is `<owner>-<n>.part`. Where its rest could be asked for alone there is a
note beside it. What outlives its process is renamed after its address, and the next request for that address takes it
over. A note without its part, or a part without a note, is worth nothing and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.downloading.names import KEPT, part_owner
from lib.downloading.sweep import process_lives

NOTE = ".json"  # added to a part's name
STALE_SECONDS = 24 * 3600  # after which an unfinished file of another machine is given up
KEPT_SECONDS = 7 * 24 * 3600  # after which nobody is going to ask for the rest


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
    """Says what a part is the beginning of. Raises OSError."""
    text = json.dumps(asdict(_Note(url, validator, total, _boot())))
    Path(path + NOTE).write_text(text, encoding="utf-8")


def forget_note(path: str) -> None:
    Path(path + NOTE).unlink(missing_ok=True)


def drop(path: str) -> None:
    """Removes a part and its note, as far as they are there."""
    for name in (path, path + NOTE):
        with contextlib.suppress(OSError):
            os.unlink(name)


def leave(path: str) -> bool:
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


def kept_parts(folder: Path) -> set[str]:
    """The names of what earlier runs have left."""
    return {path.name for path in folder.glob(f"{KEPT}*.part")}


def take(folder: Path, url: str, temporary: Callable[[], str]) -> Partial | None:
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


def settle(folder: Path) -> None:
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
        elif _is_ours(path.name):
            if not process_lives(_number(path.name)):
                leave(str(path))
        elif age > STALE_SECONDS:
            drop(str(path))
    for note in folder.glob(f"*.part{NOTE}"):
        part = note.with_name(note.name.removesuffix(NOTE))
        if not part.exists() and not (_is_ours(note.name) and process_lives(_number(note.name))):
            note.unlink(missing_ok=True)


def _is_ours(name: str) -> bool:
    """Whether a part's name says that a process of this machine made it."""
    return name.partition("-")[0] == part_owner().partition("-")[0] and _number(name) > 0


def _number(name: str) -> int:
    digits = name.partition("-")[2].partition("-")[0]
    return int(digits[:18]) if digits.isdigit() else 0


def _read_note(path: str) -> _Note | None:
    """What stands beside a part; None where it cannot be relied on, as after a restart of the machine."""
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
