"""Step 7's flags for buckets, and the criterion that they describe, with the rules that hold across flags."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from math import isfinite
from typing import Any

from lib.criteria import Criterion
from lib.criteria.megapixels import DEFAULT_EDGES, STRATEGIES, Megapixels
from lib.criteria.orientation import SQUARES, Orientation
from lib.criteria.quality import METRICS, Quality, metric_named
from lib.errors import UsageError


def add_options(to: ArgumentParser) -> None:
    """The flags that say where one bucket ends and the next begins."""
    shape = to.add_argument_group("orientation")
    shape.add_argument("--square", choices=SQUARES, default="separate", help="where squares go (default: separate)")
    shape.add_argument(
        "--tolerance",
        type=tolerance,
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
        "--parts", type=parts, default=4, metavar="N", help="how many equal parts, for quantiles (default: 4)"
    )
    _add_quality_options(to.add_argument_group("quality"))


def _add_quality_options(quality: Any) -> None:
    quality.add_argument(
        "--metric",
        default="technical",
        metavar="NAME",
        help="what scores the pictures, 0-100 (default: technical, which needs no weights)",
    )
    quality.add_argument(
        "--high",
        type=score,
        metavar="SCORE",
        help="high from this score on (default: the metric's; technical 70)",
    )
    quality.add_argument(
        "--medium",
        type=score,
        metavar="SCORE",
        help="medium from this score on (default: the metric's; technical 45)",
    )
    quality.add_argument(
        "--min-score",
        type=score,
        metavar="SCORE",
        help="sort only pictures of at least this score (default: all)",
    )


def edges(text: str) -> tuple[float, ...]:
    """Ascending sizes in megapixels, separated by commas."""
    values = tuple(_number(part, text) for part in text.split(","))
    if values[0] <= 0 or list(values) != sorted(set(values)):
        raise ArgumentTypeError(f"{text!r} does not ascend from above 0")
    return values


def above_zero(text: str) -> float:
    """A number of megapixels that is not lost in rounding."""
    value = _number(text, text)
    if value < 0.01:
        raise ArgumentTypeError(f"{text!r} is not 0.01 or more")
    return value


def tolerance(text: str) -> float:
    """A share from 0 to 1, written as 0.02 or 2%."""
    value = _number(text[:-1], text) / 100 if text.endswith("%") else _number(text, text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} is not between 0 and 1 (0% and 100%)")
    return value


def parts(text: str) -> int:
    """A number of parts, at least 2."""
    if not text.isdecimal() or int(text) < 2:
        raise ArgumentTypeError(f"{text!r} is no whole number of at least 2")
    return int(text)


def score(text: str) -> float:
    """A score of 0 to 100."""
    value = _number(text, text)
    if not 0 <= value <= 100:
        raise ArgumentTypeError(f"{text!r} is not between 0 and 100")
    return value


def _number(part: str, whole: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise ArgumentTypeError(f"{whole!r} is no number, or list of numbers, such as 0.5,2,8") from None
    if not isfinite(value):
        raise ArgumentTypeError(f"{whole!r} is not finite")
    return value


def make_criterion(args: Namespace) -> Criterion:
    """The criterion that the flags describe. Raises UsageError where they contradict each other."""
    if args.criterion == "orientation":
        return Orientation(args.square, args.tolerance)
    if args.criterion == "megapixels":
        return Megapixels(args.strategy, args.edges, args.every, args.parts)
    return _quality(args)


def subtitle(args: Namespace) -> str:
    """The settings in one line, for the report."""
    if args.criterion == "orientation":
        return f"Squares within {100 * args.tolerance:g} %: {args.square}."
    if args.criterion == "megapixels":
        return f"Strategy {args.strategy}."
    if args.metric == "technical":
        return "Technical score, 0 to 100, with the worst trait: it finds defects and is no opinion about a picture."
    return f"Metric {args.metric}, 0 to 100."


def _quality(args: Namespace) -> Quality:
    metric = metric_named(args.metric)
    if metric is None:
        raise UsageError(f"there is no metric {args.metric!r} here; --metric is one of: {', '.join(METRICS)}.")
    if args.strategy not in ("fixed", "quantiles"):
        raise UsageError(f"quality knows no --strategy {args.strategy}; use fixed or quantiles.")
    high = metric.high if args.high is None else args.high
    medium = min(metric.medium, high) if args.medium is None else args.medium
    if medium > high:
        raise UsageError(f"--medium {medium:g} is above --high {high:g}; lower it or raise --high.")
    return Quality(metric, high, medium, args.min_score, args.strategy == "quantiles")
