"""Tables of results: one per task and data set, one row per encoder, the best in bold, noise marked `~`.

The same tables go to the terminal and into `report.md`. Shares are shown in per cent, other figures (ranks, losses) in
their own units. `±` is half the width of the 95% interval; its bounds are in `report.json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from impart.evaluate.report.compare import Comparison, Difference
from impart.evaluate.result import Result, is_share, shown

__all__ = [
    "Cell",
    "Table",
    "difference_list",
    "difference_tables",
    "legend",
    "markdown",
    "result_tables",
]

Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: its content.
        best: whether it is the best of its column.
        noise: whether its difference from the first row may be noise.
    """

    text: str
    best: bool = False
    noise: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table.

    Attributes:
        title: above the table.
        columns: names.
        rows: one cell per column.
        below: lines of explanation.
        words: number of columns with words, from the left; the others have numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    below: tuple[str, ...] = ()
    words: int = 1


def result_tables(
    results: Sequence[Result], bounds: Sequence[Intervals], comparisons: Sequence[Comparison]
) -> list[Table]:
    """Make one table per task and data set.

    Args:
        results: as measured.
        bounds: the intervals of each result's figures.
        comparisons: of encoders with the first one, for the mark of noise.
    """
    tables = []
    for task, dataset in dict.fromkeys((result.task, result.dataset) for result in results):
        rows = [
            (result, bounds[number])
            for number, result in enumerate(results)
            if (result.task, result.dataset) == (task, dataset)
        ]
        figures = list(dict.fromkeys(name for result, _ in rows for name in result.figures))
        compared = {one.b: one for one in comparisons if (one.task, one.dataset) == (task, dataset)}
        cells = [
            (Cell(result.encoder), *(_cell(result, name, bound, compared) for name in figures))
            for result, bound in rows
        ]
        for column, name in enumerate(figures, start=1):
            _mark_best(cells, column, name, [result for result, _ in rows])
        tables.append(
            Table(
                title=f"{task}: {dataset}",
                columns=("encoder", *_headings(figures)),
                rows=tuple(cells),
                below=_counted([result for result, _ in rows]),
            )
        )
    return tables


def difference_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Make one table per task and data set: one row per comparison, one column per figure, with the interval."""
    tables = []
    for task, dataset in dict.fromkeys((one.task, one.dataset) for one in comparisons):
        chosen = [one for one in comparisons if (one.task, one.dataset) == (task, dataset) and one.differences]
        figures = list(dict.fromkeys(found.figure for one in chosen for found in one.differences))
        rows = [(Cell(f"{one.b} - {one.a}"), *(_difference(one.of(name)) for name in figures)) for one in chosen]
        if rows:
            title = f"{task}: {dataset}, differences"
            columns = ("encoders", *_headings(figures))
            tables.append(Table(title=title, columns=columns, rows=tuple(rows), below=_left_out(chosen)))
    return tables


def difference_list(comparisons: Sequence[Comparison]) -> Table | None:
    """Put all comparisons in one table, one row per figure; None if there is none."""
    rows = []
    for one in comparisons:
        for found in one.differences:
            what = f"{one.b} - {one.a}" if one.a != one.b else one.b
            rows.append(
                (
                    Cell(f"{one.task}: {one.dataset}"),
                    Cell(what),
                    Cell(found.figure),
                    Cell(shown(found.figure, found.a)),
                    Cell(shown(found.figure, found.b)),
                    Cell(shown(found.figure, found.difference, sign=True), noise=bool(found.noise)),
                    Cell(_bounds(found)),
                    Cell(_verdict(found)),
                )
            )
    if not rows:
        return None
    columns = ("task", "encoders", "figure", "first", "second", "difference", "95% interval", "")
    title = "Differences (paired bootstrap)"
    return Table(title=title, columns=columns, rows=tuple(rows), below=_left_out(comparisons), words=3)


def legend(*, compared: bool) -> str:
    """Explain the marks."""
    line = "± is half of the 95% interval."
    return f"{line} Best in bold. ~: the difference from the first row may be noise." if compared else line


def markdown(table: Table) -> str:
    """Format a table as Markdown."""
    lines = [
        f"| {' | '.join(table.columns)} |",
        f"| {' | '.join('---' if number < table.words else '---:' for number in range(len(table.columns)))} |",
    ]
    for row in table.rows:
        lines.append(f"| {' | '.join(_as_markdown(cell) for cell in row)} |")
    return "\n".join([f"### {table.title}", "", *lines, *(f"\n{line}" for line in table.below)])


def _as_markdown(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    text = f"**{text}**" if cell.best else text
    return f"{text} ~" if cell.noise else text


def _headings(figures: Sequence[str]) -> list[str]:
    return [f"{name} %" if is_share(name) else name for name in figures]


def _counted(results: Sequence[Result]) -> tuple[str, ...]:
    """Format the counts; with the encoders' names if the counts differ."""
    by_line: dict[str, list[str]] = {}
    for result in results:
        line = ", ".join(f"{value:,} {name}" for name, value in result.counts.items() if value)
        by_line.setdefault(line, []).append(result.encoder)
    if len(by_line) == 1:
        return tuple(by_line)
    return tuple(f"{', '.join(names)}: {line}" for line, names in by_line.items())


def _left_out(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    lines = [
        f"{one.task}, {one.dataset}: {one.shared:,} items are in both; left out: {one.only_a:,} only in the first, "
        f"{one.only_b:,} only in the second"
        for one in comparisons
        if one.only_a or one.only_b
    ]
    lines += [f"{one.task}, {one.dataset}, {one.b}: {note}" for one in comparisons for note in one.notes]
    return tuple(dict.fromkeys(lines))


def _difference(found: Difference | None) -> Cell:
    if found is None:
        return Cell("")
    text = shown(found.figure, found.difference, sign=True)
    bounds = _bounds(found)
    return Cell(f"{text} ({bounds})" if bounds else text, noise=bool(found.noise))


def _cell(result: Result, name: str, bounds: Intervals, compared: Mapping[str, Comparison]) -> Cell:
    if name not in result.figures:
        return Cell("")
    text = shown(name, result.figures[name])
    if name in bounds:
        low, high = bounds[name]
        text += f" ±{shown(name, (high - low) / 2)}"
    found = compared[result.encoder].of(name) if result.encoder in compared else None
    return Cell(text, noise=bool(found is not None and found.noise))


def _mark_best(cells: list[tuple[Cell, ...]], column: int, name: str, results: Sequence[Result]) -> None:
    values = [result.figures.get(name, math.nan) for result in results]
    known = [value for value in values if not math.isnan(value)]
    if len(cells) < 2 or not known or min(known) == max(known):
        return
    best = min(known) if name in results[0].lower_is_better else max(known)
    for number, value in enumerate(values):
        if value == best:
            row = list(cells[number])
            row[column] = Cell(row[column].text, best=True, noise=row[column].noise)
            cells[number] = tuple(row)


def _bounds(found: Difference) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"{shown(found.figure, found.low, sign=True)} to {shown(found.figure, found.high, sign=True)}"


def _verdict(found: Difference) -> str:
    if found.noise is None:
        return ""
    if found.noise:
        return "noise"
    return "better" if found.better else "worse"
