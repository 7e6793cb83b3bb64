"""Solved references: folds against refitting, the choice of alpha, the corrections."""

from __future__ import annotations

import numpy as np
import pytest

from impart.blending.few_shot.solved import ALPHAS, Solved, Solver, choose_alpha, debias, whitening
from impart.blending.few_shot.support import LOGIT_SCALE, Support, augmented, dual_texts
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise


def make(*, per_class: int, noise: float, known: float = 0.0, classes: int = 12, seed: int = 0) -> Support:
    """Make references around class centres; `known` is how much an image embedding resembles its text."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, 24))
    texts = l2_normalise(np.random.default_rng(98).standard_normal((classes, 40)).astype(np.float32))
    labels = np.repeat(np.arange(classes), per_class)
    q = centres[labels] + noise * rng.standard_normal((len(labels), 24))
    v = known * texts[labels] + rng.standard_normal((len(labels), 40)) / np.sqrt(40)
    return Support(l2_normalise(v.astype(np.float32)), l2_normalise(q.astype(np.float32)), labels, texts)


def test_folds_equal_refitting_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    support = make(per_class=3, noise=1.0)
    fold = np.tile(np.arange(3), 12)
    monkeypatch.setattr("impart.blending.few_shot.solved._folds", lambda labels, rng: fold)
    found = Solver(support).folded(np.random.default_rng(0))
    for number in range(3):
        kept = fold != number
        rest = Support(support.embeddings[kept], support.retrieval[kept], support.labels[kept], support.texts)
        solver = Solver(rest)
        expected = solver.kernel(support.retrieval[~kept]) @ solver.weights
        np.testing.assert_allclose(found[~kept], expected, atol=1e-4)


def test_the_only_image_of_a_class_is_never_left_out() -> None:
    support = make(per_class=2, noise=1.0)
    kept = np.arange(len(support)) != 1
    single = Support(support.embeddings[kept], support.retrieval[kept], support.labels[kept], support.texts)
    found = Solver(single).folded(np.random.default_rng(0))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


def top1(support: Support, method: Solved, test: Support) -> float:
    logits = LOGIT_SCALE * test.embeddings @ support.texts.T + method.offsets(test.images)
    return float((logits.argmax(axis=1) == test.labels).mean())


def test_alpha_is_large_where_references_tell_more_and_small_where_names_do() -> None:
    names_tell = Solver(make(per_class=3, noise=6.0, known=1.0))
    references_tell = Solver(make(per_class=3, noise=0.3, known=0.0))
    assert choose_alpha(names_tell) < choose_alpha(references_tell)
    test = make(per_class=30, noise=0.3, known=0.0, seed=5)
    assert top1(references_tell.support, Solved(references_tell, choose_alpha(references_tell)), test) > 0.95


@pytest.mark.parametrize(("known", "alpha"), [(0.0, 96.0), (2.0, 24.0)])
def test_with_one_image_per_class_the_names_decide(known: float, alpha: float) -> None:
    assert choose_alpha(Solver(make(per_class=1, noise=1.0, known=known))) == alpha


def test_the_bias_of_a_name_that_attracts_all_images_is_removed() -> None:
    support = make(per_class=4, noise=1.0, known=0.3)
    logits = LOGIT_SCALE * support.embeddings @ support.texts.T
    hub = logits.copy()
    hub[:, 0] += 30
    plain, corrected = (
        (one.argmax(axis=1) == support.labels).mean() for one in (hub, hub - debias(hub, support.labels))
    )
    assert corrected > plain + 0.1


def test_the_bias_weights_classes_equally() -> None:
    support = make(per_class=2, noise=1.0, known=0.5)
    logits = (LOGIT_SCALE * support.embeddings @ support.texts.T).astype(np.float32)
    often = np.concatenate([np.arange(len(logits)), np.repeat([0, 1], 20)])  # both images of class 0, many times
    np.testing.assert_allclose(debias(logits, support.labels), debias(logits[often], support.labels[often]), atol=1e-4)


def test_it_is_an_encoder() -> None:
    support, test = make(per_class=3, noise=1.0, known=0.5), make(per_class=5, noise=1.0, known=0.5, seed=3)
    basis = whitening(unrelated())
    method = Solved.fit(support, basis=basis)
    assert method.alpha in ALPHAS
    offsets = method.offsets(test.images)
    logits = LOGIT_SCALE * test.embeddings @ support.texts.T + offsets
    found = augmented(test.embeddings, offsets, dual_texts(support.texts)) @ support.texts.T
    np.testing.assert_allclose(l2_normalise(found), l2_normalise(logits), atol=1e-5)


def test_left_out_is_the_ridge_without_the_image() -> None:
    support = make(per_class=3, noise=1.0)
    method = Solved.fit(support)
    kept = np.arange(len(support)) != 4
    rest = Solver(Support(support.embeddings[kept], support.retrieval[kept], support.labels[kept], support.texts))
    one = ImageEmbeddings(support.embeddings[4:5], support.retrieval[4:5])
    expected = method.alpha * (rest.kernel(one.retrieval) @ rest.weights)[0] - method.solver.bias
    np.testing.assert_allclose(method.left_out()[4], expected, atol=1e-3)


def unrelated() -> Float32:
    return l2_normalise(np.random.default_rng(7).standard_normal((300, 24)).astype(np.float32))
