"""Time the ranking of frames against one plain product of the same size.

    python benchmarks/frame_ranking.py [--segments 1000000] [--dim 384] [--queries 1 16] [--pairs 1000]

The vectors are random, without videos and model. Each line has the seconds of the plain product `queries @ vectors.T`
in float32, of `frame_scores`, and their ratio: wall clock, and CPU time of all threads. Both are measured in turns, so
that other work on the machine slows both, and the median of the turns counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from impart.blending.base import Blend
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import DecodeSettings, IndexSettings, VanillaSettings
from impart.encoders.base import Float32, l2_normalise
from impart.video.index.manifest import IndexManifest
from impart.video.search.scoring import frame_scores
from impart.video.search.snapshot import Snapshot
from refset_use import RETRIEVAL_DIM, RandomEncoder, reference_set

K = 8
TURNS = 5


def snapshot_of(segments: int, dim: int, pairs: int) -> Snapshot:
    """Make a snapshot of one video with random vectors and, where there are pairs, random blends."""
    rng = np.random.default_rng(0)
    vectors = np.empty((segments, dim), np.float16)
    for first in range(0, segments, 65_536):
        part = vectors[first : first + 65_536]
        part[:] = l2_normalise(rng.standard_normal(part.shape, np.float32))
    blend = None
    if pairs:
        shape = (segments, K)
        weights = (rng.random(shape, np.float32) / K).astype(np.float32)
        blend = Blend(rng.integers(0, pairs, shape, np.int32), weights, weights, np.ones(segments, np.float32))
    manifest = IndexManifest(
        encoder_id="random",
        encoder_fingerprint=f"random-{dim}",
        dim=dim,
        retrieval_dim=RETRIEVAL_DIM,
        decode=DecodeSettings(),
        index=IndexSettings(),
        augmentation=None,
        versions={},
        created_at="",
    )
    start_s = np.arange(segments, dtype=np.float64) * 0.25
    return Snapshot(
        state="",
        manifest=manifest,
        video_ids=("0",),
        paths=(Path("0.mp4"),),
        offsets=np.array([0, segments]),
        scenes=np.array([0]),
        start_s=start_s,
        end_s=start_s + 0.25,
        weight=np.ones(segments, np.int32),
        vectors=vectors,
        blend=blend,
        scene_start_s=start_s[:1],
        scene_end_s=start_s[-1:] + 0.25,
        durations_s=start_s[-1:] + 0.25,
        recorded_at=np.array([np.nan]),
        modified_at=np.array([np.nan]),
        kinds=("video",),
        read_retrieval=lambda: np.zeros((segments, 0), np.float16),
    )


def measure(work: Callable[[], Float32]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--pairs", type=int, default=1_000)
    options = parser.parse_args()
    encoder = RandomEncoder(options.dim)
    augmented = AugmentedEncoder(encoder, reference_set(encoder, options.pairs, seed=1), Vanilla(VanillaSettings(k=K)))
    snapshot = snapshot_of(options.segments, options.dim, options.pairs)
    plain = snapshot.vectors.astype(np.float32)
    print(f"{options.segments} segments, width {options.dim}; seconds of the product / of the ranking (ratio)")
    for count in options.queries:
        queries = l2_normalise(np.random.default_rng(1).standard_normal((count, options.dim)))
        for name, used in (("base vectors", None), (f"{options.pairs} reference pairs", augmented)):
            product = partial(np.matmul, queries, plain.T)
            ranking = partial(frame_scores, queries, snapshot, used)
            turns = [(measure(product), measure(ranking)) for _ in range(TURNS)]
            products, rankings = (np.array(times) for times in zip(*turns, strict=True))  # (turns, 2)
            cells = [
                f"{what} {np.median(alone):.3f} / {np.median(ranked):.3f} ({np.median(ranked / alone):.1f})"
                for what, alone, ranked in zip(("wall", "CPU"), products.T, rankings.T, strict=True)
            ]
            print(f"{count:>3} queries, {name:<22} {',  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
