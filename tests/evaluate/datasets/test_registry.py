"""`open_set`: data sets by name and by path, guessed formats, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.image_sets import class_folders, image
from impart.errors import ConfigError, DataError
from impart.evaluate import BoxSet, CaptionSet, ClassSet, open_set
from impart.evaluate.datasets import READERS, Reader, register_reader
from impart.evaluate.datasets.reader import OWN_FILES


def test_every_reader_names_its_files_and_their_home() -> None:
    for name, reader in READERS.items():
        assert (reader.name, bool(reader.files)) == (name, True)
        assert reader.home.startswith("https://") or reader.home == OWN_FILES
    kinds = {reader.kind for reader in READERS.values()}
    assert kinds == {"classes", "captions", "videos", "moments", "boxes"}


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_name_needs_an_existing_path(tmp_path: Path, name: str) -> None:
    if name.startswith("hf-"):
        pytest.importorskip("datasets")
        return
    with pytest.raises(DataError):
        open_set(f"{name}:{tmp_path / 'nowhere'}")
    for spec in (name, f"{name}:"):
        with pytest.raises(DataError, match=rf"write {name}:PATH"):
            open_set(spec)


def test_unknown_names_and_kinds(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no data set has the name 'cifra10' \(did you mean cifar10\?\): choose one of .*cifar10"
    ):
        open_set(f"cifra10:{tmp_path}")
    with pytest.raises(DataError, match=r"is a set of classes, not of captions: choose one of .*captions"):
        open_set(f"cifar10:{tmp_path}", kind="captions")
    with pytest.raises(DataError, match="does not exist"):
        open_set(tmp_path / "nowhere.csv")
    (tmp_path / "thing.xyz").write_text("")
    with pytest.raises(DataError, match="write NAME:"):
        open_set(tmp_path / "thing.xyz")


def test_the_format_of_a_path_is_guessed(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "classes", ["red", "blue"])
    assert isinstance(open_set(folder), ClassSet)
    image(tmp_path / "pairs" / "images" / "a.png")
    (tmp_path / "pairs" / "captions.csv").write_text("file,caption\na.png,red\n")
    (tmp_path / "pairs" / "boxes.csv").write_text("file,label,x0,y0,x1,y1\na.png,red,0,0,1,1\n")
    assert isinstance(open_set(tmp_path / "pairs"), CaptionSet)
    assert isinstance(open_set(tmp_path / "pairs" / "captions.csv"), CaptionSet)
    assert isinstance(open_set(tmp_path / "pairs", kind="boxes"), BoxSet)
    assert isinstance(open_set(str(folder)), ClassSet)


def test_register_reader() -> None:
    def opener(path: Path, split: str | None) -> ClassSet:
        raise DataError(f"{path} {split}")

    reader = Reader(name="my-set", kind="classes", splits=(), files=("x",), home="nowhere", open=opener)
    register_reader(reader)
    try:
        with pytest.raises(DataError, match="here None"):
            open_set("my-set:here")
        with pytest.raises(ConfigError, match="already"):
            register_reader(reader)
        with pytest.raises(ConfigError, match="hyphens"):
            register_reader(Reader(name="C", kind="classes", splits=(), files=(), home="", open=opener))
    finally:
        del READERS["my-set"]


def test_fewer_images(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "classes", ["red", "blue", "green"], each=5)
    two = open_set(folder, per_class=2)
    assert isinstance(two, ClassSet)
    assert two.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [Path(key).name for key in two.images.keys] == ["0.png", "1.png"] * 3
    some = open_set(folder, limit=7)
    assert isinstance(some, ClassSet)
    assert len(some) == 7
    assert some.images.keys == open_set(folder, limit=7).images.keys  # type: ignore[union-attr]
    assert len(open_set(folder, limit=99).images) == 15  # type: ignore[union-attr]


def test_fewer_captioned_images_keep_their_captions(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        image(tmp_path / "pairs" / f"{number}.png")
        rows += [f"{number}.png,text {number}", f"{number}.png,more {number}"]
    table = tmp_path / "pairs" / "captions.csv"
    table.write_text("\n".join(["file,caption", *rows]))
    dataset = open_set(table, limit=3)
    assert isinstance(dataset, CaptionSet)
    assert len(dataset.images) == 3
    assert len(dataset.captions) == 6
    for caption, owner in zip(dataset.captions, dataset.owners, strict=True):
        assert Path(dataset.images.keys[owner]).stem == caption.split()[1]
    with pytest.raises(ConfigError, match="no classes"):
        open_set(table, per_class=2)


def test_a_subset_keeps_the_given_order(tmp_path: Path) -> None:
    rows = ["0.png,text 0", "1.png,text 1", "1.png,more 1", "2.png,text 2"]
    for number in range(3):
        image(tmp_path / f"{number}.png")
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *rows]))
    dataset = open_set(tmp_path / "captions.csv", kind="captions").subset([2, 1])
    assert [Path(key).name for key in dataset.images.keys] == ["2.png", "1.png"]
    assert (dataset.captions, dataset.owners.tolist()) == (("text 1", "more 1", "text 2"), [1, 1, 0])


def test_fewer_images_with_boxes(tmp_path: Path) -> None:
    rows = []
    for number in range(4):
        image(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,label {number},0,0,1,1")
    (tmp_path / "boxes.csv").write_text("\n".join(["file,label,x0,y0,x1,y1", *rows]))
    dataset = open_set(tmp_path / "boxes.csv", kind="boxes", limit=2)
    assert isinstance(dataset, BoxSet)
    assert dataset.owners.tolist() == [0, 1]
    assert len(dataset.categories) == 4
    for label, owner in zip(dataset.labels, dataset.owners, strict=True):
        assert Path(dataset.images.keys[owner]).stem == dataset.categories[label].split()[1]


@pytest.mark.parametrize(("kind", "meant"), [("klasses", "classes"), ("caption", "captions"), ("xyz", "")])
def test_an_unknown_kind_names_the_kinds(tmp_path: Path, kind: str, meant: str) -> None:
    with pytest.raises(ConfigError, match="use classes, captions, videos, moments, boxes") as refused:
        open_set(tmp_path, kind=kind)  # type: ignore[call-overload]
    assert (f"did you mean {meant}?" in str(refused.value)) == bool(meant)
