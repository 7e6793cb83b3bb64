"""List image-text pairs of a source: csv and tsv files, parquet, image folders, WebDataset tars.

Reading is lazy: a `Pair` has the place of its image, which `impart.images` reads. Listing a source, to split or sample
it, reads no images, and building from it needs memory for a few batches.
"""

from __future__ import annotations

import csv
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from impart.errors import DataError, ReferenceSetError
from impart.images import ImageSource

__all__ = ["Columns", "Pair", "read_pairs", "tidy_name"]

_OnFailure: TypeAlias = "Callable[[str, str], None] | None"

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
IMAGE_COLUMNS = ("file", "image", "path", "filepath", "file_name", "filename", "image_path", "img", "jpg")
TEXT_COLUMNS = ("text", "caption", "title", "alt", "description", "label", "class", "name", "txt")
LICENCE_KEYS = ("licence", "license", "licensename", "license_name")
_TEXT_MEMBERS = {"cls": 0, "json": 1, "txt": 2, "text": 2, "caption": 2}
SIDECAR_TABLES = ("captions.csv", "metadata.csv", "captions.tsv", "labels.csv", "metadata.tsv")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image and its text, not read yet.

    Attributes:
        image: place of the image.
        text: caption or class name.
        path: place relative to the source; the name in failure lists.
        source: collection of the pair.
        licence: as stated at the source; empty = not stated.
        location: place from which training reads the image (absolute path, or `shard.tar::member`).
    """

    image: ImageSource
    text: str
    path: str = ""
    source: str = ""
    licence: str = ""
    location: str = ""

    @property
    def image_key(self) -> str:
        """Key of the image; the captions of one image share it."""
        return self.location or self.path


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

    def resolve(self, names: Sequence[str], *, table: Path) -> tuple[str, str, str | None, str | None]:
        """Find the (image, text, source, licence) columns among `names`.

        Raises:
            ReferenceSetError: a named column is missing, or none of the usual names is there.
        """
        image = self._pick(names, self.image, IMAGE_COLUMNS, what="image", table=table)
        text = self._pick([n for n in names if n != image], self.text, TEXT_COLUMNS, what="text", table=table)
        optional = []
        for asked, usual in ((self.source, ("source",)), (self.licence, ("licence", "license"))):
            found = self._find(names, asked, usual)
            if asked and not found:
                raise ReferenceSetError(f"{table} has no column {asked!r}; it has {', '.join(names)}")
            optional.append(found)
        for column in self.where:
            if column not in names:
                raise ReferenceSetError(f"{table} has no column {column!r} to select by; it has {', '.join(names)}")
        return image, text, optional[0], optional[1]

    def selects(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has the values of `where`."""
        return all(str(row[column]) == value for column, value in self.where.items())

    @staticmethod
    def _find(names: Sequence[str], asked: str | None, usual: Sequence[str]) -> str | None:
        lowered = {name.strip().lower(): name for name in reversed(names)}
        return next((lowered[name.lower()] for name in ([asked] if asked else usual) if name.lower() in lowered), None)

    @classmethod
    def _pick(cls, names: Sequence[str], asked: str | None, usual: Sequence[str], *, what: str, table: Path) -> str:
        found = cls._find(names, asked, usual)
        if found is None:
            missing = repr(asked) if asked else f"one of {', '.join(usual)}"
            raise ReferenceSetError(
                f"{table} has no {what} column ({missing}); it has {', '.join(names)}. Name it with --{what}-column"
            )
        return found


def tidy_name(name: str) -> str:
    """Turn a file or folder name into a text.

    >>> tidy_name("golden_retriever_03"), tidy_name("n01440764-tench"), tidy_name("Faces_easy")
    ('golden retriever', 'n01440764 tench', 'Faces easy')
    """
    words = re.sub(r"[_\-\s]+", " ", name).strip()
    return re.sub(r"\s+\d+$", "", words)


