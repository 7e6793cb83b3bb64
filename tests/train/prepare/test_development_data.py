"""Training images of the development data: tidied texts, and no evaluation data."""

from __future__ import annotations

import pytest

from impart.train.prepare.development_data import FORBIDDEN, read_images, tidy


@pytest.mark.parametrize(
    ("raw", "tidied"),
    [
        ("This photo shows two men riding camels. (credit: A. Person/flickr)", "two men riding camels."),
        ("An image of a truck  with_flashing lights", "a truck with flashing lights"),
        ("This picture shows a boat", "a boat"),
        ("Picture of a boat", "a boat"),
        ("A dog runs .", "A dog runs ."),
        ("By Theo Kruse, CC BY-SA 4.0", ""),
    ],
)
def test_tidy(raw, tidied):
    assert tidy(raw) == tidied


@pytest.mark.data
def test_training_never_reads_evaluation_data(data_dir):
    images = read_images(data_dir)
    assert len(images) > 20_000
    assert not any(FORBIDDEN & set(image.path.parts) for image in images)
    assert all(image.texts for image in images)
