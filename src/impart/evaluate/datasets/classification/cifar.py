"""CIFAR-10 and CIFAR-100: the python batches as published, in their folder or in the archive, or class folders.

Batches are pickles, which can run code when they are loaded; they are loaded here by an unpickler that knows arrays,
texts, lists and dictionaries and refuses everything else.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.class_prompts import tidy_class_name
from impart.evaluate.datasets.classification.folder import open_known_folder
from impart.evaluate.datasets.names import class_names, class_names_by_folder, templates
from impart.evaluate.datasets.reader import Published, Reader
from impart.evaluate.datasets.types import ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.refset.pairs import load_image

__all__ = ["CIFAR10", "CIFAR100", "READERS", "load_plain_pickle", "open_cifar"]

_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_SIDE_PX = 32
_BROKEN_PICKLE = (  # what damaged pickles raise
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How one of the two is packed: where its batches are and what their fields are called."""

    published: Published
    folder: str
    archive: str
    batches: dict[str, tuple[str, ...]]
    meta: str
    labels: bytes
    names: bytes


CIFAR10 = _Layout(
    published=Published(
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
    labels=b"labels",
    names=b"label_names",
)
CIFAR100 = _Layout(
    published=Published(
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
    labels=b"fine_labels",
    names=b"fine_label_names",
)


def open_cifar(layout: _Layout, path: Path, split: str | None = None) -> ClassSet:
    """One split of CIFAR-10 or CIFAR-100.

    Args:
        layout: which of the two.
        path: the archive, the folder of its batches, a folder that holds either, or one of class folders.
        split: `test` (the default) or `train`.

    Raises:
        DataError: there is nothing of the kind, the archive or a batch is damaged, or a pickle wants to run code.
    """
    published = layout.published
    wanted = published.split(split)
    files = layout.batches[wanted]
    if path.is_file():
        return _from_batches(layout, wanted, _unpack(path, layout, [*files, layout.meta]), [path])
    for folder in (path, path / layout.folder):
        if all((folder / file).is_file() for file in files):
            parts = [*(folder / file for file in files), *(one for one in [folder / layout.meta] if one.is_file())]
            return _from_batches(layout, wanted, {part.name: _bytes_of(part) for part in parts}, parts)
    if (path / layout.archive).is_file():
        return open_cifar(layout, path / layout.archive, split)
    found = open_known_folder(published, path, split)
    if found is None:
        raise published.missing(f"{path} holds no {published.title} {wanted} split")
    return found


def _from_batches(layout: _Layout, split: str, parts: dict[str, bytes], sources: Sequence[Path]) -> ClassSet:
    name = layout.published.name
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


def _batch(
    data: bytes, field: bytes, *, where: str, classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and labels (n,) of one batch."""
    content = load_plain_pickle(data, where=where)
    try:
        pixels = np.asarray(content[b"data"])
        labels = np.asarray(content[field], dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} is no batch of images ({error!r}): download it again") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * _SIDE_PX**2) or labels.ndim != 1:
        raise DataError(f"{where}: data of shape {pixels.shape}, {pixels.dtype} for {len(labels)} labels: damaged")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{where}: labels from {labels.min()} to {labels.max()} for {classes} classes: damaged")
    return pixels.reshape(-1, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1), labels  # rows are R, G, B planes


def _classes(layout: _Layout, meta: bytes | None, source: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names in the order of the meta file, which is the official one unless somebody made their own."""
    name = layout.published.name
    if meta is None:
        return class_names(name), (f"no {layout.meta}: the official order of classes is assumed",)
    listed = load_plain_pickle(meta, where=f"{source}: {layout.meta}")
    try:
        keys = [key.decode() if isinstance(key, bytes) else str(key) for key in listed[layout.names]]
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: {layout.meta} names no classes: download it again") from error
    known = class_names_by_folder(name)
    return tuple(known.get(key) or tidy_class_name(key) for key in keys), ()


def _unpack(archive: Path, layout: _Layout, wanted: Sequence[str]) -> dict[str, bytes]:
    """The members wanted of an archive, by their names without folder; nothing is written to disk."""
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
        raise layout.published.missing(f"{archive} holds no {layout.folder}/{lacking[0]}")
    return found


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes into pickles that Python 2 can read; no other codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _frombuffer(data: bytes, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    """What the newer pickles call to make an array."""
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


class _PlainUnpickler(pickle.Unpickler):
    """Arrays, texts, numbers, lists, dictionaries; anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        plain: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # under either name of numpy's module
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _frombuffer
        if (module, name) in plain:
            return plain[module, name]
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which a file of plain data has no use for")


def load_plain_pickle(data: bytes, *, where: str) -> Any:
    """A pickle of arrays and plain values; texts of Python 2 become bytes.

    Raises:
        DataError: it is damaged, or names anything else than plain data (it is not run).
    """
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except _BROKEN_PICKLE as error:
        raise DataError(f"{where} is not a pickle of plain data ({error}): download it again") from error


READERS: tuple[Reader, ...] = (
    CIFAR10.published.reader("classes", lambda path, split: open_cifar(CIFAR10, path, split)),
    CIFAR100.published.reader("classes", lambda path, split: open_cifar(CIFAR100, path, split)),
)
