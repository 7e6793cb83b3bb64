"""The report of a run: one folder with all that was measured, for people, programs and later comparisons.

report.json     settings, library versions, encoders and reference sets with fingerprints, data sets, counts, figures
                with intervals, differences from the first encoder, notes, seconds
report.md       the tables
results.npz     values per item and bootstrap replicates, for the paired differences of `impart eval compare`
plots/*.png     confusion matrices, reliability diagrams, bars with intervals
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from impart.errors import DataError, MissingExtraError
from impart.evaluate.report.compare import Comparison, against_first, intervals
from impart.evaluate.report.tables import Table, difference_tables, legend, markdown, result_tables
from impart.evaluate.result import Result
from impart.files import atomic_path, library_versions, make_folder, now, remove_stale, write_atomic, write_json_atomic
from impart.metrics import bootstrap

__all__ = [
    "Report",
    "Summary",
    "WrittenReport",
    "comparison_content",
    "is_report",
    "read_report",
    "report_content",
    "summarise",
    "write_report",
]

SCHEMA = 1
_KIND = "evaluation"
_JSON, _TEXT, _ARRAYS, _PLOTS = "report.json", "report.md", "results.npz", "plots"
_RESULTS = "results"
_OLD_RESULTS, _OLD_ARRAYS = "outcomes", "outcomes.npz"  # their names in reports of the first versions
_OLD_COUNTS, _OLD_SETTINGS = {"pictures": "images"}, {"phrasings": "prompts"}
_OLD_FRAMES = "impart.video.sampling.sampled_frames "
_NOTES_SHOWN = 30


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """The content of a report folder.

    Attributes:
        results: as measured, in the order of the tables; others are compared with the first.
        settings: of the run: command, options.
        encoders: of `impart.evaluate.models.describe`, one per model and data set.
        notes: of the whole run.
        seconds: duration of the run.
        created: ISO 8601, UTC.
        versions: of the libraries.
    """

    results: tuple[Result, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    encoders: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    created: str = field(default_factory=now)
    versions: Mapping[str, str] = field(default_factory=library_versions)

    @property
    def all_notes(self) -> list[str]:
        """Notes of the run and of its results, each once."""
        return list(dict.fromkeys([*self.notes, *(note for result in self.results for note in result.notes)]))

    def __repr__(self) -> str:
        """Format the report as one line per result."""
        return "\n".join([f"report of {self.created}, {len(self.results)} results", *map(repr, self.results)])


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Intervals of each result, comparisons with the first encoder, and tables."""

    bounds: tuple[Mapping[str, tuple[float, float]], ...]
    comparisons: tuple[Comparison, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """Paths of a report, and why it has no plots, if so."""

    folder: Path
    plots: tuple[Path, ...]
    problem: str = ""


def summarise(results: Sequence[Result], *, repeats: int = bootstrap.REPEATS) -> Summary:
    """Compute intervals, comparisons with the first encoder, and tables.

    Args:
        results: what was measured.
        repeats: draws of the bootstrap; 0 = no intervals.
    """
    bounds = tuple(intervals(result, repeats=repeats) for result in results)
    comparisons = tuple(against_first(results, repeats=repeats))
    tables = (*result_tables(results, bounds, comparisons), *difference_tables(comparisons))
    return Summary(bounds=bounds, comparisons=comparisons, tables=tables)


def write_report(
    folder: str | Path,
    report: Report,
    *,
    summary: Summary | None = None,
    tables: Sequence[Table] = (),
    plots: bool = True,
    more_plots: Sequence[Callable[[Path], Path]] = (),
) -> WrittenReport:
    """Write a report; an existing one is replaced.

    Args:
        folder: made if it is missing.
        report: the content.
        summary: of the results, if it was computed already.
        tables: shown above those of the results.
        plots: whether to draw. Without matplotlib the report has no plots, but a note.
        more_plots: functions that draw further plots into a folder; shown above the others.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(folder).expanduser()
    summary = summary or summarise(report.results)
    try:
        make_folder(folder)
        drawn, problem = _draw(folder / _PLOTS, report.results, summary, more_plots) if plots else ([], "")
        if problem:
            report = replace(report, notes=(*report.notes, problem))
        with atomic_path(folder / _ARRAYS) as part, part.open("wb") as file:
            _savez(file, _pack(report.results))
        write_atomic(folder / _TEXT, _text(report, summary, tables, [path.name for path in drawn]))
        write_json_atomic(folder / _JSON, report_content(report, summary), indent=1)
        remove_stale(folder, [f".{name}.*.part" for name in (_ARRAYS, _TEXT, _JSON)], keep=())  # of a killed run
    except OSError as error:
        raise DataError(f"cannot write the report {folder}: {error.strerror}; choose another --out") from error
    return WrittenReport(folder=folder, plots=tuple(drawn), problem=problem)


def report_content(report: Report, summary: Summary) -> dict[str, Any]:
    """Return the content of `report.json`."""
    results = [
        {
            "task": result.task,
            "dataset": result.dataset,
            "encoder": result.encoder,
            "figures": {
                name: {"value": value, **dict(zip(("low", "high"), bounds.get(name, ()), strict=False))}
                for name, value in result.figures.items()
            },
            "lower_is_better": sorted(result.lower_is_better),
            "counts": dict(result.counts),
            "settings": dict(result.settings),
            "notes": list(result.notes),
            "labels": list(result.labels),
        }
        for result, bounds in zip(report.results, summary.bounds, strict=True)
    ]
    content = {
        "kind": _KIND,
        "schema": SCHEMA,
        "created": report.created,
        "seconds": report.seconds,
        "settings": dict(report.settings),
        "versions": dict(report.versions),
        "encoders": [dict(one) for one in report.encoders],
        "datasets": list(dict.fromkeys(result.dataset for result in report.results)),
        _RESULTS: results,
        "comparisons": comparison_content(summary.comparisons),
        "notes": list(report.notes),
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def comparison_content(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons as values for JSON."""
    rows = [
        {
            **{name: value for name, value in asdict(one).items() if name != "differences"},
            "differences": [
                {**asdict(found), "difference": found.difference, "noise": found.noise} for found in one.differences
            ],
        }
        for one in comparisons
    ]
    plain: list[dict[str, Any]] = _plain(rows)
    return plain


def is_report(folder: Path) -> bool:
    """Whether a folder has a report, damaged or not."""
    return (folder / _JSON).is_file()


def read_report(folder: str | Path) -> Report:
    """Read a report with its values per item, also one that the first versions wrote.

    Raises:
        DataError: the folder has no report, or a damaged one.
    """
    folder = Path(folder).expanduser()
    path = folder / _JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no report: 'impart eval ... --out {folder}' writes one") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Run the evaluation again") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise DataError(f"{path} is not a report of 'impart eval'")
    if content.get("schema") != SCHEMA:
        raise DataError(
            f"{path} has schema {content.get('schema')}, this version reads {SCHEMA}: run the evaluation again"
        )
    key, file = (_OLD_RESULTS, _OLD_ARRAYS) if _OLD_RESULTS in content else (_RESULTS, _ARRAYS)
    try:
        with np.load(folder / file, allow_pickle=False) as arrays:
            entries = [_renewed(one) for one in content[key]] if key == _OLD_RESULTS else content[key]
            results = tuple(_result(one, arrays, number) for number, one in enumerate(entries))
        return Report(
            results=results,
            settings=content["settings"],
            encoders=tuple(content["encoders"]),
            notes=tuple(content["notes"]),
            seconds=float(content["seconds"]),
            created=content["created"],
            versions=content["versions"],
        )
    except (OSError, KeyError, TypeError, ValueError, AssertionError, zipfile.BadZipFile) as error:
        raise DataError(f"the report {folder} is damaged ({error}): run the evaluation again") from error


