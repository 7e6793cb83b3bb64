"""What an evaluation data set is, whatever format it came in: images or videos, and what is known of them.

Readers in `impart.evaluate.datasets` make these from files; tasks (`zeroshot`, `probe`, `regions`, `retrieval`,
`moments`) take them. Nothing is decoded until an image is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import DataError
from impart.files import digest_of, file_stamp
from impart.refset.pairs import load_image

__all__ = ["BoxSet", "CaptionSet", "ClassSet", "MomentSet", "Images", "VideoSet"]

MAX_MEGAPIXELS = 200.0  # a larger image is refused by name rather than filling the memory


@dataclass(frozen=True, kw_only=True)
class Images:
    """n images that are read when they are needed.

    Attributes:
        keys: n names for messages and reports, unique: a path, or `archive.tar:member`, or `test_batch[17]`.
        read: number -> (RGB image, sha256 of its content as in `impart.refset.pairs.load_image`). Raises
            DataError, without the key in its message, where the image cannot be read.
        identity: hex digest that changes when any image does: the key of the embedding cache.
    """

    keys: tuple[str, ...]
    read: Callable[[int], tuple[Image.Image, str]]
    identity: Callable[[], str]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of_files(cls, files: Sequence[Path]) -> Images:
        """Image files; their identity is path, size and time of change."""
        paths = tuple(Path(file) for file in files)
        return cls(
            keys=tuple(str(path) for path in paths),
            read=lambda number: load_image(paths[number], max_megapixels=MAX_MEGAPIXELS),
            identity=lambda: digest_of(file_stamp(path) for path in paths),
        )

    def subset(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> Images:
        """Some of the images, in the order given."""
        chosen = tuple(int(number) for number in numbers)
        return Images(
            keys=tuple(self.keys[number] for number in chosen),
            read=lambda number: self.read(chosen[number]),
            identity=lambda: digest_of([self.identity(), repr(chosen)]),
        )


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """Images with one class each.

    Attributes:
        name: what reports call the set, such as `cifar10/test`.
        images: n images.
        labels: (n,) class numbers.
        classes: C class names, as words.
        templates: prompts written for this set, with `{}` for the class name; None = the general ones.
        notes: what was left out while reading, with counts, for the report.
    """

    name: str
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.images),), (self.labels.shape, len(self.images))
        if not len(self.images):
            raise DataError(f"data set {self.name!r} has no images")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> ClassSet:
        """Some of the images; the classes stay."""
        rows = np.asarray(numbers, dtype=np.int64)
        return ClassSet(
            name=self.name,
            images=self.images.subset(rows),
            labels=self.labels[rows],
            classes=self.classes,
            templates=self.templates,
            notes=self.notes,
        )


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """Images with one or more captions each.

    Attributes:
        name: what reports call the set.
        images: n images.
        captions: m texts.
        owners: (m,) the image that each caption describes.
        notes: what was left out while reading.
    """

    name: str
    images: Images
    captions: tuple[str, ...]
    owners: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.owners.shape == (len(self.captions),), (self.owners.shape, len(self.captions))


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Videos with one or more captions each, and optionally a query image each.

    Attributes:
        name: what reports call the set.
        videos: n files.
        captions: m texts.
        owners: (m,) the video that each caption describes.
        spans: n (start_s, end_s) where only a part of the file is meant, or None.
        notes: what was left out while reading (missing files, with their number).
    """

    name: str
    videos: tuple[Path, ...]
    captions: tuple[str, ...]
    owners: npt.NDArray[np.int64]
    spans: tuple[tuple[float, float] | None, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MomentSet:
    """Sentences, each with the moments of one video that it describes.

    Attributes:
        name: what reports call the set.
        videos: n files.
        queries: m sentences.
        query_ids: m ids as the annotation file has them.
        owners: (m,) the video of each query.
        spans: m tuples of (start_s, end_s); one or more relevant moments each.
        durations_s: n lengths as the annotation says, NaN where it does not.
        saliency: m arrays (clips, people) of how much of a highlight each 2 s clip is, 0..4 (QVHighlights), or None.
        notes: what was left out while reading.
    """

    name: str
    videos: tuple[Path, ...]
    queries: tuple[str, ...]
    query_ids: tuple[str, ...]
    owners: npt.NDArray[np.int64]
    spans: tuple[tuple[tuple[float, float], ...], ...]
    durations_s: npt.NDArray[np.float64]
    saliency: tuple[npt.NDArray[np.float64] | None, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BoxSet:
    """Images with labelled boxes.

    Attributes:
        name: what reports call the set.
        images: n images.
        owners: (b,) the image of each box.
        boxes: (b, 4) float64 x0, y0, x1, y1 as fractions of width and height, inside [0, 1].
        labels: (b,) category numbers.
        categories: C names.
        frequency: C letters `r`, `c`, `f` (LVIS: rare, common, frequent), or None.
        notes: what was left out or clipped while reading, with counts.
    """

    name: str
    images: Images
    owners: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    categories: tuple[str, ...]
    frequency: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.labels), 4), (self.boxes.shape, len(self.labels))
