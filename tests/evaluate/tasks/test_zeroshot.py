"""Zero-shot classification: figures by hand, prompts, unreadable images, the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.sets_of_colours import class_set, coloured
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.base import EncoderTraits
from impart.errors import ConfigError, DataError
from impart.evaluate import zeroshot
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.class_prompts import templates_of
from impart.evaluate.embed import embed_images
from impart.metrics import bootstrap
from impart.retrieval.prompts import ZEROSHOT_ENSEMBLE, ZEROSHOT_SINGLE

RGB = ("red", "green", "blue")


def test_colours_are_classified(tiny: TinyEncoder) -> None:
    result = zeroshot(tiny, class_set(["red", "red", "green", "blue"], classes=RGB), prompts=("{}",), label="me")
    assert (result.task, result.dataset, result.encoder) == ("zero-shot", "colours", "me")
    assert result.figures["top-1"] == result.figures["top-5"] == result.figures["mean per class"] == 1.0
    assert result.counts == {"images": 4, "classes": 3, "unreadable": 0}
    assert result.arrays["confusion"].tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert result.arrays["reliability"][:, 2].sum() == 4
    assert result.labels == RGB


def test_wrong_labels_lower_the_figures(tiny: TinyEncoder) -> None:
    dataset = class_set(["red", "red", "blue", "blue"], called=["red", "blue", "blue", "blue"], classes=("red", "blue"))
    result = zeroshot(tiny, dataset, prompts=("{}",))
    assert result.figures["top-1"] == 0.75
    assert result.figures["mean per class"] == pytest.approx((1 + 2 / 3) / 2)
    assert result.arrays["confusion"].tolist() == [[1, 0], [1, 2]]
    assert result.per_item["top-1"].tolist() == [1, 0, 1, 1]
    assert result.figures["calibration error"] > 0.2  # high confidence, and one error in four


def test_two_classes_of_one_name_are_tied_and_count_as_wrong(tiny: TinyEncoder) -> None:
    dataset = replace(class_set(["red", "blue"], classes=("red", "blue")), classes=("red", "red"))
    assert zeroshot(tiny, dataset, prompts=("{}",)).figures["top-1"] == 0.0


def test_unreadable_images_are_left_out_and_named(tiny: TinyEncoder) -> None:
    dataset = class_set(["broken", "red", "blue"], called=["red", "red", "blue"], classes=("red", "blue"))
    result = zeroshot(tiny, dataset, prompts=("{}",))
    assert result.counts["images"] == 2
    assert result.counts["unreadable"] == 1
    assert result.items == ("1-red.png", "2-blue.png")
    assert result.notes == ("left out: 0-broken.png: is no image",)
    with pytest.raises(DataError, match="none of 1 images"):
        zeroshot(tiny, class_set(["broken"], called=["red"], classes=("red",)))


def test_prompts_by_name(tiny: TinyEncoder) -> None:
    dataset = class_set(["red"], classes=("red",))
    assert templates_of("ensemble") == ZEROSHOT_ENSEMBLE
    assert templates_of("single") == ZEROSHOT_SINGLE
    assert templates_of("set", own=("{} paint",)) == ("{} paint",)
    assert zeroshot(tiny, replace(dataset, templates=("{} paint",)), prompts="set").settings["templates"] == [
        "{} paint"
    ]
    assert zeroshot(tiny, dataset, prompts="single").settings["templates"] == list(ZEROSHOT_SINGLE)
    for wrong, message in (("set", "no prompts of its own"), ("many", "unknown prompts"), (["a photo"], "no {}")):
        with pytest.raises(ConfigError, match=message):
            templates_of(wrong)


def test_the_second_run_encodes_nothing_and_has_the_same_figures(tmp_path: Path, tiny: TinyEncoder) -> None:
    dataset, cache = class_set(["red", "grey", "blue"], called=["red", "blue", "blue"], classes=RGB), None
    first = zeroshot(tiny, dataset, cache=(cache := EmbeddingCache(tmp_path)))
    encoded = tiny.images_encoded
    again = zeroshot(tiny, dataset, cache=cache)
    assert tiny.images_encoded == encoded == 3
    assert again.figures == first.figures == zeroshot(tiny, dataset).figures


def test_replicates_use_the_draws_of_the_items(tiny: TinyEncoder) -> None:
    names = ["red", "grey", "blue", "orange", "yellow"] * 6
    called = ["red", "blue", "blue", "red", "green"] * 6
    result = zeroshot(tiny, class_set(names, called=called, classes=RGB), prompts=("{}",))
    drawn = bootstrap.draws(30)
    assert len(result.resampled["mean per class"]) == len(result.resampled["calibration error"]) == 1000
    low, high = bootstrap.interval(result.resampled["mean per class"])
    assert low < result.figures["mean per class"] < high
    assert np.ptp(bootstrap.means(result.per_item["top-1"], drawn)) > 0


def test_probabilities_use_the_logit_scale_of_the_encoder(tiny: TinyEncoder) -> None:
    dataset = class_set(["red", "grey", "blue"], called=["red", "blue", "blue"], classes=RGB)
    assert zeroshot(tiny, dataset).settings["logit scale"] == 100

    class Cool(TinyEncoder):
        @property
        def traits(self) -> EncoderTraits:
            return replace(super().traits, logit_scale=5.0)

    result = zeroshot(Cool(), dataset)
    assert result.settings["logit scale"] == 5
    assert result.figures["log-loss"] == pytest.approx(zeroshot(TinyEncoder(), dataset, scale=5.0).figures["log-loss"])
    assert result.figures["log-loss"] != zeroshot(TinyEncoder(), dataset).figures["log-loss"]


def test_an_image_that_is_readable_again_is_not_left_out_by_the_cache(tiny: TinyEncoder, tmp_path: Path) -> None:
    away = [True]
    whole = coloured(["red", "green"])

    def read(number: int) -> tuple[Image.Image, str]:
        if number and away[0]:
            raise DataError("cannot be read: Permission denied")
        return whole.read(number)

    images = replace(whole, read=read)
    cache = EmbeddingCache(tmp_path)
    assert len(embed_images(tiny, images, cache=cache)) == 1
    assert len(embed_images(tiny, images, cache=cache)) == 1
    away[0] = False
    assert embed_images(tiny, images, cache=cache).kept.tolist() == [0, 1]
