"""CLIPIQA with its prompts encoded once, and without the work whose result is thrown away.

pyiqa encodes the same ten sentences at every call, which costs five times the picture at 224 pixels. Besides, batch
normalisation is folded into the convolutions, these take fewer steps (`lib.models.clipiqa`), and attention pooling
asks only for the one token that is kept (pyiqa asks for each of them). All of it gives the same score up to rounding.

Wang, Chan and Loy, "Exploring CLIP for assessing the look and feel of images", AAAI 2023.

Convolutions on a CPU with less arithmetic and less memory traffic than torch's own; the same values up to rounding.

A 3 x 3 convolution of many channels is computed by Winograd's minimal filtering F(4 x 4, 3 x 3): a quarter of the
products, and two small changes of basis. The others add their bias, another picture and the ReLU while a result is
still in the cache, through oneDNN's fused convolution where torch has it.

Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016 (the matrices are theirs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

LEAST_CHANNELS = 128  # with fewer the changes of basis cost what the products save
TILES = 192  # computed at once: their 36 planes stay in the cache, and the products are still large
TO_INPUT = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]], dtype=torch.float64,
)  # fmt: skip
TO_WEIGHT = torch.tensor(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
     [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float64,
)  # fmt: skip
TO_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)


class CachedClipiqa:
    """`net` is pyiqa's CLIPIQA, weights loaded, in evaluation mode; it is taken apart and of no use afterwards."""

    def __init__(self, net: Any, device: str = "cpu"):
        self.net, self.device = net.to(device), device
        # The list hides CLIP from `net.to`.
        self.clip = net.clip_model[0] = net.clip_model[0].to(device).float().eval()
        with torch.inference_mode():
            learned = "clipiqa+" in net.model_type
            text = net.prompt_learner(self.clip) if learned else self.clip.encode_text(net.prompt_pairs.to(device))
            self.text = text / text.norm(dim=-1, keepdim=True)
            self.scale = self.clip.logit_scale.exp().clone()
        self.mean, self.std = net.default_mean.to(device), net.default_std.to(device)
        # A vision transformer, and CLIPIQA+ with its position embedding, go through CLIP's own forward.
        self.folded = None
        if hasattr(visual := self.clip.visual, "attnpool") and not net.pos_embedding:
            net.clip_model[0] = self.clip = None  # the words are encoded: 250 MB that nobody asks for again
            self.folded = _Folded(visual, device == "cpu")

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> list[float]:
        """The scores, 0..1, of uint8 pictures (height, width, 3) of one size."""
        batch = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255
        seen = self._seen((batch - self.mean) / self.std)
        seen = seen / seen.norm(dim=-1, keepdim=True)
        pairs = (self.scale * seen @ self.text.t()).float().reshape(len(pictures), -1, 2)
        return [float(score) for score in pairs.softmax(dim=-1)[..., 0].mean(dim=1)]

    def _seen(self, batch: torch.Tensor) -> torch.Tensor:
        if self.folded is None:
            return self.clip.encode_image(batch, self.net.pos_embedding)
        return self.folded(batch)


class _Folded:
    """CLIP's residual network and its attention pooling, for pictures of any size: (n, 3, h, w) to (n, dimensions)."""

    def __init__(self, visual: Any, fast: bool):
        _fold(visual)
        visual.to(memory_format=torch.channels_last)
        made = fastest if fast else Direct
        self.pool, self.attention = visual.avgpool, visual.attnpool
        self.stem = [made(convolution) for convolution in (visual.conv1, visual.conv2, visual.conv3)]
        self.blocks = []
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            for name, block in list(layer.named_children()):
                self.blocks.append(_Block(block, made))
                delattr(layer, name)  # its weights are laid out anew

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        x = batch.contiguous(memory_format=torch.channels_last)
        for convolution in self.stem:
            x = convolution(x)
        x = self.pool(x)
        for block in self.blocks:
            x = block(x)
        return _pooled(self.attention, x)


class _Block:
    """One bottleneck of three convolutions; `made` makes them."""

    def __init__(self, block: Any, made: Callable[[torch.nn.Conv2d], Any]):
        self.reduce, self.spread, self.widen = Direct(block.conv1), made(block.conv2), Direct(block.conv3)
        self.pool = block.avgpool
        beside = block.downsample  # average pooling, convolution, normalisation
        self.beside = None if beside is None else (beside[0], Direct(beside[1]))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pool(self.spread(self.reduce(x)))
        if self.beside is not None:
            pool, convolution = self.beside
            x = convolution(pool(x), relu=False)
        return self.widen.onto(x, y)


def _pooled(pool: Any, x: torch.Tensor) -> torch.Tensor:
    """What attention pooling says of the mean token: (n, dimensions) of features (n, channels, h, w).

    Only one query is asked, so that keys and values of the tokens need not be computed: query and key weights are
    multiplied first, and the values' weights act on the tokens' weighted mean. A key's bias moves all of a head's
    weights alike, which the softmax does not see.
    """
    tokens = x.flatten(2).transpose(1, 2)
    mean = tokens.mean(dim=1, keepdim=True)
    tokens = torch.cat([mean, tokens], dim=1)
    query = pool.q_proj(mean[:, 0]).unflatten(-1, (pool.num_heads, -1))  # n, heads, width
    keys = pool.k_proj.weight.unflatten(0, (pool.num_heads, -1))  # heads, width, channels
    asked = torch.einsum("nhd,hdc->nhc", query, keys) / query.shape[-1] ** 0.5
    seen = (asked @ tokens.transpose(1, 2)).softmax(dim=-1) @ tokens  # n, heads, channels
    values = pool.v_proj.weight.unflatten(0, (pool.num_heads, -1))
    answer = torch.einsum("nhc,hdc->nhd", seen, values).flatten(1) + pool.v_proj.bias
    return pool.c_proj(answer)


