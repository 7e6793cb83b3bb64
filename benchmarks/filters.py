"""Time a search with filters that allow a share of the videos, beside the search of everything.

    python benchmarks/filters.py [--segments 400000] [--videos 4000] [--pairs 1000]

The vectors are random, without videos and model. Scored are all frames for one query, and those of the videos that a
date filter allows; taking them out of the snapshot counts. Both take turns, and the medians of wall clock and CPU time
of all threads are shown.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from frame_ranking import TURNS, K, measure, snapshot_of
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Float32, l2_normalise
from impart.video.index.store import Kind
from impart.video.search.query import SearchOptions
from impart.video.search.scoring import frame_scores
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.derived import Derived
from refset_use import RandomEncoder, reference_set

DIM = 384
SHARES = (0.4, 0.25, 0.1, 0.01)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=400_000)
    parser.add_argument("--videos", type=int, default=4_000)
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args(arguments)
    encoder = RandomEncoder(DIM)
    augmented = AugmentedEncoder(encoder, reference_set(encoder, args.pairs, seed=1), Vanilla(VanillaSettings(k=K)))
    snapshot = _split(snapshot_of(args.segments, DIM, args.pairs), args.videos)
    query = l2_normalise(np.random.default_rng(1).standard_normal((1, DIM)))

    def search(until: float) -> Float32:
        options = SearchOptions(top=10, group="video", by="moment", until=until)
        return frame_scores(query, Derived(snapshot).narrowed(options).snapshot, augmented)

    everything = partial(frame_scores, query, snapshot, augmented)
    lines = ["| of the videos | time of the search | wall | CPU |", "| --- | --- | --- | --- |"]
    for share in SHARES:
        part = partial(search, share * args.videos - 1.5)
        turns = [(measure(everything), measure(part)) for _ in range(TURNS)]
        whole_s, part_s = (np.median(np.array(times), axis=0) for times in zip(*turns, strict=True))  # (2,) wall, CPU
        cells = [f"{1e3 * one:.0f} ms for {1e3 * other:.0f}" for one, other in zip(part_s, whole_s, strict=True)]
        lines.append(f"| {share:.0%} | {part_s[1] / whole_s[1]:.2f} | {cells[0]} | {cells[1]} |")
    print("\n".join(lines))
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _split(snapshot: Snapshot, count: int) -> Snapshot:
    """Make videos of equal length of one, each a second younger than the last."""
    offsets = np.linspace(0, len(snapshot), count + 1).astype(np.int64)
    first, last = offsets[:-1], offsets[1:] - 1
    kind: Kind = "video"
    return dataclasses.replace(
        snapshot,
        video_ids=tuple(map(str, range(count))),
        paths=tuple(Path(f"{number}.mp4") for number in range(count)),
        kinds=(kind,) * count,
        offsets=offsets,
        scenes=first,
        scene_start_s=snapshot.start_s[first],
        scene_end_s=snapshot.end_s[last],
        durations_s=np.diff(offsets) / 4,
        recorded_at=np.arange(count, dtype=np.float64),
        modified_at=np.full(count, np.nan),
    )


if __name__ == "__main__":
    main()
