"""Published classification sets, each with small files in the layout of its unpacked archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.image_sets import class_folders, image
from impart.errors import DataError
from impart.evaluate import ClassSet, open_set
from impart.evaluate.datasets import READERS
from impart.evaluate.datasets.names import NAMED_SETS, class_names, named_set, templates


def opened(spec: str, split: str | None = None, *, count: int | None = None) -> ClassSet:
    dataset = open_set(spec, split=split, kind="classes")
    assert isinstance(dataset, ClassSet)
    if count is not None:
        assert len(dataset) == count
        assert dataset.images.read(count - 1)[0].mode == "RGB"
    return dataset


def words(dataset: ClassSet) -> list[str]:
    return [dataset.classes[label] for label in dataset.labels]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_named_set_has_a_reader_with_the_same_home() -> None:
    for name in NAMED_SETS:
        assert READERS[name].kind == "classes"
        assert READERS[name].home.startswith(named_set(name).home)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_errors_for_missing_files_name_the_files_and_their_home(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"needs .*; published at https://"):
        open_set(f"{name}:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"needs .*; published at https://"):
        open_set(f"{name}:{tmp_path / 'empty'}")
    with pytest.raises(DataError, match="no split 'strange': choose one of"):
        open_set(f"{name}:{tmp_path}", split="strange")


@pytest.mark.parametrize("name", NAMED_SETS)
def test_every_named_set_may_be_class_folders(tmp_path: Path, name: str) -> None:
    keys = [key.replace("/", "_") for key in named_set(name).keys[:2]]
    split = READERS[name].splits[0]
    class_folders(tmp_path / split, keys)
    dataset = opened(f"{name}:{tmp_path}", count=4)
    assert dataset.name == f"{name}/{split}"
    assert set(dataset.classes) == set(class_names(name)[:2])
    assert dataset.templates == templates(name)


def test_food101(tmp_path: Path) -> None:
    root = tmp_path / "food-101"
    write(root / "meta" / "test.txt", "apple_pie/1011328\nwaffles/98617\n")
    write(root / "meta" / "train.txt", "waffles/1\n")
    for name in ("apple_pie/1011328", "waffles/98617", "waffles/1"):
        image(root / "images" / f"{name}.jpg")
    dataset = opened(f"food101:{tmp_path}", count=2)
    assert (dataset.name, words(dataset)) == ("food101/test", ["apple pie", "waffles"])
    assert dataset.classes == class_names("food101")
    opened(f"food101:{root}", "train", count=1)
    (root / "images" / "waffles" / "98617.jpg").unlink()
    assert opened(f"food101:{tmp_path}", count=1).notes == (
        "1 of 2 images are missing and left out, first waffles/98617.jpg",
    )
    (root / "images" / "apple_pie" / "1011328.jpg").unlink()
    with pytest.raises(DataError, match="none of the 2 images"):
        opened(f"food101:{tmp_path}")
    write(root / "meta" / "test.txt", "stone_soup/1\n")
    with pytest.raises(DataError, match=r"test\.txt.*'stone_soup'"):
        opened(f"food101:{tmp_path}")


def test_sun397(tmp_path: Path) -> None:
    lines = "/a/abbey/sun_aakbdcgfpksytcwj.jpg\n/w/wine_cellar/bottle_storage/sun_b.jpg\n"
    write(tmp_path / "Partitions" / "Testing_01.txt", lines)
    write(tmp_path / "Partitions" / "Training_01.txt", "/a/abbey/sun_c.jpg\n")
    for line in [*lines.split(), "/a/abbey/sun_c.jpg"]:
        image(tmp_path / "SUN397" / line[1:])
    dataset = opened(f"sun397:{tmp_path}", count=2)
    assert words(dataset) == ["abbey", "wine cellar with bottles"]
    opened(f"sun397:{tmp_path}", "train", count=1)
    write(tmp_path / "Partitions" / "Testing_01.txt", "nonsense\nmore\n")
    with pytest.raises(DataError, match="line 1"):
        opened(f"sun397:{tmp_path}")


def test_aircraft(tmp_path: Path) -> None:
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    write(data / "images_variant_test.txt", "1514522 707-320\n0747566 Model B200\n1008575 F/A-18\n")
    write(data / "images_variant_trainval.txt", "1514522 707-320\n")
    for number in ("1514522", "0747566", "1008575"):
        image(data / "images" / f"{number}.jpg")
    for path in (tmp_path, data.parent, data):
        dataset = opened(f"aircraft:{path}", count=3)
    known = dict(zip(named_set("aircraft").keys, class_names("aircraft"), strict=True))
    assert words(dataset) == [known["707-320"], known["Model B200"], known["F/A-18"]]
    opened(f"aircraft:{tmp_path}", "trainval", count=1)


def test_dtd(tmp_path: Path) -> None:
    write(tmp_path / "dtd" / "labels" / "test1.txt", "banded/banded_0002.jpg\nzigzagged/zigzagged_0001.jpg\n")
    write(tmp_path / "dtd" / "labels" / "val1.txt", "banded/banded_0002.jpg\n")
    for name in ("banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg"):
        image(tmp_path / "dtd" / "images" / name)
    assert words(opened(f"dtd:{tmp_path}", count=2)) == ["banded", "zigzagged"]
    opened(f"dtd:{tmp_path / 'dtd'}", "val", count=1)


def test_pets(tmp_path: Path) -> None:
    header = "#Image CLASS-ID SPECIES BREED ID\n"
    write(tmp_path / "annotations" / "test.txt", f"{header}Abyssinian_201 1 1 1\nyorkshire_terrier_108 37 2 25\n")
    for name in ("Abyssinian_201", "yorkshire_terrier_108"):
        image(tmp_path / "images" / f"{name}.jpg")
    dataset = opened(f"pets:{tmp_path}", count=2)
    assert dataset.labels.tolist() == [0, 36]
    write(tmp_path / "annotations" / "test.txt", "Abyssinian_201 1 1 1\nhalf a line\n")
    note = opened(f"pets:{tmp_path}", count=1).notes[0]
    assert "malformed" in note
    assert "test.txt, line 2" in note


def test_imagenet_by_the_csv(tmp_path: Path) -> None:
    write(
        tmp_path / "LOC_val_solution.csv",
        "ImageId,PredictionString\nILSVRC2012_val_00048981,n03995372 85 1 499 272 \n"
        "ILSVRC2012_val_00037956,n03481172 131 0 499 254 n03481172 0 0 9 9 \n",
    )
    folder = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    for number in ("00048981", "00037956"):
        image(folder / f"ILSVRC2012_val_{number}.JPEG")
    dataset = opened(f"imagenet:{tmp_path}", count=2)
    assert [named_set("imagenet").keys[label] for label in dataset.labels] == ["n03995372", "n03481172"]


def test_cars(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    for file, rows in (
        ("cars_test_annos_withlabels.mat", [(1, "00001.jpg"), (196, "00002.jpg")]),
        ("devkit/cars_train_annos.mat", [(2, "00001.jpg")]),
    ):
        table = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
        for column, (number, name) in enumerate(rows):
            table[0, column] = (30, 52, 246, 147, number, name)
        (tmp_path / file).parent.mkdir(exist_ok=True)
        scipy_io.savemat(tmp_path / file, {"annotations": table})
    for name in ("cars_test/00001.jpg", "cars_test/00002.jpg", "cars_train/00001.jpg"):
        image(tmp_path / name)
    assert opened(f"cars:{tmp_path}", count=2).labels.tolist() == [0, 195]
    train = opened(f"cars:{tmp_path}", "train", count=1)  # a table of one row
    assert words(train) == [class_names("cars")[1]]
    assert "cars_train" in train.images.keys[0]
    (tmp_path / "cars_test_annos_withlabels.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="no MATLAB file"):
        opened(f"cars:{tmp_path}")


def test_flowers(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[77, 102, 1, 5]], dtype=np.uint8)})
    ids = {"trnid": [[1]], "valid": [[2]], "tstid": [[4, 3]]}
    scipy_io.savemat(tmp_path / "setid.mat", {name: np.array(one, dtype=np.uint16) for name, one in ids.items()})
    for number in range(1, 5):
        image(tmp_path / "jpg" / f"image_{number:05d}.jpg")
    dataset = opened(f"flowers102:{tmp_path}", count=2)
    assert dataset.labels.tolist() == [4, 0]
    assert [Path(key).name for key in dataset.images.keys] == ["image_00004.jpg", "image_00003.jpg"]
    assert opened(f"flowers102:{tmp_path}", "val", count=1).labels.tolist() == [101]
    scipy_io.savemat(tmp_path / "setid.mat", {"tstid": np.array([[9]])})
    with pytest.raises(DataError, match="image 9 of 4"):
        opened(f"flowers102:{tmp_path}")


def test_caltech101_as_released(tmp_path: Path) -> None:
    root = tmp_path / "101_ObjectCategories"
    class_folders(root, ["BACKGROUND_Google"], each=4, suffix=".jpg")
    class_folders(root, ["Faces", "accordion"], each=33, suffix=".jpg")
    for path in (tmp_path, root):
        whole = opened(f"caltech101:{path}", "all", count=66)
        assert whole.classes == (class_names("caltech101")[0], "accordion")
        assert any("BACKGROUND_Google is not a class: its 4 images" in note for note in whole.notes)
    train, test = opened(f"caltech101:{tmp_path}", "train", count=60), opened(f"caltech101:{tmp_path}", count=6)
    assert np.bincount(train.labels).tolist() == [30, 30]
    assert set(train.images.keys) | set(test.images.keys) == set(whole.images.keys)
    assert train.images.keys == opened(f"caltech101:{tmp_path}", "train").images.keys
    assert any("no split" in note for note in test.notes)


def test_stl10(tmp_path: Path) -> None:
    """The planes of the published files are in column-major order."""
    root = tmp_path / "stl10_binary"
    root.mkdir()
    shown = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)  # row, column, colour
    shown.transpose(0, 3, 2, 1).tofile(root / "test_X.bin")
    np.array([10, 1], dtype=np.uint8).tofile(root / "test_y.bin")
    dataset = opened(f"stl10:{tmp_path}", count=2)
    assert words(dataset) == ["truck", "airplane"]
    assert np.array_equal(np.asarray(dataset.images.read(1)[0]), shown[1])
    np.array([10, 1, 1], dtype=np.uint8).tofile(root / "test_y.bin")
    with pytest.raises(DataError, match="does not hold the 3 images"):
        opened(f"stl10:{tmp_path}")
    np.array([10, 0], dtype=np.uint8).tofile(root / "test_y.bin")
    with pytest.raises(DataError, match="labels from 0 to 10"):
        opened(f"stl10:{tmp_path}")


def test_caltech101_without_images_for_test_names_the_remedy(tmp_path: Path) -> None:
    class_folders(tmp_path / "101_ObjectCategories", ["Faces", "accordion"], each=2, suffix=".jpg")
    with pytest.raises(DataError, match=r"at most 30 images per class, .*--split all"):
        open_set(f"caltech101:{tmp_path}", kind="classes")
    assert len(opened(f"caltech101:{tmp_path}", "all", count=4)) == 4


def test_the_background_of_caltech101_is_no_class_in_any_spelling(tmp_path: Path) -> None:
    class_folders(tmp_path / "test", ["faces", "accordion", "background_google"], each=2, suffix=".jpg")
    dataset = opened(f"caltech101:{tmp_path}", count=4)
    assert set(dataset.classes) == {class_names("caltech101")[0], "accordion"}
    assert "background_google is not a class: its 2 images are left out" in dataset.notes


def test_a_numbered_split_of_imagenet_has_the_names_of_its_classes(tmp_path: Path) -> None:
    class_folders(tmp_path / "val", ["0", "1", "10"], each=1, suffix=".jpeg")
    dataset = opened(f"imagenet:{tmp_path}", count=3)
    assert dataset.name == "imagenet/val"
    assert [dataset.classes[label] for label in dataset.labels] == [
        class_names("imagenet")[number] for number in (0, 1, 10)
    ]


def test_the_development_copy_of_caltech(data_dir: Path) -> None:
    dataset = opened(f"caltech101:{data_dir / 'images' / 'caltech101'}")
    assert len(dataset) == 984
    assert dataset.classes == class_names("caltech101")
    assert dataset.notes == ()


@pytest.mark.parametrize("spec", ["imagenet-v2:{}", "imagenet:{}", "{}"])
def test_imagenet_v2_is_sorted_by_number(tmp_path: Path, spec: str) -> None:
    folder = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in (0, 1, 2, 10, 100, 999):
        (folder / str(number)).mkdir(parents=True)
        image(folder / str(number) / "a.jpeg")
    dataset = open_set(spec.format(folder), kind="classes")
    assert dataset.name == "imagenet-v2/matched-frequency"
    assert dataset.labels.tolist() == [0, 1, 2, 10, 100, 999]
    assert len(dataset.classes) == 1000
    assert dataset.classes[1] == class_names("imagenet")[1] == "goldfish"
    assert dataset.notes == ("6 of 1000 classes have images: all names are candidates",)
    assert open_set(f"imagenet-v2:{tmp_path}", kind="classes").labels.tolist() == dataset.labels.tolist()
    with pytest.raises(DataError, match=r"imagenetv2-top-images-format-val.*ImageNetV2"):
        open_set(f"imagenet-v2:{tmp_path}", split="top-images")
