"""MUSIQ and CLIPIQA without the work that pyiqa does anew for each picture; the same scores up to rounding.

Wang, Chan and Loy, "Exploring CLIP for assessing the look and feel of images", AAAI 2023.
Ke, Wang, Wang, Milanfar and Yang, "MUSIQ: Multi-scale image quality transformer", ICCV 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

SLICE = 128  # patches


class PackedMusiq:
    """MUSIQ over pictures of different sizes at once. `net` is pyiqa's, weights loaded, in evaluation mode; it stays
    as it is.

    pyiqa pads the tokens of a picture's reduced copies, masks the padding in an N x N matrix in each of 14 layers, and
    standardises the same convolution weights at every call. Here the tokens of all pictures lie one after the other
    without padding: what works on single tokens runs over all of them at once, attention runs picture by picture
    through torch's fused kernel, and the last layer is computed for the one token that the score is read from. Masked
    tokens have no part in the others' attention (their weight is exp(-1000)): leaving them out changes nothing.
    """

    def __init__(self, net: Any, device: str = "cpu"):
        self.net, self.device = net.to(device), device
        self.patch: int = net.patch_size
        self.grid = round(math.sqrt(net.transformer_encoder.posembed_input.position_emb.shape[1]))
        self.sides = sorted(net.data_preprocess_opts["longer_side_lengths"])
        self.blocks = [_MusiqBlock(block) for block in net.transformer_encoder.transformer.values()]
        self.root = _standardised(net.conv_root)
        self.bottleneck = {name: _standardised(getattr(net.block1, name)) for name in ("conv1", "conv2", "conv3")}
        self.projection = _standardised(net.block1.conv_proj)
        # Its columns in the order in which the planes lie, instead of turning the planes of every patch round.
        columns = net.embedding.weight.detach().unflatten(1, (-1, self.root.shape[0] * 4))
        self.embedding = columns.transpose(1, 2).flatten(1).contiguous()

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> list[float]:
        """The scores of uint8 pictures (height, width, 3) of any sizes."""
        patches, places, scales, counts = [], [], [], []
        for rgb in pictures:
            count = 0
            for scale, image in enumerate(self._scales(rgb)):
                own = self._patches(image)
                patches.append(own)
                places.append(_places(self.grid, *(math.ceil(side / self.patch) for side in image.shape[2:])))
                scales.append(torch.full((len(own),), scale))
                count += len(own)
            counts.append(count)
        tokens = self._embedded(torch.cat(patches))
        encoder = self.net.transformer_encoder
        tokens = tokens + encoder.posembed_input.position_emb[0][torch.cat(places).to(self.device)]
        if encoder.use_scale_emb:
            tokens = tokens + encoder.scaleembed_input.scale_emb[torch.cat(scales).to(self.device)]
        first = self._encoded(tokens, counts)
        marks = self.net.head(encoder.encoder_norm(first)).float()
        if marks.shape[1] > 1:  # a distribution over the marks 1..10
            marks = (marks * torch.arange(1, marks.shape[1] + 1, device=self.device)).sum(dim=1, keepdim=True)
        return [float(mark) for mark in marks[:, 0]]

    def _scales(self, rgb: np.ndarray) -> list[torch.Tensor]:
        image = torch.tensor(rgb).to(self.device).permute(2, 0, 1)[None].float() / 255
        image = (image - 0.5) * 2
        height, width = image.shape[2:]
        found = []
        for side in self.sides:
            ratio = side / max(height, width)
            size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
            found.append(F.interpolate(image, size, mode="bicubic", align_corners=False))
        return [*found, image]

    def _patches(self, image: torch.Tensor) -> torch.Tensor:
        """The 32-pixel patches of (1, 3, h, w), zeros around as TensorFlow's SAME has them: (n, 3, 32, 32)."""
        side = self.patch
        height, width = image.shape[2:]
        rows, columns = math.ceil(height / side), math.ceil(width / side)
        down, across = rows * side - height, columns * side - width
        padded = F.pad(image, (across // 2, across - across // 2, down // 2, down - down // 2))
        blocks = padded[0].reshape(3, rows, side, columns, side)
        return blocks.permute(1, 3, 0, 2, 4).reshape(rows * columns, 3, side, side)

    def _embedded(self, patches: torch.Tensor) -> torch.Tensor:
        """Tokens of all patches: (n, 384); of some at a time, whose planes stay in the processor's cache."""
        slices = patches.split(SLICE)
        return torch.cat([F.linear(self._planes(part), self.embedding, self.net.embedding.bias) for part in slices])

    def _planes(self, x: torch.Tensor) -> torch.Tensor:
        """The planes that the convolutions make of patches: (n, 256 * 8 * 8)."""
        net, block = self.net, self.net.block1
        x = net.gn_root(F.conv2d(_same(x, 7, 2), self.root, stride=2)).relu_()
        # After a ReLU nothing is below the zeros that pyiqa pads with, so that windows may as well end at the edge.
        # With channels last this is ten times faster.
        x = F.max_pool2d(x.contiguous(memory_format=torch.channels_last), 3, 2, ceil_mode=True).contiguous()
        identity = block.gn_proj(F.conv2d(x, self.projection))
        x = block.gn1(F.conv2d(x, self.bottleneck["conv1"])).relu_()
        x = block.gn2(F.conv2d(x, self.bottleneck["conv2"], padding=1)).relu_()
        x = block.gn3(F.conv2d(x, self.bottleneck["conv3"])).add_(identity).relu_()
        return x.flatten(1)

    def _encoded(self, tokens: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Each picture's own token after the encoder: (pictures, 384)."""
        own = self.net.transformer_encoder.cls[0]
        x = torch.cat([part for piece in tokens.split(counts) for part in (own.to(piece), piece)])
        lengths = [count + 1 for count in counts]
        for block in self.blocks[:-1]:
            x = block(x, lengths)
        return self.blocks[-1](x, lengths, only_first=True)


class _MusiqBlock:
    """One transformer block; queries, keys and values come from one product."""

    def __init__(self, block: Any):
        attention = block.attention
        self.block, self.heads = block, attention.num_heads
        parts = (attention.query, attention.key, attention.value)
        self.weight = torch.cat([part.weight for part in parts]).detach()
        self.bias = torch.cat([part.bias for part in parts]).detach()

    def __call__(self, x: torch.Tensor, lengths: list[int], only_first: bool = False) -> torch.Tensor:
        """Tokens (n, dim) of pictures of these lengths; with `only_first` the first token of each comes back."""
        mixed = F.linear(self.block.norm1(x), self.weight, self.bias)
        answers = []
        for part in mixed.split(lengths):
            query, key, value = part.reshape(len(part), 3, self.heads, -1).permute(1, 2, 0, 3)[:, None]
            query = query[:, :, :1] if only_first else query
            seen = F.scaled_dot_product_attention(query, key, value)
            answers.append(seen[0].transpose(0, 1).reshape(query.shape[2], -1))
        if only_first:
            starts = torch.tensor([0, *lengths[:-1]], device=x.device).cumsum(0)
            x = x[starts]
        x = x + self.block.attention.out(torch.cat(answers))
        return x + self.block.mlp(self.block.norm2(x))


@lru_cache(maxsize=4096)
def _places(grid: int, rows: int, columns: int) -> torch.Tensor:
    """The place, of grid x grid, that each patch falls on, by nearest neighbour: int64 (rows * columns,)."""
    # Single precision, as torch's own `interpolate` has it: the two must agree where a patch lies on an edge.
    down = (torch.arange(rows).float() * torch.tensor(grid / rows).float()).floor().long().clamp(max=grid - 1)
    across = (torch.arange(columns).float() * torch.tensor(grid / columns).float()).floor().long().clamp(max=grid - 1)
    return (down[:, None] * grid + across[None]).reshape(-1)


def _standardised(convolution: Any) -> torch.Tensor:
    weight = convolution.weight.detach()
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    return weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)


def _same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    height, width = x.shape[2:]
    down = max(0, (math.ceil(height / stride) - 1) * stride + kernel - height)
    across = max(0, (math.ceil(width / stride) - 1) * stride + kernel - width)
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))


class CachedClipiqa:
    """CLIPIQA with its prompts encoded once. `net` is pyiqa's, weights loaded, in evaluation mode; it is taken apart
    and of no use afterwards.

    pyiqa encodes the same ten sentences at every call, which costs five times the picture at 224 pixels. Batch
    normalisation is folded into the convolutions, and attention pooling asks only for the one token that is kept.
    """

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
