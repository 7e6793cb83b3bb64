"""The feature cache: each image is computed once, a stop costs one batch, unreadable images are named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from impart.errors import DataError
from impart.train.heads.towers.features import FeatureCache


class Tower:
    """Mean and width of an image; stops after some batches."""

    width = 2

    def __init__(self, key="t", *, stop_after=None):
        self.key, self.batches, self.stop_after = key, [], stop_after

    def __call__(self, images):
        if len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return np.array([[np.asarray(image).mean(), image.size[0]] for image in images], np.float32)


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / f"{number}.png" for number in range(5)]
    for path, pixels in zip(
        found, np.random.default_rng(0).integers(0, 255, (5, 70, 90, 3), dtype=np.uint8), strict=True
    ):
        Image.fromarray(pixels).save(path)
    return found


def test_features_are_computed_once(tmp_path, paths):
    tower, other = Tower(), Tower("u")
    first = FeatureCache(tmp_path / "cache", tower, batch=2).features(paths[:3], "clean")
    second = FeatureCache(tmp_path / "cache", tower, batch=2).features(paths[::-1], "clean")
    assert sum(tower.batches) == 5
    assert np.array_equal(second[::-1][:3], first)
    assert first[:, 1].tolist() == [90, 90, 90]
    FeatureCache(tmp_path / "cache", other).features(paths[:1], "clean")
    assert sum(other.batches) == 1
    FeatureCache(tmp_path / "cache", tower).features(paths[:1], "crop0")
    assert sum(tower.batches) == 6


def test_images_of_equal_names_and_replaced_ones_have_features_of_their_own(tmp_path):
    paths = [tmp_path / top / "photos" / "train" / "things" / "0.png" for top in "AB"]
    for path, shade in zip(paths, (10, 200), strict=True):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (shade,) * 3).save(path)
    cache = FeatureCache(tmp_path / "cache", Tower())
    assert cache.features(paths, "clean")[:, 0].tolist() == [10, 200]
    Image.new("RGB", (9, 9), (90,) * 3).save(paths[0])
    assert cache.features(paths, "clean")[:, 0].tolist() == [90, 200]


def test_an_unreadable_image_is_named(tmp_path, paths):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    tower = Tower()
    cache = FeatureCache(tmp_path / "cache", tower)
    with pytest.raises(DataError, match=r"broken\.jpg"):
        cache.features([broken], "clean")
    assert cache.readable([paths[0], broken]) == [True, False]
    assert tower.batches == [1, 1]  # the broken one is not opened again


def test_a_stop_costs_one_batch(tmp_path, paths):
    stopped, tower = Tower(stop_after=2), Tower()
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path / "cache", stopped, batch=2).features(paths, "clean")
    (damaged,) = (tmp_path / "cache").rglob("clean.features")
    damaged.write_bytes(damaged.read_bytes()[:-1])  # the end of the last row
    found = FeatureCache(tmp_path / "cache", tower, batch=2).features(paths, "clean")
    assert (stopped.batches, tower.batches) == ([2, 2], [2])
    assert np.allclose(found[:, 0], [np.asarray(Image.open(path)).mean() for path in paths], atol=0.1)