def _fold(module: Any) -> None:
    """Puts every batch normalisation `bnN` into the convolution `convN` beside it, and those of `downsample`."""
    for number in ("1", "2", "3"):
        convolution, norm = getattr(module, f"conv{number}", None), getattr(module, f"bn{number}", None)
        if convolution is not None and norm is not None:
            setattr(module, f"conv{number}", fuse_conv_bn_eval(convolution, norm))
            setattr(module, f"bn{number}", torch.nn.Identity())
    if getattr(module, "downsample", None) is not None:
        names = list(module.downsample._modules)  # avgpool, convolution, normalisation
        module.downsample._modules[names[1]] = fuse_conv_bn_eval(module.downsample[1], module.downsample[2])
        module.downsample._modules[names[2]] = torch.nn.Identity()
    for child in module.children():
        _fold(child)


class Direct:
    """relu(convolution(x)), or relu(convolution(x) + other); x float32 (n, c, h, w), channels last."""

    def __init__(self, convolution: torch.nn.Conv2d):
        self.weight = convolution.weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = convolution.bias.detach() if convolution.bias is not None else None
        self.stride, self.padding = list(convolution.stride), [int(side) for side in convolution.padding]
        packed = _packed(self.weight, self.stride, self.padding)
        self.fused = packed is not None
        self.weight = self.weight if packed is None else packed

    def __call__(self, x: torch.Tensor, relu: bool = True) -> torch.Tensor:
        if not self.fused:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
            return y.relu_() if relu else y
        how: tuple[Any, ...] = ("relu" if relu else "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, self.padding, self.stride, [1, 1], 1, *how
        )

    def onto(self, other: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """relu(convolution(x) + other), which takes the place of `other`."""
        if not self.fused:
            return other.add_(F.conv2d(x, self.weight, self.bias, self.stride, self.padding)).relu_()
        how: tuple[Any, ...] = ("add", None, "relu", [], None)
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.weight, self.bias, self.padding, self.stride, [1, 1], 1, *how
        )


class Winograd:
    """relu(convolution(x)) of a 3 x 3 convolution with stride and padding 1."""

    def __init__(self, convolution: torch.nn.Conv2d):
        weight = convolution.weight.detach().double()
        self.outputs, self.inputs = weight.shape[:2]
        planes = torch.einsum("ai,kcij,bj->abck", TO_WEIGHT, weight, TO_WEIGHT)
        self.planes = planes.reshape(36, self.inputs, self.outputs).float().contiguous()
        self.bias = (
            weight.new_zeros(self.outputs).float() if convolution.bias is None else convolution.bias.detach().float()
        )
        self.to_input = torch.kron(TO_INPUT, TO_INPUT).float()
        self.to_output = torch.kron(TO_OUTPUT, TO_OUTPUT).float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        number, _, height, width = x.shape
        down, across = -(-height // 4), -(-width // 4)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * across + 1 - width, 1, 4 * down + 1 - height))
        out = x.new_empty(number, 4 * down, 4 * across, self.outputs)
        rows = max(1, TILES // across)
        for picture in range(number):
            for top in range(0, down, rows):
                count = min(rows, down - top)
                self._band(padded[picture, 4 * top :], count, across, out[picture, 4 * top : 4 * (top + count)])
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def _band(self, padded: torch.Tensor, down: int, across: int, out: torch.Tensor) -> None:
        """Some rows of tiles: padded (>= 4 down + 2, 4 across + 2, inputs) to out (4 down, 4 across, outputs)."""
        row, column, _ = padded.stride()
        shape, strides = (6, 6, down, across, self.inputs), (row, column, 4 * row, 4 * column, 1)
        tiles = padded.as_strided(shape, strides, padded.storage_offset()).reshape(36, -1)
        planes = torch.bmm((self.to_input @ tiles).view(36, -1, self.inputs), self.planes)
        found = (self.to_output @ planes.view(36, -1)).view(4, 4, down, across, self.outputs)
        torch.add(found.permute(2, 0, 3, 1, 4), self.bias, out=out.view(down, 4, across, 4, self.outputs))
        out.relu_()


def fastest(convolution: torch.nn.Conv2d) -> Direct | Winograd:
    """The quicker of the two for this convolution."""
    square = tuple(convolution.kernel_size) == (3, 3) and tuple(convolution.stride) == (1, 1)
    many = min(convolution.in_channels, convolution.out_channels) >= LEAST_CHANNELS
    return Winograd(convolution) if square and many else Direct(convolution)


def _packed(weight: torch.Tensor, stride: list[int], padding: list[int]) -> torch.Tensor | None:
    """The weights as oneDNN wants them; None where torch lacks the fused convolution (no public part of torch)."""
    if weight.device.type != "cpu":
        return None
    inputs = weight.shape[1]
    x = torch.zeros(1, inputs, 8, 8).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            # The layout suits other sizes too; where it does not, oneDNN changes it.
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                weight, padding, stride, [1, 1], 1, [1, inputs, 64, 64]
            )
            y = torch.ops.mkldnn._convolution_pointwise(x, packed, None, padding, stride, [1, 1], 1, "relu", [], "")
            torch.ops.mkldnn._convolution_pointwise_.binary(
                y.clone(), x, packed, None, padding, stride, [1, 1], 1, "add", None, "relu", [], None
            )
    except (AttributeError, RuntimeError, TypeError):
        return None
    return packed
