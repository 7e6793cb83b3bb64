"""Linear probe: figures on separable and on noisy classes, the sweep of C, the split, and errors."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from impart.encoders.base import EncoderTraits, ImageEmbeddings, l2_normalise
from impart.errors import ConfigError, DataError, MissingExtraError
from impart.evaluate import linear_probe
from impart.evaluate.datasets.types import ClassSet, Images
from impart.evaluate.tasks.probe import _final, _Part, _validation_rows

linear_model = pytest.importorskip("sklearn.linear_model", reason="the linear probe needs scikit-learn")

WIDTH = 30


class PixelEncoder:
    """The embedding of a 30 x 1 image is its grey values; the retrieval embedding is noise."""

    fingerprint = "pixels"
    traits = EncoderTraits(
        id="pixels", dim=WIDTH, retrieval_dim=4, own_retrieval=True, image_size_px=WIDTH, context_tokens=8
    )

    def encode_images(self, images: object) -> ImageEmbeddings:
        rows = np.stack([np.asarray(image.convert("L"), dtype=np.float32)[0] for image in images])  # type: ignore[attr-defined]
        noise = np.random.default_rng(0).standard_normal((len(rows), 4))
        return ImageEmbeddings(l2_normalise(rows), l2_normalise(noise))

    def encode_texts(self, texts: object) -> np.ndarray:
        raise AssertionError("a probe encodes no text")


def drawn(each: int, *, noise: float, seed: int, classes: int = 5) -> ClassSet:
    """Images whose class c is brightest at pixel c, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    values = 60 + 100 * np.eye(WIDTH)[labels] + noise * rng.standard_normal((len(labels), WIDTH))
    rows = np.clip(values, 0, 255).astype(np.uint8)

    def read(number: int) -> tuple[Image.Image, str]:
        if not rows[number].any():
            raise DataError("is empty")
        return Image.fromarray(rows[number][None, :]).convert("RGB"), f"{seed} {number}"

    return ClassSet(
        name=f"drawn {seed}",
        images=Images(keys=tuple(f"{seed}/{n}" for n in range(len(rows))), read=read, identity=lambda: f"{seed}"),
        labels=labels,
        classes=tuple("abcdefgh"[:classes]),
    )


def test_separable_classes_are_learned_from_the_chosen_features() -> None:
    train, test = drawn(10, noise=3, seed=1), drawn(6, noise=3, seed=2)
    result = linear_probe(PixelEncoder(), train, test)
    assert result.figures == {"top-1": 1.0, "top-5": 1.0, "mean per class": 1.0}
    assert result.counts["images"] == 30
    assert (result.counts["training images"], result.counts["validation images"]) == (50, 10)
    assert result.arrays["confusion"].tolist() == (6 * np.eye(5, dtype=int)).tolist()
    assert (result.task, result.dataset, result.settings["trained on"]) == ("linear probe", "drawn 2", "drawn 1")
    assert linear_probe(PixelEncoder(), train, test, features="retrieval").figures["top-1"] < 0.6
    assert linear_probe(PixelEncoder(), train, test, features="both").figures["top-1"] == 1.0


def test_c_is_the_best_of_the_sweep_and_the_sweep_matters() -> None:
    train, val, test = (drawn(12, noise=60, seed=seed) for seed in (1, 2, 3))
    result = linear_probe(PixelEncoder(), train, test, val=val)
    sweep = result.arrays["sweep"]
    assert sweep[:, 0].min() == 1e-6
    assert sweep[:, 0].max() == 1e6
    assert len(sweep) > 10
    assert result.settings["validation top-1"] == sweep[:, 1].max()
    assert result.settings["C"] == sweep[sweep[:, 1].argmax(), 0]  # of equals the smallest
    assert result.settings["C chosen on"] == "drawn 2"
    assert sweep[:, 1].max() - sweep[:, 1].min() > 0.05


