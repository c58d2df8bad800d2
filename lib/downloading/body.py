"""A body on its way in: small ones stay in memory, large ones go to a temporary file."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from lib.media import refusal

# Most pictures are smaller than this; what is larger is written as it comes, so that memory stays flat.
SPOOL_AT = 4 * 1024 * 1024
SPOOL_BLOCK = 1024 * 1024  # every hand-over to a thread costs, so it is worth some bytes


class Body:
    """The sink of one request. `temporary` names the file that a large body goes to."""

    def __init__(self, temporary: Callable[[], str], executor: Executor):
        self.temporary, self.executor = temporary, executor
        self.blocks: list[bytes] = []
        self.held = 0
        self.size = 0
        self.path: str | None = None
        self.handle: Any = None

    def judge(self, head: bytes) -> tuple[str, str]:
        """A body that does not begin like a picture is not read any further."""
        return refusal(head)

    def write(self, block: bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a block; gives something to wait for when it is time to write to the disk."""
        self.blocks.append(block)
        self.held += len(block)
        self.size += len(block)
        if self.size <= SPOOL_AT or self.held < SPOOL_BLOCK:
            return None
        return self._spool()

    async def finish(self) -> None:
        """After the last block."""
        if self.handle is not None:
            await self._spool()
            await self.handle.close()
            self.handle = None

    async def _spool(self) -> None:
        import aiofiles

        if self.handle is None:
            self.path = self.temporary()
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.handle = await aiofiles.open(self.path, "xb", buffering=0, executor=self.executor)
        block = b"".join(self.blocks)
        self.blocks.clear()
        self.held = 0
        view = memoryview(block)
        while view:  # an unbuffered write may take only a part
            view = view[await self.handle.write(view) :]

    async def discard(self) -> None:
        """Leaves nothing behind."""
        self.blocks.clear()
        if self.handle is not None:
            await self.handle.close()
            self.handle = None
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.path = None


class Contents:
    """The finished body as one buffer: the bytes themselves, or a read-only map of the temporary file."""

    def __init__(self, body: Body):
        self.body = body
        self.data: bytes | mmap.mmap = b""

    def __enter__(self) -> bytes | mmap.mmap:
        if self.body.path is None:
            blocks = self.body.blocks
            self.data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        else:
            with open(self.body.path, "rb") as handle:
                self.data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return self.data

    def __exit__(self, *_: object) -> None:
        if isinstance(self.data, mmap.mmap):
            self.data.close()
