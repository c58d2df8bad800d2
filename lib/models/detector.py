"""Object detection by torchvision's models, from local weights."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.errors import GleanerError, UsageError, is_broken_installation
from lib.models.device import half, pixels_in_batch, prepare
from lib.models.weights import WeightsFolder, fingerprint, first_line, need_early, require
from lib.quality.measure import Measure

if TYPE_CHECKING:
    from lib.models.batches import Seen

# BSD-3; 22.8 box mAP on COCO at a fifth of a second on a CPU (torchvision's table). More accurate and slower:
# fasterrcnn_resnet50_fpn_v2, 46.7.
DEFAULT = "fasterrcnn_mobilenet_v3_large_320_fpn"
PUBLISHED = "https://download.pytorch.org/models/"
KNOWN_FILES = {  # so that their presence is known before torch is imported
    DEFAULT: f"{PUBLISHED}fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
    "fasterrcnn_resnet50_fpn_v2": f"{PUBLISHED}fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
}
INSTEAD = "another --detector"
LEAST_SCORE = 0.2  # detections below are not kept; thresholds above cost nothing anew
MOST = 100  # detections of one picture


@dataclass
class Detector:
    """A loaded model. `run` gives, a picture, a list of (class, confidence, left, top, right, bottom), sides 0..1."""

    name: str
    version: str
    net: Any
    classes: Sequence[str]
    device: str
    pixels: int

    def looking(self) -> Any:
        """The function that a decoding worker runs for a path."""
        return partial(look, bounds=bounds_of(self.net))

    def key(self, rgb: np.ndarray) -> Hashable:
        return ()

    def run(self, pictures: Sequence[np.ndarray]) -> list[list[tuple[Any, ...]]]:
        import torch

        batch = [torch.tensor(rgb).to(self.device).permute(2, 0, 1).float() / 255 for rgb in pictures]
        with torch.inference_mode(), half(self.device):
            found = self.net(batch)
        return [self._listed(one, rgb.shape[:2]) for one, rgb in zip(found, pictures, strict=True)]

    def _listed(self, found: Any, size: tuple[int, ...]) -> list[tuple[Any, ...]]:
        scale = np.array([size[1], size[0], size[1], size[0]], dtype=np.float32)
        boxes = (found["boxes"].float().cpu().numpy() / scale).round(4)
        rows = []
        for number, score, box in zip(found["labels"].tolist(), found["scores"].tolist(), boxes, strict=True):
            if score >= LEAST_SCORE:
                rows.append((self.classes[number], round(float(score), 4), *(float(side) for side in box)))
        return sorted(rows, key=lambda row: -row[1])[:MOST]


def bounds_of(net: Any) -> tuple[int, int]:
    """(short side, long side) in pixels within which the network's own transform puts a picture, keeping its shape.

    The long side is 0 for a network that makes every picture a square of the short side.
    """
    transform = net.transform
    if transform.fixed_size is not None:
        return max(transform.fixed_size), 0
    return transform.min_size[-1], transform.max_size


def look(path: Path, bounds: tuple[int, int]) -> Seen | Measure:
    """A picture at the size that the network's own transform gives it, uint8 (height, width, 3), so that nothing is
    lost before it and nothing is left for it to do but enlarge small ones; or why it cannot be decoded."""
    from lib.images.decode import DecodeError, read_header
    from lib.models.batches import look as look_reduced

    try:
        width, height = read_header(path).upright_size
    except DecodeError as error:
        return Measure(None, error.reason)
    scale = bounds[0] / min(width, height)
    if bounds[1]:
        scale = min(scale, bounds[1] / max(width, height))
    return look_reduced(path, math.ceil(max(width, height) * scale) if scale < 1 else None, False)


def load_detector(name: str, folder: WeightsFolder, device: str) -> Detector:
    """The model by torchvision's name, on a device as `--device` names it.

    Raises UsageError, MissingWeights, GleanerError.
    """

    if name in KNOWN_FILES:
        need_early(("torchvision",), lambda: folder.need_address(KNOWN_FILES[name], INSTEAD))
    device = prepare(device)
    torchvision = require("torchvision")
    detection = torchvision.models
    names = detection.list_models(module=detection.detection)
    if name not in names:
        raise UsageError(f"torchvision has no detector {name!r}; it has: {', '.join(names)}.")
    weights = detection.get_model_weights(name).DEFAULT
    path = folder.need_address(weights.url, INSTEAD)
    import torch

    try:
        classes = weights.meta["categories"]
        net = detection.get_model(name, weights=None, weights_backbone=None, num_classes=len(classes))
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a cut-off file makes torch raise whatever its unpickler met
        if is_broken_installation(error):
            raise
        reason = first_line(error)
        raise GleanerError(f"the weights of {name} cannot be loaded ({reason}); fetch {path} again.") from error
    version = f"2-{fingerprint([path])}-{'x'.join(map(str, bounds_of(net)))}"
    return Detector(name, version, net.to(device).eval(), classes, device, pixels_in_batch(device))


def check_classes(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raises UsageError for a class that the detector does not know."""
    from difflib import get_close_matches

    names = [name for name in known if name not in ("__background__", "N/A")]
    for name in wanted:
        if name not in names:
            near = ", ".join(get_close_matches(name, names, 3) or names[:5])
            raise UsageError(f"the detector knows no class {name!r}; near are: {near}.")
