"""Evaluation: open a data set in one of many formats, run a task on it, compare the results."""

from __future__ import annotations

from impart.evaluate.datasets import open_set
from impart.evaluate.datasets.types import BoxSet, CaptionSet, ClassSet, MomentSet, VideoSet
from impart.evaluate.result import Result
from impart.evaluate.tasks.few_shot import few_shot
from impart.evaluate.tasks.moments import predict_moments, read_predictions, score_predictions
from impart.evaluate.tasks.probe import linear_probe
from impart.evaluate.tasks.regions import regions
from impart.evaluate.tasks.retrieval import retrieval
from impart.evaluate.tasks.video_retrieval import image_to_video, video_retrieval
from impart.evaluate.tasks.zeroshot import zeroshot

__all__ = [
    "BoxSet",
    "CaptionSet",
    "ClassSet",
    "MomentSet",
    "Result",
    "VideoSet",
    "few_shot",
    "image_to_video",
    "linear_probe",
    "open_set",
    "predict_moments",
    "read_predictions",
    "regions",
    "retrieval",
    "score_predictions",
    "video_retrieval",
    "zeroshot",
]
