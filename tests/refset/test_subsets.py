"""Choosing n of N pairs, and corrupting texts: nested, seeded, and against naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.errors import ConfigError, ReferenceSetError
from impart.refset.refset import ReferenceSet
from impart.refset.subsets import (
    FIXED,
    WAYS,
    agreement,
    choose,
    class_balanced,
    cluster_balanced,
    corrupt,
    coverage,
    deduplicated,
    random,
    texts_exchanged,
)

DIM = 12


def make(
    texts: list[str], retrieval: np.ndarray, *, image: np.ndarray | None = None, hashes: list[str] | None = None
) -> ReferenceSet:
    rng = np.random.default_rng(0)
    image = l2_normalise(rng.standard_normal((len(texts), DIM)).astype(np.float32)) if image is None else image
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    vectors = l2_normalise(np.random.default_rng(9).standard_normal((len(numbers), DIM)).astype(np.float32))
    return ReferenceSet.from_arrays(
        texts,
        image=image,
        text=vectors[[numbers[text] for text in texts]],
        retrieval=l2_normalise(retrieval.astype(np.float32)),
        encoder_id="e",
        encoder_fingerprint="f",
        meta={} if hashes is None else {"hash": hashes},
    )


@pytest.fixture
def uneven() -> ReferenceSet:
    """60 pairs: 40 of one text, 10, 6 and 4 of others, around four far directions in the same proportion."""
    rng = np.random.default_rng(1)
    texts = ["fox"] * 40 + ["owl"] * 10 + ["elk"] * 6 + ["bat"] * 4
    centres = np.eye(DIM)[[{"fox": 0, "owl": 1, "elk": 2, "bat": 3}[text] for text in texts]]
    return make(texts, centres + 0.05 * rng.standard_normal((60, DIM)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_larger_choice_contains_the_smaller(uneven: ReferenceSet, way: str, seed: int) -> None:
    before: set[int] = set()
    for n in (1, 5, 17, 40, 60):
        rows = choose(uneven, way, n, seed=seed)
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert len(rows) == n or way == "dedup"
        assert before <= set(rows.tolist())
        before = set(rows.tolist())


@pytest.mark.parametrize("way", WAYS)
def test_the_seed_changes_every_selection_but_fixed_ones(uneven: ReferenceSet, way: str) -> None:
    choices = [choose(uneven, way, 3, seed=seed).tolist() for seed in range(6)]
    assert choices == [choose(uneven, way, 3, seed=seed).tolist() for seed in range(6)]
    assert (len({tuple(rows) for rows in choices}) == 1) == (way in FIXED)


def test_a_random_choice_is_as_uneven_as_the_set(uneven: ReferenceSet) -> None:
    shares = [np.mean([uneven.texts[row] == "fox" for row in random(uneven, 12, seed=seed)]) for seed in range(50)]
    assert np.mean(shares) == pytest.approx(40 / 60, abs=0.06)


def test_class_balanced_takes_equal_numbers_per_text(uneven: ReferenceSet) -> None:
    texts = [uneven.texts[row] for row in class_balanced(uneven, 12, seed=5)]
    assert {text: texts.count(text) for text in set(texts)} == {"fox": 3, "owl": 3, "elk": 3, "bat": 3}
    texts = [uneven.texts[row] for row in class_balanced(uneven, 24, seed=5)]
    assert texts.count("bat") == 4  # there are no more
    assert sorted(texts.count(text) for text in ("fox", "owl", "elk")) == [6, 7, 7]


def test_cluster_balanced_needs_no_texts(uneven: ReferenceSet) -> None:
    blank = make([f"caption {i}" for i in range(60)], uneven.retrieval_embeddings)
    rows = cluster_balanced(blank, 16, clusters=4)
    counts = [int(np.isin(rows, range(a, b)).sum()) for a, b in ((0, 40), (40, 50), (50, 56), (56, 60))]
    assert counts == [4, 4, 4, 4]


def test_coverage_equals_a_naive_greedy_k_centre() -> None:
    rng = np.random.default_rng(2)
    references = make(["x"] * 50, rng.standard_normal((50, DIM)))
    vectors = references.retrieval_embeddings.astype(np.float64)
    naive = [int(coverage(references, 1, seed=7)[0])]
    while len(naive) < 20:
        nearest = [max(float(vectors[row] @ vectors[centre]) for centre in naive) for row in range(50)]
        naive.append(min((row for row in range(50) if row not in naive), key=lambda row: nearest[row]))
    assert coverage(references, 20, seed=7).tolist() == naive


def test_coverage_takes_every_row_once_even_if_all_are_equal() -> None:
    references = make(["x"] * 6, np.ones((6, DIM)))
    assert sorted(coverage(references, 6).tolist()) == list(range(6))


def test_agreement_takes_the_pairs_with_the_highest_cosine() -> None:
    texts = ["a", "b", "c", "d"]
    matching = make(texts, np.eye(4, DIM)).text_embeddings
    turned = l2_normalise(matching + np.array([[0.1], [5], [0], [1]]) * np.eye(DIM)[5].astype(np.float32))
    assert agreement(make(texts, np.eye(4, DIM), image=turned), 3).tolist() == [2, 0, 3]


def test_dedup_drops_near_duplicates_and_other_captions_of_an_image() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((40, DIM))
    vectors = np.concatenate([vectors, vectors[:10] + 0.01 * rng.standard_normal((10, DIM)), vectors[:5]])
    references = make([str(i) for i in range(55)], vectors)
    rows = deduplicated(references, 55, seed=1, threshold=0.99)
    cosines = references.retrieval_embeddings @ references.retrieval_embeddings.T
    naive: list[int] = []
    for row in np.random.default_rng(1).permutation(55):
        if all(cosines[row, kept] < 0.99 for kept in naive):
            naive.append(int(row))
    assert rows.tolist() == naive
    assert len(rows) == 40


def test_dedup_across_blocks(monkeypatch: pytest.MonkeyPatch, uneven: ReferenceSet) -> None:
    whole = deduplicated(uneven, 60, threshold=0.9).tolist()
    monkeypatch.setattr("impart.refset.subsets._BLOCK", 7)
    assert deduplicated(uneven, 60, threshold=0.9).tolist() == whole
    assert 4 <= len(whole) < 60


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 1.0])
def test_corruption_moves_texts_with_their_embeddings(uneven: ReferenceSet, fraction: float) -> None:
    corrupted = corrupt(uneven, fraction, seed=2)
    assert sorted(corrupted.texts) == sorted(uneven.texts)
    np.testing.assert_array_equal(corrupted.retrieval_embeddings, uneven.retrieval_embeddings)
    np.testing.assert_array_equal(corrupted.image_embeddings, uneven.image_embeddings)
    known = dict(zip(uneven.texts, uneven.text_embeddings, strict=True))
    np.testing.assert_array_equal(corrupted.text_embeddings, np.stack([known[text] for text in corrupted.texts]))
    wrong = sum(a != b for a, b in zip(corrupted.texts, uneven.texts, strict=True))
    if fraction <= 0.5:
        assert wrong <= round(60 * fraction)
    if fraction == 1.0:  # of 40 equal texts only 20 can go to the 20 others
        assert wrong == 40


def test_corruption_of_different_texts_changes_exactly_the_fraction() -> None:
    references = make([str(i) for i in range(50)], np.random.default_rng(0).standard_normal((50, DIM)))
    corrupted: set[int] = set()
    for fraction, count in ((0.0, 0), (0.1, 5), (0.3, 15), (1.0, 50)):
        owners = texts_exchanged(references, fraction, seed=4)
        rows = set(np.flatnonzero(owners != np.arange(50)).tolist())
        assert len(rows) == count
        assert corrupted <= rows
        assert sorted(owners) == list(range(50))
        corrupted = rows
    assert corrupt(references, 0.0) is references


def test_another_caption_of_the_same_image_is_no_corruption() -> None:
    hashes = [str(i // 5) for i in range(50)]
    references = make([str(i) for i in range(50)], np.ones((50, DIM)), hashes=hashes)
    for seed in range(5):
        owners = texts_exchanged(references, 1.0, seed=seed)
        assert not (references.images[owners] == references.images).any()


def test_impossible_choices_are_refused(uneven: ReferenceSet) -> None:
    with pytest.raises(ConfigError, match="there are random, class, cluster"):
        choose(uneven, "best", 3)
    with pytest.raises(ConfigError, match="at least 1"):
        choose(uneven, "random", 0)
    with pytest.raises(ReferenceSetError, match="60 pairs: cannot choose 61"):
        choose(uneven, "random", 61)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        corrupt(uneven, 1.5)
