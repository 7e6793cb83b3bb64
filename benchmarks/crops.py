"""Measure what crops (`impart index --crops`) give to taught names, and what they cost.

    python benchmarks/crops.py --data ../shared/data --out FILE

**Small things**: objects on a white ground (flashpics, ikea, fashion_products) are cut out and pasted into photos of
Flickr8k at 15 to 25% of the side. Each photo is a clip of half a second with a small movement. A thing is taught by
three images in which it is large, on other photos, and looked for in all clips.

**Films**: clips of `videos/panda` joined to a film, each taught by three of its frames, as in `names.py`.
"""

from __future__ import annotations

import argparse
import csv
import resource
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from films import clip_films, write_film
from impart.evaluate import open_set
from impart.video.crops.store import CropStore
from impart.video.index.index import VideoIndex
from names import average_precision, measure

THINGS, CLIPS_EACH, CLIPS_WITHOUT, IMAGES_EACH = 24, 2, 48, 3
SMALL, LARGE = (0.15, 0.25), (0.5, 0.8)
SIDE_PX, STEP_PX = 480, 10
SEED = 11


@dataclass(frozen=True)
class Figures:
    """Figures of one index, without or with crops."""

    ap: float
    found: str
    false: str


def cpu_s() -> float:
    """CPU seconds of this process and of its decoders."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(events: Iterable[object]) -> float:
    """CPU seconds of a run."""
    began = cpu_s()
    for _ in events:
        pass
    return cpu_s() - began


def things(data: Path, rng: np.random.Generator) -> list[Image.Image]:
    """Cut out objects whose image has a white ground, RGBA."""
    found = []
    for name in ("flashpics", "ikea", "fashion_products"):
        files = sorted((data / "images" / "more" / name / "images").iterdir())
        taken = 0
        for number in rng.permutation(len(files)):
            image = Image.open(files[number]).convert("RGB")
            pixels = np.asarray(image)
            mask = Image.fromarray(((pixels.min(2) < 238) * 255).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
            share = float((np.asarray(mask) > 0).mean())
            if (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] < 235).any() or not 0.15 < share < 0.8:
                continue
            image.putalpha(mask)
            found.append(image.crop(mask.getbbox()))
            taken += 1
            if taken == THINGS // 3:
                break
    return found


def pasted(photo: Path, thing: Image.Image | None, sides: tuple[float, float], rng: np.random.Generator) -> Image.Image:
    """Paste a thing anywhere into the square of a photo, its long side a share of the photo's."""
    ground = Image.open(photo).convert("RGB").resize((SIDE_PX, SIDE_PX))
    if thing is not None:
        scale = rng.uniform(*sides) * SIDE_PX / max(thing.size)
        small = thing.resize((max(1, round(thing.width * scale)), max(1, round(thing.height * scale))))
        left, top = (int(rng.uniform(STEP_PX, SIDE_PX - STEP_PX - side)) for side in small.size)
        ground.paste(small, (left, top), small)
    return ground


def write_clips(data: Path, folder: Path) -> tuple[dict[Path, int], list[list[npt.NDArray[np.uint8]]]]:
    """Write the clips. Returns the number of the thing in each, -1 = none, and the images that teach each thing."""
    rng = np.random.default_rng(SEED)
    objects = things(data, rng)
    flickr = data / "images" / "flickr8k"
    rows = csv.DictReader((flickr / "captions.csv").open(encoding="utf-8"))
    photos = iter(rng.permutation(sorted({row["file"] for row in rows if row["split"] == "val"})).tolist())
    folder.mkdir()
    shown: dict[Path, int] = {}
    for number, thing in enumerate(
        [*(number for number in range(len(objects)) for _ in range(CLIPS_EACH)), *[-1] * CLIPS_WITHOUT]
    ):
        image = pasted(flickr / "images" / next(photos), objects[thing] if thing >= 0 else None, SMALL, rng)
        frames = [
            np.asarray(image.crop((step, step, SIDE_PX - STEP_PX + step, SIDE_PX - STEP_PX + step)))
            for step in (0, STEP_PX)
        ]
        path = folder / f"{number:03}.mp4"
        write_film(path, [frames], fps=4)
        shown[path] = thing
    taught = [
        [np.asarray(pasted(flickr / "images" / next(photos), one, LARGE, rng)) for _ in range(IMAGES_EACH)]
        for one in objects
    ]
    return shown, taught


