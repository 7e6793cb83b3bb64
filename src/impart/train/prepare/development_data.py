"""Read the training images of `mini` with their texts from the development data.

Sources (see the data's README for licences): Flickr8k `train`, OpenStax, the ImageNet sample, and every folder of
`images/more`. Reading an evaluation set for training is an error.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from impart.errors import DataError

__all__ = ["FORBIDDEN", "TrainingImage", "read_classes", "read_images", "read_more", "read_validation", "tidy"]

FORBIDDEN = frozenset({"cifar10", "cifar100", "caltech101", "tiny_imagenet32", "coco", "panda", "misc"})
"""Evaluation data: neither trained nor tuned on."""

_MAX_WORDS = 60
_NAMES_IN_TEXT2 = frozenset({"fashion_products", "zukan"})
_PROSE = frozenset({"openstax2", "philschatz_biology", "sites"})
"""Folders of `more` whose second text is a caption; elsewhere it is a credit, an instruction or a recipe."""
_CREDIT = re.compile(r"\((?:credit|figure|image|photo)[^)]*\)|^by .*(?:CC|commons|public domain).*", re.IGNORECASE)
_OPENING = re.compile(
    r"^(?:this |the |an? )?(?:photo(?:graph)?|image|picture|figure|illustration)s?(?: [a-z])?"
    r" (?:shows?|of|depicts?|is of|displays?)(?: that| how)? ",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class TrainingImage:
    """One training image.

    Attributes:
        path: the file.
        source: name of its folder, for balancing and for the model card.
        texts: captions or names, at least one; one is drawn at random each time.
    """

    path: Path
    source: str
    texts: tuple[str, ...]


def read_images(data: Path) -> list[TrainingImage]:
    """List all training images below `data`, in a fixed order.

    Args:
        data: the folder with `images/`.

    Raises:
        DataError: a folder is missing or has no usable row.
    """
    images = list(_flickr(data, split="train"))
    images += _openstax(data)
    images += read_more(data / "images" / "more")
    _check_training(images, data)
    return images


def read_more(folder: Path) -> list[TrainingImage]:
    """List the images of a folder of sources: every folder in it has `images/` and `captions.csv`.

    Raises:
        DataError: a folder is missing or has no usable row, or is named like evaluation data.
    """
    try:
        sources = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}; it should have one folder per source") from error
    images = [image for source in sources for image in _more(source)]
    _check_training(images, folder)
    return images


def _check_training(images: Sequence[TrainingImage], root: Path) -> None:
    for image in images:
        if FORBIDDEN & {part.lower() for part in image.path.relative_to(root).parts}:
            raise DataError(f"{image.path} is evaluation data: it must not be trained on")


def read_validation(data: Path) -> list[TrainingImage]:
    """List Flickr8k `val`, the only images on which settings may be chosen."""
    return list(_flickr(data, split="val"))


def read_classes(data: Path) -> list[tuple[Path, str, str]]:
    """List the ImageNet sample: file, wnid and label of one image per class, in the classifier's order."""
    folder = data / "images" / "imagenet_sample"
    rows = [(folder / "images" / row["file"], row["wnid"], row["label"]) for row in _rows(folder / "labels.csv")]
    return sorted(rows, key=lambda row: row[1])


def tidy(text: str) -> str:
    """Remove credits and `This photo shows` from a text, and cut it to 60 words.

    >>> tidy("This photo shows two white-clad men riding camels. (credit: A. Person/flickr)")
    'two white-clad men riding camels.'
    """
    text = " ".join(_CREDIT.sub("", text.replace("_", " ")).split())
    text = _OPENING.sub("", text)
    return " ".join(text.split()[:_MAX_WORDS]).strip(" >\"'")


def _flickr(data: Path, *, split: str) -> Iterator[TrainingImage]:
    folder = data / "images" / "flickr8k"
    captions: dict[str, list[str]] = {}
    for row in _rows(folder / "captions.csv"):
        if row["split"] == split:
            captions.setdefault(row["file"], []).append(row["caption"].strip())
    for file, texts in captions.items():
        yield TrainingImage(path=folder / "images" / file, source="flickr8k", texts=tuple(texts))


def _openstax(data: Path) -> Iterator[TrainingImage]:
    folder = data / "images" / "openstax"
    for row in _rows(folder / "captions.csv"):
        texts = _distinct(row["alt"], row["caption"])
        if texts:
            yield TrainingImage(path=folder / "images" / row["file"], source="openstax", texts=texts)


def _more(folder: Path) -> Iterator[TrainingImage]:
    texts_of: dict[str, list[str]] = {}
    for row in _rows(folder / "captions.csv"):
        texts = texts_of.setdefault(row["file"], [])
        texts.append(row["text"])
        extra = row.get("text2") or ""
        if (
            extra.startswith("a photo of")
            or folder.name in _NAMES_IN_TEXT2
            or (len(extra) > 20 and folder.name in _PROSE)
        ):
            texts.append(extra)
    for file, own in texts_of.items():
        if distinct := _distinct(*own):
            yield TrainingImage(path=folder / "images" / file, source=folder.name, texts=distinct)


def _distinct(*texts: str) -> tuple[str, ...]:
    """Tidy texts, and drop empty and equal ones."""
    return tuple(dict.fromkeys(tidied for text in texts if len(tidied := tidy(text)) > 1))


def _rows(path: Path) -> list[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows: list[Mapping[str, str]] = list(csv.DictReader(lines))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; --data names the folder with images/ in it") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows
