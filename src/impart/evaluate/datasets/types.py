"""Types of evaluation data sets: images or videos with classes, captions, boxes or moments.

Readers in `impart.evaluate.datasets` make these from files; tasks (`zeroshot`, `probe`, `regions`, `retrieval`,
`moments`) take them. An image is decoded when it is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import DataError
from impart.files import digest_of, file_stamp
from impart.images import load_image

__all__ = ["BoxSet", "CaptionSet", "ClassSet", "Images", "MomentSet", "VideoSet"]

MAX_MEGAPIXELS = 200.0  # limits the memory per image; a larger image is an error


@dataclass(frozen=True, kw_only=True)
class Images:
    """n images, each read on demand.

    Attributes:
        keys: n unique names for messages and reports: a path, `archive.tar:member` or `test_batch[17]`.
        read: number -> (RGB image, sha256 of its content as in `impart.images.load_image`). Raises
            DataError, without the key in its message, if the image cannot be read.
        identity: returns a hex digest that changes when any image changes: the key of the embedding cache.
    """

    keys: tuple[str, ...]
    read: Callable[[int], tuple[Image.Image, str]]
    identity: Callable[[], str]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of_files(cls, files: Sequence[Path | str]) -> Images:
        """Make images from files; their identity is path, size and modification time."""
        paths = tuple(Path(file) for file in files)
        return cls(
            keys=tuple(str(path) for path in paths),
            read=lambda number: load_image(paths[number], max_megapixels=MAX_MEGAPIXELS),
            identity=lambda: digest_of(file_stamp(path) for path in paths),
        )

    def subset(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> Images:
        """Select images by their numbers, in the given order."""
        chosen = tuple(int(number) for number in numbers)
        return Images(
            keys=tuple(self.keys[number] for number in chosen),
            read=lambda number: self.read(chosen[number]),
            identity=lambda: digest_of([self.identity(), repr(chosen)]),
        )


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """Images with one class per image.

    Attributes:
        name: name in reports, such as `cifar10/test`.
        images: n images.
        labels: (n,) class numbers.
        classes: C class names, as words.
        templates: prompts of this data set, with `{}` for the class name; None = the general ones.
        notes: counts of what was left out while reading, for the report.

    Example:
        >>> import numpy as np
        >>> from impart.evaluate import ClassSet
        >>> from impart.evaluate.datasets.types import Images
        >>> images = Images.of_files(["cat.jpg", "dog.jpg"])
        >>> dataset = ClassSet(name="pets", images=images, labels=np.array([0, 1]), classes=("cat", "dog"))
        >>> dataset.subset([1]).images.keys
        ('dog.jpg',)
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
        """Select images by their numbers; all classes are kept."""
        rows = np.asarray(numbers, dtype=np.int64)
        return replace(self, images=self.images.subset(rows), labels=self.labels[rows])


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """Images with one or more captions per image.

    Attributes:
        name: name in reports.
        images: n images.
        captions: m texts.
        owners: (m,) number of the image that each caption describes.
        notes: counts of what was left out while reading.

    Example:
        >>> import numpy as np
        >>> from impart.evaluate import CaptionSet
        >>> from impart.evaluate.datasets.types import Images
        >>> images, captions = Images.of_files(["a.jpg", "b.jpg"]), ("a dog", "a puppy", "a cat")
        >>> dataset = CaptionSet(name="mine", images=images, captions=captions, owners=np.array([0, 0, 1]))
        >>> dataset.subset([0]).captions
        ('a dog', 'a puppy')
    """

    name: str
    images: Images
    captions: tuple[str, ...]
    owners: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.owners.shape == (len(self.captions),), (self.owners.shape, len(self.captions))

    def subset(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> CaptionSet:
        """Select images by their numbers, without repetition, with their captions."""
        rows = np.asarray(numbers, dtype=np.int64)
        kept, owners = _owned(self.owners, rows, len(self.images))
        captions = tuple(self.captions[number] for number in kept.tolist())
        return replace(self, images=self.images.subset(rows), captions=captions, owners=owners)


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Videos with one or more captions per video.

    Attributes:
        name: name in reports.
        videos: n files.
        captions: m texts.
        owners: (m,) number of the video that each caption describes.
        spans: n (start_s, end_s), or None for a whole file; None if all are whole files.
        notes: counts of what was left out while reading, such as missing files.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from impart.evaluate import VideoSet
        >>> videos, captions = (Path("a.mp4"), Path("a.mp4")), ("a dog runs", "it barks")
        >>> spans = ((0.0, 4.0), (4.0, 9.5))  # two parts of one file
        >>> dataset = VideoSet(name="mine", videos=videos, captions=captions, owners=np.array([0, 1]), spans=spans)
        >>> dataset.spans[dataset.owners[1]]
        (4.0, 9.5)
    """

    name: str
    videos: tuple[Path, ...]
    captions: tuple[str, ...]
    owners: npt.NDArray[np.int64]
    spans: tuple[tuple[float, float] | None, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MomentSet:
    """Queries, each with the moments of one video that it describes.

    Attributes:
        name: name in reports.
        videos: n files.
        queries: m sentences.
        query_ids: m ids as in the annotation file.
        owners: (m,) number of the video of each query.
        spans: m tuples of (start_s, end_s), with one or more relevant moments per query.
        durations_s: n durations as in the annotation file, NaN where it has none.
        saliency: m arrays (clips, raters) of the rating 0..4 of each 2 s clip as a highlight (QVHighlights), or None.
        notes: counts of what was left out while reading.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from impart.evaluate import MomentSet
        >>> dataset = MomentSet(
        ...     name="mine",
        ...     videos=(Path("a.mp4"),),
        ...     queries=("a dog runs",),
        ...     query_ids=("1",),
        ...     owners=np.array([0]),
        ...     spans=(((2.0, 4.0), (10.0, 12.5)),),
        ...     durations_s=np.array([20.0]),
        ... )
        >>> sum(end_s - start_s for start_s, end_s in dataset.spans[0])
        4.5
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
        name: name in reports.
        images: n images.
        owners: (b,) number of the image of each box.
        boxes: (b, 4) float64 x0, y0, x1, y1 as fractions of width and height, inside [0, 1].
        labels: (b,) category numbers.
        categories: C names.
        frequency: C letters `r`, `c`, `f` (LVIS: rare, common, frequent), or None.
        notes: counts of what was left out or clipped while reading.

    Example:
        >>> import numpy as np
        >>> from impart.evaluate import BoxSet
        >>> from impart.evaluate.datasets.types import Images
        >>> dataset = BoxSet(
        ...     name="mine",
        ...     images=Images.of_files(["a.jpg", "b.jpg"]),
        ...     owners=np.array([0, 0, 1]),
        ...     boxes=np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]),
        ...     labels=np.array([0, 1, 1]),
        ...     categories=("cat", "dog"),
        ... )
        >>> dataset.subset([1]).boxes.tolist()
        [[0.0, 0.0, 1.0, 1.0]]
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

    def subset(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> BoxSet:
        """Select images by their numbers, without repetition, with their boxes; all categories are kept."""
        rows = np.asarray(numbers, dtype=np.int64)
        kept, owners = _owned(self.owners, rows, len(self.images))
        return replace(
            self, images=self.images.subset(rows), owners=owners, boxes=self.boxes[kept], labels=self.labels[kept]
        )


def _owned(
    owners: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Select the captions or boxes of the images kept.

    Args:
        owners: (m,) number of the image of each caption or box.
        rows: (k,) numbers of the images kept, without repetition.
        count: number of all images.

    Returns:
        (p,) numbers of the captions or boxes kept, and (p,) numbers of their images among those kept.

    >>> _owned(np.array([0, 2, 1, 2]), np.array([2, 1]), 3)
    (array([1, 2, 3]), array([0, 1, 0]))
    """
    places = np.full(count, -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    kept = np.flatnonzero(places[owners] >= 0)
    return kept, places[owners[kept]]
