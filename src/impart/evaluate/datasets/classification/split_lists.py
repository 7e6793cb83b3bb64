"""Read classification sets with one list per split: Food-101, SUN397, FGVC Aircraft, DTD, Oxford Pets, ImageNet.

The files have the layout of the unpacked archive, or are class folders in one folder per split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from impart.evaluate.datasets.annotations import Malformed, read_lines, read_table
from impart.evaluate.datasets.classification.folder import open_known_folder, split_folder
from impart.evaluate.datasets.classification.imagenet_v2 import has_numbered_classes, open_imagenet_v2
from impart.evaluate.datasets.image_files import ImageFinder, class_set, find_root
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet

__all__ = ["READERS"]

_Rows = Iterable[tuple[str, str]]  # (file name of the image, key of its class)


@dataclass(frozen=True, kw_only=True)
class _ListedSet:
    """Description of a set, with the places of its lists and images.

    Attributes:
        info: the files needed and where they are published.
        lists: split -> its list, in one of `roots`.
        roots: folders where the archive may be unpacked, below the given path.
        images: folders of the images, below the root or the given path.
        rows: reads a list.
    """

    info: DataSetInfo
    lists: Mapping[str, str]
    roots: tuple[str, ...]
    images: tuple[str, ...]
    rows: Callable[[Path, Malformed], _Rows]

    def open(self, path: Path, split: str | None = None) -> ClassSet:
        """Open one split, from its list or from class folders.

        Raises:
            DataError: neither exists, a line names an unknown class, or no image exists.
        """
        wanted = self.info.split(split)
        root = find_root(path, self.roots, self.lists[wanted]) if wanted in self.lists else None
        if root is None:
            return open_known_folder(self.info, path, split, lacking=self.lists.get(wanted, f"folder {wanted}"))
        source = root / self.lists[wanted]
        bad = Malformed(source, "one image per line, as published")
        finder = ImageFinder(folders=tuple(one / name for one in (root, path) for name in self.images), source=source)
        return class_set(self.info, wanted, self.rows(source, bad), finder, bad)


def _food(source: Path, bad: Malformed) -> Iterator[tuple[str, str]]:  # noqa: ARG001
    """Read lines such as `apple_pie/1005649`."""
    for _, line in read_lines(source):
        yield f"{line.strip()}.jpg", line.strip().partition("/")[0]


def _sun(source: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    """Read lines such as `/a/abbey/sun_aakbdcgfpksytcwj.jpg`."""
    for number, line in read_lines(source):
        name = line.strip().lstrip("/")
        key = name.rpartition("/")[0]
        if key:
            yield name, key
        else:
            bad.add(number, "no folder in the name")


def _aircraft(source: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    """Read lines such as `1514522 707-320`."""
    for number, line in read_lines(source):
        name, space, variant = line.strip().partition(" ")
        if space:
            yield f"{name}.jpg", variant.strip()
        else:
            bad.add(number, "no variant")


def _dtd(source: Path, bad: Malformed) -> Iterator[tuple[str, str]]:  # noqa: ARG001
    """Read lines such as `banded/banded_0002.jpg`."""
    for _, line in read_lines(source):
        yield line.strip(), line.strip().partition("/")[0]


def _pets(source: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    """Read lines such as `Abyssinian_201 1 1 1`: image, class, species, number of the breed within the species."""
    for number, line in read_lines(source):
        name, *numbers = line.split()
        if name.startswith("#"):
            continue
        if len(numbers) == 3 and "_" in name:
            yield f"{name}.jpg", name.rpartition("_")[0]
        else:
            bad.add(number, f"{len(numbers) + 1} columns")


def _imagenet(source: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    """Read rows such as `ILSVRC2012_val_00048981,n03995372 85 1 499 272`."""
    for number, row in read_table(source, ["ImageId", "PredictionString"]):
        if row["ImageId"] and row["PredictionString"]:
            yield f"{row['ImageId']}.JPEG", row["PredictionString"].split()[0]
        else:
            bad.add(number, "an empty cell")


FOOD101 = _ListedSet(
    info=DataSetInfo(
        name="food101",
        title="Food-101",
        splits=("test", "train"),
        files=("food-101.tar.gz unpacked: meta/test.txt and images/<class>/<number>.jpg", "or class folders"),
        home="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    lists={"test": "meta/test.txt", "train": "meta/train.txt"},
    roots=("", "food-101"),
    images=("images",),
    rows=_food,
)
SUN397 = _ListedSet(
    info=DataSetInfo(
        name="sun397",
        title="SUN397 (the first of its ten partitions)",
        splits=("test", "train"),
        files=("SUN397.tar.gz unpacked", "Testing_01.txt and Training_01.txt of Partitions.zip", "or class folders"),
        home="https://vision.princeton.edu/projects/2010/SUN/",
    ),
    lists={"test": "Testing_01.txt", "train": "Training_01.txt"},
    roots=("", "Partitions", "SUN397", "SUN397/Partitions"),
    images=("", "SUN397", "images"),
    rows=_sun,
)
AIRCRAFT = _ListedSet(
    info=DataSetInfo(
        name="aircraft",
        title="FGVC Aircraft",
        splits=("test", "val", "train", "trainval"),
        files=(
            "fgvc-aircraft-2013b.tar.gz unpacked: data/images_variant_test.txt and data/images/<number>.jpg",
            "or class folders",
        ),
        home="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    ),
    lists={split: f"images_variant_{split}.txt" for split in ("test", "val", "train", "trainval")},
    roots=("", "data", "fgvc-aircraft-2013b/data"),
    images=("images",),
    rows=_aircraft,
)
DTD = _ListedSet(
    info=DataSetInfo(
        name="dtd",
        title="DTD (the first of its ten partitions)",
        splits=("test", "val", "train"),
        files=("dtd-r1.0.1.tar.gz unpacked: labels/test1.txt and images/<class>/<class>_0002.jpg", "or class folders"),
        home="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    ),
    lists={split: f"labels/{split}1.txt" for split in ("test", "val", "train")},
    roots=("", "dtd"),
    images=("images",),
    rows=_dtd,
)
PETS = _ListedSet(
    info=DataSetInfo(
        name="pets",
        title="Oxford-IIIT Pets",
        splits=("test", "trainval"),
        files=(
            "annotations.tar.gz unpacked: annotations/test.txt and annotations/trainval.txt",
            "images.tar.gz unpacked: images/Abyssinian_201.jpg",
            "or class folders",
        ),
        home="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    lists={split: f"annotations/{split}.txt" for split in ("test", "trainval")},
    roots=("", "oxford-iiit-pet"),
    images=("images",),
    rows=_pets,
)
IMAGENET = _ListedSet(
    info=DataSetInfo(
        name="imagenet",
        title="ImageNet-1k",
        splits=("val", "train"),
        files=(
            "val/<wnid>/*.JPEG, one folder per class",
            "or LOC_val_solution.csv with ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG",
        ),
        home="https://www.image-net.org/challenges/LSVRC/2012/ "
        "(csv: https://www.kaggle.com/c/imagenet-object-localization-challenge)",
    ),
    lists={"val": "LOC_val_solution.csv"},
    roots=("",),
    images=("ILSVRC/Data/CLS-LOC/val", "val"),
    rows=_imagenet,
)


def _open_imagenet(path: Path, split: str | None = None) -> ClassSet:
    """Open ImageNet-1k, or ImageNet-V2, whose folders are numbered; a split of ImageNet-1k may be numbered, too."""
    if path.is_dir() and has_numbered_classes(path):
        return open_imagenet_v2(path)
    folder = split_folder(path, split or IMAGENET.info.splits[0])
    if folder is not None and has_numbered_classes(folder):
        return replace(open_imagenet_v2(folder), name=f"{IMAGENET.info.name}/{folder.name}")
    return IMAGENET.open(path, split)


READERS: tuple[Reader, ...] = (
    *(one.info.reader("classes", one.open) for one in (FOOD101, SUN397, AIRCRAFT, DTD, PETS)),
    IMAGENET.info.reader("classes", _open_imagenet),
)
