"""Evens out the tones of two pictures that look alike, and compares their colours: the same, none, or other ones.

Sliders change all three channels by one curve and then the saturation, in all places alike. That is explained first:
the grey pictures tell the curve, least squares the saturation. Not explained, so that they stay as a difference, are a
hue in another place, a thin line in another colour, and a grade (white balance, sepia, a curve for each channel).

The limits were measured on 80 photographs (Kodak, CID22, pictures found on the web) with 20 harmless alterations and 15
grades of each, and on 182 pairs of drawings (charts, maps, dots, pages with coloured words and lines) that differ in
colour alone, saved in seven ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lib.hashing.buffers import NO_COLOUR, Buffers
from lib.hashing.dct import mean, median

GREY_VERSION = "grey version"
OTHER_COLOURS = "other colours"

COLOURLESS_BELOW = 1.0  # mean distance of Cb and Cr from 128
# Levels of colour in the third most coloured of 4,096 places: a line of one pixel across 1,800 leaves 4, a grey JPEG in
# three channels 1.4 at most.
COLOURED_SPOT, SPOT_RANK = 3.0, 3
# Median colour of a picture whose ground has none: charts and pages 0, photographs 1.8 and more. There the grey version
# of a thin coloured line and a grey line that was drawn are one and the same.
COLOURLESS_GROUND = 1.0
# Of the saturation: sliders leave .4 and more, a grade that is taken for its pale original far less.
LEAST_SHARE = 0.3
# Unexplained colour, in levels of Cb and Cr: the mean and the worst of 256 places. Harmless 5.1 (a quarter of a small
# picture) and 24 (a palette that lacks the colour) at most, a hue turned by a quarter 10 and 43.
GREATEST_MEAN, GREATEST_SPOT = 6.0, 26.0
# The part of it that a grade explains, set against what no grade does. Harmless beyond this 1 of 1,600, grades within
# it 17 of 960, and of those that shift by some two levels 43 of 240. Where colours differ by less in the mean, it is
# the rounding of an encoder: flat colours of drawings all shift by one step.
GREATEST_GRADE, LEAST_GRADED = 2.2, 1.1
# Colour that stands out, added up over places of which most is unexplained, against what the calmer three quarters
# leave. On a ground with colour: harmless beyond this 1 of 1,600, maps with another route from 34. On one without:
# saved in other ways 15 (1 of 182 more: a thin line that WebP wipes out), lines and words of another colour from 20.
GREATEST_STANDING_OUT, ON_PLAIN_GROUND = 30.0, 16.0
_AS_GOOD_AS_NEEDED = 1.5  # levels, root mean square: the other direction is then not tried
_LEAST_LEVELS = 2.0  # in one place; rounding and chroma at half the resolution leave less
_FLOOR = 0.5  # levels; what rounding alone leaves
_TERMS = 9  # of a grade
_RIDGE = 1e-5
_Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]
_CLIPPED = 4  # grey levels from either end; a point of a curve there tells no slope
_LEVELS = np.arange(256)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Explained:
    """The colours of one picture as sliders would make them of the other's.

    left    float32 of shape (2, n, n): Cb and Cr that they do not explain, in levels
    made    the same: what they make
    target  the same: what there is
    luma    float32 of shape (n, n): of the target
    share   of the saturation, 0 for a grey version
    """

    left: np.ndarray
    made: np.ndarray
    target: np.ndarray
    luma: np.ndarray
    share: float

    @property
    def remaining(self) -> float:
        """Returns the root mean square of what is left, in levels."""
        return float(np.sqrt(np.vdot(self.left, self.left) / self.luma.size))

    def halved(self) -> Explained:
        """Returns the means of two by two places."""
        left, made, target, luma = map(_halved, (self.left, self.made, self.target, self.luma))
        return Explained(left, made, target, luma, self.share)


def toned(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` (uint8) under the rising tone curve that brings it nearest to `target` (uint8): float32, same shape.

    Brightness, contrast, gamma and clipping map a grey level to another one wherever it stands; a caption, a logo or a
    montage does not, and stays as a difference.
    """
    return tone_curve(source, target)[source]


