"""Thumbnails: gains, biases and spatial kernels of the backbone for images of some 32 px.

Enlarged to the tower's size a thumbnail is a blur, and a backbone trained on sharp photos sees little in it. Here the
backbone learns to say of a shrunk image what it says of the same image at full size (distillation from its own
features). Only what takes little room learns: the depthwise and the first kernels, the biases, and a gain for each
output channel of the 1x1 convolutions. Their matrices, nearly all of the weights, stay as they are, so that one file
holds both sets (`recipes/mini/two_sizes.py`). A thumbnail has few pixels to tell: half the tower's side is enough for it.
"""

from __future__ import annotations

import copy
import io
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from impart.encoders.preprocess import PreprocessConfig, preprocess, to_rgb
from impart.errors import ConfigError, DataError
from impart.files import atomic_path, file_key, read_ahead, sha256_hex
from impart.train.events import StepDone
from impart.train.heads.towers.backbone import CELL_WIDTH, CELLS, FEATURES, EfficientNetLite
from impart.train.loop import fit
from impart.train.settings import LoopSettings, OptimiserSettings, TrainConfig
from impart.train.task import Average, TrainingTask

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["SmallImagesTask", "SmallSettings", "Squares", "learn_small_images", "shrunk"]

_log = logging.getLogger(__name__)
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_SIDE_PX = 96
_AHEAD = 64  # squares read or being read
"""Training images are kept at this side: enough for crops that end at 64 px."""
_SMALLEST_PX = 32
_GRID = round(CELLS**0.5)


@dataclass(frozen=True, kw_only=True)
class SmallSettings:
    """How the backbone learns small images.

    Attributes:
        steps: optimiser steps; 0 = small images are seen like all others.
        size_px: side of the square that the backbone sees of them; a multiple of 128.
        up_to_px: images whose short side is no longer are small, in the model.
        learn_up_to_px: the longest side of the images learned from; some more, so that little changes at the border.
        batch: images in a step.
        learning_rate: peak.
        temperature: of the class distributions that are compared.
        ema: decay of the averaged weights that are returned.
    """

    steps: int = 0
    size_px: int = 128
    up_to_px: int = 36
    learn_up_to_px: int = 64
    batch: int = 64
    learning_rate: float = 1e-3
    temperature: float = 2.0
    ema: float = 0.998

    def __post_init__(self) -> None:
        if self.steps < 0 or self.size_px % 128 or self.size_px <= 0:
            raise ConfigError(f"small.steps is {self.steps}, size_px {self.size_px}: no less than 0, a multiple of 128")
        if not _SMALLEST_PX <= self.up_to_px <= self.learn_up_to_px < _SIDE_PX:
            raise ConfigError(
                f"small.up_to_px is {self.up_to_px}, learn_up_to_px {self.learn_up_to_px}: "
                f"from {_SMALLEST_PX} to {_SIDE_PX - 1}, and the first no larger"
            )


class Squares:
    """The middle of each image at 96 px, on disk and mapped into memory.

    Args:
        paths: n readable images.
        folder: where the file is kept; another list of images has another file.

    Attributes:
        pixels: (n, 96, 96, 3) uint8.
    """

    pixels: npt.NDArray[np.uint8]

    def __init__(self, paths: Sequence[Path], folder: Path):
        digest = sha256_hex("\n".join(file_key(path) for path in paths))[:16]
        file = folder / f"squares-{_SIDE_PX}-{digest}.npy"
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shape = (len(paths), _SIDE_PX, _SIDE_PX, 3)
            with atomic_path(file) as part, closing(read_ahead(paths, _square, workers=2, ahead=_AHEAD)) as squares:
                pixels = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
                for row, square in enumerate(squares):
                    pixels[row] = square
                    if (row + 1) % 8192 == 0:
                        _log.info("small images: %d of %d", row + 1, len(paths))
                pixels.flush()
                del pixels
        self.pixels = np.load(file, mmap_mode="r")


def _square(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (2 * _SIDE_PX, 2 * _SIDE_PX))
            image = to_rgb(opened)
    except (OSError, SyntaxError) as error:
        raise DataError(f"cannot read image {path}: {error}") from error
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC, box=box))


def shrunk(square: npt.NDArray[np.uint8], rng: np.random.Generator, *, up_to_px: int = 64) -> tuple[Image.Image, bool]:
    """A square image at 32 to `up_to_px` px, more often near 32; some cropped a little, some through JPEG.

    Returns:
        The image, and whether it is mirrored.
    """
    image = Image.fromarray(square)
    extent = image.size[0]
    box = None
    if rng.random() < 0.5:
        side = extent * np.sqrt(rng.uniform(0.75, 1.0))
        left, top = rng.uniform(0, extent - side, size=2)
        box = (left, top, left + side, top + side)
    small = round(_SMALLEST_PX * (up_to_px / _SMALLEST_PX) ** (rng.random() ** 2))
    image = image.resize((small, small), _FILTERS[rng.integers(len(_FILTERS))], box=box)
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
        image = Image.open(buffer).convert("RGB")
    mirrored = bool(rng.random() < 0.5)
    return (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image), mirrored


