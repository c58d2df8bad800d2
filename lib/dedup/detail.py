"""The second look at two pictures that the first one takes for the same: at six times its resolution, in three scales.

Forms, boards and captions share a template: 64x64 pixels show that and little of what is written on it. Here tone,
sharpness and slight moves are evened out on up to 384 pixels. What is left is set against all that copying leaves: the
noise that the files' own quantisation tables allow, a share of the detail that both have in that place, and a share of
what had to be evened out there. Other content is not explained by these, wherever and however often it stands.

A faint mark is weaker than the noise that a bad copy may have. So what is left is also set against what this very copy
leaves where there is as much detail: a mark that is spread over the picture lifts some places and not the others.

The limits were measured on 1,316 harmless copies of 40 photographs and 635 of 19 kinds of templates, against 190 pairs
of other content on one template, 80 captions with another digit and 400 marked, covered and pixelated copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from lib.dedup.colours import tone_curve
from lib.hashing.dct import gradient, laplacian, median
from lib.images.colours import in_srgb
from lib.images.decode import codec_boundary, flattened, upright
from lib.images.frames import Frame, opened_frames
from lib.images.ground import may_be_clear

VERSION = "1"
LONG_SIDE = 384  # pixels; a digit of 5 % of the short side is 12 to 19 pixels high
_STEP = 32  # pixels; sides are multiples of it, so that blocks of all scales fill the picture
SCALES = 3  # of detail: 1, 2 and 4 pixels of the picture that is looked at; then what is coarser
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

# What is left in the worst block of each scale, in shares of what copying explains. Harmless at most .92, .77, .38 and
# 2.1 (sharpening by 150 % at a radius of 2 pixels .83, 1.7, .81 and 3.1: 4 of 40 of these go to review); another digit
# of 5 % of the short side 1.02 and more at the first or the second, sudokus from 6 at the second.
GREATEST = (0.8, 0.7, 0.6, 3.0)
# The same where the first look objects to one place: thin lines that fall between its pixels leave .46, .25, .20 and
# .79 at most (all but one of 48 .38, .24, .05 and .19); other content, marks and covered areas exceed one by 1.6 times.
DOUBTED = (0.5, 0.35, 0.2, 0.35)
_SHARE_OF_DETAIL = 0.3  # that edges leave over: resampling, uneven sharpening
_SHARE_OF_EVENED = 0.4  # of what tone and sharpness had to change: they do not act alike everywhere, and clip
_SHARE_OF_NOISE = 0.4  # of the variance that quantisation allows; mostly less is in a file, as high frequencies are 0
_ROUNDING = 20.0  # grey levels squared
_PALETTE = 60.0  # grey levels squared; bands of 128 to 256 colours
# The same against blocks of like detail, for the block that 1, 2, 5 and 10 of 100 exceed: beyond these 5 of 1,935
# harmless copies; 32 of 33 words tiled at an opacity of 8 %, by the second and third scale.
MARKED = (7.2, 4.8, 3.5, 2.4)
_EXCEEDING = (0.01, 0.02, 0.05, 0.1)
_LEAST_BLOCKS = 24
_GROUPS = 16  # of blocks of like detail
_USUAL = 0.3  # of a group: the block that stands for what the copy left; half of a group may be marked
_FAINT_ROUNDING = 1.0
_FAINT_PALETTE = 10.0
_FAINT_EVENED = 0.2
_FAINT_COLOUR = 0.1  # of the square of the levels by which colours differ; where they clip, greys change too

QUIET = 4.0  # grey levels squared: where no block of 8 pixels leaves more, there is nothing to look for
LEAST_MOVE = 0.08  # pixels; less is not worth evening out
_DOUBT = 3.0  # times the usual residual; what lies further off has half the say or less in the fit of moves
_RIDGE, _NOTHING = 1e-4, 50.0
# libjpeg's table of luminance at quality 20. What was saved as anything else may have been such a file before.
_ANY_TABLE = 2.5 * np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Closeup:
    """A picture as it is looked at more closely.

    greys    pictures of mode L, upright, the long side at most 384 pixels, in sRGB: on white, then on black where parts
             are transparent
    scale    stored pixels to one of these
    table    the steps of the JPEG's quantisation of brightness, float32 of shape (64,); none for other formats
    palette  whether it has one
    """

    greys: tuple[Image.Image, ...]
    scale: float
    table: np.ndarray | None
    palette: bool


def read_closeup(path: Path | str) -> Closeup:
    """Returns a picture for the second look, by its first frame. Raises lib.images.decode.DecodeError."""
    with opened_frames(Path(path)) as frames, frames.at(0) as frame:
        return frame_closeup(frame)


def frame_closeup(frame: Frame) -> Closeup:
    """Returns one frame for the second look. Raises lib.images.decode.DecodeError."""
    image, size = frame.image, frame.image.size  # before the decoder is told to reduce
    with codec_boundary():
        tables = getattr(image, "quantization", None)
        table = np.array(tables[min(tables)], np.float32) if tables else None
        palette = image.mode == "P"
        greys = [_grey(frame, size, _WHITE)]
        if may_be_clear(image) and (on_black := _grey(frame, size, _BLACK)).tobytes() != greys[0].tobytes():
            greys.append(on_black)
        return Closeup(tuple(greys), max(1.0, max(size) / LONG_SIDE), table, palette)


def _grey(frame: Frame, size: tuple[int, int], background: tuple[int, int, int]) -> Image.Image:
    """Returns the picture as it is looked at; a JPEG is decoded at the smallest scale of twice that."""
    image, (width, height), longest = frame.image, size, max(size)
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L", "YCbCr"):
        share = min(1.0, 2 * LONG_SIDE / longest)
        mode = "L" if frame.colours.is_srgb else image.mode
        image.draft(mode, (max(1, int(width * share)), max(1, int(height * share))))
    plain = image.mode in ("L", "RGB", "YCbCr") and not may_be_clear(image)
    ready = image if plain else flattened(image, background)
    # Both reductions round up, and so reach beyond the picture by what is left out of the box.
    across, down = -(-width // ready.width), -(-height // ready.height)
    if (factor := max(ready.size) // (2 * LONG_SIDE)) > 1:
        ready = ready.reduce(min(factor, *ready.size))
        across, down = across * factor, down * factor
    ready = in_srgb(ready, frame.colours)
    grey = ready if ready.mode == "L" else ready.convert("L")
    share = min(1.0, LONG_SIDE / longest)
    wanted = max(1, round(width * share)), max(1, round(height * share))
    if grey.size != wanted:
        box = 0, 0, min(grey.width, width / across), min(grey.height, height / down)
        grey = grey.resize(wanted, Image.Resampling.LANCZOS, box=box)
    return upright(grey, frame.orientation).copy()


def left_over(one: Closeup, other: Closeup, recoloured: float = 0.0, *, doubted: bool = False) -> str:
    """Says what sets two pictures apart that look the same at 64x64 pixels; empty where copying explains it all.

    `recoloured` is by how much their colours differ, in levels of Cb and Cr. Less is allowed for where the first look
    `doubted` it.
    """
    limits = DOUBTED if doubted else GREATEST
    if len(one.greys) != len(other.greys):
        return "one is animated or transparent"
    for a, b in zip(one.greys, other.greys, strict=True):
        if reason := _left_over(one, other, (a, b), limits, _FAINT_COLOUR * recoloured**2):
            return reason
    return ""


def _left_over(
    one: Closeup, other: Closeup, greys: tuple[Image.Image, Image.Image], limits: Sequence[float], recoloured: float
) -> str:
    size = _common_size(*greys)
    a, b = (p if p.size == size else p.resize(size, Image.Resampling.LANCZOS) for p in greys)
    palette = float(one.palette or other.palette)
    noise = np.add(*(_noise(p, picture, size) for p, picture in zip((one, other), greys, strict=True)))
    beside = _FAINT_ROUNDING + _FAINT_PALETTE * palette + recoloured
    allowed = Allowance(noise + _ROUNDING + _PALETTE * palette, beside, limits)
    # The softer picture is made from the sharper one, as there is no way back; where brightness clips, the other way
    # may fit better.
    sharp, soft = (a, b) if _sharpness(a) >= _sharpness(b) else (b, a)
    reason = _unexplained(sharp, soft, allowed)
    return reason and _unexplained(soft, sharp, allowed) and reason


@dataclass(frozen=True)
class Allowance:
    """The mean squares that may be left over anywhere.

    noise   by scale, of shape (4,)
    beside  what the usual block of like detail leaves, where marks are looked for
    limits  by scale: how many times as much as is explained
    """

    noise: np.ndarray
    beside: float
    limits: Sequence[float]


def _common_size(a: Image.Image, b: Image.Image) -> tuple[int, int]:
    width, height = min(a.size, b.size, key=lambda size: size[0] * size[1])
    return max(_STEP, round(width / _STEP) * _STEP), max(_STEP, round(height / _STEP) * _STEP)


def _sharpness(grey: Image.Image) -> float:
    """Returns the mean slope of a picture in shares of its contrast, by every fourth line."""
    levels = np.asarray(grey).astype(np.int16)
    rows, columns = levels[::4], levels[:, ::4]
    slopes = np.abs(rows[:, 1:] - rows[:, :-1]).mean() + np.abs(columns[1:] - columns[:-1]).mean()
    return float(slopes) / (float(rows.std()) + 1.0)


def _unexplained(source: Image.Image, target: Image.Image, allowed: Allowance) -> str:
    levels, goal = np.asarray(source), np.asarray(target).astype(np.float32)
    # The curve of halved pictures: noise would flatten that of whole ones.
    shown = tone_curve(np.asarray(source.reduce(2)), np.asarray(target.reduce(2)))[levels]
    if _reduced(np.square(goal - shown), 8).max() < QUIET:
        return ""
    shown = _evened(shown, goal)
    changed = shown - levels
    changed -= changed.mean()
    # Most copies have neither tone nor sharpness changed: by less than a level, there is nothing to allow for.
    evened = changed if float(np.vdot(changed, changed)) > changed.size else None
    for scale, left in enumerate(_scales(shown, goal, evened)):
        explained = _SHARE_OF_DETAIL * left.detail + _SHARE_OF_EVENED * left.evened + allowed.noise[scale]
        if float((left.rest / explained).max()) > allowed.limits[scale]:
            return "other content in places"
        beside = _FAINT_EVENED * left.evened + allowed.beside
        if 0 < scale < SCALES and _stands_out(left.rest.ravel(), left.detail.ravel(), beside.ravel()):
            return "a mark over it"
    return ""


def _stands_out(rest: np.ndarray, detail: np.ndarray, beside: np.ndarray) -> bool:
    """Says whether some blocks leave more than others of like detail do; arrays of shape (n,)."""
    groups = min(_GROUPS, len(rest) // 12)
    if len(rest) < _LEAST_BLOCKS:
        return False
    order = np.argsort(detail, kind="stable")
    rest, many = rest[order], len(rest) // groups
    place = int(_USUAL * many)
    usual = np.partition(rest[: many * groups].reshape(groups, many), place, axis=1)[:, place]
    middles = (np.arange(groups) + 0.5) * many
    expected = np.interp(np.arange(len(rest)), middles, np.maximum.accumulate(usual))
    factors = np.sort(rest / (expected + beside[order]))[::-1]
    return any(factors[int(s * len(rest))] > limit for s, limit in zip(_EXCEEDING, MARKED, strict=True))


@dataclass(frozen=True)
class Leftover:
    """The mean squares of each block of 8x8 pixels at one scale, float32 of shape (h, w).

    rest    what sets the two apart
    detail  what both hold there, at least: what was put into one of them must not excuse itself
    evened  what tone and sharpness had to change
    """

    rest: np.ndarray
    detail: np.ndarray
    evened: np.ndarray


def _scales(shown: np.ndarray, goal: np.ndarray, changed: np.ndarray | None) -> list[Leftover]:
    """Returns what is left over in each octave, the finest first, then what is coarser.

    An octave is what a picture holds beyond its half; as halving is a mean, mean squares subtract.
    """
    pictures = [shown, goal] if changed is None else [shown, goal, changed]
    squares: list[list[np.ndarray]] = []
    for scale in range(SCALES + 1):
        products = [pictures[0] * pictures[1], *(values * values for values in pictures)]
        squares.append([_reduced(product, 4) for product in products])
        if scale < SCALES:
            pictures = [_reduced(values, 2) for values in pictures]
    found = []
    for finer, coarser in pairwise(squares):
        both, own, its, *evened = (_quartered(f) - c for f, c in zip(finer, coarser, strict=True))
        gain = min(3.0, max(0.0, float(both.sum()) / max(1.0, float(own.sum()))))
        own *= gain * gain
        found.append(_leftover(its - 2 * gain * both + own, own, its, *evened))
    both, own, its, *evened = squares[-1]
    means = [_reduced(values, 4) for values in pictures]
    return [*found, _leftover(its - 2 * both + own, own - means[0] ** 2, its - means[1] ** 2, *evened)]


def _leftover(rest: np.ndarray, own: np.ndarray, its: np.ndarray, evened: np.ndarray | None = None) -> Leftover:
    # Differences of single numbers may end below 0.
    nothing = np.zeros_like(rest) if evened is None else np.maximum(evened, 0)
    return Leftover(np.maximum(rest, 0), np.maximum(np.minimum(own, its), 0), nothing)


def _evened(shown: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """`shown` moved and sharpened or blurred as brings it nearest to `goal`: float32 of the same shape."""
    shares, moved = _move(_reduced(shown, 2), _reduced(goal, 2))
    if moved > LEAST_MOVE:
        x, y = _places(*shown.shape)
        down, across = gradient((shown + goal) * np.float32(0.5))
        shown = shown + across * (shares[0] + shares[1] * x + shares[2] * y)
        shown += down * (shares[3] + shares[4] * x + shares[5] * y)
    curved = laplacian(shown)
    effects = np.stack((curved, laplacian(curved))).reshape(2, -1)
    apart = (goal - shown).ravel()
    share = _solved(effects @ effects.T, effects @ apart)
    made = shown + (share @ effects).reshape(shown.shape)
    return np.clip(made, goal.min(), goal.max(), out=made)


def _move(shown: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the six shares of a slight move, in pixels twice as small as these, and how far a corner goes at most."""
    x, y = _places(*shown.shape)
    down, across = gradient((shown + goal) * np.float32(0.5))
    effects = np.stack((across, across * x, across * y, down, down * x, down * y, laplacian(shown))).reshape(7, -1)
    apart = (goal - shown).ravel()
    some = np.abs(apart[:: 8 + len(apart) % 2])
    usual = 1.5 * median(some[: len(some) // 2 * 2]) + 0.5
    weighed = effects * (1.0 / (1.0 + np.square(apart * np.float32(1 / (_DOUBT * usual)))))
    shares = 2 * _solved(weighed @ effects.T, weighed @ apart)
    corners = np.array([[1, x, y] for x in (-1, 1) for y in (-1, 1)], np.float32)
    return shares, float(np.hypot(corners @ shares[:3], corners @ shares[3:6]).max())


def _solved(normal: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    normal = normal.astype(np.float64)
    diagonal = normal.reshape(-1)[:: len(normal) + 1]
    diagonal *= 1.0 + _RIDGE
    diagonal += _NOTHING
    return np.linalg.solve(normal, wanted).astype(np.float32)


def _noise(closeup: Closeup, picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Returns what quantisation may leave at each scale, mean squares of shape (4,); at least that of a bad JPEG."""
    scale = round(closeup.scale * (picture.width * picture.height / (size[0] * size[1])) ** 0.5, 2)
    tables: Sequence[np.ndarray] = [_ANY_TABLE] if closeup.table is None else [_ANY_TABLE, closeup.table]
    return np.maximum.reduce([_quantisation(table.astype(np.float32).tobytes(), scale) for table in tables])


@lru_cache(maxsize=512)
def _quantisation(table: bytes, scale: float) -> np.ndarray:
    """Returns the share that counts of a table's noise at each scale of a picture reduced by `scale`.

    A step of q leaves q * q / 12 in its frequency; what lies beyond what the reduced picture can hold is gone.
    """
    steps = np.frombuffer(table, np.float32).reshape(8, 8)
    frequencies = np.arange(8) / 16 * scale  # cycles a pixel
    down, across = np.meshgrid(frequencies, frequencies, indexing="ij")
    variance = steps**2 / 12 / 64 * ((down <= 0.5) & (across <= 0.5)) * _SHARE_OF_NOISE
    held, found = np.ones((8, 8)), []
    for octave in range(SCALES):
        halved = held * np.square(np.cos(np.pi * across * 2**octave) * np.cos(np.pi * down * 2**octave))
        found.append(float((variance * (held - halved)).sum()))
        held = halved
    return np.array([*found, float((variance * held).sum())])


def _reduced(values: np.ndarray, factor: int) -> np.ndarray:
    """Returns the means of blocks of float32; in Pillow's hands twenty times as fast as in NumPy's."""
    return np.asarray(Image.fromarray(values).reduce(factor))


def _quartered(values: np.ndarray) -> np.ndarray:
    made = values[0::2, 0::2] + values[1::2, 0::2]
    made += values[0::2, 1::2]
    made += values[1::2, 1::2]
    made *= np.float32(0.25)
    return made


@lru_cache(maxsize=32)
def _places(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Across and down, -1 to 1 at the outer edges: float32 of shapes (1, width) and (height, 1)."""
    x, y = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1 for side in (width, height))
    return x[None, :], y[:, None]
