"""Step 7's flags, which of them belong to which criterion, and the frozen options that they describe."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import at_least, between, number, positive, share, whole
from lib.db.where import Condition, parse_where
from lib.errors import UsageError
from lib.models.weights import DEFAULT_FOLDER, WeightsFolder, weights_folder
from lib.sort.criteria import Criterion
from lib.sort.criteria.quality import (
    LEARNED_HIGH,
    LEARNED_MEDIUM,
    TECHNICAL,
    TECHNICAL_HIGH,
    TECHNICAL_MEDIUM,
    LearnedQuality,
    Quality,
    Thresholds,
)
from lib.sort.criteria.sizes import DEFAULT_EDGES, SQUARES, STRATEGIES, Megapixels, Orientation
from lib.sort.export.options import absolute, add_export_flags
from lib.work.stream import Parallelism

CRITERIA = ("orientation", "megapixels", "quality", "filter", "topic", "objects", "vlm")
EXPORT = "export"  # no criterion: it makes a dataset of what others kept

MODES = ("copy", "move", "hardlink", "symlink")
DEVICES = ("auto", "cpu", "cuda", "mps")
DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
OLLAMA = "http://localhost:11434/v1"

VLM_FLAGS = "vlm (any server that speaks OpenAI's chat completions)"
MODEL_FLAGS = "models (nothing is downloaded; what is missing is named)"
# The criteria that a group of flags belongs to. A group that is not named here belongs to all.
OWNERS = {name: (name,) for name in (*CRITERIA, EXPORT)} | {
    "megapixels and quality": ("megapixels", "quality"),
    "filter and topic": ("filter", "topic"),
    VLM_FLAGS: ("vlm",),
    MODEL_FLAGS: ("quality", "filter", "topic", "objects"),
}


@dataclass(frozen=True)
class SortOptions:
    """A sorting as it was asked for. `subtitle` is its settings in one line; without `folders` the workspace's
    pictures are sorted."""

    criterion: Criterion
    subtitle: str
    where: Condition | None
    folders: Sequence[Path]
    limit: int | None
    mode: str
    spread: Parallelism


def add_options(made: ArgumentParser) -> None:
    """Adds the flags of each criterion in groups of their own."""
    _add_size_flags(made)
    _add_quality_flags(made)
    _add_clip_flags(made)
    _add_judge_flags(made)
    add_export_flags(made)
    add = made.add_argument_group(MODEL_FLAGS).add_argument
    shown = f"where weights lie, besides the caches of torch and Hugging Face (default: {DEFAULT_FOLDER})"
    add("--models-dir", type=Path, metavar="DIR", help=shown)
    add("--device", choices=DEVICES, default="auto", help="what models run on (default: auto, the fastest there is)")


def _add_size_flags(made: ArgumentParser) -> None:
    add = made.add_argument_group("orientation").add_argument
    add("--square", choices=SQUARES, default="separate", help="where squares go (default: separate)")
    shown = "how much longer a square's longer side may be (default: 2%%)"
    add("--tolerance", type=share, default=0.02, metavar="SHARE", help=shown)
    shown = """where buckets are cut: at --edges; at 1 and 4 megapixels (coarse: small, medium, large); --every so many
        megapixels; into equal --parts. quality knows fixed, at --high and --medium, and quantiles, into three equal
        parts (default: fixed)"""
    add = made.add_argument_group("megapixels and quality").add_argument
    add("--strategy", choices=STRATEGIES, default="fixed", help=shown)
    add = made.add_argument_group("megapixels").add_argument
    shown = "edges in megapixels, for fixed (default: 0.5,2,8)"
    add("--edges", type=edges, default=DEFAULT_EDGES, metavar="MP,MP,...", help=shown)
    add("--every", type=above_zero, default=1.0, metavar="MP", help="width of a bucket, for step (default: 1)")
    add("--parts", type=at_least(2), default=4, metavar="N", help="how many equal parts, for quantiles (default: 4)")


def _add_quality_flags(made: ArgumentParser) -> None:
    add, score = made.add_argument_group("quality").add_argument, between(0, 100)
    shown = """what scores the pictures, 0-100: technical, which needs no weights; a metric of pyiqa for single pictures
        (musiq, clipiqa, topiq, ...; its licence is PolyForm Noncommercial); combined, which is musiq,clipiqa; or
        several (default: technical)"""
    add("--metric", type=metrics, default=(TECHNICAL,), metavar="NAME[,NAME]", help=shown)
    shown = "one score of several metrics (default: mean)"
    add("--combine", choices=("mean", "min", "max"), default="mean", help=shown)
    shown = "larger pictures are reduced to this before a learned metric sees them (default: 1024)"
    add("--long-side", type=long_side, default=1024, metavar="PIXELS", help=shown)
    shown = f"high from this score on (default: technical {TECHNICAL_HIGH:g}, learned {LEARNED_HIGH:g})"
    add("--high", type=score, metavar="SCORE", help=shown)
    shown = f"medium from this score on (default: technical {TECHNICAL_MEDIUM:g}, learned {LEARNED_MEDIUM:g})"
    add("--medium", type=score, metavar="SCORE", help=shown)
    add("--min-score", type=score, metavar="SCORE", help="sort only pictures of at least this score (default: all)")


def _add_clip_flags(made: ArgumentParser) -> None:
    add = made.add_argument_group("filter").add_argument
    shown = """a filter of this name beside the others, with labels, folder and page of its own; --where calls it
        filter:NAME (default: the one without a name)"""
    add("--name", type=filter_name, metavar="NAME", help=shown)
    add("--keep", action="append", metavar="PROMPT", help="keep what this describes; may be given several times")
    add("--drop", action="append", metavar="PROMPT", help="against what this describes; may be given several times")
    add("--keep-file", type=Path, metavar="FILE", help="prompts to keep, one a line")
    add("--drop-file", type=Path, metavar="FILE", help="prompts to drop, one a line")
    shown = "a bucket for each line instead: a name, or name: prompt | prompt"
    add("--labels", type=Path, metavar="FILE", help=shown)
    shown = "by how much the better side must be nearer (difference of cosines, default: 0)"
    add("--margin", type=number, default=0.0, metavar="DIFFERENCE", help=shown)
    shown = "drop what is less like the picture that was searched with (cosine, such as 0.6)"
    add("--near-query", type=between(-1, 1), metavar="MIN", help=shown)
    add = made.add_argument_group("filter and topic").add_argument
    shown = """for filter and topic: default, multilingual, best, architecture/weights of open_clip, or a folder that
        holds one (default: ViT-B-32-256/datacomp_s34b_b86k)"""
    add("--clip-model", default="default", metavar="MODEL", help=shown)
    add = made.add_argument_group("topic").add_argument
    shown = "how far a neighbour may be (cosine distance; default: auto, by the bend of each query's distances)"
    add("--eps", type=epsilon, metavar="auto|VALUE", help=shown)
    add("--min-samples", type=at_least(2), default=3, metavar="N", help="pictures that make a cluster (default: 3)")
    shown = "further words for the subject; may be given several times"
    add("--topic-text", action="append", metavar="TEXT", help=shown)
    shown = "keep the K best clusters of each query (default: by score)"
    add("--topic-top", type=positive, metavar="K", help=shown)


def _add_judge_flags(made: ArgumentParser) -> None:
    add = made.add_argument_group("objects").add_argument
    add("--classes", type=names, default=(), metavar="NAME,NAME", help="what to count (default: anything)")
    add("--min-objects", type=whole, default=1, metavar="N", help="keep from so many on (default: 1)")
    add("--max-objects", type=whole, metavar="N", help="keep up to so many (default: any number)")
    shown = "how sure the detector must be (default: 0.5)"
    add("--min-confidence", type=share, default=0.5, metavar="SHARE", help=shown)
    add("--detector", default=DETECTOR, metavar="MODEL", help=f"a detector of torchvision (default: {DETECTOR})")
    add = made.add_argument_group(VLM_FLAGS).add_argument
    shown = f"where the model answers; it sees the pictures (default: {OLLAMA})"
    add("--vlm-url", default=OLLAMA, metavar="URL", help=shown)
    add("--vlm-model", metavar="NAME", help="the model, as the server calls it")
    shown = """the environment variable that holds the server's key (default: OPENAI_API_KEY for api.openai.com, none
        for others)"""
    add("--vlm-key-env", metavar="NAME", help=shown)
    add("--subject", metavar="TEXT", help="what the dataset is about; the prompt's {subject}")
    add("--vlm-prompt", type=Path, metavar="FILE", help="another question (default: the built-in keep-1)")
    add("--vlm-min-score", type=share, default=0.6, metavar="SHARE", help="keep from this score on (default: 0.6)")
    add("--max-images", type=whole, metavar="N", help="ask about at most N pictures (default: all)")
    add("--vlm-workers", type=positive, default=4, metavar="N", help="questions at once (default: 4)")
    shown = "for one answer (default: 120)"
    add("--vlm-timeout", type=between(0.1, 3600), default=120.0, metavar="SECONDS", help=shown)
    shown = "let a picture be that got no answer in N runs, while others got one (default: 3)"
    add("--vlm-tries", type=positive, default=3, metavar="N", help=shown)


def filter_name(text: str) -> str:
    """A name that is a folder's on every system and a word of `--where`, whatever case somebody types."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", text):
        usable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-")
        hint = f", such as {usable}" if usable else ""
        raise ArgumentTypeError(
            f"{text!r} is no name for a filter: that has up to 40 of a to z, 0 to 9, - and _, no sign first{hint}"
        )
    return text


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


