"""Every content's hash and buffers: from the cache, or from one reduced decode in a bounded parallel stream.

Decoding in threads of this process spares the start of others, which on a small folder costs more than the work. But a
codec that crashes then takes the run with it. So every decode records its file first. What is still recorded when the
next run begins was under way when this one died, and is decoded in a process of its own from then on.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, RLock, get_ident
from typing import Any, TypeVar

import numpy as np

from lib.db import Context
from lib.db.hashes import HashRow, known_hashes, remember_hashes
from lib.dedup.keep import TRAITS_BYTES, Traits, traits_of
from lib.dedup.sequences import frames_differ
from lib.files.pictures import PictureFile
from lib.hashing import buffers, dct, kinds
from lib.hashing.buffers import Buffers, packed_buffers
from lib.hashing.kinds import HashChoice, imagehash_of
from lib.hashing.kinds import is_flat as is_empty
from lib.images.decode import NO_DECODER, OTHER_FORMAT, DecodeError
from lib.images.formats import TRUSTED
from lib.images.frames import opened_frames
from lib.progress import chunked
from lib.work import WORKER_KILLED, Result
from lib.work.memory import prepare_decoder
from lib.work.stream import stream

T = TypeVar("T")

BATCH = 256  # pictures hashed at once and written in one transaction; a kill costs at most one batch
SPOOL = 64 << 20  # bytes of buffers held in memory before they go to a temporary file
UNPACKED = 1024  # pictures held ready to be compared, up to 29 KB each
# What may be another time: the picture is tried again in the next run.
PASSING = frozenset({"missing_file", "unreadable_file", "out_of_memory"})
PROCESSES_FROM = 5_000  # pictures: from then on what the start of worker processes costs makes no difference
ALGORITHM = buffers.ALGORITHM
PIXELS_ALGORITHM = f"pixels 2 {buffers.VERSION}"

OURS = HashChoice()

SLOT = 4096 + 64  # bytes: the longest path that Linux takes
SLOTS = 64  # decodes under way at once; more than that are not noted


class FingerprintStore:
    """Hashes, buffers, digests and broken pictures of a set of contents, each computed at most once.

    hashes   content -> 32 bytes, or None for a flat picture
    broken   content -> reason
    """

    def __init__(self, context: Context, places: dict[str, Path], choice: HashChoice = OURS):
        """Takes one path for each content, see `places_of`. A dry run remembers nothing."""
        self.context, self.db, self.places, self.choice = context, context.db, places, choice
        self.guard = CrashGuard(context.workspace.root)
        self.kind = dct.KIND if choice.is_ours else f"imagehash {choice.kind}"  # another kind has rows of its own
        self.hashes: dict[str, bytes | None] = {}
        self.broken: dict[str, str] = {}
        self.decoded = 0
        self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115 - lives as long as this object
        self._offsets: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._stored: set[str] = set()  # contents whose buffers the database has already
        self._used: set[str] = set()
        self._digests: dict[str, bytes] = {}
        self._pictures: OrderedDict[str, Buffers] = OrderedDict()
        self._noted: list[HashRow] = []  # what threads have found out: only the thread that owns the database writes
        self._lock = RLock()

    def read(self, *, workers: int, executor: str = "local") -> bool:
        """Fills `hashes` and `broken` for every content; False when stopped halfway (what was done is remembered)."""
        contents = sorted(self.places)
        self.hashes = known_hashes(self.db, contents, self.kind, self.choice.bits, ALGORITHM)
        known_broken = known_hashes(self.db, contents, "broken", 0, ALGORITHM)
        self.broken = {c: reason.decode() for c, reason in known_broken.items() if reason}
        killers = {c for c, reason in self.broken.items() if reason == WORKER_KILLED}
        self.guard.paths |= {str(self.places.get(c)) for c in killers}
        missing = [c for c in contents if c not in self.hashes and (c not in self.broken or c in killers)]
        if not missing:
            return True  # without starting workers for nothing
        by_path = {str(self.places[c]): c for c in missing}
        batch: list[tuple[str, bytes, bytes]] = []  # content, buffers, hash of another kind
        work = self._outcomes(list(by_path), workers, executor)
        with self.context.bar(len(missing), "Hashing", "picture") as progress, closing(work):
            for outcome in work:
                progress.update()
                found = outcome.value or Fingerprint(reason=outcome.error.split(":")[0])
                self._take(by_path[outcome.item], found, batch)
                if len(batch) >= BATCH:
                    self._finish(batch)
                if self.context.stopping():
                    self._finish(batch)
                    return False
        self._finish(batch)
        return True

    def _outcomes(self, paths: list[str], workers: int, executor: str) -> Generator[Result[str, Any], None, None]:
        """Decodes each picture: here, or apart where a codec might end the process."""
        task = partial(fingerprint, choice=self.choice)
        if executor == "local" and workers > 1 and len(paths) >= PROCESSES_FROM:
            executor = "processes"
        if executor != "local":
            yield from stream(task, paths, executor=executor, workers=workers, chunk=8, init=prepare_decoder)
            return
        apart = [path for path in paths if path in self.guard.paths]
        here = (path for path in paths if path not in self.guard.paths)

        def decode_here(path: str) -> Fingerprint:
            with self.guard.recording(path):
                return task(path, formats=TRUSTED)

        # Decoders let go of the interpreter's lock, so that threads do what processes would, without their start.
        where = "threads" if workers > 1 else "local"
        with closing(stream(decode_here, here, executor=where, workers=workers, chunk=8)) as work:
            for outcome in work:
                if outcome.value and outcome.value.reason == OTHER_FORMAT:
                    apart.append(outcome.item)
                else:
                    yield outcome
        if not apart:
            return
        for outcome in stream(task, apart, executor="processes", workers=workers, chunk=4, init=prepare_decoder):
            self.guard.remember_crash(outcome.item, outcome.error)
            yield outcome

    def _take(self, content: str, found: Fingerprint, batch: list[tuple[str, bytes, bytes]]) -> None:
        self.decoded += 1
        if found.reason:
            self.broken[content] = found.reason
            if found.reason not in PASSING and not found.reason.startswith(NO_DECODER):
                self._write([HashRow(content, "broken", 0, found.reason.encode(), ALGORITHM)])
            return
        self._keep(content, found.packed, found.traits)
        batch.append((content, found.packed, found.other))

    def _finish(self, batch: list[tuple[str, bytes, bytes]]) -> None:
        """Hashes a batch of pictures at once and writes the hashes down."""
        if not batch:
            return
        greys = np.stack([Buffers.from_bytes(data).greys[0] for _, data, _ in batch])
        values, flat = dct.hash_greys(greys), dct.flat_pictures(greys)
        rows = []
        for (content, _, other), ours, is_flat in zip(batch, values, flat, strict=True):
            value = other or ours.tobytes()
            self.hashes[content] = None if is_flat or is_empty(value) else value
            rows.append(HashRow(content, self.kind, self.choice.bits, self.hashes[content], ALGORITHM))
        self._write(rows)
        batch.clear()

    def load(self, contents: Iterable[str]) -> None:
        """Fetches what is remembered of many contents at once; then threads may ask for it."""
        for block in chunked(sorted(contents), BATCH):
            missing = [c for c in block if c not in self._offsets]
            for content, data in known_hashes(self.db, missing, "buffers", dct.SIDE, ALGORITHM).items():
                if data:
                    self._keep(content, data)
                    self._stored.add(content)
            digests = known_hashes(self.db, block, kinds.KIND, 256, PIXELS_ALGORITHM)
            self._digests.update((content, digest or b"") for content, digest in digests.items())

    def packed(self, content: str) -> bytes | None:
        """Returns the packed buffers of a content, decoded again only where no run has kept them."""
        with self._lock:
            self._used.add(content)
            if content not in self._offsets:
                done, error = self.decoding(fingerprint, content)
                found = done or Fingerprint(reason=error)
                if found.reason:
                    self.broken[content] = found.reason
                    return None
                self._keep(content, found.packed, found.traits)
            return self._kept(content)[TRAITS_BYTES:]

    def traits(self, content: str) -> Traits | None:
        """Returns what a content's header says, where this run has read it."""
        data = self._kept(content)[:TRAITS_BYTES] if content in self._offsets else b""
        return Traits.from_bytes(data) if any(data) else None

    def picture(self, content: str) -> Buffers | None:
        """Returns what a content is compared by; None where it cannot be decoded."""
        with self._lock:
            if content in self._pictures:
                self._pictures.move_to_end(content)
                self._used.add(content)
                return self._pictures[content]
            packed = self.packed(content)
            if packed is None:
                return None
            found = self._pictures[content] = Buffers.from_bytes(packed)
            if len(self._pictures) > UNPACKED:
                self._pictures.popitem(last=False)
            return found

    def buffers(self, contents: Sequence[str]) -> list[Buffers]:
        """Returns the buffers of contents that can be decoded; one that has gone since is all grey and near nothing."""
        self.load(contents)
        used = set(self._used)
        blank = Buffers(
            np.zeros((1, dct.SIDE, dct.SIDE), np.uint8), np.full((2, dct.SIDE, dct.SIDE), 128, np.uint8), 1, 1
        )
        found = [Buffers.from_bytes(data) if (data := self.packed(c)) else blank for c in contents]
        self._used = used  # looked at for its hashes only: not worth keeping
        return found

    def pixel_digest(self, content: str) -> bytes | None:
        """Returns the digest of a content's pixels; None when it cannot be decoded in full."""
        if content not in self._digests:
            try:
                digest = self.decoding(kinds.pixel_digest, content)[0] or b""
            except DecodeError:
                digest = b""
            self._digests[content] = digest
            self.note(HashRow(content, kinds.KIND, 256, digest, PIXELS_ALGORITHM))
        return self._digests[content] or None

    def frames_differ(self, one: str, other: str) -> str:
        """Says in which frame two contents of several frames differ; empty where in none."""
        first, second = str(self.places[one]), str(self.places[other])
        if second in self.guard.paths:  # what may end the process is what the guard is asked about
            first, second = second, first
        with self._lock:
            self.decoded += 2
        try:
            found, error = self.guard.run(partial(frames_differ, second), first)
        except DecodeError as failure:
            return f"not every frame can be decoded: {failure.reason}"
        return f"not every frame can be decoded: {error}" if found is None else found

    def decoding(self, task: Callable[[str], T], content: str) -> tuple[T | None, str]:
        """Returns (value, "") or (None, reason) of a task that decodes a content's file; counted."""
        with self._lock:
            self.decoded += 1
        return self.guard.run(task, str(self.places[content]))

    def note(self, row: HashRow) -> None:
        """Has a row written by `write_noted`."""
        with self._lock:
            self._noted.append(row)

    def write_noted(self, least: int = 1) -> None:
        """Writes what was noted, if it is so much; for the thread that owns the database."""
        with self._lock:
            rows, self._noted = (self._noted, []) if len(self._noted) >= least else ([], self._noted)
        if rows:
            self._write(rows)

    def remember_used_buffers(self) -> None:
        """Writes the buffers that were compared, so that the next run compares without decoding.

        Only those: 8 KB for every picture would outgrow everything else in the database.
        """
        fresh = sorted(c for c in self._used - self._stored if c in self._offsets)
        for block in chunked(fresh, BATCH):
            self._write([HashRow(c, "buffers", dct.SIDE, self.packed(c), ALGORITHM) for c in block])

    def close(self) -> None:
        self._spool.close()
        self.guard.close()

    def _keep(self, content: str, packed: bytes, traits: bytes = b"") -> None:
        data = traits.ljust(TRAITS_BYTES, b"\0") + packed
        self._spool.seek(self._end)
        self._spool.write(data)
        self._offsets[content] = (self._end, len(data))
        self._end += len(data)

    def _kept(self, content: str) -> bytes:
        start, length = self._offsets[content]
        self._spool.seek(start)
        return self._spool.read(length)

    def _write(self, rows: Sequence[HashRow]) -> None:
        if not self.context.dry_run:
            remember_hashes(self.db, rows)


