"""The choice of constants: by leave-one-out, by folds, on validation images, and with one image per class."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest

from helpers.supports import CLASSES, PER_CLASS, make
from impart.blending.few_shot.choice import FAMILIES, Labelled, MethodFamily, choose, constants_of
from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.blending.few_shot.tip_adapter import TipAdapter
from impart.config import FewShotMethod
from impart.encoders.base import ImageEmbeddings

SMALL = MethodFamily(
    title="small",
    source="",
    shapes=lambda support: (TipAdapter(support, beta, 1.0) for beta in (1.0, 4.0)),
    alphas=(1.0, 8.0, 64.0),
)


def key(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and mean log-probability of the right class."""
    top = scores.max(axis=1, keepdims=True)
    logs = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    return float((scores.argmax(axis=1) == labels).mean()), float(logs[np.arange(len(labels)), labels].mean())


def test_every_method_of_the_command_is_known() -> None:
    assert {*FAMILIES, "solved", "solved-closed", "vanilla", "vanilla-closed"} == set(get_args(FewShotMethod))


def test_constants_are_those_with_the_best_leave_one_out_accuracy() -> None:
    support = make()
    logits = LOGIT_SCALE * support.embeddings @ support.texts.T
    tried = {
        (beta, alpha): key(logits + TipAdapter(support, beta, alpha).left_out(), support.labels)
        for beta in (1.0, 4.0)
        for alpha in (1.0, 8.0, 64.0)
    }
    chosen = choose(SMALL, support)
    best = max(tried, key=lambda pair: tried[pair])
    assert chosen.constants == {"beta": best[0], "alpha": best[1]}
    assert chosen.accuracy == pytest.approx(tried[best][0])
    assert len({value[0] for value in tried.values()}) > 1  # the constants differ here


def test_folds_leave_one_image_per_class_out() -> None:
    support = make(2)
    tried = {}
    for beta in (1.0, 4.0):
        for alpha in (1.0, 8.0, 64.0):
            scores, labels = [], []
            for fold in range(PER_CLASS):
                out = np.arange(len(support)) % PER_CLASS == fold
                images = ImageEmbeddings(support.embeddings[out], support.retrieval[out])
                offsets = TipAdapter(support.only(~out), beta, alpha).offsets(images)
                scores.append(LOGIT_SCALE * images.embeddings @ support.texts.T + offsets)
                labels.append(support.labels[out])
            tried[beta, alpha] = key(np.concatenate(scores), np.concatenate(labels))
    chosen = choose(SMALL, support, folds=True)
    best = max(tried, key=lambda pair: tried[pair])
    assert (chosen.constants["beta"], chosen.constants["alpha"]) == best
    assert chosen.accuracy == pytest.approx(tried[best][0])


def test_validation_images_choose_where_they_are_given() -> None:
    support, other = make(), make(5)
    validation = Labelled(other.images, other.labels)
    chosen = choose(SMALL, support, validation)
    logits = LOGIT_SCALE * other.embeddings @ support.texts.T
    tried = [
        key(logits + TipAdapter(support, beta, alpha).offsets(other.images), other.labels)
        for beta in (1.0, 4.0)
        for alpha in (1.0, 8.0, 64.0)
    ]
    assert chosen.accuracy == pytest.approx(max(tried)[0])


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.single is not None])
def test_one_image_per_class_gets_offsets_a_quarter_as_wide_as_zero_shot(name: str) -> None:
    support = make()
    single = support.only(np.arange(len(support)) % PER_CLASS == 0)
    chosen = choose(FAMILIES[name], single, folds=True)
    assert chosen.accuracy is None
    fixed = dataclasses.replace(chosen.method, alpha=0.0).left_out()  # type: ignore[type-var]
    slope = single.without_singles(chosen.method.left_out()) - single.without_singles(fixed)
    logits = LOGIT_SCALE * single.embeddings @ single.texts.T
    spread = [(rows - rows.mean(axis=1, keepdims=True)).std() for rows in (slope, logits)]
    assert spread[0] / spread[1] == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_fits_chooses_and_is_affine_in_alpha(name: str) -> None:
    support, other = make(), make(1)
    chosen = choose(FAMILIES[name], support, Labelled(other.images, other.labels))
    offsets = [
        dataclasses.replace(chosen.method, alpha=alpha).offsets(other.images)  # type: ignore[type-var]
        for alpha in (0.0, 1.0, 3.0)
    ]
    np.testing.assert_allclose(offsets[2], offsets[0] + 3 * (offsets[1] - offsets[0]), rtol=1e-3, atol=1e-2)
    assert bool(np.abs(offsets[0]).max() > 1e-6) == FAMILIES[name].constant
    assert "alpha" in constants_of(chosen.method)


def test_a_class_without_another_image_gets_the_mean_of_the_others() -> None:
    support: Support = make()
    single = support.only(~np.isin(np.arange(len(support)), [1, 2]))  # class 0 has one image
    offsets = np.arange(len(single) * CLASSES, dtype=np.float32).reshape(len(single), CLASSES)
    found = single.without_singles(offsets)
    assert found[0, 0] == pytest.approx(offsets[0, 1:].mean())
    np.testing.assert_array_equal(found[1:], offsets[1:])