def test_the_fit_equals_scikit_learn_on_unscaled_embeddings() -> None:
    def part(seed: int) -> _Part:
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(4), 30)
        features = l2_normalise(3 + np.eye(12)[labels] + rng.standard_normal((120, 12)))
        return _Part(features=features.astype(np.float32), labels=labels, keys=("",) * 120)

    train, test = part(0), part(1)
    scores, converged, _ = _final(train, test, 0.0, classes=5)
    assert converged
    spread = np.sqrt(((train.features - train.features.mean(axis=0)) ** 2).mean())
    model = linear_model.LogisticRegression(C=1 / spread**2, max_iter=10_000, tol=1e-9)
    theirs = model.fit(train.features.astype(np.float64), train.labels).predict_log_proba(test.features)
    ours = scores[:, :4] - np.log(np.exp(scores[:, :4]).sum(axis=1, keepdims=True))
    assert ours == pytest.approx(theirs, abs=0.02)
    assert np.isneginf(scores[:, 4]).all()  # a class without training images


def test_two_classes_have_two_scores() -> None:
    result = linear_probe(
        PixelEncoder(), drawn(8, noise=5, seed=1, classes=2), drawn(4, noise=5, seed=2, classes=2), seed=3
    )
    assert result.figures["top-1"] == 1.0
    assert result.arrays["confusion"].shape == (2, 2)


def test_the_validation_split_is_a_fifth_of_each_class() -> None:
    labels = np.repeat([0, 1, 2, 3], [10, 5, 2, 1])
    rows = _validation_rows(labels, name="x", seed=0)
    assert np.bincount(labels[rows], minlength=4).tolist() == [2, 1, 1, 0]
    assert rows.tolist() == _validation_rows(labels, name="x", seed=0).tolist()
    assert rows.tolist() != _validation_rows(labels, name="x", seed=1).tolist()
    with pytest.raises(DataError, match="validation set"):
        _validation_rows(np.array([0, 1]), name="x", seed=0)


def test_invalid_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = drawn(4, noise=3, seed=1), drawn(4, noise=3, seed=2)
    with pytest.raises(DataError, match="same order"):
        linear_probe(PixelEncoder(), train, replace(test, classes=tuple("edcba")))
    with pytest.raises(ConfigError, match="features"):
        linear_probe(PixelEncoder(), train, test, features="all")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"impart-clip\[eval\]"):
        linear_probe(PixelEncoder(), train, test)


def test_c_is_not_chosen_on_test_or_training_images() -> None:
    train, test = drawn(4, noise=3, seed=1), drawn(4, noise=3, seed=2)
    with pytest.raises(DataError, match="20 images of 'drawn 1' are in 'drawn 1' too"):
        linear_probe(PixelEncoder(), train, train)
    with pytest.raises(DataError, match="different images"):
        linear_probe(PixelEncoder(), train, test, val=test)
    with pytest.raises(DataError, match="different images"):
        linear_probe(PixelEncoder(), train, test, val=train.subset(range(10)))
    with pytest.raises(DataError, match="one class only"):
        linear_probe(PixelEncoder(), train.subset(range(4)), test)


def test_a_few_shared_images_are_noted() -> None:
    train, test = drawn(4, noise=3, seed=1), drawn(4, noise=3, seed=2)
    first = train.images

    def read(number: int) -> tuple[Image.Image, str]:
        image, content = test.images.read(number)
        return image, first.read(0)[1] if number == 0 else content

    result = linear_probe(PixelEncoder(), train, replace(test, images=replace(test.images, read=read)))
    assert "1 images of 'drawn 1' are in 'drawn 2' too: kept" in result.notes


def test_a_fit_that_does_not_converge_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impart.evaluate.tasks.probe._FINAL_ITERATIONS", 1)
    monkeypatch.setattr("impart.evaluate.tasks.probe._SWEEP_ITERATIONS", 1)
    notes = linear_probe(PixelEncoder(), drawn(6, noise=40, seed=1), drawn(6, noise=40, seed=2)).notes
    assert any("final fit stopped at 1 steps" in note for note in notes)
    assert any("of the sweep" in note for note in notes)


def test_importing_the_package_loads_no_optional_library() -> None:
    import subprocess

    code = (
        "import sys, impart.evaluate\nassert not {'sklearn', 'matplotlib', 'scipy', 'torch', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