def epsilon(text: str) -> float | None:
    """A cosine distance, or None for `auto`."""
    if text == "auto":
        return None
    value = number(text)
    if not 0 < value < 2:
        raise ArgumentTypeError(f"{text!r} is neither auto nor between 0 and 2")
    return value


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def show_own_help(made: ArgumentParser, words: Sequence[str]) -> None:
    """Makes the help that of the criterion which a command line names: its flags, its examples and the common flags.

    Without a criterion the help has the common flags alone. The parser goes on taking every flag.
    """
    criterion = _criterion_in(made, words)
    for title, actions in _groups(made):
        if criterion not in OWNERS.get(title, (criterion,)):
            for action in actions:
                action.help = SUPPRESS
    text = f"{made.description or ''}\n\n{made.epilog or ''}".strip()
    if criterion:
        line = re.search(rf"^    {criterion} +(.+)$", text, re.MULTILINE)
        examples = re.findall(rf"^ .*\.py {criterion} .*$", text.partition("\nExamples\n")[2], re.MULTILINE)
        text = "\n".join([f"{criterion}: {line[1] if line else ''}", "", "Examples", *examples])
    made.description, made.epilog = text, None


def refuse_foreign(made: ArgumentParser, words: Sequence[str], criterion: str) -> None:
    """Raises UsageError for a flag on the command line that belongs to other criteria."""
    owners = {
        option: OWNERS[title]
        for title, actions in _groups(made)
        if title in OWNERS
        for action in actions
        for option in action.option_strings
    }
    for word in words[: words.index("--")] if "--" in words else words:
        flag = word.partition("=")[0]
        if criterion not in owners.get(flag, (criterion,)):
            raise UsageError(f"{flag} belongs to {' and '.join(owners[flag])}, not to {criterion}; leave it out.")


