"""Data sets by name: `cifar10:/data`, `coco-captions:/data/coco`, or just a path, whose format is then guessed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from impart.errors import ConfigError, DataError
from impart.evaluate.datasets import captions, detection, huggingface, webdataset
from impart.evaluate.datasets.classification import caltech, cifar, folder, listed, stl10
from impart.evaluate.datasets.classification import mat_files as mat_sets
from impart.evaluate.datasets.reader import DataSet, Kind, Reader
from impart.evaluate.datasets.types import BoxSet, CaptionSet, ClassSet, MomentSet, VideoSet
from impart.evaluate.datasets.videos import captions as video_text
from impart.evaluate.datasets.videos import moments

__all__ = ["READERS", "Reader", "open_set", "register_reader"]

READERS: dict[str, Reader] = {}
"""Every format and published set by its name."""

_SEED = 0  # of the images drawn by `limit`


def register_reader(reader: Reader) -> Reader:
    """Make a reader available to `open_set`, and so to `impart eval --data NAME:PATH`.

    Raises:
        ConfigError: the name is taken, or cannot be told from a path.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]+", reader.name):
        raise ConfigError(f"reader name {reader.name!r}: use two or more small letters, digits and hyphens")
    if reader.name in READERS:
        raise ConfigError(f"there is a reader named {reader.name!r} already: give this one another name")
    READERS[reader.name] = reader
    return reader


_IMAGES = (folder, cifar, caltech, listed, mat_sets, stl10, webdataset, huggingface, captions, detection)
for _module in (*_IMAGES, video_text, moments):
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
    """Open a data set; nothing is decoded yet.

    Args:
        spec: `NAME:PATH`, such as `cifar10:/data`, or a path: a class folder, a csv of captions, a WebDataset folder.
        split: as the set calls it, such as `test` or `val`; None = the one that papers report.
        kind: what is wanted, where a path could be several things; another kind is an error.
        per_class: keep only the first this many images of each class.
        limit: keep this many images, drawn at random and always the same, with what belongs to them.

    Raises:
        DataError: the name is unknown, files are missing (the message lists what the set wants and where it is
            published) or damaged, or the set is of another kind.
        ConfigError: `per_class` for a set without classes, or `limit` for one without images.
    """
    name, path = _parse(str(spec), kind)
    reader = READERS[name]
    if kind is not None and reader.kind != kind:
        reader = READERS.get(f"{name}-{kind}", reader)
    if kind is not None and reader.kind != kind:
        others = ", ".join(one.name for one in READERS.values() if one.kind == kind)
        raise DataError(f"{spec} is a set of {reader.kind}, and {kind} are wanted: choose one of {others}")
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
            raise DataError(f"{spec} names no path: write {name}:PATH. {_wants(READERS[name])}")
        return name, Path(rest).expanduser()
    path = Path(spec).expanduser()
    if path.exists():
        return _guess(path, kind), path
    if colon and re.fullmatch(r"[\w-]{2,}", name):
        raise DataError(f"no data set is called {name!r}: there are {', '.join(sorted(READERS))}")
    if spec in READERS:
        raise DataError(f"{spec} needs a path: write {spec}:PATH. {_wants(READERS[spec])}")
    raise DataError(f"{spec} does not exist: give a folder, a csv of captions, or NAME:PATH")


def _wants(reader: Reader) -> str:
    return f"It wants {', '.join(reader.files)}; published at {reader.home}"


def _guess(path: Path, kind: Kind | None) -> str:
    """The format of a file or folder that nobody named."""
    if kind == "moments":
        raise DataError(f"{path}: name the set, as in qvhighlights:{path}")
    if kind == "videos":
        return "video-captions"
    if path.is_dir():
        if (path / "classnames.txt").is_file() or next(path.glob("*.tar"), None) is not None:
            return "webdataset"
        if kind == "captions" or (kind is None and _has_table(path)):
            return "captions"
        return "folder" if kind != "boxes" else "boxes"
    if path.suffix.lower() == ".csv":
        return "boxes" if kind == "boxes" else "captions"
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
    raise DataError(f"{path}: the format is not known by its name, write NAME:{path} (names: {', '.join(READERS)})")


def _has_table(path: Path) -> bool:
    return (path / "captions.csv").is_file() and not (path / "classes.csv").is_file()


def _first_of_each(dataset: DataSet, count: int) -> ClassSet:
    if not isinstance(dataset, ClassSet):
        raise ConfigError(f"data set {dataset.name!r} has no classes to take {count} images of each from")
    seen: dict[int, int] = {}
    rows = []
    for row, label in enumerate(dataset.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= count:
            rows.append(row)
    return dataset.subset(rows)


def _drawn(dataset: DataSet, limit: int) -> DataSet:
    if not isinstance(dataset, ClassSet | CaptionSet | BoxSet):
        raise ConfigError(f"data set {dataset.name!r} is one of videos: it is measured whole, without a limit")
    if limit >= len(dataset.images):
        return dataset
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(dataset.images))[:limit])
    if isinstance(dataset, ClassSet):
        return dataset.subset(rows)
    kept, owners = _owned(dataset.owners, rows)
    if isinstance(dataset, CaptionSet):
        return CaptionSet(
            name=dataset.name,
            images=dataset.images.subset(rows),
            captions=tuple(dataset.captions[number] for number in kept.tolist()),
            owners=owners,
            notes=dataset.notes,
        )
    return BoxSet(
        name=dataset.name,
        images=dataset.images.subset(rows),
        owners=owners,
        boxes=dataset.boxes[kept],
        labels=dataset.labels[kept],
        categories=dataset.categories,
        frequency=dataset.frequency,
        notes=dataset.notes,
    )


def _owned(
    owners: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numbers of what belongs to the images kept (`rows`, ascending), and their owners counted anew.

    >>> _owned(np.array([0, 2, 1, 2]), np.array([1, 2]))
    (array([1, 2, 3]), array([1, 0, 1]))
    """
    kept = np.flatnonzero(np.isin(owners, rows))
    return kept, np.searchsorted(rows, owners[kept])
