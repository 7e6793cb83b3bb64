"""Results with known figures, for comparisons and reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from impart.evaluate.result import Result


def classified(
    label: str,
    right: Sequence[float],
    *,
    items: Sequence[str] | None = None,
    dataset: str = "colours/test",
    clusters: Sequence[int] | None = None,
) -> Result:
    """Make a zero-shot result of images that are right (1) or wrong (0)."""
    values = np.array(right, dtype=np.float64)
    names = tuple(items or (f"{number}.png" for number in range(len(values))))
    spread = np.random.default_rng(len(label)).normal(0.1, 0.01, 1000)
    return Result(
        task="zero-shot",
        dataset=dataset,
        encoder=label,
        figures={"top-1": float(values.mean()), "calibration error": 0.1, "log-loss": 1.0 - float(values.mean())},
        items=names,
        per_item={"top-1": values, "log-loss": 1.0 - values},
        clusters=None if clusters is None else np.array(clusters, dtype=np.int64),
        resampled={"calibration error": spread},
        lower_is_better=frozenset({"calibration error", "log-loss"}),
        counts={"images": len(values), "classes": 2},
        settings={"prompts": "ensemble"},
        notes=("left out: broken.png: not a readable image",),
        arrays={
            "confusion": np.array([[3, 1], [0, 4]]),
            "reliability": np.array([[0.2, 0.1, 5.0], [np.nan, np.nan, 0.0], [0.9, 0.7, 3.0]]),
        },
        labels=("red", "blue"),
    )
