"""`impart doctor`: check the files of an index or of a reference set, and repair them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from impart.cli.options import DEFAULT_INDEX, EncoderOption, IndexOption, NiceOption, index_place, load
from impart.cli.output import print_json
from impart.cli.video.index import show_run
from impart.errors import ConfigError
from impart.files import lower_priority

if TYPE_CHECKING:
    from impart.video.index.doctor.doctor import Repaired
    from impart.video.index.doctor.report import CheckReport
    from impart.video.index.events import Event

__all__ = ["doctor"]

_MOST_VIDEOS = 10
_NEEDS = {
    "nothing": "nothing in force is lost",
    "index": "computed again from the index",
    "videos": "needs the video files",
    "person": "needs you",
}


def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="Check this index, or this reference set, in a local folder. Default: that of --index.",
            parser=index_place,
        ),
    ] = None,
    index_dir: IndexOption = DEFAULT_INDEX,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Keep what is whole, compute again what can be, and index lost videos again."),
    ] = False,
    no_index: Annotated[
        bool, typer.Option("--no-index", help="With --repair, leave the lost videos to the next impart index.")
    ] = False,
    encoder: EncoderOption = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", "-f", help="Print in this format.")] = "table",
    nice: NiceOption = False,
) -> None:
    """Check every file of an index, and say what is damaged and what that costs. Nothing is changed without --repair.

    Files are compared with their checksums, which impart index keeps in the index. Those without one, as in an index of
    an older version, are read instead; where all is whole, their checksums are then kept.

    --repair goes back to the newest whole version of each table, and keeps every row of a whole file. Lost videos are
    indexed again where their files are there. Damaged files are moved to the folder damaged in the index, and deleted
    once all is whole. You may stop it at any moment: the same command continues.

    Exit codes: 0 all is whole, 3 damage was found (with --repair: something is left to do), 1 the check cannot be made.
    """
    from impart.refset.manifest import artefact_in
    from impart.video.index.remote.location import location_of

    place = folder if folder is not None else index_dir
    if location_of(place) is not None:
        raise ConfigError(
            f"impart doctor checks local folders only: {place} is on object storage, whose files have no checksums in "
            f"the index. impart stats --index {place} says whether the index can be read, and impart index PATH... "
            f"--index {place} adds the rows that videos lack"
        )
    if no_index and not repair:
        raise typer.BadParameter("--no-index needs --repair: a check indexes nothing")
    if nice:
        lower_priority()
    if folder is not None and (artefact_in(place) == "a reference set" or _has_pairs(place)):
        whole = _references(place, repair=repair, form=form)
    elif repair:
        whole = _repair(place, encoder, index=not no_index, form=form)
    else:
        whole = _check(place, form=form)
    if not whole:
        raise typer.Exit(3)


def _check(place: Path, *, form: str) -> bool:
    from impart.video.index.doctor.check import check_index

    report = check_index(place)
    _print_report(report, form)
    if not report.whole:
        print(f"next: impart doctor --repair -i {shlex.quote(str(place))}", file=sys.stderr)
    return report.whole


def _has_pairs(place: Path) -> bool:
    """Whether a folder without a readable manifest is a reference set: it has rows of one."""
    return place.is_dir() and not (place / "videos.lance").exists() and any(place.glob("pairs-*.arrow"))


def _references(place: Path, *, repair: bool, form: str) -> bool:
    from impart.video.index.doctor.check import check_references
    from impart.video.index.doctor.repair import repair_references

    report = check_references(place)
    if not repair or report.whole:
        _print_report(report, form)
        return report.whole
    restored = repair_references(place, report)
    report = check_references(place)
    if form == "json":
        print_json({"before": restored.before.as_dict(), "done": restored.done, "after": report.as_dict()}, indent=2)
    else:
        _print_lines(restored.done, restored.left)
        _print_report(report, form)
    return report.whole


def _repair(place: Path, encoder: str | None, *, index: bool, form: str) -> bool:
    from impart.video.index.doctor.doctor import FilesRestored, repair_index

    given = load(encoder, refset=None, augment=False, bundled=False) if encoder else None
    result: list[Repaired] = []

    def events() -> Generator[Event, None, None]:
        steps = repair_index(place, given, index=index)
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                result.append(end.value)
                return
            if not isinstance(event, FilesRestored):
                yield event
            elif form == "table":
                _print_report(event.restored.before, form)
                _print_lines(event.restored.done, ())

    show_run(events(), place, summary=form == "table")
    (repaired,) = result
    whole = repaired.after.whole and not repaired.left
    if form == "json":
        print_json(_as_dict(repaired), indent=2)
        return whole
    if repaired.restored.before.whole:
        return whole
    _print_lines((), repaired.left)
    if repaired.aside is not None:
        print(f"damaged files are kept in {repaired.aside}; delete it when you need them no more", file=sys.stderr)
    _print_report(repaired.after, form)
    return whole


def _as_dict(repaired: Repaired) -> dict[str, Any]:
    return {
        "whole": repaired.after.whole and not repaired.left,
        "before": repaired.restored.before.as_dict(),
        "done": repaired.restored.done,
        "left": repaired.left,
        "aside": repaired.aside,
        "after": repaired.after.as_dict(),
    }


def _print_lines(done: tuple[str, ...], left: tuple[str, ...]) -> None:
    for line in done:
        print(f"repaired {line}")
    for line in left:
        print(f"left     {line}")


def _print_report(report: CheckReport, form: str) -> None:
    if form == "json":
        print_json(report.as_dict(), indent=2)
        return
    for damage in report.damage:
        rows = f", {damage.rows} rows" if damage.rows else ""
        print(f"damaged  {damage.file}: {damage.wrong}{rows} ({_NEEDS[damage.needs]})")
        if damage.remedy:
            print(f"         {damage.remedy}")
    _print_videos(report.lacking, "lack rows")
    if report.lost_records:
        unknown = report.lost_records - len(report.lost_paths)
        _print_videos(report.lost_paths, "are lost")
        if unknown:
            print(f"videos   {unknown} are lost whose paths are not known")
    if not report.whole:
        for table, versions in report.versions.items():
            print(f"versions {table}: {', '.join(map(str, versions)) or 'none'} whole")
    amount = f"{report.files:,} files, {report.size_bytes / 1e6:,.1f} MB, {report.elapsed_s:.1f} s"
    amount += f"; {report.not_recorded:,} had no checksum and were read" if report.not_recorded else ""
    print(f"{report.folder}: {'whole' if report.whole else 'damaged'} ({amount})")


def _print_videos(paths: tuple[Path, ...], what: str) -> None:
    if paths:
        print(f"videos   {len(paths)} {what}:")
        for path in paths[:_MOST_VIDEOS]:
            print(f"         {path}")
        if len(paths) > _MOST_VIDEOS:
            print(f"         and {len(paths) - _MOST_VIDEOS} more (--format json names them all)")
