"""ROI classification: crops, figures by hand, one decoding per image and scale, groups of categories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.errors import ConfigError, DataError
from impart.evaluate import regions
from impart.evaluate.datasets.types import BoxSet, Images
from impart.evaluate.tasks.regions import crop_box, crops

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


class Halves:
    """Images of two colours side by side, 40 x 20, with a count of reads."""

    def __init__(self, *halves: tuple[str, str]) -> None:
        self.halves = halves
        self.reads = 0

    def read(self, number: int) -> tuple[Image.Image, str]:
        self.reads += 1
        if self.halves[number][0] == "broken":
            raise DataError("is no image")
        image = Image.new("RGB", (40, 20), COLOURS[self.halves[number][0]])
        image.paste(COLOURS[self.halves[number][1]], (20, 0, 40, 20))
        return image, f"hash {number}"

    def boxes(self, labels: list[list[str]], categories: tuple[str, ...] = ("red", "blue", "green")) -> BoxSet:
        return BoxSet(
            name="halves",
            images=Images(
                keys=tuple(f"{number}.png" for number in range(len(self.halves))),
                read=self.read,
                identity=lambda: repr(self.halves),
            ),
            owners=np.repeat(np.arange(len(labels)), 2),
            boxes=np.array([LEFT, RIGHT] * len(labels)),
            labels=np.array([categories.index(name) for pair in labels for name in pair]),
            categories=categories,
        )


def test_boxes_are_cropped_and_classified(tiny: TinyEncoder) -> None:
    halves = Halves(("red", "blue"), ("blue", "green"))
    seen: list[tuple[int, int]] = []
    result = regions(
        tiny,
        halves.boxes([["red", "blue"], ["blue", "blue"]]),
        scales=(1.0,),
        prompts=("{}",),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert result.per_item["top-1"].tolist() == [1, 1, 1, 0]  # the last one is green
    assert result.figures["top-1"] == 0.75
    assert result.figures["mean per category"] == pytest.approx((1 + 2 / 3) / 2)
    assert result.arrays["AP"][0] == 1.0
    assert np.isnan(result.arrays["AP"][2])
    assert result.figures["mAP"] == pytest.approx(np.nanmean(result.arrays["AP"]))
    assert result.items == ("0.png[box 0]", "0.png[box 1]", "1.png[box 0]", "1.png[box 1]")
    assert result.clusters is not None
    assert result.clusters.tolist() == [0, 0, 1, 1]
    assert result.counts == {"boxes": 4, "images": 2, "categories": 3, "unreadable": 0}
    assert len(result.resampled["mAP"]) == 1000
    assert seen == [(4, 4)]


def test_crops_have_context_and_an_image_is_decoded_once_per_scale(tiny: TinyEncoder) -> None:
    halves = Halves(("red", "blue"), ("red", "green"))
    dataset = halves.boxes([["red", "blue"], ["red", "green"]])
    regions(tiny, dataset, scales=(1.0, 1.5, 2.0))
    assert halves.reads == 2 * 3
    assert tiny.images_encoded == 4 * 3
    assert crops(dataset, scale=2.0).keys[1] == "0.png[box 1 @2]"
    assert crops(dataset, scale=1.0).read(1)[0].getcolors() == [(400, COLOURS["blue"])]
    assert len(crops(dataset, scale=1.5).read(1)[0].getcolors() or []) == 2
    assert crops(dataset, scale=1.0).identity() != crops(dataset, scale=1.5).identity()


def test_a_crop_stays_inside_the_image_and_has_a_pixel() -> None:
    assert crop_box(LEFT, (40, 20), scale=3.0) == (0, 0, 40, 20)
    assert crop_box((0.999, 0.999, 1.0, 1.0), (40, 20), scale=0.1) == (39, 19, 40, 20)
    assert crop_box((0.5, 0.5, 0.5, 0.5), (40, 20), scale=1.0) == (20, 10, 21, 11)


def test_frequency_splits_the_average(tiny: TinyEncoder) -> None:
    dataset = Halves(("red", "blue"), ("blue", "green")).boxes([["red", "blue"], ["blue", "red"]])
    result = regions(tiny, replace(dataset, frequency=("r", "f", "c")), prompts=("{}",), scales=(1,))
    ap = result.arrays["AP"]
    assert result.figures["mAP rare"] == ap[0]
    assert result.figures["mAP frequent"] == ap[1]
    assert "mAP common" not in result.figures  # there is no green box
    assert {"mAP", "mAP rare", "mAP frequent"} <= set(result.resampled)


def test_unreadable_images_have_one_note_each(tiny: TinyEncoder) -> None:
    dataset = Halves(("red", "blue"), ("broken", "red")).boxes([["red", "blue"], ["red", "red"]])
    result = regions(tiny, dataset, prompts=("{}",))
    assert result.counts["boxes"] == result.counts["unreadable"] == 2
    assert result.notes == ("left out: 1.png: is no image (2 boxes)",)
    with pytest.raises(ConfigError, match="scales"):
        regions(tiny, dataset, scales=(0.0,))
