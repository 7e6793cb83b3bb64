"""What a task measured for one encoder on one data set, with enough of it kept to compare two encoders item by item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Result"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of a table.

    Attributes:
        task: `zero-shot`, `linear probe`, `text to image`, `image to text`, `text to video`, `regions`, `moments`, ...
        dataset: name of the data set.
        encoder: what reports call the encoder, such as `mini+vanilla`.
        figures: name -> value. Accuracies and recalls are fractions of 1; names of other units end in it (`mean rank`).
        items: q keys of what was asked (image, caption, box): equal keys are the same question in two runs.
        per_item: figure -> (q,) values whose mean is the figure: 1 or 0 for an accuracy. What the bootstrap resamples.
        clusters: (q,) numbers; items of one number are drawn together (captions of one image). None = each alone.
        resampled: figure -> (R,) bootstrap replicates of a figure that is no mean over items, made with
            `impart.metrics.bootstrap.draws` of the same items, so that two encoders can be paired.
        lower_is_better: figures of which less is better (ranks, calibration error).
        counts: what was counted: images, classes, queries, items.
        settings: prompts, scales, C chosen, whatever the figure depends on.
        notes: what was left out, with reasons.
        arrays: for plots: `confusion` (C, C), `reliability` (bins, 3), ...
        labels: for plots: names of classes.
    """

    task: str
    dataset: str
    encoder: str
    figures: Mapping[str, float]
    items: tuple[str, ...] = ()
    per_item: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    clusters: npt.NDArray[np.int64] | None = None
    resampled: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.per_item.items():
            assert values.shape == (len(self.items),), (name, values.shape, len(self.items))
