"""Hold-out split: a partition, and a function of the seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.refset.pairs import Pair
from impart.train.events import result_of
from impart.train.prepare.pairs import Failures, ListedImage, Listing
from impart.train.prepare.split import hold_out, split_images
from impart.train.settings import DataSettings, ReferenceSettings, TrainConfig


def _digests(split):
    parts = (split.train, split.references, split.validation)
    return [hashlib.sha256(part.astype("<i8").tobytes()).hexdigest()[:16] for part in parts]


def test_a_seed_gives_the_recorded_split():
    """Another split would mix references and training images of an earlier run."""
    split = hold_out(1000, fraction=0.1, seed=3, validation=50)
    assert _digests(split) == ["2c63161155b7ac7e", "9bfd75a7ae849891", "34bb53219a1b856e"]
    split = hold_out(20, fraction=0.25, seed=0, validation=4)
    assert (split.references.tolist(), split.validation.tolist()) == ([1, 7, 11, 12], [0, 5, 6, 13])
    split = hold_out(20, fraction=0.25, seed=7, held_out=False, use=0.5, eligible=np.arange(20) < 12)
    assert split.references.tolist() == [5, 9]


def _listing(own):
    pairs = [Pair(image=Path(f"{n}.png"), text="text", source="ab"[n % 2]) for n in range(60)]
    return Listing([ListedImage(pair, [pair.text]) for pair in pairs], own)


@pytest.mark.parametrize(
    ("own", "references", "validation"),
    [
        (60, [0, 10, 36, 46, 54], [22, 31, 38, 43, 49, 50]),
        (50, [0, 10, 22, 30, 36, 38], [50, 51, 52, 53, 54, 55, 56, 57, 58, 59]),
    ],
    ids=["held out", "own validation images"],
)
def test_a_run_has_the_recorded_split(own, references, validation):
    config = TrainConfig(
        seed=4,
        data=DataSettings(validation_images=6),
        reference=ReferenceSettings(fraction=0.3, sources=("a",), use=0.8),
    )
    hashes = [f"h{number}" for number in range(60)]
    hashes[7], hashes[30] = "", "h31"  # one cannot be read, one has the content of another
    split, pairs = result_of(split_images(config, _listing(own), hashes, Failures()))
    assert pairs == [(number, 0) for number in references]
    assert split.references.tolist() == references
    assert split.validation.tolist() == validation
    assert len(split.train) == {60: 45, 50: 41}[own]
    assert not {hashes[number] for number in validation} & {hashes[number] for number in split.train}
    assert 7 not in split.train


def test_a_split_is_a_partition_and_a_smaller_use_is_a_subset_of_a_larger():
    whole = hold_out(1000, fraction=0.1, seed=3, validation=50)
    parts = np.concatenate([whole.train, whole.references, whole.validation])
    assert np.array_equal(np.sort(parts), np.arange(1000))
    assert (len(whole.references), len(whole.validation)) == (95, 50)
    half = hold_out(1000, fraction=0.1, seed=3, validation=50, use=0.5)
    assert np.array_equal(half.train, whole.train)
    assert set(half.references) < set(whole.references)
    assert len(half.references) == 48
    assert not np.array_equal(hold_out(1000, fraction=0.1, seed=4, validation=50).references, whole.references)


def test_references_may_be_trained_on_and_may_be_of_some_sources_alone():
    eligible = np.arange(100) < 40
    split = hold_out(100, fraction=0.5, seed=0, held_out=False, eligible=eligible)
    assert len(split.references) == 20
    assert split.references.max() < 40
    assert len(split.train) == 100
