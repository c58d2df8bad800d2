"""Learned quality metrics by name, through pyiqa: loaded from local weights, batched, on 0..100.

pyiqa is under the PolyForm Noncommercial licence. Its metrics predict what people would say of a picture; how well each
does is published in its tables and quoted in docs/sort.md. Importing this module loads neither torch nor pyiqa, so that
flags can be checked at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import GleanerError, UsageError, is_broken_installation
from lib.models.device import half, pixels_in_batch, prepare
from lib.models.weights import MissingWeights, WeightsFolder, fingerprint, first_line, no_downloads, require

# Metrics of a whole set, or of a picture with a text, which give no score for one picture.
NOT_FOR_ONE = ("fid", "sfid", "fid_dinov2", "inception_score", "clipscore")
# Where pyiqa gives no bound: the ends of what is usual.
RANGES = {"pi": (0.0, 10.0), "niqe": (0.0, 20.0), "ilniqe": (0.0, 100.0)}
LONG_SIDES = {"entropy": 512}  # makes 256 eight-byte planes of each pixel
OPTIONS: dict[str, dict[str, Any]] = {"topiq": {"backbone_pretrain": False}}  # the file has the backbone's weights too
SAME_SIZE = ("topiq", "cnniqa", "dbcnn", "nima", "arniqa", "liqe")  # scored in batches of one size

INSTEAD = "--metric technical, which needs none"
LONG_SIDE = 1024  # KonIQ-10k, on which most of these were trained, is 1024 x 768
ALIASES = {"topiq": "topiq_nr", "clipiqa_plus": "clipiqa+"}
COMBINED = ("musiq", "clipiqa")  # `combined` stands for these, as people know it from other pipelines

PUBLISHED = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
RN50 = (
    "https://openaipublic.azureedge.net/clip/models/"
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt"
)
# Files of the usual metrics, so that their presence and their fingerprint are known before torch is imported.
KNOWN_FILES = {
    "musiq": (PUBLISHED + "musiq_koniq_ckpt-e95806b9.pth",),
    "musiq-ava": (PUBLISHED + "musiq_ava_ckpt-e8d3f067.pth",),
    "musiq-spaq": (PUBLISHED + "musiq_spaq_ckpt-358bb6af.pth",),
    "musiq-paq2piq": (PUBLISHED + "musiq_paq2piq_ckpt-364c0c84.pth",),
    "clipiqa": (RN50,),
    "clipiqa+": (RN50, PUBLISHED + "CLIP-IQA+_learned_prompts-603f3273.pth"),
    "topiq_nr": (PUBLISHED + "cfanet_nr_koniq_res50-9a73138b.pth",),
}


@dataclass(frozen=True)
class Scale:
    """The ends of a metric's range, as pyiqa estimates them, and which of them is good."""

    low: float
    high: float
    lower_better: bool

    def on_100(self, value: float) -> float:
        """The value on 0..100, 100 the best."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return 100 * (1 - share if self.lower_better else share)


@dataclass
class Learned:
    """A metric, loaded. `version` names metric, weights and preprocessing; `run` gives raw scores."""

    name: str
    version: str
    scale: Scale
    pixels: int
    run: Callable[[Sequence[np.ndarray]], Sequence[float]]
    same_size: bool = True
    files: list[Path] = field(default_factory=list)

    def key(self, rgb: np.ndarray) -> Hashable:
        """Pictures of one key can be scored together."""
        return rgb.shape[:2] if self.same_size else ()


def known_version(name: str, folder: WeightsFolder, long_side: int) -> str | None:
    """The version that a usual metric would have, without loading it; None where only loading tells.

    Raises MissingWeights, which is the preflight: nothing has been decoded or imported yet.
    """
    if name not in KNOWN_FILES:
        return None
    files = [folder.need_address(url, INSTEAD) for url in KNOWN_FILES[name]]
    return version_of(name, files, long_side)


def version_of(name: str, files: Sequence[Path], long_side: int) -> str:
    """Names the arithmetic (1), the weights and the preprocessing."""
    return f"1-{fingerprint(files) if files else 'none'}-{min(long_side, LONG_SIDES.get(name, long_side))}"


def load(name: str, folder: WeightsFolder, device: str, long_side: int) -> Learned:
    """The metric, ready to run. Raises MissingWeights, UsageError for an unknown name, GleanerError for bad weights."""

    device = prepare(device)
    scale = scale_of(name)
    with no_downloads(folder, INSTEAD) as asked:
        net = _built(name, folder)
    files = list(dict.fromkeys(asked))
    version, pixels = version_of(name, files, long_side), pixels_in_batch(device)
    made = Learned(name, version, scale, pixels, _runner(net, device), files=files)
    if name.startswith("musiq"):
        from lib.models.fast_iqa import PackedMusiq

        made.run, made.same_size = _in_half(PackedMusiq(net, device), device), False
    elif name.startswith("clipiqa"):
        from lib.models.fast_iqa import CachedClipiqa

        made.run = _in_half(CachedClipiqa(net, device), device)
    elif not name.startswith(SAME_SIZE):
        made.pixels = 1  # one picture at a time: not every network of pyiqa keeps the pictures of a batch apart
    return made


def scale_of(name: str) -> Scale:
    """The metric's range. Raises UsageError for what is no metric of single pictures."""
    require("pyiqa")
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    config = DEFAULT_CONFIGS.get(name)
    if config is None or config["metric_mode"] != "NR" or name in NOT_FOR_ONE:
        fitting = [key for key, value in DEFAULT_CONFIGS.items() if value["metric_mode"] == "NR"]
        near = get_close_matches(name, [key for key in fitting if key not in NOT_FOR_ONE], 3) or ["musiq", "topiq_nr"]
        raise UsageError(f"there is no metric {name!r} that scores single pictures; near are: {', '.join(near)}.")
    ends = RANGES.get(name) or _ends(config.get("score_range", ""))
    return Scale(*ends, bool(config.get("lower_better", False)))