def places_of(files: Iterable[PictureFile]) -> dict[str, Path]:
    """Returns one path for each content: the first in the order of the paths."""
    places: dict[str, Path] = {}
    for file in files:
        if file.sha256 not in places or str(file.path) < str(places[file.sha256]):
            places[file.sha256] = file.path
    return places


@dataclass(frozen=True)
class Fingerprint:
    """The result of one decode of a picture, or the `reason` why there is none.

    packed  its buffers
    traits  what its header says, packed
    other   its hash, where that is another one than ours
    """

    packed: bytes = b""
    traits: bytes = b""
    other: bytes = b""
    reason: str = ""


def fingerprint(path: str, choice: HashChoice = OURS, formats: tuple[str, ...] | None = None) -> Fingerprint:
    """Returns the fingerprint of a picture file. An undecodable picture is a value here, not an error.

    With `formats` any other one is OTHER_FORMAT.
    """
    try:
        with opened_frames(Path(path), formats) as frames:
            traits = traits_of(frames.image, frames.colours).to_bytes()  # before the decoder is told to reduce
            packed = packed_buffers(frames)
        return Fingerprint(packed, traits, b"" if choice.is_ours else imagehash_of(path, choice.kind, choice.size))
    except DecodeError as error:
        return Fingerprint(reason=error.reason)