def _draw(
    folder: Path, results: Sequence[Result], summary: Summary, more: Sequence[Callable[[Path], Path]]
) -> tuple[list[Path], str]:
    from impart.evaluate.report.plots import draw

    for stale in folder.glob("*.png"):
        stale.unlink()
    try:
        drawn = draw(folder, results, summary.bounds)
        return [*(one(folder) for one in more), *drawn], ""
    except MissingExtraError as error:
        return [], f"no plots: {error}"


def _plain(value: Any) -> Any:
    """Convert a value for JSON: NumPy numbers to numbers, NaN and infinities to null, other objects to text."""
    match value:
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(one) for one in value]
        case np.ndarray():
            return _plain(value.tolist())
        case np.generic():
            return _plain(value.item())
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _text(report: Report, summary: Summary, tables: Sequence[Table], plots: Sequence[str]) -> str:
    command = report.settings.get("command")
    parts = [
        "# Evaluation",
        f"{report.created}, {report.seconds:g} s" + (f", `{command}`" if command else ""),
    ]
    parts += [markdown(table) for table in (*tables, *summary.tables)]
    parts.append(legend(compared=bool(summary.comparisons)))
    parts += [f"![{Path(name).stem}]({_PLOTS}/{name})" for name in plots]
    if report.encoders:
        parts += ["## Encoders", "\n".join(dict.fromkeys(f"- {_encoder_line(one)}" for one in report.encoders))]
    if notes := report.all_notes:
        more = [f"- and {len(notes) - _NOTES_SHOWN} more: see {_JSON}"] if len(notes) > _NOTES_SHOWN else []
        parts += ["## Notes", "\n".join([*(f"- {note}" for note in notes[:_NOTES_SHOWN]), *more])]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts += ["## Made with", versions, "```json\n" + json.dumps(_plain(report.settings), indent=1) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _encoder_line(one: Mapping[str, Any]) -> str:
    line = f"**{one['label']}**: {one['encoder']} ({str(one['encoder_fingerprint'])[:12]})"
    if references := one.get("references"):
        line += f", reference set {references['name'] or 'unnamed'!r} ({str(references['fingerprint'])[:12]}, "
        line += f"{references['pairs']:,} pairs)"
    if augmentation := one.get("augmentation"):
        line += ", " + ", ".join(f"{name} {value}" for name, value in augmentation.items())
    return line


def _pack(results: Sequence[Result]) -> dict[str, npt.NDArray[Any]]:
    """Name all arrays; a list of item keys that several results share is stored once."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    known: dict[tuple[str, ...], int] = {}
    for number, result in enumerate(results):
        listed = known.setdefault(result.items, len(known))
        arrays[f"items/{listed}"] = np.frombuffer("\0".join(result.items).encode(), dtype=np.uint8)
        arrays[f"{number}/items"] = np.array([listed, len(result.items)], dtype=np.int64)
        if result.clusters is not None:
            arrays[f"{number}/clusters"] = result.clusters
        for kind in ("per_item", "resampled", "arrays"):
            for name, values in getattr(result, kind).items():
                arrays[f"{number}/{kind}/{name}"] = np.asarray(values)
    return arrays


def _renewed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of version 0.1.0 with the present names of counts and settings, so that both compare."""
    counts = {_OLD_COUNTS.get(name, name): value for name, value in content["counts"].items()}
    settings = {_OLD_SETTINGS.get(name, name): value for name, value in content["settings"].items()}
    frames = settings.get("frames")
    if isinstance(frames, str) and frames.startswith(_OLD_FRAMES):
        given = dict(re.findall(r"(\w+)='?([\w.]+)'?", frames.removeprefix(_OLD_FRAMES)))
        known = {"fps": "4.0", "reuse_threshold": "2.0", "fit": "squash"} | given  # its defaults
        names = ("fps", "reuse_threshold", "fit", "short_side_px")
        settings["frames"] = ", ".join(f"{name} {known[name]}" for name in names if name in known)
    return {**content, "counts": counts, "settings": settings}


def _result(content: Mapping[str, Any], arrays: Any, number: int) -> Result:
    def of(kind: str) -> dict[str, npt.NDArray[Any]]:
        start = f"{number}/{kind}/"
        return {name.removeprefix(start): arrays[name] for name in arrays.files if name.startswith(start)}

    listed, count = arrays[f"{number}/items"].tolist()
    items = tuple(arrays[f"items/{listed}"].tobytes().decode().split("\0")) if count else ()
    values = {name: one["value"] for name, one in content["figures"].items()}
    return Result(
        task=content["task"],
        dataset=content["dataset"],
        encoder=content["encoder"],
        figures={name: math.nan if value is None else float(value) for name, value in values.items()},
        items=items,
        per_item=of("per_item"),
        clusters=arrays[f"{number}/clusters"] if f"{number}/clusters" in arrays.files else None,
        resampled=of("resampled"),
        lower_is_better=frozenset(content["lower_is_better"]),
        counts=content["counts"],
        settings=content["settings"],
        notes=tuple(content["notes"]),
        arrays=of("arrays"),
        labels=tuple(content["labels"]),
    )


def _savez(file: BinaryIO, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
