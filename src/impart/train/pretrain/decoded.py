"""Small copies of images on disk, decoded once; training views are cut out of them for a whole batch at a time.

A run has two stores, each in a folder that is named after what determines the pixels:

    whole-64/      the whole image as a square of `pretrain.decode_once_px`, and its original size
    view-1a2b3c4d/ the evaluation view, pixel by pixel that of the exported encoder

The key of a row is of the image's location and file state, so that a replaced file has another row. Runs that share
`data.cache` share the copies; a stop costs at most one part.

Letters: B images, P side of a copy, S side of the image tower's input.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from impart.encoders.preprocess import PreprocessConfig, square_pixels
from impart.errors import ConfigError, DataError
from impart.files import read_ahead
from impart.images import load_image
from impart.train.events import Preparing, result_of
from impart.train.prepare.columns import Column, ColumnStore, column_key
from impart.train.prepare.embeddings import image_key
from impart.train.prepare.pairs import ListedImage

__all__ = ["Box", "Copies", "DecodedImages", "DecodedRun", "cut_views"]

_PART = 512  # images written at once
_READERS = 2
_AT_ONCE = 16  # images cut at once: larger buffers are slower, since each is new memory
_SHARPNESS = -0.5  # of the bicubic filter, as PIL's

Pixels: TypeAlias = npt.NDArray[np.uint8]
Box: TypeAlias = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the original image."""


@dataclass(frozen=True)
class Copies:
    """Copies of n images.

    Attributes:
        rows: (n,) row of each image; -1 = it cannot be read.
        pixels: (N, P, P, 3) uint8 of the store, memory-mapped.
        sizes: (N, 2) width and height of the originals.
        reasons: why an image cannot be read, by its number among the n.
    """

    rows: npt.NDArray[np.int64]
    pixels: Pixels
    sizes: npt.NDArray[np.int32]
    reasons: dict[int, str]

    def size(self, number: int) -> tuple[int, int]:
        """Return width and height of the original of one of the n images.

        Raises:
            DataError: it cannot be read.
        """
        row = int(self.rows[number])
        if row < 0:
            raise DataError(self.reasons[number])
        width, height = self.sizes[row]
        return int(width), int(height)


@dataclass
class DecodedImages:
    """One store.

    Args:
        folder: contains the stores; made when missing.
        side_px: P.
        view: preprocessing whose evaluation view is kept; None = the whole image is.
        max_megapixels: larger images are refused.

    Raises:
        TrainingError: the folder cannot be written.
    """

    folder: Path
    side_px: int
    view: PreprocessConfig | None = None
    max_megapixels: float = 100.0
    _reasons: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        name = f"whole-{self.side_px}"
        if self.view is not None:
            name = f"view-{column_key(json.dumps(self.view.to_dict(), sort_keys=True))[:8]}"
        columns = {
            "pixels": Column(np.uint8, (self.side_px, self.side_px, 3)),
            "size": Column(np.int32, (2,)),
        }
        self._store = ColumnStore(self.folder / name, "images", columns)

    def fill(self, items: Sequence[ListedImage]) -> Generator[Preparing, None, Copies]:
        """Decode the images that have no copy yet.

        Yields:
            Progress.

        Returns:
            The copies of all of them. An image that cannot be read is among their `reasons`.
        """
        keys = [image_key(item.pair) for item in items]
        missing = self._store.missing(keys)
        failed = 0
        with closing(read_ahead((items[n] for n in missing), self._load, workers=_READERS, ahead=2 * _PART)) as loaded:
            for first in range(0, len(missing), _PART):
                part = missing[first : first + _PART]
                made = list(zip((keys[number] for number in part), islice(loaded, _PART), strict=True))
                good = [(key, copy) for key, copy in made if not isinstance(copy, str)]
                self._reasons.update((key, copy) for key, copy in made if isinstance(copy, str))
                failed += len(made) - len(good)
                if good:
                    values = {
                        "pixels": np.stack([pixels for _, (pixels, _) in good]),
                        "size": np.array([size for _, (_, size) in good]),
                    }
                    self._store.append([key for key, _ in good], values)
                done = len(items) - len(missing) + first + len(part)
                yield Preparing(what="copies of images", done=done, total=len(items), failed=failed)
        rows = self._store.rows(keys)
        return Copies(
            rows,
            self._store.column("pixels"),
            np.asarray(self._store.column("size")),  # rows of a memory map are slow to read
            {int(number): self._reasons[keys[number]] for number in np.flatnonzero(rows < 0)},
        )

    def _load(self, item: ListedImage) -> tuple[Pixels, tuple[int, int]] | str:
        """Read an image: (P, P, 3) and its original size, or the reason; in a reader thread."""
        try:
            image, _ = load_image(item.pair.image, max_megapixels=self.max_megapixels)
        except DataError as error:
            return str(error)
        if self.view is not None:
            return square_pixels(image, self.view), image.size
        side = (self.side_px, self.side_px)
        return np.array(image.resize(side, Image.Resampling.BICUBIC, reducing_gap=2.0)), image.size


