"""A result and a report print as short lines, however many items they have."""

from __future__ import annotations

import numpy as np

from impart.evaluate.report.folder import Report
from impart.evaluate.result import Result


def test_a_printed_result_is_one_line_of_figures_and_counts() -> None:
    right = np.ones(5000)
    result = Result(
        task="zero-shot",
        dataset="caltech101/test",
        encoder="mini+vanilla",
        figures={"top-1": 0.788, "log-loss": 0.7214, "median rank": float("nan")},
        items=tuple(f"{number}.png" for number in range(5000)),
        per_item={"top-1": right},
        counts={"images": 5000, "unreadable": 0},
        arrays={"confusion": np.zeros((100, 100))},
    )
    line = "mini+vanilla, zero-shot on caltech101/test: top-1 78.8%, log-loss 0.721, median rank - (5,000 images)"
    assert str(result) == repr(result) == line
    report = Report(results=(result, result), created="2026-01-01T00:00:00+00:00")
    assert str(report).splitlines() == ["report of 2026-01-01T00:00:00+00:00, 2 results", line, line]
