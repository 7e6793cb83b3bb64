"""The folder of a sweep: rows as they are measured, and the report.

sweep.csv       one row per setting and data set; a stopped sweep continues from it
sweep.json      schema, settings, versions, fingerprints of encoder, set and data, the best setting
report.md       the tables
plots/*.png     accuracy over size per selection, over corruption, K, weights, tau

The best setting is chosen by leave-one-out, so that no data set is tuned on. On request it is chosen by the figure of
one data set. That figure is then no test result, and the report has a warning.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from impart.errors import ConfigError, DataError, MissingExtraError
from impart.evaluate.report.tables import Table, markdown
from impart.evaluate.sweep.plan import ALL, Point, SweepPlan
from impart.evaluate.sweep.plots import draw_panels
from impart.evaluate.sweep.run import LEAVE_ONE_OUT, SweepData, SweepRow, sweep
from impart.evaluate.sweep.tables import (
    AXES,
    Best,
    by_point,
    choose_best,
    datasets_of,
    mean_and_spread,
    panel,
    sweep_tables,
)
from impart.files import library_versions, make_folder, now, write_atomic, write_csv_atomic, write_json_atomic

__all__ = ["SweepFolder", "best_in_words"]

SCHEMA = 1
_KIND = "sweep"
_CSV, _JSON, _TEXT, _PLOTS = "sweep.csv", "sweep.json", "report.md", "plots"
_OLD_KEYS = {"pictures": "images"}
_BATCH = 32  # rows between two writes: what a killed sweep loses at most
_POINT = tuple(item.name for item in dataclasses.fields(Point))
_MEASURED = ("used", "items", "classes", "plain", "accuracy", "error", "touched")
_COLUMNS = ("dataset", *_POINT, *_MEASURED, "gain")
_KINDS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("dataset", "way"), str),
    **dict.fromkeys(("pairs", "seed", "k", "used", "items", "classes"), int),
}


class SweepFolder:
    """The rows and the report of a sweep, on disk.

    Args:
        folder: made if it is missing.
        data: the references and images of the sweep.
        plan: the settings of the sweep.
        settings: of the run, for `sweep.json`.

    Raises:
        ConfigError: the folder has a sweep of another set, encoder or data, or other files.
        DataError: its rows cannot be read.
    """

    def __init__(self, folder: Path, data: SweepData, plan: SweepPlan, settings: Mapping[str, Any]) -> None:
        self.folder, self.data, self.plan = folder, data, plan
        self._content = self._identity(settings)
        self._rows: dict[tuple[str, Point], SweepRow] = {}
        if (folder / _CSV).exists() or (folder / _JSON).exists():
            self._check()
            self._rows = {(row.dataset, row.point): row for row in _read(folder / _CSV)}
        make_folder(folder)
        write_json_atomic(folder / _JSON, self._content, indent=1)
        write_csv_atomic(folder / _CSV, _COLUMNS, (_cells(row) for row in self._rows.values()))

    @property
    def done(self) -> frozenset[tuple[str, Point]]:
        """Data set and point of each row on disk."""
        return frozenset(self._rows)

    def add(self, rows: Iterable[SweepRow]) -> None:
        """Add rows, and append them to the file."""
        with (self.folder / _CSV).open("a", newline="", encoding="utf-8") as file:
            for row in rows:
                self._rows[row.dataset, row.point] = row
                csv.writer(file, lineterminator="\n").writerow(_cells(row))

    def rows(self, points: Sequence[Point]) -> list[SweepRow]:
        """Return the rows of points on the present data sets, in the order of the points."""
        names = [questions.name for questions in self.data.questions]
        return [self._rows[name, point] for point in points for name in names if (name, point) in self._rows]

    def measure(self, points: Sequence[Point]) -> Iterator[int]:
        """Measure the points that have no row yet, and write the rows in batches.

        Yields:
            Rows that are on disk: at the start those of an earlier sweep, then after each batch.
        """
        rows = len(self.rows(points))
        yield rows
        measured = sweep(self.data, points, done=self.done)
        while batch := list(islice(measured, _BATCH)):
            self.add(batch)
            rows += len(batch)
            yield rows

    def finish(
        self, points: Sequence[Point], *, choose_by: str, seconds: float
    ) -> tuple[list[Table], Best | None, str]:
        """Write the report.

        Returns:
            The tables, the best setting (None if no row has figures of `choose_by`), and why there are no plots, if so.
        """
        rows = self.rows(points)
        at = SweepPlan(grid=False).points(len(self.data.references), self.data.settings)[0]
        by = choose_by if any(row.dataset == choose_by for row in rows) else ""
        best = choose_best(rows, by) if by else None
        tables = sweep_tables(rows, at, best)
        plots, problem = self._draw(rows, at)
        content = {
            **self._content,
            "seconds": round(seconds, 1),
            "rows": len(rows),
            "choose_by": choose_by,
            "tuned_on": [by] if by and by != LEAVE_ONE_OUT else [],
            "best": None if best is None else _best_content(best, rows),
        }
        write_json_atomic(self.folder / _JSON, content, indent=1)
        text = _text(content, self.data, tables, plots, best, choose_by)
        write_atomic(self.folder / _TEXT, text)
        return tables, best, problem

    def _identity(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        data = self.data
        return {
            "schema": SCHEMA,
            "kind": _KIND,
            "created": now(),
            "versions": library_versions(),
            "encoder": dict(data.encoder),
            "references": {
                "name": data.references.name,
                "fingerprint": data.references.fingerprint,
                "cohort": data.references.znorm.digest,
                "pairs": len(data.references),
                "dropped": data.dropped,
            },
            "around": dataclasses.asdict(data.settings),
            "datasets": {
                questions.name: {
                    "identity": questions.identity,
                    "images": len(questions),
                    "classes": len(questions.classes),
                    "templates": list(questions.templates),
                }
                for questions in data.questions
            },
            "plan": dataclasses.asdict(self.plan),
            "settings": dict(settings),
            "notes": [*data.notes, *(f"{q.name}: {note}" for q in data.questions for note in q.notes)],
        }

    def _check(self) -> None:
        """Refuse rows that were measured with another encoder, set or data set."""
        try:
            before = json.loads((self.folder / _JSON).read_text(encoding="utf-8"))
            kind = before.get("kind"), before.get("schema")
            content = before.get("datasets", {})
            datasets = {name: _with_new_keys(one) for name, one in content.items()}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{self.folder / _JSON} cannot be read: {error}. Choose another --out") from error
        if kind != (_KIND, SCHEMA):
            raise ConfigError(f"{self.folder} has no sweep of this version: choose another --out")
        other = [name for name in ("encoder", "references") if before.get(name) != self._content[name]]
        mine = self._content["datasets"]
        other += [name for name, one in mine.items() if datasets.get(name, one) != one]
        if other:
            raise ConfigError(f"{self.folder} has a sweep with another {', '.join(other)}: choose another --out")
        mine.update({name: one for name, one in datasets.items() if name not in mine})

    def _draw(self, rows: Sequence[SweepRow], at: Point) -> tuple[list[str], str]:
        folder = self.folder / _PLOTS
        for stale in folder.glob("*.png"):
            stale.unlink()
        make_folder(folder)
        about = f"{self.data.references.name}, {len(self.data.references)} pairs, {self.data.encoder.get('id')}"
        found: list[str] = []
        try:
            for name, (label, scale) in AXES.items():
                found_panels = [panel(rows, at, dataset, name) for dataset in datasets_of(rows)]
                panels = [one for one in found_panels if any(len(curve.x) > 1 for curve in one.curves.values())]
                if panels:
                    draw_panels(folder / f"{name}.png", panels, label=label, scale=scale, title=about)
                    found.append(f"{_PLOTS}/{name}.png")
        except MissingExtraError as error:
            return [], f"no plots: {error}"
        return found, ""


def _with_new_keys(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the key that sweeps of the first versions have for the number of images."""
    return {_OLD_KEYS.get(name, name): value for name, value in dataset.items()}


