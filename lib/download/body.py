"""A body on its way in: small ones stay in memory, large ones go to a temporary file, which a later run can go on with.

Under `images/.part/` a body on its way in is `<owner>-<n>.part`. Where its rest could be asked for alone, a note beside
it says by what. A part that outlives its process is renamed after its address, and the next request for that address
takes it over. A note without its part, or a part without a note, is worth nothing and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.download.recovery import process_lives
from lib.files.names import KEPT, part_owner
from lib.images.formats import refusal
from lib.net.fetch import FetchResult, Sink
from lib.net.placeholders import PLACEHOLDER, Placeholders

# Most pictures are smaller than this; what is larger is written as it comes, so that memory stays flat.
SPOOL_AT = 4 * 1024 * 1024
SPOOL_BLOCK = 1024 * 1024  # every hand-over to a thread costs, so it is worth some bytes
ROOM = 48 * 1024 * 1024  # bytes of all bodies in memory above which the larger ones go to the disk early
EARLY_AT = 256 * 1024

NOTE = ".json"  # added to a part's name
STALE_SECONDS = 24 * 3600  # after which an unfinished file of another machine is given up
KEPT_SECONDS = 7 * 24 * 3600  # after which nobody is going to ask for the rest


class BodyBuffers:
    """Shared by the bodies of one loop: names for temporary files, the writer's threads, and the room in memory."""

    def __init__(self, temporary: Callable[[], str], executor: Executor | None, placeholders: Placeholders):
        self.temporary, self.executor, self.placeholders = temporary, executor, placeholders
        self.held = 0


class Body(Sink):
    """The sink of one request for the address `asked`, from its beginning or after a `partial` one."""

    def __init__(self, buffers: BodyBuffers, asked: str = "", partial: Partial | None = None):
        self.buffers, self.asked = buffers, asked
        self.blocks: list[bytes] = []
        self.held = 0
        self.size = partial.size if partial else 0
        self.path: str | None = partial.path if partial else None
        self.begun = partial is not None  # whether the file at `path` holds what came before
        self.validator = ""  # of the version that comes in, where its rest could be asked for alone
        self.total = partial.total if partial else 0
        self.noted = self.path or ""  # the part that has a note
        self.handle: Any = None

    def on_headers(self, answer: FetchResult) -> tuple[str, str]:
        """Refuses a picture that stands for a removed one."""
        self.validator, self.total = answer.validator, answer.total
        found = self.buffers.placeholders.by_answer(self.asked, answer.final_url, answer.etag)
        return (PLACEHOLDER, found) if found else ("", "")

    def on_first_bytes(self, head: bytes) -> tuple[str, str]:
        """Refuses a body that does not begin like a picture."""
        return refusal(head)

    def restart(self) -> None:
        """Begins anew: what was there of another version is dropped when the first block is written."""
        self.size, self.begun = 0, False
        if self.path is not None:
            forget_note(self.path)

    def write(self, block: bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a block; gives something to wait for when it is time to write to the disk."""
        self.blocks.append(block)
        size = len(block)
        self.held += size
        self.size += size
        self.buffers.held += size
        if self.path is None and self.size <= SPOOL_AT and (self.buffers.held < ROOM or self.size < EARLY_AT):
            return None
        return self._spool() if self.held >= SPOOL_BLOCK or self.buffers.held >= ROOM else None

    async def finish(self) -> None:
        """Writes the rest, after the last block."""
        if self.path is not None:
            await self._spool()
            await self._close()

    async def keep_part(self, validator: str) -> Partial | None:
        """Keeps the beginning of a large body whose transfer broke; None where too little is there to be worth it."""
        if self.path is None:
            return None
        await self.finish()
        partial = Partial(self.path, self.size, validator, self.total)
        self.path, self.noted = None, ""
        return partial

    async def save_partial(self) -> None:
        """Leaves what is on the disk for the next run, if that can go on with it; this one ends in the middle."""
        self._let_go()
        if self.path is not None:
            # At once: whoever is cancelled may be cancelled again while it waits.
            save_partial(self.path)
            self.path, self.noted = None, ""
            await self._close()

    def forget_note(self) -> None:
        """Removes the note of a part that is whole: nobody goes on with it."""
        if self.noted:
            forget_note(self.noted)
            self.noted = ""

    async def _spool(self) -> None:
        import aiofiles

        if self.handle is None:
            self.path = self.path or self.buffers.temporary()
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            mode = "r+b" if self.begun else "xb" if not os.path.lexists(self.path) else "wb"
            self.handle = await aiofiles.open(self.path, mode, buffering=0, executor=self.buffers.executor)
            if self.begun:
                await self.handle.seek(0, os.SEEK_END)
            elif self.validator:
                write_note(self.path, self.asked, self.validator, self.total)
                self.noted = self.path
        block = b"".join(self.blocks)
        self._let_go()
        view = memoryview(block)
        while view:  # an unbuffered write may take only a part
            view = view[await self.handle.write(view) :]

    def _let_go(self) -> None:
        self.blocks.clear()
        self.buffers.held -= self.held
        self.held = 0

    async def _close(self) -> None:
        if self.handle is not None:
            await self.handle.close()
            self.handle = None

    async def discard(self) -> None:
        """Leaves nothing behind."""
        self._let_go()
        if self.path is not None:
            await self._close()
            drop(self.path)
            self.path = None
        self.forget_note()


@contextlib.contextmanager
def contents(body: Body) -> Iterator[bytes | mmap.mmap]:
    """The finished body as one buffer: the bytes themselves, or a read-only map of the temporary file."""
    if body.path is None:
        yield body.blocks[0] if len(body.blocks) == 1 else b"".join(body.blocks)
        return
    with open(body.path, "rb") as handle:
        data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    with data:
        yield data


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
        with contextlib.suppress(OSError):
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


def kept_parts(folder: Path) -> set[str]:
    """The names of what earlier runs have left."""
    return {path.name for path in folder.glob(f"{KEPT}*.part")}


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
        elif _is_ours(path.name):
            if not process_lives(_number(path.name)):
                save_partial(str(path))
        elif age > STALE_SECONDS:
            drop(str(path))
    for note in folder.glob(f"*.part{NOTE}"):
        part = note.with_name(note.name.removesuffix(NOTE))
        if not part.exists() and not (_is_ours(note.name) and process_lives(_number(note.name))):
            note.unlink(missing_ok=True)


def _is_ours(name: str) -> bool:
    """Tells if a part's name says that a process of this machine made it."""
    return name.partition("-")[0] == part_owner().partition("-")[0] and _number(name) > 0


def _number(name: str) -> int:
    digits = name.partition("-")[2].partition("-")[0]
    return int(digits[:18]) if digits.isdigit() else 0


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
