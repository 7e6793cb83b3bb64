"""Read Hugging Face datasets: a folder written by `save_to_disk`, a folder of parquet files, or a name on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from impart.errors import DataError, MissingExtraError
from impart.evaluate.class_prompts import tidy_class_name
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import MAX_MEGAPIXELS, CaptionSet, ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.images import load_image

__all__ = ["READERS", "open_hf_captions", "open_hf_classes"]

CLASSES = DataSetInfo(
    name="hf-dataset",
    title="A Hugging Face dataset of classes",
    splits=(),
    files=("a folder written by save_to_disk, a folder of parquet files, or a name such as cifar10",),
    home="https://huggingface.co/datasets",
)
CAPTIONS = DataSetInfo(
    name="hf-dataset-captions",
    title="A Hugging Face dataset of captions",
    splits=(),
    files=CLASSES.files,
    home=CLASSES.home,
)
_LABEL_COLUMNS = ("label", "fine_label", "labels", "class")
_CAPTION_COLUMNS = ("captions", "caption", "sentences", "sentence", "text", "texts")


def open_hf_classes(path: Path, split: str | None = None) -> ClassSet:
    """Open a dataset with a column of images and a column of type ClassLabel.

    Args:
        path: the folder, or the name on the hub (the dataset is then downloaded).
        split: None = `test`, else `validation`, else the only split.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: the dataset cannot be loaded, or has no such split, images or classes.
    """
    datasets = _package()
    table, name = _load(datasets, path, split)
    image = _image_column(datasets, table, path)
    labelled = [column for column, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)]
    column = next((one for one in (*_LABEL_COLUMNS, *labelled) if one in labelled), None)
    if column is None:
        raise DataError(f"{path} has no column of class labels; it has {', '.join(table.column_names)}")
    labels = np.asarray(table[column], dtype=np.int64)
    classes = tuple(tidy_class_name(one.split(",")[0]) for one in table.features[column].names)
    known = np.flatnonzero((labels >= 0) & (labels < len(classes)))  # -1 = the label is not published
    if not len(known):
        raise DataError(f"{path}: none of the {len(labels)} labels of {name} is published: use another split")
    missing = len(labels) - len(known)
    whole = ClassSet(
        name=name,
        images=_images(datasets, table, image, name),
        labels=labels,
        classes=classes,
        notes=(f"{missing} images without a label are left out",) if missing else (),
    )
    return whole.subset(known) if missing else whole


def open_hf_captions(path: Path, split: str | None = None) -> CaptionSet:
    """Open a dataset with a column of images and a column of captions: a text or a list of texts per image.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: the dataset cannot be loaded, or has no such split, images or captions.
    """
    datasets = _package()
    table, name = _load(datasets, path, split)
    image = _image_column(datasets, table, path)
    column = next((one for one in _CAPTION_COLUMNS if one in table.column_names), None)
    if column is None:
        raise DataError(f"{path} has no column of captions; it has {', '.join(table.column_names)}")
    captions: list[str] = []
    owners: list[int] = []
    for number, value in enumerate(table[column]):
        texts = [" ".join(text.split()) for text in _texts(value)]
        texts = [text for text in texts if text]
        captions += texts
        owners += [number] * len(texts)
    if not captions:
        raise DataError(f"{path}: column {column!r} has no text")
    return CaptionSet(
        name=name,
        images=_images(datasets, table, image, name),
        captions=tuple(captions),
        owners=np.asarray(owners, dtype=np.int64),
    )


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", extra="datasets", purpose="reading a Hugging Face dataset") from error
    return datasets


def _load(datasets: Any, path: Path, split: str | None) -> tuple[Any, str]:
    """Load one split as a table, with its name in reports."""
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        loaded = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(path.as_posix())
    except (OSError, ValueError, LookupError, RuntimeError, TypeError) as error:
        raise DataError(
            f"cannot load the dataset {path} ({error}): check the folder, or the name and the network"
        ) from error
    title = path.resolve().name if path.is_dir() else path.as_posix()
    if not isinstance(loaded, dict):
        own = str(loaded.split) if loaded.split is not None else None
        if split is not None and split != own:
            raise DataError(f"{path} contains one split ({own or 'without a name'}), not {split!r}")
        return loaded, f"{title}/{own}" if own else title
    if split is None:
        usual = [name for name in ("test", "validation", "val") if name in loaded]
        split = (usual or list(loaded))[0] if usual or len(loaded) == 1 else None
    if split not in loaded:
        asked = "needs a split" if split is None else f"has no split {split!r}"
        raise DataError(f"{path} {asked}: choose one of {', '.join(loaded)}")
    return loaded[split], f"{title}/{split}"


def _image_column(datasets: Any, table: Any, path: Path) -> str:
    for column, kind in table.features.items():
        if isinstance(kind, datasets.Image):
            return str(column)
    raise DataError(f"{path} has no column of images; it has {', '.join(table.column_names)}")


def _texts(value: Any) -> Sequence[str]:
    """Return the captions of a cell: a text, an object with `raw`, or a list of these."""
    values = value if isinstance(value, list) else [value]
    return [one.get("raw", "") if isinstance(one, dict) else one for one in values if isinstance(one, str | dict)]


def _images(datasets: Any, table: Any, column: str, name: str) -> Images:
    stored = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    files = [Path(one["filename"]) for one in table.cache_files]

    def identity() -> str:
        return digest_of([name, *(file_stamp(file) for file in files), *([] if files else [table._fingerprint])])

    def read(number: int) -> Any:
        cell = stored[number][column] or {}
        source = cell.get("bytes") or (Path(cell["path"]) if cell.get("path") else None)
        if source is None:
            raise DataError("the cell is empty")
        return load_image(source, max_megapixels=MAX_MEGAPIXELS)

    return Images(keys=tuple(f"{name}[{number}]" for number in range(len(table))), read=read, identity=identity)


READERS: tuple[Reader, ...] = (
    CLASSES.reader("classes", open_hf_classes),
    CAPTIONS.reader("captions", open_hf_captions),
)
