"""Measure an encoder: zero-shot classification and retrieval, with the metrics as pure functions."""

from __future__ import annotations

from impart.evaluate.datasets import CaptionedImages, ClassFolder
from impart.evaluate.outcome import Outcome
from impart.evaluate.regions import regions
from impart.evaluate.retrieval import retrieval
from impart.evaluate.zeroshot import zeroshot

__all__ = ["CaptionedImages", "ClassFolder", "Outcome", "regions", "retrieval", "zeroshot"]
