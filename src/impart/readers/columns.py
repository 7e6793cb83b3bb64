"""Choose the columns of a table: image, text, collection and licence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.errors import DataError
from impart.readers.captions import CAPTION_KEYS

__all__ = ["LABEL_KEYS", "LICENCE_KEYS", "Columns", "PickedColumns"]

IMAGE_KEYS = ("file", "image", "path", "filepath", "file_name", "filename", "image_path", "img", "jpg")
LABEL_KEYS = ("label", "fine_label", "labels", "class", "category", "class_name", "label_name", "name")
LICENCE_KEYS = ("licence", "license", "licensename", "license_name")


@dataclass(frozen=True, kw_only=True)
class PickedColumns:
    """Columns of one table.

    Attributes:
        image: path or bytes of the image.
        text: caption or label.
        labels: whether `text` has labels.
        source: collection; None = the table has no such column.
        licence: licence; None = the table has no such column.
    """

    image: str
    text: str
    labels: bool
    source: str | None
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a table; None = guessed from usual names.

    Attributes:
        image: path of the image (relative to the table, or to its folder `images`), or its bytes in parquet.
        text: the caption.
        source: name of the collection.
        licence: its licence.
        where: only rows with these values in these columns are taken, such as `{"split": "train"}`.
    """

    image: str | None = None
    text: str | None = None
    source: str | None = None
    licence: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    def pick(
        self, names: Sequence[str], *, table: Path, images: Sequence[str] = (), classes: Collection[str] = ()
    ) -> PickedColumns:
        """Find the columns among `names`.

        Args:
            names: all columns.
            table: for messages.
            images: columns that the schema declares as images.
            classes: columns that the schema declares as classes.

        Raises:
            DataError: a named column is missing, or none of the usual names is there.
        """
        declared = [name for name in IMAGE_KEYS if name in images] + list(images)
        image = self._pick(names, self.image, (*declared, *IMAGE_KEYS), what="image", table=table)
        labels = [name for name in LABEL_KEYS if name in classes] + list(classes)
        usual = (*CAPTION_KEYS, *labels, *LABEL_KEYS, "txt")
        text = self._pick([n for n in names if n != image], self.text, usual, what="text", table=table)
        optional = []
        for asked, keys in ((self.source, ("source",)), (self.licence, ("licence", "license"))):
            found = self._find(names, asked, keys)
            if asked and not found:
                raise DataError(f"{table} has no column {asked!r}; it has {', '.join(names)}")
            optional.append(found)
        for column in self.where:
            if column not in names:
                raise DataError(f"{table} has no column {column!r} to select by; it has {', '.join(names)}")
        is_label = text in classes or text.strip().lower() not in (*CAPTION_KEYS, "txt")
        return PickedColumns(image=image, text=text, labels=is_label, source=optional[0], licence=optional[1])

    def selects(self, row: Mapping[str, Any]) -> bool:
        """Test whether a row has the values of `where`."""
        return all(str(row[column]) == value for column, value in self.where.items())

    @staticmethod
    def _find(names: Sequence[str], asked: str | None, usual: Sequence[str]) -> str | None:
        lowered = {name.strip().lower(): name for name in reversed(names)}
        return next((lowered[name.lower()] for name in ([asked] if asked else usual) if name.lower() in lowered), None)

    @classmethod
    def _pick(cls, names: Sequence[str], asked: str | None, usual: Sequence[str], *, what: str, table: Path) -> str:
        found = cls._find(names, asked, usual)
        if found is None:
            missing = repr(asked) if asked else f"one of {', '.join(dict.fromkeys(usual))}"
            raise DataError(
                f"{table} has no {what} column ({missing}); it has {', '.join(names)}. Name it with --{what}-column"
            )
        return found
