"""Batches of training images, read by worker processes in an order determined by (seed, epoch, position).

An image that cannot be read is reported and replaced by the next training image. A batch is therefore always full, and
a resumed run has the batches of an undisturbed one.

Letters: B pairs of this process in a batch, S side of the image tower's square input.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.errors import DataError, TrainingError
from impart.images import ImageSource, load_image
from impart.train.prepare.pairs import ListedImage
from impart.train.prepare.views import random_crop_box
from impart.train.pretrain.shards import ShardReader, shards_of

__all__ = ["Batch", "ImageDataset", "epoch_batches", "in_order"]

_TRIES = 16  # consecutive images that may be unreadable


@dataclass(frozen=True)
class Batch:
    """Images of one batch.

    Attributes:
        rows: (B,) int64, positions among the training images.
        pixels: (B, 3, S, S) uint8, or float32 already normalised.
        texts: B.
        epoch: of the batch.
        number: of the batch within the epoch.
        failures: (path, reason) of what could not be read.
    """

    rows: npt.NDArray[np.int64]
    pixels: Tensor
    texts: list[str]
    epoch: int = 0
    number: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ImageDataset:
    """Training images, read as one view and one text each.

    Attributes:
        items: n images with texts.
        preprocess: of the image tower.
        crop: smallest share of the area in a view; 1 = the evaluation view.
        seed: of crops and of the choice of a text.
        max_megapixels: larger images are refused.
    """

    items: Sequence[ListedImage]
    preprocess: PreprocessConfig
    crop: float = 1.0
    seed: int = 0
    max_megapixels: float = 100.0

    def sample(self, row: int, epoch: int, data: bytes | None = None) -> tuple[int, Tensor, str, list[Any]]:
        """Read an image, or the next one that can be read: (row, pixels (3, S, S), text, failures).

        Args:
            row: of the image.
            epoch: changes crop and text.
            data: the image's bytes, if they are read already.

        Raises:
            TrainingError: many consecutive images cannot be read.
        """
        failures: list[tuple[str, str]] = []
        for turn in range(_TRIES):
            place = (row + turn) % len(self.items)
            item = self.items[place]
            source: ImageSource = item.pair.image if data is None or turn else data
            try:
                image, _ = load_image(source, max_megapixels=self.max_megapixels)
            except DataError as error:
                failures.append((item.pair.path or item.pair.image_key, str(error)))
                continue
            rng = np.random.default_rng((self.seed, epoch, place))
            text = item.texts[int(rng.integers(len(item.texts)))]
            return place, self._view(image, rng), text, failures
        raise TrainingError(
            f"{_TRIES} consecutive images cannot be read, the last {failures[-1][0]}: {failures[-1][1]}"
        )

    def _view(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        if self.crop >= 1:
            return torch.from_numpy(preprocess([image], self.preprocess)[0])
        box = random_crop_box(image.size, self.crop, rng)
        size = (self.preprocess.size_px, self.preprocess.size_px)
        pixels = np.array(image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (S, S, 3) to (3, S, S)


def epoch_batches(
    images: ImageDataset,
    *,
    batch: int,
    count: int,
    first: int,
    epoch: int,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
    pin: bool = False,
    stream: int = 0,
) -> Iterator[Batch]:
    """Yield batches `first` to `count` of an epoch, for process `rank` of `processes`.

    Args:
        images: to draw from.
        batch: B, pairs of this process.
        count: batches in the epoch.
        first: number of the first batch.
        epoch: number of the epoch.
        rank: of this process: of each `processes` x B images it has the rank-th B.
        processes: in all.
        workers: processes that read.
        pin: keep pixels in page-locked memory, for a GPU.
        stream: 0 = single images are drawn; else shards are read in order and mixed in a buffer of this size.
    """
    if stream:
        shards, rows = shards_of([item.pair.image_key for item in images.items])
        dataset: Any = _Stream(images, shards, rows, batch, count, first, epoch, rank, processes, stream)
        yield from _loader(dataset, workers=workers, pin=pin)
        return
    order = np.random.default_rng((images.seed, epoch)).permutation(len(images.items))
    whole = batch * processes
    plan = []
    for number in range(first, count):
        start = number * whole + rank * batch
        plan.append((number, epoch, order[np.arange(start, start + batch) % len(order)]))
    yield from _loader(_Drawn(images, plan), workers=workers, pin=pin)


def in_order(images: ImageDataset, rows: npt.NDArray[np.int64], *, batch: int, workers: int = 0) -> Iterator[Batch]:
    """Yield batches of some images in order; the last batch may be smaller."""
    plan = [(n, 0, rows[first : first + batch]) for n, first in enumerate(range(0, len(rows), batch))]
    yield from _loader(_Drawn(images, plan), workers=workers, pin=False)


class _Drawn(Dataset[Batch]):
    """Batches of known rows; an item is a whole batch, so that processes exchange one object per batch."""

    def __init__(self, images: ImageDataset, plan: Sequence[tuple[int, int, npt.NDArray[np.int64]]]):
        self.images, self.plan = images, plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Batch:
        number, epoch, rows = self.plan[index]
        return _collate([self.images.sample(int(row), epoch) for row in rows], epoch, number)


class _Stream(IterableDataset[Batch]):
    """Batches from shards: worker w of W makes batches w, w + W, ... of the epoch, from its own share of the shards."""

    def __init__(
        self,
        images: ImageDataset,
        shards: list[str],
        rows: dict[str, int],
        batch: int,
        count: int,
        first: int,
        epoch: int,
        rank: int,
        processes: int,
        shuffle: int,
    ):
        self.images, self.shards, self.rows = images, shards, rows
        self.batch, self.count, self.first, self.epoch = batch, count, first, epoch
        self.rank, self.processes, self.shuffle = rank, processes, shuffle

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        workers = info.num_workers if info else 1
        worker = (
            (info.id if info else 0) + self.first
        ) % workers  # the loader starts with worker 0, also after a resume
        failures: list[tuple[str, str]] = []
        reader = ShardReader(
            self.shards,
            self.rows,
            number=self.rank * workers + worker,
            readers=self.processes * workers,
            shuffle=self.shuffle,
            seed=self.images.seed,
            on_failure=lambda path, reason: failures.append((path, reason)),
        )
        samples = reader.samples(self.epoch)
        for number in range(worker, self.count, workers):
            raw = [next(samples) for _ in range(self.batch)]
            if number < self.first:  # of the run before the resume: read again, not decoded
                continue
            made = _collate([self.images.sample(row, self.epoch, data) for row, data in raw], self.epoch, number)
            made.failures.extend(failures)
            failures.clear()
            yield made


def _loader(dataset: Any, *, workers: int, pin: bool) -> Iterator[Batch]:
    fork = "fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None
    loader: Any = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=fork,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_worker if workers else None,
        generator=torch.Generator(),  # torch's own generator would depend on the step at which an epoch began
    )
    for made in loader:
        if pin:
            made = replace(made, pixels=made.pixels.pin_memory())
        yield made


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)


def _collate(samples: Sequence[tuple[int, Tensor, str, list[Any]]], epoch: int, number: int) -> Batch:
    return Batch(
        rows=np.array([sample[0] for sample in samples], dtype=np.int64),
        pixels=torch.stack([sample[1] for sample in samples]),
        texts=[sample[2] for sample in samples],
        epoch=epoch,
        number=number,
        failures=[failure for sample in samples for failure in sample[3]],
    )
