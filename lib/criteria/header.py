"""What a picture's header says: format and upright size. Reading it costs a tenth of a millisecond, no decode."""

from __future__ import annotations

from pathlib import Path

from lib.criteria import Measure

METRIC = "header"
VERSION = "header-1"


def measure(path: Path) -> Measure:
    """The upright size in pixels; `value` is the size in megapixels."""
    from lib.decode import DecodeError, read_header

    try:
        header = read_header(path)
    except DecodeError as error:
        return Measure(None, error.reason)
    width, height = header.upright_size
    detail = {"frames": header.frames, "orientation": header.orientation, "mode": header.mode}
    return Measure(width * height / 1e6, "", width, height, header.format, detail)
