"""Plots of results as PNG: bars with intervals, confusion matrices, reliability diagrams.

They are drawn with matplotlib's Agg canvas directly: no window system, no global state, and a quick import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from impart.errors import MissingExtraError
from impart.evaluate.result import Result, is_share
from impart.files import make_folder

__all__ = ["COLOURS", "bars", "draw", "new_figure", "save_figure"]

Intervals = Mapping[str, tuple[float, float]]

_DPI = 110
_NAMED = 40  # classes up to which a confusion matrix has class names
_FIGURES = 8  # groups of bars at most
COLOURS = (
    "#4c72b0",
    "#dd8452",
    "#55a868",
    "#c44e52",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#8c8c8c",
    "#ccb974",
    "#64b5cd",
)


def draw(folder: Path, results: Sequence[Result], bounds: Sequence[Intervals]) -> list[Path]:
    """Draw all plots that the results have arrays for.

    Args:
        folder: made if it is missing.
        results: as measured.
        bounds: the intervals of each result's figures.

    Returns:
        The files, in the order of the results.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if not results:
        return []
    new_figure(1, 1)  # raises before anything is written
    make_folder(folder)
    files: list[Path] = []
    for task, dataset in dict.fromkeys((result.task, result.dataset) for result in results):
        chosen = [n for n, one in enumerate(results) if (one.task, one.dataset) == (task, dataset)]
        rows = [results[number] for number in chosen]
        place = f"{_slug(task)}-{_slug(dataset)}"
        figures = [name for name in dict.fromkeys(f for row in rows for f in row.figures) if is_share(name)][:_FIGURES]
        if figures:
            values = {row.encoder: [row.figures.get(name, math.nan) for name in figures] for row in rows}
            errors = {
                row.encoder: [bounds[n].get(name) for name in figures] for row, n in zip(rows, chosen, strict=True)
            }
            title = f"{task}, {dataset}"
            files.append(bars(folder / f"{place}.png", figures, values, errors=errors, title=title))
        with_bins = [row for row in rows if "reliability" in row.arrays]
        if with_bins:
            files.append(_reliability(folder / f"{place}-reliability.png", with_bins))
        files += [
            _confusion(folder / f"{place}-confusion-{_slug(row.encoder)}.png", row)
            for row in rows
            if "confusion" in row.arrays
        ]
    return files


def bars(
    path: Path,
    groups: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    errors: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
    title: str = "",
) -> Path:
    """Draw groups of bars, one bar per series, with intervals.

    Args:
        path: of the PNG.
        groups: G names under the groups.
        values: series -> G fractions of 1; NaN = no bar.
        errors: series -> G (low, high) bounds, or None for no interval.
        title: above the plot.
    """
    width = max(5.0, 1.2 + 0.32 * len(groups) * (len(values) + 1))
    figure = new_figure(min(width, 16.0), 3.6)
    axes = figure.add_subplot()
    step = 0.84 / max(len(values), 1)
    for number, (name, heights) in enumerate(values.items()):
        at = np.arange(len(groups)) - 0.42 + step * (number + 0.5)
        shown = np.array(heights, dtype=np.float64) * 100
        axes.bar(at, np.nan_to_num(shown), width=step * 0.94, color=COLOURS[number % len(COLOURS)], label=name)
        for x, height, bound in zip(at, shown, (errors or {}).get(name, [None] * len(groups)), strict=True):
            if bound is not None:
                axes.plot([x, x], [100 * bound[0], 100 * bound[1]], color="black", linewidth=1)
            if not math.isnan(height):
                top = height if bound is None else max(height, 100 * bound[1])
                axes.annotate(
                    f"{height:.1f}",
                    (x, top),
                    ha="center",
                    va="bottom",
                    fontsize=7,
                    xytext=(0, 1),
                    textcoords="offset points",
                )
    axes.set_xticks(np.arange(len(groups)), groups)
    axes.set_ylabel("%")
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.12)
    axes.set_axisbelow(True)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return save_figure(figure, path)


def _reliability(path: Path, rows: Sequence[Result]) -> Path:
    """Draw accuracy over confidence; below the diagonal an encoder is overconfident."""
    figure = new_figure(4.8, 4.2)
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle="--")
    for number, row in enumerate(rows):
        confidence, accuracy, count = np.asarray(row.arrays["reliability"], dtype=np.float64).T  # (bins,) each
        full = count > 0
        name = row.encoder
        if "calibration error" in row.figures:
            name += f" (error {100 * row.figures['calibration error']:.1f}%)"
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(100 * confidence[full], 100 * accuracy[full], marker="o", markersize=4, label=name, color=colour)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"{rows[0].task}, {rows[0].dataset}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return save_figure(figure, path)


def _confusion(path: Path, row: Result) -> Path:
    """Draw the confusion matrix: true classes as rows, each row in per cent of its images."""
    counts = np.asarray(row.arrays["confusion"], dtype=np.float64)  # (C, C)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(shares) <= _NAMED and len(row.labels) == len(shares)
    side = 2.6 + 0.17 * len(shares) if named else 5.4
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if named:
        names = [label if len(label) <= 18 else f"{label[:17]}…" for label in row.labels]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{row.encoder}: {row.task}, {row.dataset}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8, label="% of the class")
    return save_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Make a figure of a size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="eval", purpose="drawing plots") from error
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, without margins."""
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1)
    return path


def _slug(text: str) -> str:
    """Convert a text to a part of a file name.

    >>> _slug("text to image (query bank)"), _slug("cifar10/test")
    ('text-to-image-query-bank', 'cifar10-test')
    """
    return re.sub(r"[^A-Za-z0-9.+=_]+", "-", text).strip("-")
