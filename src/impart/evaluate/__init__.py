"""Measure an encoder: open a data set in any of many formats, run a task on it, compare what comes out."""

from __future__ import annotations

from impart.evaluate.datasets import open_set
from impart.evaluate.outcome import Outcome
from impart.evaluate.probe import linear_probe
from impart.evaluate.regions import regions
from impart.evaluate.retrieval import retrieval
from impart.evaluate.sets import BoxSet, CaptionSet, ClassSet, MomentSet, VideoSet
from impart.evaluate.zeroshot import zeroshot

__all__ = [
    "BoxSet",
    "CaptionSet",
    "ClassSet",
    "MomentSet",
    "Outcome",
    "VideoSet",
    "linear_probe",
    "open_set",
    "regions",
    "retrieval",
    "zeroshot",
]
