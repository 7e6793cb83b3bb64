"""Small image towers that learn from scratch on a CPU: a residual convolutional network, and a constant as a control.

The network is a ResNet (He et al. 2016) for inputs of 48 to 64 px: one stem with stride 2, stages of basic blocks, each
stage with half the side and twice the channels, mean over the positions, projection. Convolutions are channels-last and
have multiples of 16 channels, as the CPU kernels need them.

Batch norm, not group norm: on two cores of an AVX-512 machine (bfloat16, 48 px, batch 256) a step with group norm takes
1.6 times as long.

Letters: B images, S side of the square input, D embedding width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.errors import ConfigError

__all__ = ["ConstantTower", "ConvShape", "ConvTower"]


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """Sizes of a `ConvTower`; `pretrain.image` changes them.

    Attributes:
        image_size: S.
        width: channels of the first stage; the others have two, four, eight times as many.
        stages: number of stages.
        blocks: basic blocks per stage.
        stem_stride: stride of the first convolution; 4 quarters the cost.

    Raises:
        ConfigError: a size is below 1, or nothing is left of an image in the last stage.
    """

    image_size: int = 48
    width: int = 32
    stages: int = 4
    blocks: int = 1
    stem_stride: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"pretrain.image.{name} is {value}: it must be at least 1")
        least = self.stem_stride * 2 ** (self.stages - 1)
        if self.image_size < least:
            raise ConfigError(f"pretrain.image.image_size is {self.image_size}: these stages need at least {least} px")

    def changed(self, values: Mapping[str, int]) -> ConvShape:
        """Return the shape with other values.

        Raises:
            ConfigError: a name is unknown, or a value is not valid.
        """
        if unknown := sorted(values.keys() - vars(self).keys()):
            raise ConfigError(f"pretrain.image has no {unknown[0]!r} for this model: use {', '.join(vars(self))}")
        return ConvShape(**{**vars(self), **values})


class ConvTower(nn.Module):
    """Residual network: normalised pixels (B, 3, S, S) to embeddings (B, D).

    Args:
        shape: sizes.
        dim: D.
    """

    def __init__(self, shape: ConvShape, dim: int):
        super().__init__()
        kernel = max(3, shape.stem_stride + 1 - shape.stem_stride % 2)  # odd, at least as wide as the stride
        self.stem = nn.Conv2d(3, shape.width, kernel, shape.stem_stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(shape.width)
        blocks: list[nn.Module] = []
        inputs = shape.width
        for stage in range(shape.stages):
            outputs = shape.width * 2**stage
            for number in range(shape.blocks):
                blocks.append(_Block(inputs, outputs, stride=2 if stage and not number else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Linear(inputs, dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.norm(self.stem(x)))  # (B, C, S / stride, S / stride)
        y: Tensor = self.projection(self.blocks(x).mean((2, 3)))
        return y


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a residual connection: (B, C, H, W) to (B, C', H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.skip(x))


class ConstantTower(nn.Module):
    """Learned constant in the place of an image tower: what RAM adds then is all that the references know.

    Args:
        dim: D.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.value = nn.Parameter(torch.randn(dim) / dim**0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.value + torch.zeros_like(pixels[:, 0, 0, :1])  # (B, 1) fixes the number of rows
