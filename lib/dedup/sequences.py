"""Two animations, or two files of several pages, frame by frame: whether every one shows the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.dedup.compare import compare
from lib.dedup.detail import frame_closeup, left_over
from lib.hashing.buffers import Buffers, frame_buffers
from lib.hashing.dct import flat_pictures
from lib.images.frames import Frames, opened_frames

# Frames without any picture, as a film begins and ends with: a good encoder moves their grey and colours by less.
EMPTY_LEVELS = 4.0
# A GIF counts its durations in hundredths of a second, and other formats round to them.
DURATION_STEP = 10.0  # milliseconds
DURATION_SHARE = 0.1


def frames_differ(one: Path | str, other: Path | str) -> str:
    """Says in which frame or page two files differ, and how; empty where all show the same picture for the same time.

    Both are read frame by frame, one of each in memory, and no further than to the first that differs. Raises
    lib.images.decode.DecodeError where a frame of either cannot be decoded.
    """
    with opened_frames(Path(one)) as mine, opened_frames(Path(other)) as others:
        if mine.count != others.count:
            return f"{mine.count} and {others.count} frames or pages"
        for number in range(mine.count):
            if reason := _difference(mine, others, number):
                return f"frame {number + 1} of {mine.count}: {reason}"
    return ""


def _difference(mine: Frames, others: Frames, number: int) -> str:
    with mine.at(number) as first, others.at(number) as second:
        one, other = frame_buffers(first), frame_buffers(second)
        shown = first.duration, second.duration
    if abs(shown[0] - shown[1]) > max(DURATION_STEP, DURATION_SHARE * max(shown)):
        return f"shown for {shown[0]:.0f} and {shown[1]:.0f} ms"
    empty = _is_empty(one), _is_empty(other)
    if all(empty):
        return "" if _apart(one, other) <= EMPTY_LEVELS else "another plain colour"
    if any(empty):
        return "one is empty"
    finding = compare(one, other)
    if not finding.same:
        return finding.reason
    with mine.at(number) as first, others.at(number) as second:
        return left_over(frame_closeup(first), frame_closeup(second))


def _is_empty(frame: Buffers) -> bool:
    return bool(flat_pictures(frame.greys).all())


def _apart(one: Buffers, other: Buffers) -> float:
    """The larger mean difference of grey and of colour, in levels."""
    pairs = ((one.greys[0], other.greys[0]), (one.chroma, other.chroma))
    return max(float(np.abs(a.astype(np.int16) - b).mean()) for a, b in pairs)
