"""From signals to a score of 0..100 with the worst trait named. Pure: values in, values out.

The score finds defects; it is no opinion about a picture and no estimate of what people would say (closed-form measures
agree only weakly with people on photographs from the wild: BRISQUE reaches a rank correlation of 0.23 on KonIQ-10k,
learned metrics 0.87 and more). Each trait is put on 0..100 by straight lines between the anchors below. The score is

    worst trait ^ 0.5  x  product of every trait ^ its weight

so that one bad trait cannot be made good by the others, and yet every trait that worsens lowers the score.

The reason is the trait that is the least usual, which need not be the lowest: photographs differ much in contrast and
hardly in their JPEG tables, so that 85 is nothing in the one and a defect in the other. See `USUAL`. A JPEG's quality
is read from the quantisation tables in its header; no pixel is decoded for it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.quality.signals import Signals

WORST_SHARE = 0.5
DEFECT_BELOW = 85.0  # a trait at or above it, measured by what is usual, is no defect worth naming
FLOOR = 0.5  # a trait never counts as less, so that the others still tell two hopeless pictures apart

Anchors = tuple[tuple[float, float], ...]

# Calibrated on undamaged photographs (Kodak's 24 and 41 of CID22), nine in ten of which stay above DEFECT_BELOW in
# every trait, and on the same photographs damaged in known steps.
ANCHORS: dict[str, Anchors] = {
    # index of `softness_index`; undamaged photographs lie between 0.2 and 0.55
    "blurry": ((0.2, 100), (0.33, 96), (0.42, 90), (0.5, 80), (0.58, 65), (0.68, 44), (0.8, 20), (0.95, 3), (1.2, 0)),
    # standard deviation in grey levels
    "noisy": ((0, 100), (0.5, 99.5), (1, 98), (2, 93), (3, 87), (6, 70), (12, 45), (20, 25), (35, 6), (60, 0)),
    # JPEG quality by the quantisation tables
    "jpeg": ((1, 0), (10, 15), (25, 38), (40, 52), (60, 68), (75, 81), (85, 88), (95, 96), (100, 100)),
    # block-edge gradient ratio
    "blocky": ((1, 100), (1.1, 98), (1.3, 90), (1.6, 70), (2.5, 42), (4, 18), (10, 0)),
    # 99th percentile of brightness; 0.32 is where cleanvision begins to say dark
    "dark": ((0, 0), (0.1, 8), (0.32, 36), (0.5, 58), (0.7, 82), (0.85, 94), (1, 100)),
    # share of pixels at the brightest and at the darkest level that occur; backgrounds may be meant, hence gentle
    "overexposed": ((0, 100), (0.3, 96), (0.5, 75), (0.8, 40), (1, 0)),
    "crushed_blacks": ((0, 100), (0.4, 96), (0.7, 65), (1, 0)),
    # standard deviation of brightness over the white level
    "low_contrast": ((0, 0), (0.03, 15), (0.08, 50), (0.14, 82), (0.2, 94), (0.35, 100)),
    # bits of the brightness histogram; cleanvision's low_information begins at 3
    "near_blank": ((0, 0), (1.5, 25), (3, 65), (4.5, 94), (8, 100)),
    # square root of width x height, pixels
    "tiny": ((8, 0), (64, 20), (128, 45), (256, 76), (500, 100)),
    # short side over long side; cleanvision's odd_aspect_ratio begins at 0.35
    "odd_shape": ((0, 0), (0.1, 15), (0.2, 40), (0.35, 80), (0.5, 100)),
}
WEIGHTS = {
    "blurry": 0.5, "noisy": 0.45, "blocky": 0.5, "dark": 0.5, "overexposed": 0.1, "crushed_blacks": 0.05,
    "low_contrast": 0.15, "near_blank": 0.05, "tiny": 0.1, "odd_shape": 0.05,
}  # fmt: skip

# Where a trait begins to be unusual. For what varies among undamaged photographs: the value that 19 of 20 stay above,
# of every other one of those named above, rounded. For what those never show: JPEG quality 82, noise of 3 grey levels.
USUAL = {
    "blurry": 78.0, "noisy": 88.0, "blocky": 86.0, "dark": 85.0, "overexposed": 85.0, "crushed_blacks": 85.0,
    "low_contrast": 86.0, "near_blank": 90.0, "tiny": 85.0, "odd_shape": 85.0,
}  # fmt: skip
# What the fall of the spectrum says of sharpness, on the scale on which DEFECT_BELOW cuts. 19 of 20 undamaged
# photographs lie above -2; a blur of 1 pixel puts 19 of 20 below -2.6.
FALL: Anchors = ((-4.5, 45), (-3.5, 65), (-2.7, 75), (-2.15, 85), (-1.6, 95), (-0.8, 100))
# Per cent of the sharpness trait that is left at such a fall, so that the slightest blur costs something; and the fall
# that a softness index stands for, since noise and rounding fill up the end of the spectrum that a strong blur empties.
FALL_LEAVES: Anchors = ((-3.5, 94), (-2.15, 98), (-0.8, 100))
FALL_AT: Anchors = ((0.4, -0.8), (0.62, -3.5))
LARGE = 4_000_000  # pixels from which the finest detail is looked for at half the size: nobody sees what is finer

# Resampling evidence: undamaged photographs stay below 2.2 and blurred JPEGs mostly below 2.6; enlargements by 2 to
# 4 lie above 2.8 (median 9).
RESAMPLED_FROM, RESAMPLED_SURE = 2.4, 3.3
NAME_FROM = 0.3  # certainty from which soft pixels are called upscaled rather than blurry
# Parts of the sharpness trait taken off where an enlargement is certain. The score loses little by it, so that missing
# the evidence at one enlargement does not put it above a lesser one; the name is worth more.
SCORE_PENALTY, NAME_PENALTY = 0.12, 0.25
# An enlargement has no detail at its end, at full or (by 5 and more) at half the size; a texture that repeats has.
FALLS_FROM, HALF_FALLS_FROM = -1.65, -2.0

ANNEX_K_SUM = 3688  # sum of the luminance table that the JPEG standard gives in Annex K.1, quality 50 by libjpeg


@dataclass(frozen=True)
class TechnicalScore:
    """`score` 0..100; `worst` is the least usual trait's name; `reason` says it in words, or that nothing is unusual;
    `traits` are all on 0..100."""

    score: float
    worst: str
    reason: str
    traits: Mapping[str, float]


def judge(signals: Signals, jpeg_quality: float | None = None) -> TechnicalScore:
    """The verdict on one picture. `jpeg_quality` is 1..100 by the file's tables, None for other formats."""
    traits = {name: max(FLOOR, value) for name, value in _traits(signals, jpeg_quality).items()}
    sure = _enlarged(signals)
    seen = {name: _against_usual(name, value) for name, value in traits.items()}
    seen["blurry"] = min(seen["blurry"], between(FALL, _fall(signals)))  # sharpness by the end of the spectrum
    if sure >= NAME_FROM:
        # It is the same sharpness; the evidence decides which of the two names it goes by.
        traits["upscaled"] = traits.pop("blurry") * (1 - SCORE_PENALTY * sure)
        seen["upscaled"] = seen.pop("blurry") * (1 - NAME_PENALTY * sure)
    worst = min(seen, key=lambda name: seen[name])
    weights = WEIGHTS | {"upscaled": WEIGHTS["blurry"]}
    parts = sum(weights[name] * math.log(value / 100) for name, value in traits.items())
    score = 100 * math.exp(WORST_SHARE * math.log(min(traits.values()) / 100) + parts)
    reason = worst.replace("_", " ") if seen[worst] < DEFECT_BELOW else "no defect found"
    return TechnicalScore(round(score, 3), worst, reason, {name: round(value, 1) for name, value in traits.items()})


