"""Damage every file of a small index in turn, use it, check it and repair it.

    python benchmarks/damage.py [--kinds deleted,zeroed,cut,bit] [--seeds 1] [--only TEXT] [--every N]

The index has clips, photos, a reference set, names, crops, faces, a cache and rows that were deleted. For each file and
kind of damage: commands must end with an answer or an error that is no traceback; `impart doctor` must name the file;
`impart doctor --repair` must end with an index in which a search finds every video, and which a second check finds
whole. What only a person can give again (names, faces) may be left to do. Needs the folder `tests`.

    python benchmarks/damage.py --speed [--segments 100000] [--films DIR]

measures the check (GB/s), and what the checksums cost a run that indexes.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
COMMANDS = (
    ["search", "red"],
    ["stats", "--videos", "--failures"],
    ["names", "list"],
    ["names", "find", "sunset"],
    ["scenes", "red.mp4"],
    ["duplicates"],
    ["similar", "red.mp4@0"],
    ["doctor"],
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="deleted,zeroed,cut,bit")
    parser.add_argument("--seeds", type=int, default=1, help="bits changed per file")
    parser.add_argument("--only", default="", help="files whose path contains this")
    parser.add_argument("--every", type=int, default=1, help="take every n-th case")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--films", type=Path, help="with --speed: also index this folder")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.speed:
        speed(given.segments, given.films)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(1 if damage_all(Path(folder), given) else 0)


def damage_all(folder: Path, given: argparse.Namespace) -> int:
    """Damage each file in each way. Returns the number of failures."""
    from helpers.damage import Library, files_of_index, make_library  # type: ignore[import-not-found]
    from impart.video.index.doctor.check import check_index

    made = make_library(folder / "made")
    assert check_index(made.index).whole
    cases = [
        (file, kind, seed)
        for file in files_of_index(made.index)
        for kind in given.kinds.split(",")
        for seed in range(given.seeds if kind == "bit" else 1)
        if given.only in file
    ][:: given.every]
    counts: collections.Counter[str] = collections.Counter()
    for number, (file, kind, seed) in enumerate(cases, 1):
        began = time.monotonic()
        library = Library(folder / "case" / "library.impart", made.films)
        problems = one_case(made, library, file, kind, seed)
        counts.update(problems or ["good"])
        if problems:
            counts["failed"] += 1
        print(
            f"{number}/{len(cases)} {kind} {file}: {', '.join(problems) or 'good'} ({time.monotonic() - began:.1f} s)"
        )
    print(dict(counts))
    return counts["failed"]


def one_case(made, library, file, kind, seed) -> list[str]:  # type: ignore[no-untyped-def]
    """Damage a file of a copy of an index. Returns what went wrong."""
    from typer.testing import CliRunner

    from helpers.damage import damage, found_videos, may_be_deleted
    from impart.video.index.index import VideoIndex

    def fresh() -> None:
        shutil.rmtree(library.index.parent, ignore_errors=True)
        shutil.copytree(made.index, library.index)
        damage(library.index / file, kind, seed=seed)

    def run(*arguments: str):  # type: ignore[no-untyped-def]
        from impart.cli.main import app
        from impart.errors import ImpartError

        result = CliRunner().invoke(app, [*arguments, "--index", str(library.index)])
        error = result.exception
        if error is not None and not isinstance(error, SystemExit | ImpartError):
            problems.append(f"{arguments[0]} raised {type(error).__name__}: {error}")
        return result

    problems: list[str] = []
    fresh()
    for command in COMMANDS:
        result = run(*command)
    if str(library.index / file) not in result.output and not (kind == "deleted" and may_be_deleted(made.index, file)):
        problems.append("not named")
    fresh()
    run("index", str(library.films))
    fresh()
    repaired = run("doctor", "--repair")
    left = [line for line in repaired.output.splitlines() if line.startswith("left ")]
    by_hand = file.startswith(("names/", "faces/", "crops/", "references/"))
    if left and not by_hand:
        problems.append(f"left to do: {left}")
    if by_hand and left and file.startswith("references/"):
        from helpers.colour_references import colour_set  # type: ignore[import-not-found]
        from impart.config import VanillaSettings

        VideoIndex.open(library.index).use_references(colour_set(), VanillaSettings(k=3))
        run("doctor", "--repair")
    names = found_videos(VideoIndex.open(library.index))
    if names != library.names:
        problems.append(f"found {names}")
    again = run("doctor")
    if again.exit_code != 0:
        problems.append(f"not whole after the repair: {again.output}")
    return problems


def speed(segments: int, films: Path | None) -> None:
    """Measure the check, and what the checksums cost a run."""
    from impart.config import Settings
    from impart.video.index.doctor import checksums
    from impart.video.index.doctor.check import check_index
    from impart.video.index.index import VideoIndex
    from refset_use import RandomEncoder, fill

    spent = [0.0]
    for name in ("__init__", "record"):
        timed = _timed(getattr(checksums.Recorder, name), spent)  # type: ignore[no-untyped-call]
        setattr(checksums.Recorder, name, timed)
    with tempfile.TemporaryDirectory() as folder:
        index = VideoIndex.open(Path(folder) / "index", RandomEncoder(640), settings=Settings())
        list(index.add([]))
        spent[0], began = 0.0, time.perf_counter()
        fill(index, segments)
        wall_s = time.perf_counter() - began
        print(f"writing {segments} segments, nothing decoded: {wall_s:.1f} s, checksums {spent[0]:.2f} s of it")
        for what in ("with checksums", "without"):
            if what == "without":
                (index.path / checksums.CHECKSUMS).unlink()
            report = check_index(index.path)
            rate = report.size_bytes / 1e9 / report.elapsed_s
            print(f"check {what}: {report.size_bytes / 1e6:.0f} MB, {report.elapsed_s:.2f} s, {rate:.2f} GB/s")
        if films is not None:
            index = VideoIndex.open(Path(folder) / "films")
            spent[0], began = 0.0, time.perf_counter()
            list(index.add([films]))
            wall_s = time.perf_counter() - began
            share = f"{spent[0]:.3f} s ({spent[0] / wall_s:.2%})"
            print(f"indexing {len(index.videos())} files: {wall_s:.1f} s, checksums {share}")


def _timed(function, spent):  # type: ignore[no-untyped-def]
    def call(*arguments, **keywords):  # type: ignore[no-untyped-def]
        began = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            spent[0] += time.perf_counter() - began

    return call


if __name__ == "__main__":
    main()
