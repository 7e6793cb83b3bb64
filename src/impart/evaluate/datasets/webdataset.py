"""Read WebDataset folders in the layout that CLIP benchmarks publish.

    classnames.txt                           one class name per line, in the order of the class numbers
    zeroshot_classification_templates.txt    one prompt per line, `{c}` for the class name
    test/nshards.txt, test/0.tar, 1.tar ...  members KEY.jpg (png, webp) with KEY.cls; retrieval: KEY.txt or KEY.json

The members of a shard are listed once; an image is read from its shard on demand.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from impart.errors import DataError
from impart.evaluate.datasets.annotations import read_lines, read_text
from impart.evaluate.datasets.image_files import captions_in_words, code_notes
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import MAX_MEGAPIXELS, CaptionSet, ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.images import load_image
from impart.readers.class_names import ClassNames
from impart.readers.names import equal_names
from impart.readers.webdataset import Member, ShardSample, notes_on, read_shard, shard_files

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


def open_webdataset(path: Path, split: str | None = None) -> ClassSet:
    """Open images with classes.

    Args:
        path: the folder of `classnames.txt`.
        split: name of the folder of shards in it; None = `test`, or the folder itself.

    Raises:
        DataError: files are missing, a shard is damaged, or a class number has no name.
    """
    folder = _shard_folder(path, split, CLASSES)
    names = ClassNames.beside(folder, ("classnames.txt",)) or ClassNames.beside(path, ("classnames.txt",))
    if names is None:
        raise CLASSES.missing(f"{path} has no classnames.txt")
    shards = _shards(folder, CLASSES)
    labels: list[int] = []
    images: list[tuple[str, Member]] = []
    bare = 0
    samples, left_out = _samples(shards)
    for key, sample in samples:
        if sample.image is None or not sample.cls:
            bare += 1
            continue
        labels.append(_class_number(key, sample.cls, names))
        images.append((key, sample.image))
    if not images:
        raise DataError(f"{folder} has no sample with an image and a .cls: for captions use webdataset-captions:PATH")
    templates, notes = _templates(folder, path)
    return ClassSet(
        name=_name(folder, path),
        images=_images(images, shards),
        labels=np.asarray(labels, dtype=np.int64),
        classes=names.names,
        templates=templates,
        notes=(*notes, *equal_names(names.names), *_bare(bare, ".cls"), *left_out),
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
    images: list[tuple[str, Member]] = []
    bare, problem = 0, ""
    codes: list[str] = []
    samples, left_out = _samples(shards)
    for key, sample in samples:
        if sample.image is None or not sample.captions:
            bare += 1
            problem = problem or sample.problem
            continue
        texts = captions_in_words(sample.captions, codes)
        if not texts:
            continue
        owners += [len(images)] * len(texts)
        captions += texts
        images.append((key, sample.image))
    coded = code_notes(codes, kept=len(images), source=folder)
    if not images:
        reason = f": {problem}" if problem else ""
        raise DataError(f"{folder} has no sample with an image and a caption (.txt or .json){reason}")
    return CaptionSet(
        name=_name(folder, path),
        images=_images(images, shards),
        captions=tuple(captions),
        owners=np.asarray(owners, dtype=np.int64),
        notes=(*_bare(bare, "caption", problem), *coded, *left_out),
    )


def _bare(count: int, what: str, problem: str = "") -> tuple[str, ...]:
    reason = f", such as: {problem}" if problem else ""
    return (f"{count} samples without an image or a {what} are left out{reason}",) if count else ()


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
    if not shard_files(path) and (path / "test").is_dir():
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
        shards = sorted(shard_files(folder), key=lambda shard: (len(shard.name), shard.name))
    if not shards:
        raise info.missing(f"{folder} has no .tar")
    return shards


def _samples(paths: list[Path]) -> tuple[list[tuple[str, ShardSample]], tuple[str, ...]]:
    """Return the (key, sample) of every shard in order, and notes on what is left out."""
    shards = [read_shard(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        if shard.damage is not None:
            raise DataError(f"{path} is damaged or no plain tar archive ({shard.damage}): download or unpack it again")
    samples = [
        (f"{path.name}:{sample.key}", sample)
        for path, shard in zip(paths, shards, strict=True)
        for sample in shard.samples
    ]
    return samples, tuple(notes_on(shards))


def _class_number(key: str, text: str, names: ClassNames) -> int:
    if not text.isdecimal():
        raise DataError(f"{key}.cls holds {text[:20]!r}, expected a class number")
    if int(text) >= len(names.names):
        raise DataError(f"{key}.cls is class {text}, and {names.file} names {len(names.names)} (numbers start at 0)")
    return int(text)


def _templates(folder: Path, path: Path) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    places = _beside(folder, path, "zeroshot_classification_templates.txt")
    file = next((one for one in places if one.is_file()), None)
    if file is None:
        return None, ()
    lines = [re.sub(r"\{c\}", "{}", line.strip()) for _, line in read_lines(file)]
    good = tuple(line for line in lines if "{}" in line)
    note = (f"{len(lines) - len(good)} prompts of {file.name} have no {{c}}: left out",)
    return good or None, note if len(good) < len(lines) else ()


def _images(members: list[tuple[str, Member]], shards: list[Path]) -> Images:
    keys = tuple(key for key, _ in members)
    places = tuple(place for _, place in members)
    return Images(
        keys=keys,
        read=lambda number: load_image(places[number], max_megapixels=MAX_MEGAPIXELS),
        identity=lambda: digest_of([*(file_stamp(shard) for shard in shards), *keys]),
    )


READERS: tuple[Reader, ...] = (
    CLASSES.reader("classes", open_webdataset),
    CAPTIONS.reader("captions", open_webdataset_captions),
)
