"""Readers of boxes of COCO, LVIS and tables: fractions of the image; clipped and left-out boxes are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.image_sets import image
from impart.errors import DataError
from impart.evaluate import BoxSet, open_set


def opened(spec: Path | str, split: str | None = None) -> BoxSet:
    dataset = open_set(spec, split=split, kind="boxes")
    assert isinstance(dataset, BoxSet)
    return dataset


def annotation(number: int, image: int, category: int, bbox: list[float], *, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "iscrowd": crowd,
        "area": 1.0,
        "segmentation": [],
    }


def coco(root: Path) -> Path:
    """Two images of 20 x 16 px as in instances_val2017.json, and one that is not there."""
    content = {
        "info": {},
        "licenses": [],
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "width": 20, "height": 16},
            {"id": 285, "file_name": "000000000285.jpg", "width": 20, "height": 16},
            {"id": 632, "file_name": "000000000632.jpg", "width": 20, "height": 16},
        ],
        "annotations": [
            annotation(1, 285, 23, [5, 4, 10, 8]),
            annotation(2, 139, 1, [-2, 0, 12, 16]),  # sticks out on the left
            annotation(3, 139, 1, [0, 0, 20.2, 16.3]),  # rounding
            annotation(4, 139, 1, [3, 3, 0, 5]),  # empty
            annotation(5, 139, 1, [30, 3, 5, 5]),  # outside
            annotation(6, 139, 1, [0, 0, 20, 16], crowd=1),
            annotation(7, 9, 1, [0, 0, 20, 16]),  # of no image listed
            annotation(8, 632, 1, [0, 0, 20, 16]),  # of an image that is missing
        ],
        "categories": [
            {"supercategory": "animal", "id": 23, "name": "bear"},
            {"supercategory": "person", "id": 1, "name": "person"},
            {"supercategory": "outdoor", "id": 10, "name": "traffic light"},
        ],
    }
    file = root / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    for number in (139, 285):
        image(root / "val2017" / f"{number:012d}.jpg")
    return file


def test_coco_instances(tmp_path: Path) -> None:
    file = coco(tmp_path)
    for spec in (f"coco:{tmp_path}", file):
        dataset = opened(spec)
        assert dataset.name == "coco/val2017"
        assert dataset.categories == ("person", "traffic light", "bear")
        assert dataset.frequency is None
        assert [Path(key).name for key in dataset.images.keys] == ["000000000285.jpg", "000000000139.jpg"]
        assert dataset.owners.tolist() == [0, 1, 1]
        assert dataset.labels.tolist() == [2, 0, 0]
        assert np.allclose(dataset.boxes, [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1], [0, 0, 1, 1]])
        assert dataset.notes == (
            "1 boxes around crowds are left out",
            "1 boxes stick out of their image and are clipped",
            "2 boxes are empty, or outside of their image, and left out",
            "1 boxes are of an image or category that the file does not list, and left out",
            "1 of 3 images are missing and left out, first 000000000632.jpg",
        )


def test_damaged_coco_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs annotations/instances_val2017\.json.*published at https://cocodataset"):
        opened(f"coco:{tmp_path}")
    file = coco(tmp_path)
    for name in ("000000000139", "000000000285"):
        (tmp_path / "val2017" / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match="none of the 3 images"):
        opened(f"coco:{tmp_path}")
    content = json.loads(file.read_text())
    content["annotations"] = [annotation(1, 285, 23, [1, 2]), annotation(2, 285, 23, [1, 2, 3, None])]  # type: ignore[list-item]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"entry 1: bbox \[1, 2\].* and 1 more malformed"):
        opened(f"coco:{tmp_path}")
    file.write_text("[]")
    with pytest.raises(DataError, match="expected a dict"):
        opened(f"coco:{tmp_path}")


def test_lvis(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/{}/000000000139.jpg"
    category = {"synset": "x.n.01", "synonyms": [], "def": "", "image_count": 3, "instance_count": 5}
    content = {
        "images": [
            {"id": 139, "coco_url": url.format("val2017"), "width": 20, "height": 16, "neg_category_ids": []},
            {"id": 140, "coco_url": url.format("train2017"), "width": 20, "height": 16, "neg_category_ids": []},
        ],
        "annotations": [
            {"id": 1, "image_id": 139, "category_id": 2, "bbox": [5.0, 4.0, 10.0, 8.0], "area": 80.0},
            {"id": 2, "image_id": 140, "category_id": 1, "bbox": [0.0, 0.0, 10.0, 8.0], "area": 80.0},
        ],
        "categories": [
            {**category, "id": 1, "name": "aerosol_can", "frequency": "c"},
            {**category, "id": 2, "name": "bow_(weapon)", "frequency": "r"},
            {**category, "id": 3, "name": "apple", "frequency": "f"},
        ],
    }
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    image(tmp_path / "val2017" / "000000000139.jpg")
    image(tmp_path / "train2017" / "000000000139.jpg")
    dataset = opened(f"lvis:{tmp_path}")
    assert (dataset.name, dataset.frequency) == ("lvis/val", ("c", "r", "f"))
    assert dataset.categories == ("aerosol can", "bow (weapon)", "apple")
    assert dataset.labels.tolist() == [1, 0]
    assert len(dataset.images) == 2
    assert np.allclose(dataset.boxes[0], [0.25, 0.25, 0.75, 0.75])


def test_a_table_of_boxes(tmp_path: Path) -> None:
    table = tmp_path / "some" / "boxes.csv"
    image(tmp_path / "some" / "images" / "a.jpg")
    rows = ["a.jpg,dog,0.1,0.2,0.5,0.6", "a.jpg,cat,0.5,0.5,1.4,1.0", "a.jpg,cat,0.5,0.5,0.5,1.0"]
    table.write_text("\n".join(["file,label,x0,y0,x1,y1", *rows]))
    for spec in (table, table.parent, f"boxes:{table}"):
        dataset = opened(spec)
        assert (dataset.name, dataset.categories) == ("some", ("cat", "dog"))
        assert dataset.labels.tolist() == [1, 0]
        assert np.allclose(dataset.boxes, [[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 1, 1]])
        assert len(dataset.notes) == 2
    table.write_text("\n".join(["file,label,x0,y0,x1,y1", *rows, "a.jpg,cat,left,0,1,1"]))
    assert "boxes.csv, line 5: a corner is not a number" in opened(table).notes[0]
    table.write_text("file,label,x0,y0,x1,y1\n")
    with pytest.raises(DataError, match="has no boxes"):
        opened(table)


def test_the_development_boxes(data_dir: Path) -> None:
    dataset = opened(data_dir / "images" / "coco")
    assert len(dataset.images) <= 300
    assert len(dataset.boxes) > 1000
    assert dataset.boxes.min() >= 0
    assert dataset.boxes.max() <= 1
