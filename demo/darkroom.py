"""Makes the bytes of pictures when they are asked for, off the event loop, and keeps them in memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, ImageDraw

from demo.alterations import encode
from demo.catalog import THUMB_SIDE, Address, Picture, shrunk
from demo.figures import font
from demo.scenes import full_size


def original_bytes(picture: Picture) -> bytes:
    """The file at a picture's original address."""
    image = picture.alteration.apply(full_size(picture.scene))
    return encode(image, picture.alteration.encoding, picture.alteration.quality)


def smaller_bytes(picture: Picture, size: tuple[int, int], quality: int = 82) -> bytes:
    """The picture upright, as a JPEG of `size` pixels."""
    image = picture.alteration.apply(full_size(picture.scene))
    return encode(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0), "jpeg", quality)


def placeholder_bytes() -> bytes:
    """What a host shows where a picture used to be: the same file every time."""
    image = Image.new("RGB", (400, 300), (236, 236, 238))
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, 380, 280), outline=(170, 170, 176), width=3)
    draw.text((92, 130), "This image has been removed", (110, 110, 118), font(17))
    return encode(image, "png")


class Darkroom:
    """A memory of rendered files; each is made once, in a small thread pool, however many ask for it at a time."""

    def __init__(self, workers: int = 2) -> None:
        self._pool = ThreadPoolExecutor(workers, "darkroom")
        self._made: dict[tuple[int, tuple[int, int], str], asyncio.Future[bytes]] = {}

    async def original(self, picture: Picture) -> bytes:
        return await self._once((picture.number, picture.size, "original"), original_bytes, picture)

    async def thumb(self, picture: Picture) -> bytes:
        size = shrunk(picture.size, THUMB_SIDE)
        return await self._once((picture.number, size, "thumb"), smaller_bytes, picture, size, 80)

    async def at(self, picture: Picture, address: Address) -> bytes:
        if address.kind == "original":
            return await self.original(picture)
        return await self._once((picture.number, address.size, "copy"), smaller_bytes, picture, address.size)

    async def placeholder(self) -> bytes:
        return await self._once((-1, (400, 300), "placeholder"), placeholder_bytes)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _once(self, key: tuple[int, tuple[int, int], str], make, *args) -> bytes:  # type: ignore[no-untyped-def]
        if key not in self._made:
            self._made[key] = asyncio.get_running_loop().run_in_executor(self._pool, make, *args)
        # A client that hangs up must not cancel the picture for the others.
        return await asyncio.shield(self._made[key])
