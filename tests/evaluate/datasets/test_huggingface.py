"""Hugging Face datasets on disk; skipped where the package is not installed."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.errors import DataError, MissingExtraError
from impart.evaluate import CaptionSet, ClassSet, open_set, zeroshot


def encoded(colour: str) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), COLOURS[colour]).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'impart-clip\[datasets\]'"):
        open_set(f"hf-dataset:{tmp_path}")


def test_classes_saved_to_disk(tmp_path: Path, tiny: TinyEncoder) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["red", "dark_grey, ash", "blue"])}
    )
    rows = {"img": [encoded("red"), encoded("blue"), encoded("red")], "label": [0, 2, -1]}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    dataset = open_set(f"hf-dataset:{tmp_path / 'saved'}")
    assert isinstance(dataset, ClassSet)
    assert (dataset.name, dataset.classes) == ("saved/test", ("red", "dark grey", "blue"))
    assert dataset.labels.tolist() == [0, 2]
    assert dataset.notes == ("1 images without a label are left out",)
    assert zeroshot(tiny, dataset, prompts=("{}",)).figures["top-1"] == 1.0
    train = open_set(f"hf-dataset:{tmp_path / 'saved'}", split="train")
    assert isinstance(train, ClassSet)
    assert train.images.identity() != dataset.images.identity()
    with pytest.raises(DataError, match="no split 'val': choose one of train, test"):
        open_set(f"hf-dataset:{tmp_path / 'saved'}", split="val")
    with pytest.raises(DataError, match="no column of captions; it has img, label"):
        open_set(f"hf-dataset:{tmp_path / 'saved'}", kind="captions")


def test_captions_of_one_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Sequence(datasets.Value("string"))})
    rows = {"image": [encoded("red"), encoded("blue")], "caption": [["Red.", "All red."], ["Blue."]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "pairs")
    dataset = open_set(f"hf-dataset:{tmp_path / 'pairs'}", kind="captions")
    assert isinstance(dataset, CaptionSet)
    assert (dataset.captions, dataset.owners.tolist()) == (("Red.", "All red.", "Blue."), [0, 0, 1])
    assert dataset.images.read(1)[0].getpixel((0, 0)) == COLOURS["blue"]
    with pytest.raises(DataError, match="no column of class labels"):
        open_set(f"hf-dataset:{tmp_path / 'pairs'}")


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["tench, Tinca tinca", "maillot", "maillot, tank suit"], ("tench", "maillot", "maillot, tank suit")),
        (["Korea, Republic of", "Chad", "Iran"], ("Korea, Republic of", "Chad", "Iran")),
        (["cheese, brie", "cheese, cheddar", "bread, white"], ("cheese, brie", "cheese, cheddar", "bread, white")),
    ],
)
def test_class_names_stay_distinct(names: list[str], classes: tuple[str, ...], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [encoded("red")] * 3, "label": [0, 1, 2]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    dataset = open_set(f"hf-dataset:{tmp_path / 'set'}")
    assert isinstance(dataset, ClassSet)
    assert (dataset.classes, dataset.notes) == (classes, ())


def test_equal_names_are_reported_and_saved_folders_need_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["crane_bird", "dog", "crane bird"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [encoded("red")] * 3, "label": [0, 1, 2]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    dataset = open_set(f"hf-dataset:{tmp_path / 'set'}")
    assert dataset.notes == (
        "2 classes share a name with another, first 'crane bird' (class numbers 0, 2): they cannot be told apart",
    )


def test_a_folder_that_the_package_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["red", "dark_grey"])})
    rows = {"img": [encoded("red"), encoded("blue")], "label": [0, 1]}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "test-00000-of-00001.parquet")
    dataset = open_set(f"hf-dataset:{tmp_path / 'set'}")
    assert isinstance(dataset, ClassSet)
    assert (dataset.name, dataset.classes, dataset.labels.tolist()) == ("set/test", ("red", "dark grey"), [0, 1])
    assert dataset.images.read(1)[0].getpixel((0, 0)) == COLOURS["blue"]
