"""The hold-out split: a partition, a function of the seed alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.train.prepare.split import hold_out


def _digests(split):
    parts = (split.train, split.references, split.validation)
    return [hashlib.sha256(part.astype("<i8").tobytes()).hexdigest()[:16] for part in parts]


def test_a_seed_gives_the_split_that_it_always_gave():
    """Recorded: another split would put the references of an earlier run among the training images of a later one."""
    split = hold_out(1000, fraction=0.1, seed=3, validation=50)
    assert _digests(split) == ["2c63161155b7ac7e", "9bfd75a7ae849891", "34bb53219a1b856e"]
    split = hold_out(20, fraction=0.25, seed=0, validation=4)
    assert (split.references.tolist(), split.validation.tolist()) == ([1, 7, 11, 12], [0, 5, 6, 13])
    split = hold_out(20, fraction=0.25, seed=7, held_out=False, use=0.5, eligible=np.arange(20) < 12)
    assert split.references.tolist() == [5, 9]


def test_split_is_a_partition_and_a_smaller_use_is_a_part_of_a_larger():
    whole = hold_out(1000, fraction=0.1, seed=3, validation=50)
    parts = np.concatenate([whole.train, whole.references, whole.validation])
    assert np.array_equal(np.sort(parts), np.arange(1000))
    assert (len(whole.references), len(whole.validation)) == (95, 50)
    half = hold_out(1000, fraction=0.1, seed=3, validation=50, use=0.5)
    assert np.array_equal(half.train, whole.train)
    assert set(half.references) < set(whole.references)
    assert len(half.references) == 48
    assert not np.array_equal(hold_out(1000, fraction=0.1, seed=4, validation=50).references, whole.references)


def test_references_can_be_kept_in_training_and_taken_from_some_sources():
    eligible = np.arange(100) < 40
    split = hold_out(100, fraction=0.5, seed=0, held_out=False, eligible=eligible)
    assert len(split.references) == 20
    assert split.references.max() < 40
    assert len(split.train) == 100