def _criterion_in(made: ArgumentParser, words: Sequence[str]) -> str:
    """The criterion among the words of a command line; '' where there is none."""
    is_value = False
    for word in words:
        action = made._option_string_actions.get(word)
        if action is None and not is_value and not word.startswith("-"):
            return word if word in (*CRITERIA, EXPORT) else ""
        is_value = action is not None and action.nargs is None
    return ""


def _groups(made: ArgumentParser) -> list[tuple[str, list[Action]]]:
    return [(group.title or "", group._group_actions) for group in made._action_groups]


def sort_options_from(args: Namespace) -> SortOptions:
    """The sorting that the flags describe. Raises UsageError where they contradict each other."""
    makers = {
        "orientation": lambda args: Orientation(args.square, args.tolerance),
        "megapixels": lambda args: Megapixels(args.strategy, args.edges, args.every, args.parts),
        "quality": _quality,
        "filter": _filter,
        "topic": _topic,
        "objects": _objects,
        "vlm": _vlm,
    }
    return SortOptions(
        criterion=makers[args.criterion](args),
        subtitle=_subtitle(args),
        where=parse_where(args.where) if args.where else None,
        folders=absolute(args.folders),
        limit=args.limit,
        mode=args.mode,
        spread=Parallelism(args.executor, args.workers),
    )


