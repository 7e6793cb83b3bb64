"""Every task of `impart.evaluate`, and its result, has an example in its docstring."""

from __future__ import annotations

import inspect

import pytest

import impart.evaluate

NAMES = [
    "Result",
    "few_shot",
    "image_to_video",
    "linear_probe",
    "predict_moments",
    "read_predictions",
    "regions",
    "retrieval",
    "score_predictions",
    "video_retrieval",
    "zeroshot",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_an_example(name: str) -> None:
    assert name in impart.evaluate.__all__
    assert ">>> " in (inspect.getdoc(getattr(impart.evaluate, name)) or "")
