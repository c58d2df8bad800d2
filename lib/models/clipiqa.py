"""CLIPIQA with its prompts encoded once, and without the work whose result is thrown away.

pyiqa encodes the same ten sentences at every call, which costs five times the picture at 224 pixels. Besides, batch
normalisation is folded into the convolutions before it, and attention pooling asks only for the one token that is kept
(pyiqa asks for each of them). All of it is the same arithmetic up to rounding.

Wang, Chan and Loy, "Exploring CLIP for assessing the look and feel of images", AAAI 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class CachedClipiqa:
    """`net` is pyiqa's CLIPIQA, weights loaded, in evaluation mode; its picture half is changed in place."""

    def __init__(self, net: Any, device: str = "cpu"):
        self.net, self.device = net.to(device), device
        # The list hides CLIP from `net.to`.
        self.clip = net.clip_model[0] = net.clip_model[0].to(device).float().eval()
        with torch.inference_mode():
            learned = "clipiqa+" in net.model_type
            text = net.prompt_learner(self.clip) if learned else self.clip.encode_text(net.prompt_pairs.to(device))
            self.text = text / text.norm(dim=-1, keepdim=True)
            self.scale = self.clip.logit_scale.exp()
        self.mean, self.std = net.default_mean.to(device), net.default_std.to(device)
        # A vision transformer, and CLIPIQA+ with its position embedding, go through CLIP's own forward.
        self.folded = hasattr(self.clip.visual, "attnpool") and not net.pos_embedding
        if self.folded:
            _fold(self.clip.visual)
            self.clip.visual.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> list[float]:
        """The scores, 0..1, of uint8 pictures (height, width, 3) of one size."""
        batch = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255
        seen = self._seen((batch - self.mean) / self.std)
        seen = seen / seen.norm(dim=-1, keepdim=True)
        pairs = (self.scale * seen @ self.text.t()).float().reshape(len(pictures), -1, 2)
        return [float(score) for score in pairs.softmax(dim=-1)[..., 0].mean(dim=1)]

    def _seen(self, batch: torch.Tensor) -> torch.Tensor:
        visual = self.clip.visual
        if not self.folded:
            return self.clip.encode_image(batch, self.net.pos_embedding)
        x = batch.contiguous(memory_format=torch.channels_last)
        for convolution in (visual.conv1, visual.conv2, visual.conv3):
            x = F.relu(convolution(x), inplace=True)
        x = visual.avgpool(x)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        return _pooled(visual.attnpool, x)


def _pooled(pool: Any, x: torch.Tensor) -> torch.Tensor:
    """What attention pooling says of the mean token: (n, dimensions) of features (n, channels, h, w)."""
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
    query, key, value = pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens)
    by_head = [part.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for part in (query, key, value)]
    answer = F.scaled_dot_product_attention(*by_head).transpose(1, 2).flatten(2)
    return pool.c_proj(answer)[:, 0]


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
