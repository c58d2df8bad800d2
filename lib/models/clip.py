"""Embeddings of pictures and prompts by open_clip, from local weights, many pictures at a time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.errors import GleanerError, UsageError, is_broken_installation
from lib.models.device import half, has_bfloat16, prepare
from lib.models.weights import WeightsFolder, fingerprint, first_line, hub_file, need_early, no_downloads, require
from lib.quality.measure import Measure

if TYPE_CHECKING:
    from lib.models.batches import Seen

# MIT, the best accuracy for its cost among the B/32 sizes: 72.8 % zero-shot on ImageNet, 0.609 over 38 sets
# (open_clip's own table); its tokenizer comes with the package.
NAMED = {
    "default": "ViT-B-32-256/datacomp_s34b_b86k",
    "multilingual": "ViT-B-32-SigLIP2-256/webli",
    "best": "ViT-B-16-SigLIP2-256/webli",
}
# Where these are published, so that their presence is known before torch is imported.
HUBS = {
    NAMED["default"]: "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K/",
    NAMED["multilingual"]: "timm/ViT-B-32-SigLIP2-256/",
    NAMED["best"]: "timm/ViT-B-16-SigLIP2-256/",
}
MULTILINGUAL = ("siglip2", "xlm", "nllb", "i18n", "mclip")
LOCAL = "local-dir:"
INSTEAD = "another --clip-model"  # what may be used where files are missing
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BATCH = {"cpu": 32, "mps": 64, "cuda": 256}


@dataclass
class Clip:
    """A loaded model. `size` is (height, width) of what it sees, `resize` how a picture gets there."""

    name: str
    version: str
    net: Any
    tokenizer: Any
    device: str
    size: tuple[int, int]
    resize: str
    mean: Any
    std: Any
    precision: Any = None
    texts: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        return BATCH[self.device] * self.size[0] * self.size[1]

    @property
    def multilingual(self) -> bool:
        return any(word in self.name.lower() for word in MULTILINGUAL) or self.name.startswith(LOCAL)

    def key(self, rgb: np.ndarray) -> Hashable:
        return ()

    def looking(self) -> Any:
        """The function that a decoding worker runs for a path."""
        return partial(look, size=self.size, squash=self.resize == "squash")

    def run(self, pictures: Sequence[np.ndarray]) -> list[bytes]:
        """Embeddings of unit length as float16, little-endian, of uint8 pictures of the model's size."""
        import torch

        # Bytes go to the device and are normalised there: a quarter of the transfer.
        batch = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode(), half(self.device):
            seen = self.net.encode_image(((batch - self.mean) / self.std).to(self.precision or batch.dtype)).float()
            found = torch.nn.functional.normalize(seen, dim=-1).cpu().numpy()
        if not np.isfinite(found).all():
            raise ValueError("the embedding is not a number")
        return [row.astype("<f2").tobytes() for row in found]

    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """Embeddings of prompts: float32 (n, dimensions), of unit length."""
        import torch

        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.texts]
        if fresh:
            with torch.inference_mode():
                found = self.net.encode_text(self.tokenizer(fresh).to(self.device), normalize=True)
            self.texts |= dict(zip(fresh, found.float().cpu().numpy(), strict=True))
        return np.stack([self.texts[prompt] for prompt in prompts])


def vector_of(data: bytes) -> np.ndarray:
    """A kept embedding as float32 (dimensions,), of unit length again."""
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def look_for_weights(name: str, folder: WeightsFolder) -> None:
    """Raises MissingWeights where a usual model is not here."""
    if hub := HUBS.get(NAMED.get(name, name)):
        _weights({"hf_hub": hub}, folder)
        if "SigLIP" in hub:  # their words lie beside the weights
            _tokenizer_folder(hub.rstrip("/"), folder)


def load_clip(name: str, folder: WeightsFolder, device: str) -> Clip:
    """The model by `<architecture>/<weights>`, by one of the names in NAMED, or from a folder (`local-dir:PATH`) that
    holds open_clip_config.json and the weights; on a device as `--device` names it.
    Raises MissingWeights, UsageError, GleanerError."""

    name = NAMED.get(name, name)
    need_early(("open_clip", "huggingface_hub"), lambda: look_for_weights(name, folder))
    device = prepare(device)
    open_clip = require("open_clip")
    with no_downloads(folder, INSTEAD):
        try:
            made, tokenizer, files = _local(open_clip, name) if _is_local(name) else _tagged(open_clip, name, folder)
        except (GleanerError, KeyboardInterrupt):
            raise
        except Exception as error:  # a broken file makes the loaders raise whatever they met
            if is_broken_installation(error):
                raise
            reason = first_line(error)
            raise GleanerError(f"the model {name} cannot be loaded ({reason}); fetch its files again.") from error
    import torch

    config = made.visual.preprocess_cfg
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    resize = config.get("resize_mode") or "shortest"
    mean, std = (torch.tensor(config[part]).view(1, 3, 1, 1).to(device) for part in ("mean", "std"))
    # What else than the files decides an embedding: the arithmetic here, the size, and the reduced decode.
    arithmetic = 2 if resize == "squash" else 3
    version = f"{arithmetic}-{fingerprint(files)}-{height}x{width}-{resize}"
    made = made.to(device).eval()
    return Clip(name, version, made, tokenizer, device, (height, width), resize, mean, std, shortened(made, device))


