"""One table, or one list of figures, of the results of many reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from impart.errors import DataError
from impart.evaluate.report.tables import Cell, Table
from impart.evaluate.result import Result, is_share, shown

__all__ = ["FIELDS", "figure_rows", "overview"]

FIELDS = ("report", "task", "dataset", "model", "figure", "value", "low", "high")
"""Columns of `figure_rows`."""


def overview(reports: Mapping[str, Sequence[Result]], *, figures: Sequence[str] = ()) -> Table:
    """Make one table: a row per report and model, a column per task, data set and figure.

    Args:
        reports: name -> results.
        figures: figures to show; default is the first of each result.

    Raises:
        DataError: no result has one of the figures.
    """
    values: dict[tuple[str, str], dict[tuple[str, str, str], float]] = {}
    lower: set[tuple[str, str, str]] = set()
    columns: dict[tuple[str, str, str], None] = {}
    for report, results in reports.items():
        for result in results:
            row = values.setdefault((report, result.encoder), {})
            for name in figures or list(result.figures)[:1]:
                if name in result.figures:
                    column = (result.task, result.dataset, name)
                    columns[column] = None
                    row[column] = result.figures[name]
                    if name in result.lower_is_better:
                        lower.add(column)
    if not columns:
        known = dict.fromkeys(name for results in reports.values() for one in results for name in one.figures)
        raise DataError(f"no result has the figure {' or '.join(figures)}: there are {', '.join(known) or 'none'}")
    best = {
        column: (min if column in lower else max)(
            (row[column] for row in values.values() if not math.isnan(row.get(column, math.nan))), default=math.nan
        )
        for column in columns
    }
    rows = tuple(
        (
            Cell(report),
            Cell(model),
            *(
                Cell(shown(column[2], row[column]), best=len(values) > 1 and row[column] == best[column])
                if column in row
                else Cell("")
                for column in columns
            ),
        )
        for (report, model), row in values.items()
    )
    heads = tuple(f"{task}: {dataset}, {name}{' %' if is_share(name) else ''}" for task, dataset, name in columns)
    return Table(title="Results of all reports", columns=("report", "model", *heads), rows=rows, words=2)


def figure_rows(
    report: str, results: Sequence[Result], bounds: Sequence[Mapping[str, tuple[float, float]]]
) -> list[dict[str, Any]]:
    """List all figures of a report under the names of `FIELDS`, shares as fractions of 1.

    Args:
        report: its name; may be empty.
        results: as measured.
        bounds: figure -> its 95% interval, of each result; a figure without one has empty bounds.
    """
    rows = []
    for result, intervals in zip(results, bounds, strict=True):
        for name, value in result.figures.items():
            low, high = intervals.get(name, ("", ""))
            row = (report, result.task, result.dataset, result.encoder, name, float(value), low, high)
            rows.append(dict(zip(FIELDS, row, strict=True)))
    return rows