def small_things(index: VideoIndex, shown: dict[Path, int], names: int) -> Figures:
    """Look for all things in all clips."""
    prepared = index.names.prepared()
    snapshot = prepared.snapshot
    thing = np.array([shown[snapshot.paths[number]] for number in snapshot.video_of])
    weight = snapshot.end_s - snapshot.start_s
    aps, right, wrong = [], 0, 0
    for number in range(names):
        name = f"thing {number}"
        aps.append(average_precision(prepared.presence(name), thing == number, weight))
        paths = {hit.path for hit in index.find(name)}
        right += sum(shown[path] == number for path in paths)
        wrong += sum(shown[path] != number for path in paths)
    clips = sum(number >= 0 for number in shown.values())
    return Figures(float(np.mean(aps)), f"{right} of {clips}", f"{wrong} of {len(shown) * names - clips}")


def small_part(data: Path, scratch: Path) -> list[str]:
    shown, taught = write_clips(data, scratch / "clips")
    index = VideoIndex.open(scratch / "small.impart")
    timed(index.add(list(shown)))
    for number, images in enumerate(taught):
        index.names.add(f"thing {number}", images)
    lines = [
        "| small things | AP | clips found | clips found wrongly |",
        "| --- | ---: | ---: | ---: |",
    ]
    for label in ("whole frames", "and crops"):
        if label == "and crops":
            timed(index.add_crops())
        found = small_things(index, shown, len(taught))
        lines.append(f"| {label} | {found.ap:.3f} | {found.found} | {found.false} |")
        print(lines[-1], flush=True)
    return lines


def film_part(data: Path, scratch: Path, films: int) -> list[str]:
    panda = data / "videos" / "panda"
    dataset = open_set(panda / "captions.csv", kind="videos")
    clips = {
        caption: panda / dataset.videos[owner].name
        for caption, owner in zip(dataset.captions, dataset.owners, strict=True)
    }
    made = clip_films(panda, scratch / "films", films=films, dissolve_s=0.0, seed=SEED)
    index = VideoIndex.open(scratch / "films.impart")
    plain_s = timed(index.add(made.paths))
    lines = ["| films, by 3 frames | AP | precision | recall |", "| --- | ---: | ---: | ---: |"]
    crops_s = 0.0
    for label in ("whole frames", "and crops"):
        if label == "and crops":
            crops_s = timed(index.add_crops())
        found = [measure(index, told, clips[told.sentence], clips[told.sentence], "3 images") for told in made.told]
        precision = sum(one.right_s for one in found) / max(sum(one.found_s for one in found), 1e-9)
        recall = sum(one.right_s for one in found) / sum(one.shown_s for one in found)
        lines.append(f"| {label} | {np.mean([one.ap for one in found]):.3f} | {precision:.3f} | {recall:.3f} |")
        print(lines[-1], flush=True)
    numbers = index.stats()
    size = CropStore(index.path).size_bytes() / numbers.video_s * 3600 / 1e6
    cost = (
        f"CPU time of `--crops` on {numbers.video_s:.0f} s of film: {crops_s / plain_s:.1f} times that of the index "
        f"itself. Size: {size:.0f} MB per hour of video."
    )
    return [*lines, "", cost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--films", type=int, default=1, help="films of 20 clips")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        lines = [*small_part(options.data, scratch), "", *film_part(options.data, scratch, options.films)]
    note = (
        f"Encoder `mini`. {THINGS} things in {THINGS * CLIPS_EACH + CLIPS_WITHOUT} clips of two frames, "
        f"{CLIPS_WITHOUT} of them without any; {options.films * 20} clips of panda joined to films."
    )
    text = "\n".join([note, "", *lines, ""])
    print("\n" + text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