def _subtitle(args: Namespace) -> str:
    if args.criterion == "orientation":
        return f"Squares within {100 * args.tolerance:g} %: {args.square}."
    if args.criterion == "megapixels":
        return f"Strategy {args.strategy}."
    models = {"filter": "clip_model", "topic": "clip_model", "objects": "detector", "vlm": "vlm_model"}
    if args.criterion in models:
        return f"Model {getattr(args, models[args.criterion])}."
    if args.metric == (TECHNICAL,):
        return "Technical score, 0 to 100: it finds defects and is no opinion about a picture."
    together = f", {args.combine} of them" if len(args.metric) > 1 else ""
    return f"{', '.join(args.metric)}, 0 to 100{together}; a prediction by a model."


def _quality(args: Namespace) -> Criterion:
    if args.strategy not in ("fixed", "quantiles"):
        raise UsageError(f"quality knows no --strategy {args.strategy}; use fixed or quantiles.")
    technical = args.metric == (TECHNICAL,)
    usual_high, usual_medium = (TECHNICAL_HIGH, TECHNICAL_MEDIUM) if technical else (LEARNED_HIGH, LEARNED_MEDIUM)
    high = usual_high if args.high is None else args.high
    medium = min(usual_medium, high) if args.medium is None else args.medium
    if medium > high:
        raise UsageError(f"--medium {medium:g} is above --high {high:g}; lower it or raise --high.")
    thresholds = Thresholds(high, medium, args.min_score, args.strategy == "quantiles")
    if technical:
        return Quality(thresholds)
    return LearnedQuality(thresholds, args.metric, _weights(args), args.device, args.long_side, args.combine)


def _filter(args: Namespace) -> Criterion:
    from lib.sort.criteria.prompts import PromptFilter

    return PromptFilter.from_options(vars(args), _weights(args))


def _topic(args: Namespace) -> Criterion:
    from lib.sort.criteria.topic import Topic

    return Topic(
        args.clip_model, _weights(args), args.device, eps=args.eps, least=args.min_samples,
        texts=args.topic_text or [], top=args.topic_top,
    )  # fmt: skip


def _objects(args: Namespace) -> Criterion:
    from lib.sort.criteria.judges import Objects

    if args.max_objects is not None and args.max_objects < args.min_objects:
        raise UsageError(f"--max-objects {args.max_objects} is below --min-objects {args.min_objects}.")
    return Objects(
        args.detector, _weights(args), args.device, args.classes, args.min_objects, args.max_objects,
        args.min_confidence,
    )  # fmt: skip


def _vlm(args: Namespace) -> Criterion:
    from lib.sort.criteria.judges import Vlm, host_of, key_for, read_prompt

    if not args.vlm_model:
        raise UsageError("vlm needs --vlm-model, such as qwen2.5vl for Ollama.")
    host = host_of(args.vlm_url)
    return Vlm(
        args.vlm_url,
        args.vlm_model,
        read_prompt(args.vlm_prompt, args.subject),
        key_for(host, args.vlm_key_env),
        args.vlm_min_score,
        0 if args.dry_run else args.max_images,  # a preview sends nothing to anybody
        args.vlm_workers,
        args.vlm_timeout,
        args.vlm_tries,
    )


def _weights(args: Namespace) -> WeightsFolder:
    """The folder in which the weights of this run are looked for."""

    return weights_folder(args.models_dir)
