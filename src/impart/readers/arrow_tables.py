"""Read parquet files, and folders that `save_to_disk` of Hugging Face `datasets` wrote, without that package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impart.errors import DataError
from impart.readers.class_names import ClassNames
from impart.readers.columns import Columns
from impart.readers.features import Features, image_of, sample_of_row
from impart.readers.names import equal_names
from impart.readers.sample import ImagePlace, ImageSample, Listener

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowTable", "is_saved", "samples_of_parquet", "saved_splits"]

_BATCH = 64  # rows read at once


def samples_of_parquet(
    path: Path,
    columns: Columns,
    names: ClassNames | None = None,
    *,
    note: Listener,
    on_damage: Callable[[Path, str, Exception], None],
) -> Iterator[ImageSample]:
    """List the samples of a parquet file, one per row.

    Args:
        path: the file.
        columns: columns to read.
        names: class names that the user gives; they replace those of the schema.
        note: receives a note on equal class names.
        on_damage: called with file, message and cause when the file cannot be read to its end.

    Raises:
        DataError: the file lacks its columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = path.resolve().parent
    try:
        with pq.ParquetFile(path) as file:
            features = Features.of(file.schema_arrow).with_names(names)
            picked = columns.pick(features.columns, table=path, images=features.images, classes=features.classes)
            for one in equal_names(features.classes.get(picked.text, ())):
                note(one)
            wanted = [picked.image, picked.text, picked.source, picked.licence, *columns.where]
            wanted = list(dict.fromkeys(name for name in wanted if name))
            batches = file.iter_batches(batch_size=_BATCH, columns=wanted)
            for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                if columns.selects(row):
                    place = image_of(row[picked.image], root=root)
                    yield sample_of_row(row, number, picked, features, table=path, image=place)
    except (OSError, pa.ArrowException) as error:
        on_damage(path, f"cannot read table {path}: {error}", error)


def is_saved(folder: Path) -> bool:
    """Test whether `save_to_disk` wrote a folder: one data set, or a folder of splits."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def saved_splits(folder: Path) -> tuple[str, ...]:
    """Return the names of the splits of a saved folder; none = it is one data set.

    Raises:
        DataError: the list of splits cannot be read.
    """
    if (folder / "state.json").is_file():
        return ()
    splits = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not splits:
        raise DataError(f"{folder / 'dataset_dict.json'} names no splits: save the data set again")
    return tuple(str(split) for split in splits)


@dataclass(frozen=True)
class ArrowTable:
    """A table whose images are read one at a time.

    Attributes:
        folder: paths of images start here.
        table: rows in memory, or mapped into it.
        features: types of the columns.
        files: files of the table, in order.
        split: name of the split; empty = it has none.
    """

    folder: Path
    table: pa.Table
    features: Features
    files: tuple[Path, ...] = ()
    split: str = ""

    @classmethod
    def open_saved(cls, folder: Path) -> ArrowTable:
        """Open one data set that `save_to_disk` wrote; its files are mapped into memory, not read.

        Raises:
            DataError: a file is missing or damaged, or the rows are in the order of another file.
        """
        import pyarrow as pa

        state = _json(folder / "state.json")
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise DataError(f"{folder} has its rows in another order: load it, call flatten_indices(), save it again")
        try:
            files = tuple(folder / str(one["filename"]) for one in state["_data_files"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / 'state.json'} names no data files: save the data set again") from error
        tables = []
        for file in files:
            try:
                with pa.memory_map(str(file)) as mapped:
                    tables.append(pa.ipc.open_stream(mapped).read_all())
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"cannot read {file}: {error}: save the data set again") from error
        if not tables:
            raise DataError(f"{folder} has no rows")
        info = folder / "dataset_info.json"
        declared = _json(info).get("features") if info.is_file() else None
        table = pa.concat_tables(tables)
        return cls(folder, table, Features.of(table.schema, declared), files, str(state.get("_split") or ""))

    @classmethod
    def open_parquet(cls, path: Path) -> ArrowTable:
        """Read a parquet file into memory.

        Raises:
            DataError: it is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(path).read()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read table {path}: {error}") from error
        return cls(path.parent, table, Features.of(table.schema), (path,))

    def image(self, number: int, column: str) -> ImagePlace | None:
        """Return the place of the image in a row; None = the cell is empty."""
        return image_of(self.table[column][number].as_py(), root=self.folder.resolve())

    def samples(self, columns: Columns, names: ClassNames | None = None, *, note: Listener) -> Iterator[ImageSample]:
        """List the samples, one per row; an image is copied from the table when it is read.

        Args:
            columns: columns to read.
            names: class names that the user gives; they replace those of the schema.
            note: receives a note on equal class names.

        Raises:
            DataError: the table lacks the columns.
        """
        features = self.features.with_names(names)
        picked = columns.pick(features.columns, table=self.folder, images=features.images, classes=features.classes)
        for one in equal_names(features.classes.get(picked.text, ())):
            note(one)
        wanted = [picked.text, picked.source, picked.licence, *columns.where]
        light = self.table.select(list(dict.fromkeys(name for name in wanted if name)))
        rows = (row for batch in light.to_batches(max_chunksize=_BATCH) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            if columns.selects(row):
                place = self._place(number, picked.image)
                yield sample_of_row(row, number, picked, features, table=self.folder, image=place)

    def _place(self, number: int, column: str) -> ImagePlace | None:
        cell = self.table[column][number]
        if not cell.is_valid:
            return None
        data = cell["bytes"] if _has_bytes(self.table.schema.field(column).type) else None
        if data is None or not data.is_valid:
            return self.image(number, column)
        return _Cell(self.table[column], number)


@dataclass(frozen=True)
class _Cell:
    """Reads the bytes of an image in a column."""

    column: Any
    row: int

    def __call__(self) -> bytes:
        return bytes(self.column[self.row]["bytes"].as_py())


def _has_bytes(kind: pa.DataType) -> bool:
    """Test whether a column has images as `{bytes, path}`."""
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}: save the data set again") from error
    return content if isinstance(content, dict) else {}
