"""Class folders: images, class names, and folders that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.image_sets import class_folders, image
from helpers.tiny_encoder import TinyEncoder
from impart.errors import DataError
from impart.evaluate import ClassSet, open_set, zeroshot


def open_classes(spec: Path | str, **options: object) -> ClassSet:
    dataset = open_set(spec, kind="classes", **options)  # type: ignore[arg-type]
    assert isinstance(dataset, ClassSet)
    return dataset


def test_zeroshot_classifies_the_colours(tmp_path: Path, tiny: TinyEncoder) -> None:
    dataset = open_classes(class_folders(tmp_path / "set", ["red", "green", "blue"]))
    assert dataset.classes == ("blue", "green", "red")
    result = zeroshot(tiny, dataset, prompts=("{}",))
    assert result.figures["top-1"] == 1.0
    assert result.counts == {"images": 6, "classes": 3, "unreadable": 0}


def test_wrong_labels_are_wrong(tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = class_folders(tmp_path / "set", ["red", "blue"])
    (folder / "red" / "0.png").replace(folder / "blue" / "moved.png")
    assert zeroshot(tiny, open_classes(folder), prompts=("{}",)).figures["top-1"] == 0.75


def test_a_corrupt_image_is_left_out_and_named(tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = class_folders(tmp_path / "set", ["red", "blue"])
    (folder / "red" / "0.png").write_bytes(b"not an image")
    result = zeroshot(tiny, open_classes(folder), prompts=("{}",))
    assert result.counts["images"] == 3
    assert any("0.png" in note for note in result.notes)


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        open_set(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="does not exist"):
        open_set(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no sub-folders"):
        open_set(tmp_path)
    (tmp_path / "empty_class").mkdir()
    with pytest.raises(DataError, match="empty_class"):
        open_set(tmp_path)


def test_a_folder_of_splits_needs_a_split(tmp_path: Path) -> None:
    class_folders(tmp_path / "set" / "test", ["red", "blue"])
    class_folders(tmp_path / "set" / "valid", ["red"])
    with pytest.raises(DataError, match="if test is a split, ask for it"):
        open_set(tmp_path / "set")
    dataset = open_classes(tmp_path / "set", split="test")
    assert (dataset.name, len(dataset)) == ("set/test", 4)
    assert len(open_classes(tmp_path / "set", split="val")) == 2  # under its other name
    with pytest.raises(DataError, match="'train'"):
        open_set(tmp_path / "set", split="train")


def test_folders_with_codes_are_named_by_their_table(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set" / "test", ["red", "blue"])
    table = tmp_path / "set" / "classes.csv"
    table.write_text('code,name\nred,"tench, Tinca tinca"\nblue,goldfish\n', encoding="utf-8")
    assert open_classes(folder).classes == ("goldfish", "tench")
    table.write_text("code,name\nred,tench\n", encoding="utf-8")
    with pytest.raises(DataError, match="blue"):
        open_set(folder)


def test_class_folders_of_a_published_set_get_its_class_names(tmp_path: Path) -> None:
    """Folder names may be spelled as file systems require; an unknown folder keeps its name and is counted."""
    root = tmp_path / "tree"
    class_folders(root / "test", ["F-16A_B", "707-320", "my_plane"])
    dataset = open_classes(f"aircraft:{root}")
    assert dataset.name == "aircraft/test"
    assert dataset.classes[0] == "boeing 707-320"
    assert "16" in dataset.classes[1]
    assert dataset.classes[1] != "F-16A B"
    assert dataset.classes[2] == "my plane"
    assert dataset.templates
    assert "1 class folders have no built-in name" in dataset.notes[0]
    assert "3 of 100 classes" in dataset.notes[1]


def test_a_published_set_may_be_one_class_folder(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "some", ["cat", "dog"])
    assert open_classes(f"cifar10:{folder}").name == "cifar10/some"
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz.*published at https://"):
        open_set(f"cifar10:{folder}", split="train")


def test_images_outside_of_class_folders_are_ignored(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", ["red"])
    image(folder / "loose.png")
    (folder / ".hidden").mkdir()
    dataset = open_classes(folder)
    assert (len(dataset), dataset.notes) == (2, ("1 images beside the class folders are left out",))
