"""Result: the figures of one encoder on one data set, with values per item for paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Result", "is_share", "shown"]


def is_share(figure: str) -> bool:
    """Whether a figure is a fraction of 1, by its name: names of other figures end with the unit.

    >>> is_share("R@5"), is_share("median rank"), is_share("log-loss")
    (True, False, False)
    """
    return not figure.endswith(("rank", "loss", " s", " ms", "seconds"))


def shown(figure: str, value: float, *, sign: bool = False) -> str:
    """Format a value: shares in per cent.

    >>> shown("top-1", 0.61234), shown("median rank", 3.0), shown("top-1", 0.05, sign=True)
    ('61.2', '3.0', '+5.0')
    """
    if math.isnan(value):
        return "-"
    plus = "+" if sign else ""
    if is_share(figure):
        digits = 2 if sign and 0 < abs(100 * value) < 0.05 else 1  # a small difference is not shown as zero
        return f"{round(100 * value, digits) + 0.0:{plus}.{digits}f}"  # adding zero makes -0.0 a 0.0
    digits = 3 if figure.endswith("loss") else 1
    return f"{round(value, digits) + 0.0:{plus}.{digits}f}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """The result of a task for one model on one data set.

    Attributes:
        task: `zero-shot`, `linear probe`, `text to image`, `image to text`, `text to video`, `regions`, `moments`, ...
        dataset: name of the data set.
        encoder: the model's label in reports, such as `mini+vanilla`.
        figures: name -> value. Accuracies and recalls are fractions of 1; other names end with the unit (`mean rank`).
        items: q keys of the queries (images, captions, boxes); equal keys are the same query in two runs.
        per_item: figure -> (q,) values whose mean is the figure, 1 or 0 for an accuracy; the bootstrap resamples them.
        clusters: (q,) numbers; the bootstrap draws items of equal numbers together (captions of one image). None = each
            item alone.
        resampled: figure -> bootstrap replicates of a figure that is not a mean over items, from
            `impart.metrics.bootstrap.draws` of the same items, so that two encoders can be paired.
        lower_is_better: figures that are better when lower (ranks, calibration error).
        counts: numbers of images, classes, queries, items.
        settings: what the figures depend on: prompts, scales, the chosen C.
        notes: on what was left out, with reasons.
        arrays: for plots: `confusion` (C, C), `reliability` (bins, 3), ...
        labels: for plots: names of classes.

    Example:
        >>> import numpy as np
        >>> import impart
        >>> right = np.array([1.0, 0.0, 1.0, 1.0])
        >>> result = impart.evaluate.Result(
        ...     task="zero-shot",
        ...     dataset="letters",
        ...     encoder="mine",
        ...     figures={"top-1": right.mean()},
        ...     items=("a.png", "b.png", "c.png", "d.png"),
        ...     per_item={"top-1": right},
        ... )
        >>> float(result.figures["top-1"])
        0.75
        >>> print(result)
        mine, zero-shot on letters: top-1 75.0% (4 items)
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

    def __repr__(self) -> str:
        """Format the figures and counts in one line; the values per item are left out."""
        figures = ", ".join(
            f"{name} {shown(name, value)}{'%' if is_share(name) and not math.isnan(value) else ''}"
            for name, value in self.figures.items()
        )
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)
        return f"{self.encoder}, {self.task} on {self.dataset}: {figures} ({counts or f'{len(self.items):,} items'})"