def read_pairs(
    path: Path,
    *,
    columns: Columns | None = None,
    source: str = "",
    licence: str = "",
    on_failure: Callable[[str, str], None] | None = None,
) -> Iterator[Pair]:
    """List the pairs of a source in a fixed order, without reading images.

    Args:
        path: a .csv or .tsv table, a .parquet file, a .tar shard, a folder of shards, a folder with a captions table, a
            folder of class folders (the text is the folder's name), or a flat folder (the text is the
            `.txt` beside the image, or else the file's name).
        columns: of tables.
        source: collection of the pairs that name none; default is the name of `path`.
        licence: licence of the pairs that state none; default is not stated.
        on_failure: called with a name and a reason for each shard or parquet file that cannot be read to its end, and
            for each sample of a shard without an image; all other pairs are listed. None = the first damaged file
            raises an error.

    Raises:
        ReferenceSetError: there is nothing to read, a table lacks its columns, or a file is damaged.
    """
    path = path.expanduser()
    columns = columns or Columns()
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        tables = [path / name for name in SIDECAR_TABLES if (path / name).is_file()]
        parquets = sorted(path.glob("*.parquet"))
        pairs: Iterator[Pair]
        if shards:
            pairs = (pair for shard in shards for pair in _from_tar(shard, on_failure))
        elif tables:
            pairs = _from_table(tables[0], columns)
        elif parquets:
            pairs = (pair for file in parquets for pair in _from_parquet(file, columns, on_failure))
        else:
            pairs = _from_folder(path)
    elif not path.is_file():
        raise ReferenceSetError(f"{path} does not exist: give a csv, tsv, parquet or tar file, or a folder of images")
    elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
        pairs = _from_table(path, columns)
    elif path.suffix.lower() == ".parquet":
        pairs = _from_parquet(path, columns, on_failure)
    elif path.suffix.lower() == ".tar":
        pairs = _from_tar(path, on_failure)
    else:
        raise ReferenceSetError(f"{path} is not a csv, tsv, parquet or tar file, nor a folder of images")
    name = source or path.resolve().stem
    for pair in pairs:
        yield Pair(
            image=pair.image,
            text=pair.text,
            path=pair.path,
            source=pair.source or name,
            licence=pair.licence or licence,
            location=pair.location,
        )


