"""Coarse codes: the error of their estimates, rows that do not depend on each other, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from impart.encoders.base import Float32, l2_normalise
from impart.retrieval.coarse import Basis, Codes
from impart.retrieval.integer_product import ZERO, integer_product


def items(count: int, dim: int, *, seed: int = 0) -> Float32:
    """Items around a mean; the spread falls with the direction, as that of embeddings."""
    rng = np.random.default_rng(seed)
    spread = (1 + np.arange(dim)) ** -0.75
    return l2_normalise((rng.standard_normal((count, dim)) * spread + 0.5 * np.ones(dim) / dim).astype(np.float32))


def texts(count: int, dim: int, *, seed: int = 1) -> Float32:
    """Queries far from all items: their mean is another one."""
    rng = np.random.default_rng(seed)
    apart = np.random.default_rng(9).standard_normal(dim) / np.sqrt(dim) * 2
    return l2_normalise((0.5 * rng.standard_normal((count, dim)) / np.sqrt(dim) + apart).astype(np.float32))


def test_the_product_is_exact() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (70, 96), np.uint8)
    columns = rng.integers(-64, 64, (96, 5)).astype(np.int8)
    columns[:, 0], rows[0] = -64, 255  # the largest sums
    expected = (rows.astype(np.int64) - ZERO) @ columns.astype(np.int64)
    np.testing.assert_array_equal(integer_product(rows, columns), expected)


@pytest.mark.parametrize("dim", [8, 64, 384])
def test_estimates_are_near_for_texts_and_images(dim: int) -> None:
    """The error is a small share of the spread of the scores, and `errors` measures it."""
    everything, asked = items(5000, dim), texts(300, dim)
    basis = Basis.fit(everything[::2], asked[100:])
    codes = basis.encode(everything)
    assert codes.shape == (5000, basis.width)
    assert basis.width <= min(dim, 256)
    for queries in (asked[:40], items(40, dim, seed=5)):
        exact = queries @ everything.T
        errors = np.sqrt(((basis.scores(queries, codes) - exact) ** 2).mean(axis=1))
        assert (errors < 0.25 * exact.std(axis=1)).all()
        assert (errors < 2 * basis.errors(queries)).all()


def test_texts_decide_which_directions_are_kept() -> None:
    """Images hardly differ in the directions in which texts do; codes fitted without texts lose these."""
    rng = np.random.default_rng(0)
    dim = 384
    everything = l2_normalise(np.where(np.arange(dim) < 320, 1, 0.4) * rng.standard_normal((4000, dim), np.float32))
    asked = l2_normalise(np.where(np.arange(dim) < 320, 0.05, 1) * rng.standard_normal((200, dim), np.float32))
    exact = asked[:50] @ everything.T
    lost = []
    for examples in (None, asked[50:]):
        basis = Basis.fit(everything, examples)
        lost.append(float(np.abs(basis.scores(asked[:50], basis.encode(everything)) - exact).mean()))
    assert lost[1] < 0.8 * lost[0]


def test_a_row_does_not_depend_on_the_others() -> None:
    everything = items(3000, 96)
    basis = Basis.fit(everything[:2000])
    whole = basis.encode(everything)
    np.testing.assert_array_equal(np.concatenate([basis.encode(everything[:7]), basis.encode(everything[7:])]), whole)
    blocks = Codes(basis=basis, blocks=(whole[:1], whole[1:1001], whole[1001:]))
    assert len(blocks) == 3000
    queries = everything[:70]
    np.testing.assert_allclose(blocks.scores(queries), basis.scores(queries, whole), atol=1e-6)


def test_a_basis_is_read_as_it_was_written(tmp_path: Path) -> None:
    everything = items(1000, 64)
    basis = Basis.fit(everything)
    basis.save(tmp_path / "basis.npz")
    again = Basis.load(tmp_path / "basis.npz")
    assert again.digest == basis.digest != Basis.fit(everything[:900]).digest
    np.testing.assert_array_equal(again.encode(everything), basis.encode(everything))
    (tmp_path / "basis.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="damaged"):
        Basis.load(tmp_path / "basis.npz")


@pytest.mark.parametrize("sample", [np.ones((3, 4)) / 2, np.eye(4)[:1], np.zeros((50, 4))])
def test_few_or_equal_items_have_a_basis(sample: np.ndarray) -> None:
    rows = sample.astype(np.float32)
    basis = Basis.fit(rows)
    np.testing.assert_allclose(basis.scores(rows, basis.encode(rows)), rows @ rows.T, atol=0.02)