def _ends(text: str) -> tuple[float, float]:
    found = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
    return (found[0], found[1]) if len(found) > 1 and found[1] > found[0] else (0.0, 1.0)


def _built(name: str, folder: WeightsFolder) -> Any:
    import pyiqa

    options = next((extra for start, extra in OPTIONS.items() if name.startswith(start)), {})
    try:
        metric = pyiqa.create_metric(name, device="cpu", check_input_range=False, **options)
    except (GleanerError, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:  # some metrics need more than pyiqa itself
        raise GleanerError(f"{name} needs {error.name}, which is not installed; pip install {error.name}") from error
    except Exception as error:  # a cut-off file makes torch raise whatever its unpickler met
        if is_broken_installation(error):
            raise
        if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled") or "offline" in str(error):
            missing = re.search(r"[\w.-]+/[\w.-]+", str(error))
            raise MissingWeights(missing[0] if missing else name, "", folder.hub, INSTEAD) from error
        raise GleanerError(
            f"the weights of {name} cannot be loaded ({first_line(error)}); fetch them again."
        ) from error
    if name.startswith("topiq"):
        _check_complete(name, metric.net, folder)
    return metric.net.eval()


def _check_complete(name: str, net: Any, folder: WeightsFolder) -> None:
    """pyiqa takes what it finds in a file of TOPIQ and leaves the rest at random; half a model is none."""
    import torch

    for url in KNOWN_FILES.get(name, ()):
        there = torch.load(folder.need_address(url), map_location="cpu", weights_only=False)["params"]
        absent = [key for key in net.state_dict() if key not in there and f"module.{key}" not in there]
        absent = [key for key in absent if not key.endswith(("num_batches_tracked", "default_mean", "default_std"))]
        if absent:
            raise GleanerError(f"the weights of {name} lack {len(absent)} parts ({absent[0]}, …); fetch them again.")


def _runner(net: Any, device: str) -> Callable[[Sequence[np.ndarray]], list[float]]:
    import torch

    net = net.to(device)

    def run(pictures: Sequence[np.ndarray]) -> list[float]:
        batch = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            answer = net(batch)
        answer = answer[0] if isinstance(answer, tuple | list) else answer
        scores = torch.as_tensor(answer).float().reshape(len(pictures), -1)[:, 0]
        return [_finite(float(score)) for score in scores]

    return run


def _in_half(run: Callable[..., list[float]], device: str) -> Callable[[Sequence[np.ndarray]], list[float]]:

    def in_half(pictures: Sequence[np.ndarray]) -> list[float]:
        with half(device):
            return [_finite(score) for score in run(pictures)]

    return in_half


def _finite(score: float) -> float:
    if not np.isfinite(score):
        raise ValueError("the score is not a number")
    return score
