"""Gains, biases and spatial kernels of the backbone for small images, of some 32 px.

Enlarged to the tower's size, a small image is blurred, and the backbone was trained on sharp photos. Here the backbone
learns to give a shrunk image the features of the same image at full size (distillation from its own features). Only
small parts learn: the depthwise and the first kernels, the biases, and a gain per output channel of the 1x1
convolutions. Their matrices, nearly all of the weights, are unchanged, so that one file contains both sets
(`recipes/mini/two_sizes.py`). Half the tower's side is enough for the few pixels of a small image.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.errors import ConfigError, DataError
from impart.files import file_key, read_ahead
from impart.images import load_image
from impart.train.events import StepDone
from impart.train.heads.towers.backbone import CELL_WIDTH, CELLS, FEATURES, EfficientNetLite
from impart.train.loop import fit
from impart.train.prepare.columns import Column, ColumnStore
from impart.train.prepare.views import FILTERS, recompress
from impart.train.settings import LoopSettings, OptimiserSettings, TrainConfig
from impart.train.task import Average, TrainingTask

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["SmallImagesTask", "SmallSettings", "Squares", "learn_small_images", "shrunk"]

_log = logging.getLogger(__name__)
_SIDE_PX = 96
"""Training images are kept at this side: enough for crops that end at 64 px."""
_AHEAD = 64  # squares read or being read
_PART = 256  # squares written at once
_SMALLEST_PX = 32
_GRID = round(CELLS**0.5)


@dataclass(frozen=True, kw_only=True)
class SmallSettings:
    """Settings of the training on small images.

    Attributes:
        steps: optimiser steps; 0 = no second set of weights.
        size_px: side of the square input for small images; a multiple of 128.
        up_to_px: in the model, an image is small up to this short side.
        learn_up_to_px: longest side of the training images; larger, so that features change little at the border.
        batch: images in a step.
        learning_rate: peak.
        temperature: of the class distributions that are compared.
        ema: decay of the averaged weights that are returned.

    Raises:
        ConfigError: a size or the number of steps is out of range.
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
            raise ConfigError(f"small.steps is {self.steps}, size_px {self.size_px}: at least 0, and a multiple of 128")
        if not _SMALLEST_PX <= self.up_to_px <= self.learn_up_to_px < _SIDE_PX:
            raise ConfigError(
                f"small.up_to_px is {self.up_to_px}, learn_up_to_px {self.learn_up_to_px}: "
                f"from {_SMALLEST_PX} to {_SIDE_PX - 1}, and the first not above the second"
            )


class Squares:
    """The centre square of each image at 96 px, on disk and memory-mapped: `squares[row]` is (96, 96, 3) uint8.

    Args:
        paths: n readable images.
        folder: of the cache.

    Raises:
        DataError: an image cannot be read.
    """

    def __init__(self, paths: Sequence[Path], folder: Path):
        store = ColumnStore(folder, f"squares-{_SIDE_PX}", {"pixels": Column(np.uint8, (_SIDE_PX, _SIDE_PX, 3))})
        keys = [file_key(path) for path in paths]
        missing = store.missing(keys)
        jobs = (paths[number] for number in missing)
        with closing(read_ahead(jobs, _square, workers=2, ahead=_AHEAD)) as squares:
            for first in range(0, len(missing), _PART):
                part = missing[first : first + _PART]
                store.append([keys[number] for number in part], {"pixels": list(islice(squares, len(part)))})
                if (first + len(part)) % 8192 == 0:
                    _log.info("small images: %d of %d", first + len(part), len(missing))
        self._pixels: npt.NDArray[np.uint8] = store.column("pixels")
        self._rows = store.rows(keys)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        square: npt.NDArray[np.uint8] = self._pixels[self._rows[row]]
        return square


def _square(path: Path) -> npt.NDArray[np.uint8]:
    try:
        image, _ = load_image(path, draft_px=2 * _SIDE_PX)
    except DataError as error:
        raise DataError(f"cannot read image {path}: {error}") from error
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC, box=box))


