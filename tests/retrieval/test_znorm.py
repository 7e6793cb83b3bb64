"""z-scores against a naive loop over a background set, and statistics that are saved with their reference set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.errors import ReferenceSetError
from impart.refset.refset import ReferenceSet
from impart.retrieval.znorm import ZNorm


def unit(count: int, width: int, seed: int) -> np.ndarray:
    return l2_normalise(np.random.default_rng(seed).standard_normal((count, width)) + 0.3)


def test_z_scores_equal_a_naive_loop_over_the_background() -> None:
    background, queries, references = unit(300, 12, 0), unit(5, 12, 1), unit(7, 12, 2)
    sims = queries @ references.T
    against = queries @ background.T
    want = (sims - against.mean(axis=1, keepdims=True)) / against.std(axis=1, keepdims=True)
    np.testing.assert_allclose(ZNorm.of(background).z_scores(queries, sims), want, atol=1e-4)


def make(seed: int = 0) -> ReferenceSet:
    return ReferenceSet.from_arrays(
        [f"thing {seed} {i}" for i in range(9)],
        image=unit(9, 8, seed),
        text=unit(9, 8, seed + 1),
        retrieval=unit(9, 12, seed + 2),
        encoder_id="tiny",
        encoder_fingerprint="0",
    )


def test_statistics_are_saved_with_their_set(tmp_path: Path) -> None:
    znorm = ZNorm.of(unit(100, 12, 5))
    given = make().with_znorm(znorm)
    given.save(tmp_path / "set")
    opened = ReferenceSet.open(tmp_path / "set").with_vanilla({"k": 1}).named("other")
    assert opened.znorm.digest == znorm.digest
    assert opened.merge(make(7)).znorm.digest == znorm.digest
    opened.save(tmp_path / "copy")
    assert ReferenceSet.open(tmp_path / "copy").znorm.digest == znorm.digest
    opened.with_znorm(ZNorm.of(unit(50, 12, 6))).save(tmp_path / "set")
    assert len(list((tmp_path / "set").glob("cohort-*"))) == 1


def test_a_set_without_statistics_is_its_own_background() -> None:
    references = make()
    assert references.given_znorm is None
    assert references.znorm.digest == ZNorm.of(references.retrieval_embeddings).digest


def test_a_missing_file_of_statistics_is_named(tmp_path: Path) -> None:
    make().with_znorm(ZNorm.of(unit(100, 12, 5))).save(tmp_path / "set")
    next((tmp_path / "set").glob("cohort-*")).unlink()
    with pytest.raises(ReferenceSetError, match="cohort-"):
        _ = ReferenceSet.open(tmp_path / "set").znorm