def _best_content(best: Best, rows: Sequence[SweepRow]) -> dict[str, Any]:
    figures = {}
    for dataset in datasets_of(rows):
        found = by_point(rows, dataset).get(best.point) if best.point else None
        plain = next(row.plain for row in rows if row.dataset == dataset)
        figures[dataset] = {"plain": plain, "accuracy": mean_and_spread(found)[0] if found else plain}  # type: ignore[index]
    content = dataclasses.asdict(best)
    if best.point is not None:
        del content["point"]["seed"]
    return {**content, "figures": figures}


def best_in_words(best: Best | None, choose_by: str) -> str:
    """Describe the best setting, how it was chosen, and its gain."""
    return " ".join(_best_lines(best, choose_by)).replace("**", "")


def _best_lines(best: Best | None, choose_by: str) -> list[str]:
    if best is None:
        return [f"No best setting: there are no figures of {choose_by} to choose by. The set keeps its settings."]
    lines = []
    if best.point is None:
        lines.append(
            f"**Best by {best.by}: the plain encoder.** Of {best.settings} settings none gains more than its standard "
            f"error ({100 * best.error:.2f} points): do not use this set for such images."
        )
    else:
        point = best.point
        which = f"all {point.pairs} pairs" if point.way == ALL else f"{point.pairs} pairs chosen by `{point.way}`"
        blend = ", ".join(f"{name} {value:g}" for name, value in dataclasses.asdict(point.settings).items())
        lines.append(
            f"**Best by {best.by}: {which}; {blend}.** {100 * best.plain:.1f}% plain, {100 * best.accuracy:.1f}% with "
            f"it (standard error of the gain {100 * best.error:.2f} points). It is the highest of {best.settings} "
            f"settings, so its figure is too high; {best.alike} of the others are less than a standard error lower."
        )
    if best.by == LEAVE_ONE_OUT:
        lines.append("It was chosen by the set's own images, without any test image or label.")
        if best.point is not None and not best.point.floor:
            lines.append(
                "It has no gate (floor 0), and leave-one-out measures only images like the set's. Other images are "
                "blended as much and may get worse: measure other data sets, or sweep around settings with a floor."
            )
    else:
        lines.append(
            f"**Warning: this was tuned on {best.by}.** Its figure there is no test result: "
            "choose by leave-one-out, or report another data set."
        )
    return lines


