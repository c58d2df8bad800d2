"""The second kind of evidence: two pictures with near hashes are one picture, an altered one, or two.

The limits were measured on 165 photographs (24 Kodak, 41 CID22, 100 found on the web) with 18 harmless alterations
(JPEG down to quality 10, WebP, half and quarter size, brightness, contrast, gamma, saturation, grey, blur, sharpening,
noise) and 11 real ones (captions, logos, a watermark, montages, crops, turned hues, a mirror).

The residual is what one fit of tone, sharpness and slight moves leaves between two pictures that look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib.dedup.colours import OTHER_COLOURS, colour_finding, toned
from lib.hashing.buffers import LONG_SIDE, Buffers
from lib.hashing.dct import block_means, gradient, laplacian, median, turn
from lib.hashing.views import WHOLE, View, as_shares, correlate, refine, sample, tilted

ONE_PLACE, SMALL_PLACE, TILTED = "changed in one place", "changed in a small place", "tilted or cropped a little"
BLOCK = 8  # pixels along a side of a block of the edit map

# Distinct photographs correlate at .926 at most (1.4 million pairs), text pages at .908, harmless alterations at .973
# and more once tone and sharpness are evened out.
LEAST_CORRELATION = 0.95
HOPELESS = 0.5  # before the tone is evened out; gamma, contrast and clipping leave .9 and more
# Largest block difference, in grey levels, after that: harmless 10.5 for all but strong sharpening of small pictures
# (14.7, at a correlation of .99), crops from 11 (mostly at far lower correlations), captions from 19, montages from 21.
GREATEST_BLOCK = 12.0
GREATEST_SHARPENED = 16.0
SHARPENED_CORRELATION = 0.99
# A change in one place: its block stands out from the median block. Harmless by a factor of 4.8 at most, logos 6.4 and
# more, watermarks 4.3 in 95 of 100 cases; differences of a few levels are left to rounding.
LOCAL_BLOCK = 3.0
LOCAL_RATIO = 5.2
MEDIAN_FLOOR = 0.5  # grey levels; what rounding alone leaves
# What one fit of slight moves, sharpness and colour leaves over (`residual`), measured over 208 photographs with 18
# harmless alterations and 4 pairs of them each. The corner that moves most: harmless .0035 of the side (small and
# sharpened), tilts of half a degree .0052, crops of up to 2 % a side .0030 and more.
GREATEST_MOVE = 0.0045
ROUNDED_MOVE = 0.2  # pixels of the smaller copy, whose sides were rounded
# How far the 1st, 3rd, 5th, 8th and 12th worst of 256 blocks stand out: beyond these 1 of 3,773 harmless copies (bright
# colours that clip), 33 of 38 watermarks that came so far, 108 of 124 logos of 3 to 6 % of the short side.
STANDING_OUT = (9.2, 5.6, 4.9, 3.8, 3.1)
# A part or a turned copy that was met by its hash must also look like it once its edges are fitted. Of 2.7 million
# pairs of distinct photographs none came so far as to be fitted; true ones reach .95 and more.
LEAST_UNDER_A_VIEW = 0.9
LEAST_TILTED = 0.8  # the angle is met to within a degree or two, and the corners differ
# A picture with fewer pixels on a side has less detail than the buffers can hold; both are then compared at half scale.
SMALL = 128
# Rounding a small copy's sides to whole pixels changes the proportions by less than this; a stretched copy by more.
GREATEST_STRETCH = 0.03

BLOCKS = 16  # along a side
RANKS = (1, 3, 5, 8, 12)  # of the blocks, the worst first
_GROUPS = 16  # of blocks of like detail
FLOOR = 0.7  # grey levels; what rounding and a good encoder leave anywhere
QUIET = 2.0  # grey levels; where no block leaves more, none stands out by three times the floor: 4 of 10 copies
_RIDGE = 1e-5  # well above what single precision leaves of a sum of 4,096 products
_DOUBT = 3.0  # times the usual residual; what lies further off has half the say or less in the fit


@dataclass(frozen=True)
class PairComparison:
    """`same` tells whether it is one picture; `reason` says why, or what is different.

    `correlation` is 0 where the shapes alone tell two pictures apart. `doubtful` says of a pair that is not the same
    that some places stand out and nothing else: thin lines and letters do that, and a closer look may tell.
    """

    same: bool
    correlation: float
    reason: str
    doubtful: bool = False


@dataclass(frozen=True)
class Fit:
    """The measure of how well a tone curve and one number for the sharpness turn one grey picture into the other.

    correlation  of the two after that
    blocks       float of shape (n / 8, n / 8): mean difference of each block in grey levels after that
    toned        float32: the one picture under the tone curve, its sharpness as it was
    target       float32: the other
    """

    correlation: float
    blocks: np.ndarray
    toned: np.ndarray
    target: np.ndarray


def compare(one: Buffers, other: Buffers) -> PairComparison:
    """Compares two pictures: the same one, re-encoded, resized or retoned, by their grey and colour buffers."""
    if one.frames != other.frames:
        return PairComparison(False, 0.0, f"{one.frames} and {other.frames} frames or pages")
    if len(one.greys) != len(other.greys):
        return PairComparison(False, 0.0, "one is animated or transparent")
    if _stretched(one, other):
        return PairComparison(False, 0.0, "other proportions")
    lowest, doubtful = 1.0, ""
    small = min(one.width, one.height, other.width, other.height) < SMALL
    for a, b in zip(one.greys, other.greys, strict=True):
        fit = toned_difference(*(_halved(a), _halved(b)) if small else (a, b))
        lowest = min(lowest, fit.correlation)
        if fit.correlation < LEAST_CORRELATION:
            return PairComparison(False, fit.correlation, "cropped or changed")
        reason = _difference(fit.blocks, fit.correlation)
        if reason == ONE_PLACE and _closer(fit, one, other) == TILTED:
            return PairComparison(False, fit.correlation, reason)
        reason = reason or _closer(fit, one, other)
        if reason in (ONE_PLACE, SMALL_PLACE):
            doubtful = doubtful or reason
        elif reason:
            return PairComparison(False, fit.correlation, reason)
    colours = colour_finding(one, other)
    if doubtful:
        return PairComparison(False, lowest, doubtful, colours != OTHER_COLOURS)
    return PairComparison(colours != OTHER_COLOURS, lowest, colours or "re-encoded or resized")


def look(shown: Buffers, met: Buffers, seen: View, inside: bool) -> str:
    """Says what `met` shows of `shown` under a view; empty where a closer look does not bear it out.

    `inside` compares with what is inside the border of `met`.
    """
    source, target = shown.greys[0], met.greys[0]
    if seen.turn:
        source = turn(source, seen.turn)
    if seen.tilt:
        source = tilted(source, seen.tilt)
    if seen.both:
        correlation = correlate(sample(source, seen.box), sample(target, seen.box))
        return f"alike but for a bar, correlation {correlation:.3f}" if correlation >= LEAST_UNDER_A_VIEW else ""
    within = as_shares(met.box) if inside else WHOLE
    box, correlation = refine(source, sample(target, within) if inside else target, seen.box)
    if correlation < (LEAST_TILTED if seen.tilt else LEAST_UNDER_A_VIEW):
        return ""
    if seen.tilt:
        return f"tilted, correlation {correlation:.3f}"
    kept = (box[2] - box[0]) * (box[3] - box[1])
    words = [seen.turn] if seen.turn else []
    words += [f"a part of {min(1.0, kept):.0%}"] if kept < 0.985 else []
    words += ["with a border"] if inside or seen.box == as_shares(shown.box) != WHOLE else []
    return f"{', '.join(words) or 'nearly the whole'}, correlation {correlation:.3f}"


def toned_difference(one: np.ndarray, other: np.ndarray) -> Fit:
    """Returns what sets two grey pictures of equal shape apart once tone and sharpness are evened out.

    Clipping loses grey levels, so that the darker picture may be made from the brighter one but not the reverse: the
    curve is fitted both ways and the better fit counts.
    """
    if (plain := correlate(one, other)) < HOPELESS:  # no curve brings these together; most pairs end here
        target = other.astype(np.float32)
        return Fit(plain, block_means(np.abs(one - target), len(one) // BLOCK), one.astype(np.float32), target)
    fits: list[Fit] = []
    for source, goal in ((one, other), (other, one)):
        curved, target = toned(source, goal), goal.astype(np.float32)
        fitted = sharpened(curved, target)
        blocks = block_means(np.abs(fitted - target), len(one) // BLOCK)
        fits.append(Fit(correlate(fitted, target), blocks, curved, target))
        if fits[0].correlation >= LEAST_CORRELATION and fits[0].blocks.max() <= LOCAL_BLOCK:
            break  # as good as it needs to be
    return min(fits, key=lambda fit: float(fit.blocks.max()))


def sharpened(fitted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`fitted` (float32) with as much of its own Laplacian as brings it nearest to `target`: float32, same shape.

    Blur, sharpening and the softness of small copies change every edge alike and are explained by this one number.
    """
    curved = laplacian(fitted)
    share = float(np.vdot(curved, target - fitted)) / max(1.0, float(np.vdot(curved, curved)))
    return fitted + np.float32(share) * curved


