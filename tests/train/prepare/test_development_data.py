"""Texts, views and class names."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from impart.errors import ConfigError, DataError
from impart.train.heads.class_names import a_or_an, class_vocabulary
from impart.train.heads.towers.features import FeatureCache, look
from impart.train.prepare.development_data import FORBIDDEN, read_images, tidy


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("This photo shows two men riding camels. (credit: A. Person/flickr)", "two men riding camels."),
        ("An image of a truck  with_flashing lights", "a truck with flashing lights"),
        ("A dog runs .", "A dog runs ."),
        ("By Theo Kruse, CC BY-SA 4.0", ""),
    ],
)
def test_tidy(raw, said):
    assert tidy(raw) == said


def test_classes_take_names_kinds_and_labels():
    text = "# note\nn00000002: crane bird, heron\nn00000001-n00000002: animal, bird\n"
    found = class_vocabulary(["n00000001", "n00000002", "n00000003"], ["jay", "crane", "crane"], text=text)
    assert found.names == (("jay",), ("crane bird", "heron"), ("crane",))
    assert found.kinds_of(0) == ["animal", "bird"]
    assert found.kinds_of(2) == []
    with pytest.raises(ConfigError, match="line 1"):
        class_vocabulary(["n00000001"], ["jay"], text="crane = bird")


def test_bundled_names_are_well_formed():
    found = class_vocabulary(["n02012849", "n03126707", "n02110341"], ["crane", "crane", "dalmatian"])
    assert found.names[0] == ("crane bird",)
    assert found.names[1] == ("construction crane",)
    assert {"dog", "animal"} <= set(found.kinds_of(2))


def test_article():
    assert [a_or_an(word) for word in ("otter", "dog", "sunglasses", "cactus", "glass")] == [
        "an otter",
        "a dog",
        "sunglasses",
        "a cactus",
        "a glass",
    ]


def _image(folder, name="a.png"):
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    path = folder / name
    Image.fromarray(pixels).save(path)
    return path


def test_views_are_seeded_and_small_ones_are_small(tmp_path):
    image = Image.open(_image(tmp_path))
    assert look(image, "clean", seed=1) is image
    first, again, other = (look(image, "small3", seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert first.size != other.size or not np.array_equal(np.asarray(first), np.asarray(other))
    assert all(32 <= min(look(image, "small0", seed=seed).size) <= 64 for seed in range(20))
    with pytest.raises(DataError, match="no view"):
        look(image, "blurred", seed=0)


def test_features_are_computed_once(tmp_path):
    seen: list[int] = []

    def tower(images):
        seen.append(len(images))
        return np.array([[np.asarray(image).mean(), image.size[0]] for image in images], np.float32)

    paths = [_image(tmp_path, f"{n}.png") for n in range(5)]
    cache = FeatureCache(tmp_path / "cache", tower, tower_key="t", batch=2)
    first = cache.features(paths[:3], "clean")
    second = cache.features(paths[::-1], "clean")
    assert sum(seen) == 5
    assert np.array_equal(second[::-1][:3], first)
    other = FeatureCache(tmp_path / "cache", tower, tower_key="u", batch=2)
    other.features(paths[:1], "clean")
    assert sum(seen) == 6


def test_images_of_equal_names_and_replaced_ones_have_features_of_their_own(tmp_path):
    paths = [tmp_path / top / "photos" / "train" / "things" / "0.png" for top in "AB"]
    for path, shade in zip(paths, (10, 200), strict=True):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (shade,) * 3).save(path)

    def tower(images):
        return np.array([[np.asarray(image).mean()] for image in images], np.float32)

    cache = FeatureCache(tmp_path / "cache", tower, tower_key="t")
    assert cache.features(paths, "clean")[:, 0].tolist() == [10, 200]
    Image.new("RGB", (9, 9), (90,) * 3).save(paths[0])
    assert cache.features(paths, "clean")[:, 0].tolist() == [90, 200]


def test_unreadable_image_is_named(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    cache = FeatureCache(tmp_path / "cache", lambda images: np.zeros((len(images), 2), np.float32), tower_key="t")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        cache.features([broken], "clean")
    good = _image(tmp_path, "good.png")
    assert cache.readable([good, broken]) == [True, False]


def test_features_stopped_half_way_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("impart.train.heads.towers.features._PART", 2)
    paths = [_image(tmp_path, f"{n}.png") for n in range(5)]
    seen = []

    def tower(images):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(images))
        return np.array([[np.asarray(image).mean()] for image in images], np.float32)

    cache = FeatureCache(tmp_path / "cache", tower, tower_key="t", batch=2)
    with pytest.raises(KeyboardInterrupt):
        cache.features(paths, "clean")
    (tmp_path / "cache").joinpath(next((tmp_path / "cache").iterdir()).name, "clean-00002.npy").write_bytes(b"half")
    seen.append(0)
    found = cache.features(paths, "clean")
    assert seen == [2, 2, 0, 1]
    assert np.allclose(found[:, 0], [np.asarray(Image.open(path).convert("RGB")).mean() for path in paths], atol=0.1)


@pytest.mark.data
def test_training_never_reads_evaluation_data(data_dir):
    images = read_images(data_dir)
    assert len(images) > 20_000
    assert not any(FORBIDDEN & set(image.path.parts) for image in images)
    assert all(image.texts for image in images)
