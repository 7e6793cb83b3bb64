"""Built-in class names and prompts: counts, order, no duplicates, and agreement with folders on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from impart.errors import DataError
from impart.evaluate.datasets.names import NAMED_SETS, class_names, class_names_by_folder, named_set, templates

COUNTS = {
    "aircraft": 100,
    "caltech101": 101,
    "cars": 196,
    "cifar10": 10,
    "cifar100": 100,
    "dtd": 47,
    "flowers102": 102,
    "food101": 101,
    "imagenet": 1000,
    "pets": 37,
    "stl10": 10,
    "sun397": 397,
}


def test_every_set_has_a_count_here() -> None:
    assert set(NAMED_SETS) == set(COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_names_are_complete_plain_and_distinct(name: str) -> None:
    names = class_names(name)
    assert len(names) == COUNTS[name]
    assert len(set(names)) == len(names)
    assert all(words and words == " ".join(words.lower().split()) and "_" not in words for words in names)
    by_folder = class_names_by_folder(name)
    assert len(by_folder) == COUNTS[name]
    assert tuple(by_folder.values()) == names


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_prompt_has_one_place_for_the_name(name: str) -> None:
    prompts = templates(name)
    assert 4 <= len(prompts) <= 10
    assert len({prompt.lower() for prompt in prompts}) == len(prompts)
    assert all(prompt.count("{}") == 1 and prompt.format("cat").count("cat") == 1 for prompt in prompts)
    assert named_set(name).home.startswith("https://")


@pytest.mark.parametrize("name", ["caltech101", "cifar10", "cifar100", "dtd", "imagenet", "stl10"])
def test_official_order_is_the_sorted_one(name: str) -> None:
    keys = list(class_names_by_folder(name))
    assert keys == sorted(keys)


def test_some_classes_of_the_official_orders() -> None:
    """The class numbers are those of the published files."""
    assert class_names("cifar10")[3] == "cat"
    assert class_names("imagenet")[0] == "tench fish"
    assert class_names("imagenet")[281] == "tabby cat"
    assert list(class_names_by_folder("imagenet"))[999] == "n15075141"
    assert list(class_names_by_folder("caltech101"))[:5] == [
        "Faces",
        "Faces_easy",
        "Leopards",
        "Motorbikes",
        "accordion",
    ]
    assert list(class_names_by_folder("pets"))[:3] == ["Abyssinian", "american_bulldog", "american_pit_bull_terrier"]
    assert class_names("pets")[0] == "abyssinian cat"
    assert class_names_by_folder("flowers102")["1"] == "pink primrose"
    assert class_names_by_folder("flowers102")["102"] == "blackberry lily"
    assert list(class_names_by_folder("cars"))[195] == "smart fortwo Convertible 2012"
    assert list(class_names_by_folder("food101"))[15:18] == ["ceviche", "cheesecake", "cheese_plate"]  # not sorted
    assert list(class_names_by_folder("aircraft"))[99] == "Yak-42"
    assert next(iter(class_names_by_folder("sun397"))) == "a/abbey"


def test_ambiguous_words_have_different_names() -> None:
    names = class_names_by_folder("imagenet")
    assert {names["n02012849"], names["n03126707"]} == {"crane bird", "construction crane"}
    assert names["n03710637"] != names["n03710721"]  # maillot, twice
    assert names["n04355933"] != names["n04356056"]  # sunglass, sunglasses


def test_the_error_for_an_unknown_set_lists_the_sets() -> None:
    with pytest.raises(DataError, match=r"'mnist': choose one of aircraft, .*sun397"):
        class_names("mnist")


@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "caltech101"])
def test_the_development_folders_have_names(name: str, data_dir: Path) -> None:
    folders = {path.name for path in (data_dir / "images" / name / "test").iterdir() if path.is_dir()}
    assert folders == set(class_names_by_folder(name))


@pytest.mark.data
def test_the_development_wnids_have_names(data_dir: Path) -> None:
    sample = (data_dir / "images" / "imagenet_sample" / "labels.csv").read_text(encoding="utf-8").splitlines()[1:]
    wnids = {line.split(",")[1] for line in sample}
    assert wnids == set(class_names_by_folder("imagenet"))
    tiny = (data_dir / "images" / "tiny_imagenet32" / "classes.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {line.split(",")[0] for line in tiny} <= wnids