def _halved(grey: np.ndarray) -> np.ndarray:
    half = len(grey) // 2
    return (grey.reshape(half, 2, half, 2).mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def _difference(blocks: np.ndarray, correlation: float) -> str:
    worst, usual = float(blocks.max()), median(blocks.ravel())
    limit = GREATEST_SHARPENED if correlation >= SHARPENED_CORRELATION else GREATEST_BLOCK
    if worst > LOCAL_BLOCK and worst / (usual + MEDIAN_FLOOR) > LOCAL_RATIO:
        return ONE_PLACE
    return "changed in places" if worst > limit else ""


def _closer(fit: Fit, one: Buffers, other: Buffers) -> str:
    left = residual(fit.toned, fit.target, np.concatenate((one.coarse, other.coarse)))
    shortest = max(1, min(one.width, one.height, other.width, other.height))
    if left.moved > GREATEST_MOVE + ROUNDED_MOVE / shortest + _padding(one) + _padding(other):
        return TILTED
    stands_out = any(found > limit for found, limit in zip(left.standing_out, STANDING_OUT, strict=True))
    return SMALL_PLACE if stands_out else ""


def _padding(buffers: Buffers) -> float:
    """Share of a side by which the reduced picture reached beyond the whole one: both reductions round up."""
    longest = max(buffers.width, buffers.height)
    by_decoder = min(8, 1 << max(0, (longest // LONG_SIDE).bit_length() - 1))
    steps = {scale * max(1, -(-longest // scale) // LONG_SIDE) for scale in (1, by_decoder)}
    return max((-side % step) / max(1, side) for step in steps for side in (buffers.width, buffers.height))


def _stretched(one: Buffers, other: Buffers) -> bool:
    ratio = (one.width * other.height) / max(1, one.height * other.width)
    # Half a pixel of rounding on the shortest side is no stretch either.
    rounding = 1.0 / max(1, min(one.width, one.height, other.width, other.height))
    return abs(float(np.log(ratio))) > GREATEST_STRETCH + rounding


@dataclass(frozen=True)
class Residual:
    """`moved`: how far the corner that moved most has gone, as a share of the side.

    `standing_out`: by what factor the worst blocks exceed what blocks of like detail leave over, at each of `RANKS`; 0
    where too little is left over to look for any.
    """

    moved: float
    standing_out: tuple[float, ...]


def residual(fitted: np.ndarray, target: np.ndarray, chromas: np.ndarray) -> Residual:
    """Of two grey pictures whose tone was evened out, float32 of shape (n, n), and k buffers of colour, (k, 16, 16).

    One least-squares fit explains what a slight shift, turn, stretch or cut of the whole picture does, what blur or
    sharpening does, and that colours turn into greys in more than one way. A place that was changed is not explained.
    """
    side = len(fitted)
    down, across = gradient((fitted + target) * np.float32(0.5))
    effects = _effects(fitted, down, across, chromas)
    wanted = (target - fitted).ravel()
    shares, rest = _fit(effects, wanted, None)
    if block_means((rest * rest).reshape(side, side), BLOCKS).max() < QUIET**2:
        return Residual(_farthest_corner(shares[:6]) / side, (0.0,) * len(RANKS))
    usual = 1.5 * median(np.abs(rest)) + 0.5
    shares, rest = _fit(effects, wanted, 1.0 / (1.0 + (rest / (_DOUBT * usual)) ** 2))
    residual = np.sqrt(block_means((rest * rest).reshape(side, side), BLOCKS))
    # The detail that both have: what was put into one of them must not excuse itself.
    slopes = gradient(fitted), gradient(target)
    detail = np.minimum(*(block_means(down * down + across * across, BLOCKS) for down, across in slopes))
    return Residual(_farthest_corner(shares[:6]) / side, _standing_out(residual.ravel(), detail.ravel()))


def _effects(fitted: np.ndarray, down: np.ndarray, across: np.ndarray, chromas: np.ndarray) -> np.ndarray:
    """float32 of shape (8 + k, n * n): what each cause would add to the picture."""
    side = len(fitted)
    x, y = _places(side)
    made = np.empty((8 + len(chromas), side, side), np.float32)
    made[0], made[3] = across, down
    np.multiply(across, x, out=made[1])
    np.multiply(across, y, out=made[2])
    np.multiply(down, x, out=made[4])
    np.multiply(down, y, out=made[5])
    made[6] = laplacian(fitted)
    made[7] = 1.0
    coarse = chromas.shape[-1]
    spread = made[8:].reshape(len(chromas), coarse, side // coarse, coarse, side // coarse)
    spread[:] = (chromas.astype(np.float32) - 128)[:, :, None, :, None]
    return made.reshape(len(made), -1)


def _fit(effects: np.ndarray, wanted: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(share of each effect, what no effect explains) by weighted least squares."""
    weighed = effects if weights is None else effects * weights
    normal = (weighed @ effects.T).astype(np.float64)
    # Two buffers of the same colours, or of none, explain the same thing twice: neither may grow at the other's cost.
    diagonal = normal.reshape(-1)[:: len(normal) + 1]
    diagonal *= 1.0 + _RIDGE
    diagonal += 1.0
    shares = np.linalg.solve(normal, weighed @ wanted).astype(np.float32)
    return shares, wanted - shares @ effects


def _farthest_corner(shares: np.ndarray) -> float:
    """Pixels that the corner moves which moves most."""
    corners = np.array([[1, x, y] for x in (-1, 1) for y in (-1, 1)], np.float32)
    return float(np.hypot(corners @ shares[:3], corners @ shares[3:6]).max())


def _standing_out(residual: np.ndarray, detail: np.ndarray) -> tuple[float, ...]:
    """Residuals are as large as the detail around them; the usual size for so much detail is their median."""
    order = np.argsort(detail, kind="stable")
    usual = np.median(residual[order].reshape(_GROUPS, -1), axis=1)
    middles = (np.arange(_GROUPS) + 0.5) * (len(order) / _GROUPS)
    expected = np.interp(np.arange(len(order)), middles, np.maximum.accumulate(usual))
    factors = np.sort(residual[order] / (expected + FLOOR))[::-1]
    return tuple(float(factors[rank - 1]) for rank in RANKS)


@lru_cache(maxsize=4)
def _places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Across and down, -1 to 1 at the outer edges, float32 of shape (n, n) each."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(steps, steps)
    return x, y
