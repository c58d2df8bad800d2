"""Step 7's flags for `objects` and `vlm`, and the criteria that they describe."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.converters import between, positive, share, whole
from lib.errors import UsageError

if TYPE_CHECKING:
    from lib.criteria import Criterion

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
OLLAMA = "http://localhost:11434/v1"


def add_judge_options(to: ArgumentParser) -> None:
    """What a detector looks for, and how a vision model is asked."""
    group = to.add_argument_group("objects")
    group.add_argument(
        "--classes", type=names, default=(), metavar="NAME,NAME", help="what to count (default: anything)"
    )
    group.add_argument("--min-objects", type=whole, default=1, metavar="N", help="keep from so many on (default: 1)")
    group.add_argument("--max-objects", type=whole, metavar="N", help="keep up to so many (default: any number)")
    group.add_argument(
        "--min-confidence",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="how sure the detector must be (default: 0.5)",
    )
    group.add_argument(
        "--detector", default=DETECTOR, metavar="MODEL", help=f"a detector of torchvision (default: {DETECTOR})"
    )
    _add_vlm_options(to.add_argument_group("vlm (any server that speaks OpenAI's chat completions)"))


def _add_vlm_options(group: Any) -> None:
    group.add_argument(
        "--vlm-url",
        default=OLLAMA,
        metavar="URL",
        help=f"where the model answers; it sees the pictures (default: {OLLAMA})",
    )
    group.add_argument("--vlm-model", metavar="NAME", help="the model, as the server calls it")
    group.add_argument(
        "--vlm-key-env",
        metavar="NAME",
        help="the environment variable that holds the server's key (default: OPENAI_API_KEY for api.openai.com, none "
        "for others)",
    )
    group.add_argument("--subject", metavar="TEXT", help="what the dataset is about; the prompt's {subject}")
    group.add_argument(
        "--vlm-prompt", type=Path, metavar="FILE", help="another question (default: the built-in keep-1)"
    )
    group.add_argument(
        "--vlm-min-score", type=share, default=0.6, metavar="SHARE", help="keep from this score on (default: 0.6)"
    )
    group.add_argument("--max-images", type=whole, metavar="N", help="ask about at most N pictures (default: all)")
    group.add_argument("--vlm-workers", type=positive, default=4, metavar="N", help="questions at once (default: 4)")
    group.add_argument(
        "--vlm-timeout", type=between(0.1, 3600), default=120.0, metavar="SECONDS", help="for one answer (default: 120)"
    )


def make_objects(args: Namespace) -> Criterion:
    """Objects as the flags describe them."""
    from lib.criteria.objects import Objects
    from lib.model_options import place_of

    if args.max_objects is not None and args.max_objects < args.min_objects:
        raise UsageError(f"--max-objects {args.max_objects} is below --min-objects {args.min_objects}.")
    return Objects(
        args.detector,
        place_of(args),
        args.device,
        args.classes,
        args.min_objects,
        args.max_objects,
        args.min_confidence,
    )


def make_vlm(args: Namespace) -> Criterion:
    """The question to a vision model as the flags describe it."""
    from lib.criteria import vlm

    return vlm.make_vlm(vars(args))


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
