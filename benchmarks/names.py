"""Measure taught names: presence in films by one, two, three and thirty images, and with one wrong image among four.

    python benchmarks/names.py --data ../shared/data --out FILE

The clips of `videos/panda` are joined in random order into films of twenty. Each clip that is in a film is taught as a
name by frames of the clip itself, and looked for in all films: with hard cuts, and with dissolves of one second. The
truth of a segment is whether most of it lies between the joins of the clip.

- AP: average precision of the segments by presence, each counted with its length; the mean over all names.
- precision, recall: of the seconds in the spans that `impart names find` returns.
- "first third": three frames of the first third of a clip; only the rest of the clip counts, in place of all of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from films import Films, Told, clip_films
from impart.evaluate import open_set
from impart.video.decode.sampler import sampled_frames
from impart.video.index.index import VideoIndex

SETS = ("1 image", "2 images", "3 images", "30 images", "3 and 1 wrong", "3 of the first third")
FEW_SETS = ("1 image", "3 images")
"""Of the films with dissolves."""
FILMS = 3
SEED = 7


@dataclass(frozen=True)
class Measured:
    """Figures of one name."""

    ap: float
    found_s: float
    right_s: float
    shown_s: float


@cache
def frames_of(clip: Path) -> list[npt.NDArray[np.uint8]]:
    """Decode eight frames per second of a clip."""
    frames = sampled_frames(clip, short_side_px=256, fps=8, reuse_threshold=0, fit="crop")
    return [image for _, _, image in frames]


def images_of(clip: Path, label: str) -> list[npt.NDArray[np.uint8]]:
    """Choose evenly spaced frames of a clip, or of its first third."""
    frames = frames_of(clip)
    if label == "3 of the first third":
        frames = frames[: len(frames) // 3]
    count = min({"1 image": 1, "2 images": 2, "30 images": 30}.get(label, 3), len(frames))
    return [frames[int((i + 0.5) * len(frames) / count)] for i in range(count)]


def average_precision(scores: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], weight: np.ndarray) -> float:
    """Compute the average precision of n segments with weights.

    >>> average_precision(np.array([3, 2, 1]), np.array([True, False, True]), np.array([1, 1, 2]))
    0.8333333333333334
    """
    order = np.argsort(-scores, kind="stable")
    gained = np.cumsum((weight * right)[order])
    precision = gained / np.cumsum(weight[order])
    return float(np.average(precision[right[order]], weights=weight[order][right[order]]))


def measure(index: VideoIndex, told: Told, clip: Path, wrong: Path, label: str) -> Measured:
    """Teach a clip as a name, look for it, and remove it."""
    length_s = told.end_s - told.start_s
    images = images_of(clip, label)
    if label == "3 and 1 wrong":
        images.append(frames_of(wrong)[len(frames_of(wrong)) // 2])
    name = clip.stem
    index.names.add(name, images)
    prepared = index.names.prepared()
    snapshot = prepared.snapshot
    begin_s = told.start_s + (length_s / 3 if label == "3 of the first third" else 0)
    shown = np.array([snapshot.paths[number] == told.film for number in snapshot.video_of])
    middle_s = (snapshot.start_s + snapshot.end_s) / 2
    within = shown & (middle_s >= told.start_s) & (middle_s < told.end_s)
    right = within & (middle_s >= begin_s)
    counted = right | ~within
    weight = (snapshot.end_s - snapshot.start_s)[counted]
    ap = average_precision(prepared.presence(name)[counted], right[counted], weight)
    found_s = right_s = 0.0
    for hit in index.find(name):
        found_s += hit.length_s
        if hit.path == told.film:
            right_s += max(0.0, min(hit.end_s, told.end_s) - max(hit.start_s, told.start_s))
    index.names.remove(name)
    return Measured(ap, found_s, right_s, length_s)


def rows(index: VideoIndex, films: Films, clips: dict[str, Path], kind: str, sets: Sequence[str]) -> list[str]:
    """Measure sets of images on films; return lines of the table."""
    rng = np.random.default_rng(SEED)
    names = [told.sentence for told in films.told]
    lines = []
    for label in sets:
        began = time.monotonic()
        wrong = [clips[names[(i + 1 + rng.integers(len(names) - 1)) % len(names)]] for i in range(len(names))]
        found = [
            measure(index, told, clips[told.sentence], other, label)
            for told, other in zip(films.told, wrong, strict=True)
        ]
        lines.append(line_of(kind, label, found))
        print(f"{lines[-1]}  {time.monotonic() - began:.0f} s", flush=True)
    return lines


def line_of(kind: str, label: str, found: Sequence[Measured]) -> str:
    aps = np.array([one.ap for one in found])
    precision = sum(one.right_s for one in found) / max(sum(one.found_s for one in found), 1e-9)
    recall = sum(one.right_s for one in found) / sum(one.shown_s for one in found)
    return (
        f"| {kind} | {label} | {aps.mean():.3f} | {(aps >= 0.9).sum()} of {len(aps)} | {precision:.3f} | {recall:.3f} |"
    )


def presence_table(data: Path, scratch: Path) -> list[str]:
    """Measure presence in films with hard cuts and with dissolves."""
    panda = data / "videos" / "panda"
    dataset = open_set(panda / "captions.csv", kind="videos")
    clips = {
        caption: panda / dataset.videos[owner].name
        for caption, owner in zip(dataset.captions, dataset.owners, strict=True)
    }
    lines = [
        "| films | taught by | AP | names with AP >= 0.9 | precision | recall |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, dissolve_s, sets in (("hard cuts", 0.0, SETS), ("dissolves of 1 s", 1.0, FEW_SETS)):
        films = clip_films(panda, scratch / kind, films=FILMS, dissolve_s=dissolve_s, seed=SEED)
        index = VideoIndex.open(scratch / f"{kind}.impart")
        for _ in index.add(films.paths):
            pass
        lines += rows(index, films, clips, kind, sets)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--keep", type=Path, help="folder to keep films and indexes in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lines = presence_table(options.data, options.keep or Path(scratch))
    notes = (
        f"Encoder `mini`, {FILMS} films of 20 clips of panda each, {FILMS * 20} names, taught one at a time by frames "
        "of their clip. Constants were chosen on photographs; these figures were in view before the last of them was "
        "set."
    )
    text = "\n".join([notes, "", *lines, ""])
    print("\n" + text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
