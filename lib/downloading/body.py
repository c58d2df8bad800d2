"""A body on its way in: small ones stay in memory, large ones go to a temporary file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from lib.downloading import parts
from lib.downloading.parts import Partial
from lib.media import refusal
from lib.net.exchange import Answer
from lib.net.placeholders import PLACEHOLDER, Placeholders

# Most pictures are smaller than this; what is larger is written as it comes, so that memory stays flat.
SPOOL_AT = 4 * 1024 * 1024
SPOOL_BLOCK = 1024 * 1024  # every hand-over to a thread costs, so it is worth some bytes
ROOM = 48 * 1024 * 1024  # bytes of all bodies in memory above which the larger ones go to the disk early
EARLY_AT = 256 * 1024


class Intake:
    """What the bodies of one loop share: names for temporary files, the writer's threads, and the room in memory."""

    def __init__(self, temporary: Callable[[], str], executor: Executor | None, placeholders: Placeholders):
        self.temporary, self.executor, self.placeholders = temporary, executor, placeholders
        self.held = 0


class Body:
    """The sink of one request for the address `asked`, from its beginning or after a `partial` one."""

    def __init__(self, intake: Intake, asked: str = "", partial: Partial | None = None):
        self.intake, self.asked = intake, asked
        self.blocks: list[bytes] = []
        self.held = 0
        self.size = partial.size if partial else 0
        self.path: str | None = partial.path if partial else None
        self.begun = partial is not None  # whether the file at `path` holds what came before
        self.validator, self.total = (
            "",
            partial.total if partial else 0,
        )  # of the version that comes in, where its rest could be asked for alone
        self.noted = self.path or ""  # the part that has a note
        self.handle: Any = None

    def meet(self, answer: Answer) -> tuple[str, str]:
        """A picture that stands for a removed one is not read."""
        self.validator, self.total = answer.validator, answer.total
        found = self.intake.placeholders.by_answer(self.asked, answer.final_url, answer.etag)
        return (PLACEHOLDER, found) if found else ("", "")

    def judge(self, head: bytes) -> tuple[str, str]:
        """A body that does not begin like a picture is not read any further."""
        return refusal(head)

    def restart(self) -> None:
        """Everything comes anew: what was there of another version is dropped when the first block is written."""
        self.size, self.begun = 0, False
        if self.path is not None:
            parts.forget_note(self.path)

    def write(self, block: bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a block; gives something to wait for when it is time to write to the disk."""
        self.blocks.append(block)
        size = len(block)
        self.held += size
        self.size += size
        self.intake.held += size
        if self.path is None and self.size <= SPOOL_AT and (self.intake.held < ROOM or self.size < EARLY_AT):
            return None
        return self._spool() if self.held >= SPOOL_BLOCK or self.intake.held >= ROOM else None

    async def finish(self) -> None:
        """After the last block."""
        if self.path is not None:
            await self._spool()
            await self._close()

    async def keep_part(self, validator: str) -> Partial | None:
        """What there is of a large body whose transfer broke; None where too little is there to be worth it."""
        if self.path is None:
            return None
        await self.finish()
        partial = Partial(self.path, self.size, validator, self.total)
        self.path, self.noted = None, ""
        return partial

    async def leave(self) -> None:
        """The run ends in the middle: what is on the disk stays for the next one, if that can go on with it."""
        self._let_go()
        if self.path is not None:
            # At once: whoever is cancelled may be cancelled again while it waits.
            parts.leave(self.path)
            self.path, self.noted = None, ""
            await self._close()

    def forget_note(self) -> None:
        """What is on the disk is whole: nobody goes on with it."""
        if self.noted:
            parts.forget_note(self.noted)
            self.noted = ""

    async def _spool(self) -> None:
        import aiofiles

        if self.handle is None:
            self.path = self.path or self.intake.temporary()
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            mode = "r+b" if self.begun else "xb" if not os.path.lexists(self.path) else "wb"
            self.handle = await aiofiles.open(self.path, mode, buffering=0, executor=self.intake.executor)
            if self.begun:
                await self.handle.seek(0, os.SEEK_END)
            elif self.validator:
                parts.write_note(self.path, self.asked, self.validator, self.total)
                self.noted = self.path
        block = b"".join(self.blocks)
        self._let_go()
        view = memoryview(block)
        while view:  # an unbuffered write may take only a part
            view = view[await self.handle.write(view) :]

    def _let_go(self) -> None:
        self.blocks.clear()
        self.intake.held -= self.held
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
            parts.drop(self.path)
            self.path = None
        self.forget_note()


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
