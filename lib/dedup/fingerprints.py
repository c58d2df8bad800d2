"""Every content's hash and buffers: from the cache, or from one reduced decode in a bounded parallel stream."""

from __future__ import annotations

import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lib.db import Database
from lib.db.hashes import HashRow, known_hashes, remember_hashes
from lib.decode import DecodeError, opened
from lib.dedup.facts import FACTS_BYTES, Facts, facts_of
from lib.dedup.suspects import Suspects
from lib.hashing import buffers, dct, pixels
from lib.hashing.buffers import Buffers, packed_buffers
from lib.hashing.kinds import HashChoice, imagehash_of
from lib.hashing.kinds import is_flat as is_empty
from lib.pictures import PictureFile
from lib.progress import BarFactory, no_bar
from lib.stream import WORKER_KILLED, Outcome, stream

BATCH = 256  # pictures hashed at once and written in one transaction; a kill costs at most one batch
SPOOL = 64 << 20  # bytes of buffers held in memory before they go to a temporary file
UNPACKED = 1024  # pictures held ready to be compared, up to 21 KB each
# What may be another time: the picture is tried again in the next run.
PASSING = frozenset({"missing_file", "unreadable_file", "too_large", "needs_pillow_heif"})
# What is decoded in this process: formats whose codecs are used everywhere and attacked every day. A file in any other
# is left to worker processes, which may die of it.
TRUSTED = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP")
ELSEWHERE = "not_trusted"
PROCESSES_FROM = 5_000  # pictures: from then on what the start of worker processes costs makes no difference
OURS = HashChoice()
ALGORITHM = f"dct {buffers.VERSION}"
PIXELS_ALGORITHM = f"pixels 1 {buffers.VERSION}"


@dataclass(frozen=True)
class Print:
    """What one decode tells of a picture, or the `reason` why it tells nothing.

    packed  its buffers
    facts   what its header says, packed
    other   its hash, where that is another one than ours
    """

    packed: bytes = b""
    facts: bytes = b""
    other: bytes = b""
    reason: str = ""


def fingerprint(path: str, choice: HashChoice = OURS, formats: tuple[str, ...] | None = None) -> Print:
    """The print of a picture file. An undecodable picture is a value here, not an error.

    With `formats` any other one is ELSEWHERE.
    """
    try:
        with opened(Path(path), formats) as image:
            facts = facts_of(image).to_bytes()  # before the decoder is told to reduce
            packed = packed_buffers(image)
        return Print(packed, facts, b"" if choice.is_ours else imagehash_of(path, choice.kind, choice.size))
    except DecodeError as error:
        return Print(reason=ELSEWHERE if formats and error.reason == "not_an_image" else error.reason)


