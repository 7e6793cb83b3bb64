"""Scores of frames: the pieces in which they are computed do not show, and the BLAS keeps its threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from helpers.colour_references import colour_set
from helpers.snapshots import make_snapshot
from helpers.tiny_encoder import DIM, RETRIEVAL_DIM, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.retrieval.hubness import CaptionBank
from impart.video.search import scoring
from impart.video.search.scoring import frame_hubness, frame_scores
from impart.video.search.snapshot import Snapshot

COUNT = 1000


@pytest.fixture(scope="module")
def augmented() -> AugmentedEncoder:
    return AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=3)))


@pytest.fixture(scope="module")
def snapshot(augmented: AugmentedEncoder) -> Snapshot:
    rng = np.random.default_rng(0)
    vectors = l2_normalise(rng.standard_normal((COUNT, DIM))).astype(np.float16)
    vectors[7] = 0
    retrieval = l2_normalise(rng.standard_normal((COUNT, RETRIEVAL_DIM)))
    return make_snapshot(vectors, blend=augmented.blend(ImageEmbeddings(vectors.astype(np.float32), retrieval)))


@pytest.mark.parametrize("blended", [False, True])
def test_pieces_give_the_scores_of_one_product(
    snapshot: Snapshot, augmented: AugmentedEncoder, blended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_ROWS", 64)
    encoder = augmented if blended else None
    queries = l2_normalise(np.random.default_rng(1).standard_normal((5, DIM)))
    base = snapshot.vectors.astype(np.float32)
    expected = queries @ (augmented.apply(base, snapshot.blend) if blended else l2_normalise(base)).T  # type: ignore[arg-type]
    np.testing.assert_allclose(frame_scores(queries, snapshot, encoder), expected, atol=2e-6)
    rows = np.array([999, 3, 7, 500])
    np.testing.assert_allclose(frame_scores(queries, snapshot, encoder, rows=rows), expected[:, rows], atol=2e-6)
    bank = CaptionBank(queries)
    vectors = augmented.apply(base, snapshot.blend) if blended else l2_normalise(base)  # type: ignore[arg-type]
    np.testing.assert_allclose(frame_hubness(bank, snapshot, encoder), bank.hubness(vectors), atol=2e-6)


def test_the_blas_has_one_thread_in_a_piece_and_its_own_afterwards(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if "numpy" in library["filepath"]]

    monkeypatch.setattr(scoring, "_ROWS", 64)
    before, within = threads(), []

    class Counting(AugmentedEncoder):
        def scores(self, *arguments: np.ndarray) -> np.ndarray:  # type: ignore[override]
            within.append(max(threads()))
            return super().scores(*arguments)  # type: ignore[arg-type]

    encoder = Counting(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=3)))
    queries = l2_normalise(np.random.default_rng(1).standard_normal((2, DIM)))
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: frame_scores(queries, snapshot, encoder), range(8)):
            pass
    assert set(within) == {1}
    assert threads() == before