def _text(
    content: Mapping[str, Any],
    data: SweepData,
    tables: Sequence[Table],
    plots: Sequence[str],
    best: Best | None,
    choose_by: str,
) -> str:
    references, encoder = content["references"], content["encoder"]
    around = ", ".join(f"{name} {value:g}" for name, value in content["around"].items())
    lines = [
        f"# Sweep of {references['name']}",
        "",
        f"- encoder: {encoder['id']} ({encoder['fingerprint'][:12]})",
        f"- references: {references['pairs']} pairs ({references['fingerprint'][:12]}), {references['dropped']} "
        "that show test images were dropped",
        f"- around: {around}",
        *(f"- {q.name}: {len(q)} images, {len(q.classes)} texts" for q in data.questions),
        f"- {content['rows']} rows in sweep.csv, {content['seconds']:g} s, {content['created']}",
        "",
        "Top-1 accuracy in per cent; ties count as wrong. Leave-one-out: each of the set's images is classified among "
        "the set's texts, its own pairs masked. All sizes and corruptions classify the images of the whole, clean set.",
        "",
        *(line for one in _best_lines(best, choose_by) for line in (one, "")),
        *(line for table in tables for line in (markdown(table), "")),
        *(line for plot in plots for line in (f"![{Path(plot).stem}]({plot})", "")),
    ]
    if content["notes"]:
        lines += ["## Notes", "", *(f"- {note}" for note in content["notes"]), ""]
    return "\n".join(lines)


def _cells(row: SweepRow) -> list[Any]:
    point = [getattr(row.point, name) for name in _POINT]
    return [row.dataset, *point, *(getattr(row, name) for name in _MEASURED), round(row.gain, 9)]


def _read(path: Path) -> list[SweepRow]:
    """Read the rows of a table; a row that was only partly written is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if table.fieldnames is None or tuple(table.fieldnames) != _COLUMNS:
            raise DataError(f"{path} is not a table of a sweep: choose another --out")
        for cells in table:
            if any(cells[name] in (None, "") for name in _COLUMNS):
                continue
            try:
                values = {name: _KINDS.get(name, float)(cells[name]) for name in _COLUMNS}
            except ValueError as error:
                raise DataError(f"{path}, line {table.line_num}: {error}. Remove the line") from error
            point = Point(**{name: values[name] for name in _POINT})
            rows.append(SweepRow(dataset=values["dataset"], point=point, **{name: values[name] for name in _MEASURED}))
    return rows
