"""Logistic regression on the references: the solved weights at share 0, its optimum, folds, and the temperature."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from impart.blending.few_shot.logistic import Constants, KernelLogistic, choose_temperature, logistic_weights, take
from impart.blending.few_shot.ridge import KernelRidge, Spectrum, kernel
from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.encoders.base import Float32, l2_normalise

CLASSES, WIDTH, RETRIEVAL = 6, 32, 20
PLAIN = Constants(beta=1.0, ridge=0.05, alpha=80.0, penalty=0.05, temperature=0.1, share=1.0)


def make(seed: int = 0, *, per_class: int = 3, known: float = 0.3) -> Support:
    """Draw references that the retrieval embeddings separate, and the embeddings by the share `known`."""
    rng, drawn = np.random.default_rng(100), np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), per_class)
    texts = l2_normalise(rng.standard_normal((CLASSES, WIDTH)).astype(np.float32))
    centres = rng.standard_normal((CLASSES, RETRIEVAL))
    near = centres[labels] + 1.5 * drawn.standard_normal((len(labels), RETRIEVAL))
    own = known * texts[labels] + 0.2 * drawn.standard_normal((len(labels), WIDTH))
    return Support(l2_normalise(own.astype(np.float32)), l2_normalise(near.astype(np.float32)), labels, texts)


def zero_shot(support: Support) -> Float32:
    logits: Float32 = LOGIT_SCALE * support.embeddings @ support.texts.T
    return logits


def hits(support: Support, offsets: Float32) -> float:
    return float(((zero_shot(support) + offsets).argmax(axis=1) == support.labels).mean())


def test_with_a_share_of_zero_they_are_the_solved_weights() -> None:
    support, other = make(), make(1)
    ridge = KernelRidge(Spectrum(support, PLAIN.beta), PLAIN.ridge, PLAIN.alpha).offsets(other.images)
    found = KernelLogistic(support, dataclasses.replace(PLAIN, share=0.0))
    np.testing.assert_allclose(found.offsets(other.images) / LOGIT_SCALE, ridge / LOGIT_SCALE, atol=1e-5)
    assert np.abs(KernelLogistic(support, PLAIN).offsets(other.images) - ridge).max() > 1
    assert choose_temperature(support, found.constants) == found.constants


def test_the_solver_reaches_a_stationary_point_of_the_loss() -> None:
    support = make()
    matrix = kernel(support.retrieval, support.retrieval, beta=1.0)
    (found,) = logistic_weights(matrix, support.one_hot, zero_shot(support), penalty=0.1, taus=(0.1,), steps=300)
    logits = 0.1 * zero_shot(support) + matrix @ found
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(0.1 * found, support.one_hot - shares, atol=1e-4)


def test_references_that_zero_shot_names_weigh_less() -> None:
    support = make(known=0.0)
    named = support.texts[support.labels[:1]]
    sure = dataclasses.replace(support, embeddings=np.concatenate([named, support.embeddings[1:]]))
    one, other = (np.abs(KernelLogistic(each, PLAIN).weights[0]).sum() for each in (sure, support))
    assert one < 0.5 * other


def test_left_out_equals_a_fit_on_the_other_folds() -> None:
    support = make(per_class=2)
    found = KernelLogistic(support, PLAIN).left_out()
    second = np.arange(1, len(support), 2)
    fitted = KernelLogistic(take(support, second - 1), PLAIN)  # the first image of each class
    np.testing.assert_allclose(found[second], fitted.offsets(take(support, second).images), atol=1e-4)


@pytest.mark.parametrize(("known", "higher"), [(0.0, False), (2.0, True)])
def test_the_temperature_follows_how_well_the_model_knows_the_names(known: float, higher: bool) -> None:
    support = make(per_class=4, known=known)
    chosen = choose_temperature(support, PLAIN)
    if higher:
        assert chosen.temperature >= PLAIN.temperature
    else:
        assert chosen.temperature < PLAIN.temperature
    other = make(1, per_class=20, known=known)
    after, before = (hits(other, KernelLogistic(support, own).offsets(other.images)) for own in (chosen, PLAIN))
    assert after >= before


def test_one_image_per_class_leaves_the_temperature() -> None:
    assert choose_temperature(make(per_class=1), PLAIN) == PLAIN
