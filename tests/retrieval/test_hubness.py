"""The hub correction against a naive loop, and on a hub that swallows every query."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders import load_encoder
from impart.encoders.base import l2_normalise
from impart.errors import EncoderError
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import MANY, TEMPERATURE, WEIGHT, CaptionBank, bundled_bank


def unit(count: int, seed: int, width: int = 24) -> np.ndarray:
    return l2_normalise(np.random.default_rng(seed).standard_normal((count, width)))


@pytest.mark.parametrize("count", [3, 200])
def test_it_is_the_soft_maximum_over_captions(count: int) -> None:
    captions, images = unit(count, 0), unit(7, 1)
    want = [
        WEIGHT
        * TEMPERATURE
        * math.log(sum(math.exp(float(image @ caption) / TEMPERATURE) for caption in captions) / count)
        for image in images
    ]
    np.testing.assert_allclose(CaptionBank(captions).hubness(images), want, atol=1e-5)


def test_queries_count_half_or_less_where_they_are_few() -> None:
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


def test_a_bank_survives_saving_and_belongs_to_its_model(tmp_path: Path) -> None:
    bank, images = CaptionBank(unit(50, 0)), unit(9, 1)
    bank.save(tmp_path / "captions.npz", fingerprint="mine")
    again = CaptionBank.load(tmp_path / "captions.npz", fingerprint="mine")
    np.testing.assert_allclose(again.hubness(images), bank.hubness(images), atol=0.02)
    with pytest.raises(EncoderError, match="another version"):
        CaptionBank.load(tmp_path / "captions.npz", fingerprint="other")
    (tmp_path / "captions.npz").write_bytes(b"broken")
    with pytest.raises(EncoderError, match=r"captions\.npz cannot be read"):
        CaptionBank.load(tmp_path / "captions.npz", fingerprint="mine")


def test_mini_brings_captions_and_others_do_not() -> None:
    mini = load_encoder("mini")
    bank = bundled_bank(mini)
    assert bank is not None
    assert len(bank) == 1000
    empty = ReferenceSet.from_arrays(
        ["thing"],
        image=unit(1, 0, mini.traits.dim),
        text=unit(1, 1, mini.traits.dim),
        retrieval=unit(1, 2, mini.traits.retrieval_dim),
        encoder_id="mini",
        encoder_fingerprint=mini.fingerprint,
    )
    augmented = AugmentedEncoder(mini, empty, Vanilla(VanillaSettings()))
    assert len(bundled_bank(augmented) or ()) == 1000
    assert bundled_bank(TinyEncoder()) is None