class Fingerprints:
    """Hashes, buffers, digests and broken pictures of a set of contents, each computed at most once.

    hashes   content -> 32 bytes, or None for a flat picture
    broken   content -> reason
    """

    def __init__(
        self,
        db: Database,
        places: dict[str, Path],
        *,
        remember: bool,
        choice: HashChoice = OURS,
        suspects: Suspects | None = None,
    ):
        self.db, self.places, self.remember, self.choice = db, places, remember, choice
        self.suspects = suspects or Suspects(None)
        # Another kind of hash has rows of its own beside ours.
        self.kind = dct.KIND if choice.is_ours else f"imagehash {choice.kind}"
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

    def read(
        self, *, workers: int, stopping: Callable[[], bool], bar: BarFactory = no_bar, executor: str = "local"
    ) -> bool:
        """Fills `hashes` and `broken` for every content; False when stopped halfway (what was done is remembered)."""
        contents = sorted(self.places)
        self.hashes = known_hashes(self.db, contents, self.kind, self.choice.bits, ALGORITHM)
        known_broken = known_hashes(self.db, contents, "broken", 0, ALGORITHM)
        self.broken = {c: reason.decode() for c, reason in known_broken.items() if reason}
        killers = {c for c, reason in self.broken.items() if reason == WORKER_KILLED}
        self.suspects.paths |= {str(self.places.get(c)) for c in killers}
        missing = [c for c in contents if c not in self.hashes and (c not in self.broken or c in killers)]
        if not missing:
            return True  # without starting workers for nothing
        by_path = {str(self.places[c]): c for c in missing}
        batch: list[tuple[str, bytes, bytes]] = []  # content, buffers, hash of another kind
        work = self._outcomes(list(by_path), workers, executor)
        with bar(len(missing), "Hashing", "picture") as progress, closing(work):
            for outcome in work:
                progress.update()
                found = outcome.value or Print(reason=outcome.error.split(":")[0])
                self._take(by_path[outcome.item], found, batch)
                if len(batch) >= BATCH:
                    self._finish(batch)
                if stopping():
                    self._finish(batch)
                    return False
        self._finish(batch)
        return True

    def _outcomes(self, paths: list[str], workers: int, executor: str) -> Generator[Outcome[str, Any], None, None]:
        """What became of each picture: here, or apart where a codec might end the process."""
        task = partial(fingerprint, choice=self.choice)
        if executor == "local" and workers > 1 and len(paths) >= PROCESSES_FROM:
            executor = "processes"
        if executor != "local":
            yield from stream(task, paths, executor=executor, workers=workers, chunk=8)
            return
        apart = [path for path in paths if path in self.suspects.paths]
        here = (path for path in paths if path not in self.suspects.paths)
        noted = self.suspects.noting(partial(task, formats=TRUSTED))
        # Decoders let go of the interpreter's lock, so that threads do what processes would, without their start.
        with closing(
            stream(noted, here, executor="threads" if workers > 1 else "local", workers=workers, chunk=8)
        ) as work:
            for outcome in work:
                if outcome.value and outcome.value.reason == ELSEWHERE:
                    apart.append(outcome.item)
                else:
                    yield outcome
        for outcome in stream(task, apart, executor="processes", workers=workers, chunk=4) if apart else ():
            self.suspects.learn(outcome.item, outcome.error)
            yield outcome

    def _take(self, content: str, found: Print, batch: list[tuple[str, bytes, bytes]]) -> None:
        self.decoded += 1
        if found.reason:
            self.broken[content] = found.reason
            if found.reason not in PASSING:
                self._write([HashRow(content, "broken", 0, found.reason.encode(), ALGORITHM)])
            return
        self._keep(content, found.packed, found.facts)
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

    def load_buffers(self, contents: Iterable[str]) -> None:
        """Fetches the remembered buffers of many contents at once."""
        wanted = sorted(c for c in contents if c not in self._offsets)
        for start in range(0, len(wanted), BATCH):
            found = known_hashes(self.db, wanted[start : start + BATCH], "buffers", dct.SIDE, ALGORITHM)
            for content, data in found.items():
                if data:
                    self._keep(content, data)
                    self._stored.add(content)

    def packed(self, content: str) -> bytes | None:
        """The packed buffers of a content, decoded again only where no run has kept them."""
        self._used.add(content)
        if content not in self._offsets:
            done, error = self.suspects.run(fingerprint, str(self.places[content]))
            found = done or Print(reason=error)
            self.decoded += 1
            if found.reason:
                self.broken[content] = found.reason
                return None
            self._keep(content, found.packed, found.facts)
        return self._kept(content)[FACTS_BYTES:]

    def facts(self, content: str) -> Facts | None:
        """What a content's header says, where this run has read it."""
        data = self._kept(content)[:FACTS_BYTES] if content in self._offsets else b""
        return Facts.from_bytes(data) if any(data) else None

    def picture(self, content: str) -> Buffers | None:
        """What a content is compared by; None where it cannot be decoded."""
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
        """The buffers of contents that can be decoded; a content that has gone since is all grey and near nothing."""
        self.load_buffers(contents)
        used = set(self._used)
        blank = Buffers(np.zeros((1, dct.SIDE, dct.SIDE), np.uint8), np.full((2, 16, 16), 128, np.uint8), 1, 1)
        found = [Buffers.from_bytes(data) if (data := self.packed(c)) else blank for c in contents]
        self._used = used  # looked at for its hashes only: not worth keeping
        return found

    def pixel_digest(self, content: str) -> bytes | None:
        """The digest of a content's pixels; None when it cannot be decoded in full."""
        if content not in self._digests:
            known = known_hashes(self.db, [content], pixels.KIND, 256, PIXELS_ALGORITHM)
            if content in known:
                self._digests[content] = known[content] or b""
            else:
                self._digests[content] = self._compute_digest(content)
        return self._digests[content] or None

    def _compute_digest(self, content: str) -> bytes:
        self.decoded += 1
        try:
            digest = self.suspects.run(pixels.pixel_digest, str(self.places[content]))[0] or b""
        except DecodeError:
            digest = b""
        self._write([HashRow(content, pixels.KIND, 256, digest, PIXELS_ALGORITHM)])
        return digest

    def remember_used_buffers(self) -> None:
        """Writes the buffers that were compared, so that the next run compares without decoding.

        Only those: 5 KB for every picture would outgrow everything else in the database.
        """
        fresh = sorted(c for c in self._used - self._stored if c in self._offsets)
        for start in range(0, len(fresh), BATCH):
            rows = [HashRow(c, "buffers", dct.SIDE, self.packed(c), ALGORITHM) for c in fresh[start : start + BATCH]]
            self._write(rows)

    def close(self) -> None:
        self._spool.close()
        self.suspects.close()

    def broken_counts(self) -> Counter[str]:
        return Counter(self.broken.values())

    def _keep(self, content: str, packed: bytes, facts: bytes = b"") -> None:
        data = facts.ljust(FACTS_BYTES, b"\0") + packed
        self._spool.seek(self._end)
        self._spool.write(data)
        self._offsets[content] = (self._end, len(data))
        self._end += len(data)

    def _kept(self, content: str) -> bytes:
        start, length = self._offsets[content]
        self._spool.seek(start)
        return self._spool.read(length)

    def _write(self, rows: Sequence[HashRow]) -> None:
        if self.remember:
            remember_hashes(self.db, rows)


def places_of(files: Iterable[PictureFile]) -> dict[str, Path]:
    """One path for each content: the first in the order of the paths."""
    places: dict[str, Path] = {}
    for file in files:
        if file.sha256 not in places or str(file.path) < str(places[file.sha256]):
            places[file.sha256] = file.path
    return places
