"""Step 7's flags for sizes and quality, and the criterion that all flags describe, with the rules across flags.

Step 7's flags for models: where weights lie, what they run on, and what the criteria that need them are asked.

Step 7's flags for `objects` and `vlm`, and the criteria that they describe.

Step 7's flags for `export`, and the rules across them.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.arguments import at_least, between, number, positive, share, whole
from lib.errors import UsageError
from lib.models.weights import DEFAULT_FOLDER
from lib.sort.criteria import Criterion
from lib.sort.criteria.quality import TECHNICAL_HIGH, TECHNICAL_MEDIUM, Quality, Thresholds
from lib.sort.criteria.sizes import DEFAULT_EDGES, SQUARES, STRATEGIES, Megapixels, Orientation
from lib.sort.export.split import parse_shares

if TYPE_CHECKING:
    from lib.models.weights import WeightsFolder

CRITERIA = ("orientation", "megapixels", "quality", "filter", "topic", "objects", "vlm")
EXPORT = "export"  # no criterion: it makes a dataset of what others kept
TECHNICAL = "technical"

DEVICES = ("auto", "cpu", "cuda", "mps")

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
OLLAMA = "http://localhost:11434/v1"

FORMS = ("imagefolder", "webdataset", "parquet")


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
    from lib.models.iqa import ALIASES, COMBINED

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
    from lib.sort.criteria.quality import LearnedQuality

    return LearnedQuality(args.metric, thresholds, place_of(args), args.device, args.long_side, args.combine)


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
    from lib.sort.criteria.prompts import make_prompts

    return make_prompts(vars(args), place_of(args))


def make_topic(args: Namespace) -> Criterion:
    """The topic's clusters as the flags describe them."""
    from lib.sort.criteria.topic import Topic

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


def place_of(args: Namespace) -> WeightsFolder:
    """Where the weights of this run are looked for."""
    from lib.models.weights import weights_folder

    return weights_folder(args.models_dir)


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
    from lib.sort.criteria.objects import Objects

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
    from lib.sort.criteria import vlm

    return vlm.make_vlm(vars(args))


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def add_export_options(to: ArgumentParser) -> None:
    """Where a dataset goes, in which form, and how it is split."""
    group = to.add_argument_group("export")
    group.add_argument("--to", type=Path, metavar="DIR", help="where the dataset is put (default: WORKSPACE/export)")
    group.add_argument(
        "--as",
        dest="form",
        choices=FORMS,
        default="imagefolder",
        help="the form: files, tar shards, or Parquet (default: imagefolder)",
    )
    group.add_argument(
        "--split",
        default="80,10,10",
        metavar="TRAIN,VAL,TEST",
        help="shares of the whole; repeats stay on one side, in every export the same (default: 80,10,10)",
    )
    group.add_argument("--label", metavar="CRITERION", help="imagefolder: a folder for each label of this criterion")
    group.add_argument(
        "--shard-size", type=megabytes, default=500_000_000, metavar="MB", help="size of a shard (default: 500 MB)"
    )
    group.add_argument(
        "--parquet-pictures",
        choices=("embed", "reference"),
        default="embed",
        help="Parquet holds the pictures, or their paths (default: embed)",
    )
    group.add_argument("--title", metavar="TEXT", help="the dataset's name on its card (default: the folder's)")
    group.add_argument("--replace", action="store_true", help="an older dataset in that place goes to the quarantine")


def check_export(args: Namespace) -> None:
    """Raises UsageError where flags contradict each other."""
    parse_shares(args.split)
    if args.mode == "move":
        raise UsageError("export copies pictures and never moves them; use --mode copy, hardlink or symlink.")
    if args.label and args.form != "imagefolder":
        raise UsageError(
            "--label makes folders, which only --as imagefolder has; the others have all labels as columns."
        )


def make_export(session: Any) -> Any:
    """The export that a session's flags describe."""
    from lib.db.where import parse_where
    from lib.sort.export.run import Export

    args = session.args
    where = parse_where(args.where) if args.where else None
    place = args.to or session.workspace.root / "export"
    return Export(
        args, session.db, session.workspace, session.run_id, session.stopping, session.bar, place,
        parse_shares(args.split), where,
    )  # fmt: skip


def megabytes(text: str) -> int:
    """A size in megabytes, as bytes."""
    return positive(text) * 1_000_000
