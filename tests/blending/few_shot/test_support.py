"""Few-shot methods: exact leave-one-out against a loop, and the encoder form against the classifier form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from impart.blending.few_shot.prototypes import Prototypes
from impart.blending.few_shot.ridge import KernelRidge, Spectrum
from impart.blending.few_shot.support import LOGIT_SCALE, FewShot, Support, augmented, dual_texts
from impart.encoders.base import ImageEmbeddings, l2_normalise

CLASSES, PER_CLASS, WIDTH, RETRIEVAL = 6, 3, 32, 20
FITS: dict[str, Callable[[Support], FewShot]] = {
    "ridge": lambda support: KernelRidge(Spectrum(support, beta=3.0), lam=0.3, alpha=20.0),
    "prototypes": lambda support: Prototypes(support, alpha=30.0),
}


def make(seed: int = 0) -> Support:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    centres = rng.standard_normal((CLASSES, RETRIEVAL))
    near = centres[labels] + rng.standard_normal((len(labels), RETRIEVAL))
    embeddings, texts = rng.standard_normal((len(labels), WIDTH)), rng.standard_normal((CLASSES, WIDTH))
    return Support(*(l2_normalise(a.astype(np.float32)) for a in (embeddings, near)), labels, l2_normalise(texts))


def without(support: Support, row: int) -> Support:
    kept = np.arange(len(support)) != row
    return Support(support.embeddings[kept], support.retrieval[kept], support.labels[kept], support.texts)


@pytest.mark.parametrize("name", FITS)
def test_left_out_equals_the_method_fitted_without_the_image(name: str) -> None:
    support = make()
    exact = FITS[name](support).left_out()
    for row in range(len(support)):
        one = ImageEmbeddings(support.embeddings[row : row + 1], support.retrieval[row : row + 1])
        expected = FITS[name](without(support, row)).offsets(one)[0]
        np.testing.assert_allclose(exact[row], expected, atol=1e-4)


@pytest.mark.parametrize("name", FITS)
def test_the_encoder_form_equals_the_classifier_form(name: str) -> None:
    support, other = make(), make(1)
    offsets = FITS[name](support).offsets(other.images)
    logits = LOGIT_SCALE * other.embeddings @ support.texts.T + offsets
    found = augmented(other.embeddings, offsets, dual_texts(support.texts))
    norm = np.linalg.norm(other.embeddings + offsets / LOGIT_SCALE @ dual_texts(support.texts), axis=1, keepdims=True)
    np.testing.assert_allclose(found @ support.texts.T, logits / LOGIT_SCALE / norm, atol=1e-5)


def test_a_class_with_one_image_gets_the_mean_of_the_others_when_it_is_left_out() -> None:
    support = make()
    single = without(without(support, 1), 1)  # class 0 has one image
    found = Prototypes(single, alpha=1.0).left_out()[0]
    assert single.counts[0] == 1
    assert found[0] == pytest.approx(found[1:].mean(), abs=1e-6)


def test_equal_references_share_their_weight() -> None:
    support = make()
    doubled = Support(
        *(np.concatenate([rows, rows[:1]]) for rows in (support.embeddings, support.retrieval, support.labels)),
        support.texts,
    )
    once, twice = (
        KernelRidge(Spectrum(s, beta=3.0), lam=1e-3, alpha=1.0).offsets(s.images) for s in (support, doubled)
    )
    np.testing.assert_allclose(once[3:], twice[3 : len(once)], atol=0.01)