def _from_table(table: Path, columns: Columns) -> Iterator[Pair]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",\t;|", key=header.count) if table.suffix.lower() != ".tsv" else "\t"
            rows = csv.DictReader(file, delimiter=delimiter)
            image, text, source, licence = columns.resolve(list(rows.fieldnames or []), table=table)
            root = table.resolve().parent
            for row in rows:
                if not columns.selects(row):
                    continue
                name = (row[image] or "").strip()
                place = root / name
                if not place.is_file() and (root / "images" / name).is_file():
                    place = root / "images" / name
                yield Pair(
                    image=place if name else _no_image,
                    text=" ".join((row[text] or "").split()),
                    path=name or f"{table.name}::{rows.line_num}",
                    source=(row[source] or "").strip() if source else "",
                    licence=(row[licence] or "").strip() if licence else "",
                    location=str(place) if name else f"{table.resolve()}::{rows.line_num}",
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReferenceSetError(f"cannot read table {table}: {error}") from error


def _from_parquet(table: Path, columns: Columns, on_failure: _OnFailure) -> Iterator[Pair]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            image, text, source, licence = columns.resolve(file.schema_arrow.names, table=table)
            wanted = list(dict.fromkeys(name for name in (image, text, source, licence, *columns.where) if name))
            root = table.resolve().parent
            rows = (row for batch in file.iter_batches(batch_size=64, columns=wanted) for row in batch.to_pylist())
            for number, row in enumerate(rows):
                if not columns.selects(row):
                    continue
                value: Any = row[image]
                if isinstance(value, dict):  # the layout of Hugging Face datasets: {"bytes": ..., "path": ...}
                    value = value.get("bytes") or value.get("path")
                place: ImageSource = root / value if isinstance(value, str) and value else value or _no_image
                yield Pair(
                    image=place,
                    text=" ".join(str(row[text] or "").split()),
                    path=value if isinstance(value, str) and value else f"{table.name}::{number}",
                    source=str(row[source] or "") if source else "",
                    licence=str(row[licence] or "") if licence else "",
                    location=str(place) if isinstance(place, Path) else f"{table.resolve()}::{number}",
                )
    except (OSError, pa.ArrowException) as error:
        _report(ReferenceSetError(f"cannot read table {table}: {error}"), table, on_failure, error)


def _from_folder(folder: Path) -> Iterator[Pair]:
    root = folder.resolve()
    images = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not images:
        raise ReferenceSetError(f"no image under {folder} ({', '.join(sorted(IMAGE_SUFFIXES))}), and no table or tar")
    sidecars = any(p.with_suffix(".txt").is_file() for p in images)
    for image in images:
        if sidecars:
            try:
                text = " ".join(image.with_suffix(".txt").read_text(encoding="utf-8").split())
            except (OSError, UnicodeDecodeError):
                text = ""  # reported as a pair without a text
        else:
            text = tidy_name(image.stem if image.parent == root else image.parent.name)
        relative = image.relative_to(root).as_posix()
        yield Pair(image=image, text=text, path=relative, location=str(image))


def _from_tar(shard: Path, on_failure: _OnFailure) -> Iterator[Pair]:
    """List the pairs of a WebDataset shard: members with one name up to the first dot of the file name are a sample.

    Of several texts of a sample, a text file is preferred to json, and json to a class.
    """
    texts: dict[str, tuple[int, str]] = {}
    notes: dict[str, dict[str, str]] = {}
    images: dict[str, tarfile.TarInfo] = {}
    damage: Exception | None = None
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                extension = extension.lower()
                if f".{extension}" in IMAGE_SUFFIXES:
                    images.setdefault(key, member)
                elif extension in _TEXT_MEMBERS:
                    opened = tar.extractfile(member)
                    text = opened.read().decode("utf-8", errors="replace") if opened else ""
                    if extension == "json":
                        notes[key] = _notes_of_json(text)
                        text = notes[key].get("text", "")
                    text = " ".join(text.split())
                    rank = _TEXT_MEMBERS[extension]
                    if text and rank >= texts.get(key, (0, ""))[0]:
                        texts[key] = (rank, text)
            # tarfile treats a header that it cannot read as the end of the archive.
            if any(_reader(shard, tar.offset, tarfile.BLOCKSIZE)()):
                raise tarfile.ReadError(f"damaged from byte {tar.offset}")
    except (OSError, tarfile.TarError, EOFError) as error:
        damage = error
    for key, member in images.items():
        note = notes.get(key, {})
        yield Pair(
            image=_reader(shard, member.offset_data, member.size),
            text=texts.get(key, (0, ""))[1],
            path=f"{shard.name}::{member.name}",
            source=note.get("source", ""),
            licence=note.get("licence", ""),
            location=f"{shard.resolve()}::{member.name}",
        )
    if on_failure is not None:
        for key in sorted(texts.keys() - images.keys()):
            on_failure(f"{shard.name}::{key}", "the sample has no image")
    if damage is not None:
        found = f", {len(images)} images before the damage" if images else ""
        _report(ReferenceSetError(f"cannot read shard {shard}: {damage}{found}"), shard, on_failure, damage)


def _report(failure: ReferenceSetError, file: Path, on_failure: _OnFailure, cause: Exception) -> None:
    """Report a damaged file, or raise the error where there is no `on_failure`."""
    if on_failure is None:
        raise failure from cause
    on_failure(str(file), str(failure))


def _no_image() -> bytes:
    raise DataError("the row names no image")


def _notes_of_json(raw: str) -> dict[str, str]:
    """Read text, source and licence from the json of a sample."""
    import json

    try:
        content = json.loads(raw)
    except json.JSONDecodeError:
        return {}
    if not isinstance(content, dict):
        return {}
    wanted = {"text": TEXT_COLUMNS, "source": ("source",), "licence": LICENCE_KEYS}
    found = {
        key: next((str(content[name]) for name in names if content.get(name)), "") for key, names in wanted.items()
    }
    return {key: " ".join(value.split()) for key, value in found.items()}


def _reader(file: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(size)

    return read
