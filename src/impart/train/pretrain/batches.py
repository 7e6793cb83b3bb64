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
from impart.train.pretrain.decoded import Box, Copies, cut_views
from impart.train.pretrain.shards import ShardReader, shards_of

__all__ = ["Batch", "Draw", "ImageDataset", "epoch_batches", "in_order"]

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

    The choice of text, crop and mirror image is a function of (seed, epoch, row) alone: with or without copies, after a
    resume, and in all variants of an experiment.

    Attributes:
        items: n images with texts.
        preprocess: of the image tower.
        crop: smallest share of the area in a view; 1 = the evaluation view.
        flip: mirror half of the views.
        seed: of crops and of the choice of a text.
        max_megapixels: larger images are refused.
        copies: of the n images: whole ones to crop, or evaluation views; None = images are decoded for every view.
    """

    items: Sequence[ListedImage]
    preprocess: PreprocessConfig
    crop: float = 1.0
    flip: bool = False
    seed: int = 0
    max_megapixels: float = 100.0
    copies: Copies | None = None

    def batch(
        self, rows: npt.NDArray[np.int64], epoch: int, number: int = 0, data: Sequence[bytes] | None = None
    ) -> Batch:
        """Read images; one that cannot be read is replaced by the next one.

        Args:
            rows: (B,) of the images.
            epoch: changes crops and texts.
            number: of the batch within the epoch.
            data: the images' bytes, if they are read already.

        Raises:
            TrainingError: many consecutive images cannot be read.
        """
        draws = [self._draw(int(row), epoch, data[place] if data else None) for place, row in enumerate(rows)]
        return Batch(
            rows=np.array([draw.row for draw in draws], dtype=np.int64),
            pixels=self.views(draws),
            texts=[draw.text for draw in draws],
            epoch=epoch,
            number=number,
            failures=[failure for draw in draws for failure in draw.failures],
        )

    def views(self, draws: Sequence[Draw]) -> Tensor:
        """Make the image tower's input (B, 3, S, S) for a batch; a subclass may make another one."""
        if self.copies is None:
            return torch.stack([self._view(draw) for draw in draws])
        return self._cut(self.copies, draws)

    def _draw(self, row: int, epoch: int, data: bytes | None) -> Draw:
        """Draw text and view of an image, or of the next one that can be read."""
        failures: list[tuple[str, str]] = []
        for turn in range(_TRIES):
            place = (row + turn) % len(self.items)
            item = self.items[place]
            source: ImageSource = item.pair.image if data is None or turn else data
            image = None
            try:
                if self.copies is None:
                    image, _ = load_image(source, max_megapixels=self.max_megapixels)
                    size = image.size
                else:
                    size = self.copies.size(place)
            except DataError as error:
                failures.append((item.pair.path or item.pair.image_key, str(error)))
                continue
            rng = np.random.default_rng((self.seed, epoch, place))
            text = item.texts[int(rng.integers(len(item.texts)))]
            box = random_crop_box(size, self.crop, rng) if self.crop < 1 else None
            return Draw(place, text, image, size, box, self.flip and bool(rng.random() < 0.5), failures)
        raise TrainingError(
            f"{_TRIES} consecutive images cannot be read, the last {failures[-1][0]}: {failures[-1][1]}"
        )

    def _view(self, draw: Draw) -> Tensor:
        """Make the view (3, S, S) of a decoded image."""
        assert draw.image is not None
        if draw.box is None:
            view = torch.from_numpy(preprocess([draw.image], self.preprocess)[0])
        else:
            size = (self.preprocess.size_px, self.preprocess.size_px)
            cut = draw.image.resize(size, Image.Resampling.BICUBIC, box=draw.box, reducing_gap=2.0)
            view = torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous()  # (S, S, 3) to (3, S, S)
        return view.flip(2) if draw.flip else view

    def _cut(self, copies: Copies, draws: Sequence[Draw]) -> Tensor:
        """Make the views (B, 3, S, S) out of the copies."""
        pixels = copies.pixels[copies.rows[[draw.row for draw in draws]]]  # (B, P, P, 3)
        flips = np.array([draw.flip for draw in draws])
        if self.crop >= 1:
            views = torch.from_numpy(np.where(flips[:, None, None, None], pixels[:, :, ::-1], pixels))
            return views.permute(0, 3, 1, 2)
        scale = np.array([2 * draw.size for draw in draws]) / pixels.shape[1]  # (B, 4) originals to copies
        boxes = np.array([draw.box for draw in draws], dtype=np.float64) / scale
        return cut_views(pixels, boxes, flips, self.preprocess.size_px)


@dataclass(frozen=True)
class Draw:
    """Image, text and view of one row of a batch.

    Attributes:
        row: position among the images.
        text: one of the image's.
        image: None where there are copies.
        size: width and height of the original.
        box: of the crop; None = the evaluation view.
        flip: whether the view is mirrored.
        failures: (path, reason) of images that were tried before.
    """

    row: int
    text: str
    image: Image.Image | None
    size: tuple[int, int]
    box: Box | None
    flip: bool
    failures: list[tuple[str, str]]


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
        return self.images.batch(rows, epoch, number)


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
            rows, data = zip(*raw, strict=True)
            made = self.images.batch(np.array(rows), self.epoch, number, data)
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
