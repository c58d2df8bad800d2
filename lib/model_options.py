"""Step 7's flags for models: where weights lie, what they run on, and what the criteria that need them are asked."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.converters import at_least, between, number, positive
from lib.models.place import DEFAULT_FOLDER

if TYPE_CHECKING:
    from lib.criteria import Criterion
    from lib.models.place import Place

DEVICES = ("auto", "cpu", "cuda", "mps")


def add_model_options(to: ArgumentParser) -> None:
    """The flags of everything that runs a model."""
    group = to.add_argument_group("models (nothing is downloaded; what is missing is named)")
    group.add_argument(
        "--models-dir",
        type=Path,
        metavar="DIR",
        help=f"where weights lie, besides the caches of torch and Hugging Face (default: {DEFAULT_FOLDER})",
    )
    group.add_argument(
        "--device", choices=DEVICES, default="auto", help="what models run on (default: auto, the fastest there is)"
    )


def add_prompt_options(to: ArgumentParser) -> None:
    """The flags of `filter`, and of `topic`, which runs on the same embeddings."""
    group = to.add_argument_group("filter")
    group.add_argument(
        "--keep", action="append", metavar="PROMPT", help="keep what this describes; may be given several times"
    )
    group.add_argument(
        "--drop", action="append", metavar="PROMPT", help="against what this describes; may be given several times"
    )
    group.add_argument("--keep-file", type=Path, metavar="FILE", help="prompts to keep, one a line")
    group.add_argument("--drop-file", type=Path, metavar="FILE", help="prompts to drop, one a line")
    group.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a bucket for each line instead: a name, or name: prompt | prompt",
    )
    group.add_argument(
        "--margin",
        type=number,
        default=0.0,
        metavar="DIFFERENCE",
        help="by how much the better side must be nearer (difference of cosines, default: 0)",
    )
    group.add_argument(
        "--near-query",
        type=between(-1, 1),
        metavar="MIN",
        help="drop what is less like the picture that was searched with (cosine, such as 0.6)",
    )
    group.add_argument(
        "--clip-model",
        default="default",
        metavar="MODEL",
        help="for filter and topic: default, multilingual, best, architecture/weights of open_clip, or a folder that "
        "holds one (default: ViT-B-32-256/datacomp_s34b_b86k)",
    )
    _add_topic_options(to.add_argument_group("topic"))


def _add_topic_options(group: Any) -> None:
    group.add_argument(
        "--eps",
        type=epsilon,
        metavar="auto|VALUE",
        help="how far a neighbour may be (cosine distance; default: auto, by the bend of each query's distances)",
    )
    group.add_argument(
        "--min-samples", type=at_least(2), default=3, metavar="N", help="pictures that make a cluster (default: 3)"
    )
    group.add_argument(
        "--topic-text",
        action="append",
        metavar="TEXT",
        help="further words for the subject; may be given several times",
    )
    group.add_argument(
        "--topic-top", type=positive, metavar="K", help="keep the K best clusters of each query (default: by score)"
    )


def epsilon(text: str) -> float | None:
    """A cosine distance, or None for `auto`."""
    if text == "auto":
        return None
    value = number(text)
    if not 0 < value < 2:
        raise ArgumentTypeError(f"{text!r} is neither auto nor between 0 and 2")
    return value


def make_filter(args: Namespace) -> Criterion:
    """The filter that the flags describe."""
    from lib.criteria.prompts import make_prompts

    return make_prompts(vars(args), place_of(args))


def make_topic(args: Namespace) -> Criterion:
    """The topic's clusters as the flags describe them."""
    from lib.criteria.topic import Topic

    return Topic(
        args.clip_model,
        place_of(args),
        args.device,
        [],
        args.eps,
        args.min_samples,
        args.topic_text or [],
        args.topic_top,
    )


def place_of(args: Namespace) -> Place:
    """Where the weights of this run are looked for."""
    from lib.models.place import place_at

    return place_at(args.models_dir)