def shortened(net: Any, device: str) -> Any:
    """The number type that pictures are embedded with; the picture's half of the network is put into it.

    A processor that multiplies bfloat16 natively takes half the time with it, and an embedding is alike to a cosine of
    0.9999; words stay in single precision.
    """
    import torch

    if device != "cpu" or not has_bfloat16():
        return torch.float32
    net.visual.to(torch.bfloat16)
    return torch.bfloat16


def _is_local(name: str) -> bool:
    return name.startswith(LOCAL) or Path(name, "open_clip_config.json").is_file()


def _local(open_clip: Any, name: str) -> tuple[Any, Any, list[Path]]:
    folder = Path(name.removeprefix(LOCAL)).expanduser()
    weights = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pth", ".pt"))
    if not weights or not (folder / "open_clip_config.json").is_file():
        raise UsageError(f"{folder} holds no open_clip model; it needs open_clip_config.json and a .safetensors file.")
    made = open_clip.create_model(f"{LOCAL}{folder}")
    return made, open_clip.get_tokenizer(f"{LOCAL}{folder}"), [folder / "open_clip_config.json", *weights]


def _tagged(open_clip: Any, name: str, folder: WeightsFolder) -> tuple[Any, Any, list[Path]]:
    architecture, _, tag = name.partition("/")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        known = ", ".join(tags[:6]) if tags else f"{', '.join(NAMED)}, or architectures of open_clip"
        raise UsageError(f"there is no model {name!r}; after {architecture}/ come: {known}.")
    weights, tokenizer = _weights(config, folder), tokenizer_of(architecture, folder)
    # By its path rather than its tag, since the tag would look in the hub's cache only; what the tag says of the
    # preprocessing and the activation has to come along, or the embeddings are silently wrong.
    known_keys = ("size", "mean", "std", "interpolation", "resize_mode")
    made = open_clip.create_model(
        architecture,
        pretrained=str(weights),
        force_preprocess_cfg={key: config[key] for key in known_keys if config.get(key) is not None},
        force_quick_gelu=bool(config.get("quick_gelu", False)),
    )
    return made, tokenizer, [weights]


def tokenizer_of(architecture: str, folder: WeightsFolder) -> Any:
    """Returns what turns words into the numbers that an architecture of open_clip knows. Raises MissingWeights.

    Some come with open_clip; those of multilingual models are files of their own, which open_clip would fetch.
    """
    open_clip = require("open_clip")
    words = open_clip.get_model_config(architecture).get("text_cfg", {})
    if not (repository := words.get("hf_tokenizer_name")):
        return open_clip.get_tokenizer(architecture)
    require("transformers")
    return open_clip.tokenizer.HFTokenizer(
        str(_tokenizer_folder(repository, folder)),
        context_length=words.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=words.get("tokenizer_mode"),
        **words.get("tokenizer_kwargs", {}),
    )


def _tokenizer_folder(repository: str, folder: WeightsFolder) -> Path:
    found = [hub_file(folder, repository, (name,), INSTEAD) for name in TOKENIZER_FILES]
    return found[0].parent


def _weights(config: dict[str, Any], folder: WeightsFolder) -> Path:
    if hub := config.get("hf_hub"):
        repository, _, name = hub.rpartition("/")
        usual = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
        return hub_file(folder, repository, (name,) if name else usual, INSTEAD)
    return folder.need_address(config["url"], INSTEAD)


def look(path: Path, size: tuple[int, int], squash: bool) -> Seen | Measure:
    """A picture as the model sees it, decoded at a reduced scale: uint8 (*size, 3); or why it cannot be decoded.

    Without `squash` it is the square (or the rectangle of the model's shape) in the middle.
    """
    from PIL import Image

    from lib.images.decode import DecodeError, decode, read_header
    from lib.models.batches import Seen

    try:
        header = read_header(path)
        width, height = header.upright_size
        # Twice the size that is needed, for the last, exact step to start from.
        share = 2 * max(size[0] / height, size[1] / width)
        least = math.ceil(max(width, height) * share) if share < 1 else None
        picture = decode(path, at_least=least, background=None)
    except DecodeError as error:
        return Measure(None, error.reason)
    image = Image.fromarray(picture.rgb)
    # The middle of the file's own pixels: a reduced decode has rounded its size already.
    across, down = image.width / width, image.height / height
    left, top, right, bottom = (0.0, 0.0, width, height) if squash else _middle((width, height), size)
    box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
    exact = image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)
    return Seen(np.asarray(exact, dtype=np.uint8), width, height, header.format)


def _middle(whole: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of a picture (width, height) that is left where its short side is made `size` (height, width) and the
    rest cut off on both sides, to the very fractions of a pixel that come of torchvision's rounding."""
    width, height = whole
    scale = max(size[1] / width, size[0] / height)
    columns, rows = max(size[1], int(width * scale + 1e-6)), max(size[0], int(height * scale + 1e-6))
    left, top = round((columns - size[1]) / 2), round((rows - size[0]) / 2)
    across, down = width / columns, height / rows
    return left * across, top * down, (left + size[1]) * across, (top + size[0]) * down
