"""Read what the schema of a table tells about its columns: images, and the names of classes.

Hugging Face `datasets` writes the types of columns as json into the metadata of the schema, key `huggingface`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impart.readers.captions import captions_of
from impart.readers.class_names import ClassNames
from impart.readers.columns import PickedColumns
from impart.readers.names import label_text, shorten_names
from impart.readers.sample import ImagePlace, ImageSample

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Features", "image_of", "sample_of_row"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Columns of a table by their meaning.

    Attributes:
        columns: all columns.
        images: columns of images: declared as such, or with bytes.
        classes: class names by column, in the order of the class numbers.
        numbers: columns of numbers.
    """

    columns: tuple[str, ...]
    images: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, schema: pa.Schema, declared: Mapping[str, Any] | None = None) -> Features:
        """Read the types of the columns.

        Args:
            schema: of the table.
            declared: types of columns as `datasets` writes them; None = those in the metadata of the schema.
        """
        import pyarrow as pa

        types = pa.types
        if declared is None:
            declared = _declared(schema)
        images = [name for name in schema.names if _kind(declared.get(name)) == "Image"]
        for column in schema:
            is_cell = types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0
            kinds = (types.is_binary, types.is_large_binary, types.is_binary_view)
            if (is_cell or any(test(column.type) for test in kinds)) and not images:
                images.append(column.name)
        names = {name: _class_names(declared.get(name)) for name in schema.names}
        return cls(
            columns=tuple(schema.names),
            images=tuple(images),
            classes={name: found for name, found in names.items() if found},
            numbers=frozenset(column.name for column in schema if _is_number(column.type)),
        )

    def with_names(self, names: ClassNames | None) -> Features:
        """Return the features without class names, where the user gives other names."""
        return self if names is None else Features(columns=self.columns, images=self.images, numbers=self.numbers)


def sample_of_row(
    row: Mapping[str, Any],
    number: int,
    picked: PickedColumns,
    features: Features,
    *,
    table: Path,
    image: ImagePlace | None,
) -> ImageSample:
    """Make a sample of one row.

    Args:
        row: values by column; the image is not read from it.
        number: of the row, from 0.
        picked: columns of image, text, collection and licence.
        features: types of the columns.
        table: the file of the row.
        image: place of the image.
    """
    value = row[picked.text]
    names = features.classes.get(picked.text)
    is_label = picked.labels or picked.text in features.numbers
    problem = ""
    texts: tuple[str, ...] = ()
    if names is not None:
        values = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
        wrong = next((one for one in values if not 0 <= int(one) < len(names)), None)
        if wrong is not None:
            problem = f"its label is {wrong}, which is no class of column {picked.text!r}"
        else:
            texts = tuple(names[int(one)] for one in values)
    else:
        texts = captions_of(value)
        if not texts and isinstance(value, Mapping | list) and value:
            problem = f"there is no caption in column {picked.text!r}: {str(value)[:80]}"
    root = table.resolve().parent
    place = image if isinstance(image, Path) else None
    inside = place is not None and place.is_relative_to(root)
    return ImageSample(
        image=image,
        path=f"{table.name}::{number}" if place is None else str(place.relative_to(root) if inside else place),
        location=f"{table.resolve()}::{number}" if place is None else str(place),
        captions=() if is_label else texts,
        labels=texts if is_label else (),
        named=names is not None,
        source=str(row[picked.source] or "") if picked.source else "",
        licence=str(row[picked.licence] or "") if picked.licence else "",
        problem=problem,
    )


def image_of(value: Any, *, root: Path) -> ImagePlace | None:
    """Return the place of an image from a cell: bytes, a path, or `{bytes, path}` as `datasets` stores it."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return root / value
    return value if isinstance(value, bytes) and value else None


def _declared(schema: pa.Schema) -> Mapping[str, Any]:
    written = (schema.metadata or {}).get(b"huggingface")
    if not written:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(declared: Any) -> str:
    return str(declared.get("_type", "")) if isinstance(declared, Mapping) else ""


def _class_names(declared: Any) -> tuple[str, ...]:
    """Return the class names of a column, also of one with a list of classes per row; empty = it has no classes."""
    if isinstance(declared, list) and len(declared) == 1:
        declared = declared[0]
    if _kind(declared) in ("Sequence", "List", "LargeList"):
        return _class_names(declared["feature"])
    if _kind(declared) != "ClassLabel" or not declared.get("names"):
        return ()
    return shorten_names([label_text(str(name)) for name in declared["names"]])


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_number(kind.value_type)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
