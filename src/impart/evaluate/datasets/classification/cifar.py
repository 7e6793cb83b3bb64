"""Read CIFAR-10 and CIFAR-100: the Python batches as published, in a folder or in the archive, or class folders."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.datasets.annotations import read_bytes
from impart.evaluate.datasets.classification.folder import open_known_folder
from impart.evaluate.datasets.names import class_names, class_names_by_folder, templates
from impart.evaluate.datasets.plain_pickle import load_plain_pickle
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.images import load_image
from impart.readers.names import label_text

__all__ = ["CIFAR10", "CIFAR100", "READERS", "open_cifar"]

_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_SIDE_PX = 32


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Files and field names of CIFAR-10 or CIFAR-100.

    Attributes:
        info: the files needed and where they are published.
        folder: folder of the batches.
        archive: archive of that folder.
        batches: split -> files of its batches.
        meta: file with the class names.
        labels: field of a batch with the labels.
        names: field of `meta` with the class names.
    """

    info: DataSetInfo
    folder: str
    archive: str
    batches: dict[str, tuple[str, ...]]
    meta: str
    labels: str
    names: str


CIFAR10 = _Layout(
    info=DataSetInfo(
        name="cifar10",
        title="CIFAR-10",
        splits=("test", "train"),
        files=("cifar-10-python.tar.gz, or its folder cifar-10-batches-py", "or class folders below test and train"),
        home=_HOME,
    ),
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    batches={"test": ("test_batch",), "train": tuple(f"data_batch_{number}" for number in range(1, 6))},
    meta="batches.meta",
    labels="labels",
    names="label_names",
)
CIFAR100 = _Layout(
    info=DataSetInfo(
        name="cifar100",
        title="CIFAR-100",
        splits=("test", "train"),
        files=("cifar-100-python.tar.gz, or its folder cifar-100-python", "or class folders below test and train"),
        home=_HOME,
    ),
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    batches={"test": ("test",), "train": ("train",)},
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
)


def open_cifar(layout: _Layout, path: Path, split: str | None = None) -> ClassSet:
    """Open one split of CIFAR-10 or CIFAR-100.

    Args:
        layout: `CIFAR10` or `CIFAR100`.
        path: the archive, the folder of its batches, the folder above one of these, or a folder of class folders.
        split: `test` (the default) or `train`.

    Raises:
        DataError: none of these exists, the archive or a batch is damaged, or a pickle could run code.
    """
    info = layout.info
    wanted = info.split(split)
    files = layout.batches[wanted]
    if path.is_file():
        return _from_batches(layout, wanted, _unpack(path, layout, [*files, layout.meta]), [path])
    for folder in (path, path / layout.folder):
        if all((folder / file).is_file() for file in files):
            parts = [*(folder / file for file in files), *(one for one in [folder / layout.meta] if one.is_file())]
            return _from_batches(layout, wanted, {part.name: read_bytes(part) for part in parts}, parts)
    if (path / layout.archive).is_file():
        return open_cifar(layout, path / layout.archive, split)
    return open_known_folder(info, path, split, lacking=f"{info.title} {wanted} split")


def _from_batches(layout: _Layout, split: str, parts: dict[str, bytes], sources: Sequence[Path]) -> ClassSet:
    name = layout.info.name
    classes, notes = _classes(layout, parts.get(layout.meta), sources[-1])
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[npt.NDArray[np.int64]] = []
    keys: list[str] = []
    for file in layout.batches[split]:
        where = f"{sources[0].parent / file}" if sources[0].name in parts else f"{sources[0]}: {file}"
        data, numbers = _batch(parts[file], layout.labels, where=where, classes=len(classes))
        pixels.append(data)
        labels.append(numbers)
        keys += [f"{layout.folder}/{file}[{number}]" for number in range(len(numbers))]
    images = np.concatenate(pixels)  # (n, 32, 32, 3)
    return ClassSet(
        name=f"{name}/{split}",
        images=Images(
            keys=tuple(keys),
            read=lambda number: load_image(images[number], max_megapixels=1.0),
            identity=lambda: digest_of([*(file_stamp(source) for source in sources), *keys]),
        ),
        labels=np.concatenate(labels),
        classes=classes,
        templates=templates(name),
        notes=notes,
    )


def _batch(data: bytes, field: str, *, where: str, classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Load the images (n, 32, 32, 3) and labels (n,) of one batch."""
    content = _fields(load_plain_pickle(data, where=where))
    try:
        pixels = np.asarray(content["data"])
        labels = np.asarray(content[field], dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} is not a batch of images ({error!r}): download it again") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * _SIDE_PX**2) or labels.ndim != 1:
        raise DataError(f"{where}: data of shape {pixels.shape}, {pixels.dtype} for {len(labels)} labels: damaged")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{where}: labels from {labels.min()} to {labels.max()} for {classes} classes: damaged")
    return pixels.reshape(-1, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1), labels  # rows are R, G, B planes


def _fields(content: Any) -> Any:
    """Name the fields of a pickle in text: as published they are bytes, saved again by Python 3 they are text."""
    if not isinstance(content, dict):
        return content
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}


def _classes(layout: _Layout, meta: bytes | None, source: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names in the order of the meta file, or in the official order without one, with notes."""
    name = layout.info.name
    if meta is None:
        return class_names(name), (f"no {layout.meta}: the official order of classes is assumed",)
    listed = _fields(load_plain_pickle(meta, where=f"{source}: {layout.meta}"))
    try:
        keys = [key.decode() if isinstance(key, bytes) else str(key) for key in listed[layout.names]]
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: {layout.meta} names no classes: download it again") from error
    known = class_names_by_folder(name)
    return tuple(known.get(key) or label_text(key) for key in keys), ()


def _unpack(archive: Path, layout: _Layout, wanted: Sequence[str]) -> dict[str, bytes]:
    """Read members of an archive into memory, by their names without folder."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if member.isfile() and name in wanted and Path(folder).name == layout.folder:
                    opened = tar.extractfile(member)
                    found[name] = opened.read() if opened is not None else b""
                if len(found) == len(wanted):
                    break
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive} is damaged or no tar archive ({error}): download it again") from error
    lacking = [name for name in wanted if name not in found]
    if lacking and lacking != [layout.meta]:
        raise layout.info.missing(f"{archive} has no {layout.folder}/{lacking[0]}")
    return found


READERS: tuple[Reader, ...] = (
    CIFAR10.info.reader("classes", lambda path, split: open_cifar(CIFAR10, path, split)),
    CIFAR100.info.reader("classes", lambda path, split: open_cifar(CIFAR100, path, split)),
)
