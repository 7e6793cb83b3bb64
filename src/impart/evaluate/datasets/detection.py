"""Read images with labelled boxes: COCO and LVIS instances, or a csv.

Boxes are fractions of the width and height. A box is clipped to its image. Empty boxes and boxes around crowds are left
out. All of these are counted in the notes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from impart.errors import DataError
from impart.evaluate.datasets.annotations import Malformed, read_json, read_table, records, table_name
from impart.evaluate.datasets.image_files import ImageFinder, annotation_file, own_table, split_in_name
from impart.evaluate.datasets.reader import OWN_FILES, DataSetInfo, Reader
from impart.evaluate.datasets.types import BoxSet, Images
from impart.readers.names import label_text

__all__ = ["READERS", "clip_box", "open_box_table", "open_coco", "open_lvis"]

TABLE = DataSetInfo(
    name="boxes",
    title="A table of boxes",
    splits=(),
    files=("boxes.csv with the columns file, label, x0, y0, x1, y1 (fractions of width and height)", "the images"),
    home=OWN_FILES,
)
COCO = DataSetInfo(
    name="coco",
    title="COCO detection",
    splits=("val2017", "train2017", "val2014", "train2014"),
    files=("annotations/instances_val2017.json", "the images, in val2017"),
    home="https://cocodataset.org/#download",
)
LVIS = DataSetInfo(
    name="lvis",
    title="LVIS",
    splits=("val", "train"),
    files=("lvis_v1_val.json", "the images of COCO, in val2017 and train2017"),
    home="https://www.lvisdataset.org/dataset",
)
_TOLERANCE_PX = 0.5  # a box that rounding moved over the edge is not counted as clipped
_TOLERANCE = 1e-3  # the same for fractions


class _Box(NamedTuple):
    """A box as in the annotation file, with the excess per axis that is not counted as clipped."""

    image: str
    label: int
    corners: tuple[float, float, float, float]  # fractions, not clipped yet
    tolerance: tuple[float, float] = (_TOLERANCE, _TOLERANCE)


@dataclass
class _Counts:
    """Numbers of boxes that were clipped or left out."""

    crowds: int = 0
    clipped: int = 0
    empty: int = 0
    unknown: int = 0

    def notes(self) -> tuple[str, ...]:
        """Return a note per number that is not 0."""
        counted = (
            (self.crowds, "boxes around crowds are left out"),
            (self.clipped, "boxes stick out of their image and are clipped"),
            (self.empty, "boxes are empty, or outside of their image, and left out"),
            (self.unknown, "boxes are of an image or category that the file does not list, and left out"),
        )
        return tuple(f"{count} {what}" for count, what in counted if count)


def clip_box(corners: Sequence[float]) -> tuple[float, float, float, float] | None:
    """Clip a box (x0, y0, x1, y1) to the image [0, 1] x [0, 1]; None if nothing is left.

    >>> clip_box((-0.25, 0.5, 0.5, 1.5))
    (0.0, 0.5, 0.5, 1.0)
    >>> clip_box((1.0, 0.0, 1.5, 1.0)) is None
    True
    """
    x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in corners)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def open_coco(path: Path, split: str | None = None) -> BoxSet:
    """Open COCO instances of a year, such as `val2017`.

    Raises:
        DataError: the annotations are missing or malformed, or no image exists.
    """
    split = COCO.split(split_in_name(path, split, prefix="instances_"))
    file = annotation_file(path, (f"instances_{split}.json",), info=COCO)
    finder = ImageFinder.near(file, split, "images", f"images/{split}", ".")
    return _from_instances(f"coco/{split}", file, finder)


def open_lvis(path: Path, split: str | None = None) -> BoxSet:
    """Open LVIS v1: images of COCO, with the frequency of every category.

    Raises:
        DataError: the annotations are missing or malformed, or no image exists.
    """
    split = LVIS.split(split_in_name(path, split, prefix="lvis_v1_"))
    file = annotation_file(path, (f"lvis_v1_{split}.json",), info=LVIS)
    return _from_instances(f"lvis/{split}", file, ImageFinder.near(file, ".", "images", "coco"))


def open_box_table(path: Path, split: str | None = None) -> BoxSet:
    """Open a csv with the columns `file`, `label`, `x0`, `y0`, `x1`, `y1` (fractions), and optionally `split`.

    Raises:
        DataError: the table cannot be read, a column is missing, no row is left, or no image exists.
    """
    table = own_table(path, "boxes.csv", info=TABLE)
    bad = Malformed(table, "file,label,x0,y0,x1,y1 with x0 < x1 and y0 < y1 as fractions")
    rows: list[tuple[str, str, tuple[float, float, float, float]]] = []
    for line, row in read_table(table, ["file", "label", "x0", "y0", "x1", "y1"]):
        if split is not None and row.get("split") != split:
            continue
        try:
            x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
        except ValueError:
            bad.add(line, "a corner is not a number")
            continue
        if not row["file"] or not row["label"] or not all(map(math.isfinite, (x0, y0, x1, y1))):
            bad.add(line, "an empty cell, or a corner that is not finite")
            continue
        rows.append((row["file"], row["label"], (x0, y0, x1, y1)))
    notes = bad.notes()
    if not rows:
        raise DataError(f"{table} has no boxes" + (f" with split {split!r}" if split else ""))
    categories = tuple(sorted({label for _, label, _ in rows}))
    numbers = {label: number for number, label in enumerate(categories)}
    boxes = [_Box(file, numbers[label], corners) for file, label, corners in rows]
    finder = ImageFinder(folders=(table.parent / "images", table.parent), source=table)
    return _box_set(table_name(table, split), boxes, finder, _Counts(), categories=categories, notes=notes)


def _from_instances(name: str, file: Path, finder: ImageFinder) -> BoxSet:
    data = read_json(file, dict)
    bad = Malformed(
        file,
        "images (id, width, height), annotations (image_id, category_id, bbox), categories (id, name)",
        unit="entry",
    )
    images = {image["id"]: image for _, image in records(data.get("images"), ("id", "width", "height"), bad)}
    listed = [one for _, one in records(data.get("categories"), ("id", "name"), bad)]
    listed.sort(key=lambda category: category["id"])
    numbers = {category["id"]: number for number, category in enumerate(listed)}
    counts = _Counts()
    boxes: list[_Box] = []
    for number, entry in records(data.get("annotations"), ("image_id", "category_id", "bbox"), bad):
        if entry.get("iscrowd"):
            counts.crowds += 1
            continue
        image = images.get(entry["image_id"])
        label = numbers.get(entry["category_id"])
        if image is None or label is None:
            counts.unknown += 1
            continue
        try:
            boxes.append(_pixel_box(entry["bbox"], image, label))
        except (TypeError, ValueError, ZeroDivisionError):
            bad.add(number, f"bbox {entry['bbox']!r} in an image of {image['width']} x {image['height']}")
    notes = bad.notes()
    frequency = tuple(str(category.get("frequency", "")) for category in listed)
    return _box_set(
        name,
        boxes,
        finder,
        counts,
        categories=tuple(label_text(str(category["name"])) for category in listed),
        frequency=frequency if all(letter in ("r", "c", "f") for letter in frequency) else None,
        notes=notes,
    )


def _pixel_box(bbox: Any, image: dict[str, Any], label: int) -> _Box:
    """Convert a box of left, top, width and height in pixels to fractions of its image."""
    x, y, width, height = (float(value) for value in bbox)
    across, down = float(image["width"]), float(image["height"])
    if not all(map(math.isfinite, (x, y, width, height))) or min(across, down) <= 0:
        raise ValueError
    corners = (x / across, y / down, (x + width) / across, (y + height) / down)
    return _Box(_file_of(image), label, corners, (_TOLERANCE_PX / across, _TOLERANCE_PX / down))


def _file_of(image: dict[str, Any]) -> str:
    """Return `file_name`, or folder and name from `coco_url`, since LVIS has no `file_name`."""
    if image.get("file_name"):
        return str(image["file_name"])
    return "/".join(str(image["coco_url"]).split("/")[-2:]) if image.get("coco_url") else f"{image['id']:012d}.jpg"


def _box_set(
    name: str,
    boxes: Iterable[_Box],
    finder: ImageFinder,
    counts: _Counts,
    *,
    categories: tuple[str, ...],
    frequency: tuple[str, ...] | None = None,
    notes: Sequence[str] = (),
) -> BoxSet:
    """Make a set of boxes, without missing images and empty boxes.

    Raises:
        DataError: no box is left, or no image exists.
    """
    numbers: dict[Path, int] = {}
    owners: list[int] = []
    labels: list[int] = []
    kept: list[tuple[float, float, float, float]] = []
    for box in boxes:
        image = finder.find(box.image)
        if image is None:
            continue
        clipped = clip_box(box.corners)
        if clipped is None:
            counts.empty += 1
            continue
        slack = (*box.tolerance, *box.tolerance)
        counts.clipped += any(
            abs(was - now) > least for was, now, least in zip(box.corners, clipped, slack, strict=True)
        )
        owners.append(numbers.setdefault(image, len(numbers)))
        labels.append(box.label)
        kept.append(clipped)
    missing = finder.notes()
    if not kept:
        left_out = "; ".join((*notes, *counts.notes()))
        raise DataError(f"{finder.source} has no boxes for {name}: {left_out or 'it lists none'}")
    return BoxSet(
        name=name,
        images=Images.of_files(tuple(numbers)),
        owners=np.asarray(owners, dtype=np.int64),
        boxes=np.asarray(kept, dtype=np.float64),
        labels=np.asarray(labels, dtype=np.int64),
        categories=categories,
        frequency=frequency,
        notes=(*notes, *counts.notes(), *missing),
    )


READERS: tuple[Reader, ...] = (
    TABLE.reader("boxes", open_box_table),
    COCO.reader("boxes", open_coco),
    LVIS.reader("boxes", open_lvis),
)
