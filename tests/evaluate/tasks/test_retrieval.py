"""Retrieval in both directions: several captions per image, left-out items, parts, the query bank."""

from __future__ import annotations

import sys

import pytest

from helpers.sets_of_colours import caption_set
from helpers.tiny_encoder import TinyEncoder
from impart.errors import DataError
from impart.evaluate import retrieval

CAPTIONS = [(0, "a red one"), (1, "blue"), (0, "red"), (2, "green")]


def test_both_ways(tiny: TinyEncoder) -> None:
    to_image, to_text, _ = retrieval(tiny, caption_set(["red", "blue", "green"], CAPTIONS))
    assert (to_image.task, to_text.task) == ("text to image", "image to text")
    assert to_image.counts == {"queries": 4, "items": 3, "unreadable": 0}
    assert to_text.counts == {"queries": 3, "items": 4, "unreadable": 0}
    for result in (to_image, to_text):
        assert result.figures["R@1"] == result.figures["MRR"] == result.figures["nDCG@10"] == 1.0
        assert result.figures["median rank"] == result.figures["mean rank"] == 1.0
    assert to_image.items == ("0-red.png#0", "1-blue.png#0", "0-red.png#1", "2-green.png#0")
    assert to_image.clusters is not None
    assert to_image.clusters.tolist() == [0, 1, 0, 2]
    assert to_text.clusters is None


def test_captions_of_the_wrong_image_rank_low(tiny: TinyEncoder) -> None:
    to_image, to_text, _ = retrieval(
        tiny, caption_set(["red", "blue", "green"], [(0, "blue"), (1, "red"), (2, "green")])
    )
    assert to_image.figures["R@1"] == to_text.figures["R@1"] == pytest.approx(1 / 3)
    assert to_image.per_item["R@1"].tolist() == [0, 0, 1]


def test_equal_images_of_other_captions_rank_ahead(tiny: TinyEncoder) -> None:
    to_image, *_ = retrieval(tiny, caption_set(["red", "red"], [(0, "red"), (1, "red")]))
    assert to_image.per_item["mean rank"].tolist() == [2, 2]


def test_images_without_caption_are_searched_and_unreadable_ones_left_out(tiny: TinyEncoder) -> None:
    dataset = caption_set(["red", "broken", "blue"], [(0, "red"), (1, "green"), (0, "a red one")])
    to_image, to_text, _ = retrieval(tiny, dataset)
    assert to_image.counts == {"queries": 2, "items": 2, "unreadable": 1}
    assert to_text.counts == {"queries": 1, "items": 2, "unreadable": 1}
    assert to_text.items == ("0-red.png",)
    assert "1-broken.png" in to_image.notes[0]
    with pytest.raises(DataError, match="no caption"):
        retrieval(tiny, caption_set(["red", "broken"], [(1, "green")]))


def test_parts_of_the_scores_change_nothing(tiny: TinyEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = caption_set(["red", "grey", "orange", "yellow"], [(n % 4, text) for n, (_, text) in enumerate(CAPTIONS)])
    whole = retrieval(tiny, dataset)
    monkeypatch.setattr(sys.modules["impart.evaluate.tasks.retrieval"], "_CELLS", 1)  # the dotted path is the function
    assert [result.figures for result in retrieval(tiny, dataset)] == [result.figures for result in whole]


def test_the_query_bank_gives_separate_results(tiny: TinyEncoder) -> None:
    results = retrieval(tiny, caption_set(["red", "blue", "green"], CAPTIONS), query_bank=True)
    assert [result.task for result in results] == [
        "text to image",
        "image to text",
        "text to image (query bank)",
        "image to text (query bank)",
        "text to image (as searched)",
    ]
    assert "inverted softmax" in results[2].settings["query bank"]
    assert "query bank" not in results[0].settings


def test_as_searched_captions_are_put_in_several_prompts(tiny: TinyEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    encode = tiny.encode_texts
    monkeypatch.setattr(tiny, "encode_texts", lambda texts: said.extend(texts) or encode(texts))
    *_, searched = retrieval(tiny, caption_set(["red", "blue"], [(0, "Red."), (1, "blue")]))
    assert searched.task == "text to image (as searched)"
    assert searched.settings["hub correction"] == "none"  # this encoder has no caption bank
    assert searched.figures["R@1"] == 1.0
    assert {"Red.", "a photo of Red.", "a picture of blue."} <= set(said)