def shrunk(square: npt.NDArray[np.uint8], rng: np.random.Generator, *, up_to_px: int = 64) -> tuple[Image.Image, bool]:
    """Shrink a square image to 32 to `up_to_px` px, more often near 32; crop some a little, recompress some as JPEG.

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
    image = image.resize((small, small), FILTERS[rng.integers(len(FILTERS))], box=box)
    if rng.random() < 0.3:
        image = recompress(image, quality=int(rng.integers(60, 96)))
    mirrored = bool(rng.random() < 0.5)
    return (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image), mirrored


class _Gain(nn.Module):
    """A gain per output channel of a convolution; its kernel is unchanged."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, kernel: Tensor) -> Tensor:
        return kernel * self.gain.clamp(min=1e-3)  # a negative gain would be another matrix


class SmallImagesTask(TrainingTask):
    """Distillation of the backbone's features from full images to shrunk ones.

    Args:
        backbone: as published; a copy of it learns.
        squares: n images (96, 96, 3).
        teacher: (n, F') features of the same images at full size, in float16 or float32.
        weights: (n,) relative probability that an image is drawn.
        preprocessing: small images to pixels.
        settings: of this stage.
        config: of the loop.
    """

    def __init__(
        self,
        backbone: EfficientNetLite,
        squares: Squares | npt.NDArray[np.uint8],
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
        """Draw (rows, seed of the further draws) by weight."""
        for number in range(position, self.steps_per_epoch):
            rng = np.random.default_rng(np.random.SeedSequence((seed, epoch, number)))
            yield rng.choice(len(self._squares), self._settings.batch, p=self._weights), int(rng.integers(2**62))

    def training_step(self, batch: tuple[npt.NDArray[np.int64], int], accelerator: Accelerator) -> dict[str, Tensor]:
        rows, seed = batch
        rng = np.random.default_rng(seed)
        views = [shrunk(self._squares[row], rng, up_to_px=self._settings.learn_up_to_px) for row in rows]
        pixels = torch.from_numpy(preprocess([image for image, _ in views], self._preprocessing))
        wanted = self._teacher[torch.from_numpy(rows)].float()
        mirrored = torch.tensor([is_mirrored for _, is_mirrored in views])
        figures = self._losses(self.backbone(pixels.to(memory_format=torch.channels_last)), wanted, mirrored)
        total = torch.stack(list(figures.values())).sum()
        accelerator.backward(total)
        return {name: value.detach() for name, value in figures.items()} | {"loss": total.detach()}

    def _losses(self, found: Tensor, wanted: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """Compare features (B, F') with the teacher's: the classifier's distributions, pooled features, cells."""
        (mean, deviation), (cell_mean, cell_deviation) = self._moments
        cells = wanted[:, FEATURES:].reshape(-1, _GRID, _GRID, CELL_WIDTH)
        cells = torch.where(mirrored[:, None, None, None], cells.flip(2), cells).reshape(-1, CELLS, CELL_WIDTH)
        pooled, own = wanted[:, :FEATURES], found[:, :FEATURES]
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
                (found[:, FEATURES:].reshape(-1, CELLS, CELL_WIDTH) - cell_mean) / cell_deviation,
                (cells - cell_mean) / cell_deviation,
            ),
        }

    def after_step(self, step: int) -> None:
        self._average.update(step)

    def finish(self) -> EfficientNetLite:
        """Return the averaged weights with the gains multiplied in. To be called once, after the last step."""
        self._average.swap()
        for layer in list(self.backbone.modules()):
            if parametrize.is_parametrized(layer):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        self.backbone.eval()
        self.backbone.requires_grad_(False)
        return self.backbone


def learn_small_images(
    backbone: EfficientNetLite,
    squares: Squares | npt.NDArray[np.uint8],
    teacher: Tensor,
    *,
    sources: Sequence[str],
    preprocessing: PreprocessConfig,
    settings: SmallSettings,
    seed: int = 0,
) -> EfficientNetLite:
    """Train the backbone for small images (see `SmallImagesTask`).

    Args:
        backbone: as published.
        squares: n images (96, 96, 3).
        teacher: (n, F') features of the same images at full size, by the quantised backbone.
        sources: n names; the share of a source is its number of images to the power of 0.7.
        preprocessing: small images to pixels.
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