def softness_index(signals: Signals) -> float:
    """One number of the three octaves. Nature looks alike at every scale: what is softest at the finest was blurred."""
    fine, middle, coarse = signals.softness
    return 0.5 * fine + 0.3 * middle + 0.2 * coarse + 0.3 * max(0.0, fine - coarse)


def _against_usual(trait: str, value: float) -> float:
    """A trait's value stretched so that where it begins to be unusual is at DEFECT_BELOW, for all traits alike."""
    usual = USUAL[trait]
    if value < usual:
        return DEFECT_BELOW * value / usual
    return DEFECT_BELOW + (100 - DEFECT_BELOW) * (value - usual) / (100 - usual)


def _fall(signals: Signals) -> float:
    return signals.fall[signals.width * signals.height > LARGE]


def between(anchors: Anchors, value: float) -> float:
    """Straight lines between anchors (x ascending), level outside them."""
    if value <= anchors[0][0]:
        return float(anchors[0][1])
    if value >= anchors[-1][0]:
        return float(anchors[-1][1])
    right = bisect_right(anchors, (value, math.inf))
    (x0, y0), (x1, y1) = anchors[right - 1], anchors[right]
    return y0 + (y1 - y0) * (value - x0) / (x1 - x0)


def _traits(signals: Signals, jpeg_quality: float | None) -> dict[str, float]:
    blocky = between(ANCHORS["blocky"], signals.blockiness)
    if jpeg_quality is not None:
        # The tables say what was thrown away, the pixels what shows of it (or of an earlier, harder compression).
        blocky = between(ANCHORS["jpeg"], jpeg_quality) * (blocky / 100) ** 0.7
    softness = softness_index(signals)
    leaves = between(FALL_LEAVES, min(_fall(signals), between(FALL_AT, softness)))
    short, long = sorted((signals.width, signals.height))
    return {
        "near_blank": between(ANCHORS["near_blank"], signals.entropy),
        "blurry": between(ANCHORS["blurry"], softness) * leaves / 100,
        "noisy": between(ANCHORS["noisy"], signals.noise),
        "blocky": blocky,
        "dark": between(ANCHORS["dark"], signals.white),
        "overexposed": between(ANCHORS["overexposed"], signals.clipped_high),
        "crushed_blacks": between(ANCHORS["crushed_blacks"], signals.clipped_low),
        "low_contrast": between(ANCHORS["low_contrast"], signals.contrast),
        "tiny": between(ANCHORS["tiny"], math.sqrt(short * long)),
        "odd_shape": between(ANCHORS["odd_shape"], short / long),
    }


def _enlarged(signals: Signals) -> float:
    """The certainty that the picture was enlarged, 0..1."""
    if signals.fall[0] > FALLS_FROM and signals.fall[1] > HALF_FALLS_FROM:
        return 0.0
    return min(1.0, max(0.0, (signals.resampled - RESAMPLED_FROM) / (RESAMPLED_SURE - RESAMPLED_FROM)))


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


def quality_of_file(source: Path | bytes) -> float | None:
    """The quality of a JPEG file (a path or its bytes); None for other formats and unreadable files."""
    from lib.images.decode import DecodeError, opened

    try:
        with opened(source, ("JPEG",)) as image:
            return jpeg_quality(getattr(image, "quantization", None) or {})
    except DecodeError:  # whether the picture can be read is for the decode to say
        return None
