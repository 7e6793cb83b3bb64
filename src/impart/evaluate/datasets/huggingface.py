"""Read Hugging Face datasets: a folder written by `save_to_disk`, a folder of parquet files, or a name on the hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from impart.errors import DataError, MissingExtraError
from impart.evaluate.datasets.image_files import captions_in_words, code_notes
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import MAX_MEGAPIXELS, CaptionSet, ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.images import load_image
from impart.readers.arrow_tables import ArrowTable, is_saved, saved_splits
from impart.readers.captions import CAPTION_KEYS, captions_of
from impart.readers.columns import LABEL_KEYS
from impart.readers.features import Features
from impart.readers.names import equal_names

__all__ = ["READERS", "open_hf_captions", "open_hf_classes"]

CLASSES = DataSetInfo(
    name="hf-dataset",
    title="A Hugging Face dataset of classes",
    splits=(),
    files=("a folder written by save_to_disk, a parquet file, a folder of them, or a name such as cifar10",),
    home="https://huggingface.co/datasets",
)
CAPTIONS = DataSetInfo(
    name="hf-dataset-captions",
    title="A Hugging Face dataset of captions",
    splits=(),
    files=CLASSES.files,
    home=CLASSES.home,
)


def open_hf_classes(path: Path, split: str | None = None) -> ClassSet:
    """Open a dataset with a column of images and a column of type ClassLabel.

    Args:
        path: the folder, or the name on the hub (the dataset is then downloaded).
        split: None = `test`, else `validation`, else the only split.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: the dataset cannot be loaded, or has no such split, images or classes.
    """
    rows, name = _load(path, split)
    image = _image_column(rows, path)
    labelled = rows.features.classes
    column = next((one for one in (*LABEL_KEYS, *labelled) if one in labelled), None)
    if column is None:
        raise DataError(f"{path} has no column of class labels; it has {', '.join(rows.features.columns)}")
    given = rows.table[column].to_pylist()
    if any(isinstance(label, list) for label in given):
        raise DataError(f"{path}: column {column!r} has several classes per image, and a class set needs one")
    labels = np.asarray([-1 if label is None else label for label in given], dtype=np.int64)
    classes = labelled[column]
    known = np.flatnonzero((labels >= 0) & (labels < len(classes)))  # -1 = the label is not published
    if not len(known):
        raise DataError(f"{path}: none of the {len(labels)} labels of {name} is published: use another split")
    missing = len(labels) - len(known)
    whole = ClassSet(
        name=name,
        images=_images(rows, image, name),
        labels=labels,
        classes=classes,
        notes=(*equal_names(classes), *((f"{missing} images without a label are left out",) if missing else ())),
    )
    return whole.subset(known) if missing else whole


def open_hf_captions(path: Path, split: str | None = None) -> CaptionSet:
    """Open a dataset with a column of images and a column of captions: a text or a list of texts per image.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: the dataset cannot be loaded, or has no such split, images or captions.
    """
    rows, name = _load(path, split)
    image = _image_column(rows, path)
    column = next((one for one in CAPTION_KEYS if one in rows.features.columns), None)
    if column is None:
        raise DataError(f"{path} has no column of captions; it has {', '.join(rows.features.columns)}")
    captions: list[str] = []
    owners: list[int] = []
    codes: list[str] = []
    for number, value in enumerate(rows.table[column].to_pylist()):
        texts = captions_in_words(captions_of(value), codes)
        captions += texts
        owners += [number] * len(texts)
    coded = code_notes(codes, kept=len(captions), source=path)
    if not captions:
        raise DataError(f"{path}: column {column!r} has no text")
    bare = len(rows.table) - len(set(owners))
    return CaptionSet(
        name=name,
        images=_images(rows, image, name),
        captions=tuple(captions),
        owners=np.asarray(owners, dtype=np.int64),
        notes=(*coded, *((f"{bare} images have no caption, and are searched all the same",) if bare else ())),
    )


def _load(path: Path, split: str | None) -> tuple[ArrowTable, str]:
    """Load one split as a table, with its name in reports."""
    title = path.resolve().name if path.exists() else path.as_posix()
    if path.suffix.lower() == ".parquet" and path.is_file():
        splits: dict[str, Callable[[], ArrowTable]] = {"": partial(ArrowTable.open_parquet, path)}
    else:
        splits = _saved(path) if is_saved(path) else _loaded(path)
    if "" in splits or len(splits) == 1:
        own, opened = next(iter(splits.items()))
        rows = opened()
        own = own or rows.split
        if split is not None and split != own:
            raise DataError(f"{path} contains one split ({own or 'without a name'}), not {split!r}")
        return rows, f"{title}/{own}" if own else title
    if split is None:
        split = next((name for name in ("test", "validation", "val") if name in splits), None)
    if split not in splits:
        asked = "needs a split" if split is None else f"has no split {split!r}"
        raise DataError(f"{path} {asked}: choose one of {', '.join(splits)}")
    return splits[split](), f"{title}/{split}"


def _saved(path: Path) -> dict[str, Callable[[], ArrowTable]]:
    """Return a function that opens the table, by split; one without splits has the name ""."""
    splits = saved_splits(path)
    return {split: partial(ArrowTable.open_saved, path / split) for split in splits or ("",)}


def _loaded(path: Path) -> dict[str, Callable[[], ArrowTable]]:
    """Load a data set by `datasets`: a folder of files in a form that it reads, or a name on the hub."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", extra="datasets", purpose="reading a Hugging Face dataset") from error
    try:
        loaded = datasets.load_dataset(path.as_posix())
    except (OSError, ValueError, LookupError, RuntimeError, TypeError) as error:
        raise DataError(
            f"cannot load the dataset {path} ({error}): check the folder, or the name and the network"
        ) from error
    return {split: partial(_table_of, table) for split, table in loaded.items()}


def _table_of(loaded: Any) -> ArrowTable:
    """Return the table of a `datasets.Dataset`; its rows stay on disk."""
    table = loaded.with_format("arrow")[:]
    files = tuple(Path(one["filename"]) for one in loaded.cache_files)
    return ArrowTable(Path(), table, Features.of(table.schema, loaded.features.to_dict()), files)


def _image_column(rows: ArrowTable, path: Path) -> str:
    if not rows.features.images:
        raise DataError(f"{path} has no column of images; it has {', '.join(rows.features.columns)}")
    return rows.features.images[0]


def _images(rows: ArrowTable, column: str, name: str) -> Images:
    def identity() -> str:
        content = [str(len(rows.table)), str(rows.table.schema)] if not rows.files else []
        return digest_of([name, *(file_stamp(file) for file in rows.files), *content])

    def read(number: int) -> Any:
        place = rows.image(number, column)
        if place is None:
            raise DataError("the cell is empty")
        return load_image(place, max_megapixels=MAX_MEGAPIXELS)

    return Images(keys=tuple(f"{name}[{number}]" for number in range(len(rows.table))), read=read, identity=identity)


READERS: tuple[Reader, ...] = (
    CLASSES.reader("classes", open_hf_classes),
    CAPTIONS.reader("captions", open_hf_captions),
)
