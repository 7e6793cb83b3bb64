"""Time an index of 100,000 frame vectors: open, search, change the reference set.

    python benchmarks/refset_use.py [--segments 100000] [--pairs 1000] [--dim 640]

The vectors are random (clustered, so that neighbours differ), without videos and model. The output is the figures of
docs/video-index.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from impart.config import Settings, VanillaSettings
from impart.encoders.base import EncoderTraits, Float32, ImageEmbeddings, ImageInput, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.video.index.index import Query, VideoIndex
from impart.video.index.store import Store, VideoRecord, path_id
from impart.video.index.writer import SegmentChunk, Writer

PER_VIDEO = 100
RETRIEVAL_DIM = 256


class RandomEncoder:
    """Encodes a text to a random vector; images are not encoded."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    @property
    def traits(self) -> EncoderTraits:
        return EncoderTraits(
            id="random",
            dim=self._dim,
            retrieval_dim=RETRIEVAL_DIM,
            own_retrieval=True,
            image_size_px=224,
            context_tokens=64,
        )

    @property
    def fingerprint(self) -> str:
        return f"random-{self._dim}"

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        rows = [np.random.default_rng(list(text.encode())).standard_normal(self._dim) for text in texts]
        return l2_normalise(np.stack(rows))


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what:<68} {time.perf_counter() - began:8.3f} s", flush=True)


def reference_set(encoder: RandomEncoder, pairs: int, *, seed: int) -> ReferenceSet:
    rng = np.random.default_rng(seed)
    draw = [l2_normalise(rng.standard_normal((pairs, width))) for width in (encoder.traits.dim,) * 2 + (RETRIEVAL_DIM,)]
    return ReferenceSet.from_arrays(
        [f"pair {i}" for i in range(pairs)],
        image=draw[0],
        text=draw[1],
        retrieval=draw[2],
        encoder_id="random",
        encoder_fingerprint=encoder.fingerprint,
        name=f"random {seed}",
    )


def fill(index: VideoIndex, segments: int) -> list[float]:
    """Commit videos of 100 random segments; return the seconds of each commit."""
    rng = np.random.default_rng(0)
    traits, costs = index.encoder.traits, []
    centres = rng.standard_normal((500, traits.dim + RETRIEVAL_DIM)).astype(np.float32)
    with Writer(Store(index.path)) as writer:
        for number in range(segments // PER_VIDEO):
            around = centres[rng.integers(0, 500, PER_VIDEO)]
            rows = around + rng.standard_normal(around.shape, np.float32)
            vectors = l2_normalise(rows[:, : traits.dim]).astype(np.float16)
            retrieval = l2_normalise(rows[:, traits.dim :]).astype(np.float16)
            path = Path(f"/films/{number:06d}.mp4")
            began = time.perf_counter()
            start_s = np.arange(PER_VIDEO, dtype=np.float64) * 0.25
            chunk = SegmentChunk(
                first=0,
                start_s=start_s,
                end_s=start_s + 0.25,
                weight=np.ones(PER_VIDEO, np.int32),
                vectors=vectors,
                retrieval=retrieval,
                blend=None,
            )
            record = VideoRecord(
                video_id=path_id(path),
                revision="0" * 16,
                path=path,
                size_bytes=1,
                mtime_ns=1,
                content_hash=f"{number:032x}",
                duration_s=25.0,
                width=640,
                height=360,
                codec="h264",
                container="mp4",
                fps=25.0,
                samples=PER_VIDEO,
                segments=PER_VIDEO,
                scene_starts=tuple(range(0, PER_VIDEO, 10)),
                problem=None,
                indexed_at=0.0,
            )
            writer.add_segments(record.video_id, record.revision, chunk)
            writer.commit(record)
            costs.append(time.perf_counter() - began)
            if number % 64 == 63:
                writer.compact()
        writer.compact()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=640)
    parser.add_argument("--only-search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    encoder = RandomEncoder(options.dim)
    if options.only_search:
        began = time.perf_counter()
        index = VideoIndex.open(options.only_search, encoder)
        index.search(text="a dog")
        first_s = time.perf_counter() - began
        imported = "lancedb" in sys.modules
        print(f"{'open and first search, a fresh process':<68} {first_s:8.3f} s  (database imported: {imported})")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index = VideoIndex.open(path, encoder, settings=Settings())
        list(index.add([]))
        with timed(f"writing {options.segments} segments of {options.segments // PER_VIDEO} videos"):
            costs = fill(index, options.segments)
        print(
            f"{'a commit: median / 95th percentile':<68} {statistics.median(costs) * 1000:8.1f} ms / "
            f"{sorted(costs)[int(len(costs) * 0.95)] * 1000:.1f} ms"
        )
        first, second = (reference_set(encoder, options.pairs, seed=seed) for seed in (1, 2))
        with timed(f"use a reference set of {options.pairs} pairs (K = 8)"):
            index.use_references(first, VanillaSettings(k=8, w_img=0.5, w_txt=0.5))
        with timed("use another"):
            index.use_references(second, VanillaSettings(k=8, w_img=0.5, w_txt=0.5))
        subprocess.run([sys.executable, __file__, "--dim", str(options.dim), "--only-search", str(path)], check=True)
        for cached in (True, False):
            if not cached:
                import shutil

                shutil.rmtree(path / "cache")
            index = VideoIndex.open(path, encoder)
            with timed(f"open and first search by mean ({'cache' if cached else 'tables'})"):
                index.search(text="a dog")
        for group in ("video", "scene", "frame"):
            index.search(text="a dog", group=group)
            with timed(f"search, group {group}"):
                index.search(text="a cat", group=group)
        with timed("search without augmentation, group frame"):
            index.search(text="a cat", group="frame", augment=False)
        with timed("search with reasons"):
            index.search(text="a cat", why=True)
        with timed("500 queries at once"):
            index.search_many([Query(text=f"query {i}") for i in range(500)])
        stats = index.stats()
        print(f"{'size on disk':<68} {stats.size_bytes / 1e6:8.1f} MB for {stats.segments} segments")


if __name__ == "__main__":
    main()
