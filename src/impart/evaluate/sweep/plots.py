"""Plots of a sweep: accuracy over size, corruption, K, weights and tau, one panel per data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart.evaluate.report.plots import COLOURS, new_figure, save_figure

__all__ = ["Curve", "Panel", "draw_panels"]

_ACROSS = 4  # panels in a row
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Curve:
    """One line: accuracies (fractions of 1) over x; `low` and `high` are the minimum and maximum over the seeds."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The plot of one data set.

    Attributes:
        title: above the plot.
        curves: name -> line.
        plain: accuracy of the plain encoder, a dashed line.
        at: x of the setting swept around, a dotted line; None = none.
    """

    title: str
    curves: Mapping[str, Curve]
    plain: float
    at: float | None = None


def draw_panels(path: Path, panels: Sequence[Panel], *, label: str, scale: str = "linear", title: str = "") -> Path:
    """Draw panels side by side, each with its own range of accuracies.

    Args:
        path: of the PNG.
        panels: at least one.
        label: under the x axis.
        scale: of x: `linear`, `log` (base 10), `log2`, or `even` (equal distances between the values).
        title: above all.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    across = min(_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = new_figure(3.4 * across + 1.2, 3.1 * down + 0.3)
    names: dict[str, int] = {}
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, place + 1)
        values = sorted({x for curve in panel.curves.values() for x in curve.x})
        for name, curve in panel.curves.items():
            number = names.setdefault(name, len(names))
            colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
            order = np.argsort(curve.x)
            x, mean, low, high = (np.asarray(v)[order] for v in (curve.x, curve.mean, curve.low, curve.high))
            x = np.searchsorted(values, x) if scale == "even" else x
            axes.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, 100 * mean, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=name)
        axes.axhline(100 * panel.plain, color="black", linestyle="--", linewidth=1, label="plain encoder")
        if panel.at is not None and (scale != "even" or panel.at in values):
            x_at = values.index(panel.at) if scale == "even" else panel.at
            axes.axvline(x_at, color="grey", linestyle=":", linewidth=1, label="swept around")
        if scale in ("log", "log2"):
            axes.set_xscale("log", base=2 if scale == "log2" else 10)
        ticks = _apart(values) if scale == "log" else values
        at = list(range(len(ticks))) if scale == "even" else ticks
        axes.set_xticks(at, [f"{tick:g}" for tick in ticks], fontsize=7, rotation=45 if len(ticks) > 7 else 0)
        axes.minorticks_off()
        shown = [100 * y for curve in panel.curves.values() for y in (*curve.low, *curve.high)] + [100 * panel.plain]
        if max(shown) - min(shown) < 2:  # differences of a few images must not look large
            middle = (min(shown) + max(shown)) / 2
            axes.set_ylim(middle - 1.1, middle + 1.1)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel(label, fontsize=8)
        if place % across == 0:
            axes.set_ylabel("top-1, %", fontsize=8)
        axes.grid(alpha=0.3)
        if place == across - 1 or place == len(panels) - 1 < across:
            axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return save_figure(figure, path)


def _apart(values: Sequence[float]) -> list[float]:
    """Select ascending values whose labels do not overlap on a logarithmic axis, the last included.

    >>> _apart([3, 9, 298, 299])
    [3, 9, 299]
    """
    kept: list[float] = []
    for value in reversed(values):
        if not kept or value * 1.3 <= kept[-1]:
            kept.append(value)
    return kept[::-1]
