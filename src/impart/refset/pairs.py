"""List image-text pairs of a source: csv and tsv files, parquet, image folders, WebDataset tars, saved data sets.

The readers of `impart.readers` list samples; here each caption or class name of a sample becomes a pair. A `Pair` has
the place of its image, which `impart.images` reads. Listing a source, to split or sample it, reads no images.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from impart.errors import DataError, ReferenceSetError
from impart.images import ImageSource
from impart.readers.arrow_tables import ArrowTable, is_saved, samples_of_parquet, saved_splits
from impart.readers.class_names import ClassNames
from impart.readers.columns import Columns
from impart.readers.folders import SIDECAR_TABLES, samples_of_folder
from impart.readers.names import is_code, label_text, merged_names
from impart.readers.sample import ImageSample, Listener
from impart.readers.tables import samples_of_table
from impart.readers.webdataset import Shard, is_shard, notes_on, read_shard, shard_files

__all__ = ["Columns", "Pair", "read_pairs"]

_REMEDY = (
    "give its name in a file (--class-names, in a training config class_names) or in classnames.txt beside the source, "
    "put its images into a folder with that name, or name a column of texts (--text-column)"
)
_SPLIT = re.compile(r"(\w[\w.-]*)-\d{5}-of-\d{5}")
"""Name of a parquet file of a published data set: its split, and its number."""
_MOST_LABELS = 100_000  # labels compared with each other
_PROBED = 20  # pairs looked at before a source whose texts are all numbers is refused


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
        problem: reason why the pair has no usable text; empty = it has one.
    """

    image: ImageSource
    text: str
    path: str = ""
    source: str = ""
    licence: str = ""
    location: str = ""
    problem: str = ""

    @property
    def image_key(self) -> str:
        """Key of the image; the captions of one image share it."""
        return self.location or self.path


def read_pairs(
    path: Path,
    *,
    columns: Columns | None = None,
    class_names: Path | None = None,
    source: str = "",
    licence: str = "",
    on_failure: Callable[[str, str], None] | None = None,
    on_note: Listener | None = None,
) -> Iterator[Pair]:
    """List the pairs of a source in a fixed order, without reading images. Each caption of an image is a pair.

    Args:
        path: a .csv, .tsv or .jsonl table, a .parquet file, a .tar shard, a folder of shards, a folder that `datasets`
            saved, a folder with a captions table, a folder of class folders (the text is the folder's name), or a flat
            folder (the texts are the lines of the `.txt` beside the image, or else the file's name).
        columns: of tables.
        class_names: file with the names of class numbers or codes (`ClassNames.read`); default: those in the schema of
            the table, or `classes.csv` or `classnames.txt` beside the source.
        source: collection of the pairs that name none; default is the name of `path`.
        licence: licence of the pairs that state none; default is not stated.
        on_failure: called with a name and a reason for each shard or parquet file that cannot be read to its end, and
            for each sample of a shard without an image; all other pairs are listed. None = the first damaged file
            raises an error.
        on_note: called with each note on what was left out or has one text for different names.

    Raises:
        ReferenceSetError: there is nothing to read, a table lacks its columns, a file is damaged, or the texts are
            numbers without names.
    """
    path = path.expanduser()
    read = _Reading(path, columns or Columns(), on_failure, on_note or (lambda _: None))
    name = source or path.resolve().stem
    try:
        read.names = ClassNames.read(class_names.expanduser()) if class_names is not None else None
        pairs = (
            Pair(
                image=sample.image if sample.image is not None else _no_image,
                text=text,
                path=sample.path,
                source=" ".join(sample.source.split()) or name,
                licence=" ".join(sample.licence.split()) or licence,
                location=sample.location,
                problem=problem,
            )
            for sample in read.samples()
            for text, problem in read.texts(sample)
        )
        probed = list(itertools.islice(pairs, _PROBED))
        if probed and all(is_code(pair.text) and pair.problem for pair in probed):
            raise ReferenceSetError(f"{path}: {probed[0].path}: {probed[0].problem}")
        for pair in itertools.chain(probed, pairs):
            yield dataclasses.replace(pair, text="") if pair.problem else pair
        for note in merged_names(read.labels, what="labels"):
            read.note(note)
    except DataError as error:
        raise ReferenceSetError(str(error)) from error


