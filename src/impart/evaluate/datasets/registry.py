"""Open data sets by name, as in `cifar10:/data`, or by path alone; the format of a path is guessed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args, overload

import numpy as np

from impart.errors import ConfigError, DataError
from impart.evaluate.datasets import captions, detection, huggingface, webdataset
from impart.evaluate.datasets.classification import caltech, cifar, folder, imagenet_v2, matlab, split_lists, stl10
from impart.evaluate.datasets.reader import DataSet, Kind, Reader, requirements
from impart.evaluate.datasets.types import BoxSet, CaptionSet, ClassSet, MomentSet, VideoSet
from impart.evaluate.datasets.videos import captions as video_captions
from impart.evaluate.datasets.videos import moments
from impart.readers.arrow_tables import is_saved
from impart.readers.webdataset import shard_files
from impart.validation import closest

__all__ = ["READERS", "Reader", "open_set", "register_reader"]

READERS: dict[str, Reader] = {}
"""Name of every format and published set -> its reader."""

_SEED = 0  # of the images that `limit` draws


def register_reader(reader: Reader) -> Reader:
    """Make a reader available to `open_set` and `impart eval --data NAME:PATH`.

    Raises:
        ConfigError: the name is taken, or could be confused with a path.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]+", reader.name):
        raise ConfigError(f"reader name {reader.name!r}: use two or more lower-case letters, digits and hyphens")
    if reader.name in READERS:
        raise ConfigError(f"a reader named {reader.name!r} exists already: give this reader another name")
    READERS[reader.name] = reader
    return reader


_CLASSES = (folder, cifar, caltech, split_lists, imagenet_v2, matlab, stl10)
_IMAGES = (*_CLASSES, webdataset, huggingface, captions, detection)
for _module in (*_IMAGES, video_captions, moments):
    for _reader in _module.READERS:
        register_reader(_reader)


@overload
def open_set(
    spec: str | Path,
    *,
    kind: Literal["classes"],
    split: str | None = ...,
    per_class: int | None = ...,
    limit: int | None = ...,
) -> ClassSet: ...
@overload
def open_set(
    spec: str | Path, *, kind: Literal["captions"], split: str | None = ..., limit: int | None = ...
) -> CaptionSet: ...
@overload
def open_set(spec: str | Path, *, kind: Literal["videos"], split: str | None = ...) -> VideoSet: ...
@overload
def open_set(spec: str | Path, *, kind: Literal["moments"], split: str | None = ...) -> MomentSet: ...
@overload
def open_set(
    spec: str | Path, *, kind: Literal["boxes"], split: str | None = ..., limit: int | None = ...
) -> BoxSet: ...
@overload
def open_set(
    spec: str | Path,
    *,
    split: str | None = ...,
    kind: Kind | None = ...,
    per_class: int | None = ...,
    limit: int | None = ...,
) -> DataSet: ...
def open_set(
    spec: str | Path,
    *,
    split: str | None = None,
    kind: Kind | None = None,
    per_class: int | None = None,
    limit: int | None = None,
) -> DataSet:
    """Open a data set; images are decoded when they are read.

    Args:
        spec: `NAME:PATH`, such as `cifar10:/data`, or a path: a class folder, a csv of captions, a WebDataset folder.
        split: a split of the set, such as `test` or `val`; None = its default, the split that papers report.
        kind: the kind of set to open, if the path could be of several kinds; a set of another kind is an error.
        per_class: keep only this many images per class, the first ones.
        limit: keep only this many images, with their captions or boxes. The random draw is always the same.

    Raises:
        DataError: the name is unknown, files are missing (the message has the files needed and where they are
            published) or damaged, or the set is of another kind.
        ConfigError: `kind` is unknown, `per_class` for a set without classes, or `limit` for a set of videos.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from impart.evaluate import open_set
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name in ("cat", "dog"):
        ...     path = Path(folder.name, name, "1.png")
        ...     path.parent.mkdir()
        ...     Image.new("RGB", (8, 8)).save(path)
        >>> dataset = open_set(folder.name)
        >>> dataset.classes, dataset.labels.tolist()
        (('cat', 'dog'), [0, 1])
        >>> folder.cleanup()
    """
    if kind is not None and kind not in get_args(Kind):
        kinds = get_args(Kind)
        raise ConfigError(f"there is no kind {kind!r} of data sets{closest(str(kind), kinds)}: use {', '.join(kinds)}")
    name, path = _parse(str(spec), kind)
    reader = READERS[name]
    if kind is not None and reader.kind != kind:
        reader = READERS.get(f"{name}-{kind}", reader)
    if kind is not None and reader.kind != kind:
        others = ", ".join(one.name for one in READERS.values() if one.kind == kind)
        raise DataError(f"{spec} is a set of {reader.kind}, not of {kind}: choose one of {others}")
    dataset = reader.open(path, split)
    if per_class is not None:
        dataset = _first_of_each(dataset, per_class)
    if limit is not None:
        dataset = _drawn(dataset, limit)
    return dataset


