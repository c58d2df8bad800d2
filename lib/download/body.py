"""A body on its way in: small ones stay in memory, large ones go to a temporary file, which a later run can go on with.

Bodies that stand for a removed picture are refused, by the list of them beside this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import re
import tomllib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.download.recovery import Partial, drop, forget_note, save_partial, write_note
from lib.errors import UsageError
from lib.images.formats import refusal
from lib.net.request import FetchResult, Sink

PLACEHOLDER = "placeholder"
LIST = Path(__file__).with_name("placeholders.toml")

# Most pictures are smaller than this; what is larger is written as it comes, so that memory stays flat.
SPOOL_AT = 4 * 1024 * 1024
SPOOL_BLOCK = 1024 * 1024  # every hand-over to a thread costs, so it is worth some bytes
ROOM = 48 * 1024 * 1024  # bytes of all bodies in memory above which the larger ones go to the disk early
EARLY_AT = 256 * 1024

Patterns = tuple[re.Pattern[str], ...]


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
        # Of the version that comes in: its validator, where the rest could be asked for alone, and the whole length.
        self.answer = FetchResult(total=partial.total if partial else 0)
        self.noted = self.path or ""  # the part that has a note
        self.handle: Any = None
        self.writing: asyncio.Task[None] | None = None  # the last block's way to the disk

    def on_headers(self, answer: FetchResult) -> tuple[str, str]:
        """Refuses a picture that stands for a removed one."""
        self.answer = answer  # the first bytes may still change what can be asked for
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
            self.begun = True

    async def keep_part(self, validator: str) -> Partial | None:
        """Keeps the beginning of a large body whose transfer broke; None where too little is there to be worth it."""
        if self.path is None:
            return None
        await self.finish()
        partial = Partial(self.path, self.size, validator, self.answer.total)
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
            elif self.answer.validator:
                write_note(self.path, self.asked, self.answer.validator, self.answer.total)
                self.noted = self.path
        await self._written()
        block = b"".join(self.blocks)
        self._let_go()
        self.writing = asyncio.create_task(_write(self.handle, block))
        await self._written()

    async def _written(self) -> None:
        """Waits for the block under way. Whoever is cancelled meanwhile leaves it to be waited for by the next one.

        A thread at its work cannot be called back, and a block that overtook it would stand in its place.
        """
        if self.writing is not None:
            await asyncio.shield(self.writing)
            self.writing = None

    def _let_go(self) -> None:
        self.blocks.clear()
        self.buffers.held -= self.held
        self.held = 0

    async def _close(self) -> None:
        if self.handle is not None:
            with contextlib.suppress(OSError):  # who waited for the block has been told
                await self._written()
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


async def _write(handle: Any, block: bytes) -> None:
    view = memoryview(block)
    while view:  # an unbuffered write may take only a part
        view = view[await handle.write(view) :]


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
class Placeholders:
    """The known ones; `urls` and `etags` by the last two labels of a host's name. An empty one knows nothing."""

    moved: Patterns = ()
    urls: Mapping[str, Patterns] = field(default_factory=dict)
    etags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    def by_answer(self, asked: str, final: str, etag: str) -> str:
        """Says why an answer is a placeholder, before its body is read; else an empty string."""
        _, _, host, path = (final.split("/", 3) + [""] * 3)[:4]
        path = "/" + path.partition("?")[0]
        site = ".".join(host.partition(":")[0].lower().rsplit(".", 2)[-2:])
        if any(pattern.search(path) for pattern in self.urls.get(site, ())):
            return f"the address of a placeholder: {final}"
        if final != asked and any(pattern.search(path) for pattern in self.moved):
            return f"redirected to a placeholder: {final}"
        if (tag := etag.removeprefix("W/").strip('"')) in self.etags.get(site, ()):
            return f"the entity tag of a placeholder: {tag}"
        return ""


def read_placeholders(own: Path | None = None) -> Placeholders:
    """The list beside this file, with that of a user's file added. Raises UsageError for a file that makes no sense."""
    made = _add(Placeholders(), LIST)
    return _add(made, own) if own else made


def _add(made: Placeholders, path: Path) -> Placeholders:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used ({error}); correct it or name another file.") from error
    try:
        if unknown := set(table) - {"moved", "urls", "etags", "sha256"}:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        return Placeholders(
            made.moved + _patterns(table.get("moved", ())),
            {**made.urls, **{site: _patterns(texts) for site, texts in dict(table.get("urls", {})).items()}},
            {**made.etags, **{site: frozenset(tags) for site, tags in dict(table.get("etags", {})).items()}},
            {**made.sha256, **{digest.lower(): str(what) for digest, what in dict(table.get("sha256", {})).items()}},
        )
    except (ValueError, TypeError, re.error) as error:
        raise UsageError(f"{path} is no list of placeholders ({error}); see docs/download.md.") from error


def _patterns(texts: Iterable[str]) -> Patterns:
    return tuple(re.compile(text, re.IGNORECASE) for text in texts)
