"""Summaries of the rows of a sweep: the best setting, tables, panels of plots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from impart.evaluate.report.tables import Cell, Table
from impart.evaluate.sweep.plan import ALL, Point
from impart.evaluate.sweep.plots import Curve, Panel
from impart.evaluate.sweep.run import SweepRow

__all__ = ["AXES", "Best", "by_point", "choose_best", "datasets_of", "mean_and_spread", "panel", "sweep_tables"]

_POINT = tuple(item.name for item in dataclasses.fields(Point))
_BLENDING = {"k": "K", "w_img": "image weight", "w_txt": "text weight", "tau": "tau"}

AXES = {
    "size": ("reference pairs", "log"),
    "corrupt": ("captions corrupted, %", "linear"),
    "k": ("K, neighbours blended in", "log2"),
    "weights": ("weight", "even"),
    "tau": ("tau (0 = uniform mean)", "even"),
}
"""Plot -> label of its x axis, and the scale."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The setting with the highest accuracy on the data set that it is chosen by.

    Attributes:
        by: the data set, or `LEAVE_ONE_OUT`.
        point: the setting, with seed 0; None = the plain encoder, because no setting gains more than its standard
            error.
        accuracy: on that data set, mean over the seeds.
        plain: accuracy of the plain encoder on that data set.
        error: standard error of the gain.
        settings: number of settings that it was chosen from.
        alike: number of other settings that are less than a standard error lower.
    """

    by: str
    point: Point | None
    accuracy: float
    plain: float
    error: float
    settings: int
    alike: int


def choose_best(rows: Sequence[SweepRow], by: str) -> Best:
    """Choose the setting with the highest accuracy on `by`, mean over the seeds.

    Of equal settings: fewer references, fewer neighbours, smaller weights. Settings with corrupted captions are not
    chosen.
    """
    groups = {point: list(found) for point, found in by_point(rows, by).items() if not point.corrupt}
    assert groups, by
    means = {point: float(np.mean([row.accuracy for row in found])) for point, found in groups.items()}
    best = min(means, key=lambda p: (-round(means[p], 9), groups[p][0].used, p.k, p.w_img + p.w_txt))
    first = groups[best][0]
    error = float(np.mean([row.error for row in groups[best]]))
    gains = means[best] - first.plain > error
    accuracy = means[best] if gains else first.plain
    return Best(
        by=by,
        point=best if gains else None,
        accuracy=accuracy,
        plain=first.plain,
        error=error,
        settings=len(means),
        alike=sum(value > accuracy - error for value in means.values()) - gains,
    )


def sweep_tables(rows: Sequence[SweepRow], at: Point, best: Best | None) -> list[Table]:
    """Make the tables: a summary, by size and selection, by corruption, by each setting.

    Args:
        rows: as measured.
        at: the setting swept around, part of each one-at-a-time table.
        best: the chosen setting.
    """
    datasets = datasets_of(rows)
    tables = [_summary(rows, at, best, datasets)]
    tables += [table for dataset in datasets if (table := _size_table(rows, at, dataset)) is not None]
    for name in ("corrupt", *_BLENDING):
        values = sorted({getattr(row.point, name) for row in rows})
        lines = []
        for value in values:
            point = dataclasses.replace(at, **{name: value})
            cells = [mean_and_spread(by_point(rows, dataset).get(point)) for dataset in datasets]
            if any(cells):
                lines.append((f"{100 * value:g}%" if name == "corrupt" else f"{value:g}", cells))
        if len(lines) > 1:
            title = "captions corrupted" if name == "corrupt" else _BLENDING[name]
            tables.append(_table(f"By {title}", (title, *datasets), lines))
    return tables


def _summary(rows: Sequence[SweepRow], at: Point, best: Best | None, datasets: Sequence[str]) -> Table:
    plain = {row.dataset: row.plain for row in rows}
    lines: list[tuple[str, list[tuple[float, float] | None]]] = [
        ("plain encoder", [(plain[dataset], 0.0) for dataset in datasets])
    ]
    lines.append(("swept around", [mean_and_spread(by_point(rows, dataset).get(at)) for dataset in datasets]))
    if best is not None:
        cells = [
            (plain[dataset], 0.0) if best.point is None else mean_and_spread(by_point(rows, dataset).get(best.point))
            for dataset in datasets
        ]
        lines.append((f"best by {best.by}", cells))
    table = _table("In short", ("", *datasets), lines)
    touched = [(dataset, by_point(rows, dataset).get(at)) for dataset in datasets]
    shares = ", ".join(f"{name} {100 * found[0].touched:.1f}%" for name, found in touched if found)
    return dataclasses.replace(table, below=(f"images that the setting swept around changes: {shares}",))


def _size_table(rows: Sequence[SweepRow], at: Point, dataset: str) -> Table | None:
    grouped = {point: found for point, found in by_point(rows, dataset).items() if _like(point, at, "way", "pairs")}
    sizes = sorted({point.pairs for point in grouped})
    ways = [way for way in dict.fromkeys(point.way for point in grouped) if way != ALL]
    if not ways:
        return None
    lines = []
    for way in ways:
        cells = []
        for size in sizes:
            point = dataclasses.replace(at, way=way, pairs=size)
            cells.append(mean_and_spread(grouped.get(point) or grouped.get(dataclasses.replace(point, way=ALL))))
        lines.append((way, cells))
    plain = next(row.plain for row in rows if row.dataset == dataset)
    table = _table(f"By size and selection: {dataset}", ("selection", *(f"{size} pairs" for size in sizes)), lines)
    fewer = next(
        (found[0].used for point, found in grouped.items() if point.way == "dedup" and point.pairs == sizes[-1]), 0
    )
    below = [f"plain encoder {100 * plain:.1f}; ± is the standard deviation over the seeds"]
    below += [f"dedup leaves {fewer} of {sizes[-1]} pairs"] if 0 < fewer < sizes[-1] else []
    return dataclasses.replace(table, below=tuple(below))


def _table(
    title: str, columns: tuple[str, ...], lines: Sequence[tuple[str, Sequence[tuple[float, float] | None]]]
) -> Table:
    """Make a table in per cent, with the spread over the seeds; the best of each column in bold."""
    highest = [
        max((cell[0] for _, cells in lines if (cell := cells[column]) is not None), default=0.0)
        for column in range(len(columns) - 1)
    ]
    made = []
    for name, cells in lines:
        row = [Cell(name)]
        for cell, top in zip(cells, highest, strict=True):
            if cell is None:
                row.append(Cell("-"))
                continue
            spread = f" ±{100 * cell[1]:.1f}" if cell[1] else ""
            row.append(Cell(f"{100 * cell[0]:.1f}{spread}", best=cell[0] >= top - 1e-9))
        made.append(tuple(row))
    return Table(title=title, columns=columns, rows=tuple(made))


def mean_and_spread(found: Sequence[SweepRow] | None) -> tuple[float, float] | None:
    """Compute mean and standard deviation over the seeds; None without rows."""
    if not found:
        return None
    values = np.array([row.accuracy for row in found])
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def panel(rows: Sequence[SweepRow], at: Point, dataset: str, axis: str) -> Panel:
    """Make the panel of one data set over one axis; all other settings are those swept around."""
    grouped = by_point(rows, dataset)
    plain = next(row.plain for row in rows if row.dataset == dataset)
    curves: dict[str, Curve] = {}
    if axis == "size":
        near = {point: found for point, found in grouped.items() if _like(point, at, "way", "pairs")}
        whole = [(found[0].used, found) for point, found in near.items() if point.way == ALL]
        for way in dict.fromkeys(point.way for point in near if point.way != ALL):
            own = [(found[0].used, found) for point, found in near.items() if point.way == way]
            curves[way] = _curve(own + (whole if way != "dedup" else []))
        return Panel(title=dataset, curves=curves, plain=plain)
    if axis == "weights":
        for name in ("w_img", "w_txt"):
            curves[_BLENDING[name]] = _curve(_along(grouped, at, name))
        return Panel(title=dataset, curves=curves, plain=plain)
    times = 100 if axis == "corrupt" else 1
    found_at = [(times * value, found) for value, found in _along(grouped, at, axis)]
    own_value = None if axis == "corrupt" else float(getattr(at, axis))
    return Panel(title=dataset, curves={"Vanilla": _curve(found_at)}, plain=plain, at=own_value)


def _along(grouped: Mapping[Point, Sequence[SweepRow]], at: Point, name: str) -> list[tuple[float, Sequence[SweepRow]]]:
    return [(float(getattr(point, name)), found) for point, found in grouped.items() if _like(point, at, name)]


def _curve(values: Sequence[tuple[float, Sequence[SweepRow]]]) -> Curve:
    found = [(x, [row.accuracy for row in rows]) for x, rows in sorted(values, key=lambda pair: pair[0])]
    return Curve(
        x=tuple(x for x, _ in found),
        mean=tuple(float(np.mean(shares)) for _, shares in found),
        low=tuple(min(shares) for _, shares in found),
        high=tuple(max(shares) for _, shares in found),
    )


def _like(point: Point, at: Point, *but: str) -> bool:
    """Whether two points are equal except for the seed and the given fields."""
    return all(getattr(point, name) == getattr(at, name) for name in _POINT if name not in ("seed", *but))


def by_point(rows: Sequence[SweepRow], dataset: str) -> dict[Point, list[SweepRow]]:
    """Group the rows of a data set by point, seeds together."""
    found: dict[Point, list[SweepRow]] = {}
    for row in rows:
        if row.dataset == dataset:
            found.setdefault(row.point.without_seed, []).append(row)
    return found


def datasets_of(rows: Sequence[SweepRow]) -> list[str]:
    """List the data sets of rows, each once."""
    return list(dict.fromkeys(row.dataset for row in rows))
