"""What one decode of a picture file tells, as workers compute it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.decode import DecodeError, opened
from lib.dedup.facts import facts_of
from lib.hashing.buffers import packed_buffers
from lib.hashing.kinds import HashChoice, imagehash_of

# What is decoded in this process: formats whose codecs are used everywhere and attacked every day. A file in any other
# is left to worker processes, which may die of it.
TRUSTED = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP")
ELSEWHERE = "not_trusted"
OURS = HashChoice()


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