class CrashGuard:
    """The decodes under way, recorded in a file, so that the next run knows under which one this run died.

    The file lies in the temporary folder, because a dry run must leave the workspace alone.

    paths   what to decode apart: what an earlier run died under
    killed  what brought down the process that decoded it apart
    """

    def __init__(self, workspace: Path):
        self.killed: set[str] = set()
        self._slots: dict[int, int] = {}
        self._lock = Lock()
        name = hashlib.blake2b(os.fsencode(workspace.absolute()), digest_size=8).hexdigest()
        user = os.getuid() if hasattr(os, "getuid") else 0
        self.file = Path(tempfile.gettempdir()) / f"gleaner-{user}-{name}.decoding"
        self.paths = self._of_last_run()
        self._notes = self._open()

    def _of_last_run(self) -> set[str]:
        try:
            notes = self.file.read_bytes()
        except OSError:
            return set()
        found = (notes[start : start + SLOT].split(b"\0", 1)[0] for start in range(0, len(notes), SLOT))
        return {os.fsdecode(path) for path in found if path}

    def _open(self) -> mmap.mmap | None:
        """Memory of a file outlives the process that wrote it, without a call to the system for each note."""
        try:
            of_this_system = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT | of_this_system, 0o600)
        except OSError:
            return None  # no place for notes: a crash then stays unexplained, but all else works
        try:
            # Never made shorter: another run of this workspace may have it in its memory.
            os.write(handle, b"\0" * SLOT * SLOTS)
            return mmap.mmap(handle, SLOT * SLOTS)
        except OSError:
            return None
        finally:
            os.close(handle)

    @contextmanager
    def recording(self, path: str) -> Iterator[None]:
        """Records a file as being decoded for as long as the block lasts."""
        name = os.fsencode(path)
        with self._lock:
            slot = self._slots.setdefault(get_ident(), len(self._slots))
        if self._notes is None or slot >= SLOTS or len(name) >= SLOT:
            yield
            return
        start = slot * SLOT
        self._notes[start : start + len(name) + 1] = name + b"\0"
        try:
            yield
        finally:
            self._notes[start] = 0

    def run(self, task: Callable[[str], T], path: str) -> tuple[T | None, str]:
        """Returns (value, "") or (None, reason): here, or in a process of its own where the file is suspect."""
        if path not in self.paths:
            with self.recording(path):
                return task(path), ""
        outcome: Any = next(stream(task, [path], executor="processes", chunk=1, init=prepare_decoder))
        self.remember_crash(path, outcome.error)
        return outcome.value, outcome.error

    def remember_crash(self, path: str, error: str) -> None:
        """Remembers a file that killed the process which decoded it apart."""
        if error == WORKER_KILLED:
            self.killed.add(path)

    def close(self) -> None:
        """Ends the notes; what killed the process that decoded it apart is decoded so in the next run, too."""
        if self._notes is None:
            return
        self._notes.close()
        self._notes = None
        names = [os.fsencode(path) for path in sorted(self.killed)]
        with suppress(OSError):
            if names:
                beside = self.file.with_suffix(f".{os.getpid()}")
                beside.write_bytes(b"".join(name.ljust(SLOT, b"\0") for name in names if len(name) < SLOT))
                os.replace(beside, self.file)
            else:
                self.file.unlink()