@dataclass
class DecodedRun:
    """Both stores of a run.

    Args:
        folder: contains them.
        side_px: P of the training copies.
        preprocess: of the image tower.
        max_megapixels: larger images are refused.

    Raises:
        ConfigError: the copies are smaller than the image tower's input.
    """

    folder: Path
    side_px: int
    preprocess: PreprocessConfig
    max_megapixels: float = 100.0

    def __post_init__(self) -> None:
        size = self.preprocess.size_px
        if self.side_px < size:
            raise ConfigError(
                f"pretrain.decode_once_px is {self.side_px}: at least {size}, the input of the image tower, or 0"
            )
        limit = self.max_megapixels
        self._whole = DecodedImages(self.folder, self.side_px, max_megapixels=limit)
        self._views = DecodedImages(self.folder, size, view=self.preprocess, max_megapixels=limit)

    def fill(self, items: Sequence[ListedImage], *, cropped: bool) -> Generator[Preparing, None, Copies]:
        """Decode what is missing (see `DecodedImages.fill`): whole images to crop, or evaluation views."""
        return (yield from (self._whole if cropped else self._views).fill(items))

    def copies(self, items: Sequence[ListedImage], *, cropped: bool) -> Copies:
        """Return the copies of some images, and decode what is missing."""
        return result_of(self.fill(items, cropped=cropped))


def cut_views(pixels: Pixels, boxes: npt.NDArray[np.float64], flips: npt.NDArray[np.bool_], size_px: int) -> Tensor:
    """Cut a box out of each copy and scale it with PIL's bicubic filter, all images at once.

    Args:
        pixels: (B, P, P, 3) uint8.
        boxes: (B, 4) left, top, right, bottom in pixels of the copies.
        flips: (B,) which views are mirrored.
        size_px: S.

    Returns:
        (B, 3, S, S) uint8, channels last in memory.
    """
    side = pixels.shape[1]
    across = _filter(boxes[:, 0], boxes[:, 2], side, size_px)  # (B, S, P)
    across[flips] = across[flips, ::-1]
    down = _filter(boxes[:, 1], boxes[:, 3], side, size_px)
    made = np.empty((len(pixels), size_px, size_px, 3), np.uint8)
    for first in range(0, len(pixels), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        made[part] = _resampled(pixels[part], down[part], across[part])
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def _resampled(pixels: Pixels, down: npt.NDArray[np.float32], across: npt.NDArray[np.float32]) -> Pixels:
    """Filter pixels (b, P, P, 3) by the weights (b, S, P) of both directions: (b, S, S, 3)."""
    count, size, side = down.shape
    x = torch.from_numpy(np.ascontiguousarray(pixels)).float().flatten(2)  # (b, P, P * 3)
    rows = torch.bmm(torch.from_numpy(down), x).view(count, size, side, 3)  # (b, S down, P, 3)
    columns = rows.permute(0, 2, 1, 3).flatten(2)  # (b, P, S * 3)
    made = torch.bmm(torch.from_numpy(across), columns).view(count, size, size, 3)  # (b, S across, S down, 3)
    found: Pixels = made.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 1, 3).numpy()
    return found


def _filter(
    first: npt.NDArray[np.float64], last: npt.NDArray[np.float64], side: int, size: int
) -> npt.NDArray[np.float32]:
    """Compute the weights (B, S, P) of the pixels of a line in each of S pixels between `first` and `last` (B,)."""
    step = (last - first)[:, None] / size  # (B, 1)
    centres = first[:, None] + (np.arange(size) + 0.5) * step  # (B, S)
    wide = np.maximum(step, 1)[..., None]  # an enlarged part is interpolated, a reduced one averaged
    taps = min(side, int(4 * wide.max()) + 2)  # pixels whose weight may differ from zero
    start = np.clip(np.rint(centres - taps / 2), 0, side - taps).astype(np.int64)
    places = start[..., None] + np.arange(taps)  # (B, S, taps)
    x = np.abs((places + 0.5 - centres[..., None]) / wide)
    a = _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    made = np.zeros((*centres.shape, side), np.float32)
    np.put_along_axis(made, places, (weights / weights.sum(-1, keepdims=True)).astype(np.float32), axis=-1)
    return made
