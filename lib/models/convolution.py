"""Convolutions on a CPU with less arithmetic and less memory traffic than torch's own; the same values up to rounding.

A 3 x 3 convolution of many channels is computed by Winograd's minimal filtering F(4 x 4, 3 x 3): a quarter of the
products, and two small changes of basis. The others add their bias, another picture and the ReLU while a result is
still in the cache, through oneDNN's fused convolution where torch has it.

Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016 (the matrices are theirs).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

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
