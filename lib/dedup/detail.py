"""The second look at two pictures that the first one takes for the same: pixel by pixel of the smaller one.

Forms, boards and captions share a template: 64x64 pixels show that and little of what is written on it. Here tone,
sharpness and slight moves are evened out on up to 384 pixels, on the pixels of the smaller picture: to resize that one
as well leaves more of letters over than another digit does. What is left in a window of 8x8 pixels, at four scales, is
set against all that copying leaves: the noise that the files' own quantisation tables allow, what this very copy leaves
where there is as much detail, a share of the detail that both have in that place, and a share of what had to be evened
out there. A window that leaves more is fitted once more by itself, since edges do not move and blur alike everywhere.
Other content is not explained by these, wherever and however often it stands.

A faint mark is weaker than that. So what is left is also set, more strictly, against what the copy leaves where there
is as much detail: a mark that is spread over the picture lifts some places and not the others.

The limits were measured on 1,500 harmless pairs (20 photographs with 20 alterations each, copies of 21 templates and 48
captions), 1,000 pairs of other content on one template and 1,500 of marked, covered and pixelated copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from lib.dedup.colours import tone_curve
from lib.hashing.dct import gradient, laplacian, median, quantisation_noise
from lib.images.colours import in_srgb
from lib.images.decode import codec_boundary, flattened, upright
from lib.images.frames import Frame, opened_frames
from lib.images.ground import may_be_clear

VERSION = "5"
LONG_SIDE = 384  # pixels; a digit of 5 % of the short side is 12 to 19 pixels high
MARK = "a mark over it"
_STEP = 32  # pixels; sides are filled up to multiples of it, so that windows of all scales fill the picture
SCALES = 4  # 1, 2, 4 and 8 pixels of the picture that is looked at; the last holds differences of brightness as well
_WINDOW, _APART = 8, 4  # pixels along a side of a window, and from one to the next
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

# What is left in the worst window of each scale, in shares of what copying explains. Of 899 pairs of photographs 9
# leave more (strong sharpening beside blur); another digit of 5 % of the short side leaves 1.07 and more of these.
GREATEST = (3.0, 1.1, 1.2, 1.0)
# The same where the first look objects to one place: harmless .39 at most, marks and hidden areas .55 and more.
DOUBTED = (0.5, 0.5, 0.5, 0.5)
# At the finest scale less is allowed for where the smaller picture has fewer pixels on its short side: a digit of 5 %
# shows at the second scale from 220 pixels on, and reducing without a filter leaves much at the finest (3.4). Below 125
# it has 4 to 6 pixels: photographs at a quarter of their size leave .38 at most, of captions that small copies go to
# review.
_SMALL_SIDES, _SMALL_LIMITS = (60, 100, 125, 150, 205, 225), (0.3, 0.33, 0.4, 0.85, 1.0, GREATEST[0])
# Nor may noise excuse more there: of a JPEG of quality 30 and less it covers a digit, and what cannot be told is shown.
_MOST_NOISE = 300.0  # grey levels squared
_SHARE_OF_USUAL = 2.0  # of what windows of like detail leave
_SHARE_OF_DETAIL = 0.05  # that edges leave over: resampling, uneven sharpening
_SHARE_OF_EVENED = 0.2  # of what tone and sharpness had to change: they do not act alike everywhere, and clip
_SHARE_OF_NOISE = (0.8, 0.4, 0.4, 0.4)  # of the variance that quantisation allows: letters leave more than other things
_ROUNDING = (200.0, 40.0, 12.0, 12.0)  # grey levels squared, by scale
_PALETTE = (60.0, 15.0, 0.0, 0.0)  # grey levels squared; bands of 128 to 256 colours
_WORST = 48  # windows that are fitted once more by themselves
# How far these fits may go: pixels, shares of the curvature and of the contrast, where noise has 8 grey levels.
_FITS = 64 / np.square([0.3, 0.3, 0.3, 0.15])
# The same against windows of like detail, for the window that 1, 2, 5 and 10 of 100 exceed, at the second and third
# scale.
MARKED = {1: (19.0, 12.0, 7.4, 3.7), 2: (12.0, 9.6, 6.0, 3.4)}
# What is left over on the whole at these scales, in shares of what copying explains without regard to what is usual: of
# 1,272 harmless pairs .26 at most, but for one of .32; of 65 with pale words all over one of the two .56 and more.
COVERED = 0.3
_PLAIN_LIMITS = 0.8  # share of these where nothing was evened out yet
_EXCEEDING = (0.01, 0.02, 0.05, 0.1)
_LEAST_WINDOWS = 24
_GROUPS = 16  # of windows of like detail
# Of a group: the window that stands for what the copy left. Marks may lie on half of them.
_USUAL, _USUAL_BESIDE_MARKS = 0.5, 0.3
# What is left in the calmer share of a picture, beside itself some pixels away: by how many standard deviations of
# noise it agrees, and how many times as much as it ever disagrees. Harmless pairs beyond: of 2 of 20 photographs (one
# whose ground repeats, sharpened or enlarged).
REPEATED, REPEATED_SHARE = 14.0, 2.0
# Where less is left than this, in shares of what is usual for the pair, it lies in a few places; where so many windows
# are plain, the picture is a drawing: its words and lines repeat, and on plain ground a mark stands out by itself.
_LEAST_VARIANCE = 0.3
_PLAIN, _PLAIN_SHARE = 0.1, 0.3  # grey levels squared
_CALM = 0.7
_LEAST_STEP = 10  # pixels of the second scale
# Not where the pictures themselves agree so well with themselves: boards, words and fences leave their edges over.
_OWN_REPEATS = 0.03
_STRONGEST = 3.0  # standard deviations; what leaves more counts as this
_FAINT_ROUNDING = 1.0
_FAINT_PALETTE = 10.0
_FAINT_COLOUR = 0.1  # of the square of the levels by which colours differ; where they clip, greys change too

QUIET = 4.0  # grey levels squared: where no block of 8 pixels leaves more, there is nothing to look for
_KEPT_SIZES = 4  # of one picture
LEAST_MOVE = 0.08  # pixels; less is not worth evening out
_DOUBT = 3.0  # times the usual residual; what lies further off has half the say or less in the fit of moves
_RIDGE, _NOTHING = 1e-4, 50.0


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
    _made: dict[tuple[int, tuple[int, int]], Resized] = field(default_factory=dict, repr=False, compare=False)

    def resized(self, number: int, size: tuple[int, int]) -> Resized:
        """Returns one of the pictures at a size; the last ones are kept, as a keeper is compared with many copies."""
        if (found := self._made.get((number, size))) is None:
            grey = self.greys[number]
            filled = _filled(grey if grey.size == size else grey.resize(size, Image.Resampling.LANCZOS))
            found = Resized(np.asarray(filled), np.asarray(filled.reduce(2)), _sharpness(filled))
            if len(self._made) >= _KEPT_SIZES:
                self._made.clear()
            self._made[number, size] = found
        return found


@dataclass(frozen=True)
class Resized:
    """A picture at the size at which it is compared, filled up to multiples of 32 pixels.

    levels     uint8 of shape (h, w)
    halved     uint8 of shape (h / 2, w / 2)
    sharpness  its mean slope in shares of its contrast
    """

    levels: np.ndarray
    halved: np.ndarray
    sharpness: float


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
        palette = image.mode == "P" or image.format == "GIF"  # its later frames come in full colour
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
    if len(one.greys) != len(other.greys):
        return "one is animated or transparent"
    for number in range(len(one.greys)):
        if reason := _left_over(one, other, number, _FAINT_COLOUR * recoloured**2, doubted=doubted):
            return reason
    return ""


def _left_over(one: Closeup, other: Closeup, number: int, recoloured: float, *, doubted: bool) -> str:
    greys = one.greys[number], other.greys[number]
    size = min((grey.size for grey in greys), key=lambda size: size[0] * size[1])
    a, b = one.resized(number, size), other.resized(number, size)
    palette = float(one.palette or other.palette)
    noise = np.add(*(_noise(p, picture, size) for p, picture in zip((one, other), greys, strict=True)))
    noise = noise * _SHARE_OF_NOISE
    if min(size) < _SMALL_SIDES[2]:
        noise[0] = min(noise[0], _MOST_NOISE)
    finest, *coarser = DOUBTED if doubted else GREATEST
    allowed = Allowance(
        size,
        noise + _ROUNDING + np.multiply(_PALETTE, palette),
        _FAINT_ROUNDING + _FAINT_PALETTE * palette + recoloured,
        (min(finest, float(np.interp(min(size), _SMALL_SIDES, _SMALL_LIMITS))), *coarser),
    )
    # The softer picture is made from the sharper one, as there is no way back; where brightness clips, the other way
    # may fit better.
    sharp, soft = (a, b) if a.sharpness >= b.sharpness else (b, a)
    reason = _unexplained(sharp, soft, allowed)
    return reason and _unexplained(soft, sharp, allowed) and reason


@dataclass(frozen=True)
class Allowance:
    """The mean squares that may be left over anywhere in two pictures.

    size    of both, pixels, without what was filled up
    noise   by scale, of shape (4,)
    beside  what the usual window of like detail leaves, where marks are looked for
    limits  by scale: how many times as much as is explained
    """

    size: tuple[int, int]
    noise: np.ndarray
    beside: float
    limits: Sequence[float]


def _filled(grey: Image.Image) -> Image.Image:
    """The picture with its last row and column repeated up to multiples of 32 pixels."""
    across, down = -grey.width % _STEP, -grey.height % _STEP
    if not across and not down:
        return grey
    return Image.fromarray(np.pad(np.asarray(grey), ((0, down), (0, across)), mode="edge"))


def _sharpness(grey: Image.Image) -> float:
    """Returns the mean slope of a picture in shares of its contrast, by every fourth line."""
    levels = np.asarray(grey).astype(np.int16)
    rows, columns = levels[::4], levels[:, ::4]
    slopes = np.abs(rows[:, 1:] - rows[:, :-1]).mean() + np.abs(columns[1:] - columns[:-1]).mean()
    return float(slopes) / (float(rows.std()) + 1.0)


def _unexplained(source: Resized, target: Resized, allowed: Allowance) -> str:
    goal = target.levels.astype(np.float32)
    # The curve of halved pictures: noise would flatten that of whole ones.
    shown = tone_curve(source.halved, target.halved).take(source.levels)
    if _reduced(np.square(goal - shown), 8).max() < QUIET or _plainly_explained(shown, goal, allowed):
        return ""
    shown = _evened(shown, goal)
    changed = shown - source.levels
    changed -= changed.mean()
    # Most copies have neither tone nor sharpness changed: by less than a level, there is nothing to allow for.
    pictures = [shown, goal] + [changed] * (float(np.vdot(changed, changed)) > changed.size)
    octaves, left = _octaves(pictures, allowed.size), dict[int, Leftover]()
    for scale in (*range(1, len(octaves)), 0):  # other content shows at the finest scale alone in 1 of 30 pairs
        shown, goal = octaves[scale][:2]
        left[scale] = _windows(*octaves[scale], with_means=scale == SCALES - 1)
        if _has_other_content(shown, goal, left[scale], float(allowed.noise[scale]), allowed.limits[scale]):
            return "other content in places"
        if scale in MARKED and _is_covered(left[scale], float(allowed.noise[scale])):
            return MARK
    marked = (_stands_out(left[scale], allowed.beside, limits) for scale, limits in MARKED.items() if scale in left)
    return MARK if any(marked) or _repeats(octaves, left, allowed.size) else ""


def _plainly_explained(shown: np.ndarray, goal: np.ndarray, allowed: Allowance) -> bool:
    """Says whether so little is left over that neither moves nor sharpness have to be evened out.

    Of 555 pairs that are explained in the end 471 are so, of 607 others none.
    """
    octaves, left = _octaves([shown, goal], allowed.size), dict[int, Leftover]()
    for scale in reversed(range(len(octaves))):  # the cheapest first
        left[scale] = _windows(*octaves[scale], with_means=scale == SCALES - 1)
        if (left[scale].rest > allowed.limits[scale] * left[scale].explained(float(allowed.noise[scale]))).any():
            return False
        if scale in MARKED and _is_covered(left[scale], float(allowed.noise[scale])):
            return False
        if scale in MARKED and _stands_out(left[scale], allowed.beside, MARKED[scale], _PLAIN_LIMITS):
            return False
    return not _repeats(octaves, left, allowed.size)


def _octaves(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> list[list[np.ndarray]]:
    """Returns what is shown, what is there and what was changed at each scale, about 0, as far as a window fits in."""
    width, height = size
    levels = [values - np.float32(128) for values in pictures]  # single numbers hold squares about 0 more exactly
    shown, goal = levels[:2]
    goal[height:], goal[:, width:] = shown[height:], shown[:, width:]  # what was filled up tells nothing
    made = [levels]
    while len(made) < SCALES and min(shown.shape) >> len(made) >= _WINDOW:
        made.append([_reduced(values, 2) for values in made[-1]])
    return made


@dataclass(frozen=True)
class Leftover:
    """The mean squares of each window of 8x8 pixels at one scale, float32 of shape (h, w); every fourth pixel has one.

    rest    what sets the two apart
    detail  what both hold there, at least: what was put into one of them must not excuse itself
    evened  what tone and sharpness had to change
    means   whether `rest` holds the difference of their brightness as well
    """

    rest: np.ndarray
    detail: np.ndarray
    evened: np.ndarray
    means: bool

    def explained(self, noise: float) -> np.ndarray:
        """Returns what copying explains of `rest`, without regard to what is usual: float32 of shape (h, w)."""
        return _SHARE_OF_DETAIL * self.detail + _SHARE_OF_EVENED * self.evened + np.float32(noise)


def _windows(shown: np.ndarray, goal: np.ndarray, changed: np.ndarray | None = None, *, with_means: bool) -> Leftover:
    own, its = _window_means(shown), _window_means(goal)
    a, b, both = _window_means(shown * shown), _window_means(goal * goal), _window_means(shown * goal)
    rest = a + b - 2 * both
    if not with_means:
        rest -= np.square(own - its)
    detail = np.minimum(a - own * own, b - its * its)
    evened = np.zeros_like(rest)
    if changed is not None:
        evened = _window_means(changed * changed)
        if not with_means:
            evened -= np.square(_window_means(changed))
    # Differences of single numbers may end below 0.
    return Leftover(np.maximum(rest, 0), np.maximum(detail, 0), np.maximum(evened, 0), with_means)


def _window_means(values: np.ndarray) -> np.ndarray:
    parts = _reduced(values, _APART)
    made = parts[:-1, :-1] + parts[1:, :-1]
    made += parts[:-1, 1:]
    made += parts[1:, 1:]
    made *= np.float32(0.25)
    return made


def _is_covered(left: Leftover, noise: float) -> bool:
    """Says whether the picture as a whole leaves more than copying does.

    A mark all over it is what its windows usually leave, and excuses itself where they are compared with each other.
    """
    return bool(left.rest.mean() > COVERED * left.explained(noise).mean())


def _has_other_content(shown: np.ndarray, goal: np.ndarray, left: Leftover, noise: float, limit: float) -> bool:
    """Says whether copying does not explain what is left in some window, even where that is fitted by itself."""
    explained = left.explained(noise)
    if not (left.rest > limit * explained).any():
        return False
    explained += _SHARE_OF_USUAL * _usual(left.rest.ravel(), left.detail.ravel(), _USUAL).reshape(explained.shape)
    shares = (left.rest / explained).ravel()
    worst = np.flatnonzero(shares > limit)
    if not len(worst):
        return False
    worst = worst[np.argsort(-shares[worst])[:_WORST]]
    rows, columns = np.unravel_index(worst, explained.shape)
    fitted = _fitted(shown, goal, rows * _APART, columns * _APART, with_means=left.means)
    return bool((fitted > limit * explained.ravel()[worst]).any())


def _fitted(
    shown: np.ndarray, goal: np.ndarray, rows: np.ndarray, columns: np.ndarray, *, with_means: bool
) -> np.ndarray:
    """Returns what is left in some windows, each moved, sharpened and brightened a little by itself: shape (k,)."""
    steps = np.arange(-1, _WINDOW + 1)
    down = np.clip(rows[:, None, None] + steps[None, :, None], 0, len(shown) - 1)
    across = np.clip(columns[:, None, None] + steps[None, None, :], 0, shown.shape[1] - 1)
    one, other = shown[down, across], goal[down, across]
    middle, inner = (one + other) * np.float32(0.5), one[:, 1:-1, 1:-1]
    effects = np.stack(
        (
            (middle[:, 1:-1, 2:] - middle[:, 1:-1, :-2]) * np.float32(0.5),
            (middle[:, 2:, 1:-1] - middle[:, :-2, 1:-1]) * np.float32(0.5),
            one[:, 2:, 1:-1] + one[:, :-2, 1:-1] + one[:, 1:-1, 2:] + one[:, 1:-1, :-2] - 4 * inner,
            inner,
        ),
        axis=1,
    ).reshape(len(rows), len(_FITS), -1)
    effects -= effects.mean(axis=2, keepdims=True)
    apart = (other[:, 1:-1, 1:-1] - inner).reshape(len(rows), -1, 1)
    means = apart.mean(axis=1, keepdims=True)
    apart = apart - means
    wanted = (effects @ apart).astype(np.float64)
    normal = (effects @ effects.transpose(0, 2, 1)).astype(np.float64) + np.diag(_FITS)
    gained = (np.linalg.solve(normal, wanted) * wanted).sum(axis=(1, 2))
    rest = np.maximum(0, np.square(apart).sum(axis=(1, 2)) - gained) / _WINDOW**2
    return np.asarray(rest + means[:, 0, 0] ** 2 if with_means else rest)


def _usual(rest: np.ndarray, detail: np.ndarray, share: float) -> np.ndarray:
    """Returns what windows of like detail leave, all arrays of shape (n,)."""
    groups = max(1, min(_GROUPS, len(rest) // _LEAST_WINDOWS))
    order, many = np.argsort(detail), len(rest) // groups
    place = int(share * many)
    usual = np.partition(rest[order[: many * groups]].reshape(groups, many), place, axis=1)[:, place]
    middles = (np.arange(groups) + 0.5) * many
    found = np.empty_like(rest)
    found[order] = np.interp(np.arange(len(rest)), middles, np.maximum.accumulate(usual))
    return found


def _stands_out(left: Leftover, beside: float, limits: Sequence[float], share: float = 1.0) -> bool:
    """Says whether some windows leave more than others of like detail do, by a share of the limits."""
    rest, detail, evened = (values[::2, ::2].ravel() for values in (left.rest, left.detail, left.evened))
    if len(rest) < _LEAST_WINDOWS:
        return False
    usual = _usual(rest, detail, _USUAL_BESIDE_MARKS)
    factors = np.sort(rest / (usual + _SHARE_OF_EVENED * evened + np.float32(beside)))[::-1]
    return any(factors[int(s * len(rest))] > share * limit for s, limit in zip(_EXCEEDING, limits, strict=True))


def _evened(shown: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """`shown` moved and sharpened or blurred as brings it nearest to `goal`: float32 of the same shape."""
    shares, moved = _move(_reduced(shown, 2), _reduced(goal, 2))
    if moved > LEAST_MOVE:
        x, y = _places(*shown.shape)
        down, across = gradient((shown + goal) * np.float32(0.5))
        shown = shown + across * (shares[0] + shares[1] * x + shares[2] * y)
        shown += down * (shares[3] + shares[4] * x + shares[5] * y)
    curved = laplacian(shown)
    again, apart = laplacian(curved), goal - shown
    normal = [[np.vdot(one, other) for one in (curved, again)] for other in (curved, again)]
    share = _solved(np.array(normal), np.array([np.vdot(curved, apart), np.vdot(again, apart)]))
    made = shown + share[0] * curved
    made += share[1] * again
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
    """Returns what quantisation may leave at each scale, mean squares of shape (4,); 0 where no table is known."""
    if closeup.table is None:
        return np.zeros(SCALES)
    scale = round(closeup.scale * (picture.width * picture.height / (size[0] * size[1])) ** 0.5, 2)
    return quantisation_noise(closeup.table.astype(np.float32).tobytes(), scale, SCALES - 1)


def _repeats(octaves: Sequence[Sequence[np.ndarray]], leftovers: Mapping[int, Leftover], size: tuple[int, int]) -> bool:
    """Says whether what is left repeats at some distance, as words, dots and lines do that are laid over a picture.

    However faint they are, all their repeats together show. The noise of encoders does not repeat.
    """
    if 1 not in leftovers or (leftovers[1].detail < _PLAIN).mean() > _PLAIN_SHARE:
        return False
    (shown, goal), left = octaves[1][:2], leftovers[1]
    width, height = (-(-side // 2) for side in size)
    usual = _usual(left.rest.ravel(), left.detail.ravel(), _USUAL).reshape(left.rest.shape)
    calm = left.detail <= np.quantile(left.detail, _CALM)
    weights = np.pad(calm / np.sqrt(usual + 1.0), ((0, 1), (0, 1)), mode="edge")
    weights = weights.astype(np.float32).repeat(_APART, axis=0).repeat(_APART, axis=1)
    weights[height:], weights[:, width:] = 0, 0
    apart = _without_gradual(goal - shown) * weights
    np.clip(apart, -_STRONGEST, _STRONGEST, out=apart)
    there = (weights > 0).astype(np.float32)
    apart -= there * np.float32(apart.sum() / max(1.0, float(there.sum())))
    pairs = np.maximum(_beside_itself(there), 1)
    agrees = _beside_itself(apart)
    variance = float(agrees[0, 0] / pairs[0, 0])
    if variance < _LEAST_VARIANCE:
        return False
    agrees /= variance * np.sqrt(pairs)
    far = _is_far(*agrees.shape) & (pairs > 0.1 * pairs[0, 0])
    if not far.any() or agrees[far].max() <= REPEATED:
        return False
    for picture in (shown, goal):
        own = _without_gradual(picture)
        own *= there / np.sqrt(_spread(own * own) + 4)
        own = _beside_itself(own)
        repeats = own * pairs[0, 0] >= _OWN_REPEATS * own[0, 0] * pairs
        for shift in product((-2, 0, 2), repeat=2):
            far &= ~np.roll(repeats, shift, (0, 1))
    found = agrees[far]
    return len(found) > 0 and float(found.max()) > max(REPEATED, -REPEATED_SHARE * float(found.min()))


def _without_gradual(values: np.ndarray) -> np.ndarray:
    return values - _spread(values)


def _spread(values: np.ndarray) -> np.ndarray:
    """Returns the means of blocks of 16 pixels, gradually from one to the next."""
    small = Image.fromarray(np.ascontiguousarray(values)).reduce(16)
    return np.asarray(small.resize(values.shape[::-1], Image.Resampling.BILINEAR))


def _beside_itself(values: np.ndarray) -> np.ndarray:
    """Returns the sums of the products of a field with itself at every distance; its ends meet."""
    from scipy.fft import irfft2, rfft2  # of single numbers as such; 0.1 s to import

    spectrum = rfft2(values)
    return np.asarray(irfft2(spectrum * spectrum.conj(), s=values.shape))


@lru_cache(maxsize=32)
def _is_far(height: int, width: int) -> np.ndarray:
    down, across = (np.minimum(np.arange(side), side - np.arange(side)) for side in (height, width))
    return np.asarray(np.hypot(down[:, None], across[None, :]) >= _LEAST_STEP)


def _reduced(values: np.ndarray, factor: int) -> np.ndarray:
    """Returns the means of blocks of float32, whose sides are multiples of the factor; in half of Pillow's time."""
    rows = values[0::factor] + values[1::factor]
    for place in range(2, factor):
        rows += values[place::factor]
    made = rows[:, 0::factor] + rows[:, 1::factor]
    for place in range(2, factor):
        made += rows[:, place::factor]
    made *= np.float32(1 / factor**2)
    return np.asarray(made)


@lru_cache(maxsize=32)
def _places(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Across and down, -1 to 1 at the outer edges: float32 of shapes (1, width) and (height, 1)."""
    x, y = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1 for side in (width, height))
    return x[None, :], y[:, None]
