"""Measure text-to-video retrieval with the index: plain and Vanilla, by mean, by best moment and by best frame.

    python benchmarks/video_retrieval.py --data ../shared/data

The clips are indexed into --index, or into a temporary folder. Every caption of `videos/panda` is a query for its clip,
among the clips of panda and among all clips of the folder. The captions are searched one by one, and all in one search
(`--together`).
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from impart.evaluate import VideoSet, open_set
from impart.metrics.ranking import rank_figures
from impart.video.index.events import IndexDone
from impart.video.index.index import Query, VideoIndex


def ranks(index: VideoIndex, dataset: VideoSet, **settings: object) -> tuple[np.ndarray, int]:
    """Return the rank of the clip of each caption, and the number of clips."""
    glob = settings.get("path_glob")
    total = sum(glob is None or "/panda/" in Path(video.path).as_posix() for video in index.videos())
    queries = [Query(text=text) for text in dataset.captions]
    found = index.search_many(queries, top=total, spans=False, fold_copies=False, **settings)  # type: ignore[arg-type]
    own = [
        next((hit.rank for hit in hits if Path(hit.path).name == dataset.videos[owner].name), total + 1)
        for owner, hits in zip(dataset.owners, found, strict=True)
    ]
    return np.asarray(own), total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--index", type=Path, help="folder to keep the index in")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    dataset = open_set(options.data / "videos" / "panda" / "captions.csv", kind="videos")
    with tempfile.TemporaryDirectory() as scratch:
        index = VideoIndex.open(options.index or Path(scratch) / "videos.impart")
        for event in index.add([options.data / "videos"]):
            if isinstance(event, IndexDone):
                print(f"indexed {event.added}, unchanged {event.unchanged}, failed {event.failed}", flush=True)
        name = index.manifest.encoder_id
        lines = [
            f"Encoder `{name}`, {index.settings.decode.fps:g} frames per second, {len(dataset.captions)} captions, "
            "one relevant clip per caption.",
            "",
            "| among | form | video ranked by | asked | R@1 | R@5 | R@10 | MedR |",
            "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for glob in ("*/panda/*", None):
            for augment in (False, True):
                for by, together in product(("mean", "moment", "frame"), (False, True)):
                    own, total = ranks(index, dataset, by=by, augment=augment, path_glob=glob, together=together)
                    figures = rank_figures(own)
                    where = f"{total} clips of {'videos/panda' if glob else 'videos'}"
                    cells = " | ".join(f"{100 * figures[name]:.1f}" for name in ("R@1", "R@5", "R@10"))
                    form = "Vanilla, bundled set" if augment else "plain"
                    asked = "together" if together else "alone"
                    lines.append(f"| {where} | {form} | {by} | {asked} | {cells} | {figures['median rank']:g} |")
                    print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