def _parse(spec: str, kind: Kind | None) -> tuple[str, Path]:
    name, colon, rest = spec.partition(":")
    if colon and name in READERS:
        if not rest:
            raise DataError(f"{spec} has no path: write {name}:PATH. {_requirements(READERS[name])}")
        return name, Path(rest).expanduser()
    path = Path(spec).expanduser()
    if path.exists():
        return _guess(path, kind), path
    if colon and re.fullmatch(r"[\w-]{2,}", name):
        names = sorted(READERS)
        raise DataError(f"no data set has the name {name!r}{closest(name, names)}: choose one of {', '.join(names)}")
    if spec in READERS:
        raise DataError(f"{spec} has no path: write {spec}:PATH. {_requirements(READERS[spec])}")
    raise DataError(f"{spec} does not exist: give a folder, a csv of captions, or NAME:PATH")


def _requirements(reader: Reader) -> str:
    return f"It {requirements(reader.files, reader.home)}"


def _guess(path: Path, kind: Kind | None) -> str:
    """Guess the reader of a file or folder given without a name."""
    if kind == "moments":
        raise DataError(f"{path} has no name of a set: write it, as in qvhighlights:{path}")
    if kind == "videos":
        return "video-captions"
    if path.is_dir():
        if is_saved(path):
            return "hf-dataset"
        if any(shard_files(one) for one in (path, *(one for one in path.iterdir() if one.is_dir()))):
            return "webdataset"
        if next(path.glob("*.parquet"), None) is not None:
            return "hf-dataset"
        if path.name.startswith("imagenetv2-"):
            return "imagenet-v2"
        if kind == "captions" or (kind is None and _has_table(path)):
            return "captions"
        return "folder" if kind != "boxes" else "boxes"
    if path.suffix.lower() == ".csv":
        return "boxes" if kind == "boxes" else "captions"
    if path.suffix.lower() == ".parquet":
        return "hf-dataset"
    starts = {
        "cifar-10-": "cifar10",
        "cifar-100-": "cifar100",
        "dataset_flickr8k": "flickr8k",
        "dataset_flickr30k": "flickr30k",
        "dataset_coco": "coco-captions",
        "captions_": "coco-captions",
        "instances_": "coco",
        "lvis_": "lvis",
    }
    for start, name in starts.items():
        if path.name.startswith(start):
            return name
    raise DataError(f"{path} has an unknown format: write NAME:{path}, with one of {', '.join(READERS)}")


def _has_table(path: Path) -> bool:
    return (path / "captions.csv").is_file() and not (path / "classes.csv").is_file()


def _first_of_each(dataset: DataSet, count: int) -> ClassSet:
    if not isinstance(dataset, ClassSet):
        raise ConfigError(f"data set {dataset.name!r} has no classes: leave out the limit of {count} images per class")
    seen: dict[int, int] = {}
    rows = []
    for row, label in enumerate(dataset.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= count:
            rows.append(row)
    return dataset.subset(rows)


def _drawn(dataset: DataSet, limit: int) -> DataSet:
    if not isinstance(dataset, ClassSet | CaptionSet | BoxSet):
        raise ConfigError(f"data set {dataset.name!r} is a set of videos: leave out the limit")
    if limit >= len(dataset.images):
        return dataset
    return dataset.subset(np.sort(np.random.default_rng(_SEED).permutation(len(dataset.images))[:limit]))
