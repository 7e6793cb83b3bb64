"""Read captioned images: a csv, the Karpathy splits of Flickr8k, Flickr30k and COCO, and their original annotations.

Retrieval papers report the splits of Karpathy and Fei-Fei (2015): 1,000 test images of Flickr8k and Flickr30k, 5,000 of
COCO, with five captions or a few more per image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from impart.errors import DataError
from impart.evaluate.datasets.annotations import Malformed, read_json, read_lines, records, table_name
from impart.evaluate.datasets.image_files import (
    ImageFinder,
    annotation_file,
    caption_set,
    captions_in_words,
    code_notes,
    optional_annotation,
    own_table,
    split_in_name,
)
from impart.evaluate.datasets.reader import OWN_FILES, DataSetInfo, Reader
from impart.evaluate.datasets.types import CaptionSet
from impart.readers.columns import Columns
from impart.readers.tables import samples_of_table

__all__ = ["READERS", "open_caption_table", "open_coco_captions", "open_flickr8k", "open_flickr30k"]

_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"

TABLE = DataSetInfo(
    name="captions",
    title="A table of captioned images",
    splits=(),
    files=("captions.csv with the columns file and caption (or text), and optionally split", "the images"),
    home=OWN_FILES,
)
FLICKR8K = DataSetInfo(
    name="flickr8k",
    title="Flickr8k",
    splits=("test", "val", "train"),
    files=(
        "dataset_flickr8k.json, or Flickr8k.token.txt with Flickr_8k.testImages.txt (devImages, trainImages)",
        "the images, in Flicker8k_Dataset, images, or beside it",
    ),
    home=f"{_KARPATHY} (images: https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k)",
)
FLICKR30K = DataSetInfo(
    name="flickr30k",
    title="Flickr30k",
    splits=("test", "val", "train", "all"),
    files=(
        "dataset_flickr30k.json, or results_20130124.token (split all)",
        "the images, in flickr30k-images, images, or beside it",
    ),
    home=f"{_KARPATHY} (images: https://shannon.cs.illinois.edu/DenotationGraph/)",
)
COCO = DataSetInfo(
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
_FLICKR8K_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images")
_FLICKR30K_FOLDERS = ("flickr30k-images", "flickr30k_images", "flickr30k-images/flickr30k-images")
_OWN_FOLDERS = ("images", ".")


def open_caption_table(path: Path | str, split: str | None = None, *, name: str | None = None) -> CaptionSet:
    """Open a table with a column of images (`file`, `image`, ...), one of captions, and optionally `split`.

    An image may have several rows, and a cell a list of captions.

    Args:
        path: the table, or the folder of `captions.csv`. The images are beside it, or in `images` beside it.
        split: keep only rows of this split.
        name: name in reports; defaults to the folder of the table, and the split.

    Raises:
        DataError: the table cannot be read, a column is missing, no row is left, or no image exists.
    """
    table = own_table(Path(path), "captions.csv", info=TABLE)
    columns = Columns(where={"split": split} if split is not None else {})
    rows: list[tuple[str, str]] = []
    strange: list[str] = []
    codes: list[str] = []
    for sample in samples_of_table(table, columns):
        if sample.problem:
            strange.append(sample.problem)
        elif sample.image is not None:
            rows += [(sample.path, text) for text in captions_in_words(sample.captions or sample.labels, codes)]
    coded = code_notes(codes, kept=len(rows), source=table)
    if not rows:
        where = f" with split {split!r}" if split else ""
        raise DataError(f"{table} has no captions{where}: expected the columns file and caption (or text)")
    finder = ImageFinder(folders=(table.parent, table.parent / "images"), source=table)
    notes = (f"{len(strange)} rows are left out, first: {strange[0]}",) if strange else ()
    return caption_set(name or table_name(table, split), rows, finder, notes=(*notes, *coded))


def open_flickr8k(path: Path, split: str | None = None) -> CaptionSet:
    """Open Flickr8k by the Karpathy split, or by its own token file and lists (the same images)."""
    split = FLICKR8K.split(split)
    karpathy = optional_annotation(path, "dataset_flickr8k.json")
    if karpathy is not None:
        return _open_karpathy(FLICKR8K, karpathy, split, _FLICKR8K_FOLDERS)
    token = annotation_file(path, ("Flickr8k.token.txt",), info=FLICKR8K)
    listed = annotation_file(token.parent, (f"Flickr_8k.{_FLICKR8K_LISTS[split]}.txt",), info=FLICKR8K)
    inside = {line.strip() for _, line in read_lines(listed)}
    bad = Malformed(token, "image.jpg#0, a tab, and the caption")
    rows = [(image, caption) for image, caption in _tokens(token, bad) if image in inside]
    finder = ImageFinder.near(token, *_FLICKR8K_FOLDERS, *_OWN_FOLDERS)
    return caption_set(f"flickr8k/{split}", rows, finder, notes=bad.notes())


def open_flickr30k(path: Path, split: str | None = None) -> CaptionSet:
    """Open Flickr30k by the Karpathy split, or all of it from the token file."""
    split = FLICKR30K.split(split)
    karpathy = optional_annotation(path, "dataset_flickr30k.json")
    if karpathy is not None:
        return _open_karpathy(FLICKR30K, karpathy, split, _FLICKR30K_FOLDERS)
    if split != "all":
        raise FLICKR30K.missing(f"{path} has no dataset_flickr30k.json, which defines the {split} split")
    token = annotation_file(path, ("results_20130124.token",), info=FLICKR30K)
    bad = Malformed(token, "image.jpg#0, a tab, and the caption")
    finder = ImageFinder.near(token, *_FLICKR30K_FOLDERS, *_OWN_FOLDERS)
    return caption_set(f"flickr30k/{split}", list(_tokens(token, bad)), finder, notes=bad.notes())


def open_coco_captions(path: Path, split: str | None = None) -> CaptionSet:
    """Open COCO captions by the Karpathy split (`test`: 5,000 images), or of a whole year (`val2017`).

    Without a split: the Karpathy test split if its file exists, else the year whose file exists.
    """
    split = split_in_name(path, split, prefix="captions_")
    if split is None:
        years = ("val2017", "val2014")
        there = [year for year in years if optional_annotation(path, f"captions_{year}.json") is not None]
        split = "test" if optional_annotation(path, "dataset_coco.json") or not there else there[0]
    split = COCO.split(split)
    if not split.endswith(("2014", "2017")):
        karpathy = annotation_file(path, ("dataset_coco.json",), info=COCO)
        return _open_karpathy(COCO, karpathy, split, ("val2014", "train2014"))
    file = annotation_file(path, (f"captions_{split}.json",), info=COCO)
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
    finder = ImageFinder.near(file, split, *_OWN_FOLDERS)
    return caption_set(f"coco-captions/{split}", rows, finder, notes=(*bad.notes(), *unknown))


def _open_karpathy(info: DataSetInfo, file: Path, split: str, folders: tuple[str, ...]) -> CaptionSet:
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
    finder = ImageFinder.near(file, *folders, *_OWN_FOLDERS)
    return caption_set(f"{info.name}/{split}", rows, finder, notes=bad.notes())


def _tokens(file: Path, bad: Malformed) -> Iterator[tuple[str, str]]:
    """Yield (image, caption) of the lines of a token file."""
    for number, line in read_lines(file, fallback="latin-1"):
        image, tab, caption = line.partition("\t")
        if tab:
            yield image.rpartition("#")[0] or image, caption
        else:
            bad.add(number, "no tab")


READERS: tuple[Reader, ...] = (
    TABLE.reader("captions", open_caption_table),
    FLICKR8K.reader("captions", open_flickr8k),
    FLICKR30K.reader("captions", open_flickr30k),
    COCO.reader("captions", open_coco_captions),
)
