"""Data sets as plain lists of files: class folders, and pictures with captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from impart.encoders.base import Encoder, ImageEmbeddings
from impart.errors import DataError
from impart.evaluate.prompts import tidy_class_name

__all__ = ["CaptionedImages", "ClassFolder", "embed_files", "read_captions"]

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """Pictures in one folder a class; the folder's name, underscores as spaces, is the class name.

    Folders may have codes for names (`n01443537`): a table `classes.csv` in the folder, or beside it, whose first
    column is the code and whose column `name` holds the names, then says what they are called. Of several names,
    separated by commas, the first counts.

    Attributes:
        name: what reports call the set.
        classes: C class names, sorted by folder name.
        files: n picture files.
        labels: n class numbers.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path | str, *, name: str | None = None, per_class: int | None = None) -> ClassFolder:
        """List a class folder.

        Args:
            folder: holds one sub-folder a class.
            name: for reports; defaults to the last two parts of the path.
            per_class: keep only the first this many pictures of each class, by name.

        Raises:
            DataError: the folder is missing or empty, a class has no pictures, or `classes.csv` does not name it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: expected one sub-folder of pictures a class")
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not subfolders:
            raise DataError(f"{folder} has no sub-folders: expected one sub-folder of pictures a class")
        files: list[Path] = []
        labels: list[int] = []
        for number, subfolder in enumerate(subfolders):
            found = sorted(path for path in subfolder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
            if not found:
                raise DataError(f"class folder {subfolder} holds no pictures: remove it or fill it")
            found = found[:per_class]
            files += found
            labels += [number] * len(found)
        return cls(
            name=name or "/".join(folder.resolve().parts[-2:]),
            classes=_class_names(folder, [path.name for path in subfolders]),
            files=tuple(files),
            labels=tuple(labels),
        )


def _class_names(folder: Path, folders: Sequence[str]) -> tuple[str, ...]:
    table = next((path for path in (folder / "classes.csv", folder.parent / "classes.csv") if path.is_file()), None)
    if table is None:
        return tuple(tidy_class_name(name) for name in folders)
    names = {next(iter(row.values())): row["name"].split(",")[0].strip() for row in _read_csv(table, needs=("name",))}
    missing = [code for code in folders if not names.get(code)]
    if missing:
        raise DataError(f"{table} has no name for the class folder {missing[0]!r}: add a row, or remove the table")
    return tuple(names[code] for code in folders)


@dataclass(frozen=True, kw_only=True)
class CaptionedImages:
    """Pictures with one or more captions each.

    Attributes:
        name: what reports call the set.
        files: n picture files.
        captions: m texts.
        owners: m numbers, the picture that each caption describes.
    """

    name: str
    files: tuple[Path, ...]
    captions: tuple[str, ...]
    owners: tuple[int, ...]

    @classmethod
    def open(
        cls,
        table: Path | str,
        *,
        images: Path | str | None = None,
        split: str | None = None,
        name: str | None = None,
    ) -> CaptionedImages:
        """Read a CSV with the columns `file` and `caption` (or `text`), and optionally `split`.

        Args:
            table: the CSV; a picture may have several rows.
            images: folder of the pictures; defaults to `images` beside the table, else the table's own folder.
            split: keep only rows of this split.
            name: for reports; defaults to the table's folder, and the split.

        Raises:
            DataError: the table cannot be read, a column is missing, no row is left, or a picture is missing.
        """
        table = Path(table)
        folder = Path(images) if images else table.parent / "images"
        if not folder.is_dir():
            folder = table.parent
        files: dict[str, int] = {}
        captions: list[str] = []
        owners: list[int] = []
        for file, caption in read_captions(table, split=split):
            owners.append(files.setdefault(file, len(files)))
            captions.append(caption)
        paths = tuple(folder / file for file in files)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{table} names {len(missing)} pictures that do not exist, first {missing[0]}")
        default = table.parent.name + (f"/{split}" if split else "")
        return cls(name=name or default, files=paths, captions=tuple(captions), owners=tuple(owners))


def read_captions(table: Path, *, split: str | None = None) -> list[tuple[str, str]]:
    """(file, caption) of each row of a CSV with the columns `file` and `caption` (or `text`); empty captions are none.

    Raises:
        DataError: the table cannot be read, or no row is left.
    """
    pairs = []
    for row in _read_csv(table, needs=("file",)):
        caption = (row.get("caption") or row.get("text") or "").strip()
        if caption and (split is None or row.get("split") == split):
            pairs.append((row["file"], caption))
    if not pairs:
        where = f" with split {split!r}" if split else ""
        raise DataError(f"{table} has no captions{where}: expected the columns file and caption (or text)")
    return pairs


def _read_csv(table: Path, *, needs: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            absent = [column for column in needs if column not in (rows.fieldnames or [])]
            if absent:
                raise DataError(f"{table} lacks the column {absent[0]!r}; it has {', '.join(rows.fieldnames or [])}")
            yield from rows
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text: save it as UTF-8") from error


@dataclass
class EmbeddedFiles:
    """Embeddings of the files that could be read, and what became of the others.

    Attributes:
        kept: numbers of the files that were read, ascending.
        batches: one entry a forward pass.
        unreadable: reasons, one for each file left out.
    """

    kept: list[int] = field(default_factory=list)
    batches: list[ImageEmbeddings] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def embed_files(encoder: Encoder, files: Sequence[Path], *, batch: int = 32) -> EmbeddedFiles:
    """Embed picture files; a file that cannot be read is left out and named.

    Raises:
        DataError: no file could be read.
    """
    result = EmbeddedFiles()
    pending: list[Image.Image] = []

    def flush() -> None:
        if pending:
            result.batches.append(encoder.encode_images(pending))
            pending.clear()

    for number, path in enumerate(files):
        try:
            with Image.open(path) as image:
                image.load()
                pending.append(image.copy())
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            result.unreadable.append(f"{path}: {error}")
            continue
        result.kept.append(number)
        if len(pending) == batch:
            flush()
    flush()
    if not result.kept:
        raise DataError(f"none of {len(files)} pictures could be read; first: {result.unreadable[0]}")
    return result
