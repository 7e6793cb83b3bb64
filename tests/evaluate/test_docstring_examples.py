"""Every function of `impart.evaluate` has an example in its docstring that runs."""

from __future__ import annotations

import doctest

import pytest

import impart.evaluate

NAMES = [
    "Result",
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
def test_example(name: str) -> None:
    if name == "linear_probe":
        pytest.importorskip("sklearn")
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(impart.evaluate, name), name, globs={})
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 2
    assert result.failed == 0
