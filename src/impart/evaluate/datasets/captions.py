"""Captioned images: a csv, the Karpathy splits of Flickr8k, Flickr30k and COCO, and the original annotation files.

The splits that retrieval papers report are those of Karpathy and Fei-Fei (2015): 1,000 test images of Flickr8k and
Flickr30k, 5,000 of COCO, with five captions or a few more each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from impart.errors import DataError
from impart.evaluate.datasets.annotations import Malformed, read_json, read_lines, read_table, records
from impart.evaluate.datasets.image_files import ImageFinder, annotation_file, caption_set, optional_annotation
from impart.evaluate.datasets.reader import Published, Reader
from impart.evaluate.datasets.types import CaptionSet

__all__ = ["READERS", "open_caption_table", "open_coco_captions", "open_flickr8k", "open_flickr30k"]

_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"

TABLE = Published(
    name="captions",
    title="A table of captioned images",
    splits=(),
    files=("captions.csv with the columns file and caption (or text), and optionally split", "the images"),
    home="nowhere: you write it",
)
FLICKR8K = Published(
    name="flickr8k",
    title="Flickr8k",
    splits=("test", "val", "train"),
    files=(
        "dataset_flickr8k.json, or Flickr8k.token.txt with Flickr_8k.testImages.txt (devImages, trainImages)",
        "the images, in Flicker8k_Dataset, images, or beside it",
    ),
    home=f"{_KARPATHY} (images: https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k)",
)
FLICKR30K = Published(
    name="flickr30k",
    title="Flickr30k",
    splits=("test", "val", "train", "all"),
    files=(
        "dataset_flickr30k.json, or results_20130124.token (split all)",
        "the images, in flickr30k-images, images, or beside it",
    ),
    home=f"{_KARPATHY} (images: https://shannon.cs.illinois.edu/DenotationGraph/)",
)
COCO = Published(
    name="coco-captions",
    title="COCO captions",
    splits=("test", "val", "train", "restval", "val2017", "train2017", "val2014", "train2014"),
    files=(
        "dataset_coco.json (splits test, val, train, restval of Karpathy) or annotations/captions_val2017.json",
        "the images, in val2014 and train2014, or val2017",
    ),
    home=f"{_KARPATHY}; https://cocodataset.org/#download",
)
_FLICKR8K_LISTS = {"test": "testImages", "val": "devImages", "train": "trainImages"}


def open_caption_table(path: Path | str, split: str | None = None, *, name: str | None = None) -> CaptionSet:
    """A csv with the columns `file` and `caption` (or `text`), and optionally `split`; an image may have several rows.

    Args:
        path: the csv, or the folder of `captions.csv`; images lie in `images` beside it, or beside it.
        split: keep only rows of this split.
        name: for reports; defaults to the table's folder, and the split.

    Raises:
        DataError: the table cannot be read, a column is missing, no row is left, or no image is there.
    """
    table = Path(path)
    if table.is_dir():
        table = annotation_file(table, ("captions.csv",), published=TABLE)
    elif not table.is_file():
        raise TABLE.missing(f"{table} does not exist")
    rows = []
    for _, row in read_table(table, ["file"]):
        caption = row.get("caption") or row.get("text") or ""
        if row["file"] and caption and (split is None or row.get("split") == split):
            rows.append((row["file"], caption))
    if not rows:
        where = f" with split {split!r}" if split else ""
        raise DataError(f"{table} has no captions{where}: expected the columns file and caption (or text)")
    folder = table.resolve().parent
    finder = ImageFinder(folders=(table.parent / "images", table.parent), source=table)
    return caption_set(name or folder.name + (f"/{split}" if split else ""), rows, finder)


def open_flickr8k(path: Path, split: str | None = None) -> CaptionSet:
    """Flickr8k by the Karpathy split, or by its own token file and lists (the same images)."""
    split = FLICKR8K.split(split)
    name = f"flickr8k/{split}"
    folders = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images")
    karpathy = optional_annotation(path, "dataset_flickr8k.json")
    if karpathy is not None:
        return _open_karpathy(name, karpathy, split, folders)
    token = annotation_file(path, ("Flickr8k.token.txt",), published=FLICKR8K)
    listed = annotation_file(token.parent, (f"Flickr_8k.{_FLICKR8K_LISTS[split]}.txt",), published=FLICKR8K)
    inside = {line.strip() for _, line in read_lines(listed)}
    bad = Malformed(token, "image.jpg#0, a tab, and the caption")
    rows = [(image, caption) for image, caption in _tokens(token, bad) if image in inside]
    return caption_set(name, rows, _finder(token, folders), notes=bad.notes())


def open_flickr30k(path: Path, split: str | None = None) -> CaptionSet:
    """Flickr30k by the Karpathy split, or all of it from the token file."""
    split = FLICKR30K.split(split)
    name = f"flickr30k/{split}"
    folders = ("flickr30k-images", "flickr30k_images", "flickr30k-images/flickr30k-images")
    karpathy = optional_annotation(path, "dataset_flickr30k.json")
    if karpathy is not None:
        return _open_karpathy(name, karpathy, split, folders)
    if split != "all":
        raise FLICKR30K.missing(f"{path} holds no dataset_flickr30k.json, which says what the {split} split is")
    token = annotation_file(path, ("results_20130124.token",), published=FLICKR30K)
    bad = Malformed(token, "image.jpg#0, a tab, and the caption")
    return caption_set(name, list(_tokens(token, bad)), _finder(token, folders), notes=bad.notes())


def open_coco_captions(path: Path, split: str | None = None) -> CaptionSet:
    """COCO captions by the Karpathy split (`test`: 5,000 images), or of a whole year (`val2017`).

    Without a split: the Karpathy test where its file is there, else the file that is.
    """
    if split is None and path.is_file() and path.stem.startswith("captions_"):
        split = path.stem.removeprefix("captions_")
    if split is None:
        years = ("val2017", "val2014")
        there = [year for year in years if optional_annotation(path, f"captions_{year}.json") is not None]
        split = "test" if optional_annotation(path, "dataset_coco.json") or not there else there[0]
    split = COCO.split(split)
    name = f"coco-captions/{split}"
    if not split.endswith(("2014", "2017")):
        karpathy = annotation_file(path, ("dataset_coco.json",), published=COCO)
        return _open_karpathy(name, karpathy, split, ("val2014", "train2014"))
    file = annotation_file(path, (f"captions_{split}.json",), published=COCO)
    data = read_json(file, dict)
    bad = Malformed(file, "images with id and file_name, annotations with image_id and caption", unit="entry")
    files = {image["id"]: str(image["file_name"]) for _, image in records(data.get("images"), ("id", "file_name"), bad)}
    rows, strange = [], 0
    for _, annotation in records(data.get("annotations"), ("image_id", "caption"), bad):
        if annotation["image_id"] in files:
            rows.append((files[annotation["image_id"]], str(annotation["caption"])))
        else:
            strange += 1
    unknown = (f"{strange} captions are of images that {file.name} does not list: left out",) if strange else ()
    return caption_set(name, rows, _finder(file, (split,)), notes=(*bad.notes(), *unknown))


def _open_karpathy(name: str, file: Path, split: str, folders: tuple[str, ...]) -> CaptionSet:
    bad = Malformed(file, "images with filename, split and sentences, each with raw", unit="image")
    rows: list[tuple[str, str]] = []
    for number, image in records(read_json(file, dict).get("images"), ("filename", "split", "sentences"), bad):
        if split not in (image["split"], "all"):
            continue
        file_name = str(image["filename"])
        if image.get("filepath"):
            file_name = f"{image['filepath']}/{file_name}"
        try:
            rows += [(file_name, str(sentence["raw"])) for sentence in image["sentences"]]
        except (KeyError, TypeError):
            bad.add(number, f"{file_name} has a sentence without raw")
    return caption_set(name, rows, _finder(file, folders), notes=bad.notes())


def _tokens(file: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(file, fallback="latin-1"):
        image, tab, caption = line.partition("\t")
        if tab:
            yield image.rpartition("#")[0] or image, caption
        else:
            bad.add(number, "no tab")


def _finder(file: Path, folders: tuple[str, ...]) -> ImageFinder:
    """Images below the folder of the annotation file, or below the folder above it."""
    roots = (file.parent, file.parent.parent)
    places = [root / folder for root in roots for folder in (*folders, "images", ".")]
    return ImageFinder(folders=tuple(places), source=file)


READERS: tuple[Reader, ...] = (
    TABLE.reader("captions", open_caption_table),
    FLICKR8K.reader("captions", open_flickr8k),
    FLICKR30K.reader("captions", open_flickr30k),
    COCO.reader("captions", open_coco_captions),
)
