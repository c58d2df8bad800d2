"""Unpacks bodies that came compressed although they were not asked for, in small steps under a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from lib.net.failures import Stop

STEP = 256 * 1024  # bytes unpacked at a time, so that a bomb never stands in memory


def decoder(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """What unpacks the chunks of a body; None where nothing is to be done.

    Raises Stop for an encoding that is not unpacked, and while unpacking for data that is none.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Stop("encoded_body", f"Content-Encoding {name[:40]}")
    machine = zlib.decompressobj(47 if name != "deflate" else 15)

    def decode(chunk: bytes) -> Iterator[bytes]:
        while chunk and not machine.eof:  # what follows the end would only pile up
            try:
                block = machine.decompress(chunk, STEP)
            except zlib.error as error:
                raise Stop("encoded_body", str(error)) from error
            chunk = machine.unconsumed_tail
            if block:
                yield block

    return decode
