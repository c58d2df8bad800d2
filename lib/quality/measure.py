"""Technical quality of one picture: decoded, measured and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from lib.images.decode import Header, Picture

# Above this size a picture is judged on a decode of at most LONG_SIDE: 24 megapixels as RGB take 72 MB in each worker.
WHOLE_PIXELS = 24_000_000
LONG_SIDE = 4096
INCOMPLETE = "incomplete"  # data that broke off, the rest filled with one grey
MOST_INCOMPLETE = 30.0  # points that such a picture can have: far below what any bucket calls good


@dataclass(frozen=True)
class Measure:
    """The measurement of one content. `value` is None where it could not be, and `reason` says why.

    `width` and `height` are real and upright; 0 where the header could not be read. `detail` goes into the database as
    JSON and comes back as it was. `vector` is an embedding, float16 little-endian, of unit length. `tries` counts the
    runs that tried in vain to get an answer where others got one.
    """

    value: float | None
    reason: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    vector: bytes | None = None
    sha256: str = ""
    tries: int = 0


def measure_technical(path: Path) -> Measure:
    """The weight-free score of one picture, from one decode of its original pixels (of its first frame)."""
    from lib.images.decode import DecodeError, decode_grey

    try:
        return _judged(path, *decode_grey(path, long_side=_bound(path)))
    except DecodeError as error:
        return Measure(None, error.reason)


def technical_of(path: Path) -> tuple[Picture, Measure]:
    """The decoded picture in colour with its technical score, for what needs both. Raises DecodeError.

    The score is the very one of `measure_technical`: a JPEG's brightness comes from the file, as its colours differ by
    rounding; of other formats it is made of the decoded colours.
    """
    import numpy as np
    from PIL import Image

    from lib.images.decode import decode, decode_grey

    long_side = _bound(path)
    picture = decode(path, long_side=long_side, background=None)
    if picture.header.format == "jpeg":
        grey = decode_grey(path, long_side=long_side)[0]
    else:
        grey = np.asarray(Image.fromarray(picture.rgb).convert("L"))
    return picture, _judged(path, grey, picture.header)


def _bound(path: Path) -> int | None:
    from lib.images.decode import read_header

    header = read_header(path)
    return LONG_SIDE if header.width * header.height > WHOLE_PIXELS else None


def _judged(path: Path, grey: np.ndarray, header: Header) -> Measure:
    """The score of a picture's brightness, uint8 (height, width)."""
    from lib.quality.score import judge, quality_of_file
    from lib.quality.signals import filled_share, measure_signals

    jpeg = quality_of_file(path) if header.format == "jpeg" else None
    signals = measure_signals(grey)
    verdict = judge(signals, jpeg)
    width, height = header.upright_size
    detail = {
        "worst": verdict.worst,
        "traits": dict(verdict.traits),
        "jpeg_quality": None if jpeg is None else round(jpeg, 1),
        "signals": {name: _short(value) for name, value in asdict(signals).items()},
    }
    if share := filled_share(_as_stored(grey, header.orientation)):
        detail |= {"worst": INCOMPLETE, "filled": round(share, 3)}
        score = round(min(verdict.score, MOST_INCOMPLETE) * (1 - share), 3)
        return Measure(score, f"{INCOMPLETE}: {share:.0%} of it is filling", width, height, header.format, detail)
    return Measure(verdict.score, verdict.reason, width, height, header.format, detail)


def _as_stored(grey: np.ndarray, orientation: int) -> np.ndarray:
    """An upright array, (height, width), as the file stores it."""
    if orientation <= 1:
        return grey
    import numpy as np
    from PIL import Image

    from lib.images.decode import upright

    back = {6: 8, 8: 6}.get(orientation, orientation)  # the others are their own way back
    return np.asarray(upright(Image.fromarray(grey), back))


def _short(value: float | Sequence[float]) -> float | list[float]:
    return round(value, 4) if isinstance(value, (int, float)) else [round(part, 4) for part in value]
