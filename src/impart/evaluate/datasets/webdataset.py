"""Read WebDataset folders in the layout that CLIP benchmarks publish.

    classnames.txt                           one class name per line, in the order of the class numbers
    zeroshot_classification_templates.txt    one prompt per line, `{c}` for the class name
    test/nshards.txt, test/0.tar, 1.tar ...  members KEY.jpg (png, webp) with KEY.cls; retrieval: KEY.txt or KEY.json

The members of a shard are listed once; an image is read from its shard on demand.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from impart.errors import DataError
from impart.evaluate.class_prompts import tidy_class_name
from impart.evaluate.datasets.annotations import read_lines, read_text
from impart.evaluate.datasets.image_files import IMAGE_SUFFIXES
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import MAX_MEGAPIXELS, CaptionSet, ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.images import load_image

__all__ = ["READERS", "open_webdataset", "open_webdataset_captions"]

_HOME = "https://huggingface.co/clip-benchmark"
CLASSES = DataSetInfo(
    name="webdataset",
    title="A WebDataset of classes",
    splits=(),
    files=("classnames.txt", "0.tar, 1.tar ... beside it or in one folder per split", "in them KEY.jpg and KEY.cls"),
    home=_HOME,
)
CAPTIONS = DataSetInfo(
    name="webdataset-captions",
    title="A WebDataset of captions",
    splits=(),
    files=("0.tar, 1.tar ... in it or in one folder per split", "in them KEY.jpg and KEY.txt (lines) or KEY.json"),
    home=_HOME,
)
_LABELS = frozenset({"cls", "txt", "json"})


@dataclass(frozen=True, kw_only=True)
class _Member:
    """Place of a file in a shard."""

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(kw_only=True)
class _Sample:
    """Members with one key; `labels` maps `cls`, `txt`, `json` to their content."""

    key: str
    image: _Member | None = None
    labels: dict[str, bytes] = field(default_factory=dict)


def open_webdataset(path: Path, split: str | None = None) -> ClassSet:
    """Open images with classes.

    Args:
        path: the folder of `classnames.txt`.
        split: name of the folder of shards in it; None = `test`, or the folder itself.

    Raises:
        DataError: files are missing, a shard is damaged, or a class number has no name.
    """
    folder = _shard_folder(path, split, CLASSES)
    names_file = next((one for one in _beside(folder, path, "classnames.txt") if one.is_file()), None)
    if names_file is None:
        raise CLASSES.missing(f"{path} has no classnames.txt")
    classes = tuple(tidy_class_name(line) for _, line in read_lines(names_file))
    labels: list[int] = []
    images: list[tuple[str, _Member]] = []
    shards = _shards(folder, CLASSES)
    bare = 0
    for sample in _samples(shards):
        if sample.image is None or "cls" not in sample.labels:
            bare += 1
            continue
        labels.append(_class_number(sample, len(classes), names_file))
        images.append((sample.key, sample.image))
    if not images:
        raise DataError(f"{folder} has no sample with an image and a .cls: for captions use webdataset-captions:PATH")
    templates, notes = _templates(folder, path)
    return ClassSet(
        name=_name(folder, path),
        images=_images(images, shards),
        labels=np.asarray(labels, dtype=np.int64),
        classes=classes,
        templates=templates,
        notes=(*notes, *_bare(bare, ".cls")),
    )


def open_webdataset_captions(path: Path, split: str | None = None) -> CaptionSet:
    """Open images with captions.

    Args:
        path: the folder of shards, or the folder above it.
        split: name of the folder of shards in it; None = `test`, or the folder itself.

    Raises:
        DataError: there are no shards, a shard is damaged, or no sample has an image and a caption.
    """
    folder = _shard_folder(path, split, CAPTIONS)
    shards = _shards(folder, CAPTIONS)
    captions: list[str] = []
    owners: list[int] = []
    images: list[tuple[str, _Member]] = []
    bare = 0
    for sample in _samples(shards):
        texts = _captions(sample)
        if sample.image is None or not texts:
            bare += 1
            continue
        owners += [len(images)] * len(texts)
        captions += texts
        images.append((sample.key, sample.image))
    if not images:
        raise DataError(f"{folder} has no sample with an image and a caption (.txt or .json)")
    return CaptionSet(
        name=_name(folder, path),
        images=_images(images, shards),
        captions=tuple(captions),
        owners=np.asarray(owners, dtype=np.int64),
        notes=_bare(bare, "caption"),
    )


def _bare(count: int, what: str) -> tuple[str, ...]:
    return (f"{count} samples without an image or a {what} are left out",) if count else ()


def _name(folder: Path, path: Path) -> str:
    root = path.resolve()
    return root.name if folder == path else f"{root.name}/{folder.name}"


def _shard_folder(path: Path, split: str | None, info: DataSetInfo) -> Path:
    if not path.is_dir():
        raise info.missing(f"{path} is not a folder")
    if split is not None:
        if not (path / split).is_dir():
            raise info.missing(f"{path} has no folder {split!r}")
        return path / split
    if next(path.glob("*.tar"), None) is None and (path / "test").is_dir():
        return path / "test"
    return path


def _beside(folder: Path, path: Path, name: str) -> tuple[Path, ...]:
    return path / name, folder / name, path.parent / name


def _shards(folder: Path, info: DataSetInfo) -> list[Path]:
    """List the shards in the order of their numbers; `nshards.txt`, if it exists, has their number.

    Raises:
        DataError: there are no shards, or one that `nshards.txt` counts is missing.
    """
    counted = folder / "nshards.txt"
    if counted.is_file():
        text = read_text(counted).strip()
        if not text.isdecimal():
            raise DataError(f"{counted} contains {text[:20]!r}, expected the number of shards")
        shards = [folder / f"{number}.tar" for number in range(int(text))]
        lacking = next((shard for shard in shards if not shard.is_file()), None)
        if lacking is not None:
            raise info.missing(f"{lacking} is missing, and {counted.name} counts {text} shards")
    else:
        shards = sorted(folder.glob("*.tar"), key=lambda shard: (len(shard.name), shard.name))
    if not shards:
        raise info.missing(f"{folder} has no .tar")
    return shards


def _samples(shards: list[Path]) -> Iterator[_Sample]:
    """Yield the samples of every shard in order; a sample has the members of one name up to its first dot."""
    for shard in shards:
        found: dict[str, _Sample] = {}
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    if not member.isfile() or not extension:
                        continue
                    key = f"{shard.name}:{folder}/{stem}" if folder else f"{shard.name}:{stem}"
                    sample = found.setdefault(key, _Sample(key=key))
                    place = _Member(shard=shard, offset=member.offset_data, size=member.size)
                    if f".{extension.lower()}" in IMAGE_SUFFIXES:
                        sample.image = place
                    elif extension.lower() in _LABELS:
                        sample.labels[extension.lower()] = place.read()
        except (OSError, EOFError, tarfile.TarError) as error:
            raise DataError(f"{shard} is damaged or no tar archive ({error}): download it again") from error
        yield from found.values()


def _class_number(sample: _Sample, count: int, names_file: Path) -> int:
    text = sample.labels["cls"].decode("ascii", errors="replace").strip()
    if not text.isdecimal():
        raise DataError(f"{sample.key}.cls holds {text[:20]!r}, expected a class number")
    if int(text) >= count:
        raise DataError(f"{sample.key}.cls is class {text}, and {names_file} names {count} (numbers start at 0)")
    return int(text)


def _captions(sample: _Sample) -> list[str]:
    if "txt" in sample.labels:
        lines: list[Any] = sample.labels["txt"].decode("utf-8", errors="replace").splitlines()
    elif "json" in sample.labels:
        try:
            content = json.loads(sample.labels["json"])
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{sample.key}.json is not json ({error})") from error
        if isinstance(content, dict):
            content = content.get("captions") or content.get("caption") or content.get("text")
        lines = content if isinstance(content, list) else [content]
    else:
        lines = []
    return [" ".join(line.split()) for line in lines if isinstance(line, str) and line.strip()]


def _templates(folder: Path, path: Path) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    places = _beside(folder, path, "zeroshot_classification_templates.txt")
    file = next((one for one in places if one.is_file()), None)
    if file is None:
        return None, ()
    lines = [re.sub(r"\{c\}", "{}", line.strip()) for _, line in read_lines(file)]
    good = tuple(line for line in lines if "{}" in line)
    note = (f"{len(lines) - len(good)} prompts of {file.name} have no {{c}}: left out",)
    return good or None, note if len(good) < len(lines) else ()


def _images(members: list[tuple[str, _Member]], shards: list[Path]) -> Images:
    keys = tuple(key for key, _ in members)
    places = tuple(place for _, place in members)
    return Images(
        keys=keys,
        read=lambda number: load_image(places[number].read, max_megapixels=MAX_MEGAPIXELS),
        identity=lambda: digest_of([*(file_stamp(shard) for shard in shards), *keys]),
    )


READERS: tuple[Reader, ...] = (
    CLASSES.reader("classes", open_webdataset),
    CAPTIONS.reader("captions", open_webdataset_captions),
)
