"""Few-shot methods against naive loops, leave-one-out against refitting, encoder form against classifier form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from helpers.supports import CLASSES, PER_CLASS, PROMPTS, RETRIEVAL, WIDTH, make
from impart.blending.few_shot.ape import Ape, Refined, channels
from impart.blending.few_shot.gda import Gda
from impart.blending.few_shot.proker import ProKeR
from impart.blending.few_shot.ridge import Spectrum
from impart.blending.few_shot.support import LOGIT_SCALE, FewShot, Support, augmented, dual_texts
from impart.blending.few_shot.timo import Guided, Timo
from impart.blending.few_shot.tip_adapter import TipAdapter
from impart.blending.few_shot.transclip import TransClip
from impart.encoders.base import ImageEmbeddings, l2_normalise

Array = npt.NDArray[np.float64]
FITS: dict[str, Callable[[Support], FewShot]] = {
    "tip-adapter": lambda support: TipAdapter(support, 3.0, 20.0),
    "ape": lambda support: Ape(Refined(support, 0.6), 3.0, 0.4, 20.0),
    "gda": lambda support: Gda(support, 0.3),
    "timo": lambda support: Timo(Guided(support, 5.0), 0.2),
    "proker": lambda support: ProKeR(Spectrum(support, 2.0), 0.3),
}


def row_of(support: Support, row: int) -> ImageEmbeddings:
    return ImageEmbeddings(support.embeddings[row : row + 1], support.retrieval[row : row + 1])


@pytest.mark.parametrize("one_space", [False, True])
@pytest.mark.parametrize("name", FITS)
def test_left_out_equals_the_method_fitted_without_the_image(name: str, one_space: bool) -> None:
    support = make(one_space=one_space, spare=True)
    exact = FITS[name](support).left_out()
    for row in range(len(support)):
        refitted = FITS[name](support.only(np.arange(len(support)) != row)).offsets(row_of(support, row))[0]
        np.testing.assert_allclose(exact[row], refitted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FITS)
def test_the_encoder_form_equals_the_classifier_form(name: str) -> None:
    support, other = make(), make(1)
    offsets = FITS[name](support).offsets(other.images)
    logits = LOGIT_SCALE * other.embeddings @ support.texts.T + offsets
    duals = dual_texts(support.texts)
    norm = np.linalg.norm(other.embeddings + offsets / LOGIT_SCALE @ duals, axis=1, keepdims=True)
    found = augmented(other.embeddings, offsets, duals) @ support.texts.T
    np.testing.assert_allclose(found, logits / LOGIT_SCALE / norm, atol=1e-5)
    assert np.abs(offsets).max() > 0.1  # the methods do something here


def test_tip_adapter_is_a_sum_over_the_cache() -> None:
    support, other = make(), make(1)
    found = FITS["tip-adapter"](support).offsets(other.images)
    expected = np.zeros_like(found)
    for b, x in enumerate(other.retrieval):
        for q, label in zip(support.retrieval, support.labels, strict=True):
            expected[b, label] += 20.0 * math.exp(-3.0 * (1 - float(x @ q)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_ape_chooses_channels_by_pairs_of_different_classes() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((4, 2, 6))  # classes, vectors of each, width
    alike, pairs = np.zeros(6), 0
    for one in range(4):
        for other in range(4):
            for a in vectors[one]:
                for b in vectors[other]:
                    if one != other:
                        alike, pairs = alike + a * b, pairs + 1
    texts = vectors[:, 0]
    score = -0.5 * alike / pairs + 0.5 * texts.var(axis=0, ddof=1)
    found = channels(vectors.sum(axis=1), np.full(4, 2), texts, kept=3)
    assert found.tolist() == sorted(np.argsort(-score)[:3].tolist())


def test_ape_weighs_the_cache_on_the_chosen_channels() -> None:
    support, other = make(one_space=True), make(1, one_space=True)
    refined = Refined(support, 0.6)
    chosen = refined.chosen[0]
    assert len(chosen) == round(0.6 * WIDTH)
    keys, texts = l2_normalise(support.embeddings[:, chosen]), l2_normalise(support.texts[:, chosen])
    found = Ape(refined, 3.0, 0.4, 2.0).offsets(other.images)
    expected = np.zeros_like(found)
    for b, x in enumerate(l2_normalise(other.embeddings[:, chosen])):
        for key, label in zip(keys, support.labels, strict=True):
            shares = np.exp(texts @ key)
            divergence = math.log2((1 + 1e-6) / (shares[label] / shares.sum() + 1e-6))
            expected[b, label] += 2.0 * math.exp(-3.0 * (1 - float(x @ key))) * math.exp(0.4 * divergence)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_gda_has_the_weights_of_the_paper() -> None:
    support, other = make(), make(1)
    rows, labels = support.retrieval.astype(np.float64), support.labels
    means = np.stack([rows[labels == number].mean(axis=0) for number in range(CLASSES)])
    centred = rows - means[labels]
    covariance = np.cov(centred.T)  # the means are zero
    width = RETRIEVAL
    inverse = width * np.linalg.pinv((len(rows) - 1) * covariance + np.trace(covariance) * np.eye(width))
    expected = other.retrieval @ (inverse @ means.T) - 0.5 * np.einsum("cq,qr,cr->c", means, inverse, means)
    np.testing.assert_allclose(Gda(support, 0.3).offsets(other.images), 0.3 * expected, rtol=1e-4, atol=1e-4)


def test_gda_of_one_image_per_class_compares_with_the_images() -> None:
    support, other = make(), make(1)
    single = support.only(np.arange(len(support)) % PER_CLASS == 0)
    expected = RETRIEVAL * (other.retrieval @ single.retrieval.T - 0.5)
    np.testing.assert_allclose(Gda(single, 1.0).offsets(other.images), expected, rtol=1e-4, atol=1e-4)
    left_out = Gda(single, 1.0).left_out()
    assert left_out[0, 0] == pytest.approx(left_out[0, 1:].mean(), rel=1e-5)


def test_timo_guides_texts_by_images_and_images_by_texts() -> None:
    support, other = make(), make(1)
    assert support.prompts is not None
    texts, samples, labels = [], [support.embeddings.astype(np.float64)], [support.labels]
    for number, prompts in enumerate(support.prompts.astype(np.float64)):
        mean = support.embeddings[support.labels == number].mean(axis=0)
        matches = prompts @ (mean / np.linalg.norm(mean))
        weights = np.exp(5.0 * matches / np.linalg.norm(matches))
        text = (weights / weights.sum()) @ prompts
        texts.append(text / np.linalg.norm(text))
        samples.append(matches[:, None] * prompts)
        labels.append(np.full(PROMPTS, number))
    rows = Support(
        np.zeros((CLASSES * (PER_CLASS + PROMPTS), WIDTH), dtype=np.float32),
        np.concatenate(samples),
        np.concatenate(labels),
        support.texts,
    )
    discriminant = Gda(rows, 0.2).offsets(ImageEmbeddings(other.embeddings, other.embeddings))
    expected = LOGIT_SCALE * other.embeddings @ (np.stack(texts) - support.texts).T + discriminant
    np.testing.assert_allclose(FITS["timo"](support).offsets(other.images), expected, rtol=1e-3, atol=1e-2)


def test_proker_predicts_what_zero_shot_lacks() -> None:
    support, other = make(), make(1)
    kernel = np.exp(-2.0 * (1 - support.retrieval.astype(np.float64) @ support.retrieval.T))
    lacking = support.one_hot - support.embeddings @ support.texts.T
    weights = np.linalg.solve(kernel / 0.3 + np.eye(len(support)), lacking)
    expected = LOGIT_SCALE * np.exp(-2.0 * (1 - other.retrieval @ support.retrieval.T)) @ weights
    np.testing.assert_allclose(FITS["proker"](support).offsets(other.images), expected, rtol=1e-3, atol=1e-2)


def naive_transclip(support: Support, x: Array, logits: Array, gamma: float) -> Array:
    """One image, class and neighbour at a time."""

    def share(scores: Array) -> Array:
        found = np.exp(scores - scores.max())
        return found / found.sum()

    prior = np.stack([share(row) for row in logits])
    q = support.retrieval.astype(np.float64)
    z = prior.copy()
    means = np.stack([q[support.labels == c].sum(axis=0) for c in range(CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    variances = np.full(x.shape[1], 1 / x.shape[1])
    near = [sorted((j for j in range(len(x)) if j != i), key=lambda j: -float(x[i] @ x[j]))[:3] for i in range(len(x))]
    near_q = [sorted(range(len(x)), key=lambda j: -float(row @ x[j]))[:3] for row in q]
    for step in range(11):
        likelihood = np.array([[-0.5 * float((((row - mean) ** 2) / variances).sum()) for mean in means] for row in x])
        for _ in range(5):
            pull = np.zeros_like(z)
            for i, own in enumerate(near):
                for j in own:
                    pull[i] += float(x[i] @ x[j]) * z[j]
                    pull[j] += float(x[i] @ x[j]) * z[i]
            for row, own, label in zip(q, near_q, support.labels, strict=True):
                for j in own:
                    pull[j, label] += float(row @ x[j])
            z = np.stack([np.sqrt(prior[i]) * np.exp((likelihood[i] + 50 / 6 * pull[i]) / 50) for i in range(len(x))])
            z /= z.sum(axis=1, keepdims=True)
        if step == 10:
            return z
        new = np.zeros_like(means)
        for c in range(CLASSES):
            for row, share_of in zip(x, z, strict=True):
                new[c] += share_of[c] / len(x) * row
            for row, label in zip(q, support.labels, strict=True):
                new[c] += (label == c) * 50 * gamma / len(q) * row
        means = new / np.linalg.norm(new, axis=1, keepdims=True)
        variances = np.zeros(x.shape[1])
        for c in range(CLASSES):
            for row, share_of in zip(x, z, strict=True):
                variances += share_of[c] / len(x) * (row - means[c]) ** 2
            for row, label in zip(q, support.labels, strict=True):
                variances += (label == c) * 50 * gamma / len(q) * (row - means[c]) ** 2
        variances /= 1 + 50 * gamma
    raise AssertionError


def test_transclip_equals_a_naive_loop_and_its_offsets_give_its_classes() -> None:
    support, other = make(), make(1)
    logits = LOGIT_SCALE * other.embeddings.astype(np.float64) @ support.texts.T
    method = TransClip(support, 0.02)
    expected = naive_transclip(support, other.retrieval.astype(np.float64), logits, 0.02)
    found = method.assign(other.retrieval, logits)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    scores = logits + method.offsets(other.images)
    assert (scores.argmax(axis=1) == found.argmax(axis=1)).all()
    alone = replace(method).assign(other.retrieval[:4], logits[:4])
    assert np.abs(alone - found[:4]).max() > 1e-3  # transductive: it depends on the other test images