class _Gain(nn.Module):
    """A gain for each output channel of a convolution whose kernel stays as it is."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, kernel: Tensor) -> Tensor:
        return kernel * self.gain.clamp(min=1e-3)  # a gain that turns negative would be another matrix


class SmallImagesTask(TrainingTask):
    """Distillation of the backbone's features from full images to shrunk ones.

    Args:
        backbone: as published; a copy of it learns.
        squares: (n, 96, 96, 3) the images, as `Squares` keeps them.
        teacher: (n, F') features of the same images at full size, in float16 or float32.
        weights: (n,) how often each image is drawn, relative.
        preprocessing: small images to pixels.
        settings: of this stage.
        config: of the engine.
    """

    def __init__(
        self,
        backbone: EfficientNetLite,
        squares: npt.NDArray[np.uint8],
        teacher: Tensor,
        *,
        weights: npt.NDArray[np.float64],
        preprocessing: PreprocessConfig,
        settings: SmallSettings,
        config: TrainConfig,
    ):
        self.config = config
        self._squares, self._teacher, self._weights = squares, teacher, weights / weights.sum()
        self._preprocessing, self._settings = preprocessing, settings
        self.backbone = copy.deepcopy(backbone)
        self.backbone.requires_grad_(False)
        for layer in (self.backbone.stem, *self.backbone.blocks.modules(), self.backbone.head):
            kernel = getattr(layer, "weight", None)
            if kernel is None:
                continue
            layer.bias.requires_grad_(True)
            if kernel.shape[-1] == 1:
                parametrize.register_parametrization(layer, "weight", _Gain(kernel.shape[0]))
            else:
                kernel.requires_grad_(True)
        sample = teacher[:: max(1, len(teacher) // 8192)].float()
        pooled, cells = sample[:, :FEATURES], sample[:, FEATURES:].reshape(-1, CELL_WIDTH)
        self._moments = (pooled.mean(0), pooled.std(0) + 1e-6), (cells.mean(0), cells.std(0) + 1e-6)
        self._average = Average(self.modules(), settings.ema)
        self.pairs_per_step = settings.batch
        self.steps_per_epoch = settings.steps

    def modules(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone}

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """(rows, seed of the draws)."""
        for number in range(position, self.steps_per_epoch):
            rng = np.random.default_rng(np.random.SeedSequence((seed, epoch, number)))
            yield rng.choice(len(self._squares), self._settings.batch, p=self._weights), int(rng.integers(2**62))

    def training_step(self, batch: tuple[npt.NDArray[np.int64], int], accelerator: Accelerator) -> dict[str, Tensor]:
        rows, seed = batch
        rng = np.random.default_rng(seed)
        looks = [shrunk(self._squares[row], rng, up_to_px=self._settings.learn_up_to_px) for row in rows]
        pixels = torch.from_numpy(preprocess([image for image, _ in looks], self._preprocessing))
        wanted = self._teacher[torch.from_numpy(rows)].float()
        mirrored = torch.tensor([turned for _, turned in looks])
        figures = self._losses(self.backbone(pixels.to(memory_format=torch.channels_last)), wanted, mirrored)
        total = torch.stack(list(figures.values())).sum()
        accelerator.backward(total)
        return {name: value.detach() for name, value in figures.items()} | {"loss": total.detach()}

    def _losses(self, seen: Tensor, wanted: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """Classes (as the classifier reads the pooled features), pooled features, cells: (B, F') against (B, F')."""
        (mean, deviation), (cell_mean, cell_deviation) = self._moments
        cells = wanted[:, FEATURES:].reshape(-1, _GRID, _GRID, CELL_WIDTH)
        cells = torch.where(mirrored[:, None, None, None], cells.flip(2), cells).reshape(-1, CELLS, CELL_WIDTH)
        pooled, own = wanted[:, :FEATURES], seen[:, :FEATURES]
        heat = self._settings.temperature
        classify = self.backbone.classifier
        return {
            "classes": heat
            * F.kl_div(
                F.log_softmax(classify(own) / heat, dim=1),
                F.softmax(classify(pooled) / heat, dim=1),
                reduction="batchmean",
            ),
            "pooled": F.mse_loss((own - mean) / deviation, (pooled - mean) / deviation),
            "cells": F.mse_loss(
                (seen[:, FEATURES:].reshape(-1, CELLS, CELL_WIDTH) - cell_mean) / cell_deviation,
                (cells - cell_mean) / cell_deviation,
            ),
        }

    def after_step(self, step: int) -> None:
        self._average.update(step)

    def finish(self) -> EfficientNetLite:
        """The averaged weights with the gains multiplied in. To be called once, after the last step."""
        self._average.swap()
        for layer in list(self.backbone.modules()):
            if parametrize.is_parametrized(layer):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        self.backbone.eval()
        self.backbone.requires_grad_(False)
        return self.backbone


def learn_small_images(
    backbone: EfficientNetLite,
    squares: npt.NDArray[np.uint8],
    teacher: Tensor,
    *,
    sources: Sequence[str],
    preprocessing: PreprocessConfig,
    settings: SmallSettings,
    seed: int = 0,
) -> EfficientNetLite:
    """The backbone for small images (see `SmallImagesTask`).

    Args:
        backbone: as published.
        squares: (n, 96, 96, 3) the images.
        teacher: (n, F') what the backbone in use gives for them at full size.
        sources: n names; a source counts by its number of images to the power of 0.7.
        preprocessing: of full images; the small ones differ in size only.
        settings: of this stage.
        seed: of the draws.
    """
    counts = Counter(sources)
    config = TrainConfig(
        mode="heads",
        seed=seed,
        optimiser=OptimiserSettings(
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            eps=1e-8,
            warmup=0.05,
            clip=5.0,
        ),
        loop=LoopSettings(steps=settings.steps, batch=settings.batch, device="cpu"),
    )
    task = SmallImagesTask(
        backbone,
        squares,
        teacher,
        weights=np.array([counts[source] ** -0.3 for source in sources]),
        preprocessing=preprocessing,
        settings=settings,
        config=config,
    )
    for event in fit(task, config):
        if isinstance(event, StepDone) and (event.step % 25 == 0 or event.step == event.steps):
            _log.info("small images, step %d of %d: loss %.3f", event.step, event.steps, event.loss)
    return task.finish()
