"""Bodies that come packed although nobody asked for it: their bytes say how, whatever the header claims.

A picture's first bytes are a picture, however it is called; gzip is gzip where nothing was said of it. Everything is
unpacked in small steps, each layer under the limit on a file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

from lib.images.formats import refusal

STEP = 256 * 1024  # bytes unpacked at a time, so that a bomb never stands in memory
SLICE = 16 * 1024  # bytes taken at a time: what follows a member is copied
ENOUGH = 512  # bytes from which a packing is told
MOST_LAYERS = 3
MOST_MEMBERS = 4096  # of one gzip stream: bgzip's, of 64 KB each, are a quarter of that in the largest picture
GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_AWS_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\r\n]{0,200})?\r\n")
_DEFLATES = frozenset({"deflate", "x-deflate", "gzip", "x-gzip"})
_UNKNOWN = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip"})

Work = Callable[[bytes], Iterator[bytes]]


class PackedError(Exception):
    """A body cannot be unpacked: `reason` is `encoded_body` or `too_large`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def may_be_packed(head: bytes, claimed: str) -> bool:
    """Tells if the first bytes of a body have to be looked at more closely than is done for every picture."""
    return bool(claimed) or len(head) < len(_ZSTD) or head.startswith((GZIP[:2], _ZSTD))


class Unpacker:
    """Unpacks the blocks of one body, which may be packed several times; `limit` is in bytes, for each layer."""

    def __init__(self, claimed: str, limit: int, layer: int = 0):
        self.claimed, self.limit, self.layer = claimed, limit, layer
        self.names = {name.strip().lower() for name in claimed.split(",")}
        self.head = b""
        self.told = False
        self.work: Work | None = None  # None: nothing is to be done
        self.finish: Callable[[], bytes] = bytes
        self.inner: Unpacker | None = None
        self.passed = 0

    @property
    def is_packed(self) -> bool:
        """Tells if anything had to be unpacked."""
        return self.work is not None

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The unpacked blocks of another block. Raises PackedError."""
        if not self.told:
            self.head += block
            if len(self.head) < ENOUGH:
                return
            block = self._tell()
        yield from self._through(block)

    def end(self) -> Iterator[bytes]:
        """The blocks that are left behind the last one. Raises PackedError."""
        if not self.told:
            yield from self._through(self._tell())
        if self.inner is not None:
            if rest := self.finish():
                yield from self.inner.feed(rest)
            yield from self.inner.end()

    def _through(self, block: bytes) -> Iterator[bytes]:
        if self.work is None or self.inner is None:
            if block:
                yield block
            return
        for unpacked in self.work(block):
            self.passed += len(unpacked)
            if self.passed > self.limit:
                raise PackedError("too_large", f"more than {self.limit} bytes, unpacked")
            yield from self.inner.feed(unpacked)

    def _tell(self) -> bytes:
        """Chooses what is done, by the first bytes; gives them back."""
        head, self.head, self.told = self.head, b"", True
        if head and refusal(head[:ENOUGH])[0]:
            self.work = self._work_for(head)
        if self.work is not None:
            if self.layer >= MOST_LAYERS:
                raise PackedError("encoded_body", f"packed more than {MOST_LAYERS} times")
            self.inner = Unpacker(self.claimed, self.limit, self.layer + 1)
        return head

    def _work_for(self, head: bytes) -> Work | None:
        if head.startswith(GZIP[:2]):
            return self._gzip(31)
        if head.startswith(_ZSTD):
            raise PackedError("encoded_body", "zstd")
        if self.names & _DEFLATES:
            if head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0:
                return self._gzip(15)
            if _is_raw_deflate(head):
                return self._gzip(-15)
        if "aws-chunked" in self.names and _AWS_CHUNK.match(head):
            return _AwsChunks().take
        if unknown := sorted(self.names & _UNKNOWN):
            raise PackedError("encoded_body", f"Content-Encoding {unknown[0]}")
        return None

    def _gzip(self, bits: int) -> Work:
        stream = _Stream(bits)
        self.finish = stream.finish
        return stream.take


class _Stream:
    """One zlib stream, or the members of a gzip file; what follows them and is none is dropped."""

    def __init__(self, bits: int):
        self.bits = bits
        self.machine = zlib.decompressobj(bits)
        self.members, self.made = 1, 0
        self.between = b""  # the beginning of what follows a member
        self.over = False

    def take(self, block: bytes) -> Iterator[bytes]:
        view = memoryview(block)
        for at in range(0, len(view), SLICE):
            yield from self._take(bytes(view[at : at + SLICE]))

    def _take(self, rest: bytes) -> Iterator[bytes]:
        while rest and not self.over:
            if self.machine.eof:
                rest = self._next_member(rest)
                continue
            try:
                made = self.machine.decompress(rest, STEP)
            except zlib.error as error:
                if self.members > 1 and not self.made:  # it only began like a member
                    self.over = True
                    return
                raise PackedError("encoded_body", str(error)) from error
            self.made += len(made)
            rest = self.machine.unused_data if self.machine.eof else self.machine.unconsumed_tail
            if made:
                yield made

    def _next_member(self, rest: bytes) -> bytes:
        """Begins the next member where one follows; gives the bytes from which on it is read."""
        rest = (self.between + rest).lstrip(b"\0")
        self.between = b""
        if self.bits != 31 or not GZIP.startswith(rest[:3]):
            self.over = bool(rest) or self.bits != 31
            return b""
        if len(rest) < len(GZIP):
            self.between = rest
            return b""
        if self.members >= MOST_MEMBERS:
            raise PackedError("encoded_body", f"gzip of more than {MOST_MEMBERS} members")
        self.machine, self.members, self.made = zlib.decompressobj(self.bits), self.members + 1, 0
        return rest

    def finish(self) -> bytes:
        """Returns the bytes that the last ones still held back."""
        return b"" if self.machine.eof else self.machine.flush()


class _AwsChunks:
    """The chunks of an upload to S3, which some stores keep as they came: size and signature before each."""

    def __init__(self) -> None:
        self.head = b""
        self.left = 0  # bytes of this chunk and of the line end behind it
        self.over = False

    def take(self, block: bytes) -> Iterator[bytes]:
        while block and not self.over:
            if not self.left:
                self.head += block
                found = _AWS_CHUNK.match(self.head)
                if found is None:
                    if len(self.head) > ENOUGH:
                        raise PackedError("encoded_body", "aws-chunked breaks")
                    return
                self.left = int(found[1], 16) + 2
                block, self.head = self.head[found.end() :], b""
                self.over = self.left == 2
                continue
            made, block = block[: self.left], block[self.left :]
            ends = max(0, len(made) - max(0, self.left - 2))  # of the line end
            self.left -= len(made)
            if made := made[: len(made) - ends]:
                yield made


def _is_raw_deflate(head: bytes) -> bool:
    """Tells if bytes unpack, without any frame, to the beginning of a picture or of something packed."""
    try:
        made = zlib.decompressobj(-15).decompress(head, ENOUGH)
    except zlib.error:
        return False
    return bool(made) and (not refusal(made)[0] or made.startswith(GZIP[:2]))
