"""Readers of captioned images, on small files in the published formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.image_sets import image
from helpers.tiny_encoder import TinyEncoder
from impart.errors import DataError
from impart.evaluate import CaptionSet, open_set, retrieval


def opened(spec: Path | str, split: str | None = None) -> CaptionSet:
    dataset = open_set(spec, split=split, kind="captions")
    assert isinstance(dataset, CaptionSet)
    return dataset


def captioned(folder: Path) -> Path:
    for name in ("red", "blue", "green"):
        image(folder / f"{name}.png", name)
    table = folder / "captions.csv"
    table.write_text("file,caption,split\nred.png,a red one,a\nred.png,red,a\nblue.png,blue,a\ngreen.png,green,b\n")
    return table


def names(dataset: CaptionSet) -> list[str]:
    return [Path(key).name for key in dataset.images.keys]


def test_retrieval_both_ways(tmp_path: Path, tiny: TinyEncoder) -> None:
    to_image, to_text, _ = retrieval(tiny, opened(captioned(tmp_path / "set")))
    assert (to_image.counts["queries"], to_image.counts["items"], to_image.figures["R@1"]) == (4, 3, 1.0)
    assert (to_text.counts["queries"], to_text.counts["items"], to_text.figures["R@1"]) == (3, 4, 1.0)


def test_captions_of_one_split(tmp_path: Path) -> None:
    dataset = opened(captioned(tmp_path / "set"), "a")
    assert (dataset.name, dataset.captions) == ("set/a", ("a red one", "red", "blue"))
    assert np.array_equal(dataset.owners, [0, 0, 1])
    assert opened(tmp_path / "set").name == "set"  # the folder of captions.csv
    assert dataset.images.identity() != opened(tmp_path / "set").images.identity()


def test_missing_images_are_counted_and_a_set_without_images_is_an_error(tmp_path: Path) -> None:
    table = captioned(tmp_path / "set")
    (tmp_path / "set" / "red.png").unlink()
    dataset = opened(table)
    assert dataset.captions == ("blue", "green")
    assert dataset.notes == ("1 of 3 images are missing and left out, first red.png",)
    for name in ("blue", "green"):
        (tmp_path / "set" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"none of the 3 images .* first red\.png"):
        opened(table)


def test_tables_without_rows_or_columns_are_refused(tmp_path: Path) -> None:
    table = captioned(tmp_path / "set")
    with pytest.raises(DataError, match="split 'c'"):
        opened(table, "c")
    table.write_text("a,caption\nx,y\n")
    with pytest.raises(DataError, match="no image column"):
        opened(table)


def karpathy(name: str) -> dict[str, object]:
    """Content of a file of caption_datasets.zip: one entry per image, with its split."""
    images = []
    for number, (file, split) in enumerate([("red.png", "test"), ("blue.png", "val"), ("green.png", "test")]):
        raw = [f"A {file[:-4]} image .", f"{file[:-4]} ."]
        sentences = [{"tokens": text.split(), "raw": text, "imgid": number, "sentid": number} for text in raw]
        images.append({"sentids": [0, 1], "imgid": number, "sentences": sentences, "split": split, "filename": file})
    return {"images": images, "dataset": name}


@pytest.mark.parametrize(
    ("name", "folder"), [("flickr8k", "Flicker8k_Dataset"), ("flickr30k", "flickr30k-images"), ("flickr8k", "images")]
)
def test_karpathy_splits_of_flickr(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / f"dataset_{name}.json").write_text(json.dumps(karpathy(name)))
    for colour in ("red", "blue", "green"):
        image(tmp_path / folder / f"{colour}.png", colour)
    dataset = opened(f"{name}:{tmp_path}")
    assert (dataset.name, names(dataset)) == (f"{name}/test", ["red.png", "green.png"])
    assert dataset.captions == ("A red image .", "red .", "A green image .", "green .")
    assert dataset.owners.tolist() == [0, 0, 1, 1]
    assert names(opened(f"{name}:{tmp_path}", "val")) == ["blue.png"]
    with pytest.raises(DataError, match="no split 'dev'"):
        opened(f"{name}:{tmp_path}", "dev")
    assert names(opened(tmp_path / f"dataset_{name}.json")) == ["red.png", "green.png"]


def test_karpathy_splits_of_coco(tmp_path: Path) -> None:
    content = karpathy("coco")
    for number, entry in enumerate(content["images"]):  # type: ignore[arg-type,var-annotated]
        entry["filepath"], entry["cocoid"] = ("val2014" if number else "train2014"), number
    (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    image(tmp_path / "val2014" / "green.png", "green")
    dataset = opened(f"coco-captions:{tmp_path}")
    assert (dataset.name, names(dataset)) == ("coco-captions/test", ["green.png"])
    assert dataset.notes == ("1 of 2 images are missing and left out, first train2014/red.png",)


def test_coco_captions_of_a_year(tmp_path: Path) -> None:
    content = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "height": 16, "width": 20, "license": 2},
            {"id": 285, "file_name": "000000000285.jpg", "height": 16, "width": 20, "license": 2},
        ],
        "annotations": [
            {"id": 1, "image_id": 285, "caption": "A bear.\n"},
            {"id": 2, "image_id": 139, "caption": "A room."},
            {"id": 3, "image_id": 139, "caption": "  "},
            {"id": 4, "image_id": 7, "caption": "Of an image that is not listed."},
        ],
    }
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    for name in ("000000000139", "000000000285"):
        image(tmp_path / "val2017" / f"{name}.jpg")
    for spec, split in ((f"coco-captions:{tmp_path}", None), (f"coco-captions:{tmp_path}", "val2017"), (file, None)):
        dataset = opened(spec, split)
        assert dataset.name == "coco-captions/val2017"
        assert dataset.captions == ("A bear.", "A room.")
        assert names(dataset) == ["000000000285.jpg", "000000000139.jpg"]
        assert len(dataset.notes) == 2
        assert "1 captions are of images" in dataset.notes[0]
        assert "1 empty" in dataset.notes[1]


def test_flickr8k_by_its_own_files(tmp_path: Path) -> None:
    text, photos = tmp_path / "Flickr8k_text", tmp_path / "Flicker8k_Dataset"
    text.mkdir()
    (text / "Flickr8k.token.txt").write_text(
        "1000.jpg#0\tA child in a pink dress .\n1000.jpg#1\tA girl .\n2258.jpg.1#0\tA strange name .\n"
        "1001.jpg#0\tA black dog .\n"
    )
    (text / "Flickr_8k.testImages.txt").write_text("1000.jpg\n1003.jpg\n")
    (text / "Flickr_8k.devImages.txt").write_text("1001.jpg\n")
    image(photos / "1000.jpg")
    image(photos / "1001.jpg")
    dataset = opened(f"flickr8k:{tmp_path}")
    assert (dataset.captions, names(dataset)) == (("A child in a pink dress .", "A girl ."), ["1000.jpg"])
    assert opened(f"flickr8k:{tmp_path}", "val").captions == ("A black dog .",)
    with pytest.raises(DataError, match=r"trainImages\.txt"):
        opened(f"flickr8k:{tmp_path}", "train")


def test_flickr30k_by_its_token_file(tmp_path: Path) -> None:
    (tmp_path / "results_20130124.token").write_text("1.jpg#0\tTwo men .\n1.jpg#1\tMen .\n")
    image(tmp_path / "flickr30k-images" / "1.jpg")
    assert opened(f"flickr30k:{tmp_path}", "all").captions == ("Two men .", "Men .")
    with pytest.raises(DataError, match=r"dataset_flickr30k\.json"):
        opened(f"flickr30k:{tmp_path}")


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k", "coco-captions"])
def test_missing_and_damaged_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"needs dataset_.*published at https://"):
        opened(f"{name}:{tmp_path}")
    file = tmp_path / f"dataset_{name.removesuffix('-captions')}.json"
    file.write_text('{"images": [')
    with pytest.raises(DataError, match="not json"):
        opened(f"{name}:{tmp_path}")
    file.write_text('{"images": {}}')
    with pytest.raises(DataError, match="does not have the expected form"):
        opened(f"{name}:{tmp_path}")
