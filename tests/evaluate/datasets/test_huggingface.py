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
