"""JPEG quality from a file's quantisation tables: read from the header, no pixel is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ANNEX_K_SUM = 3688  # sum of the luminance table that the JPEG standard gives in Annex K.1, quality 50 by libjpeg


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> float | None:
    """The IJG quality, 1..100, that the luminance table comes nearest to; None without one.

    libjpeg scales the Annex K table by S per cent, S = 200 - 2 Q from quality 50 up and 5000 / Q below; the sum of the
    table gives S back, whatever order its entries are in. Entries stop at 255, so that qualities below 15 read a
    little high; for tables that are not scaled from Annex K (cameras, Photoshop) the number is an approximation.
    """
    if not tables:
        return None
    scale = 100 * sum(tables[min(tables)]) / ANNEX_K_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(100.0, max(1.0, quality))


def quality_of_file(source: Any) -> float | None:
    """The quality of a JPEG file (a path or a binary file object); None for other formats and unreadable files."""
    from PIL import Image

    try:
        with Image.open(source) as image:
            return jpeg_quality(getattr(image, "quantization", None) or {})
    except Exception:  # the codec boundary; whether the picture can be read is for the decode to say
        return None
