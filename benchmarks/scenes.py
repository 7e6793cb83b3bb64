"""Measure cuts, dissolves and fades: precision and recall, beside the detectors of PySceneDetect.

    python benchmarks/scenes.py --data DATA [--out FILE] [--model mini] [--scale 0.6]

PySceneDetect is no dependency of the project: pip install scenedetect==0.7.2 opencv-python-headless. Its detectors run
with min_scene_len=1, since at its default of 0.6 s none of them finds a shot of 8 frames.

- **Photos**: films of shots with camera movement over photographs that are not evaluation data (`scene_films.py`), of
  24, 25, 29.97 and 60 frames per second and of a variable rate. The constants of `impart.video.scenes` were chosen on
  such films with other photographs and another seed.
- **Clips**: the clips of `videos/panda`, joined. The least ratio of a step to the movement around it was introduced
  after false cuts were seen on them; its value is from the photos. They contain cuts of their own, found by eye among
  all changes that IMPART or one of three detectors of PySceneDetect report; changes that could not be decided count for
  nobody (`UNCLEAR`). Dissolves and fades join clips that are a single shot.

A hard cut counts as found within one frame (within 0.1 s inside a clip), a dissolve or fade within 0.5 s of its middle.
What is found counts for one transition. What is left over is false.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from impart import load_encoder
from impart.encoders.base import Encoder
from impart.video.scenes.files import scenes_of_files
from scene_films import LENGTHS_S, ClipShot, Film, Transition, join, photo_film, photos

SOFT_S = 0.5
INSIDE_S = 0.1
CLIP_CUTS = {
    "mPRA4vBnxx0.12.mp4": (1.0, 2.4),
    "6fHASeSrH8w.43.mp4": (1.18,),
    "AvVDsFBc6bA.0.mp4": (0.33, 1.17, 1.65, 2.05, 2.69, 3.21, 3.73, 4.37),
    "YYPLi7kGUdU.12.mp4": (0.7, 2.74),
    "TPVvXvf4xRc.9.mp4": (6.61,),
    "ejFT0e4YP0s.15.mp4": (1.75,),
    "a3B-hWLnsTM.7.mp4": (0.94, 2.94, 5.54),
    "2jKXlH_ceCo.11.mp4": (2.66,),
}
"""Cuts inside clips, by eye, seconds."""
UNCLEAR = {
    "Idu_-Ar4C5E.17.mp4": (2.96,),  # a lamp is switched on
    "COLGm4vIVuQ.9.mp4": (6.43, 6.63, 6.83, 7.12, 7.62),  # the tiles of a map on a screen
    "Kb8ON0iCs38.97.mp4": (7.44,),  # similar images of a rocket
    "3blNgn1nul0.0.mp4": (4.67, 4.92),  # a slow dissolve
}


@dataclass(frozen=True)
class Group:
    """Films of one sort. `ignored`: times per film that count neither as found nor as false."""

    name: str
    films: tuple[Film, ...]
    ignored: tuple[tuple[float, ...], ...] = ()


@dataclass
class Count:
    """Transitions found, of all, and boundaries reported that are none."""

    right: int = 0
    of: int = 0
    false: int = 0

    def text(self) -> str:
        recall, reported = self.right / max(self.of, 1), self.right + self.false
        return f"{self.right / max(reported, 1):.3f} / {recall:.3f}"


Finder = Callable[[Film], Sequence[float]]


def rendered(data: Path, folder: Path, *, scale: float) -> Iterator[Group]:
    """Render films of photographs."""
    rng = np.random.default_rng(20_000)
    count = max(4, round(15 * scale))
    sorts: list[tuple[str, tuple[str, ...], tuple[float, ...], bool]] = [
        ("photos, hard cuts", ("cut",), (24, 25, 30_000 / 1001, 60, 0), False),
        ("photos, a third of the shots of 8 frames", ("cut",), (24, 25, 30_000 / 1001), True),
        ("photos, dissolves, fades and cuts", ("dissolve", "fade", "dissolve", "cut"), (24, 25, 29.97, 60, 0), False),
    ]
    for name, kinds, rates, short in sorts:
        films = []
        for fps in rates:
            path = folder / f"{len(name)}-{fps:.0f}.mp4"
            seed = int(rng.integers(1_000_000))
            films.append(photo_film(path, photos(data, count, rng), kinds=kinds, fps=fps, seed=seed, short=short))
        yield Group(name, tuple(films))


def joined(data: Path, folder: Path, *, scale: float) -> Iterator[Group]:
    """Join clips, by hard cuts and by dissolves and fades."""
    clips = sorted((data / "videos" / "panda").rglob("*.mp4"))
    rng = np.random.default_rng(30_000)
    order = [clips[i] for i in rng.permutation(len(clips))][: max(6, round(len(clips) * scale))]
    films, ignored = [], []
    for number in range(0, len(order), 11):
        chosen = order[number : number + 11]
        shots = [ClipShot(path) for path in chosen]
        path = folder / f"hard-{number}.mp4"
        film = join(
            path, shots, [("cut", 0.0)] * (len(shots) - 1), fps=25 if number % 2 else 30_000 / 1001, seed=number
        )
        starts = np.concatenate([[0.0], np.cumsum([shot.seconds for shot in shots])])
        inside = [
            Transition("inside", start + at_s, 0.0)
            for start, clip in zip(starts, chosen, strict=False)
            for at_s in CLIP_CUTS.get(clip.name, ())
        ]
        films.append(replace(film, transitions=(*film.transitions, *inside)))
        pairs = zip(starts, chosen, strict=False)
        ignored.append(tuple(float(start) + at_s for start, clip in pairs for at_s in UNCLEAR.get(clip.name, ())))
    yield Group("clips, hard cuts", tuple(films), tuple(ignored))
    films = []
    single = [path for path in order if path.name not in CLIP_CUTS and path.name not in UNCLEAR]
    long = [(path, shot) for path, shot in ((path, ClipShot(path)) for path in single) if shot.seconds >= 4.5]
    for number in range(0, len(long) - 1, 9):
        shots = [shot for _, shot in long[number : number + 9]]
        kinds = [(str(rng.choice(["dissolve", "dissolve", "fade"])), float(rng.choice(LENGTHS_S))) for _ in shots[1:]]
        films.append(join(folder / f"soft-{number}.mp4", shots, kinds, fps=25, seed=number))
    yield Group("clips, dissolves and fades", tuple(films))


def count(film: Film, found: Sequence[float], ignored: Sequence[float], counts: dict[str, Count]) -> None:
    """Match what was found in one film, and add to the counts of each kind of transition."""
    left = sorted(found)
    times = np.array(film.times_s)
    for one in film.transitions:
        key = one.kind if one.kind in ("cut", "inside") else f"{one.kind} {one.length_s:g} s"
        if one.kind == "cut":
            at = int(np.searchsorted(times, one.time_s - 1e-6))
            low, high = times[max(0, at - 1)] - 1e-3, times[min(len(times) - 1, at + 1)] + 1e-3
        else:
            reach_s = INSIDE_S if one.kind == "inside" else SOFT_S
            low, high = one.time_s - reach_s, one.time_s + reach_s
        near = [time_s for time_s in left if low <= time_s <= high]
        counts.setdefault(key, Count()).of += 1
        if near:
            left.remove(min(near, key=lambda time_s: abs(time_s - one.time_s)))
            counts[key].right += 1
    false = [time_s for time_s in left if all(abs(time_s - other) > SOFT_S for other in ignored)]
    counts.setdefault("false", Count()).false += len(false)


def impart_finder(encoder: Encoder) -> Finder:
    def find(film: Film) -> Sequence[float]:
        (found,) = scenes_of_files([film.path], encoder)
        return [scene.start_s for scene in found.scenes[1:]]

    return find


def other_finders() -> dict[str, Finder]:
    """Detectors of PySceneDetect."""
    try:
        import scenedetect
    except ImportError as error:
        raise SystemExit("pip install scenedetect==0.7.2 opencv-python-headless") from error

    def finder(make: Callable[[], object]) -> Finder:
        def find(film: Film) -> Sequence[float]:
            return [start.seconds for start, _ in scenedetect.detect(str(film.path), make())[1:]]

        return find

    kinds = ("Content", "Adaptive", "Histogram", "Hash", "Threshold")
    made = {kind: getattr(scenedetect, f"{kind}Detector") for kind in kinds}
    return {
        **{f"{kind}Detector": finder(partial(made[kind], min_scene_len=1)) for kind in kinds},
        "ContentDetector, default length": finder(made["Content"]),
    }


def report(groups: Sequence[Group], finders: dict[str, Finder]) -> str:
    """Run all finders over all films."""
    lines: list[str] = []
    for group in groups:
        results: dict[str, tuple[dict[str, Count], float]] = {}
        for name, find in finders.items():
            counts: dict[str, Count] = {}
            began = time.perf_counter()
            for number, film in enumerate(group.films):
                count(film, find(film), group.ignored[number] if group.ignored else (), counts)
            results[name] = counts, time.perf_counter() - began
        keys = [*dict.fromkeys(key for counts, _ in results.values() for key in sorted(counts) if key != "false")]
        totals = next(iter(results.values()))[0]
        length_s = sum(film.duration_s for film in group.films)
        lines += ["", f"**{group.name}**: {len(group.films)} films, {length_s:.0f} s.", ""]
        heads = [f"{key} (of {totals[key].of})" for key in keys]
        lines.append(f"| | precision / recall | false | {' | '.join(heads)} | s |")
        lines.append(f"| --- | --- | --- |{' --- |' * (len(heads) + 1)}")
        for name, (counts, wall_s) in results.items():
            right, of = sum(counts[key].right for key in keys), sum(counts[key].of for key in keys)
            total = Count(right, of, counts.get("false", Count()).false)
            cells = [str(counts[key].right) for key in keys]
            lines.append(f"| {name} | {total.text()} | {total.false} | {' | '.join(cells)} | {wall_s:.0f} |")
        print("\n".join(lines[-len(results) - 5 :]), flush=True)
    return "\n".join(lines).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--scale", type=float, default=0.6, help="share of the photographs and clips")
    arguments = parser.parse_args()
    finders = {"IMPART": impart_finder(load_encoder(arguments.model)), **other_finders()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        groups = [
            *rendered(arguments.data, folder, scale=arguments.scale),
            *joined(arguments.data, folder, scale=arguments.scale),
        ]
        text = report(groups, finders)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
