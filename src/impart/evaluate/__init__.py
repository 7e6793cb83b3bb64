"""Measure an encoder: zero-shot classification and retrieval, with the metrics as pure functions."""

from __future__ import annotations

from impart.evaluate.datasets import CaptionedImages, ClassFolder
from impart.evaluate.retrieval import RetrievalReport, image_retrieval, rank_metrics, ranks_of
from impart.evaluate.zeroshot import ZeroShotReport, zeroshot

__all__ = [
    "CaptionedImages",
    "ClassFolder",
    "RetrievalReport",
    "ZeroShotReport",
    "image_retrieval",
    "rank_metrics",
    "ranks_of",
    "zeroshot",
]
