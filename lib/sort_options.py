"""Step 7's flags for sizes and quality, and the criterion that all flags describe, with the rules across flags."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from lib.converters import at_least, between, number, share, whole
from lib.criteria import Criterion
from lib.criteria.megapixels import DEFAULT_EDGES, STRATEGIES, Megapixels
from lib.criteria.orientation import SQUARES, Orientation
from lib.criteria.quality import TECHNICAL_HIGH, TECHNICAL_MEDIUM, Quality, Thresholds
from lib.errors import UsageError
from lib.export_options import add_export_options
from lib.judge_options import add_judge_options, make_objects, make_vlm
from lib.model_options import (
    add_model_options,
    add_prompt_options,
    make_filter,
    make_topic,
    place_of,
)

CRITERIA = ("orientation", "megapixels", "quality", "filter", "topic", "objects", "vlm")
EXPORT = "export"  # no criterion: it makes a dataset of what others kept
TECHNICAL = "technical"


def add_options(to: ArgumentParser) -> None:
    """The flags that say where one bucket ends and the next begins."""
    shape = to.add_argument_group("orientation")
    shape.add_argument("--square", choices=SQUARES, default="separate", help="where squares go (default: separate)")
    shape.add_argument(
        "--tolerance",
        type=share,
        default=0.02,
        metavar="SHARE",
        help="how much longer a square's longer side may be (default: 2%%)",
    )
    size = to.add_argument_group("megapixels")
    size.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="fixed",
        help="where buckets are cut: at --edges; at 1 and 4 megapixels (coarse: small, medium, large); --every so many "
        "megapixels; into equal --parts. quality knows fixed, at --high and --medium, and quantiles, into three "
        "equal parts (default: fixed)",
    )
    size.add_argument(
        "--edges",
        type=edges,
        default=DEFAULT_EDGES,
        metavar="MP,MP,...",
        help="edges in megapixels, for fixed (default: 0.5,2,8)",
    )
    size.add_argument(
        "--every",
        type=above_zero,
        default=1.0,
        metavar="MP",
        help="width of a bucket, for step (default: 1)",
    )
    size.add_argument(
        "--parts", type=at_least(2), default=4, metavar="N", help="how many equal parts, for quantiles (default: 4)"
    )
    _add_quality_options(to.add_argument_group("quality"))
    add_prompt_options(to)
    add_judge_options(to)
    add_export_options(to)
    add_model_options(to)


def _add_quality_options(quality: Any) -> None:
    quality.add_argument(
        "--metric",
        type=metrics,
        default=(TECHNICAL,),
        metavar="NAME[,NAME]",
        help="what scores the pictures, 0-100: technical, which needs no weights; a metric of pyiqa for single "
        "pictures (musiq, clipiqa, topiq, ...; its licence is PolyForm Noncommercial); combined, which is "
        "musiq,clipiqa; or several (default: technical)",
    )
    quality.add_argument(
        "--combine",
        choices=("mean", "min", "max"),
        default="mean",
        help="one score of several metrics (default: mean)",
    )
    quality.add_argument(
        "--long-side",
        type=long_side,
        default=1024,
        metavar="PIXELS",
        help="larger pictures are reduced to this before a learned metric sees them (default: 1024)",
    )
    quality.add_argument(
        "--high",
        type=between(0, 100),
        metavar="SCORE",
        help=f"high from this score on (default: technical {TECHNICAL_HIGH:g}, learned 65)",
    )
    quality.add_argument(
        "--medium",
        type=between(0, 100),
        metavar="SCORE",
        help=f"medium from this score on (default: technical {TECHNICAL_MEDIUM:g}, learned 50)",
    )
    quality.add_argument(
        "--min-score",
        type=between(0, 100),
        metavar="SCORE",
        help="sort only pictures of at least this score (default: all)",
    )


def metrics(text: str) -> tuple[str, ...]:
    """Names of metrics, separated by commas; `combined` stands for the usual two."""
    from lib.models.iqa_names import ALIASES, COMBINED

    names = [name for part in text.lower().split(",") for name in (COMBINED if part == "combined" else (part.strip(),))]
    if not all(re.fullmatch(r"[a-z0-9][a-z0-9_+.-]*", name) for name in names):
        raise ArgumentTypeError(f"{text!r} is no metric's name, or names separated by commas")
    return tuple(dict.fromkeys(ALIASES.get(name, name) for name in names))


def long_side(text: str) -> int:
    """A size that a metric can judge."""
    value = whole(text)
    if not 224 <= value <= 8192:
        raise ArgumentTypeError(f"{text!r} is no number of pixels from 224 to 8192")
    return value


def edges(text: str) -> tuple[float, ...]:
    """Ascending sizes in megapixels, separated by commas."""
    values = tuple(number(part) for part in text.split(","))
    if values[0] <= 0 or list(values) != sorted(set(values)):
        raise ArgumentTypeError(f"{text!r} does not ascend from above 0")
    return values


def above_zero(text: str) -> float:
    """A number of megapixels that is not lost in rounding."""
    value = number(text)
    if value < 0.01:
        raise ArgumentTypeError(f"{text!r} is not 0.01 or more")
    return value


def make_criterion(args: Namespace) -> Criterion:
    """The criterion that the flags describe. Raises UsageError where they contradict each other."""
    if args.criterion == "orientation":
        return Orientation(args.square, args.tolerance)
    if args.criterion == "megapixels":
        return Megapixels(args.strategy, args.edges, args.every, args.parts)
    makers = {
        "quality": _quality, "filter": make_filter, "topic": make_topic, "objects": make_objects, "vlm": make_vlm,
    }  # fmt: skip
    return makers[args.criterion](args)


def subtitle(args: Namespace) -> str:
    """The settings in one line, for the report."""
    if args.criterion == "orientation":
        return f"Squares within {100 * args.tolerance:g} %: {args.square}."
    if args.criterion == "megapixels":
        return f"Strategy {args.strategy}."
    models = {"filter": "clip_model", "topic": "clip_model", "objects": "detector", "vlm": "vlm_model"}
    if args.criterion in models:
        return f"Model {getattr(args, models[args.criterion])}."
    if args.metric == (TECHNICAL,):
        return "Technical score, 0 to 100: it finds defects and is no opinion about a picture."
    names = ", ".join(args.metric)
    return f"{names}, 0 to 100{f', {args.combine} of them' if len(args.metric) > 1 else ''}; a prediction by a model."


def _quality(args: Namespace) -> Criterion:
    if args.strategy not in ("fixed", "quantiles"):
        raise UsageError(f"quality knows no --strategy {args.strategy}; use fixed or quantiles.")
    technical = args.metric == (TECHNICAL,)
    usual_high, usual_medium = (TECHNICAL_HIGH, TECHNICAL_MEDIUM) if technical else (65.0, 50.0)
    high = usual_high if args.high is None else args.high
    medium = min(usual_medium, high) if args.medium is None else args.medium
    if medium > high:
        raise UsageError(f"--medium {medium:g} is above --high {high:g}; lower it or raise --high.")
    thresholds = Thresholds(high, medium, args.min_score, args.strategy == "quantiles")
    if technical:
        return Quality(thresholds)
    from lib.criteria.learned import LearnedQuality

    return LearnedQuality(args.metric, thresholds, place_of(args), args.device, args.long_side, args.combine)
