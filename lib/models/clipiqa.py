"""CLIPIQA with its prompts encoded once, and without the work whose result is thrown away.

pyiqa encodes the same ten sentences at every call, which costs five times the picture at 224 pixels. Besides, batch
normalisation is folded into the convolutions, and attention pooling asks only for the one token that is kept (pyiqa
asks for each of them). All of it gives the same score up to rounding.

Wang, Chan and Loy, "Exploring CLIP for assessing the look and feel of images", AAAI 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
            self.folded = _Folded(visual)

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

    def __init__(self, visual: Any):
        _fold(visual)
        visual.to(memory_format=torch.channels_last)
        self.pool, self.attention = visual.avgpool, visual.attnpool
        self.stem = (visual.conv1, visual.conv2, visual.conv3)
        self.blocks = [block for layer in range(1, 5) for block in getattr(visual, f"layer{layer}")]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        x = batch.contiguous(memory_format=torch.channels_last)
        for convolution in self.stem:
            x = convolution(x).relu_()
        x = self.pool(x)
        for block in self.blocks:
            y = block.conv3(block.avgpool(block.conv2(block.conv1(x).relu_()).relu_()))
            beside = x if block.downsample is None else block.downsample(x)
            x = y.add_(beside).relu_()
        return _pooled(self.attention, x)


def _pooled(pool: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention pooling of the mean token: (n, dimensions) of features (n, channels, h, w).

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