def tone_curve(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The curve of `toned`, by grey level: float32 of shape (256,)."""
    places, values, _ = _tones(source, target)
    return np.interp(_LEVELS, places, values).astype(np.float32)


def rising(values: list[float], weights: list[int]) -> list[float]:
    """The rising sequence nearest to the values by weighted least squares (pooling of adjacent violators).

    `scipy.optimize.isotonic_regression` gives the same, and takes 0.17 s and 12 MB to import.
    """
    pools: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = value, float(weight), 1.0
        while pools and pools[-1][0] >= mean:
            before, its_weight, its_length = pools.pop()
            mean = (mean * total + before * its_weight) / (total + its_weight)
            total += its_weight
            length += its_length
        pools.append([mean, total, length])
    return [mean for mean, _, length in pools for _ in range(int(length))]


def colourless(buffers: Buffers) -> bool:
    """Says whether a picture shows no colour at all, not even in a thin line."""
    return buffers.colour < COLOURLESS_BELOW and _spot(_strength(_about_grey(buffers.chroma))) < COLOURED_SPOT


def colour_finding(one: Buffers, other: Buffers) -> str:
    """Returns OTHER_COLOURS, GREY_VERSION where one has none, or nothing where they have the same ones."""
    grey = colourless(one), colourless(other)
    if all(grey):
        return ""
    if any(grey):
        return OTHER_COLOURS if _on_plain_ground(other if grey[0] else one) else GREY_VERSION
    plain = _on_plain_ground(one) and _on_plain_ground(other)
    return "" if any(_explains(found, plain) for found in explanations(one, other)) else OTHER_COLOURS


def explanations(one: Buffers, other: Buffers) -> Iterator[Explained]:
    """Yields the better of either from the other, under the greys' curve, under a gamma, and under no curve.

    Clipping loses colour, so that one may be made from the other but not the reverse; and stronger colours that clip
    change greys as well, but by no curve. Channels of strong colours lie where the greys show nothing of the curve.
    """
    for curve in (_curve, _power, _unchanged):
        found = _explained(one, other, curve)
        if found.remaining > _AS_GOOD_AS_NEEDED or found.share < LEAST_SHARE:
            found = min(found, _explained(other, one, curve), key=lambda explanation: explanation.remaining)
        yield found


def _explains(found: Explained, plain: bool) -> bool:
    """Says whether what is left is no more than harmless alterations leave; `plain` tells of the ground."""
    half = found.halved()
    if found.share < LEAST_SHARE or standing_out(half) > (ON_PLAIN_GROUND if plain else GREATEST_STANDING_OUT):
        return False
    apart = _strength(_halved(half.left))
    strength = mean(apart)
    if strength > GREATEST_MEAN or float(apart.max()) > GREATEST_SPOT:
        return False
    return strength <= LEAST_GRADED or grade(half) <= GREATEST_GRADE


def standing_out(found: Explained) -> float:
    """Returns by what factor colour in single places exceeds what is usual for the pair."""
    left = _strength(found.left).ravel()
    strongest = np.maximum(_strength(found.made), _strength(found.target)).ravel()
    order = np.sort(left)
    usual, calm = float(order[len(order) // 2]), float(order[len(order) * 3 // 4])
    unlike = left[(left > strongest / 2) & (left > _LEAST_LEVELS + 3 * usual)]
    return float(np.sqrt(np.vdot(unlike, unlike))) / (_FLOOR + calm)


def grade(found: Explained) -> float:
    """Returns how much of what is left over depends on luma and colour alone, wherever it stands.

    Such is a white balance, a tint of lights or shadows, a curve of one channel, a turned hue. Noise and clipping are
    not: what no such cause explains counts against it.
    """
    effects, wanted = _grades(found), found.left.reshape(-1)
    explains, rest = _fit(effects, wanted, np.float32(1.0))
    doubt = 1 / (1 + (rest / (3 * median(rest) + np.float32(_FLOOR))) ** 2)
    explains, rest = _fit(effects, wanted, np.concatenate((doubt, doubt)))
    strength = float(np.sqrt(np.vdot(explains, explains) / rest.size))
    return strength**1.5 / (median(rest) + _FLOOR) / min(1.0, max(LEAST_SHARE, found.share))


def _grades(found: Explained) -> np.ndarray:
    """float32 of shape (9, 2 * n * n): a tint in three steps of luma, a turn of the hues, two stretches of them."""
    blue, red = found.made.reshape(2, -1)
    luma = (found.luma.ravel() - NO_COLOUR) / np.float32(NO_COLOUR)
    made = np.zeros((_TERMS, 2, luma.size), np.float32)
    made[0, 0] = made[1, 1] = 1.0
    made[2, 0] = made[3, 1] = luma
    made[4, 0] = made[5, 1] = luma * luma
    made[6] = -red, blue
    made[7] = blue, -red
    made[8] = red, blue
    return made.reshape(_TERMS, -1)


def _fit(effects: np.ndarray, wanted: np.ndarray, weights: np.ndarray | np.float32) -> tuple[np.ndarray, np.ndarray]:
    """(what the effects explain, length of the rest in each place) by weighted least squares."""
    weighed = effects * weights
    normal = (weighed @ effects.T).astype(np.float64)
    normal.reshape(-1)[:: _TERMS + 1] += _RIDGE * wanted.size
    explains = np.linalg.solve(normal, weighed @ wanted).astype(np.float32) @ effects
    return explains, _strength((wanted - explains).reshape(2, -1))


def _explained(one: Buffers, other: Buffers, curve: _Curve) -> Explained:
    source, goal = _about_grey(one.chroma), _about_grey(other.chroma)
    channels = _channels(one.greys[0].astype(np.float32), source)
    curved = curve(one.greys[0], other.greys[0])[(channels + np.float32(0.5)).astype(np.uint8)]
    luma, colour = _split(curved)
    share = max(0.0, _share(colour, goal))
    made = colour * np.float32(share)
    if share > 1:  # stronger colours clip
        for _ in range(2):
            made = _split(_saturated(curved, luma, share))[1]
            share *= min(1.5, max(0.7, _share(made, goal)))
        made = _split(_saturated(curved, luma, share))[1]
    return Explained(goal - made, made, goal, other.greys[0].astype(np.float32), share)


def _share(colour: np.ndarray, goal: np.ndarray) -> float:
    return float(np.vdot(colour, goal)) / max(1.0, float(np.vdot(colour, colour)))


def _saturated(channels: np.ndarray, luma: np.ndarray, share: float) -> np.ndarray:
    return (luma + np.float32(share) * (channels - luma)).clip(0, 255)


def _tones(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(grey levels of the one, those of the other that they become, how many pixels) at up to 64 points."""
    levels = source.ravel().astype(np.intp)
    each = np.bincount(levels, minlength=256)
    counts = each.reshape(64, 4).sum(axis=1)
    means = np.bincount(levels, weights=target.ravel(), minlength=256).reshape(64, 4).sum(axis=1)
    places = (each * _LEVELS).reshape(64, 4).sum(axis=1)
    used = counts > 0
    weights = counts[used]
    values = means[used] / weights
    if (values[1:] <= values[:-1]).any():  # most rise as they are
        values = np.array(rising(values.tolist(), weights.tolist()))
    return places[used] / weights, values, weights


def _curve(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float32 of shape (256,): the rising curve from one grey picture to another, straight where they show nothing."""
    places, values, weights = _tones(source, target)
    curve = np.interp(_LEVELS, places, values)
    inside = (values > _CLIPPED) & (values < 255 - _CLIPPED)
    weights = (weights * inside if inside.sum() > 2 else weights).astype(np.float64)
    weights /= weights.sum()
    away, rise = places - weights @ places, values - weights @ values
    slope = max(0.0, float((weights * away) @ rise) / max(1.0, float((weights * away) @ away)))
    first, last = int(np.ceil(places[0])), int(places[-1]) + 1
    curve[:first] = values[0] + (_LEVELS[:first] - places[0]) * slope
    curve[last:] = values[-1] + (_LEVELS[last:] - places[-1]) * slope
    return curve.clip(0, 255).astype(np.float32)


def _power(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float32 of shape (256,): the power that brings one grey picture nearest to another."""
    places, values, weights = _tones(source, target)
    one, other = (np.log(np.clip(levels, 1, 254) / 255) for levels in (places, values))
    power = float((weights * one) @ other) / float((weights * one) @ one)
    return (255 * (_LEVELS / 255) ** power).astype(np.float32)


def _unchanged(_source: np.ndarray, _target: np.ndarray) -> np.ndarray:
    return _LEVELS.astype(np.float32)


def _channels(luma: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """float32 of shape (3, n, n): red, green and blue."""
    blue, red = colour
    made = np.empty((3, *luma.shape), np.float32)
    np.add(luma, np.float32(1.402) * red, out=made[0])
    np.subtract(luma, np.float32(0.344136) * blue + np.float32(0.714136) * red, out=made[1])
    np.add(luma, np.float32(1.772) * blue, out=made[2])
    return made.clip(0, 255, out=made)


def _split(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(luma, Cb and Cr about 0) of float32 of shape (3, n, n)."""
    luma = np.tensordot(_LUMA, channels, 1)
    return luma, np.stack(((channels[2] - luma) * np.float32(0.564), (channels[0] - luma) * np.float32(0.713)))


def _about_grey(chroma: np.ndarray) -> np.ndarray:
    return chroma.astype(np.float32) - NO_COLOUR


def _strength(colour: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(colour[0] * colour[0] + colour[1] * colour[1]))


def _spot(strength: np.ndarray) -> float:
    return float(np.partition(strength, -SPOT_RANK, axis=None)[-SPOT_RANK])


def _on_plain_ground(buffers: Buffers) -> bool:
    return median(_strength(_about_grey(buffers.chroma)).ravel()) < COLOURLESS_GROUND


def _halved(values: np.ndarray) -> np.ndarray:
    """float32 of shape (…, n, n) -> (…, n / 2, n / 2): the means of two by two."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25))
