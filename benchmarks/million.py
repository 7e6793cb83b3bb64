"""Make a large index for measurements: real embeddings of the bundled model, mixed and with noise.

    python benchmarks/million.py /tmp/million/index --data ../shared/data                 # 1,000,000 segments, 3 GB
    python benchmarks/million.py /tmp/small/index --data ../shared/data --segments 100000

Photographs are encoded once. The centre of a scene is a mixture of two of them, so that all scenes differ; its frames
are the centre with noise. Embedding and retrieval embedding of a frame belong to the same mixture, and the bundled
reference set is blended in as by indexing. Nine tenths of the segments are films of 20 minutes with scenes of 2 to 15
seconds; the others are clips of 2 to 10 seconds, and photos. No file of these names exists: only the index is made.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.images import load_image
from impart.video.index.index import VideoIndex
from impart.video.index.store import VideoRecord, path_id
from impart.video.index.writer import CHUNK_ROWS, SegmentChunk, Writer

FPS, FILM_S = 4, 1200
FOLDERS = ("images/flickr8k", "images/openstax", "images/imagenet_sample")
PHOTOS = 4000
NOISE = 0.25
"""Length of the noise of a frame; the centre of its scene has length 1."""


def photos(data: Path, count: int) -> list[Path]:
    """List photographs of the development data, the same at each call."""
    files = [path for folder in FOLDERS for path in sorted((data / folder).rglob("*.jpg"))]
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count].tolist()]


def encoded(encoder: AugmentedEncoder, data: Path, kept: Path, count: int) -> ImageEmbeddings:
    """Encode photographs, or read what an earlier run kept."""
    if kept.is_file():
        with np.load(kept) as stored:
            if len(stored["embeddings"]) >= count:
                return ImageEmbeddings(stored["embeddings"][:count], stored["retrieval"][:count])
    files, rows = iter(photos(data, count)), []
    while batch := list(islice(files, 64)):
        rows.append(encoder.base.encode_images([load_image(file)[0] for file in batch]))
    found = ImageEmbeddings(
        np.concatenate([one.embeddings for one in rows]), np.concatenate([one.retrieval for one in rows])
    )
    np.savez(kept, embeddings=found.embeddings, retrieval=found.retrieval)
    return found


class Frames:
    """Makes the frames of scenes out of encoded photographs."""

    def __init__(self, of: ImageEmbeddings, seed: int) -> None:
        self._of, self._rng = of, np.random.default_rng(seed)

    def scene_lengths(self, count: int, low: int, high: int) -> np.ndarray:
        """Draw lengths (in segments) of scenes that have `count` segments together."""
        lengths = self._rng.integers(low, high + 1, count // low + 1)
        ends = np.cumsum(lengths)
        last = int(np.searchsorted(ends, count))
        lengths = lengths[: last + 1].copy()
        lengths[-1] -= ends[last] - count
        return lengths

    def make(self, lengths: np.ndarray) -> ImageEmbeddings:
        """Make the frames of scenes of these lengths."""
        scenes, total = len(lengths), int(lengths.sum())
        pair = self._rng.integers(0, len(self._of.embeddings), (scenes, 2))
        share = self._rng.uniform(0.6, 0.95, (scenes, 1)).astype(np.float32)
        sides = []
        for vectors in (self._of.embeddings, self._of.retrieval):
            centres = l2_normalise(share * vectors[pair[:, 0]] + (1 - share) * vectors[pair[:, 1]])
            noise = self._rng.standard_normal((total, vectors.shape[1]), np.float32) / np.sqrt(vectors.shape[1])
            sides.append(l2_normalise(np.repeat(centres, lengths, axis=0) + NOISE * noise))
        return ImageEmbeddings(*sides)


def videos(frames: Frames, segments: int) -> Iterator[tuple[Path, np.ndarray]]:
    """Draw paths and the lengths of the scenes of videos with `segments` segments together."""
    rng = np.random.default_rng(1)
    left, number = segments, 0
    for film in range(int(0.9 * segments / (FILM_S * FPS))):
        yield Path(f"/library/films/{film % 20:02d}/film {film:04d}.mp4"), frames.scene_lengths(FILM_S * FPS, 8, 60)
        left -= FILM_S * FPS
    while left > 0:
        photo = number % 5 == 0
        count = 1 if photo else min(left, int(rng.integers(8, 41)))
        name = f"photos/{number % 50:02d}/photo {number:06d}.jpg" if photo else f"clips/clip {number:06d}.mp4"
        yield Path("/library") / name, np.array([count]) if count < 16 else np.array([count // 2, count - count // 2])
        left, number = left - count, number + 1


def make_index(folder: Path, data: Path, segments: int, *, kept: Path | None = None) -> None:
    """Write the index.

    Args:
        kept: folder with the encoded photographs of an earlier run; None = beside the index.
    """
    index = VideoIndex.open(folder)
    for _ in index.add([]):
        pass
    encoder = index.encoder
    assert isinstance(encoder, AugmentedEncoder)
    frames = Frames(encoded(encoder, data, (kept or folder.parent) / "photos.npz", PHOTOS), seed=2)
    number = np.float16 if index.manifest.index.precision == "float16" else np.float32
    with Writer(index._store) as writer:
        waiting: list[tuple[Path, np.ndarray]] = []
        done = 0
        for path, lengths in videos(frames, segments):
            waiting.append((path, lengths))
            if sum(int(one.sum()) for _, one in waiting) < CHUNK_ROWS:
                continue
            done += _write(writer, encoder, frames, waiting, number)
            waiting.clear()
            print(f"\r{done} of {segments} segments", end="", flush=True)
        _write(writer, encoder, frames, waiting, number)
        print()
        writer.compact(last=True)
        index._save_cache()


def _write(
    writer: Writer, encoder: AugmentedEncoder, frames: Frames, batch: list[tuple[Path, np.ndarray]], number: type
) -> int:
    """Write some videos, each with one commit; return their segments."""
    done = 0
    for path, lengths in batch:
        made = frames.make(lengths)
        count = len(made.embeddings)
        start_s = np.arange(count) / FPS
        scenes = np.cumsum(lengths) - lengths
        revision = path_id(path)
        writer.add_segments(
            path_id(path),
            revision,
            SegmentChunk(
                first=0,
                start_s=start_s,
                end_s=start_s + 1 / FPS,
                weight=np.ones(count, np.int32),
                vectors=made.embeddings.astype(number),
                retrieval=made.retrieval.astype(number),
                blend=encoder.blend(made),
            ),
        )
        photo = path.suffix == ".jpg"
        writer.commit(
            VideoRecord(
                video_id=path_id(path),
                revision=revision,
                path=path,
                size_bytes=1,
                mtime_ns=1,
                content_hash=revision,
                duration_s=count / FPS,
                width=640,
                height=360,
                codec="mjpeg" if photo else "h264",
                container="jpg" if photo else "mp4",
                fps=24.0,
                samples=count,
                segments=count,
                scene_starts=tuple(scenes.tolist()),
                problem=None,
                indexed_at=0.0,
                kind="photo" if photo else "video",
                scene_start_s=tuple(start_s[scenes].tolist()),
                scene_end_s=tuple((start_s[scenes] + lengths / FPS).tolist()),
                scene_kinds=("cut",) * len(scenes),
            )
        )
        done += count
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="folder of the new index")
    parser.add_argument("--data", type=Path, required=True, help="folder of the development data")
    parser.add_argument("--segments", type=int, default=1_000_000)
    arguments = parser.parse_args()
    arguments.index.parent.mkdir(parents=True, exist_ok=True)
    make_index(arguments.index, arguments.data, arguments.segments)


if __name__ == "__main__":
    main()
