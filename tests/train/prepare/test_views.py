"""Views: seeded, and small ones are small."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from impart.errors import DataError
from impart.train.prepare.views import open_view, portable_name, try_open_view, view


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))


def test_views_are_seeded_and_small_ones_are_small(image):
    assert view(image, "clean", seed=1) is image
    first, again, other = (view(image, "small3", seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert first.size != other.size or not np.array_equal(np.asarray(first), np.asarray(other))
    assert all(32 <= min(view(image, "small0", seed=seed).size) <= 64 for seed in range(20))
    with pytest.raises(DataError, match="no view"):
        view(image, "blurred", seed=0)


def test_a_view_of_a_file_depends_on_its_name_and_not_on_the_location_of_the_data(image, tmp_path):
    paths = [tmp_path / top / "photos" / "train" / "things" / name for top in "AB" for name in ("0.png", "1.png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    found = [np.asarray(open_view((path, "crop0", 0))).tobytes() for path in paths]
    assert [portable_name(path) for path in paths[::2]] == ["photos/train/things/0.png"] * 2
    assert found[:2] == found[2:]
    assert found[0] != found[1]


def test_an_unreadable_image_is_logged(tmp_path, caplog):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    assert try_open_view((tmp_path / "broken.jpg", "clean", 0)) is None
    assert "broken.jpg" in caplog.text
