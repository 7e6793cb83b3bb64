"""Few-shot task: draws, validation images, contamination, intervals over images and draws, RAM, and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impart.blending.encoder import AugmentedEncoder
from impart.blending.few_shot.choice import FAMILIES, choose
from impart.blending.few_shot.support import LOGIT_SCALE
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import EncoderTraits, ImageEmbeddings, ImageInput, l2_normalise
from impart.errors import ConfigError, DataError, EncoderError
from impart.evaluate import few_shot
from impart.evaluate.datasets.types import ClassSet, Images
from impart.evaluate.tasks.few_shot_problem import open_problem
from impart.metrics import bootstrap

WIDTH = 16
LETTERS = "abcde"


class RowEncoder:
    """The retrieval embedding of a 16 x 1 image is its grey values, the embedding their noisy rotation."""

    fingerprint = "rows000000000001"
    traits = EncoderTraits(
        id="rows", dim=WIDTH, retrieval_dim=WIDTH, own_retrieval=True, image_size_px=WIDTH, context_tokens=8
    )
    _turn = np.linalg.qr(np.random.default_rng(7).standard_normal((WIDTH, WIDTH)))[0]

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        rows = np.stack([np.asarray(image, dtype=np.float32)[0, :, 0] - 90 for image in images])
        return ImageEmbeddings(l2_normalise(rows @ self._turn), l2_normalise(rows))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """A text is the class of its last letter, and nearly as much the next class."""
        own = np.array(["abcdef".index(text.strip(".").strip()[-1]) for text in texts])
        rows = np.eye(WIDTH)[own] + 0.9 * np.eye(WIDTH)[(own + 1) % len(LETTERS)]
        return l2_normalise(rows @ self._turn)


def drawn(name: str, each: int | Sequence[int], *, seed: int, noise: float = 45.0, classes: str = LETTERS) -> ClassSet:
    """Images whose class c is brightest at pixel c, with noise; `each` per class."""
    rng = np.random.default_rng(seed)
    counts = [each] * len(classes) if isinstance(each, int) else list(each)
    labels = np.repeat(np.arange(len(classes)), counts)
    values = 80 + 90 * np.eye(WIDTH)[labels] + noise * rng.standard_normal((len(labels), WIDTH))
    return made(name, np.clip(values, 0, 255).astype(np.uint8), labels, classes)


def made(name: str, rows: np.ndarray, labels: np.ndarray, classes: str = LETTERS) -> ClassSet:
    def read(number: int) -> tuple[Image.Image, str]:
        return Image.fromarray(rows[number][None, :]).convert("RGB"), rows[number].tobytes().hex()

    keys = tuple(f"{name}/{number}" for number in range(len(rows)))
    return ClassSet(
        name=name,
        images=Images(keys=keys, read=read, identity=lambda: name),
        labels=labels,
        classes=tuple(classes),
    )


TRAIN, TEST = drawn("train", 8, seed=1), drawn("test", 12, seed=2)


def measured(**options: Any) -> list[Any]:
    given = {"images": [1, 3], "draws": 3, "methods": ["tip-adapter", "ridge", "gda"], "near_duplicate": 2.0} | options
    return few_shot(RowEncoder(), given.pop("train", TRAIN), given.pop("test", TEST), **given)


def test_methods_are_measured_on_the_same_draws_with_the_one_to_compare_with_first() -> None:
    found = measured(over="gda")
    assert [result.encoder for result in found] == ["GDA", "zero-shot", "Tip-Adapter", "kernel ridge"]
    assert {result.task for result in found} == {"few-shot with rows, constants by leave-one-out"}
    problem = open_problem(RowEncoder(), TRAIN, TEST, near_duplicate=2.0)
    for result, name in zip(found, ["gda", None, "tip-adapter", "ridge"], strict=True):
        assert list(result.figures) == ["1 image", "3 images"]
        assert result.arrays["3 images"].shape == (3, len(TEST))
        for seed in range(3):
            scores = LOGIT_SCALE * problem.test.images.embeddings @ problem.texts.T
            if name is not None:
                chosen = choose(FAMILIES[name], problem.support(problem.draw(3, seed)))
                scores = scores + chosen.method.offsets(problem.test.images)
                assert result.settings["constants"]["3 images"][seed] == chosen.constants
            right = scores.argmax(axis=1) == TEST.labels
            np.testing.assert_array_equal(result.arrays["3 images"][seed], right)
        assert result.figures["3 images"] == pytest.approx(result.arrays["3 images"].mean())
    zero, ridge = found[1].figures["3 images"], found[3].figures["3 images"]
    assert ridge > zero + 0.05  # references help here


def test_draws_are_nested_and_the_first_takes_the_first_images() -> None:
    problem = open_problem(RowEncoder(), TRAIN, TEST, near_duplicate=2.0)
    assert problem.draw(2, 0).tolist() == [row for first in range(0, 40, 8) for row in (first, first + 1)]
    for seed in range(3):
        three, five = problem.draw(3, seed), problem.draw(5, seed)
        assert set(three) < set(five)
        after = problem.draw(2, seed, after=3)
        assert set(after) == set(five) - set(three)
    assert problem.draw(2, 1).tolist() != problem.draw(2, 2).tolist()


def test_constants_are_chosen_on_few_or_all_other_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int | None, bool]] = []

    def spy(family: Any, support: Any, validation: Any = None, *, folds: bool = False) -> Any:
        if validation is not None:
            rows = {row.tobytes() for row in validation.images.retrieval}
            assert rows.isdisjoint(row.tobytes() for row in support.retrieval)
        seen.append((len(support), None if validation is None else len(validation.labels), folds))
        return choose(family, support, validation, folds=folds)

    monkeypatch.setattr("impart.evaluate.tasks.few_shot.choose", spy)
    found = measured(images=[2, 6], draws=1, methods=["gda"], over="gda", tuned_with=["none", "folds", "few", "full"])
    assert seen == [
        *[(10, None, False), (30, None, False), (10, None, True), (30, None, True)],
        *[(10, 10, False), (30, 10, False), (10, 30, False), (30, 10, False)],
    ]
    assert [result.settings["tuned with"] for result in found[::2]] == ["none", "folds", "few", "full"]
    assert len({result.task for result in found}) == 4


def test_training_images_that_show_a_test_image_are_not_drawn() -> None:
    rows = np.stack([np.asarray(TRAIN.images.read(number)[0])[0, :, 0] for number in range(len(TRAIN))])
    rows[:2] = [np.asarray(TEST.images.read(number)[0])[0, :, 0] for number in (0, 1)]
    problem = open_problem(RowEncoder(), made("train", rows, TRAIN.labels), TEST, near_duplicate=2.0)
    assert problem.dropped == 2
    assert problem.train.keys[0] == "train/2"
    assert problem.train.keys[problem.draw(1, 0)[0]] == "train/2"
    (result, _) = measured(train=made("train", rows, TRAIN.labels), methods=["gda"], over="gda")
    assert result.counts["training images dropped"] == 2
    assert "2 training images show test images and were not drawn" in result.notes


def test_the_bootstrap_draws_images_and_draws() -> None:
    (result, _) = measured(methods=["gda"], over="gda", draws=4)
    right = result.arrays["3 images"].astype(float)
    of_images = bootstrap.draws(len(TEST))
    of_draws = bootstrap.draws(4, seed=bootstrap.SEED + 1)
    for replicate in (0, 17, 999):
        images = np.repeat(np.arange(len(TEST)), of_images[replicate])
        draws = np.repeat(np.arange(4), of_draws[replicate])
        expected = right[np.ix_(draws, images)].mean()
        assert result.resampled["3 images"][replicate] == pytest.approx(expected)


def test_a_ram_is_measured_open_and_closed_with_the_encoder_it_was_trained_on() -> None:
    class Trained(Vanilla):
        """In the place of a trained RAM."""

        encoder_fingerprint = RowEncoder.fingerprint

    class Other(Vanilla):
        encoder_fingerprint = "another encoder"

    settings = VanillaSettings(k=2, w_img=0.0, w_txt=1.0, tau=0.05)
    rams: dict[str, Any] = {"RAM": Trained(settings), "other RAM": Other(settings)}
    found = measured(rams=rams, methods=["vanilla-closed", "vanilla"], over="vanilla", images=[3], draws=1)
    assert [one.encoder for one in found] == ["Vanilla", "zero-shot", "Vanilla, closed", "RAM", "RAM, closed"]
    assert found[2].settings["constants"]["3 images"] == [{"rule": "usual weights"}]  # few names
    problem = open_problem(RowEncoder(), TRAIN, TEST, near_duplicate=2.0)
    augmented = AugmentedEncoder(problem.encoder, problem.references(problem.draw(3, 0)), Vanilla(settings))
    v = augmented.apply(problem.test.images.embeddings, augmented.blend(problem.test.images))
    expected = (v @ problem.texts.T).argmax(axis=1) == TEST.labels
    np.testing.assert_array_equal(found[4].arrays["3 images"][0], expected)


def test_a_class_with_too_few_images_is_noted_and_one_without_images_is_an_error() -> None:
    few = drawn("few", [8, 8, 8, 8, 2], seed=3)
    (result, *_) = measured(train=few, images=[3])
    assert "1 classes have fewer than 3 training images: all they have are drawn" in result.notes
    with pytest.raises(DataError, match=r"1 classes of 'none' have no readable training image: e\. Add images"):
        measured(train=drawn("none", [8, 8, 8, 8, 0], seed=3))


def test_other_classes_are_an_error_that_names_them() -> None:
    with pytest.raises(DataError, match=r"only 'train' has e; only 'other' has f"):
        measured(test=drawn("other", 3, seed=4, classes="abcdf"))
    with pytest.raises(DataError, match="their order differs"):
        measured(test=drawn("other", 3, seed=4, classes="abced"))


def test_an_encoder_without_texts_is_refused_before_images_are_encoded() -> None:
    class Mute(RowEncoder):
        def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
            raise AssertionError("not yet")

        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            raise EncoderError("rows has no text tower")

    with pytest.raises(EncoderError, match="no text tower"):
        few_shot(Mute(), TRAIN, TEST)


def test_no_image_left_to_choose_on_and_unknown_names_are_errors() -> None:
    with pytest.raises(DataError, match="no image beside 8 per class"):
        measured(images=[8], tuned_with=["full"])
    with pytest.raises(ConfigError, match="unknown 'nearest': there are tip-adapter"):
        measured(methods=["nearest"])
    with pytest.raises(ConfigError, match="positive numbers"):
        measured(images=[0])
    with pytest.raises(ConfigError, match="once"):
        measured(images=[2, 2])
