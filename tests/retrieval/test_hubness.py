"""The hub correction against a naive loop, and on a hub that is first for every query."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.encoders import load_encoder
from impart.encoders.base import l2_normalise
from impart.errors import EncoderError
from impart.retrieval.hubness import (
    BETA,
    MANY,
    TEMPERATURE,
    WEIGHT,
    CaptionBank,
    bundled_bank,
    dynamic_inverted_softmax,
)


def unit(count: int, seed: int, width: int = 24) -> np.ndarray:
    return l2_normalise(np.random.default_rng(seed).standard_normal((count, width)))


@pytest.mark.parametrize("count", [3, 200])
def test_hubness_is_the_soft_maximum_over_captions(count: int) -> None:
    captions, images = unit(count, 0), unit(7, 1)
    want = [
        WEIGHT
        * TEMPERATURE
        * math.log(sum(math.exp(float(image @ caption) / TEMPERATURE) for caption in captions) / count)
        for image in images
    ]
    np.testing.assert_allclose(CaptionBank(captions).hubness(images), want, atol=1e-5)


def test_queries_have_half_of_the_weight_or_less_where_they_are_few() -> None:
    bank, images = CaptionBank(unit(200, 0)), unit(7, 1)
    near = images @ bank.captions.T / TEMPERATURE
    for count, share in ((MANY * 2, 0.5), (MANY // 5, 0.1)):
        queries = unit(count, 3)
        mean = (1 - share) * np.exp(near).mean(1) + share * np.exp(images @ queries.T / TEMPERATURE).mean(1)
        want = WEIGHT * TEMPERATURE * np.log(mean)
        np.testing.assert_allclose(bank.with_queries(queries).hubness(images), want, atol=1e-5)
    alone = CaptionBank(bank.captions[:0]).with_queries(bank.captions)  # a model without captions
    np.testing.assert_allclose(alone.hubness(images), bank.hubness(images), atol=1e-5)


def test_no_captions_no_correction() -> None:
    assert CaptionBank(np.zeros((0, 24), np.float32)).hubness(unit(3, 0)).tolist() == [0, 0, 0]


def test_a_hub_no_longer_comes_first() -> None:
    common, own = unit(1, 5)[0], unit(40, 7)
    captions = l2_normalise(unit(300, 6) + 2 * common)  # all sentences have something in common
    texts = l2_normalise(own + 2 * common)
    images = l2_normalise(own + 0.5 * common + 0.1 * unit(40, 8))
    images[0] = common  # the hub: near to every sentence
    scores = texts @ images.T
    assert (scores[1:].argmax(1) == 0).mean() > 0.5
    corrected = scores - CaptionBank(captions).hubness(images)
    assert (corrected[1:].argmax(1) == np.arange(1, 40)).mean() > 0.9


def test_a_saved_bank_loads_for_its_model_only(tmp_path: Path) -> None:
    bank, images = CaptionBank(unit(50, 0)), unit(9, 1)
    bank.save(tmp_path / "captions.npz", fingerprint="mine")
    again = CaptionBank.load(tmp_path / "captions.npz", fingerprint="mine")
    np.testing.assert_allclose(again.hubness(images), bank.hubness(images), atol=0.02)
    with pytest.raises(EncoderError, match="another version"):
        CaptionBank.load(tmp_path / "captions.npz", fingerprint="other")
    (tmp_path / "captions.npz").write_bytes(b"broken")
    with pytest.raises(EncoderError, match=r"captions\.npz cannot be read"):
        CaptionBank.load(tmp_path / "captions.npz", fingerprint="mine")


def test_mini_has_a_caption_bank_and_a_foreign_encoder_has_none() -> None:
    bank = bundled_bank(load_encoder("mini"))
    assert bank is not None
    assert len(bank) == 1000
    assert bundled_bank(TinyEncoder()) is None


def naive_inverted_softmax(scores: np.ndarray, bank: np.ndarray, beta: float, k: int) -> np.ndarray:
    """Compute the equations of the paper: exp(beta s) over the bank's sum, where the best item is marked."""
    marked = {int(item) for row in bank for item in np.argsort(-row)[:k]}
    total = np.exp(beta * bank).sum(axis=0)
    rows = [np.exp(beta * row) / total if int(np.argmax(row)) in marked else row for row in scores]
    return np.stack(rows)


@pytest.mark.parametrize("k", [1, 3])
def test_inverted_softmax_orders_as_the_papers_equation(k: int) -> None:
    rng = np.random.default_rng(1)
    scores, bank = rng.uniform(-1, 1, (30, 20)), rng.uniform(-1, 1, (8, 20))
    ours = dynamic_inverted_softmax(scores, bank, k=k)
    theirs = naive_inverted_softmax(scores, bank, BETA, k)
    assert np.argsort(-ours, axis=1).tolist() == np.argsort(-theirs, axis=1).tolist()
    untouched = [bool((row == before).all()) for row, before in zip(ours, scores, strict=True)]
    assert any(untouched)  # queries whose best item no bank query picks
    assert not all(untouched)