@dataclass
class _Reading:
    """One source while it is read."""

    path: Path
    columns: Columns
    on_failure: Callable[[str, str], None] | None
    note: Listener
    names: ClassNames | None = None
    labels: dict[str, str] = field(default_factory=dict)
    _beside: ClassNames | None = None
    _searched: bool = False

    def samples(self) -> Iterator[ImageSample]:
        """Choose the reader of the source and list its samples."""
        path, suffix = self.path, self.path.suffix.lower()
        if path.is_dir():
            yield from self._of_folder()
        elif not path.is_file():
            remedy = "give a csv, tsv, jsonl, parquet or tar file, or a folder of images"
            raise ReferenceSetError(f"{path} does not exist: {remedy}")
        elif suffix in (".csv", ".tsv", ".txt", ".jsonl"):
            yield from samples_of_table(path, self.columns)
        elif suffix == ".parquet":
            yield from self._of_parquets([path])
        elif is_shard(path):
            yield from self._of_shards([path])
        else:
            raise ReferenceSetError(f"{path} is not a csv, tsv, jsonl, parquet or tar file, nor a folder of images")

    def texts(self, sample: ImageSample) -> Iterator[tuple[str, str]]:
        """Yield (text, problem) of each caption of a sample, or else of each label."""
        if sample.captions:
            for caption in dict.fromkeys(sample.captions):
                yield caption, f"its text is {caption!r}, a number or a code: {_REMEDY}" if is_code(caption) else ""
        elif sample.labels:
            for label in dict.fromkeys(sample.labels):
                yield self._named(label, named=sample.named)
        else:
            yield "", sample.problem or "the text is empty"

    def _named(self, label: str, *, named: bool) -> tuple[str, str]:
        if named:
            return label, ""
        names = self._class_names() if is_code(label) else self.names
        name = names.find(label) if names is not None else None
        if names is not None and name is None and names.names and label.isdecimal():
            # Names of a list that is too short are those of other classes, as where the numbers start at 1.
            raise ReferenceSetError(
                f"{self.path} has class {label}, and {names.file} names {len(names.names)} (numbers start at 0): "
                "give a name for every class number"
            )
        if name is None and is_code(label):
            where = f", and {names.file} has no name for it" if names is not None else ""
            return label, f"its class is {label!r}, a number or a code{where}: {_REMEDY}"
        text = name or label_text(label)
        if len(self.labels) < _MOST_LABELS:
            self.labels[label] = text
        return text, ""

    def _class_names(self) -> ClassNames | None:
        if self.names is None and not self._searched:
            self._searched = True
            self._beside = ClassNames.beside(self.path if self.path.is_dir() else self.path.parent)
        return self.names or self._beside

    def _of_folder(self) -> Iterator[ImageSample]:
        path = self.path
        kinds = {
            "tar": shard_files(path),
            "table": [path / name for name in SIDECAR_TABLES if (path / name).is_file()],
            "parquet": sorted(path.glob("*.parquet")),
        }
        if is_saved(path):
            yield from self._of_saved()
            return
        kind = next((kind for kind, files in kinds.items() if files), None)
        if kind is None:
            yield from samples_of_folder(path, self.names, self.note)
            return
        unread = [file.name for other, files in kinds.items() if other != kind for file in files]
        unread += [file.name for file in kinds["table"][1:]] if kind == "table" else []
        if unread:
            others = unread[0] if len(unread) == 1 else f"{len(unread)} files, first {unread[0]}"
            self.note(f"{path} is read from its {kinds[kind][0].name}; left out: {others}")
        if kind == "tar":
            yield from self._of_shards(kinds["tar"])
        elif kind == "table":
            yield from samples_of_table(kinds["table"][0], self.columns)
        else:
            yield from self._of_parquets(kinds["parquet"])

    def _of_saved(self) -> Iterator[ImageSample]:
        splits = saved_splits(self.path)
        if len(splits) > 1:
            raise ReferenceSetError(
                f"{self.path} has the splits {', '.join(splits)}: give one of them, such as {self.path / splits[0]}"
            )
        table = ArrowTable.open_saved(self.path / splits[0] if splits else self.path)
        yield from table.samples(self.columns, self.names, note=self.note)

    def _of_parquets(self, files: list[Path]) -> Iterator[ImageSample]:
        splits = sorted({found[1] for file in files if (found := _SPLIT.match(file.name))})
        if len(splits) > 1:
            self.note(f"the parquet files are of the splits {', '.join(splits)}: all are read")
        for file in files:
            yield from samples_of_parquet(file, self.columns, self.names, note=self.note, on_damage=self._report)

    def _of_shards(self, files: list[Path]) -> Iterator[ImageSample]:
        shards: list[Shard] = []
        for file in files:
            shard = read_shard(file)
            shards.append(Shard(further=shard.further, others=shard.others))
            images = [sample for sample in shard.samples if sample.image is not None]
            yield from images
            for sample in shard.samples:
                if sample.image is None and self.on_failure is not None and (sample.captions or sample.labels):
                    self.on_failure(sample.path, "the sample has no image")
            if shard.damage is not None:
                found = f", {len(images)} images before the damage" if images else ""
                self._report(file, f"cannot read shard {file}: {shard.damage}{found}", shard.damage)
        for note in notes_on(shards):
            self.note(note)

    def _report(self, file: Path, message: str, cause: Exception) -> None:
        """Report a damaged file, or raise the error where there is no `on_failure`."""
        if self.on_failure is None:
            raise ReferenceSetError(message) from cause
        self.on_failure(str(file), message)


def _no_image() -> bytes:
    raise DataError("the row names no image")
